from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.channels import NtfySettings, WebhookSettings
from edge.sinks import Page, Reply, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.push import NtfySink, WebhookSink
from tests.edge.peers_http import Asked, Stub, http_stub
from tests.edge.peers_scripted import drip, scripted
from tests.edge.peers_tls import self_signed

INCIDENT = "0193510c-0000-7000-8000-0000000004f2"
FALL = Page("p1/a b", "99", "FALL? RM 12 BED A", incident=INCIDENT, kind="fall", room="12")
TOPIC, REPLIES = "rosewood-nights-k3J9", "rosewood-replies-Zq71"


def webhook(url: str, secrets: Path = Path(), **more: Any) -> WebhookSink:
    return WebhookSink("webhook-1", WebhookSettings(url=url, **{"timeout_s": 1.0, **more}), secrets)


def ntfy(url: str, secrets: Path = Path(), **more: Any) -> NtfySink:
    settings = NtfySettings(url=url, addresses={"99": TOPIC}, **{"timeout_s": 1.0, **more})
    return NtfySink("ntfy-1", settings, secrets)


@contextmanager
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with http_stub() as stub:
        yield stub


class Ntfy:
    """What an ntfy server does of our concern: it keeps messages and gives back those since an id or a time."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.polls: list[str] = []

    def publish(self, topic: str, text: str, at: float | None = None) -> None:
        number = len(self.messages)
        self.messages.append(
            {
                "id": f"id{number}",
                "time": int(at or time.time()),
                "event": "message",
                "topic": topic,
                "message": text,
            }
        )

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        topic, _, rest = asked.path.removeprefix("/").partition("/json?poll=1&since=")
        if asked.path == "/v1/health":
            return 200, b'{"healthy":true}'
        if asked.method == "POST":
            self.publish(topic, asked.body.decode())
            return 200, json.dumps(self.messages[-1]).encode()
        self.polls.append(rest)
        ids = [message["id"] for message in self.messages]
        new = (
            self.messages[ids.index(rest) + 1 :]
            if rest in ids
            else [m for m in self.messages if m["time"] >= int(rest)]
        )
        return 200, b"".join(json.dumps(m).encode() + b"\n" for m in new if m["topic"] == topic)


def test_a_webhook_is_told_of_a_call(stub: Stub) -> None:
    webhook(f"{stub.url}/hook/?key=1").deliver(FALL)
    (asked,) = stub.asked
    assert (asked.method, asked.path) == ("POST", "/hook/?key=1")
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == "p1/a%20b"
    assert "x-fallwatch-signature" not in asked.headers
    assert json.loads(asked.body) == {
        "schema": 1,
        "page_id": "p1/a b",
        "incident": INCIDENT,
        "kind": "fall",
        "to": "99",
        "text": "FALL? RM 12 BED A",
        "urgency": "emergency",
        "cancel": False,
        "drill": False,
    }


def test_a_secret_signs_the_body(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "hook.key").write_text("opensesame\n")
    webhook(stub.url, tmp_path, secret_file="hook.key").deliver(FALL)
    (asked,) = stub.asked
    signature = hmac.new(b"opensesame", asked.body, hashlib.sha256).hexdigest()
    assert asked.headers["x-fallwatch-signature"] == f"sha256={signature}"
    assert asked.path == "/"


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff"])
def test_a_secret_that_cannot_be_used_sends_nothing_unsigned(
    stub: Stub, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "hook.key").write_bytes(content)
    sink = webhook(stub.url, tmp_path, secret_file="hook.key")
    with pytest.raises(SinkUnavailable, match=r"secret hook\.key"):
        sink.deliver(FALL)
    with pytest.raises(SinkUnavailable, match=r"secret hook\.key"):
        sink.check()
    assert not stub.asked


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (200, None),
        (204, None),
        (302, SinkUnavailable),
        (400, SinkRejected),
        (401, SinkRejected),
        (408, SinkUnavailable),
        (422, SinkRejected),
        (425, SinkUnavailable),
        (429, SinkUnavailable),
        (500, SinkUnavailable),
        (503, SinkUnavailable),
    ],
)
def test_the_status_of_a_webhook_says_whether_to_try_again(
    stub: Stub, status: int, raised: type[Exception] | None
) -> None:
    stub.answer = lambda asked: (status, b"")
    stub.headers = {"Location": f"{stub.url}/elsewhere"} if status == 302 else {}
    if raised is None:
        webhook(stub.url).deliver(FALL)
    else:
        with pytest.raises(raised, match=f"127.0.0.1 answers HTTP {status}"):
            webhook(stub.url).deliver(FALL)
    assert len(stub.asked) == 1  # a redirect is not followed, nothing is tried twice


def test_a_webhook_that_is_not_there_is_unavailable_without_its_path() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sink = webhook(f"http://127.0.0.1:{port}/secret-path?token=s3cret")
    with pytest.raises(SinkUnavailable, match="cannot be reached") as raised:
        sink.deliver(FALL)
    assert "secret" not in raised.value.reason
    assert "s3cret" not in raised.value.reason
    with pytest.raises(SinkUnavailable, match="cannot be reached"):
        sink.check()


def test_a_check_of_a_webhook_connects_and_asks_nothing(stub: Stub) -> None:
    webhook(stub.url).check()
    assert not stub.asked


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def says_nothing(connection: socket.socket) -> None:
    connection.recv(1)
    time.sleep(0.9)


def drips_headers(connection: socket.socket) -> None:
    drip(connection, HEAD + b"X: " + b"y" * 1000, 0.05)


def drips_a_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    drip(connection, b"y", 0.05)


def drips_without_end(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Connection: close\r\n\r\n")
    drip(connection, b"y", 0.05)


def sends_ten_megabytes(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 10000000\r\n\r\n")
    connection.sendall(b"y" * 10_000_000)


def goes_on(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def speaks_otherwise(connection: socket.socket) -> None:
    connection.sendall(b"220 smtp.example ESMTP\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.alone
@pytest.mark.parametrize(
    "talk",
    [
        says_nothing,
        drips_headers,
        drips_a_body,
        drips_without_end,
        sends_ten_megabytes,
        goes_on,
        speaks_otherwise,
        hangs_up,
    ],
)
def test_no_far_end_keeps_the_channel_or_passes_for_a_delivery(talk: Callable[[socket.socket], None]) -> None:
    with scripted(talk) as port:
        begun_s = time.monotonic()
        with pytest.raises(SinkUnavailable):
            webhook(f"http://127.0.0.1:{port}", timeout_s=0.5).deliver(FALL)
        assert time.monotonic() - begun_s < 2.0


def test_a_server_whose_certificate_nobody_signed_is_not_told(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    told = []

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as safe:
            told.append(safe.recv(100))

    with scripted(talk) as port, pytest.raises(SinkUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        webhook(f"https://127.0.0.1:{port}").deliver(FALL)
    assert not told


# -- ntfy -----------------------------------------------------------------------------------------


def test_a_call_is_published_with_its_priority_and_a_button(stub: Stub) -> None:
    ntfy(f"{stub.url}/push/", replies_topic=REPLIES).deliver(replace(FALL, to=TOPIC))
    (asked,) = stub.asked
    assert (asked.method, asked.path, asked.body) == ("POST", f"/push/{TOPIC}", b"FALL? RM 12 BED A")
    assert (asked.headers["title"], asked.headers["priority"]) == ("room 12", "5")
    (action,) = json.loads(asked.headers["actions"])
    assert (action["action"], action["method"], action["body"]) == ("http", "POST", "4F2")
    assert action["url"] == f"{stub.url}/push/{REPLIES}"


def test_news_are_less_urgent_and_a_withdrawn_call_has_no_button(stub: Stub) -> None:
    sink = ntfy(stub.url, replies_topic=REPLIES)
    sink.deliver(replace(FALL, to=TOPIC, urgency=Urgency.HIGH, drill=True))
    sink.deliver(replace(FALL, to=TOPIC, cancel=True))
    sink.deliver(Page("p9", TOPIC, "TEST", Urgency.NORMAL))
    assert [asked.headers["priority"] for asked in stub.asked] == ["4", "5", "3"]
    assert [asked.headers["title"] for asked in stub.asked] == ["Drill: room 12", "room 12", "fallwatch"]
    assert ["actions" in asked.headers for asked in stub.asked] == [True, False, False]


def test_a_token_goes_with_every_request_and_never_into_a_message(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "ntfy.token").write_text("tk_verysecret\n")
    sink = ntfy(stub.url, tmp_path, token_file="ntfy.token", replies_topic=REPLIES)
    sink.deliver(replace(FALL, to=TOPIC))
    stub.answer = lambda asked: (200, b'{"healthy":true}')
    sink.check()
    assert [asked.headers["authorization"] for asked in stub.asked] == ["Bearer tk_verysecret"] * 2
    assert "tk_" not in stub.asked[0].headers["actions"]  # telephones must not learn it


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, SinkRejected),
        (403, SinkUnavailable),
        (404, SinkUnavailable),
        (429, SinkUnavailable),
        (507, SinkUnavailable),
    ],
)
def test_the_status_of_ntfy_says_whether_to_try_again(stub: Stub, status: int, raised: type[Exception]) -> None:
    stub.answer = lambda asked: (status, b"no")
    with pytest.raises(raised, match=f"HTTP {status}"):
        ntfy(stub.url).deliver(replace(FALL, to=TOPIC))


@pytest.mark.parametrize(
    "answer", [(200, b'{"healthy":false}'), (200, b"<html>"), (200, b"[" * 100_000), (404, b""), (503, b"")]
)
def test_a_server_that_is_not_healthy_is_unavailable(stub: Stub, answer: tuple[int, bytes]) -> None:
    stub.answer = lambda asked: answer
    with pytest.raises(SinkUnavailable, match="healthy"):
        ntfy(stub.url).check()


def test_a_pressed_button_takes_the_call() -> None:
    server = Ntfy()
    with http_stub(server.answer) as stub, wake() as descriptor:
        sink = ntfy(stub.url, replies_topic=REPLIES)
        sink.deliver(replace(FALL, to=TOPIC))
        (action,) = json.loads(stub.asked[0].headers["actions"])
        server.publish(REPLIES, "hello\n")
        server.publish(REPLIES, action["body"])
        assert sink.listen(descriptor, 0.5) == [Reply("p1/a b", INCIDENT, by="ntfy-1", acknowledges=True)]
        assert sink.listen(descriptor, 0.1) == []


def test_a_button_pressed_while_the_service_was_started_again_counts() -> None:
    server = Ntfy()
    server.publish(REPLIES, "4f2", at=time.time() - 30)
    server.publish(REPLIES, "4F2", at=time.time() - 3000)  # to an older call with the same code
    with http_stub(server.answer) as stub, wake() as descriptor:
        sink = ntfy(stub.url, replies_topic=REPLIES)
        assert sink.listen(descriptor, 0.1) == []  # no call is open yet, so nobody is asked
        assert not server.polls
        sink.deliver(replace(FALL, to=TOPIC))
        assert [reply.incident for reply in sink.listen(descriptor, 0.5)] == [INCIDENT]


@pytest.mark.parametrize("said", ["4F3", "4F2 please", "", "OK 4F2", "{}"])
def test_what_is_no_code_of_an_open_call_takes_none(said: str) -> None:
    server = Ntfy()
    with http_stub(server.answer) as stub, wake() as descriptor:
        sink = ntfy(stub.url, replies_topic=REPLIES)
        sink.deliver(replace(FALL, to=TOPIC))
        server.publish(REPLIES, said)
        assert sink.listen(descriptor, 0.5) == []
        assert len(server.polls) == 1


def test_a_withdrawn_call_cannot_be_taken() -> None:
    server = Ntfy()
    with http_stub(server.answer) as stub, wake() as descriptor:
        sink = ntfy(stub.url, replies_topic=REPLIES)
        sink.deliver(replace(FALL, to=TOPIC))
        sink.deliver(replace(FALL, to=TOPIC, cancel=True))
        server.publish(REPLIES, "4F2")
        assert sink.listen(descriptor, 0.1) == []


def test_the_server_is_asked_every_five_seconds_from_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.push._POLL_EVERY_S", 0.3)
    server = Ntfy()
    with http_stub(server.answer) as stub, wake() as descriptor:
        sink = ntfy(stub.url, replies_topic=REPLIES)
        sink.deliver(replace(FALL, to=TOPIC))
        server.publish(REPLIES, "not yet")
        begun_s = time.monotonic()
        while len(server.polls) < 3:
            assert sink.listen(descriptor, 0.1) == []
            assert time.monotonic() - begun_s < 5
        assert time.monotonic() - begun_s >= 0.6
        assert server.polls[1:] == ["id1", "id1"]


@pytest.mark.alone
def test_a_queued_page_ends_the_waiting_at_once() -> None:
    server = Ntfy()
    with http_stub(server.answer) as stub, wake() as descriptor:
        for replies in ("", REPLIES):
            sink = ntfy(stub.url, replies_topic=replies)
            sink.deliver(replace(FALL, to=TOPIC))
            sink.listen(descriptor, 0.1)
            os.eventfd_write(descriptor, 1)
            begun_s = time.monotonic()
            assert sink.listen(descriptor, 5.0) == []
            assert time.monotonic() - begun_s < 1
            os.eventfd_read(descriptor)


@pytest.mark.parametrize(
    "answer", [(500, b""), (200, b"\xff\xfe\n[1]\nnull\n{}\n" + b"[" * 50_000), (200, b"x" * 300_000)]
)
def test_listening_bears_whatever_the_server_says(
    stub: Stub, answer: tuple[int, bytes], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.push._POLL_EVERY_S", 0.0)
    sink = ntfy(stub.url, replies_topic=REPLIES)
    sink.deliver(replace(FALL, to=TOPIC))
    stub.answer = lambda asked: answer
    with caplog.at_level(logging.DEBUG), wake() as descriptor:
        for _ in range(3):
            assert sink.listen(descriptor, 0.05) == []
    assert len([r for r in caplog.records if "cannot hear" in r.message]) == (0 if answer[1][:1] == b"\xff" else 1)
    assert TOPIC not in caplog.text
    assert REPLIES not in caplog.text


def test_no_topic_is_told_in_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SinkUnavailable) as raised:
        ntfy(f"http://127.0.0.1:{port}", replies_topic=REPLIES).deliver(replace(FALL, to=TOPIC))
    assert TOPIC not in raised.value.reason


def test_open_calls_are_forgotten_in_the_end(stub: Stub) -> None:
    sink = ntfy(stub.url, replies_topic=REPLIES)
    for number in range(250):
        sink.deliver(replace(FALL, to=TOPIC, incident=f"incident-{number:03}"))
    assert len(sink._open) == 200


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"url": "http://host:99999"}, "url"),
        ({"url": "http://me:pass@host"}, "url"),
        ({"url": "ftp://host"}, "url"),
        ({"addresses": {"99": "two words"}}, "addresses"),
        ({"replies_topic": "a/b"}, "replies_topic"),
        ({"replies_topic": TOPIC}, "replies_topic"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_and_topics_not_shown(more: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}\0") as raised:
        NtfySettings(**{"url": "http://ntfy.home", "addresses": {"99": TOPIC}, **more})
    assert TOPIC not in str(raised.value)
    assert "two words" not in str(raised.value)
