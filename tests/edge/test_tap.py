from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.channels import TapSettings
from edge.checked import SettingsError, build
from edge.sinks import Page, SinkRejected, SinkUnavailable
from edge.sinks.tap import BLOCK_CHARACTERS, Decoder, TapSink, checksum, encode_blocks
from tests.edge.brokers import free_port
from tests.edge.tap_terminal import Terminal

FALL = Page("p1", "12", "FALL? RM 12 BED A")
FALL_BLOCK = bytes.fromhex("02 31 32 0D 46 41 4C 4C 3F 20 52 4D 20 31 32 20 42 45 44 20 41 0D 03 34 36 3E 0D")
PAGED = ("12", "FALL? RM 12 BED A")

texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=900)


@dataclass
class Home:
    """A terminal, its url or port, and what went over the line."""

    terminal: Terminal
    secrets: Path
    url: str = ""
    port: str = ""
    line: list[tuple[str, bytes]] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)  # monotonic, of each in ``line``

    def sink(self, answer_wait_s: float = 0.5, **more: Any) -> TapSink:
        settings = TapSettings(url=self.url, port=self.port, answer_wait_s=answer_wait_s, **more)
        return TapSink("tap-1", settings, self.secrets, self._trace)

    def _trace(self, way: str, octets: bytes) -> None:
        self.line.append((way, octets))
        self.times_s.append(time.monotonic())

    def said(self, way: str) -> bytes:
        return b"".join(octets for w, octets in self.line if w == way)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own terminal wakes up at the first call."""
    monkeypatch.setattr("edge.sinks.tap._CALL_EVERY_S", 0.3)
    monkeypatch.setattr("edge.sinks.tap._FAREWELL_S", 0.3)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    terminal = Terminal()
    with terminal.on_tcp() as url:
        yield Home(terminal, tmp_path, url=url)


def test_a_page_reaches_the_terminal(home: Home) -> None:
    home.sink().deliver(FALL)
    assert home.terminal.pages == [PAGED]
    assert home.said("tx") == b"\r\x1bPG1\r" + FALL_BLOCK + b"\x04\r"
    assert home.said("rx").startswith(b"ID=110 1.8\r")
    assert home.said("rx").endswith(b"\r\x06\r115 BYE\r\x1b\x04\r")


def test_blocks_are_those_of_the_published_vectors() -> None:
    assert encode_blocks("123", "ABC") == [bytes.fromhex("02 31 32 33 0D 41 42 43 0D 03 31 37 3B 0D")]
    assert encode_blocks("12", "FALL? RM 12 BED A") == [FALL_BLOCK]
    assert checksum(b"\x02123\rABC\r\x03") == b"17;"
    assert checksum(b"\x7f" * 40) == b"3=8"  # 0x13D8: only 12 bits count


@given(fields=st.tuples(texts, texts))
def test_long_fields_go_in_blocks_that_read_back(fields: tuple[str, str]) -> None:
    together = ""
    blocks = encode_blocks(*fields)
    for number, block in enumerate(blocks):
        body, control = block[1:-5], block[-5:-4]
        assert len(body) <= BLOCK_CHARACTERS
        assert block == b"\x02" + body + control + checksum(b"\x02" + body + control) + b"\r"
        assert (control == b"\x03") == (number == len(blocks) - 1)
        assert (control == b"\x1f") == (not body.endswith(b"\r"))
        together += body.decode("ascii")
    assert together == "".join(f"{part}\r" for part in fields)


@given(length=st.integers(240, 252), rest=st.integers(1, 10))
def test_no_field_is_torn_from_its_end(length: int, rest: int) -> None:
    for block in encode_blocks("1" * length, "2" * rest):
        assert block[1:2] != b"\r"


@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(
                [b"ID=", b"\r\x06\r", b"\r\x15\r", b"\r\x1e\r", b"\x1b[p\r", b"\r\x1b\x04\r", b"\x13"]
            ),
            st.binary(max_size=10),
        )
    ),
    cut=st.integers(0),
)
def test_any_split_says_the_same(parts: list[bytes], cut: int) -> None:
    stream = b"".join(parts)
    decoder, whole, at = Decoder(), Decoder(), cut % (len(stream) + 1)
    assert decoder.feed(stream[:at]) + decoder.feed(stream[at:]) == whole.feed(stream)
    assert decoder.paused == whole.paused


@given(before=st.binary(max_size=300))
def test_an_answer_on_a_line_of_its_own_is_heard_after_anything(before: bytes) -> None:
    assert Decoder().feed(before + b"\r\x06\r")[-1] == b"\x06"


@given(noise=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="="), min_size=1))
def test_an_ack_at_the_end_of_a_line_is_no_answer(noise: str) -> None:
    line = noise.encode("ascii")[:200] + b"\x06"
    assert Decoder().feed(line + b"\r") == [line]


def test_endless_noise_is_not_kept() -> None:
    decoder = Decoder()
    assert decoder.feed(b"x" * 100_000) == []
    assert len(decoder.feed(b"\r")[0]) <= 256


@pytest.mark.parametrize("how", ["echo", "parity", "octets", "junk", "patience"])
def test_a_terminal_with_habits_takes_pages(home: Home, how: str) -> None:
    terminal = home.terminal
    terminal.echo, terminal.parity = how == "echo", how == "parity"
    terminal.octet_s = 0.002 if how == "octets" else 0.0
    terminal.junk = b"\r\n\x00\x13\x11 WELCOME\r" if how == "junk" else b""
    terminal.patience, terminal.patience_s = (3, 0.4) if how == "patience" else (0, 0.0)
    home.sink(answer_wait_s=0.6).deliver(FALL)
    assert terminal.pages == [PAGED]


def test_a_page_goes_over_a_serial_line(tmp_path: Path) -> None:
    terminal = Terminal()
    with terminal.on_pty() as port:
        home = Home(terminal, tmp_path, port=port)
        home.sink().deliver(FALL)
        sink = home.sink(format="8N1")  # a pty takes 7E1 no more than once
        sink.deliver(FALL)
        home.sink(format="8N1").deliver(FALL)  # the line is free between pages
        sink.deliver(FALL)
    assert terminal.pages == [PAGED] * 4


def test_a_text_too_long_for_a_block_arrives_whole(home: Home) -> None:
    text = " ".join(f"ROOM {number}" for number in range(100))[:700]
    home.sink(most_characters=1000).deliver(Page("p1", "12", text))
    assert home.terminal.pages == [("12", text)]
    assert [block[-4:-3] for block in home.terminal.blocks] == [b"\x1f", b"\x1f", b"\x03"]


def test_a_text_longer_than_the_pagers_show_is_cut(home: Home) -> None:
    home.sink(most_characters=20).deliver(Page("p1", "12", "FALL? RM 12 BED A 03:14"))
    assert home.terminal.pages == [("12", "FALL? RM 12 BED A 03")]


def test_a_cancelled_page_is_a_page_that_says_so(home: Home) -> None:
    home.sink().deliver(Page("p1", "12", "FALL? RM 12 BED A", cancel=True))
    home.sink().deliver(Page("p1", "12", "CANCELLED FALL? RM 12 BED A", cancel=True))
    assert home.terminal.pages == [("12", "CANCELLED FALL? RM 12 BED A")] * 2


def test_a_page_without_number_or_text_is_parked(home: Home) -> None:
    for page in (Page("p", " ", "HELP"), Page("p", "12", "")):
        with pytest.raises(SinkRejected):
            home.sink().deliver(page)
    assert home.line == []


def test_a_check_logs_in_and_out(home: Home) -> None:
    home.sink().check()
    assert home.said("tx") == b"\r\x1bPG1\r\x04\r"
    assert home.terminal.pages == []


# -- passwords ----------------------------------------------------------------------------------


def test_a_password_opens_the_terminal_and_is_not_traced(home: Home) -> None:
    home.terminal.password = "Sesame"
    (home.secrets / "tap-password").write_text("Sesame\n")
    home.sink(password_file="tap-password").deliver(FALL)
    assert home.terminal.pages == [PAGED]
    assert b"\x1bPG1******\r" in home.said("tx")
    assert b"Sesame" not in home.said("tx")


def test_a_wrong_password_says_so(home: Home) -> None:
    home.terminal.password = "Sesame"
    (home.secrets / "tap-password").write_text("Barley")
    with pytest.raises(SinkUnavailable, match=r"the password is wrong \(code 509\)"):
        home.sink(password_file="tap-password").check()
    with pytest.raises(SinkUnavailable, match=r"the password is wrong \(code 509\)"):
        home.sink(password_file="tap-password").deliver(FALL)


@pytest.mark.parametrize("content", [None, "", "seven77", "a b", "pass\u00e9"])
def test_a_password_that_cannot_be_one_is_named_by_its_file(home: Home, content: str | None) -> None:
    if content is not None:
        (home.secrets / "tap-password").write_text(content, encoding="utf-8")
    with pytest.raises(SinkUnavailable, match="secret tap-password") as failed:
        home.sink(password_file="tap-password").deliver(FALL)
    assert not content or content not in str(failed.value)
    assert home.line == []


# -- refusals -----------------------------------------------------------------------------------


def test_a_login_asked_for_again_is_given_again(home: Home) -> None:
    home.terminal.login_naks = 1
    home.sink().deliver(FALL)
    assert home.terminal.pages == [PAGED]


def test_a_block_asked_for_again_is_sent_again(home: Home) -> None:
    home.terminal.block_naks = 2
    home.sink(attempts=3).deliver(FALL)
    assert home.terminal.pages == [PAGED]
    assert home.terminal.blocks == [FALL_BLOCK[:-1]] * 3


def test_a_block_asked_for_again_and_again_waits(home: Home) -> None:
    home.terminal.block_naks = 5
    with pytest.raises(SinkUnavailable, match="keeps asking for the page again"):
        home.sink(attempts=3).deliver(FALL)
    assert (home.terminal.block_naks, home.terminal.pages) == (2, [])


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("", SinkRejected, "refuses the page$"),
        ("510", SinkRejected, "this cannot be a pager number there \\(code 510\\)"),
        ("511", SinkRejected, "no pager has this number \\(code 511\\)"),
        ("504", SinkRejected, "only a tone"),
        ("513", SinkRejected, "too long"),
        ("599", SinkRejected, "refuses the page$"),
        ("512", SinkUnavailable, "cannot reach this pager for now \\(code 512\\)"),
        ("516", SinkUnavailable, "too many pages for now"),
    ],
)
def test_a_refusal_is_final_or_not_by_its_code(home: Home, code: str, error: type[Exception], words: str) -> None:
    home.terminal.block_code, home.terminal.block_answer = code, "\x1e"
    with pytest.raises(error, match=words) as refused:
        home.sink(attempts=3).deliver(FALL)
    assert type(refused.value) is error
    assert (len(home.terminal.blocks), home.terminal.pages) == (1, [])  # never the same block again


def test_a_code_from_before_explains_no_later_refusal(home: Home) -> None:
    home.terminal.block_naks, home.terminal.block_answer = 1, "\x1e"  # 514 with the first
    with pytest.raises(SinkRejected, match=r"refuses the page$"):
        home.sink().deliver(FALL)


@pytest.mark.parametrize("code", ["211", "212", "213", "214"])
def test_a_page_that_was_cut_or_held_is_taken_all_the_same(home: Home, code: str) -> None:
    home.terminal.block_code = code
    home.sink().deliver(FALL)
    assert home.terminal.pages == [PAGED]


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("login", "hangs up"),
        ("block", "too many pages for now \\(code 516\\)"),
        ("drop login", "the line broke"),
        ("drop block", "the line broke"),
    ],
)
def test_a_terminal_that_hangs_up_has_taken_nothing(home: Home, at: str, words: str) -> None:
    home.terminal.hang_up, home.terminal.block_code = at, "516" if "block" in at else ""
    with pytest.raises(SinkUnavailable, match=words):
        home.sink().deliver(FALL)
    assert home.terminal.pages == []
    home.terminal.hang_up = ""
    home.sink().deliver(FALL)
    assert home.terminal.pages == [PAGED]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("at", "most_s", "words"),
    [
        ("call", 0.9, "does not ask who calls"),
        ("login", 0.5, r"no answer to the login within 0\.5 s"),
        ("go-ahead", 0.5, "no answer to the login"),
        ("block", 0.8, r"no answer to the page within 0\.5 s"),
    ],
)
def test_a_silent_terminal_costs_a_bounded_time(home: Home, at: str, most_s: float, words: str) -> None:
    home.terminal.silent = at
    began_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match=words):
        home.sink(attempts=3).deliver(FALL)
    assert time.monotonic() - began_s < most_s + 0.5
    assert home.said("tx").count(b"\x02") <= 1  # a second one could be answered by the first's ACK


def test_a_terminal_without_manners_has_taken_the_page(home: Home) -> None:
    home.terminal.silent = "farewell"
    home.sink().deliver(FALL)
    assert home.terminal.pages == [PAGED]


@pytest.mark.parametrize("twice_s", [0.0, 0.05])
def test_a_second_ack_does_not_pass_for_one_to_the_next_block(home: Home, twice_s: float) -> None:
    home.terminal.twice_s = twice_s

    def slowly(way: str, octets: bytes) -> None:
        if home.terminal.blocks:  # the first: the second ACK to it arrives before the next goes out
            home.terminal.block_naks = 100
            time.sleep(0.2)

    settings = TapSettings(url=home.url, answer_wait_s=0.5, attempts=2, most_characters=1000)
    with pytest.raises(SinkUnavailable, match="keeps asking"):
        TapSink("tap-1", settings, home.secrets, slowly).deliver(Page("p1", "12", "X" * 260))
    assert len(home.terminal.blocks) == 3
    assert home.terminal.pages == []


@pytest.mark.alone
def test_a_terminal_that_asks_for_patience_for_ever_is_given_up(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.tap._MOST_S", 1.5)
    home.terminal.patience, home.terminal.patience_s = 100, 0.1
    began_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match="no answer to the page"):
        home.sink().deliver(FALL)
    assert time.monotonic() - began_s < 2.5


@pytest.mark.alone
def test_a_terminal_that_babbles_is_given_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.tap._MOST_S", 1.5)
    ended = threading.Event()

    def babble() -> None:
        caller = server.accept()[0]
        with caller:
            try:
                while not ended.is_set():
                    caller.sendall(b"ID=\r\x15\r\x13" * 1000)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        home.url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        began_s, began_cpu_s = time.monotonic(), time.thread_time()
        with pytest.raises(SinkUnavailable):
            home.sink().deliver(FALL)
        took_s = time.monotonic() - began_s
        ended.set()
        thread.join()
    assert took_s < 3.0
    assert time.thread_time() - began_cpu_s < max(0.1, took_s / 2)


def test_xoff_holds_the_rest_of_a_block_back(home: Home) -> None:
    home.terminal.xoff_s = 0.5
    home.sink(answer_wait_s=2.0).deliver(Page("p1", "12", "X" * 100))
    assert home.terminal.pages == [("12", "X" * 100)]
    sent = zip(home.times_s, home.line, strict=True)
    pieces = [at_s for at_s, (way, octets) in sent if way == "tx" and b"X" in octets]
    waits_s = [later_s - at_s for at_s, later_s in itertools.pairwise(pieces)]
    assert len(waits_s) == 3
    assert 0.45 < max(waits_s) < 1.5


def test_a_slow_line_is_given_time_so_that_xoff_is_not_too_late(home: Home) -> None:
    home.sink(baud=300).deliver(Page("p1", "12", "X" * 50))
    assert home.terminal.pages == [("12", "X" * 50)]
    heard_s = [at_s for at_s, octets in home.terminal.heard if b"X" in octets]
    assert heard_s[1] - heard_s[0] > 1.1  # 32 octets take 1.2 s at 300 baud


@pytest.mark.alone
def test_xoff_for_ever_is_not_obeyed_for_ever(home: Home) -> None:
    home.terminal.junk = b"\r\x13"
    began_s = time.monotonic()
    home.sink(answer_wait_s=0.3).deliver(FALL)
    assert home.terminal.pages == [PAGED]
    assert time.monotonic() - began_s < 4 * 0.3 + 1.5


def test_nobody_at_the_address_is_said_at_once(tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(SinkUnavailable, match="cannot be opened"):
        Home(Terminal(), tmp_path, url=url).sink().deliver(FALL)


@pytest.mark.parametrize(
    ("key", "value"), [("most_characters", 19), ("most_characters", 1001), ("answer_wait_s", 0.0)]
)
def test_settings_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(SettingsError) as refused:
        build(TapSettings, {"port": "/dev/ttyUSB1", key: value}, Path("fallwatch.toml"), "")
    assert refused.value.key == key
