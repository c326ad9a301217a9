"""The independent pager system digimat-espa, as a process of its own on a pty.

Prints the pty's path, then one JSON line per page it took: the block's records by id. It runs apart
because its thread dies of the warnings that our tests turn into errors.
"""

from __future__ import annotations

import json
import logging
import os
import pty
import sys
import time
import tty

import digimat.espa.espa as peer


def main() -> None:
    original = peer.MessageServer.decodeBuffer
    # As published it splits bytes by a str on Python 3 and so refuses every good block.
    peer.MessageServer.decodeBuffer = lambda self, buffer: original(self, buffer.decode("utf-8"))
    master, slave = pty.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    server = peer.Server(_Master(master), logLevel=logging.CRITICAL + 1)
    server.start()
    say(os.ttyname(slave))
    while True:
        notification = server.getNotification()
        if notification is not None:
            say(json.dumps(notification.data))
        time.sleep(0.05)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Master:
    """digimat's link interface on the pty's master end, which pyserial cannot open by a path."""

    name = "test"

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def setLogger(self, logger: logging.Logger) -> None:  # noqa: N802
        pass

    def open(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def reset(self) -> None:
        self.read()

    def read(self, size: int = 255) -> bytearray | None:
        try:
            return bytearray(os.read(self._fd, size))
        except BlockingIOError:
            return None

    def write(self, data: bytes) -> bool:
        return os.write(self._fd, data) == len(data)


if __name__ == "__main__":
    main()
