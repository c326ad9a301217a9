"""Wearables by way of real brokers on 127.0.0.1, and of some that misbehave octet by octet."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt import publish
from paho.mqtt.enums import CallbackAPIVersion

from edge.settings import MqttSettings
from edge.sinks.mqtt import MqttPublisher
from edge.sources import mqtt as source
from edge.sources.mqtt import MAX_DOWNLINKS, MAX_PER_S, MAX_TOPICS, MqttLink
from firmware_bridge.devices.broker import MAX_OCTETS, BrokerDecoder, Heard
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.virtual import Recording, Run, VirtualDongle, VirtualWearable
from firmware_bridge.wire import Downlink, FrameDecoder, Proof, Samples, Uplink, encode_frame
from tests.edge.brokers import MOSQUITTO, Broker, Listener, amqtt, mosquitto
from tests.edge.peers_tls import self_signed

KEY = bytes(range(16))
UPLINK = "fallwatch/site-7/receiver/room-12/uplink"
SAMPLES = "fallwatch/site-7/wearable/W1/samples"
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="mosquitto is not installed; amqtt does not speak MQTT 5"
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed; amqtt does not speak MQTT 5")
    with mosquitto(tmp_path) as broker:
        yield broker


class Ear:
    """A link in its thread, and what it told."""

    def __init__(self, port: int, put: Callable[[LinkEvent], None] | None = None, **settings: Any) -> None:
        password = settings.pop("password", None)
        self.events: queue.Queue[LinkEvent] = queue.Queue()
        mqtt_settings = MqttSettings(host="127.0.0.1", port=port, **settings)
        self.link = MqttLink(mqtt_settings, "site-7", wearables=["W1"], password=password)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self.link.run, args=(put or self.events.put, self._stop), daemon=True
        )
        self._thread.start()

    def next(self, within_s: float = 10.0) -> LinkEvent:
        return self.events.get(timeout=within_s)

    def received(self) -> Received:
        event = self.next()
        assert isinstance(event, Received), event
        return event

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10.0)
        assert not self._thread.is_alive()


@pytest.fixture
def listen() -> Iterator[Callable[..., Ear]]:
    ears: list[Ear] = []

    def make(port: int, **settings: Any) -> Ear:
        ears.append(Ear(port, **settings))
        return ears[-1]

    yield make
    for ear in ears:
        ear.stop()


class VirtualReceiver:
    """An ESP32 in a room, as its firmware does it: publishes what its radio hears, passes on what comes down."""

    def __init__(self, port: int, name: str, radio: VirtualDongle) -> None:
        self._root = f"fallwatch/site-7/receiver/{name}"
        self._radio = radio
        self._frames = FrameDecoder()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(f"{self._root}/downlink", 0)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._radio.take(encode_frame(Downlink(bytes(message.payload))))

    def play_until(self, t_s: float) -> int:
        """Publish what is heard up to a time; return how many packets that were."""
        packets = [f for f in self._frames.feed(self._radio.frames_until(t_s)) if isinstance(f, Uplink)]
        for uplink in packets:
            self.publish(uplink)
        return len(packets)

    def publish(self, uplink: Uplink) -> None:
        body = uplink.rssi_dbm.to_bytes(1, "little", signed=True) + uplink.packet
        qos = 1 if uplink.packet[1] == 0x04 else 0  # a button
        self._client.publish(f"{self._root}/uplink", body, qos=qos).wait_for_publish(10)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def virtual_wearable() -> VirtualDongle:
    session = WearableSession("0042", KEY, WearableCounters(), save=lambda _: None)
    still = Recording([Run(0.0, b"\0\0\0\0\0\x10" * 500)], rate_hz=50.0, range_g=8)
    return VirtualDongle([VirtualWearable(session, still)])


def test_what_receivers_hear_comes_in_and_what_wearables_are_told_goes_out(
    broker: Broker, listen: Callable[..., Ear]
) -> None:
    ear = listen(broker.port)
    assert ear.next() == Opened("mqtt")
    assert not ear.link.send(bytes(30))  # nobody was heard yet
    radio = virtual_wearable()
    receiver = VirtualReceiver(broker.port, "room-12", radio)
    n = receiver.play_until(5.0)
    decoder, gateway = BrokerDecoder("site-7"), Gateway(lambda _: None)
    session = gateway.add("0042", KEY, Counters(uplink=64, clean=False))
    samples = 0

    def hear(n: int) -> list[Any]:
        messages: list[Any] = []
        for _ in range(n):
            event = ear.received()
            assert (event.port, event.channel) == ("mqtt", UPLINK)
            assert 0 <= time.monotonic() - event.received_s < 5
            heard = decoder.feed(event.channel, event.data, event.received_s)
            assert isinstance(heard, Heard)
            messages.append(gateway.open(heard.uplink.packet))
        return messages

    assert hear(n) == [None] * n  # not before it has proved itself, by way of the broker
    assert session.counts.unproved == n
    until_s = time.monotonic() + 5
    while ear.link.receivers != ("room-12",):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    (_, proof), *_ = gateway.proofs_due(0.0)
    assert ear.link.send(proof)
    while not (n := receiver.play_until(5.0)):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert isinstance(hear(n)[0][1], Proof)
    assert session.proved
    for message in hear(receiver.play_until(10.0)):
        samples += message[1].n if isinstance(message[1], Samples) else 0
    assert samples == 250
    receiver.stop()


def test_two_receivers_that_hear_one_wearable_are_no_interference(
    broker: Broker, listen: Callable[..., Ear]
) -> None:
    ear = listen(broker.port)
    assert ear.next() == Opened("mqtt")
    radio, silent, frames = virtual_wearable(), VirtualDongle([]), FrameDecoder()
    receivers = [VirtualReceiver(broker.port, name, silent) for name in ("room-12", "room-14", "room-16")]
    packets = [f for f in frames.feed(radio.frames_until(30.0)) if isinstance(f, Uplink)]
    for uplink in packets:
        for receiver in random.Random(uplink.packet).sample(receivers, 3):
            receiver.publish(uplink)
    decoder, gateway = BrokerDecoder("site-7"), Gateway(lambda _: None)
    session = gateway.add("0042", KEY, Counters())
    for _ in range(3 * len(packets)):
        event = ear.received()
        heard = decoder.feed(event.channel, event.data, event.received_s)
        if isinstance(heard, Heard):
            gateway.open(heard.uplink.packet, heard.receiver)
    assert (session.counts.opened, session.counts.stale, session.counts.forged) == (len(packets), 0, 0)
    assert session.counts.echoes == 2 * len(packets)
    for receiver in receivers:
        receiver.stop()


def test_a_retained_message_is_never_taken_for_a_live_one(broker: Broker, listen: Callable[..., Ear]) -> None:
    with Listener(broker.port) as other:
        other.say(SAMPLES, b"old", retain=True)
        ear = listen(broker.port)
        assert ear.next() == Opened("mqtt")
        other.say(SAMPLES, b"new")
        assert ear.received().data == b"new"


def test_a_broker_without_mqtt_5_is_lost_and_not_waited_for(listen: Callable[..., Ear]) -> None:
    with amqtt() as broker:
        assert listen(broker.port, keepalive_s=2).next() == Lost("mqtt", "127.0.0.1 does not answer")


def test_a_retained_message_that_a_broker_sends_all_the_same_is_counted(listen: Callable[..., Ear]) -> None:
    with scripted(retained=True) as port:
        ear = listen(port)
        assert ear.next() == Opened("mqtt")
        assert ear.received().data == b"live"
        assert ear.link.retained_messages == 1
        ear.stop()


def test_a_broker_that_goes_and_comes_back_is_told_once_each(broker: Broker, listen: Callable[..., Ear]) -> None:
    ear = listen(broker.port)
    assert ear.next() == Opened("mqtt")
    broker.stop()
    lost = ear.next()
    assert isinstance(lost, Lost)
    assert "127.0.0.1" in lost.reason
    time.sleep(1.2)  # tries again meanwhile, in vain
    assert ear.events.empty()
    broker.start()
    assert ear.next() == Opened("mqtt")
    with Listener(broker.port) as other:
        other.say(SAMPLES, b"x")
        assert ear.received().data == b"x"


@needs_mosquitto
def test_what_was_published_while_we_were_away_does_not_come_later(
    tmp_path: Path, listen: Callable[..., Ear]
) -> None:
    with mosquitto(tmp_path) as broker, Listener(broker.port) as other:
        first = listen(broker.port)
        assert first.next() == Opened("mqtt")
        first.stop()
        other.say(SAMPLES, b"meanwhile")
        second = listen(broker.port)
        assert second.next() == Opened("mqtt")
        other.say(SAMPLES, b"now")
        assert second.received().data == b"now"
        second.stop()


@needs_mosquitto
def test_a_broker_that_freezes_is_lost_in_time(tmp_path: Path, listen: Callable[..., Ear]) -> None:
    with mosquitto(tmp_path) as broker:
        ear = listen(broker.port, keepalive_s=2)
        assert ear.next() == Opened("mqtt")
        broker.freeze()
        began_s = time.monotonic()
        assert ear.next() == Lost("mqtt", "127.0.0.1 does not answer")
        assert time.monotonic() - began_s <= 1.5 * 2 + 0.5
        broker.thaw()
        assert ear.next() == Opened("mqtt")
        ear.stop()


def test_a_broker_that_takes_the_call_and_never_answers_is_lost_in_time(listen: Callable[..., Ear]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began_s = time.monotonic()
        ear = listen(mute.getsockname()[1], keepalive_s=2)
        assert ear.next() == Lost("mqtt", "127.0.0.1 does not answer")
        assert time.monotonic() - began_s <= 1.5 * 2
        ear.stop()


def test_a_port_where_nobody_listens_is_named(listen: Callable[..., Ear]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert listen(port).next() == Lost("mqtt", f"127.0.0.1:{port} cannot be reached (Connection refused)")


def test_a_subscription_that_is_refused_is_no_link(listen: Callable[..., Ear]) -> None:
    with scripted(suback=b"\x01\x87\x01") as port:
        lost = listen(port).next()
    assert lost == Lost(
        "mqtt", "127.0.0.1 does not let us hear fallwatch/site-7/wearable/W1/message (Not authorized)"
    )


def test_a_broker_that_would_be_asked_too_seldom_is_refused(listen: Callable[..., Ear]) -> None:
    with scripted(connack=b"\x20\x06\x00\x00\x03\x13\x01\x2c") as port:  # Server Keep Alive 300
        lost = listen(port).next()
    assert isinstance(lost, Lost)
    assert "longer than keepalive_s" in lost.reason


# paho leaves the socket of a handshake that failed to the garbage collector, which closes it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
@needs_mosquitto
def test_with_login_access_list_and_tls_each_refusal_has_its_reason(
    tmp_path: Path, listen: Callable[..., Ear]
) -> None:
    certificate, key = self_signed(tmp_path)
    users = tmp_path / "users"
    for user in ("fallwatch", "room-12"):
        flag = ["-c"] if user == "fallwatch" else []
        subprocess.run(
            ["mosquitto_passwd", *flag, "-b", str(users), user, "secret"], check=True, capture_output=True
        )
    (tmp_path / "acl").write_text(acl_of_the_page())
    for file in (certificate, key, users, tmp_path / "acl"):
        file.chmod(0o644)
    lines = [f"certfile {certificate}", f"keyfile {key}", f"password_file {users}", f"acl_file {tmp_path / 'acl'}"]
    login = {"tls": True, "ca_file": str(certificate), "username": "fallwatch"}
    with mosquitto(tmp_path, "allow_anonymous false", *lines) as broker:
        lost = listen(broker.port, **{**login, "ca_file": ""}).next()
        assert isinstance(lost, Lost)
        assert "cannot be trusted" in lost.reason
        lost = listen(broker.port, **{**login, "ca_file": str(tmp_path / "none.pem")}).next()
        assert isinstance(lost, Lost)
        assert "none.pem cannot be used" in lost.reason
        assert listen(broker.port, **login, password="wrong").next() == Lost(
            "mqtt", "127.0.0.1 refused us (Not authorized)"
        )
        ear = listen(broker.port, **login, password="secret")
        assert ear.next() == Opened("mqtt")
        topics = (UPLINK.replace("12", "14"), SAMPLES, UPLINK)  # a receiver may speak for itself alone
        publish.multiple(
            [(topic, b"x", 1, False) for topic in topics],
            hostname="127.0.0.1",
            port=broker.port,
            auth={"username": "room-12", "password": "secret"},
            tls={"ca_certs": str(certificate)},
        )
        assert ear.received().channel == UPLINK
        assert ear.events.empty()
        ear.stop()


def acl_of_the_page() -> str:
    page = (Path(__file__).resolve().parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")
    acl = page.partition("```acl\n")[2].partition("```")[0]
    assert "user room-12" in acl
    return acl


def test_the_link_and_the_publisher_are_two_clients(broker: Broker, listen: Callable[..., Ear]) -> None:
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    settings = MqttSettings(host="127.0.0.1", port=broker.port)
    publisher = MqttPublisher(settings, "site-7", events, rooms={}, channels=[])
    publisher.start()
    assert events.get(timeout=10) == ("connected",)
    ear = listen(broker.port)
    assert ear.next() == Opened("mqtt")
    time.sleep(0.5)
    assert ear.events.empty()
    assert events.empty()
    publisher.stop()


def test_a_flood_of_one_topic_is_cut_short_and_the_others_are_heard(
    broker: Broker, listen: Callable[..., Ear]
) -> None:
    ear = listen(broker.port)
    assert ear.next() == Opened("mqtt")
    with Listener(broker.port) as flood, Listener(broker.port) as other:
        began_s = time.monotonic()
        for _ in range(5 * MAX_PER_S):
            flood._client.publish(UPLINK, b"y" * 200, qos=0)
        other.say(SAMPLES, b"fall")
        while ear.received().data != b"fall":
            pass
        other.say(UPLINK, b"y" * (MAX_OCTETS + 1))
        other.say(UPLINK, b"y" * 2 * MAX_OCTETS)  # the broker keeps it from us
        while ear.link.refused_messages == 0 and time.monotonic() < began_s + 5:
            time.sleep(0.02)
        took_s = time.monotonic() - began_s
        other.say(SAMPLES, b"end")
        n = 0
        while ear.received().data != b"end":
            n += 1
    assert n <= MAX_PER_S * (1 + int(took_s) + 1)
    assert ear.link.refused_messages > 0


def test_while_we_are_slow_the_broker_waits_and_nothing_grows(broker: Broker) -> None:
    held = queue.Queue[LinkEvent](maxsize=10)
    ear = Ear(broker.port, held.put)
    assert held.get(timeout=10) == Opened("mqtt")
    with Listener(broker.port) as flood:
        for i in range(300):
            flood._client.publish(SAMPLES, i.to_bytes(2, "big") + bytes(MAX_OCTETS // 4), qos=0)
        flood.say("elsewhere", b"")
        time.sleep(0.3)
        assert held.full()
        assert len(ear.link._topics) == 1
        assert held.get(timeout=5).data[:2] == b"\0\0"  # type: ignore[union-attr]
    with contextlib.suppress(queue.Empty):
        while True:
            held.get(timeout=1.0)
    ear.stop()


def test_only_so_many_topics_and_downlinks_are_remembered(broker: Broker, listen: Callable[..., Ear]) -> None:
    ear = listen(broker.port)
    assert ear.next() == Opened("mqtt")
    with Listener(broker.port) as flood:
        for i in range(2 * MAX_TOPICS):
            flood.say(UPLINK.replace("room-12", f"r{i}"), b"y")
        for _ in range(2 * MAX_TOPICS):
            ear.received()
        time.sleep(0.3)
        assert len(ear.link._topics) == len(ear.link.receivers) == MAX_TOPICS
    taken = [ear.link.send(bytes(30)) for _ in range(1000)]
    assert taken.count(True) <= 10 * MAX_DOWNLINKS
    assert len(ear.link._downlinks) <= MAX_DOWNLINKS


def test_losses_leak_no_sockets_and_no_threads(
    monkeypatch: pytest.MonkeyPatch, listen: Callable[..., Ear]
) -> None:
    monkeypatch.setattr(source, "_BACKOFF_S", (0.01, 0.02))
    with scripted(suback=b"\x87\x87\x87") as port:
        ear = listen(port)
        assert isinstance(ear.next(), Lost)
        time.sleep(0.3)
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        time.sleep(1.0)
        after = len(os.listdir("/proc/self/fd")), threading.active_count()
        ear.stop()
    assert abs(after[0] - before[0]) <= 3  # caught between dialling and hanging up
    assert after[1] - before[1] <= 1
    assert ear.events.empty()


@contextlib.contextmanager
def scripted(
    *, connack: bytes = b"\x20\x03\x00\x00\x00", suback: bytes = b"\x01\x01\x01", retained: bool = False
) -> Iterator[int]:
    """A broker of a few octets, MQTT 5: answers CONNECT and SUBSCRIBE as it is told; yields its port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    connection.recv(4096)
                    connection.sendall(connack)
                    if not (asked := connection.recv(4096)):
                        continue
                    mid = asked[2:4] if asked[1] < 128 else asked[3:5]
                    connection.sendall(bytes([0x90, 3 + len(suback)]) + mid + b"\0" + suback)
                    if retained:
                        topic = len(SAMPLES).to_bytes(2, "big") + SAMPLES.encode() + b"\0"
                        for first, body in ((0x31, topic + b"old"), (0x30, topic + b"live")):
                            connection.sendall(bytes([first, len(body)]) + body)
                    while connection.recv(4096):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(6)
