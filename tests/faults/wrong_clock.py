"""As ``sitecustomize``: a program's wall clock is off by ``FALLWATCH_CLOCK_OFF_S``, and nobody vouches for it."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from edge import clock

_real_utc_now, _real_time = clock.utc_now, time.time
_OFF_S = float(os.environ.get("FALLWATCH_CLOCK_OFF_S", "0"))

if _OFF_S:
    clock.utc_now = lambda: _real_utc_now() + timedelta(seconds=_OFF_S)
    clock.clock_ok = lambda: False
    time.time = lambda: _real_time() + _OFF_S
