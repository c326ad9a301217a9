"""A small made-up home from end to end, and what its receiver hears."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.cli import app
from edge.home.live import HomeDongle, live_home
from edge.home.motion import Pool, load_pool
from edge.home.player import GOOD, OLD, Heard, play
from edge.home.run import home_of, watch_home
from edge.home.scenario import Event, Habits, Home, Truth
from edge.home.score import score
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.wire import FrameDecoder, Hello, Samples, Uplink

POOL: Pool = load_pool(None)
SOUND = Habits(falls_per_day=0.0, faults=0.0, dead_spot=0.0, unplugged_per_day=0.0, forged_per_day=0.0)


def home_with(truth: Truth, how: float = 0.0, *, begin_s: float = 600.0, end_s: float = 1500.0) -> Home:
    """Return one resident for half an hour with one trouble, and nothing else."""
    home = home_of(1, 1, 1 / 48, SOUND)
    event = Event(begin_s, end_s, truth, home.lives[0].wearable, how, begin_s + 60)
    return Home((replace(home.lives[0], events=(event,), feels_skin=True, buffers=False),), (), home.end_s)


def heard_of(home: Home) -> list[Heard]:
    return list(play(home, POOL, np.random.default_rng(2)))


def samples_in(heard: list[Heard], begin_s: float, end_s: float) -> list[Samples]:
    return [m for at_s, _, m, _ in heard if isinstance(m, Samples) and begin_s <= at_s < end_s]


def test_a_small_home_is_played_and_scored_from_end_to_end() -> None:
    truths = (Truth.BROKEN, Truth.FROZEN, Truth.SATURATED, Truth.CHARGING)
    home = home_of(7, len(truths), 1 / 96, SOUND)
    lives = tuple(
        replace(life, events=(Event(200.0, 700.0, truth, life.wearable, 0.0, 290.0),))
        for life, truth in zip(home.lives, truths, strict=True)
    )
    result = score(Home(lives, (), home.end_s), watch_home(Home(lives, (), home.end_s), POOL, 7, with_model=False))
    assert [e.event.truth for e in result.episodes if e.right and e.in_time] == list(truths)
    assert (result.pages, result.nuisance, result.wrongly_named) == (3, [], [])  # charging is told after 3 h


def test_a_fall_is_played_to_the_model() -> None:
    home = home_with(Truth.FALL, begin_s=120.0, end_s=220.0)
    home = Home(home.lives, (), 240.0)
    result = score(home, watch_home(home, POOL, 1, with_model=True))
    assert (result.falls, result.found) == (1, 1)
    assert result.judged_h == pytest.approx(240 / 3600, rel=0.05)


def test_what_is_heard_comes_in_order_and_numbers_go_on() -> None:
    home = home_of(3, 2, 1 / 16, Habits(faults=40.0))
    heard = heard_of(home)
    times = [at_s for at_s, *_ in heard]
    assert times == sorted(times)
    assert times[-1] < home.end_s
    assert {w for _, w, *_ in heard} >= {life.wearable for life in home.lives}
    assert heard == heard_of(home)


def test_a_sound_wearable_says_two_batches_a_second() -> None:
    batches = samples_in(heard_of(home_with(Truth.WELL)), 0, 1800)
    assert len(batches) > 0.97 * 3600
    assert {b.n for b in batches} == {25}
    firsts = [b.first for b in batches]
    assert firsts == sorted(firsts)
    assert all(b.tick == round(b.first / 50 * 32768) for b in batches)


@pytest.mark.parametrize("truth", [Truth.BROKEN, Truth.FLAT, Truth.OUT_OF_RANGE])
def test_who_is_gone_says_nothing(truth: Truth) -> None:
    heard = heard_of(home_with(truth))
    assert samples_in(heard, 601, 1500) == []
    assert len(samples_in(heard, 1540, 1800)) > 480
    boots = {b.boot for b in samples_in(heard, 0, 1800)}
    assert boots == ({1} if truth is Truth.OUT_OF_RANGE else {1, 2})


def test_who_walks_away_fades_first() -> None:
    heard = heard_of(home_with(Truth.OUT_OF_RANGE))
    near = np.mean([dbm for at_s, *_, dbm in heard if 400 <= at_s < 560])
    leaving = np.mean([dbm for at_s, *_, dbm in heard if 590 <= at_s < 600])
    assert leaving < near - 8


def test_what_was_lost_comes_late_from_who_keeps_it() -> None:
    home = home_with(Truth.OUT_OF_RANGE)
    keeping = Home((replace(home.lives[0], buffers=True),), (), home.end_s)
    firsts = Counter(b.first for b in samples_in(heard_of(keeping), 1500, 1560))
    assert len(firsts) > len({b.first for b in samples_in(heard_of(home), 1500, 1560)}) + 20
    assert max(firsts.values()) == 1


def xyz(batches: list[Samples]) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    return np.frombuffer(b"".join(b.xyz for b in batches), "<i2").reshape(-1, 3)


def test_each_fault_of_a_sensor_shows_in_its_samples() -> None:
    def during(truth: Truth, how: float = 0.0) -> list[Samples]:
        return samples_in(heard_of(home_with(truth, how)), 610, 1490)

    assert len(np.unique(xyz(during(Truth.FROZEN)), axis=0)) == 1
    assert all(b.clipped for b in during(Truth.SATURATED))
    assert (xyz(during(Truth.AXES))[:, 0] == xyz(during(Truth.AXES))[:, 1]).all()
    size_g = np.median(np.linalg.norm(xyz(during(Truth.SCALE, 2.0)).astype(float), axis=1)) / 2048
    assert size_g == pytest.approx(2.0, abs=0.2)
    slow, fast = during(Truth.RATE, 2.0), during(Truth.RATE, 0.5)
    assert {b.rate_hz for b in slow} == {50.0}
    assert {b.rate_hz for b in fast} == {25.0}
    assert sum(b.n for b in slow) == pytest.approx(880 * 25, rel=0.05)
    assert sum(b.n for b in fast) == pytest.approx(880 * 50, rel=0.05)
    assert len({b.tick for b in during(Truth.CLOCK, 0.0)}) == 1
    assert np.abs(np.diff([b.tick for b in during(Truth.CLOCK, 1.0)])).max() > 32768 * 5
    assert not any(b.worn for b in during(Truth.OFF_FELT))
    assert all(b.worn for b in during(Truth.OFF_UNFELT))
    assert all(b.charging for b in during(Truth.CHARGING))


def test_old_firmware_says_so_until_it_is_mended() -> None:
    hellos = [(at_s, m.firmware) for at_s, _, m, _ in heard_of(home_with(Truth.FIRMWARE)) if isinstance(m, Hello)]
    assert {f for at_s, f in hellos if at_s < 600} == {GOOD} == {f for at_s, f in hellos if at_s > 1501}
    assert {f for at_s, f in hellos if 601 < at_s < 1500} == {OLD}


def test_a_spare_is_heard_only_while_it_is_worn() -> None:
    heard = heard_of(home_with(Truth.TWO_WORN))
    spare = [at_s for at_s, wearable, *_ in heard if wearable.endswith("-2")]
    assert 600 <= min(spare) < 602
    assert 1498 < max(spare) < 1502


def test_several_processes_tell_what_one_tells() -> None:
    home = home_of(5, 2, 1 / 96, SOUND)
    lives = tuple(
        replace(life, events=(Event(300.0, 800.0, Truth.FROZEN, life.wearable, 0.0, 360.0),))
        for life in home.lives
    )
    home = Home(lives, (Event(820.0, 880.0, Truth.UNPLUGGED, "", 0.0, 880.0),), home.end_s)
    alone, both = (watch_home(home, POOL, 5, with_model=False, jobs=jobs) for jobs in (1, 2))
    assert sorted(p.cause for p in alone.pages) == ["receiver not connected", *["wearable sensor frozen"] * 2]
    assert {(n.wearable, n.cause) for n in alone.names} == {(n.wearable, n.cause) for n in both.names}
    assert {(p.wearable, p.cause) for p in alone.pages} == {(p.wearable, p.cause) for p in both.pages}


def test_a_live_home_is_sealed_and_cannot_be_told_from_a_real_one() -> None:
    home = live_home(400.0, np.random.default_rng(1))
    gateway = Gateway(lambda _: None)
    for life in home.lives:
        gateway.add(life.wearable, bytes(16), Counters())

    def session_of(wearable: str) -> WearableSession:
        return WearableSession(wearable, bytes(16), WearableCounters(), save=lambda _: None)

    dongle = HomeDongle(home, play(home, POOL, np.random.default_rng(2)), session_of)
    frames = FrameDecoder().feed(dongle.frames_until(70.0))
    opened = [gateway.open(f.packet) for f in frames if isinstance(f, Uplink)]
    assert {o[0] for o in opened if o} == {life.wearable for life in home.lives}
    forged = sum(session.counts.forged for session in gateway.sessions)
    assert forged == sum(o is None for o in opened) == pytest.approx(20, abs=2)  # from second 60 on
    with pytest.raises(ValueError, match="at least"):
        live_home(100.0, np.random.default_rng(1))


def test_the_command_tells_truth_and_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FALLWATCH_DATA", raising=False)
    small = ["simulate-home", "--residents", "1", "--days", "0.04", "--faults", "300"]
    timetable = CliRunner().invoke(app, [*small, "--timetable"])
    assert timetable.exit_code == 0
    assert "0001" in timetable.stdout
    told = CliRunner().invoke(app, [*small, "--without-model", "--json"])
    assert told.exit_code == 0
    facts = json.loads(told.stdout)
    assert facts["wearer_weeks"] == 0.01
    assert facts["falls"] == facts["false_alarms"] == 0  # no model judged
    assert "tests/data" in facts["motion"]
