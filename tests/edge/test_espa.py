from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings import PagerSettings
from edge.sinks import Page, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.espa import (
    MAX_BLOCK_OCTETS,
    Block,
    Decoder,
    EspaPager,
    bcc,
    decode_block,
    encode_block,
    page_block,
    printable,
)
from edge.sinks.espa_station import EspaStation

FALL = Page("p1", "12", "FALL? RM 12 BED A")
FALL_OCTETS = bytes.fromhex(
    "01 31 02 31 1F 31 32 1E 32 1F 46 41 4C 4C 3F 20 52 4D 20 31 32 20 42 45 44 20 41"
    "1E 33 1F 32 1E 34 1F 33 1E 35 1F 32 1E 36 1F 31 03 0E"
)
CANCEL_OCTETS = bytes.fromhex(
    "01 31 02 31 1F 31 32 1E 32 1F 46 41 4C 4C 3F 20 52 4D 20 31 32 20 42 45 44 20 41 1E 34 1F 31 03 0C"
)
PAGED = ("12", "FALL? RM 12 BED A", "3", "1")  # as on_page is told

texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=128)
blocks = st.builds(
    encode_block,
    st.sampled_from("12345"),
    st.lists(st.tuples(st.sampled_from("12345678"), texts), min_size=1, max_size=3),
)
noise = st.binary(max_size=20).map(lambda octets: octets.replace(b"\x01", b""))


@dataclass
class Home:
    """A station on a pty, what it was told, and what went over the line."""

    station: EspaStation
    told: list[tuple[str, ...]]
    line: list[tuple[str, bytes]] = field(default_factory=list)
    pagers: list[EspaPager] = field(default_factory=list)

    def pager(
        self, variant: str = "poll-select", attempts: int = 2, ack_wait_s: float = 0.2, **more: str
    ) -> EspaPager:
        settings = PagerSettings(
            port=self.station.port,
            url=self.station.url,
            variant=variant,  # type: ignore[arg-type]
            attempts=attempts,
            ack_wait_s=ack_wait_s,
            **more,  # type: ignore[arg-type]
        )
        pager = EspaPager("espa-1", settings, trace=lambda way, octets: self.line.append((way, octets)))
        self.pagers.append(pager)
        return pager

    def close(self) -> None:
        for pager in self.pagers:
            pager.close()
        self.station.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own station needs no time between transactions."""
    monkeypatch.setattr("edge.sinks.espa._PAUSE_S", 0.05)
    monkeypatch.setattr("edge.sinks.espa._PAUSE_AFTER_PAGE_S", 0.05)


@pytest.fixture
def home(tmp_path: Path, quick: None) -> Iterator[Home]:
    told: list[tuple[str, ...]] = []
    home = Home(EspaStation.on_pty(tmp_path / "pager", lambda *page: told.append(page)), told)
    yield home
    home.close()


@pytest.fixture
def tcp_home(quick: None) -> Iterator[Home]:
    told: list[tuple[str, ...]] = []
    home = Home(EspaStation.on_tcp(lambda *page: told.append(page)), told)
    yield home
    home.close()


def test_a_page_reaches_the_station(home: Home) -> None:
    home.pager().deliver(FALL)
    assert home.told == [PAGED]
    assert home.line == [
        ("tx", b"1\x052\x05"),  # poll ourselves, select the station
        ("rx", b"\x06"),
        ("tx", FALL_OCTETS),
        ("rx", b"\x06"),
        ("tx", b"\x04"),
    ]


def test_blocks_are_those_of_the_published_vectors() -> None:
    assert len(FALL_OCTETS) == 45
    assert page_block(FALL) == FALL_OCTETS
    assert page_block(Page("p1", "12", "FALL? RM 12 BED A", cancel=True)) == CANCEL_OCTETS
    assert encode_block("1", [("1", "A")]) == bytes.fromhex("01 31 02 31 1F 41 03 5F")
    assert bcc(bytes.fromhex("31 02 31 1F 41 03")) == 0x5F


def test_a_less_urgent_page_beeps_less_and_is_sent_once() -> None:
    block = decode_block(page_block(Page("p2", "20", "RM 3 SENSOR FLAT", Urgency.NORMAL)))
    assert block == Block(
        "1", (("1", "20"), ("2", "RM 3 SENSOR FLAT"), ("3", "1"), ("4", "3"), ("5", "1"), ("6", "3"))
    )
    assert decode_block(page_block(Page("p3", "20", "X", Urgency.HIGH))).data("6") == "2"


@given(
    header=st.sampled_from("12345"), records=st.lists(st.tuples(st.sampled_from("12345678"), texts), min_size=1)
)
def test_a_block_reads_back_as_written(header: str, records: list[tuple[str, str]]) -> None:
    assert decode_block(encode_block(header, records)) == Block(header, tuple(records))


@given(block=blocks, data=st.data())
def test_one_flipped_bit_is_always_noticed(block: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(block) - 1))
    damaged = bytearray(block)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match=r"BCC|no block"):
        decode_block(bytes(damaged))


@given(octets=st.binary(max_size=60))
def test_no_octets_read_as_a_block_raise_anything_but_a_value_error(octets: bytes) -> None:
    framed = b"\x01" + octets + b"\x03"
    for candidate in (octets, framed + bytes((bcc(framed[1:]),))):
        try:
            decode_block(candidate)
        except ValueError:
            continue


def test_a_stray_separator_before_the_end_is_accepted() -> None:
    octets = b"1\x021\x1f12\x1e2\x1fHELP\x1e\x03"
    assert decode_block(b"\x01" + octets + bytes((bcc(octets),))) == Block("1", (("1", "12"), ("2", "HELP")))


@pytest.mark.parametrize("code", range(0x20))
def test_a_bcc_that_looks_like_a_control_code_ends_the_block(code: int) -> None:
    wanted = [encode_block("1", [("1", a + b)]) for a in map(chr, range(0x20, 0x7F)) for b in " 0@P`p"]
    block = next(octets for octets in wanted if octets[-1] == code)
    assert Decoder().feed(block + b"\x041\x05") == [block, b"\x04", b"1\x05"]


@given(
    parts=st.lists(st.one_of(blocks, st.sampled_from([b"\x04", b"1\x05", b"2\x05", b"\x06", b"1\x15"]), noise)),
    cut=st.integers(0),
)
def test_any_split_says_the_same(parts: list[bytes], cut: int) -> None:
    stream = b"".join(parts)
    decoder, at = Decoder(), cut % (len(stream) + 1)
    assert decoder.feed(stream[:at]) + decoder.feed(stream[at:]) == Decoder().feed(stream)


@given(before=st.binary(max_size=40), block=blocks)
def test_a_block_after_noise_and_an_end_is_heard(before: bytes, block: bytes) -> None:
    # Two EOTs, as the first may be the BCC of a block that the noise held.
    assert Decoder().feed(before + b"\x04\x04" + block)[-1] == block


def test_a_block_given_up_halfway_is_forgotten() -> None:
    assert Decoder().feed(FALL_OCTETS[:20] + b"\x04" + b"2\x05" + FALL_OCTETS) == [b"\x04", b"2\x05", FALL_OCTETS]


def test_endless_noise_is_counted_and_not_kept() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x01" + b"x" * 100_000) == []
    assert decoder.dropped_octets > 100_000 - MAX_BLOCK_OCTETS
    assert decoder.feed(FALL_OCTETS) == [FALL_OCTETS]


def test_a_long_text_is_cut() -> None:
    assert printable("\u00df" * 100) == "s" * 128
    assert len(encode_block("1", [("2", "x" * 500)])) == 1 + 2 + 2 + 128 + 2


@given(text=st.text(max_size=300))
def test_any_text_becomes_at_most_128_printable_characters(text: str) -> None:
    spelt = printable(text)
    assert len(spelt) <= 128
    assert all(" " <= char <= "~" for char in spelt)
    assert printable(spelt) == spelt


def test_accents_and_ligatures_keep_their_letters() -> None:
    assert printable("Caf\u00e9 \u2013 Stra\u00dfe\n\u0141\u00f3d\u017a \u65e5") == "Cafe - Strasse Lodz ?"


@pytest.mark.parametrize(
    ("variant", "sent"),
    [
        ("poll-select", [b"1\x052\x05", FALL_OCTETS, b"\x04"]),
        ("select", [b"2\x05", FALL_OCTETS, b"\x04"]),
        ("block", [FALL_OCTETS, b"\x04"]),
    ],
)
def test_each_variant_says_what_it_should(home: Home, variant: str, sent: list[bytes]) -> None:
    home.pager(variant).deliver(FALL)
    assert [octets for way, octets in home.line if way == "tx"] == sent
    assert home.told == [PAGED]


def test_a_cancelled_page_is_a_reset_call(home: Home) -> None:
    home.pager().deliver(Page("p1", "12", "FALL? RM 12 BED A", cancel=True))
    assert home.told == [("12", "FALL? RM 12 BED A", "1", "")]


def test_a_damaged_block_is_sent_again(home: Home) -> None:
    home.station.damage = 1
    home.pager().deliver(FALL)
    assert home.told == [PAGED]
    assert b"".join(octets for way, octets in home.line if way == "rx") == b"\x061\x15\x06\x06"


def test_a_second_ack_to_the_select_does_not_pass_for_one_to_the_block(home: Home) -> None:
    heard: list[bytes] = []

    def echo_the_ack(way: str, octets: bytes) -> None:
        if way == "rx" and not heard:
            heard.append(octets)
            os.write(home.station._pty_fds[0], octets)

    home.station.refuse = 1
    pager = EspaPager("espa-1", PagerSettings(port=home.station.port, attempts=1), echo_the_ack)
    with pytest.raises(SinkUnavailable, match="refused the block"):
        pager.deliver(FALL)
    assert heard == [b"\x06"]
    pager.close()


def test_a_busy_station_is_asked_again(home: Home) -> None:
    home.station.busy = 1
    home.pager().deliver(FALL)
    assert home.told == [PAGED]


@pytest.mark.parametrize(
    ("digit", "reason"),
    [
        ("1", "the station refused the block with code 1 \\(transmission error\\)"),
        ("3", "the station refused the block with code 3"),
        ("", "the station refused the block$"),
    ],
)
def test_a_station_that_keeps_refusing_makes_the_page_wait(home: Home, digit: str, reason: str) -> None:
    home.station.refuse, home.station.refuse_digit = 2, digit
    with pytest.raises(SinkUnavailable, match=reason) as failed:
        home.pager().deliver(FALL)
    assert failed.value.sink == "espa-1"
    assert (home.station.refuse, home.told) == (0, [])
    assert [octets for _, octets in home.line].count(b"\x04") == 2  # the line is let go after each attempt


def test_a_silent_station_costs_a_bounded_time(home: Home) -> None:
    home.station.silent = True
    began_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match=r"no answer to the select within 0\.2 s"):
        home.pager(attempts=2).deliver(FALL)
    assert time.monotonic() - began_s < 2 * 0.2 + 0.05 + 0.5
    home.station.silent = False
    home.pagers[0].deliver(FALL)
    assert home.told == [PAGED]


def test_an_end_from_the_station_changes_nothing(home: Home) -> None:
    home.station.ends = True
    pager = home.pager()
    pager.deliver(FALL)
    pager.deliver(FALL)
    assert home.told == [PAGED, PAGED]


def test_a_page_without_number_or_text_is_parked(home: Home) -> None:
    for page in (Page("p", " ", "HELP"), Page("p", "12", "")):
        with pytest.raises(SinkRejected):
            home.pager().deliver(page)
    assert home.line == []


@pytest.mark.parametrize(
    ("variant", "sent"), [("poll-select", b"1\x052\x05\x04"), ("select", b"2\x05\x04"), ("block", b"")]
)
def test_a_check_asks_and_lets_go(home: Home, variant: str, sent: bytes) -> None:
    home.pager(variant).check()
    assert b"".join(octets for way, octets in home.line if way == "tx") == sent
    assert home.told == []


def test_a_check_of_a_silent_station_fails(home: Home) -> None:
    home.station.silent = True
    with pytest.raises(SinkUnavailable, match="no answer"):
        home.pager().check()


def test_a_slow_station_has_a_second_between_a_check_and_a_page(tmp_path: Path) -> None:
    with EspaStation.on_pty(tmp_path / "pager", lambda *page: None) as station:
        sent_s: list[float] = []
        pager = EspaPager("espa-1", PagerSettings(port=station.port), lambda *_: sent_s.append(time.monotonic()))
        pager.check()
        ended_s = sent_s[-1]
        sent_s.clear()
        pager.deliver(FALL)
        pager.close()
    assert 0.99 < sent_s[0] - ended_s < 1.5


def test_a_line_that_goes_and_comes_back_is_opened_again(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []
    link = tmp_path / "pager"
    pager = EspaPager("espa-1", PagerSettings(port=str(link), ack_wait_s=0.2, attempts=1))
    for _ in range(2):
        with EspaStation.on_pty(link, lambda *page: told.append(page)):
            pager.deliver(FALL)
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match="cannot be opened"):
                pager.check()
    assert told == [PAGED, PAGED]
    pager.close()


def test_a_line_has_one_owner(home: Home) -> None:
    home.pager().deliver(FALL)
    with pytest.raises(SinkUnavailable, match="cannot be opened"):
        home.pager(attempts=1).deliver(FALL)


def test_a_line_that_takes_nothing_more_costs_a_bounded_time() -> None:
    master, slave = pty.openpty()  # nobody reads the master
    tty.setraw(slave)
    pager = EspaPager("espa-1", PagerSettings(port=os.ttyname(slave), ack_wait_s=0.05, attempts=1))
    os.set_blocking(slave, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(slave, b"x")
    began_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match="the line broke"):
        pager.deliver(FALL)
    pager.close()
    assert time.monotonic() - began_s < 1.0
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("line_format", ["8N1", "7E2", "7O1"])
def test_a_page_goes_over_any_line_format(home: Home, line_format: str) -> None:
    home.pager(format=line_format).deliver(FALL)
    assert home.told == [PAGED]


def test_a_page_goes_by_tcp_and_survives_a_dropped_connection(tcp_home: Home) -> None:
    pager = tcp_home.pager(attempts=1)
    pager.deliver(FALL)
    assert tcp_home.station._client is not None
    tcp_home.station._client.shutdown(socket.SHUT_RDWR)
    pager.deliver(FALL)  # finds the connection gone before it says a word, so one attempt is enough
    assert tcp_home.told == [PAGED, PAGED]


def test_a_tcp_bridge_takes_bare_blocks(tcp_home: Home) -> None:
    tcp_home.pager("block").deliver(FALL)
    assert tcp_home.told == [PAGED]


def test_nobody_at_the_tcp_address_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pager = EspaPager("espa-1", PagerSettings(url=f"tcp://127.0.0.1:{port}"))
    with pytest.raises(SinkUnavailable, match=f"tcp://127.0.0.1:{port} cannot be opened"):
        pager.deliver(FALL)


@pytest.mark.skipif(
    importlib.util.find_spec("digimat") is None,
    reason="digimat-espa is not installed: it builds only by hand",
)
def test_an_independent_pager_system_takes_our_pages() -> None:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("espa_station.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as peer:
        try:
            pager = EspaPager("espa-1", PagerSettings(port=_line_of(peer), attempts=2))
            pager.deliver(FALL)
            assert json.loads(_line_of(peer)) == {
                "1": "12", "2": "FALL? RM 12 BED A", "3": "2", "4": "3", "5": "2", "6": "1"
            }  # fmt: skip
            pager.check()
            pager.deliver(Page("p1", "12", "FALL? RM 12 BED A", cancel=True))
            assert json.loads(_line_of(peer)) == {"1": "12", "2": "FALL? RM 12 BED A", "4": "1"}
            pager.close()
        finally:
            peer.terminate()


def _line_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 10.0)[0], "the peer said nothing for 10 s"
    return process.stdout.readline().decode().strip()
