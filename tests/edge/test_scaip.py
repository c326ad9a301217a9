from __future__ import annotations

import os
import re
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.channels import ScaipSettings
from edge.sinks import Page, SinkError, SinkRejected, SinkUnavailable
from edge.sinks.scaip import (
    MAX_MESSAGE_OCTETS,
    SHIPPED_CODES,
    Mrs,
    ScaipSink,
    SipDecoder,
    SipMessage,
    decode_datagram,
    load_codes,
    mrq,
    read_mrs,
    reference,
    response_to,
    via_address,
)
from tests.edge.brokers import free_port
from tests.edge.peers_scripted import drip, scripted
from tests.edge.peers_sipp import SIPP, centre, lossy, tls_before
from tests.edge.peers_tls import self_signed

FALL = Page("i1/1/99/scaip-1", "99", "FALL? RM 12 <BED> A", incident="i1", kind="fall", room="12")
REF = reference(FALL.page_id)
FALL_MRQ = (
    f"<mrq><ref>{REF}</ref><ver>01.00</ver><mty>ME</mty><cid>8031372</cid><dty>0004</dty><crd>no-voice:</crd>"
    "<stc>0010</stc><lco>012</lco><lte>FALL? RM 12 &lt;BED&gt; A</lte></mrq>"
)
# The order of the standard, as a validating client has it.
ORDER = (
    "ref ver sco cha mty hbo cid dty did dco dte crd stc stt pri lco lva lge lte ico ite ame".split()  # noqa: SIM905
)
needs_sipp = pytest.mark.skipif(SIPP is None, reason="the Debian package sip-tester is not installed")
CODES = load_codes()


@contextmanager
def sink(
    port: int, secrets: Path = Path("secrets"), codes: Path | None = None, **more: Any
) -> Iterator[ScaipSink]:
    given = {"host": "127.0.0.1", "port": port, "controller": "8031372", "answer_wait_s": 1.0, **more}
    made = ScaipSink("scaip-1", ScaipSettings(**given), secrets, codes=codes)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


# -- against sipp ---------------------------------------------------------------------------------


@needs_sipp
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_is_accepted_by_the_centre(tmp_path: Path, transport: str) -> None:
    with (
        centre(tmp_path, transport=f"{transport[0]}1") as arc,
        sink(arc.port, transport=transport, answer_wait_s=5.0) as scaip,
    ):
        scaip.deliver(FALL)
        assert arc.answered(1)  # its own message had our 200 OK
        assert arc.said() == [FALL_MRQ, "answered"]
        scaip.deliver(FALL)  # once more over the same socket, with the same reference
        assert arc.answered(2)
        assert arc.said()[2] == FALL_MRQ


@needs_sipp
def test_a_call_goes_through_tls_and_only_to_who_can_prove_it_is_the_centre(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with centre(tmp_path, transport="t1") as arc:
        with (
            tls_before(arc.port, certificate, key) as port,
            sink(port, transport="tls", ca_file=str(certificate), answer_wait_s=5.0) as scaip,
        ):
            scaip.deliver(FALL)
            scaip.check()
            assert arc.answered(2)
            scaip.close()
        with (
            tls_before(arc.port, certificate, key) as port,
            sink(port, transport="tls") as scaip,
            pytest.raises(SinkUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            scaip.deliver(FALL)
        assert arc.said()[0] == FALL_MRQ
        assert len(arc.said()) == 4


@needs_sipp
def test_a_check_is_a_heartbeat_that_the_centre_answers(tmp_path: Path) -> None:
    with centre(tmp_path) as arc, sink(arc.port, answer_wait_s=5.0) as scaip:
        scaip.check()
        assert arc.answered(1)
        assert re.fullmatch(
            r"<mrq><ref>[0-9A-F]{12}</ref><ver>01\.00</ver><mty>PI</mty><cid>8031372</cid><dty>0002</dty>"
            r"<crd>no-voice:</crd><stc>0102</stc></mrq>",
            arc.said()[0],
        )


@needs_sipp
@pytest.mark.parametrize(("there", "back"), [(2, 0), (0, 1), (0, 2), (1, 1)])
def test_what_is_lost_on_the_way_is_sent_again(tmp_path: Path, there: int, back: int) -> None:
    with (
        centre(tmp_path) as arc,
        lossy(arc.port, lose_there=there, lose_back=back) as port,
        sink(port, answer_wait_s=8.0) as scaip,
    ):
        begun_s = time.monotonic()
        scaip.deliver(FALL)
        assert time.monotonic() - begun_s < 4
        assert arc.said()[0] == FALL_MRQ


@needs_sipp
def test_an_answer_for_another_message_is_none(tmp_path: Path) -> None:
    with (
        centre(tmp_path, wrong="X") as arc,
        sink(arc.port) as scaip,
        pytest.raises(SinkUnavailable, match="the centre does not answer for it, only 1 times for another"),
    ):
        scaip.deliver(FALL)


@needs_sipp
@pytest.mark.parametrize(("snu", "raised"), [("5", SinkRejected), ("99", SinkUnavailable)])
def test_the_centres_refusal_is_told(tmp_path: Path, snu: str, raised: type[SinkError]) -> None:
    with centre(tmp_path, snu=snu) as arc, sink(arc.port, answer_wait_s=5.0) as scaip:
        with pytest.raises(raised, match=f"the centre answers {snu} as told"):
            scaip.deliver(FALL)
        with pytest.raises(SinkUnavailable, match=f"the centre answers {snu} as told"):
            scaip.check()
        assert arc.answered(2)


# -- against made-up centres ----------------------------------------------------------------------


class Caller:
    """What a made-up centre is told over one connection, message by message."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = SipDecoder()
        self._told: list[SipMessage] = []

    def told(self) -> SipMessage:
        while not self._told:
            data = self._connection.recv(4096)
            if not data:
                raise ConnectionResetError
            self._told += self._decoder.feed(data)
        return self._told.pop(0)

    def answer(self, message: SipMessage) -> None:
        self._connection.sendall(message.encode())


def mrs_for(message: SipMessage, snu: str = "0") -> SipMessage:
    ref = (ET.fromstring(message.body).findtext("ref") or "").strip()
    headers = (
        ("v", "SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKarc"),
        ("f", "<sip:arc@127.0.0.1>;tag=1"),
        ("t", message.header("from")),
        ("i", "arc-1"),
        ("CSeq", "7 MESSAGE"),
    )
    return SipMessage(
        f"MESSAGE {message.header('from')} SIP/2.0",
        headers,
        f"<mrs><ref> {ref} </ref><snu>{snu}</snu></mrs>".encode(),
    )


def centre_says(status: int, reason: str = "Whatever") -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        caller = Caller(connection)
        caller.answer(response_to(caller.told(), status, reason))
        connection.recv(1)

    return talk


@pytest.mark.parametrize(
    ("status", "raised", "reason"),
    [
        (401, SinkUnavailable, "wants a login, which this version does not have"),
        (407, SinkUnavailable, "wants a login"),
        (302, SinkUnavailable, "SIP 302"),
        (404, SinkUnavailable, "SIP 404"),
        (415, SinkRejected, "SIP 415"),
        (503, SinkUnavailable, "SIP 503"),
        (606, SinkRejected, "SIP 606"),
        (100, SinkUnavailable, "does not answer"),
        (200, SinkUnavailable, "took the message, but the centre does not answer for it"),
    ],
)
def test_sips_own_answer_is_never_the_centres(status: int, raised: type[SinkError], reason: str) -> None:
    with scripted(centre_says(status)) as port, sink(port, transport="tcp", answer_wait_s=0.3) as scaip:
        with pytest.raises(raised, match=reason):
            scaip.deliver(FALL)
        with pytest.raises(SinkUnavailable):
            scaip.check()


def test_the_centres_answer_counts_also_before_sips() -> None:
    answers = []

    def talk(connection: socket.socket) -> None:
        caller = Caller(connection)
        connection.sendall(b"\r\n\r\n" + mrs_for(caller.told()).encode())
        answers.append(caller.told())

    with scripted(talk) as port, sink(port, transport="tcp") as scaip:
        scaip.deliver(FALL)
        until_s = time.monotonic() + 5
        while not answers and time.monotonic() < until_s:
            time.sleep(0.01)
    (answer,) = answers
    assert answer.status == 200
    assert answer.headers[:1] == (("via", "SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKarc"),)
    assert (answer.header("call-id"), answer.header("cseq")) == ("arc-1", "7 MESSAGE")
    assert ";tag=" in answer.header("to")


def test_a_response_to_another_request_changes_nothing() -> None:
    def talk(connection: socket.socket) -> None:
        caller = Caller(connection)
        message = caller.told()
        other = SipMessage(message.first, (("via", "SIP/2.0/TCP h;branch=z9hG4bKother"), *message.headers[1:]))
        for answer in (response_to(other, 404, "Not Found"), response_to(message, 202, "OK"), mrs_for(message)):
            caller.answer(answer)
        caller.told()

    with scripted(talk) as port, sink(port, transport="tcp") as scaip:
        scaip.deliver(FALL)


def test_a_connection_that_ended_while_it_was_idle_is_opened_again() -> None:
    def talk(connection: socket.socket) -> None:
        caller = Caller(connection)
        caller.answer(mrs_for(caller.told()))
        caller.told()  # our 200 OK; then it hangs up

    with scripted(talk) as port, sink(port, transport="tcp") as scaip:
        scaip.deliver(FALL)
        time.sleep(0.1)
        scaip.deliver(FALL)


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_centre_that_is_not_there_is_unavailable(transport: str) -> None:
    with sink(free_port(), transport=transport, answer_wait_s=0.5) as scaip:
        begun_s = time.monotonic()
        with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1"):
            scaip.deliver(FALL)
        with pytest.raises(SinkUnavailable):
            scaip.check()
        assert time.monotonic() - begun_s < 2


@pytest.mark.alone
def test_a_silent_centre_is_asked_again_less_and_less_often() -> None:
    at_s, seen = [], set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(0.01)
        begun_s = time.monotonic()
        with sink(silent.getsockname()[1], answer_wait_s=2.0) as scaip, pytest.raises(SinkUnavailable):
            scaip.deliver(FALL)
        assert 1.9 < time.monotonic() - begun_s < 3
        while True:
            try:
                seen.add(silent.recv(65536))
            except TimeoutError:
                break
            at_s.append(1)
    assert len(at_s) == 3  # at 0, 0.5 and 1.5 s
    assert len(seen) == 1  # a repeat is the very same message


def says_nothing(connection: socket.socket) -> None:
    connection.recv(65536)
    time.sleep(1.2)


def drips(connection: socket.socket) -> None:
    drip(connection, b"SIP/2.0 100 Trying\r\nVia: x\r\n", 0.02)


def drips_messages(connection: socket.socket) -> None:
    drip(connection, b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0.0002)


def has_no_end(connection: socket.socket) -> None:
    connection.sendall(b"SIP/2.0 200 OK\r\nX: " + b"y" * 10_000_000)


def asks_without_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(mrs_for(SipMessage("", (("from", "x"),), b"<mrq><ref>0</ref></mrq>")).encode())


def speaks_otherwise(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.alone
@pytest.mark.parametrize(
    "talk", [says_nothing, drips, drips_messages, has_no_end, asks_without_end, speaks_otherwise, hangs_up]
)
def test_no_centre_keeps_the_channel(talk: Callable[[socket.socket], None]) -> None:
    with scripted(talk) as port, sink(port, transport="tcp", answer_wait_s=0.5) as scaip:
        begun_s = time.monotonic()
        with pytest.raises(SinkUnavailable):
            scaip.deliver(FALL)
        assert time.monotonic() - begun_s < 2


# -- listening ------------------------------------------------------------------------------------


def test_a_late_acceptance_counts_for_the_same_page_sent_again() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arc:
        arc.bind(("127.0.0.1", 0))
        arc.settimeout(5)
        sent: list[SipMessage] = []

        def took_it() -> None:
            octets, source = arc.recvfrom(65536)
            message = decode_datagram(octets)
            assert message is not None
            sent.append(message)
            arc.sendto(response_to(message, 200, "OK").encode(), source)
            time.sleep(0.5)
            arc.sendto(mrs_for(message).encode(), source)

        far = threading.Thread(target=took_it)
        far.start()
        with sink(arc.getsockname()[1], answer_wait_s=0.2) as scaip:
            with pytest.raises(SinkUnavailable, match="took the message"):
                scaip.deliver(FALL)
            far.join()
            scaip.deliver(FALL)
        assert sent[0].method == "MESSAGE"


def test_a_late_answer_and_a_question_get_their_200_and_noise_gets_nothing(wake: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arc:
        arc.bind(("127.0.0.1", 0))
        arc.settimeout(5)
        with sink(arc.getsockname()[1]) as scaip:
            scaip._line = scaip._open(1.0)
            near = ("127.0.0.1", int(scaip._line.local.rpartition(":")[2]))
            via = f"Via: SIP/2.0/UDP 127.0.0.1:{arc.getsockname()[1]};branch=z9hG4bK1\r\n"
            rest = "From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 X\r\nContent-Length: 0\r\n\r\n"
            for octets in (
                b"",
                b"\x00" * 100,
                b"MESSAGE sip:x SIP/2.0\r\n\r\n",
                b"ACK sip:x SIP/2.0\r\n" + via.encode(),
            ):
                arc.sendto(octets, near)
            for method in ("MESSAGE", "OPTIONS", "INVITE"):
                arc.sendto(f"{method} sip:x SIP/2.0\r\n{via}{rest}".encode(), near)
            assert scaip.listen(wake, 0.3) == []
        answers = [decode_datagram(arc.recv(65536)) for _ in range(3)]
        assert [answer and answer.status for answer in answers] == [200, 200, 501]
        arc.settimeout(0.05)
        with pytest.raises(TimeoutError):
            arc.recv(65536)


@pytest.mark.alone
def test_a_queued_page_ends_the_waiting_at_once_and_a_lost_connection_does_not(wake: int) -> None:
    def talk(connection: socket.socket) -> None:
        caller = Caller(connection)
        caller.answer(mrs_for(caller.told()))
        caller.told()

    with scripted(talk) as port, sink(port, transport="tcp") as scaip:
        scaip.deliver(FALL)  # the centre hangs up then
        begun_s = time.monotonic()
        assert scaip.listen(wake, 0.3) == []
        assert 0.29 < time.monotonic() - begun_s < 1
        os.eventfd_write(wake, 1)
        begun_s = time.monotonic()
        assert scaip.listen(wake, 5.0) == []
        assert time.monotonic() - begun_s < 1


# -- documents and codes --------------------------------------------------------------------------


def elements(page: Page, **more: Any) -> dict[str, str]:
    root = ET.fromstring(mrq(page, "8031372", more.pop("codes", CODES), speech="no-voice:"))
    names = [child.tag for child in root]
    assert names == [name for name in ORDER if name in names]  # in the standard's order, each once
    return {child.tag: child.text or "" for child in root}


def test_a_withdrawn_call_is_a_reset() -> None:
    said = elements(replace(FALL, cancel=True))
    assert (said["mty"], said["stc"], said["dty"]) == ("RE", "0019", "0004")


def test_a_drill_is_told_as_a_test() -> None:
    said = elements(replace(FALL, drill=True, text="DRILL FALL? RM 12"))
    assert (said["mty"], said["stc"], said["dty"]) == ("ME", "0102", "0002")


@pytest.mark.parametrize("kind", ["fall", "long-lie", "help-button", "blind", "test", "something-new"])
def test_every_kind_of_incident_has_its_codes(kind: str) -> None:
    said = elements(replace(FALL, kind=kind))
    assert {"dty", "stc"} <= said.keys()
    assert (said["stc"] == "0102") == (kind == "test")  # what is not known is an alarm


def test_the_location_is_by_the_table_or_the_rooms_own_number(tmp_path: Path) -> None:
    table = SHIPPED_CODES.read_text().replace('# "Garden" = "901"', '"Garden" = "901"\n"7" = "107"')
    (tmp_path / "codes.toml").write_text(table)
    codes = load_codes(tmp_path / "codes.toml")
    rooms = {"12": "012", "7": "107", "Garden": "901", "12A": None, "1234": None, "": None, "\u0661": None}
    for room, location in rooms.items():
        assert elements(replace(FALL, room=room), codes=codes).get("lco") == location


@given(text=st.text(max_size=300), room=st.text(max_size=5))
def test_any_text_makes_a_document_in_order(text: str, room: str) -> None:
    said = elements(replace(FALL, text=text, room=room))
    assert said["ref"] == REF
    assert len(said.get("lte", "")) <= 128
    assert re.fullmatch(r"(\d{3})?", said.get("lco", ""), re.ASCII)


def test_the_same_page_has_the_same_reference_and_another_a_different_one() -> None:
    assert re.fullmatch(r"[0-9A-F]{12}", REF)
    assert reference(FALL.page_id) == REF != reference("i1/2/99/scaip-1")


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"<mrs><ref>A1</ref><snu>0</snu></mrs>", Mrs("A1", 0)),
        (b"\xef\xbb\xbf<?xml version='1.0'?><mrs><ref> A1 </ref><snu>00</snu></mrs>", Mrs("A1", 0)),
        (b"<mrs xmlns='urn:x'><ref>A1</ref><snu>99</snu><ste>call 07700900123</ste></mrs>",
         Mrs("A1", 99, "call ********123")),
        (b"<mrs><ref>A1</ref></mrs>", None),
        (b"<mrs><ref>A1</ref><snu></snu></mrs>", None),
        (b"<mrs><ref>A1</ref><snu>ok</snu></mrs>", None),
        (b"<mrs><ref/><snu>0</snu></mrs>", None),
        (b"<mrq><ref>A1</ref><snu>0</snu></mrq>", None),
        (b"<mrs><ref>A1</ref><snu>0</snu>", None),
        (b"<!DOCTYPE mrs [<!ENTITY a '0'>]><mrs><ref>A1</ref><snu>&a;</snu></mrs>", None),
        (b"<!DOCTYPE mrs><mrs><ref>A1</ref><snu>0</snu></mrs>", None),
        (b"<!doctype mrs><mrs><ref>A1</ref><snu>0</snu></mrs>", None),
        ("<?xml version='1.0' encoding='UTF-16'?><mrs><ref>A1</ref><snu>0</snu></mrs>".encode("utf-16"), None),
        (b"<mrs><ref>A1</ref><snu>0</snu>" + b" " * 20_000 + b"</mrs>", None),
        (b"", None),
    ],
)  # fmt: skip
def test_only_a_whole_answer_is_read(body: bytes, read: Mrs | None) -> None:
    assert read_mrs(body) == read


@given(st.binary(max_size=200))
def test_noise_is_no_answer(noise: bytes) -> None:
    assert read_mrs(noise) is None


def test_the_shipped_table_says_that_the_codes_are_to_be_agreed() -> None:
    assert tomllib.loads(SHIPPED_CODES.read_text())["fall"] == {"dty": "0004", "stc": "0010"}
    assert "Agree it with the centre" in SHIPPED_CODES.read_text()
    assert CODES.refused == {5}


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ('[fall]\ndty = "0004"', "[fall]", "fall.dty: is missing"),
        ('[fall]\ndty = "0004"', '[fall]\ndty = "4"', "fall.dty: '4' is no such code"),
        ('[fall]\ndty = "0004"', "[fall]\ndty = 4", "fall.dty: 4 is no such code"),
        ("[fall]", '[fall]\ncolour = "red"', "fall.colour: not known"),
        ("[cancel]", "[cancelled]", "cancel.stc: is missing"),
        ("[location]", '[location]\n"Garden" = "1"', "location.Garden: '1' is no such code"),
        ("refused = [5]", "refused = [0]", "answers.refused"),
        ("[answers]", "[answer]", "answer: not known"),
        ("[heartbeat]", "heartbeat]", "TOMLDecodeError"),
    ],
)
def test_a_wrong_table_is_told_by_its_key_and_calls_go_out_all_the_same(
    tmp_path: Path, old: str, new: str, wrong: str
) -> None:
    table = SHIPPED_CODES.read_text()
    assert old in table
    (tmp_path / "codes.toml").write_text(table.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(wrong)):
        load_codes(tmp_path / "codes.toml")

    messages = []

    def talk(connection: socket.socket) -> None:
        caller = Caller(connection)
        for _ in range(2):
            messages.append(caller.told())
            caller.answer(mrs_for(messages[-1]))
            caller.told()

    with (
        scripted(talk) as port,
        sink(port, tmp_path / "secrets", transport="tcp", codes_file="codes.toml") as scaip,
    ):
        scaip.deliver(FALL)
        with pytest.raises(SinkUnavailable, match="codes_file: .*" + re.escape(wrong)):
            scaip.check()
    assert b"<stc>0010</stc>" in messages[0].body


def test_a_table_of_ones_own_replaces_the_shipped_one(tmp_path: Path) -> None:
    table = SHIPPED_CODES.read_text().replace(
        '[fall]\ndty = "0004"', '[fall]\npri = "1"\ndid = "77"\ndty = "0042"'
    )
    (tmp_path / "own.toml").write_text(table)
    said = elements(FALL, codes=load_codes(tmp_path / "own.toml"))
    assert (said["dty"], said["did"], said["pri"]) == ("0042", "77", "1")


# -- SIP ------------------------------------------------------------------------------------------

names = st.text(st.characters(min_codepoint=0x61, max_codepoint=0x7A), min_size=2, max_size=8).filter(
    lambda name: name != "content-length"
)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
messages = st.builds(
    SipMessage,
    st.sampled_from(["SIP/2.0 200 OK", "SIP/2.0 503 ", "MESSAGE sip:a@b SIP/2.0", "OPTIONS sip:a SIP/2.0"]),
    st.lists(st.tuples(names, values), max_size=4).map(tuple),
    st.binary(max_size=50),
)


@given(said=st.lists(messages, max_size=3), alive=st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]), data=st.data())
def test_any_split_of_a_stream_gives_the_same_messages(
    said: list[SipMessage], alive: bytes, data: st.DataObject
) -> None:
    stream = alive.join([b"", *(message.encode() for message in said), b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = SipDecoder()
    heard = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard += decoder.feed(stream[begin:end])
    assert [(m.first, m.headers[:-1], m.body) for m in heard] == [(m.first, m.headers, m.body) for m in said]


@given(noise=st.binary(max_size=300))
def test_noise_makes_no_message_and_nothing_worse_than_an_end(noise: bytes) -> None:
    try:
        heard = SipDecoder().feed(noise + b"\r\n\r\n")
    except ValueError:
        return
    assert heard == []
    assert decode_datagram(noise) is None


@pytest.mark.parametrize(
    "octets", [b"SIP/2.0 200 OK\r\nX: ", b"\r\n", b"SIP/2.0 200 OK\r\nContent-Length: 99999\r\n\r\n"]
)
def test_what_is_held_of_a_stream_is_bounded(octets: bytes) -> None:
    decoder = SipDecoder()
    decoder.feed(octets)
    filler = b"\r\n" * 2048 if octets == b"\r\n" else b"y" * 4096
    for _ in range(200):
        try:
            decoder.feed(filler)
        except ValueError:
            break
    assert len(decoder._held) <= 2 * MAX_MESSAGE_OCTETS + 4096


@pytest.mark.parametrize(
    ("via", "port"),
    [
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1", 5070),
        ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1", 5060),
        ("SIP/2.0/UDP 10.0.0.1:5070;rport;branch=z9hG4bK1", 1234),
        ("SIP/2.0/UDP [2001:db8::1]:5071;branch=z9hG4bK1", 5071),
        ("SIP/2.0/UDP 10.0.0.1:99999;branch=z9hG4bK1", 1234),
    ],
)
def test_a_datagram_is_answered_where_its_sender_listens(via: str, port: int) -> None:
    assert via_address(via, ("192.0.2.1", 1234)) == ("192.0.2.1", port)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"receiver": "sip:arc@host"}, "receiver"),
        ({"speech": "loud"}, "speech"),
        ({"controller": "a b"}, "controller"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(more: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}\0"):
        ScaipSettings(**{"host": "arc.example", "controller": "1", **more})
