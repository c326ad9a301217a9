"""Recordings as wearables of a virtual dongle."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import serial
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.keys import KeyStore
from edge.recording import Recording, Run, read_recording
from edge.settings import Settings, load_settings
from edge.simulate import NotPlayable, Play, parse_play, virtual_dongle, virtual_recording
from firmware_bridge.session import Gateway
from firmware_bridge.wire import FrameDecoder, Samples, Status, Uplink, UplinkMessage

DATA = Path(__file__).parent.parent / "data"
WALK, FALL = DATA / "walk-wrist.csv", DATA / "fall-forward-wrist.csv"
SETTINGS = """
[home]
id = "site-7"

[[resident]]
id = "r1"
room = "1"
wearable = "0001"

[[resident]]
id = "r2"
room = "2"
wearable = "0002"
"""


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "fallwatch.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "fallwatch.toml")
    for wearable in ("0001", "0002"):
        KeyStore(settings.secrets, tmp_path / "state").make(wearable)
    return settings


def opened(gateway: Gateway, data: bytes) -> list[tuple[str, UplinkMessage]]:
    frames = FrameDecoder().feed(data)
    messages = [gateway.open(frame.packet) for frame in frames if isinstance(frame, Uplink)]
    return [message for message in messages if message is not None]


def samples(messages: list[tuple[str, UplinkMessage]], wearable: str) -> list[Samples]:
    return [m for name, m in messages if name == wearable and isinstance(m, Samples)]


def test_two_wearables_play_and_the_home_can_read_them(home: Settings, tmp_path: Path) -> None:
    state = tmp_path / "state"
    dongle, names = virtual_dongle(home, state, [f"{WALK}", f"{FALL},wearable=0001"])
    assert names == ["0002", "0001"]  # the one that was not named takes who is left
    messages = opened(KeyStore(home.secrets, state).gateway(names), dongle.frames_until(5.0))
    for name, file in (("0001", FALL), ("0002", WALK)):
        recording = read_recording(file)
        (first, *_) = batches = samples(messages, name)
        assert first.rate_hz == pytest.approx(recording.measured_rate_hz, rel=0.01)
        counts = np.frombuffer(b"".join(b.xyz for b in batches), "<i2").reshape(-1, 3)
        accel_g = counts * (first.range_g / 32768)
        played = recording.runs[0].accel_g[: len(accel_g)]
        assert 4.0 < len(accel_g) / first.rate_hz <= 5.0
        assert np.abs(accel_g - played).max() < 0.3  # evenly spaced anew, so not the very samples
        assert np.abs(accel_g - played).mean() < 0.02


def test_what_is_played_again_is_still_new_to_the_home(home: Settings, tmp_path: Path) -> None:
    state = tmp_path / "state"
    gateway = KeyStore(home.secrets, state).gateway(["0001"])
    boots = []
    for _ in range(2):
        dongle, _ = virtual_dongle(home, state, [f"{WALK},wearable=0001"])
        boots += [{batch.boot for batch in samples(opened(gateway, dongle.frames_until(2.0)), "0001")}]
    assert boots == [{1}, {2}]


def test_charge_and_silence_are_injected(home: Settings, tmp_path: Path) -> None:
    dongle, names = virtual_dongle(
        home, tmp_path / "state", [f"{WALK},wearable=0001,loop"], battery=["0001=12"], silence=["0001@4"]
    )
    messages = opened(KeyStore(home.secrets, tmp_path / "state").gateway(names), dongle.frames_until(60.0))
    assert [m.battery_pct for _, m in messages if isinstance(m, Status)] == [12]
    assert 3.0 <= sum(batch.n / batch.rate_hz for batch in samples(messages, "0001")) <= 4.0


@pytest.mark.parametrize(
    ("text", "play"),
    [
        ("a.csv", Play("a.csv", None, loop=False)),
        ("a.csv,loop", Play("a.csv", None, loop=True)),
        ("a.csv,wearable=0042", Play("a.csv", "0042", loop=False)),
        ("a.csv,loop,wearable=0042", Play("a.csv", "0042", loop=True)),
    ],
)
def test_a_play_names_file_wearable_and_loop(text: str, play: Play) -> None:
    assert parse_play(text) == play


@pytest.mark.parametrize(
    ("plays", "status", "reason"),
    [
        (["a.csv,wearable="], 2, "'wearable=' is not known; use FILE[,wearable=ID][,loop]"),
        (["a.csv,often"], 2, "'often' is not known"),
        (["/none.csv"], 1, "/none.csv: No such file"),
        ([f"{WALK},wearable=0009"], 1, "wearable 0009 has no key; run fallwatch pair 0009"),
        ([f"{WALK},wearable=../../x"], 2, "'../../x' is no wearable"),
        ([f"{WALK},wearable=0001"] * 2, 2, "two play the same wearable"),
        ([f"{WALK}"] * 3, 2, "no resident is left; say ,wearable=ID"),
    ],
)
def test_what_cannot_be_played_says_why(
    home: Settings, tmp_path: Path, plays: list[str], status: int, reason: str
) -> None:
    with pytest.raises(NotPlayable) as refused:
        virtual_dongle(home, tmp_path / "state", plays)
    assert refused.value.status == status
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("battery", "0001", "--battery '0001' is wrong; use ID=NUMBER, at most 100"),
        ("battery", "0001=150", "--battery '0001=150' is wrong; use ID=NUMBER, at most 100"),
        ("battery", "0001=-1", "--battery '0001=-1' is wrong"),
        ("silence", "0001@soon", "--silence '0001@soon' is wrong; use ID@NUMBER"),
        ("silence", "0001@nan", "--silence '0001@nan' is wrong"),
        ("silence", "0007@3", "wearable 0007 plays nothing; playing: 0001"),
    ],
)
def test_what_cannot_be_injected_says_why(
    home: Settings, tmp_path: Path, option: str, text: str, reason: str
) -> None:
    with pytest.raises(NotPlayable) as refused:
        virtual_dongle(home, tmp_path / "state", [str(WALK)], **{option: [text]})  # type: ignore[arg-type]  # the name is a parameter, so mypy tries every type
    assert refused.value.status == 2
    assert reason in str(refused.value)


@settings(deadline=None)
@given(
    rate_hz=st.floats(20, 200),
    spans=st.lists(st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 3.0)), min_size=1, max_size=5),
    peak_g=st.floats(1.0, 30.0),
)
def test_any_recording_fits_the_wearables_counts(
    rate_hz: float, spans: list[tuple[float, float]], peak_g: float
) -> None:
    runs, now_s = [], 0.0
    for long_s, gap_s in spans:
        t_s = now_s + np.arange(round(long_s * rate_hz) + 1) / rate_hz
        accel_g = np.stack([np.sin(t_s), np.cos(t_s), np.full_like(t_s, peak_g)], axis=1).astype(np.float32)
        runs.append(Run(t_s, accel_g))
        now_s = float(t_s[-1]) + gap_s
    recording = Recording(tuple(runs), duration_s=float(runs[-1].t_s[-1]), rate_hz=rate_hz)
    played = virtual_recording(recording)
    assert played.range_g == next((r for r in (2, 4, 8, 16) if r >= peak_g), 16)
    assert played.n / played.rate_hz == pytest.approx(recording.duration_s, abs=2.1 / played.rate_hz)
    index, total, z = 0, 0, []
    while (span := played.next_run(index)) is not None:
        counts = np.frombuffer(played.counts(*span), "<i2").reshape(-1, 3)
        z.append(counts[:, 2])
        total, index = total + len(counts), span[1]
    assert abs(total - sum(len(run.t_s) for run in runs)) <= 2 * len(runs) + 0.02 * total
    clipped_g = min(peak_g, played.range_g * 32767 / 32768)
    assert np.allclose(np.concatenate(z) * (played.range_g / 32768), clipped_g, atol=1e-3)


def test_the_command_plays_on_a_pty_until_it_is_stopped(home: Settings, tmp_path: Path) -> None:
    link, state = tmp_path / "dongle", tmp_path / "state"
    command = [sys.executable, "-m", "edge.cli", "simulate", "--port", str(link), "--speed", "10"]
    command += ["--play", f"{WALK},wearable=0001,loop", "--config", str(home.path), "--state", str(state)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"ready: 1 wearables (0001) on {link}, speed 10; stop with Ctrl-C\n"
    gateway, decoder = KeyStore(home.secrets, state).gateway(["0001"]), FrameDecoder()
    played_s, until_s = 0.0, time.monotonic() + 20
    with serial.Serial(str(link), timeout=0.1) as port:
        while played_s < 3 and time.monotonic() < until_s:
            for frame in decoder.feed(port.read(4096)):
                message = gateway.open(frame.packet) if isinstance(frame, Uplink) else None
                if message is not None and isinstance(message[1], Samples):
                    played_s += message[1].n / message[1].rate_hz
    assert played_s >= 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    process.stdout.close()
    assert not link.is_symlink()


def test_a_port_that_is_no_link_is_left_alone(home: Settings, tmp_path: Path) -> None:
    (tmp_path / "dongle").write_text("precious")
    command = [
        sys.executable,
        "-m",
        "edge.cli",
        "simulate",
        "--port",
        str(tmp_path / "dongle"),
        "--play",
        str(WALK),
    ]
    command += ["--config", str(home.path), "--state", str(tmp_path / "state")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is no symbolic link" in ended.stderr
    assert (tmp_path / "dongle").read_text() == "precious"
