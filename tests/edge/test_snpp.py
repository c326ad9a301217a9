from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.channels import SnppSettings
from edge.sinks import Page, SinkError, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.snpp import SnppSink, _Server
from tests.edge.brokers import free_port
from tests.edge.peers_scripted import drip, scripted
from tests.edge.peers_snpp import HAS_SNPP, snpp_server

FALL = Page("p1", "12", "FALL? RM 12 BED A", incident="0193510c-0000-7000-8000-0000000004f2", kind="fall")
needs_perl = pytest.mark.skipif(not HAS_SNPP, reason="the Debian package libnet-snpp-perl is not installed")


def sink(port: int, secrets: Path = Path(), **more: Any) -> SnppSink:
    return SnppSink("snpp-1", SnppSettings(host="127.0.0.1", port=port, **{"timeout_s": 1.0, **more}), secrets)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    with snpp_server(tmp_path) as server:
        yield server


@needs_perl
def test_a_page_reaches_the_server(server: tuple[int, Path]) -> None:
    port, paged = server
    sink(port).deliver(FALL)
    assert paged.read_text() == "12\t1\tFALL? RM 12 BED A\n"


@needs_perl
def test_news_come_without_the_alert_and_a_withdrawn_call_as_one_more_text(server: tuple[int, Path]) -> None:
    port, paged = server
    sink(port).deliver(replace(FALL, text="FALL? RM 12 MOVING", urgency=Urgency.HIGH))
    sink(port).deliver(replace(FALL, text="CANCELLED FALL? RM 12", urgency=Urgency.NORMAL, cancel=True))
    assert paged.read_text() == "12\t0\tFALL? RM 12 MOVING\n12\t0\tCANCELLED FALL? RM 12\n"


@needs_perl
def test_a_server_without_alerts_sends_all_the_same(tmp_path: Path) -> None:
    with snpp_server(tmp_path, level=1) as (port, paged):
        sink(port).deliver(FALL)
        assert paged.read_text() == "12\t0\tFALL? RM 12 BED A\n"


@needs_perl
@pytest.mark.parametrize("text", ["..DOTS " + "A" * 300, "X" * 129])
def test_a_long_text_goes_as_data(server: tuple[int, Path], text: str) -> None:
    port, paged = server
    sink(port).deliver(replace(FALL, text=text))
    assert paged.read_text().strip() == f"12\t1\t{text}"


@needs_perl
def test_a_text_cannot_give_commands(server: tuple[int, Path]) -> None:
    port, paged = server
    sink(port).deliver(replace(FALL, text="CAF\u00c9\r\nPAGE 13\r\n.\r\nSEND"))
    assert paged.read_text() == "12\t1\tCAFE PAGE 13 . SEND\n"


@needs_perl
def test_a_pager_that_the_server_does_not_know_is_rejected(server: tuple[int, Path]) -> None:
    port, paged = server
    with pytest.raises(SinkRejected, match="550 Error, Invalid Pager ID to PAGE"):
        sink(port).deliver(replace(FALL, to="99"))
    assert not paged.exists()


@needs_perl
def test_a_page_that_the_server_cannot_send_now_is_unavailable(server: tuple[int, Path]) -> None:
    port, _ = server
    with pytest.raises(SinkUnavailable, match="554"):
        sink(port).deliver(replace(FALL, text="FAIL"))


@needs_perl
def test_a_login_is_given_where_the_server_wants_one(server: tuple[int, Path], tmp_path: Path) -> None:
    port, paged = server
    (tmp_path / "snpp.password").write_text("opensesame\n")
    known = sink(port, tmp_path, login="fallwatch", password_file="snpp.password")
    known.check()
    known.deliver(FALL)
    assert paged.exists()
    for call in (sink(port, login="fallwatch").check, lambda: sink(port, login="other").deliver(FALL)):
        with pytest.raises(SinkUnavailable, match="550 Error, Invalid Login to LOGI"):
            call()


def test_a_password_that_cannot_be_read_is_told_without_it(tmp_path: Path) -> None:
    for content in (None, b"\xff", b"two words"):
        if content is not None:
            (tmp_path / "password").write_bytes(content)
        with pytest.raises(SinkUnavailable, match="secret password") as raised:
            sink(1, tmp_path, login="fallwatch", password_file="password").check()
        assert "two words" not in raised.value.reason


@needs_perl
def test_a_check_greets_and_pages_nobody(server: tuple[int, Path]) -> None:
    port, paged = server
    sink(port).check()
    sink(port).check()
    assert not paged.exists()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    port = free_port()
    for call in (sink(port).check, lambda: sink(port).deliver(FALL)):
        with pytest.raises(SinkUnavailable, match="cannot be reached"):
            call()


@pytest.mark.parametrize("page", [replace(FALL, to=""), replace(FALL, to="1 2"), replace(FALL, text=" \n")])
def test_a_page_without_pager_or_text_is_rejected_before_anybody_is_called(page: Page) -> None:
    with pytest.raises(SinkRejected):
        sink(1).deliver(page)


def says(*answers: bytes, wait_s: float = 0.0) -> Callable[[socket.socket], None]:
    """A server that greets with the first answer and gives one more for each line it is told."""

    def talk(connection: socket.socket) -> None:
        for answer in answers:
            connection.sendall(answer)
            connection.recv(1000)
        time.sleep(wait_s)

    return talk


OK = b"250 OK\r\n"


@pytest.mark.parametrize(
    ("answers", "raised", "reason"),
    [
        ((b"421 Down for maintenance\r\n",), SinkUnavailable, "421 Down"),
        ((b"SSH-2.0-OpenSSH\r\n",), SinkUnavailable, "speaks no SNPP"),
        ((b"220 hi\r\n", b"421 bye\r\n"), SinkUnavailable, "421 bye to PAGE"),
        ((b"220 hi\r\n", b"550 pager 07700900123 unknown\r\n"), SinkRejected, r"550 pager \*+123 unknown to PAGE"),
        ((b"220 hi\r\n", OK, b"550 no\r\n"), SinkRejected, "550 no to MESS"),
        ((b"220 hi\r\n", OK, OK, b"421 bye\r\n"), SinkUnavailable, "421 bye to ALER"),
        ((b"220 hi\r\n", OK, OK, b"500 what?\r\n", b"550 no\r\n"), SinkRejected, "550 no to SEND"),
        ((b"220 hi\r\n", OK, OK, OK, b"554 later\r\n"), SinkUnavailable, "554 later to SEND"),
        ((b"220 hi\r\n", OK, OK, OK, b"354 eh?\r\n"), SinkUnavailable, "354"),
        ((b"220 hi\r\n", OK, OK, OK, b"250"), SinkUnavailable, "timed out"),
        ((b"220 hi\r\n", OK, OK, OK), SinkUnavailable, "hung up"),
        ((b"220 hi\r\n250 OK\r\n250 OK\r\n250 OK\r\n250 OK\r\n",), SinkUnavailable, "250 OK to nothing"),
    ],
)
def test_only_the_servers_yes_to_send_is_a_delivery(
    answers: tuple[bytes, ...], raised: type[SinkError], reason: str
) -> None:
    with scripted(says(*answers)) as port, pytest.raises(raised, match=reason):
        sink(port).deliver(FALL)


def test_an_answer_of_several_lines_is_one() -> None:
    with scripted(says(b"220-welcome\r\n220-to\n220 SNPP\r\n", OK, OK, OK, OK, b"221 bye\r\n")) as port:
        sink(port).deliver(FALL)


def test_a_server_that_hangs_up_after_its_yes_has_taken_the_page() -> None:
    with scripted(says(b"220 hi\r\n", OK, OK, OK, OK)) as port:
        sink(port).deliver(FALL)


@pytest.mark.alone
@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(lambda c: time.sleep(1.2), id="says nothing"),
        pytest.param(lambda c: drip(c, b"220-welcome ", 0.05), id="drips"),
        pytest.param(lambda c: drip(c, b"220-welcome\r\n", 0.01), id="drips lines"),
        pytest.param(lambda c: c.sendall(b"220-" + b"x" * 10_000_000), id="an endless line"),
        pytest.param(lambda c: c.sendall(b"220-x\r\n" * 1_000_000), id="endless lines"),
        pytest.param(says(b"220 hi\r\n", OK, OK, wait_s=1.2), id="stops in the middle"),
    ],
)
def test_no_server_keeps_the_channel(talk: Callable[[socket.socket], object]) -> None:
    with scripted(talk) as port:
        begun_s = time.monotonic()
        with pytest.raises(SinkUnavailable):
            sink(port, timeout_s=0.5).deliver(FALL)
        assert time.monotonic() - begun_s < 2.0


@pytest.mark.alone
def test_a_server_that_is_slow_with_each_answer_does_not_add_them_up() -> None:
    def talk(connection: socket.socket) -> None:
        for answer in (b"220 hi\r\n", OK, OK, OK, OK, OK):
            time.sleep(0.4)
            connection.sendall(answer)
            connection.recv(1000)

    with scripted(talk) as port:
        begun_s = time.monotonic()
        with pytest.raises(SinkUnavailable):
            sink(port, timeout_s=0.5).deliver(FALL)
        assert time.monotonic() - begun_s < 1.6


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(words=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30), data=st.data())
def test_any_split_of_an_answer_reads_the_same(words: str, data: st.DataObject) -> None:
    octets = f"220-{words}\r\n220 {words}\r\n".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=5)))
    near, far = socket.socketpair()
    with near, far:
        for begin, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            far.send(octets[begin:end])
        whole, wanted = socket.socketpair()
        with whole, wanted:
            wanted.send(octets)
            assert _Server("s", "h", near, 1.0).answer() == _Server("s", "h", whole, 1.0).answer()


@given(noise=st.binary(min_size=1, max_size=6000))
def test_noise_is_never_more_than_unavailable(noise: bytes) -> None:
    near, far = socket.socketpair()
    with near:
        with far:
            far.sendall(noise)
        try:
            code, _ = _Server("s", "h", near, 1.0).answer()
        except (SinkUnavailable, OSError):
            return
        assert 0 <= code <= 999
        assert noise.strip()[:3].isdigit()
