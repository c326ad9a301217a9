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
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.channels import EspaSettings
from edge.checked import SettingsError, build
from edge.sinks import Page, Reply, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.espa import (
    MAX_BLOCK_OCTETS,
    Block,
    Decoder,
    EspaPager,
    bcc,
    decode_block,
    encode_block,
    page_block,
)
from edge.sinks.espa_station import EspaStation
from edge.sinks.line import LineHeld, printable
from tests.edge.brokers import free_port

FALL = Page("p1", "12", "FALL? RM 12 BED A")
FALL_OCTETS = bytes.fromhex(
    "01 31 02 31 1F 31 32 1E 32 1F 46 41 4C 4C 3F 20 52 4D 20 31 32 20 42 45 44 20 41"
    "1E 33 1F 32 1E 34 1F 33 1E 35 1F 32 1E 36 1F 31 03 0E"
)
CANCEL_OCTETS = bytes.fromhex(
    "01 31 02 31 1F 31 32 1E 32 1F 46 41 4C 4C 3F 20 52 4D 20 31 32 20 42 45 44 20 41 1E 34 1F 31 03 0C"
)
INCIDENT_A = Page("p1", "12", "FALL? RM 12 BED A", incident="incident-a")
INCIDENT_B = Page("p2", "12", "FALL? RM 14 BED B", incident="incident-b")
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
        self, variant: str = "poll-select", attempts: int = 2, ack_wait_s: float = 0.2, **more: Any
    ) -> EspaPager:
        settings = EspaSettings(
            port=self.station.port,
            url=self.station.url,
            variant=variant,  # type: ignore[arg-type]
            attempts=attempts,
            ack_wait_s=ack_wait_s,
            **more,
        )
        pager = EspaPager("espa-1", settings, trace=lambda way, octets: self.line.append((way, octets)))
        self.pagers.append(pager)
        return pager

    def said(self, way: str) -> bytes:
        return b"".join(octets for w, octets in self.line if w == way)

    def close(self) -> None:
        for pager in self.pagers:
            pager.close()
        self.station.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own station needs no time between transactions."""
    monkeypatch.setattr("edge.sinks.espa._PAUSE_S", 0.05)
    monkeypatch.setattr("edge.sinks.espa._PAUSE_AFTER_PAGE_S", 0.05)
    monkeypatch.setattr("edge.sinks.espa._REOPEN_S", 0.05)


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
    pager = EspaPager("espa-1", EspaSettings(port=home.station.port, attempts=1), echo_the_ack)
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


@pytest.mark.alone
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


@pytest.mark.alone
def test_a_slow_station_has_a_second_between_a_check_and_a_page(tmp_path: Path) -> None:
    with EspaStation.on_pty(tmp_path / "pager", lambda *page: None) as station:
        sent_s: list[float] = []
        pager = EspaPager("espa-1", EspaSettings(port=station.port), lambda *_: sent_s.append(time.monotonic()))
        pager.check()
        ended_s = sent_s[-1]
        sent_s.clear()
        pager.deliver(FALL)
        pager.close()
    assert 0.99 < sent_s[0] - ended_s < 1.5


def test_a_line_that_goes_and_comes_back_is_opened_again(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []
    link = tmp_path / "pager"
    pager = EspaPager("espa-1", EspaSettings(port=str(link), ack_wait_s=0.2, attempts=1))
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
    with pytest.raises(LineHeld, match="another program has it"):
        home.pager(attempts=1).deliver(FALL)


@pytest.mark.alone
def test_a_line_that_takes_nothing_more_costs_a_bounded_time() -> None:
    master, slave = pty.openpty()  # nobody reads the master
    tty.setraw(slave)
    pager = EspaPager("espa-1", EspaSettings(port=os.ttyname(slave), ack_wait_s=0.05, attempts=1))
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
    port = free_port()
    pager = EspaPager("espa-1", EspaSettings(url=f"tcp://127.0.0.1:{port}"))
    with pytest.raises(SinkUnavailable, match=f"tcp://127.0.0.1:{port} cannot be opened"):
        pager.deliver(FALL)


@pytest.mark.parametrize("variant", ["poll-select", "select", "block"])
def test_addresses_beep_and_length_are_settings(home: Home, variant: str) -> None:
    home.station._select = b"7\x05"
    home.pager(variant, own="3", station="7", beep="5", most_characters=20).deliver(
        Page("p1", "12", "FALL? RM 12 BED A 03:14")
    )
    assert home.told == [("12", "FALL? RM 12 BED A 03", "3", "1")]
    begins = {"poll-select": b"3\x057\x05", "select": b"7\x05", "block": b"\x01"}
    assert home.said("tx").startswith(begins[variant])
    assert b"\x1e3\x1f5\x1e" in home.said("tx")


def test_their_end_of_a_transaction_is_waited_for(home: Home) -> None:
    home.station.ends = True
    pager = home.pager(ends="theirs")
    for _ in range(2):
        pager.deliver(FALL)
    assert b"\x04" not in home.said("tx")
    assert home.told == [PAGED, PAGED]


@pytest.mark.alone
def test_an_end_that_does_not_come_costs_one_wait_and_is_ours(home: Home) -> None:
    began_s = time.monotonic()
    home.pager(ends="theirs", ack_wait_s=0.2).deliver(FALL)
    assert 0.19 < time.monotonic() - began_s < 0.7
    assert home.line[-1] == ("tx", b"\x04")


# -- variant slave ------------------------------------------------------------------------------


def test_a_slave_pages_when_it_is_polled(home: Home) -> None:
    home.station.polls_every_s = 0.1
    home.pager("slave").deliver(FALL)
    assert home.told == [PAGED]
    poll = home.line.index(("tx", b"2\x05")) - 1
    assert home.line[poll:] == [
        ("rx", b"1\x05"),
        ("tx", b"2\x05"),
        ("rx", b"\x06"),
        ("tx", FALL_OCTETS),
        ("rx", b"\x06"),
        ("tx", b"\x04"),
    ]


@pytest.mark.alone
def test_a_slave_that_nobody_polls_says_so_and_nothing_else(home: Home) -> None:
    pager, began_s = home.pager("slave", attempts=3, poll_wait_s=0.3), time.monotonic()
    with pytest.raises(SinkUnavailable, match=r"nobody polled us within 0\.3 s"):
        pager.deliver(FALL)
    assert 0.29 < time.monotonic() - began_s < 0.8
    assert home.line == []


@pytest.mark.alone
def test_an_idle_slave_answers_each_poll_at_once(home: Home) -> None:
    pager = home.pager("slave")
    with attended(pager):
        home.station.polls_every_s = 0.02
        time.sleep(1.0)
        home.station.polls_every_s = 0.0
    assert len(home.station.polls) > 20
    assert sorted(home.station.polls)[len(home.station.polls) // 2] < 0.01
    assert max(home.station.polls) < 0.05
    assert set(home.said("tx")) == {0x04}


def test_a_slave_tries_again_at_the_next_poll(home: Home) -> None:
    home.station.polls_every_s, home.station.refuse, home.station.damage = 0.1, 1, 1
    home.pager("slave", attempts=3).deliver(FALL)
    assert home.told == [PAGED]
    assert home.said("tx").count(b"2\x05") == 3


def test_polls_from_before_anybody_attended_are_not_answered(home: Home) -> None:
    pager = home.pager("slave")
    pager._open()
    os.write(home.station._pty_fds[0], b"1\x05" * 5)
    time.sleep(0.4)
    assert pager.listen(no_wake(), 0.2) == []
    assert home.said("tx") == b""
    os.write(home.station._pty_fds[0], b"1\x051\x051\x05")  # of several at once, the last still waits
    assert pager.listen(no_wake(), 0.2) == []
    assert home.said("tx") == b"\x04"


@pytest.mark.alone
def test_a_slave_is_well_while_it_is_polled(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.espa_station._ANSWER_S", 0.05)
    pager = home.pager("slave", poll_wait_s=0.3)
    with pytest.raises(SinkUnavailable, match=r"nobody has polled us for 0\.3 s"):
        pager.check()
    home.station.polls_every_s = 0.05
    time.sleep(0.4)  # what came meanwhile nobody heard
    pager.check()
    with attended(pager):
        time.sleep(0.5)
    began_s = time.monotonic()
    pager.check()  # it knows already
    assert time.monotonic() - began_s < 0.05
    home.station.polls_every_s = 0.0
    with attended(pager):
        time.sleep(0.8)
    began_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match="nobody has polled"):
        pager.check()
    assert time.monotonic() - began_s < 0.05


def test_a_slave_tells_a_select_from_a_poll(home: Home) -> None:
    pager = home.pager("slave", status_acknowledges=("5",))
    home.station.polls_every_s = 0.05
    pager.deliver(INCIDENT_A)
    home.station.tell(status("5"))
    assert heard(pager) == [Reply("p1", "incident-a", by="pager 12", acknowledges=True)]
    assert told(home) == [b"\x06"]


# -- what comes back ----------------------------------------------------------------------------


def status(value: str, address: str = "12", text: str = "") -> list[tuple[str, str]]:
    return [("1", address), *([("2", text)] if text else []), ("7", value)]


def no_wake() -> int:
    """Return a descriptor that can never be read."""
    return _NEVER[0]


_NEVER = os.pipe()


def heard(pager: EspaPager, timeout_s: float = 3.0) -> list[Reply]:
    """Return what the pager hears first."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        if replies := pager.listen(no_wake(), 0.2):
            return replies
    return []


@contextlib.contextmanager
def attended(pager: EspaPager) -> Iterator[list[Reply]]:
    """Listen in a thread, as the pager's worker does."""
    wake_r, wake_w = os.pipe()
    replies: list[Reply] = []

    def listen() -> None:
        while not ended.is_set():
            replies.extend(pager.listen(wake_r, 0.5))

    ended = threading.Event()
    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.1)
    try:
        yield replies
    finally:
        ended.set()
        os.write(wake_w, b"x")
        thread.join()
        os.close(wake_r)
        os.close(wake_w)


def told(home: Home, count: int = 1) -> list[bytes]:
    """Return what we answered the station, once it was told so often."""
    until_s = time.monotonic() + 3.0
    while len(home.station.told) < count and time.monotonic() < until_s:
        time.sleep(0.01)
    return home.station.told


def test_a_status_of_the_paging_system_acknowledges_where_the_home_says_so(home: Home) -> None:
    pager = home.pager(status_acknowledges=("5",), status_fails=("4",))
    pager.deliver(INCIDENT_A)
    home.station.tell(status("5"))
    assert heard(pager) == [Reply("p1", "incident-a", by="pager 12", acknowledges=True)]
    home.station.tell(status("4"))
    assert heard(pager) == [Reply("p1", "incident-a", failure="the pager system gives call status 4")]
    assert told(home, 2) == [b"\x06", b"\x06"]


def test_unasked_no_status_means_anything(home: Home) -> None:
    pager = home.pager()
    pager.deliver(INCIDENT_A)
    with attended(pager) as replies:
        for value in "12345":
            home.station.tell(status(value))
        assert told(home, 5) == [b"\x06"] * 5
    assert replies == []


def test_a_status_that_fits_two_calls_acknowledges_neither(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    pager = home.pager(status_acknowledges=("5",), status_fails=("4",))
    pager.deliver(INCIDENT_A)
    pager.deliver(INCIDENT_B)
    with attended(pager) as replies:
        home.station.tell(status("5"))
        home.station.tell(status("5", address="13"))
        home.station.tell(status("5", text="FALL? RM 12"))  # the beginning of one is not the text of one
        told(home, 3)
    assert replies == []
    assert "2 open calls fit this status, so it acknowledges none" in caplog.text
    home.station.tell(status("5", text="FALL? RM 14 BED B"))
    assert heard(pager) == [Reply("p2", "incident-b", by="pager 12", acknowledges=True)]
    home.station.tell(status("4"))  # a page too many is better than one too few
    assert {reply.incident for reply in heard(pager) if reply.failure} == {"incident-a", "incident-b"}


def test_a_page_repeated_is_still_one_call_and_a_cancelled_one_is_none(home: Home) -> None:
    pager = home.pager(status_acknowledges=("5",))
    pager.deliver(INCIDENT_A)
    pager.deliver(INCIDENT_B)
    pager.deliver(Page("p3", "12", "CANCELLED FALL? RM 14 BED B", cancel=True, incident="incident-b"))
    pager.deliver(Page("p4", "12", "FALL? RM 12 BED A ON FLOOR 3 MIN", incident="incident-a"))
    home.station.tell(status("5"))
    assert heard(pager) == [Reply("p4", "incident-a", by="pager 12", acknowledges=True)]


def test_a_call_of_long_ago_is_not_open(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pager = home.pager(status_acknowledges=("5",))
    pager.deliver(INCIDENT_B)
    monkeypatch.setattr("edge.sinks.espa._RECENT_S", 0.2)
    time.sleep(0.2)
    pager.deliver(INCIDENT_A)
    home.station.tell(status("5"))
    assert [reply.incident for reply in heard(pager)] == ["incident-a"]


def test_a_long_number_is_not_told_whole(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pager = home.pager(status_acknowledges=("5",))
    pager.deliver(Page("p1", "07700900123", "FALL?", incident="incident-a"))
    home.station.tell(status("5", address="07700900123", text="FALL?"))
    assert [reply.by for reply in heard(pager)] == ["pager ********123"]
    assert "call status '5' of pager ********123" in caplog.text
    assert "07700900123" not in caplog.text


def test_only_the_latest_calls_are_remembered(home: Home) -> None:
    pager = home.pager()
    for number in range(1000):
        pager._remember(Page(f"p{number}", "12", "FALL?", incident=f"incident-{number}"))
    assert len(pager._recent) == 200


def test_a_damaged_status_is_asked_for_again(home: Home) -> None:
    pager = home.pager(status_acknowledges=("5",))
    pager.deliver(INCIDENT_A)
    home.station.damage_told = 1
    home.station.tell(status("5"))
    assert [reply.acknowledges for reply in heard(pager)] == [True]
    assert told(home, 2) == [b"1\x15", b"\x06"]


@pytest.mark.parametrize("header", ["1", "3", "4", "5"])
def test_a_block_that_is_no_status_is_refused(home: Home, header: str) -> None:
    pager = home.pager(status_acknowledges=("5",))
    pager.deliver(INCIDENT_A)
    with attended(pager) as replies:
        home.station.tell(status("5"), header=header)  # a call to us would find nobody
        assert told(home) == [b"\x15"]
    assert replies == []


def test_a_bridge_sends_its_status_without_ceremony(tcp_home: Home) -> None:
    tcp_home.station.straight = True
    pager = tcp_home.pager("block", status_acknowledges=("5",))
    pager.deliver(INCIDENT_A)
    tcp_home.station.tell(status("5"))
    assert [reply.incident for reply in heard(pager)] == ["incident-a"]
    assert told(tcp_home) == [b"\x06"]


def test_a_block_for_others_on_the_line_is_left_alone(home: Home) -> None:
    pager = home.pager(status_acknowledges=("5",))
    pager.deliver(INCIDENT_A)
    home.line.clear()
    home.station.straight = True
    home.station.tell(status("5"))
    assert pager.listen(no_wake(), 0.3) == []
    assert home.said("tx") == b""


def test_a_station_that_waits_to_be_polled_is_polled(home: Home) -> None:
    home.station.waits_for_polls = True
    pager = home.pager(status_acknowledges=("5",), status_poll_s=0.1)
    pager.deliver(INCIDENT_A)
    pager.listen(no_wake(), 0.3)
    home.station.tell(status("5"))
    assert [reply.incident for reply in heard(pager)] == ["incident-a"]


def test_a_fault_of_the_paging_system_fails_the_check_until_it_is_over(home: Home) -> None:
    pager = home.pager(system_status_fails=("1",))
    with attended(pager):
        home.station.tell([("8", "1")])
        told(home)
    with pytest.raises(SinkUnavailable, match=r"a fault of its own \(system status 1\)"):
        pager.check()
    pager.deliver(FALL)  # it is tried all the same
    with attended(pager):
        home.station.tell([("8", "0")])
        told(home, 2)
    pager.check()


@pytest.mark.alone
def test_a_select_without_a_block_costs_one_wait(home: Home) -> None:
    pager = home.pager(ack_wait_s=0.2)
    pager.check()
    os.write(home.station._pty_fds[0], b"1\x05")
    began_s = time.monotonic()
    pager.listen(no_wake(), 0.1)
    assert time.monotonic() - began_s < 0.4
    assert home.line[-2:] == [("tx", b"\x06"), ("tx", b"\x04")]
    home.station.busy = 0
    pager.deliver(FALL)
    assert home.told == [PAGED]


@pytest.mark.alone
def test_a_queued_page_ends_the_listening_at_once(home: Home) -> None:
    pager, (wake_r, wake_w) = home.pager(), os.pipe()
    pager.check()
    threading.Timer(0.2, os.write, (wake_w, b"x")).start()
    began_s = time.monotonic()
    assert pager.listen(wake_r, 10.0) == []
    assert 0.15 < time.monotonic() - began_s < 0.3
    os.close(wake_r)
    os.close(wake_w)


@pytest.mark.alone
def test_listening_on_a_line_that_is_not_there_waits_before_it_says_so(tmp_path: Path) -> None:
    pager, began_s = EspaPager("espa-1", EspaSettings(port=str(tmp_path / "none"))), time.monotonic()
    with pytest.raises(SinkUnavailable, match="cannot be opened"):
        pager.listen(no_wake(), 0.3)
    assert 0.29 < time.monotonic() - began_s < 0.6


def test_a_far_end_that_hangs_up_while_idle_is_called_again(tcp_home: Home) -> None:
    pager = tcp_home.pager(status_acknowledges=("5",))
    pager.deliver(INCIDENT_A)
    assert tcp_home.station._client is not None
    tcp_home.station._client.shutdown(socket.SHUT_RDWR)
    assert pager.listen(no_wake(), 0.3) == []
    tcp_home.station.tell(status("5"))
    assert [reply.incident for reply in heard(pager)] == ["incident-a"]


def test_a_far_end_that_keeps_hanging_up_is_not_called_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.espa._REOPEN_S", 0.3)
    calls: list[float] = []

    def hang_up_on_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                calls.append(time.monotonic())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up_on_all, daemon=True)
        thread.start()
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        pager, until_s = EspaPager("espa-1", EspaSettings(url=url)), time.monotonic() + 1.5
        while time.monotonic() < until_s:
            with contextlib.suppress(SinkUnavailable):
                pager.listen(no_wake(), 0.1)
        pager.close()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert 3 <= len(calls) <= 6


def test_a_far_end_that_takes_calls_only_to_hang_up_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        pager = EspaPager("espa-1", EspaSettings(url=url, variant="block"))

        def take_a_call_and_hang_up() -> None:
            server.accept()[0].close()

        threading.Timer(0.1, take_a_call_and_hang_up).start()
        with pytest.raises(SinkUnavailable, match="hung up"):
            pager.check()
        pager.close()


@pytest.mark.alone
@pytest.mark.parametrize(("noise", "most_s"), [(b"1\x05", 0.0), (b"x\x15", 0.0), (b"1\x05\x01x", 0.8)])
def test_a_far_end_that_babbles_costs_little_and_holds_up_no_page(noise: bytes, most_s: float) -> None:
    ended = threading.Event()

    def babble() -> None:
        client = server.accept()[0]
        with client, contextlib.suppress(OSError):
            while not ended.is_set():
                client.sendall(noise * 1000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        pager = EspaPager("espa-1", EspaSettings(url=url, ack_wait_s=0.2, attempts=1))
        wake_r, wake_w = os.pipe()
        threading.Timer(0.5, os.write, (wake_w, b"x")).start()
        began_s, began_cpu_s = time.monotonic(), time.thread_time()
        assert pager.listen(wake_r, 10.0) == []
        took_s = time.monotonic() - began_s
        assert took_s < 0.5 + most_s + 0.3
        assert time.thread_time() - began_cpu_s < took_s / 3
        began_s = time.monotonic()
        with pytest.raises(SinkUnavailable):
            pager.deliver(FALL)
        assert time.monotonic() - began_s < 2.0
        ended.set()
        pager.close()
        thread.join()
        os.close(wake_r)
        os.close(wake_w)


class Script:
    """A line on which chosen octets arrive in chosen pieces, and then nothing."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.written = b""

    def wait(self, timeout_s: float, wake: int | None = None) -> bool:
        return bool(self.pieces)

    def read(self) -> bytes:
        return self.pieces.pop(0)

    def time_s(self, octets: int) -> float:
        return 0.0

    def write(self, data: bytes, *, shown: bytes | None = None) -> None:
        self.written += data

    def drop_input(self) -> None:
        self.pieces.clear()

    def close(self) -> None:
        return


@given(
    pieces=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=20),
            st.sampled_from([b"1\x05", b"2\x05", b"\x04", b"\x06", b"1\x15"]),
            blocks,
            st.just(encode_block("2", status("5"))),
        ),
        max_size=12,
    ),
    variant=st.sampled_from(["poll-select", "select", "block", "slave"]),
)
def test_whatever_the_line_says_we_answer_with_ack_nak_and_end_alone(pieces: list[bytes], variant: Any) -> None:
    settings = EspaSettings(port="none", variant=variant, status_acknowledges=("5",), status_fails=("4",))
    pager, line = EspaPager("espa-1", settings), Script(list(pieces))
    pager._remember(INCIDENT_A)
    pager._line, pager._attended_to_s = line, time.monotonic()  # type: ignore[assignment]  # all that is used of it
    replies = pager.listen(no_wake(), 0.05)
    assert set(line.written) <= {0x31, 0x04, 0x06, 0x15}
    assert {(reply.page_id, reply.incident) for reply in replies} <= {("p1", "incident-a")}
    if not any(encode_block("2", status("5"))[-8:] in piece for piece in pieces):
        assert not any(reply.acknowledges and b"5" not in b"".join(pieces) for reply in replies)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"variant": "slave", "status_poll_s": 5.0}, "status_poll_s"),
        ({"variant": "block", "status_poll_s": 5.0}, "status_poll_s"),
        ({"status_poll_s": -1.0}, "status_poll_s"),
        ({"status_acknowledges": ["3", "4"], "status_fails": ["4"]}, "status_fails"),
        ({"poll_wait_s": 0.0}, "poll_wait_s"),
        ({"own": "2"}, "own"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(keys: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build(EspaSettings, {"port": "/dev/ttyUSB1", **keys}, Path("fallwatch.toml"), "")
    assert refused.value.key == key


@pytest.mark.skipif(
    importlib.util.find_spec("digimat") is None,
    reason="digimat-espa is not installed: it builds only by hand",
)
@pytest.mark.parametrize("ends", ["ours", "theirs"])
def test_an_independent_pager_system_takes_our_pages(ends: Any) -> None:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("espa_station.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as peer:
        try:
            pager = EspaPager("espa-1", EspaSettings(port=_line_of(peer), attempts=2, ends=ends))
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
