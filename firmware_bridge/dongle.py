"""The dongle on its serial port: where it is plugged in, and how it is greeted."""

from __future__ import annotations

import glob

from firmware_bridge.serial_link import SerialLink
from firmware_bridge.wire import DongleAsk, encode_frame

BY_ID = "/dev/serial/by-id/*fallwatch*"
BAUD = 460800


def find_dongles() -> list[str]:
    """Return the ports of the dongles plugged in, by the names that survive replugging."""
    return sorted(glob.glob(BY_ID))


class DonglePort(SerialLink):
    """One dongle's serial port."""

    def __init__(self, port: str, baud: int = BAUD) -> None:
        # The leading zero ends whatever an earlier write may have left half done.
        super().__init__(port, baud, greeting=lambda: [encode_frame(DongleAsk())], lead=b"\0")
