"""Wearables by way of the building's MQTT broker.

MQTT 5 with a clean start: what was published while we were away is not kept for us, since samples that come after
the gap tell nothing any more. The publisher chooses the quality of service, up to 1: samples at 0, as a repeat
comes too late to be worth the wait behind it; a button at 1, as it must not be lost on the way.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.broker import ping_every_s, prepare
from edge.settings import MqttSettings
from firmware_bridge.devices.broker import MAX_OCTETS, downlink_topic, receiver_of, uplink_topic, wearable_topics
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.wire import FirmwareBridgeError

log = logging.getLogger(__name__)

PORT = "mqtt"
LATELY_S = 60.0  # a receiver that was heard since gets what goes to wearables
MAX_TOPICS = 64  # remembered; of more the longest unheard is forgotten
MAX_PER_S = 400  # messages of one topic: one receiver hears forty wearables at 200 Hz less often
MAX_DOWNLINKS = 16  # waiting to be published
_LOOP_S = 0.1
_BACKOFF_S = (0.5, 8.0)
_STEADY_S = 10.0  # a link that held for so long begins anew with the shortest wait
_LOG_EVERY_S = 20.0  # a loss and its end are two lines
_MAX_PACKET = MAX_OCTETS + 1024  # with its topic


class BrokerLost(FirmwareBridgeError):
    """The broker cannot be reached, refuses us, or has gone; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"broker: {reason}")
        self.reason = reason


@dataclass(slots=True)
class _Topic:
    heard_s: float
    since_s: float = 0.0
    in_this_s: int = 0


class MqttLink:
    """The broker as a way in. `run` is the body of a thread, `send` may be called from any other.

    A `Received` is one whole message, its ``channel`` the topic. Nothing is gathered on the way: while ``put``
    blocks, the broker has to wait. ``wearables`` are those fed without a seal.
    """

    port = PORT

    def __init__(
        self, settings: MqttSettings, home: str, *, wearables: Collection[str] = (), password: str | None = None
    ) -> None:
        self.retained_messages = 0  # ignored: nobody knows how old they are
        self.refused_messages = 0  # too many of one topic in a second, or too long
        self._settings = settings
        self._home = home
        self._password = password
        self._filters = [uplink_topic(home)]
        self._filters += [topic for wearable in wearables for topic in wearable_topics(home, wearable)]
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # longest unheard first
        self._downlinks: deque[bytes] = deque(maxlen=MAX_DOWNLINKS)
        self._receivers: tuple[str, ...] = ()  # heard lately; replaced whole, so other threads may read it
        self._put: Callable[[LinkEvent], None] = _nowhere
        self._opened_s: float | None = None
        self._reason = ""  # why this connection is over
        self._told_log = False

    @property
    def receivers(self) -> tuple[str, ...]:
        """The receivers heard lately."""
        return self._receivers

    def send(self, data: bytes) -> bool:
        """Hand a sealed packet to every receiver heard lately; return whether there is any. Raises nothing."""
        if self._opened_s is None or not self._receivers or len(self._downlinks) == MAX_DOWNLINKS:
            return False
        self._downlinks.append(data)
        return True

    def run(self, put: Callable[[LinkEvent], None], stop: threading.Event) -> None:
        """Hear the broker until ``stop`` is set, dialling again whenever it is lost. ``put`` gets every event."""
        told_lost = False
        logged_s, backoff_s = -_LOG_EVERY_S, _BACKOFF_S[0]
        while not stop.is_set():
            self._put, self._opened_s, self._reason = put, None, ""
            client = mqtt.Client(
                CallbackAPIVersion.VERSION2, client_id=f"fallwatch-{self._home}-detect", protocol=mqtt.MQTTv5
            )
            try:
                self._serve(client, stop)
            except BrokerLost as lost:
                if self._opened_s is not None:
                    told_lost = False
                    if time.monotonic() - self._opened_s >= _STEADY_S:
                        backoff_s = _BACKOFF_S[0]
                self._forget()
                if not told_lost:
                    put(Lost(self.port, lost.reason))
                told_lost = True
                now_s = time.monotonic()
                if now_s - logged_s >= _LOG_EVERY_S:
                    log.warning("no wearables by MQTT: %s", lost.reason)
                    logged_s, self._told_log = now_s, True
            finally:
                client.disconnect()
            stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_S[1])
        self._forget()

    def _forget(self) -> None:
        self._opened_s, self._receivers = None, ()
        self._topics.clear()
        self._downlinks.clear()

    def _serve(self, client: mqtt.Client, stop: threading.Event) -> None:
        """Be connected until ``stop`` is set.

        Raises:
            BrokerLost: it did not come to that, or is over.
        """
        self._dial(client)
        answer_by_s = time.monotonic() + self._settings.keepalive_s
        while not stop.is_set():
            rc = client.loop(_LOOP_S)
            if self._reason:
                raise BrokerLost(self._reason)
            now_s = time.monotonic()
            if self._opened_s is None and now_s >= answer_by_s:
                raise BrokerLost(f"{self._settings.host} does not answer")
            if rc != mqtt.MQTT_ERR_SUCCESS:
                raise BrokerLost(f"{self._settings.host} closed the connection")
            self._pass_down(client, now_s)

    def _dial(self, client: mqtt.Client) -> None:
        settings = self._settings
        client.enable_logger(logging.getLogger(f"{__name__}.paho"))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.MaximumPacketSize = _MAX_PACKET  # the broker keeps longer ones from us
        try:
            prepare(client, settings, self._password)
        except (OSError, UnicodeError) as error:  # a person must mend the settings, or the file
            raise BrokerLost(f"{settings.ca_file or settings.host} cannot be used ({error})") from error
        where = f"{settings.host}:{settings.port}"
        try:
            client.connect(
                settings.host, settings.port, ping_every_s(settings), clean_start=True, properties=limits
            )
        except ssl.SSLError as error:
            raise BrokerLost(f"{where} cannot be trusted ({error.reason or error})") from error
        except TimeoutError as error:
            raise BrokerLost(f"{where} does not answer") from error
        except (OSError, ValueError) as error:
            raise BrokerLost(f"{where} cannot be reached ({_words(error)})") from error

    def _pass_down(self, client: mqtt.Client, now_s: float) -> None:
        """Publish what waits for wearables, from this thread: two that write at once would mix their octets."""
        lately = (
            receiver_of(self._home, topic)
            for topic, heard in self._topics.items()
            if now_s - heard.heard_s < LATELY_S
        )
        self._receivers = tuple(receiver for receiver in lately if receiver is not None)
        while self._downlinks:
            packet = self._downlinks.popleft()
            for receiver in self._receivers:
                client.publish(downlink_topic(self._home, receiver), packet, qos=0)  # a late command is worthless

    def _on_connect(
        self,
        client: mqtt.Client,
        _data: Any,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        host = self._settings.host
        if reason.is_failure:
            self._reason = f"{host} refused us ({reason})"
            return
        if getattr(properties, "ServerKeepAlive", 0) > self._settings.keepalive_s:
            self._reason = (
                f"{host} has a keep alive of its own that is longer than keepalive_s: set it lower there"
            )
            return
        # What is retained is not even sent; our own downlinks are in no topic we hear.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        client.subscribe([(topic, options) for topic in self._filters])

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _more: Properties | None
    ) -> None:
        for topic, reason in zip(self._filters, reasons, strict=False):
            if reason.is_failure:
                self._reason = f"{self._settings.host} does not let us hear {topic} ({reason})"
                return
        self._opened_s = time.monotonic()
        if self._told_log:
            log.info("wearables by MQTT are heard again")
        self._told_log = False
        self._put(Opened(self.port))

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _data: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _more: Properties | None,
    ) -> None:
        host = self._settings.host
        if self._reason:
            return
        if flags.is_disconnect_packet_from_server:
            self._reason = f"{host} ended the connection ({reason})"
        elif reason == "Keep alive timeout":
            self._reason = f"{host} does not answer"
        else:
            self._reason = f"{host} closed the connection"

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        now_s = time.monotonic()
        if message.retain:  # from a broker that sends them all the same
            self.retained_messages += 1
            return
        heard = self._topics.setdefault(message.topic, _Topic(now_s))
        self._topics.move_to_end(message.topic)
        if len(self._topics) > MAX_TOPICS:
            self._topics.popitem(last=False)
        heard.heard_s = now_s
        if now_s - heard.since_s >= 1.0:
            heard.since_s, heard.in_this_s = now_s, 0
        heard.in_this_s += 1
        if heard.in_this_s > MAX_PER_S or len(message.payload) > MAX_OCTETS:
            self.refused_messages += 1  # one that floods must not keep the others waiting
            return
        self._put(Received(self.port, bytes(message.payload), now_s, message.topic))


def _nowhere(_event: LinkEvent) -> None:
    """Take what is told before anybody listens."""


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
