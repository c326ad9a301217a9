"""What a watch measures on an arm that moves at random: gestures that no set holds, and never a fall.

Waving, putting on a jacket, knocking on a door: falls are few in the sets, and so are lively gestures, which a
network that has not seen them takes for falls. Two links, shoulder and elbow, turn by smooth random angles; the
second derivative of the wrist's path, seen from the turning wrist, is what an accelerometer there would read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from training.readers import STANDARD_GRAVITY, Trial, even_times

RATE_HZ = 100.0
LINKS_M = (0.30, 0.26)  # upper arm, forearm
PEOPLE = 40  # as many made-up people share the movements, so that none weighs more than a real one
Floats = NDArray[np.float64]


def gestures(count: int, rng: np.random.Generator) -> list[Trial]:
    """Return made-up trials of daily movement at the wrist."""
    return [_gesture(i, rng) for i in range(count)]


def _gesture(number: int, rng: np.random.Generator) -> Trial:
    n = int(rng.uniform(6, 15) * RATE_HZ)
    effort = np.clip(_smooth(n, rng.uniform(0.05, 0.4), rng) + rng.uniform(-0.5, 1.0), 0, None)
    effort /= max(float(effort.max()), 1e-3)
    turn = np.broadcast_to(np.linalg.qr(rng.normal(size=(3, 3)))[0], (n, 3, 3))
    wrist_m = 0.02 * rng.uniform() * np.stack([_smooth(n, rng.uniform(0.3, 1.5), rng) for _ in range(3)], axis=1)
    for link_m in LINKS_M:
        for _ in range(2):  # two axes at each joint
            turn = turn @ _rotations(rng.normal(size=3), _angle(n, rng.uniform(0.1, 1.2), effort, rng))
        wrist_m = wrist_m + turn @ np.array([0.0, 0.0, -link_m])
    turn = turn @ _rotations(rng.normal(size=3), _angle(n, rng.uniform(0.0, 1.0), effort, rng))
    moved_g = np.gradient(np.gradient(wrist_m, axis=0), axis=0) * RATE_HZ**2 / STANDARD_GRAVITY
    moved_g *= min(1.0, rng.uniform(0.3, 5.0) / max(float(np.linalg.norm(moved_g, axis=1).max()), 1e-3))
    accel_g = np.einsum("nji,nj->ni", turn, moved_g + np.array([0.0, 0.0, 1.0]))
    for _ in range(rng.integers(0, 4)):  # knocks
        at = int(rng.integers(0, n - 10))
        accel_g[at : at + int(rng.integers(1, 6))] += rng.normal(size=3) * rng.uniform(0.3, 2.5)
    accel_g += rng.normal(0, rng.uniform(0.002, 0.03), accel_g.shape)
    return Trial(
        dataset="gestures",
        person=f"gestures/{number % PEOPLE}",
        activity="gesture",
        is_fall=False,
        placement="wrist",
        rate_hz=RATE_HZ,
        range_g=16.0,
        age_group="made up",
        time_s=even_times(n, RATE_HZ),
        accel_g=accel_g.astype(np.float32),
        source="training/arm.py",
    )


def _angle(n: int, amplitude: float, effort: Floats, rng: np.random.Generator) -> Floats:
    """Return a joint's angle in radians: to and fro, or anyhow, on top of a slow change of pose."""
    hz = rng.uniform(0.3, 2.8)
    if rng.random() < 0.4:
        phase = 2 * np.pi * np.cumsum(hz * (1 + 0.2 * _smooth(n, 0.3, rng))) / RATE_HZ
        swing = np.sin(phase + rng.uniform(0, 2 * np.pi))
    else:
        swing = 0.7 * _smooth(n, hz, rng)
    pose = _smooth(n, rng.uniform(0.1, 0.5), rng) * rng.uniform(0, 0.8) * rng.uniform(0, 1)
    return amplitude * swing * effort + pose


def _smooth(n: int, hz: float, rng: np.random.Generator) -> Floats:
    """Return noise below a frequency, of standard deviation 1."""
    edge = int(2 * RATE_HZ)
    noise = gaussian_filter1d(rng.normal(size=n + 2 * edge), RATE_HZ / (2 * np.pi * hz))[edge:-edge]
    return np.asarray(noise / (noise.std() + 1e-9), np.float64)


def _rotations(axis: Floats, angle: Floats) -> Floats:
    """Return the rotations about an axis by each angle, shape (n, 3, 3) (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(
        np.eye(3) + np.sin(angle)[:, None, None] * cross + (1 - np.cos(angle))[:, None, None] * (cross @ cross),
        np.float64,
    )
