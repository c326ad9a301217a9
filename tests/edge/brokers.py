"""Real MQTT brokers for tests, each a process of its own on a free port of 127.0.0.1, and a listener."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # Debian keeps it there
# Linux hands out 32768 and more by itself: a port from there may be taken before a server has started on it.
_FIRST_PORT = 20000 + 1000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12)
_TURNS = itertools.count(os.getpid())  # so that we seldom begin where another run has begun


class Broker:
    """A broker that can be stopped, killed or frozen, and started again on the same port."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.stop()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until_s = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < until_s, f"{self._command} does not listen"
                assert self._process.poll() is None, f"{self._command} ended"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """Return a port on which nobody listens, TCP or UDP; each call, in each worker, gives another."""
    while True:
        port = _FIRST_PORT + next(_TURNS) % 1000
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


def mosquitto(folder: Path, *more: str) -> Broker:
    """A mosquitto that keeps sessions and retained messages in ``folder``; ``more`` are lines of its settings."""
    assert MOSQUITTO is not None
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "persistence true", f"persistence_location {folder}/", *more]
    if not any(line.startswith("allow_anonymous") for line in more):
        lines.append("allow_anonymous true")
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes a user who may not enter the folder
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    return Broker([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], port)


def amqtt() -> Broker:
    """The broker of amqtt, which forgets everything when it stops."""
    port = free_port()
    return Broker([sys.executable, "-W", "ignore", __file__, str(port)], port)


@dataclass(frozen=True)
class Heard:
    topic: str
    payload: bytes
    retained: bool  # was on the broker before we asked


class Listener:
    """Another client of the broker: hears ``topics`` and may speak."""

    def __init__(self, port: int, *topics: str, client_id: str = "") -> None:
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=not client_id)
        self._client.reconnect_delay_set(1, 1)

        def on_connect(client: mqtt.Client, *_: Any) -> None:
            client.subscribe([(topic, 1) for topic in topics or ("nothing",)])

        def on_message(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
            self._heard.put(Heard(message.topic, bytes(message.payload), message.retain))

        self._client.on_connect = on_connect
        self._client.on_message = on_message
        self._client.on_subscribe = lambda *_: self._subscribed.put(None)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._subscribed.get(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def hear(self, timeout_s: float = 10.0) -> Heard:
        return self._heard.get(timeout=timeout_s)

    def hear_until(self, wanted: Callable[[Heard], bool], timeout_s: float = 10.0) -> list[Heard]:
        """Return everything up to the first message that is ``wanted``."""
        until_s, heard = time.monotonic() + timeout_s, list[Heard]()
        while not heard or not wanted(heard[-1]):
            heard.append(self._heard.get(timeout=max(0.01, until_s - time.monotonic())))
        return heard

    def hear_nothing_for(self, quiet_s: float) -> bool:
        try:
            self._heard.get(timeout=quiet_s)
        except queue.Empty:
            return True
        return False

    def say(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)


async def _run_amqtt(port: int) -> None:
    from amqtt.broker import Broker as AmqttBroker  # noqa: PLC0415  it warns, which our tests turn into errors

    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = AmqttBroker(
        {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins}
    )
    await broker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run_amqtt(int(sys.argv[1])))
