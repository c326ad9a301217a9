"""Incidents to the building's MQTT broker, staff's acknowledgements back, Home Assistant discovery.

MQTT 3.1.1, as every broker speaks it, with a session that outlives the connection: what staff send
while we are away is waiting for us. Room and resident ids leave by here; names and NHS numbers never
come in.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import quote

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.broker import ping_every_s, prepare
from edge.settings import MqttSettings

log = logging.getLogger(__name__)

EVENT_TYPES = ("fall", "long-lie", "help-button", "blind", "cleared")
MAX_WAITING = 20  # incidents handed over and not yet taken by the broker
MAX_SET_OCTETS = 1024
MAX_QUIET_MIN = 15
MAX_HEARD_PER_S = 20  # staff never press faster; a broken gadget must not starve the alarm service
_RECONNECT_S = (1, 30)
_INCIDENT = re.compile(r"[A-Za-z0-9-]{1,64}")

MqttEvent = (
    tuple[Literal["published"], int]  # every item up to this number is with the broker
    | tuple[Literal["acknowledge"], str, str, str]  # incident, by, state (acknowledged or attended)
    | tuple[Literal["snooze"], str, str, float]  # resident, by, for so many seconds; 0 ends it
    | tuple[Literal["heard"], int, int]  # for `forget`, once what came before it is dealt with
    | tuple[Literal["connected"]]  # and we hear staff
    | tuple[Literal["lost"], str]  # why
)


class Events(Protocol):
    """Where events go: a ``queue.SimpleQueue``, or an unbounded ``queue.Queue``."""

    def put(self, item: MqttEvent, /) -> None:
        """Take one event without blocking."""


@dataclass(slots=True)
class _Message:
    topic: str
    payload: bytes
    retain: bool


@dataclass(slots=True)
class _Item:
    seq: int
    incident: str
    messages: list[_Message]
    retained: bytes  # what the broker holds for the incident afterwards; empty: nothing
    mids: set[int] = field(default_factory=set)  # sent on this connection, not yet PUBACKed
    sent: bool = False


class MqttPublisher:
    """The home's one client of the broker; nothing here blocks the caller but `stop`.

    What the broker has not PUBACKed is kept, at most `MAX_WAITING` items, and sent again in order on
    the next connection, so a consumer may see an item twice and goes by the incident's id and state.
    ``rooms`` maps each resident's id to their room, ``cameras`` each camera's to its own. Events are put on
    ``events`` from paho's thread.
    """

    def __init__(
        self,
        settings: MqttSettings,
        home: str,
        events: Events,
        *,
        rooms: Mapping[str, str],
        channels: Sequence[str],
        cameras: Mapping[str, str] | None = None,
        password: str | None = None,
    ) -> None:
        self.refused_messages = 0  # from staff, that were malformed or too many
        self._settings = settings
        self._password = password
        self._home = home
        self._root = f"fallwatch/{home}"
        self._events = events
        self._rooms = dict(rooms)
        self._cameras = dict(cameras or {})
        self._looks: dict[str, dict[str, Any]] = {}  # camera: what was last said of it
        self._wells: dict[str, bool | None] = dict.fromkeys(channels)
        self._lock = threading.Lock()  # outbox, wells, connected; see _settle for who may wait for it
        self._outbox: dict[int, _Item] = {}  # in order
        self._acked: deque[int] = deque()
        self._open: dict[str, bytes] = {}  # retained documents of open incidents, for a broker that forgets
        self._announced: set[str] = set()
        self._quiet: dict[str, dict[str, Any]] = {}
        self._connected = False
        self._told_lost = False
        self._heard_since_s, self._heard = 0.0, 0
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fallwatch-{home}",
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,  # what staff send is the broker's to keep until it is in the journal
        )
        self._client.will_set(f"{self._root}/status", "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(*_RECONNECT_S)
        self._client.enable_logger(logging.getLogger(f"{__name__}.paho"))
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and is still there."""
        return self._connected

    @property
    def ready_for_more(self) -> bool:
        """Whether `publish_incident` may be called."""
        return len(self._outbox) < MAX_WAITING

    def start(self) -> None:
        """Begin to connect, and to reconnect for ever; how it went comes as an event."""
        settings = self._settings
        try:
            prepare(self._client, settings, self._password)
        except (OSError, UnicodeError) as error:  # a person must mend the settings; the alarm goes on without
            self._lose(f"{settings.ca_file or settings.host} cannot be used ({error})")
            return
        self._client.connect_async(settings.host, settings.port, ping_every_s(settings))
        self._client.loop_start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Say ``offline``, wait for the broker to have it, and hang up."""
        if self._connected:
            with self._lock:
                farewell = self._client.publish(f"{self._root}/status", "offline", qos=1, retain=True)
            try:
                farewell.wait_for_publish(timeout_s)
            except RuntimeError:  # the connection went just now: the will speaks for us
                log.info("the broker left before we did")
        self._told_lost = True  # by our own will, so no news
        self._client.disconnect()
        self._client.loop_stop()

    def publish_incident(self, seq: int, document: Mapping[str, Any], closed: bool) -> None:
        """Publish an incident as it now stands, retained; when ``closed``, then take it off the broker.

        ``("published", seq)`` comes once the broker has it. Numbers rise. Whoever listens live still
        gets the final document; who comes later finds none.

        Raises:
            ValueError: `ready_for_more` is false, ``seq`` does not rise, or the document cannot be published.
        """
        incident = str(document["incident"])
        if not _INCIDENT.fullmatch(incident):
            raise ValueError(f"{incident!r} is no incident id")
        payload = _json(document)
        topic = f"{self._root}/incident/{incident}"
        with self._lock:
            if not self.ready_for_more:
                raise ValueError(f"{MAX_WAITING} items already wait for the broker")
            if self._outbox and seq <= next(reversed(self._outbox)):
                raise ValueError(f"item {seq} comes after item {next(reversed(self._outbox))}")
            messages = [_Message(topic, payload, retain=True)]
            messages += self._resident_event(incident, document, closed)
            if closed:
                messages.append(_Message(topic, b"", retain=True))
            self._outbox[seq] = item = _Item(seq, incident, messages, b"" if closed else payload)
            if self._connected:
                self._send_item(item)
        self._settle()

    def forget(self, mid: int, qos: int) -> None:
        """Acknowledge a message from staff to the broker, which otherwise sends it again."""
        self._client.ack(mid, qos)

    def publish_channel(self, name: str, well: bool) -> None:
        """Say whether a paging channel is well; retained, and said again on each connection."""
        with self._lock:
            self._wells[name] = well
            if self._connected:
                self._send(self._channel_state(name, well))

    def publish_camera(self, camera: str, look: Mapping[str, Any]) -> None:
        """Say how a camera is; retained, and said again on each connection."""
        with self._lock:
            self._looks[camera] = dict(look)
            if self._connected:
                self._send(self._camera_state(camera))

    def _camera_state(self, camera: str) -> _Message:
        unknown = {"sees": False, "cause": "not known yet", "paused_left_s": 0, "paused_by": ""}
        return _Message(f"{self._root}/camera/{camera}", _json(self._looks.get(camera, unknown)), retain=True)

    def publish_snooze(self, resident: str, left_s: int | None, by: str) -> None:
        """Say whether a resident's falls are quiet, for how long and by whom; retained."""
        said = {"quiet": left_s is not None, "left_s": left_s or 0, "by": by}
        with self._lock:
            self._quiet[resident] = said
            if self._connected:
                self._send(self._quiet_state(resident))

    def _quiet_state(self, resident: str) -> _Message:
        said = self._quiet.get(resident, {"quiet": False, "left_s": 0, "by": ""})
        return _Message(f"{self._root}/resident/{resident}/quiet", _json(said), retain=True)

    def _resident_event(self, incident: str, document: Mapping[str, Any], closed: bool) -> list[_Message]:
        """Home Assistant's event: once when an incident is first told, and once when it is over."""
        resident = document.get("resident")
        if closed:
            self._announced.discard(incident)
        elif incident in self._announced or document.get("state") not in ("raised", "paged"):
            return []
        else:
            self._announced.add(incident)
        if resident not in self._rooms:
            return []
        event = {
            "event_type": "cleared" if closed else str(document["kind"]),
            "incident": incident,
            "room": self._rooms[resident],
            "drill": bool(document.get("drill")),
        }
        return [_Message(f"{self._root}/resident/{resident}/event", _json(event), retain=False)]

    def _channel_state(self, name: str, well: bool) -> _Message:
        return _Message(f"{self._root}/channel/{quote(name, safe='')}", b"ON" if well else b"OFF", retain=True)

    def _discovery(self) -> list[_Message]:
        """Home Assistant's retained descriptions: an event entity per resident, connectivity per channel."""
        common = {
            "availability_topic": f"{self._root}/status",
            "device": {
                "identifiers": [f"fallwatch-{self._home}"],
                "name": f"fallwatch {self._home}",
                "manufacturer": "fallwatch",
                "model": "falls detection",
            },
        }
        entities: list[tuple[str, str, dict[str, Any]]] = [
            (
                "event",
                f"resident-{resident}",
                {
                    "name": f"Resident {resident}, room {room}",
                    "state_topic": f"{self._root}/resident/{resident}/event",
                    "event_types": EVENT_TYPES,
                },
            )
            for resident, room in self._rooms.items()
        ]
        entities += [
            (
                "binary_sensor",
                f"quiet-{resident}",
                {
                    "name": f"Falls quiet, resident {resident}, room {room}",
                    "icon": "mdi:bell-sleep",
                    "state_topic": self._quiet_state(resident).topic,
                    "value_template": "{{ 'ON' if value_json.quiet else 'OFF' }}",
                    "json_attributes_topic": self._quiet_state(resident).topic,
                },
            )
            for resident, room in self._rooms.items()
        ]
        entities += [
            (
                "binary_sensor",
                f"channel-{name}",
                {
                    "name": f"Pager line {name}",
                    "device_class": "connectivity",
                    "state_topic": self._channel_state(name, True).topic,
                },
            )
            for name in self._wells
        ]
        entities += [
            (
                "binary_sensor",
                f"camera-{camera}",
                {
                    "name": f"Depth camera {camera}, room {room}",
                    "icon": "mdi:motion-sensor",
                    "state_topic": self._camera_state(camera).topic,
                    "value_template": "{{ 'ON' if value_json.sees else 'OFF' }}",
                    "json_attributes_topic": self._camera_state(camera).topic,
                },
            )
            for camera, room in self._cameras.items()
        ]
        prefix = self._settings.discovery_prefix
        return [
            _Message(
                f"{prefix}/{component}/{_node(f'fallwatch-{self._home}')}/{_node(thing)}/config",
                _json({**what, "unique_id": f"fallwatch-{self._home}-{thing}", **common}),
                retain=True,
            )
            for component, thing, what in entities
        ]

    def _send(self, message: _Message) -> int:
        return self._client.publish(message.topic, message.payload, qos=1, retain=message.retain).mid

    def _send_item(self, item: _Item) -> None:
        item.mids = {self._send(message) for message in item.messages}
        item.sent = True

    def _settle(self) -> None:
        """Take in the PUBACKs that came, and tell of what is done.

        paho holds its own lock while it reports a PUBACK, and wants it for each publish. So its thread
        must not wait for ours there: if another thread has it, that one settles as it leaves.
        """
        while self._acked and self._lock.acquire(blocking=False):
            try:
                self._settle_locked()
            finally:
                self._lock.release()

    def _settle_locked(self) -> None:
        while self._acked:
            mid = self._acked.popleft()
            for item in self._outbox.values():
                item.mids.discard(mid)
        while self._outbox:
            item = next(iter(self._outbox.values()))
            if item.mids or not item.sent:
                break
            del self._outbox[item.seq]
            if item.retained:
                self._open[item.incident] = item.retained
            else:
                self._open.pop(item.incident, None)
            self._events.put(("published", item.seq))

    def _lose(self, reason: str) -> None:
        self._connected = False
        if not self._told_lost:
            self._told_lost = True
            log.warning("no MQTT broker: %s", reason)
            self._events.put(("lost", reason))

    # What paho's thread calls. Of these only _on_connect and _on_message may wait for our lock.

    def _on_connect(
        self,
        client: mqtt.Client,
        _data: Any,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _more: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._lose(f"{self._settings.host} refused us ({reason})")
            return
        with self._lock:
            self._settle_locked()
            client.drop_out_messages()  # ours to send again, in order; paho would send old states after new ones
            self._connected, self._told_lost = True, False
            self._send(_Message(f"{self._root}/status", b"online", retain=True))
            client.subscribe(
                [
                    (f"{self._root}/incident/+/set", 1),
                    (f"{self._root}/resident/+/quiet/set", 1),
                    (f"{self._settings.discovery_prefix}/status", 1),
                ]
            )
            if not flags.session_present:  # a new broker, or one that forgot us and what it retained
                for incident, payload in self._open.items():
                    self._send(_Message(f"{self._root}/incident/{incident}", payload, retain=True))
            for item in self._outbox.values():
                self._send_item(item)
            self._describe()

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _more: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.warning("the MQTT broker does not let us hear staff or Home Assistant; allow it to")
        log.info("connected to the MQTT broker")
        self._events.put(("connected",))

    def _describe(self) -> None:
        for message in self._discovery():
            self._send(message)
        for name, well in self._wells.items():
            if well is not None:
                self._send(self._channel_state(name, well))
        for resident in self._rooms:
            self._send(self._quiet_state(resident))
        for camera in self._cameras:
            self._send(self._camera_state(camera))

    def _on_connect_fail(self, _client: mqtt.Client, _data: Any) -> None:
        self._lose(f"{self._settings.host}:{self._settings.port} cannot be reached")

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _data: Any,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _more: Properties | None,
    ) -> None:
        self._lose(str(reason))

    def _on_publish(
        self, _client: mqtt.Client, _data: Any, mid: int, _reason: ReasonCode, _more: Properties
    ) -> None:
        self._acked.append(mid)
        self._settle()

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        now_s = time.monotonic()
        if now_s - self._heard_since_s >= 1.0:
            self._heard_since_s, self._heard = now_s, 0
        self._heard += 1
        parse = parse_quiet if message.topic.endswith("/quiet/set") else parse_set
        if self._heard > MAX_HEARD_PER_S:
            self.refused_messages += 1
        elif message.topic == f"{self._settings.discovery_prefix}/status":
            if message.payload == b"online":  # Home Assistant started, and wants everything again
                with self._lock:
                    self._describe()
                self._settle()
        elif (event := parse(message.topic, bytes(message.payload))) is None:
            self.refused_messages += 1
        else:
            self._events.put(event)
            self._events.put(("heard", message.mid, message.qos))
            return
        client.ack(message.mid, message.qos)


def parse_quiet(topic: str, payload: bytes) -> tuple[Literal["snooze"], str, str, float] | None:
    """Read a staff message to ``.../resident/<id>/quiet/set``; None if it is anything but well formed."""
    levels, said = topic.split("/"), _said(payload)
    if len(levels) != 6 or said is None or (by := _by(said)) is None:
        return None
    minutes = said.get("minutes")
    if not isinstance(minutes, int | float) or isinstance(minutes, bool) or not 0 <= minutes <= MAX_QUIET_MIN:
        return None
    return ("snooze", levels[3], by, float(minutes * 60))


def parse_set(topic: str, payload: bytes) -> tuple[Literal["acknowledge"], str, str, str] | None:
    """Read a staff message to ``.../incident/<id>/set``; None if it is anything but well formed."""
    levels = topic.split("/")
    said = _said(payload)
    if len(levels) != 5 or not _INCIDENT.fullmatch(incident := levels[3]) or said is None:
        return None
    by, state = _by(said), said.get("state", "acknowledged")
    if by is None or state not in ("acknowledged", "attended"):
        return None
    return ("acknowledge", incident, by, state)


def _said(payload: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a person's client sent, if it is one."""
    if len(payload) > MAX_SET_OCTETS:
        return None
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _by(said: dict[str, Any]) -> str | None:
    """Return who says so; nobody in particular is not enough."""
    by = said.get("by")
    well = isinstance(by, str) and 1 <= len(by) <= 64 and by.isprintable() and bool(by.strip())
    return str(by).strip() if well else None


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _node(text: str) -> str:
    """Spell ``text`` with what Home Assistant allows in a discovery topic, differently for different texts."""
    return re.sub(r"[^A-Za-z0-9-]", lambda char: f"_{ord(char[0]):x}_", text)
