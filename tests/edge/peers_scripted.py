"""A far end for tests that says what a script has it say, on 127.0.0.1, for any line protocol."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def scripted(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Yield a port; each connection to it is given to ``talk``, one after the other, and closed then."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(10)
                try:
                    talk(connection)
                except OSError:  # the caller hung up, as many tests want
                    continue

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join(15)


def drip(connection: socket.socket, octets: bytes, every_s: float, most_s: float = 8.0) -> None:
    """Send an octet now and then, again and again from the first, until the caller hangs up."""
    until_s = time.monotonic() + most_s
    number = 0
    while time.monotonic() < until_s:
        connection.sendall(octets[number % len(octets)].to_bytes(1, "big"))
        number += 1
        time.sleep(every_s)
