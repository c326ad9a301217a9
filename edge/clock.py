"""The clocks of the rim: one that only moves forward, one that people read, and whether to believe it."""

from __future__ import annotations

import ctypes
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

_TIME_ERROR = 5  # adjtimex(2): the kernel's clock is not synchronised
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")  # systemd-timesyncd's own mark


def monotonic_s() -> float:
    """Return seconds of a clock that only moves forward, the same in every process of one boot."""
    return time.monotonic()


def utc_now() -> datetime:
    """Return the wall clock, aware, UTC; see `clock_ok`."""
    return datetime.now(UTC)


def clock_ok() -> bool:
    """Tell whether the wall clock has been set from a trustworthy source since the machine started."""
    timex = (ctypes.c_long * 64)()  # all zero asks only; larger than struct timex on every platform
    synchronised: int = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return synchronised not in {-1, _TIME_ERROR} or _SYNCHRONISED.exists()


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the kernel's id of this boot: monotonic times compare only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
