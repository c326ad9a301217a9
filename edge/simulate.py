"""A virtual dongle from recordings: what `fallwatch simulate`, the demo and the tests play."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.keys import KeyStore, KeyUnusable
from edge.recording import Recording, RecordingUnreadable, read_recording
from edge.settings import WEARABLE_PATTERN, Settings
from firmware_bridge import virtual

RANGES_G = (2, 4, 8, 16)
FULL_SCALE = 32768.0


class NotPlayable(Exception):
    """Something asked for cannot be played; ``status`` is the exit status it deserves."""

    def __init__(self, reason: str, *, status: int) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Play:
    """One wearable's part: ``FILE[,wearable=ID][,loop]``."""

    file: str
    wearable: str | None
    loop: bool


def parse_play(text: str) -> Play:
    """Read one ``--play``.

    Raises:
        NotPlayable: an option is unknown.
    """
    file, *options = text.split(",")
    wearable, loop = None, False
    for option in options:
        key, _, value = option.partition("=")
        if key == "wearable" and value:
            wearable = value
        elif option == "loop":
            loop = True
        else:
            raise NotPlayable(f"--play {text}: {option!r} is not known; use FILE[,wearable=ID][,loop]", status=2)
    return Play(file, wearable, loop)


def virtual_recording(recording: Recording) -> virtual.Recording:
    """Put a recording into a wearable's counts: one grid, its range the least that holds it."""
    rate_hz = round(min(max(recording.measured_rate_hz, 1.0), 600.0), 2)
    most_g = max(float(np.abs(run.accel_g).max()) for run in recording.runs)
    range_g = next((r for r in RANGES_G if r >= (recording.range_g or most_g)), RANGES_G[-1])
    runs, end = [], 0
    for run in recording.runs:
        first = max(math.ceil(run.t_s[0] * rate_hz - 1e-6), end)
        stop = math.floor(run.t_s[-1] * rate_hz + 1e-6) + 1
        if stop <= first:
            continue
        at_s = np.arange(first, stop) / rate_hz
        accel_g = np.stack([np.interp(at_s, run.t_s, run.accel_g[:, axis]) for axis in range(3)], axis=1)
        counts = np.clip(np.round(accel_g / range_g * FULL_SCALE), -32768, 32767).astype("<i2")
        runs.append(virtual.Run(first / rate_hz, counts.tobytes()))
        end = stop
    return virtual.Recording(runs, rate_hz=rate_hz, range_g=range_g)


def virtual_dongle(
    settings: Settings,
    state: Path,
    plays: Sequence[str],
    *,
    battery: Sequence[str] = (),
    silence: Sequence[str] = (),
    loss: float = 0.0,
    garbage: float = 0.0,
) -> tuple[virtual.VirtualDongle, list[str]]:
    """Return a dongle that plays recordings with the keys of this home, and the wearables' ids.

    A play that names no wearable takes the next resident's.

    Raises:
        NotPlayable: a recording, wearable or option cannot be used; says which and what to do.
    """
    parsed = [parse_play(text) for text in plays]
    named = {play.wearable for play in parsed}
    spare = iter([r.wearable for r in settings.resident if r.wearable and r.wearable not in named])
    charge = dict(_pair(text, "=", "--battery", most=100) for text in battery)
    silent = dict(_pair(text, "@", "--silence") for text in silence)
    store = KeyStore(settings.secrets, state)
    wearables = []
    for number, play in enumerate(parsed):
        name = play.wearable or next(spare, None)
        if name is None:
            raise NotPlayable(f"--play {play.file}: no resident is left; say ,wearable=ID", status=2)
        if not WEARABLE_PATTERN.fullmatch(name):
            raise NotPlayable(f"{name!r} is no wearable; use 1 to 8 letters, digits or '-'", status=2)
        try:
            recording = virtual_recording(read_recording(play.file))
            session = store.simulated_wearable(name)
        except RecordingUnreadable as error:
            raise NotPlayable(str(error), status=1) from None
        except KeyUnusable:
            raise NotPlayable(f"wearable {name} has no key; run fallwatch pair {name}", status=1) from None
        wearables.append(
            virtual.VirtualWearable(
                session,
                recording,
                loop=play.loop,
                battery_pct=round(charge.get(name, 87)),
                silent_from_s=silent.get(name, math.inf),
                offset_s=number * 0.5 / len(parsed),  # real wearables do not send all at once
            )
        )
    names = [wearable.id for wearable in wearables]
    if len(set(names)) != len(names):
        raise NotPlayable("--play: two play the same wearable; say ,wearable=ID for each", status=2)
    for name in [*charge, *silent]:
        if name not in names:
            raise NotPlayable(f"wearable {name} plays nothing; playing: {', '.join(names)}", status=2)
    return virtual.VirtualDongle(wearables, loss=loss, garbage=garbage), names


def _pair(text: str, sign: str, option: str, *, most: float = math.inf) -> tuple[str, float]:
    name, _, number = text.partition(sign)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value) or not 0 <= value <= most:
        number = "NUMBER" if most == math.inf else f"NUMBER, at most {most:g}"
        raise NotPlayable(f"{option} {text!r} is wrong; use ID{sign}{number}", status=2)
    return name, value
