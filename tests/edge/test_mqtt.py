from __future__ import annotations

import datetime as dt
import gc
import ipaddress
import json
import queue
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from edge.settings import MqttSettings
from edge.sinks.mqtt import (
    EVENT_TYPES,
    MAX_HEARD_PER_S,
    MAX_WAITING,
    MqttEvent,
    MqttPublisher,
    parse_quiet,
    parse_set,
)
from tests.edge.brokers import MOSQUITTO, Broker, Heard, Listener, amqtt, mosquitto

INCIDENT = "0193510c-0000-7000-8000-000000000001"
TOPIC = f"fallwatch/site-7/incident/{INCIDENT}"
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="mosquitto is not installed; amqtt stands in elsewhere"
)
by_people = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["by", "state", "x"]), inner),
)


def fall(state: str = "raised", incident: str = INCIDENT, **more: object) -> dict[str, object]:
    return {"schema": 1, "incident": incident, "home": "site-7", "kind": "fall", "state": state, "resident": "r12",
            "room": "12", "drill": False, **more}  # fmt: skip


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    if request.param == "mosquitto" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed; amqtt stands in")
    with mosquitto(tmp_path) if request.param == "mosquitto" else amqtt() as broker:
        yield broker


class Service:
    """A publisher, and the queue its events come on."""

    def __init__(self, port: int, *, password: str | None = None, **settings: Any) -> None:
        self.events: queue.SimpleQueue[MqttEvent] = queue.SimpleQueue()
        self.publisher = MqttPublisher(
            MqttSettings(host="127.0.0.1", port=port, **settings),
            "site-7",
            self.events,
            rooms={"r12": "12", "r.13": 'The "blue" room'},
            channels=["espa-1", "east wing/2"],
            password=password,
        )
        self.publisher.start()

    def event(self, timeout_s: float = 10.0) -> MqttEvent:
        """Return the next event, and deal at once with whatever asks for it."""
        event = self.events.get(timeout=timeout_s)
        while event[0] == "heard":
            self.publisher.forget(event[1], event[2])
            event = self.events.get(timeout=timeout_s)
        return event

    def no_event_for(self, quiet_s: float) -> bool:
        try:
            self.event(timeout_s=quiet_s)
        except queue.Empty:
            return True
        return False


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def make(port: int, **settings: Any) -> Service:
        services.append(Service(port, **settings))
        return services[-1]

    yield make
    for service in services:
        service.publisher.stop()


def test_an_incident_is_seen_by_who_comes_later(broker: Broker, serve: Callable[..., Service]) -> None:
    service = serve(broker.port)
    assert service.event() == ("connected",)
    service.publisher.publish_incident(7, fall(), closed=False)
    assert service.event() == ("published", 7)
    with Listener(broker.port, "fallwatch/site-7/incident/+", "fallwatch/site-7/status") as late:
        heard = {message.topic: message for message in (late.hear(), late.hear())}
    assert json.loads(heard[TOPIC].payload) == fall()
    assert heard["fallwatch/site-7/status"] == Heard("fallwatch/site-7/status", b"online", retained=True)


def test_a_closed_incident_is_told_and_then_taken_away(broker: Broker, serve: Callable[..., Service]) -> None:
    service = serve(broker.port)
    with Listener(broker.port, "fallwatch/site-7/incident/+") as live:
        service.publisher.publish_incident(1, fall(), closed=False)
        service.publisher.publish_incident(2, fall("resolved"), closed=True)
        assert [service.event(), service.event(), service.event()] == [
            ("connected",),
            ("published", 1),
            ("published", 2),
        ]
        told = [live.hear().payload for _ in range(3)]
    assert [json.loads(payload)["state"] for payload in told[:2]] == ["raised", "resolved"]
    assert told[2] == b""
    with Listener(broker.port, "fallwatch/site-7/incident/+") as late:
        assert late.hear_nothing_for(0.3)


def test_staff_acknowledge_over_the_broker(broker: Broker, serve: Callable[..., Service]) -> None:
    service = serve(broker.port)
    assert service.event() == ("connected",)
    with Listener(broker.port) as staff:
        staff.say(f"{TOPIC}/set", json.dumps({"by": "Night shift", "state": "acknowledged"}))
        assert service.event() == ("acknowledge", INCIDENT, "Night shift", "acknowledged")
        staff.say(f"{TOPIC}/set", json.dumps({"by": "Kim", "state": "attended"}))
        assert service.event() == ("acknowledge", INCIDENT, "Kim", "attended")


@needs_mosquitto  # amqtt keeps no messages for who is away
def test_an_acknowledgement_sent_while_we_are_away_is_not_lost(
    tmp_path: Path, serve: Callable[..., Service]
) -> None:
    with mosquitto(tmp_path) as broker:
        first = serve(broker.port)
        assert first.event() == ("connected",)
        first.publisher.stop()
        with Listener(broker.port) as staff:
            staff.say(f"{TOPIC}/set", b'{"by": "Kim", "state": "acknowledged"}')
        again = serve(broker.port)
        assert {again.event(), again.event()} == {("connected",), ("acknowledge", INCIDENT, "Kim", "acknowledged")}
        again.publisher.stop()


def test_a_killed_service_is_offline(broker: Broker) -> None:
    script = f"""
import queue, time
from edge.settings import MqttSettings
from edge.sinks.mqtt import MqttPublisher
settings = MqttSettings(host="127.0.0.1", port={broker.port})
MqttPublisher(settings, "site-7", queue.SimpleQueue(), rooms={{}}, channels=[]).start()
time.sleep(60)
"""
    with Listener(broker.port, "fallwatch/site-7/status") as live:
        service = subprocess.Popen([sys.executable, "-c", script])
        try:
            assert live.hear(20).payload == b"online"
        finally:
            service.kill()
            service.wait()
        assert live.hear().payload == b"offline"
    with Listener(broker.port, "fallwatch/site-7/status") as late:
        assert late.hear() == Heard("fallwatch/site-7/status", b"offline", retained=True)


def test_a_stopped_service_says_offline(broker: Broker, serve: Callable[..., Service]) -> None:
    with Listener(broker.port, "fallwatch/site-7/status") as live:
        service = serve(broker.port)
        assert live.hear().payload == b"online"
        assert service.event() == ("connected",)
        service.publisher.stop()
        assert live.hear().payload == b"offline"
    assert not service.publisher.connected
    assert service.no_event_for(0.1)  # our own going is no loss


@needs_mosquitto
def test_a_broker_away_for_seconds_loses_and_doubles_nothing(
    tmp_path: Path, serve: Callable[..., Service]
) -> None:
    with (
        mosquitto(tmp_path) as broker,
        Listener(broker.port, "fallwatch/site-7/incident/+", client_id="hub") as hub,
    ):
        service = serve(broker.port)
        assert service.event() == ("connected",)
        for seq in range(1, 6):
            service.publisher.publish_incident(seq, fall("paged", seq=seq), closed=False)
        assert [service.event() for _ in range(5)] == [("published", seq) for seq in range(1, 6)]
        heard = hub.hear_until(lambda message: json.loads(message.payload)["seq"] == 5)
        time.sleep(0.3)  # for the hub's own PUBACKs, or the broker rightly tells the hub twice
        broker.stop()
        assert service.event()[0] == "lost"
        for seq in range(6, 6 + MAX_WAITING):
            service.publisher.publish_incident(seq, fall("paged", seq=seq), closed=False)
        assert not service.publisher.ready_for_more
        time.sleep(1.5)  # a second try fails in this time; what was told once is not told again
        broker.start()
        assert service.event() == ("connected",)
        last = 5 + MAX_WAITING
        assert [service.event() for _ in range(6, last + 1)] == [("published", seq) for seq in range(6, last + 1)]
        heard += hub.hear_until(lambda message: json.loads(message.payload)["seq"] == last)
        live = [json.loads(message.payload)["seq"] for message in heard if not message.retained]
        assert live == list(range(1, last + 1))
        assert service.no_event_for(0.2)
        service.publisher.stop()


def test_what_waits_goes_out_in_order_when_a_broker_appears(serve: Callable[..., Service]) -> None:
    broker = amqtt()
    service = serve(broker.port)
    assert service.event() == ("lost", f"127.0.0.1:{broker.port} cannot be reached")
    for seq in range(1, 4):
        service.publisher.publish_incident(seq, fall("paged", seq=seq), closed=False)
    with broker:
        assert [service.event() for _ in range(4)] == [
            ("connected",),
            *(("published", seq) for seq in range(1, 4)),
        ]
        with Listener(broker.port, TOPIC) as late:
            assert json.loads(late.hear().payload)["seq"] == 3
        service.publisher.stop()


def test_what_was_under_way_when_the_line_broke_is_sent_once_more_and_in_order(
    serve: Callable[..., Service],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        service = serve(server.getsockname()[1])
        for seq in range(1, 4):
            service.publisher.publish_incident(seq, fall("acknowledged", seq=seq), closed=False)
        with server.accept()[0] as first:
            assert _incidents(first, 3, puback=False) == [1, 2, 3]
        assert [service.event()[0], service.event()[0]] == ["connected", "lost"]
        service.publisher.publish_incident(4, fall("acknowledged", seq=4), closed=False)
        with server.accept()[0] as second:
            assert _incidents(second, 4, puback=True) == [1, 2, 3, 4]
            assert [service.event() for _ in range(5)] == [
                ("connected",),
                *(("published", seq) for seq in range(1, 5)),
            ]
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):
                _incidents(second, 1, puback=True)
        service.publisher.stop(timeout_s=0.1)  # nobody answers any more


def test_a_broker_that_forgot_is_told_of_open_incidents_again(serve: Callable[..., Service]) -> None:
    other = INCIDENT.replace("0193", "0194")
    with amqtt() as broker:
        service = serve(broker.port)
        service.publisher.publish_incident(1, fall(), closed=False)
        service.publisher.publish_incident(2, fall(incident=other), closed=False)
        service.publisher.publish_incident(3, fall("resolved", incident=other), closed=True)
        service.publisher.publish_channel("espa-1", False)
        assert [service.event()[0] for _ in range(4)] == ["connected", *["published"] * 3]
        broker.stop()
        assert service.event()[0] == "lost"
        broker.start()
        assert service.event() == ("connected",)
        with Listener(broker.port, "fallwatch/#") as late:
            heard = {
                message.topic: message.payload for message in late.hear_until(lambda m: "channel" in m.topic, 5)
            }
        assert json.loads(heard[TOPIC]) == fall()
        assert heard["fallwatch/site-7/channel/espa-1"] == b"OFF"
        assert f"fallwatch/site-7/incident/{other}" not in heard
        service.publisher.stop()


@needs_mosquitto
def test_a_broker_that_freezes_is_noticed_and_nothing_is_lost(
    tmp_path: Path, serve: Callable[..., Service]
) -> None:
    with mosquitto(tmp_path) as broker:
        service = serve(broker.port, keepalive_s=2)
        assert service.event() == ("connected",)
        broker.freeze()
        began_s = time.monotonic()
        service.publisher.publish_incident(1, fall(), closed=False)
        assert service.event()[0] == "lost"
        assert time.monotonic() - began_s < 1.5 * 2 + 2.0  # paho looks at the clock once a second
        broker.thaw()
        assert [service.event(), service.event()] == [("connected",), ("published", 1)]
        service.publisher.stop()


def test_a_broker_that_never_answers_is_noticed(serve: Callable[..., Service]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began_s = time.monotonic()
        service = serve(mute.getsockname()[1], keepalive_s=2)
        assert service.event()[0] == "lost"
        assert time.monotonic() - began_s < 1.5 * 2 + 2.0
        assert not service.publisher.connected


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"yes", b"[]", b"{", b"null", b"\xff\xfe", b"[" * 1000, b'{"by": 7}', b'{"state": "acknowledged"}',
        b'{"by": "Kim", "state": "resolved"}', b'{"by": "", "state": "acknowledged"}', b'{"by": "a\\u0000b"}',
        b'{"by": "\\ud800"}', b'{"by": "' + b"x" * 65 + b'"}', b'{"by": "Kim", "pad": "' + b"x" * 1024 + b'"}',
    ],
)  # fmt: skip
def test_a_malformed_staff_message_is_refused(payload: bytes) -> None:
    assert parse_set(f"{TOPIC}/set", payload) is None


@given(
    payload=st.binary(max_size=80) | by_people.map(lambda said: json.dumps(said).encode()),
    incident=st.text(max_size=70),
)
def test_no_staff_message_raises(payload: bytes, incident: str) -> None:
    event = parse_set(f"fallwatch/site-7/incident/{incident}/set", payload)
    assert event is None or (event[2].isprintable() and event[3] in ("acknowledged", "attended"))


@pytest.mark.parametrize("incident", ["", "a b", "../x", "x" * 65, "\u00e9"])
def test_an_odd_incident_id_is_refused(incident: str) -> None:
    assert parse_set(f"fallwatch/site-7/incident/{incident}/set", b'{"by": "Kim"}') is None


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed; amqtt does not send again what it owes")
def test_what_nobody_dealt_with_is_heard_again_after_a_restart(
    tmp_path: Path, serve: Callable[..., Service]
) -> None:
    with mosquitto(tmp_path) as broker, Listener(broker.port, "nothing") as staff:
        first = serve(broker.port)
        assert first.event() == ("connected",)
        staff.say(f"{TOPIC}/set", b'{"by": "Kim"}')
        heard = ("acknowledge", INCIDENT, "Kim", "acknowledged")
        assert first.events.get(timeout=10) == heard
        first.publisher.stop()  # before it was written down
        second = serve(broker.port)
        assert {second.event(), second.event()} == {("connected",), heard}
        assert second.no_event_for(0.3)
        second.publisher.stop()
        third = serve(broker.port)
        assert third.event() == ("connected",)
        assert third.no_event_for(0.5)


def test_quiet_is_asked_for_by_resident_and_minutes() -> None:
    topic = "fallwatch/site-7/resident/r12/quiet/set"
    assert parse_quiet(topic, b'{"by": "Kim", "minutes": 10}') == ("snooze", "r12", "Kim", 600.0)
    assert parse_quiet(topic, b'{"by": "Kim", "minutes": 0}') == ("snooze", "r12", "Kim", 0.0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"minutes": 10}',
        b'{"by": "Kim"}',
        b'{"by": "Kim", "minutes": 16}',
        b'{"by": "Kim", "minutes": true}',
        b'{"by": "Kim", "minutes": -1}',
        b'{"by": "Kim", "minutes": NaN}',
        b'{"by": " ", "minutes": 1}',
    ],
)
def test_anything_else_asks_for_no_quiet(payload: bytes) -> None:
    assert parse_quiet("fallwatch/site-7/resident/r12/quiet/set", payload) is None


def test_quiet_is_shown_to_whoever_looks_and_heard_from_staff(
    broker: Broker, serve: Callable[..., Service]
) -> None:
    service = serve(broker.port)
    assert service.event() == ("connected",)
    service.publisher.publish_snooze("r12", 600, "Kim")
    topic = "fallwatch/site-7/resident/r12/quiet"
    with Listener(broker.port, topic) as hub:
        said = hub.hear_until(lambda message: b"true" in message.payload)[-1]
        assert json.loads(said.payload) == {"quiet": True, "left_s": 600, "by": "Kim"}
        hub.say(f"{topic}/set", b'{"by": "Kim", "minutes": 0}')
        assert service.event() == ("snooze", "r12", "Kim", 0.0)
        service.publisher.publish_snooze("r12", None, "")
        assert json.loads(hub.hear().payload)["quiet"] is False


def test_hostile_messages_are_counted_and_the_next_good_one_is_heard(
    broker: Broker, serve: Callable[..., Service]
) -> None:
    service = serve(broker.port)
    assert service.event() == ("connected",)
    with Listener(broker.port) as staff:
        for payload in (b"", b"[" * 1000, b"\xff", b'{"by": null}'):
            staff.say(f"{TOPIC}/set", payload)
        staff.say(f"{TOPIC}/set", b'{"by": "Kim"}')
        assert service.event() == ("acknowledge", INCIDENT, "Kim", "acknowledged")
        assert service.publisher.refused_messages == 4


def test_a_flood_of_messages_is_cut_short(serve: Callable[..., Service]) -> None:
    with amqtt() as broker, Listener(broker.port) as staff:
        service = serve(broker.port)
        assert service.event() == ("connected",)
        for _ in range(200):
            staff._client.publish(f"{TOPIC}/set", b'{"by": "Kim"}', qos=0)
        time.sleep(1.1)
        staff.say(f"{TOPIC}/set", b'{"by": "Lee"}')
        heard = [service.event()]
        while heard[-1] != ("acknowledge", INCIDENT, "Lee", "acknowledged"):
            heard.append(service.event())
        service.publisher.stop()
    assert MAX_HEARD_PER_S <= len(heard) <= 3 * MAX_HEARD_PER_S
    assert service.publisher.refused_messages == 201 - len(heard)


def test_home_assistant_finds_each_resident_and_channel(broker: Broker, serve: Callable[..., Service]) -> None:
    service = serve(broker.port)
    service.publisher.publish_channel("east wing/2", True)
    assert service.event() == ("connected",)
    with Listener(broker.port, "homeassistant/#", "fallwatch/#") as hub:
        heard = hub.hear_until(lambda message: message.topic.startswith("fallwatch/site-7/channel"))
        heard += [hub.hear() for _ in range(10 - len(heard))]
        configs = {
            message.topic: json.loads(message.payload) for message in heard if message.topic.endswith("/config")
        }
        assert set(configs) == {
            "homeassistant/event/fallwatch-site-7/resident-r12/config",
            "homeassistant/event/fallwatch-site-7/resident-r_2e_13/config",
            "homeassistant/binary_sensor/fallwatch-site-7/quiet-r12/config",
            "homeassistant/binary_sensor/fallwatch-site-7/quiet-r_2e_13/config",
            "homeassistant/binary_sensor/fallwatch-site-7/channel-espa-1/config",
            "homeassistant/binary_sensor/fallwatch-site-7/channel-east_20_wing_2f_2/config",
        }
        resident = configs["homeassistant/event/fallwatch-site-7/resident-r_2e_13/config"]
        assert resident["name"] == 'Resident r.13, room The "blue" room'
        assert resident["state_topic"] == "fallwatch/site-7/resident/r.13/event"
        assert resident["event_types"] == list(EVENT_TYPES)
        assert len({config["unique_id"] for config in configs.values()}) == 6
        assert {config["availability_topic"] for config in configs.values()} == {"fallwatch/site-7/status"}
        channel = configs["homeassistant/binary_sensor/fallwatch-site-7/channel-east_20_wing_2f_2/config"]
        assert channel["device_class"] == "connectivity"
        state = next(message for message in heard if "/channel/" in message.topic)
        assert (state.topic, state.payload) == (channel["state_topic"], b"ON")
        service.publisher.publish_channel("east wing/2", False)
        hub.hear_until(lambda message: message == Heard(channel["state_topic"], b"OFF", retained=False))

        hub.say("homeassistant/status", b"online")  # Home Assistant started anew
        again = hub.hear_until(lambda message: message.topic == channel["state_topic"])
        assert {message.topic for message in again} >= set(configs)


def test_home_assistant_hears_of_an_incident_once_and_of_its_end(
    broker: Broker, serve: Callable[..., Service]
) -> None:
    service = serve(broker.port)
    with Listener(broker.port, "fallwatch/site-7/resident/+/event") as hub:
        states = ("raised", "paged", "paged", "acknowledged")
        for seq, state in enumerate(states):
            service.publisher.publish_incident(seq, fall(state, drill=True), closed=False)
        service.publisher.publish_incident(9, fall("resolved", drill=True), closed=True)
        heard = [hub.hear(), hub.hear()]
        assert hub.hear_nothing_for(0.2)
    assert [message.topic for message in heard] == ["fallwatch/site-7/resident/r12/event"] * 2
    assert [json.loads(message.payload) for message in heard] == [
        {"event_type": "fall", "incident": INCIDENT, "room": "12", "drill": True},
        {"event_type": "cleared", "incident": INCIDENT, "room": "12", "drill": True},
    ]


def test_only_so_much_waits_for_a_broker_and_only_in_order() -> None:
    publisher = MqttPublisher(MqttSettings(host="127.0.0.1"), "site-7", queue.SimpleQueue(), rooms={}, channels=[])
    for seq in range(MAX_WAITING):
        assert publisher.ready_for_more
        publisher.publish_incident(seq, fall(), closed=False)
        with pytest.raises(ValueError, match=r"after item|already wait"):
            publisher.publish_incident(seq, fall(), closed=False)
    assert not publisher.ready_for_more
    with pytest.raises(ValueError, match="already wait"):
        publisher.publish_incident(MAX_WAITING, fall(), closed=False)


@pytest.mark.parametrize("document", [fall(incident="a/b"), fall(probability=float("nan"))])
def test_what_cannot_be_published_is_the_callers_mistake(document: dict[str, object]) -> None:
    publisher = MqttPublisher(MqttSettings(host="127.0.0.1"), "site-7", queue.SimpleQueue(), rooms={}, channels=[])
    with pytest.raises(ValueError, match=r"no incident id|not JSON compliant"):
        publisher.publish_incident(1, document, closed=False)
    assert publisher.ready_for_more


@needs_mosquitto
def test_a_wrong_password_is_said_and_the_right_one_let_in(tmp_path: Path, serve: Callable[..., Service]) -> None:
    maker = shutil.which("mosquitto_passwd")
    assert maker is not None
    subprocess.run([maker, "-b", "-c", str(tmp_path / "users"), "fallwatch", "right"], check=True)
    with mosquitto(tmp_path, "allow_anonymous false", f"password_file {tmp_path}/users") as broker:
        wrong = serve(broker.port, username="fallwatch", password="wrong")
        assert wrong.event() == ("lost", "127.0.0.1 refused us (Not authorized)")
        wrong.publisher.stop()
        right = serve(broker.port, username="fallwatch", password="right")
        assert right.event() == ("connected",)
        right.publisher.stop()


@needs_mosquitto
@pytest.mark.filterwarnings(  # paho leaves a socket whose handshake failed to the garbage collector
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
def test_tls_is_spoken_only_with_a_broker_our_authority_vouches_for(
    tmp_path: Path, serve: Callable[..., Service]
) -> None:
    certificate, key = _certificate()
    (tmp_path / "broker.pem").write_bytes(certificate)
    (tmp_path / "broker.key").write_bytes(key)
    files = f"certfile {tmp_path}/broker.pem", f"keyfile {tmp_path}/broker.key"
    with mosquitto(tmp_path, *files) as broker:
        known = serve(broker.port, tls=True, ca_file=str(tmp_path / "broker.pem"))
        assert known.event() == ("connected",)
        known.publisher.stop()
        unknown = serve(broker.port, tls=True)
        assert unknown.event()[0] == "lost"
        unknown.publisher.stop()
        gc.collect()


def test_a_missing_ca_file_is_said_and_stops_nothing_else(tmp_path: Path, serve: Callable[..., Service]) -> None:
    service = serve(1883, tls=True, ca_file=str(tmp_path / "none.pem"))
    kind, reason = service.event()  # type: ignore[misc]
    assert (kind, "none.pem cannot be used" in str(reason)) == ("lost", True)
    service.publisher.publish_incident(1, fall(), closed=False)


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test broker")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
    )


def _incidents(connection: socket.socket, count: int, *, puback: bool) -> list[int]:
    """Be a broker, byte by byte, until ``count`` incidents have come; return their ``seq`` in order."""
    found: list[int] = []
    with connection.makefile("rwb", buffering=0) as stream:
        while len(found) < count:
            kind = stream.read(1)[0]
            length = shift = 0
            while (octet := stream.read(1)[0]) & 0x80:
                length, shift = length | (octet & 0x7F) << shift, shift + 7
            body = b""
            while len(body) < length | octet << shift:
                body += stream.read((length | octet << shift) - len(body))
            if kind >> 4 == 1:  # CONNECT
                stream.write(b"\x20\x02\x00\x00")
            elif kind >> 4 == 8:  # SUBSCRIBE
                stream.write(b"\x90\x04" + body[:2] + b"\x01\x01")
            elif kind >> 4 == 3:  # PUBLISH, QoS 1
                end = 2 + int.from_bytes(body[:2])
                if puback:
                    stream.write(b"\x40\x02" + body[end : end + 2])
                if b"/incident/" in body[:end]:
                    found.append(json.loads(body[end + 2 :])["seq"])
    return found
