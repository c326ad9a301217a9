"""How well a wearable is heard: weak, or fading before it was gone."""

from __future__ import annotations

from edge.core.radio import Radio


def hear(
    radio: Radio, rssi_dbm: int | None, *, seconds: float, lost_part: float = 0.0, start: tuple[int, int] = (0, 0)
) -> tuple[int, int]:
    samples, lost = start
    for _ in range(round(seconds * 2)):
        gone = round(25 * lost_part)
        samples, lost = samples + 25 - gone, lost + gone
        radio.observe(rssi_dbm, samples=samples, lost=lost, now_s=(samples + lost) / 50)
    return samples, lost


def test_one_that_is_heard_well_is_neither_weak_nor_fading() -> None:
    radio = Radio()
    samples, lost = hear(radio, -60, seconds=120, lost_part=0.04)
    assert not radio.is_weak(samples=samples, lost=lost)
    assert not radio.was_fading(samples=samples, lost=lost)


def test_a_fifth_lost_over_a_minute_is_weak() -> None:
    radio = Radio()
    samples, lost = hear(radio, -80, seconds=120, lost_part=0.24)
    assert radio.is_weak(samples=samples, lost=lost)


def test_one_that_walks_away_fades_first() -> None:
    radio, total = Radio(), (0, 0)
    total = hear(radio, -60, seconds=300)
    for rssi_dbm in range(-60, -90, -2):
        total = hear(radio, rssi_dbm, seconds=2, start=total)
    assert radio.was_fading(samples=total[0], lost=total[1])


def test_one_that_is_always_faint_and_stops_was_fading() -> None:
    radio = Radio()
    samples, lost = hear(radio, -90, seconds=30)
    assert radio.was_fading(samples=samples, lost=lost)


def test_without_a_strength_the_losses_tell() -> None:
    radio = Radio()
    total = hear(radio, None, seconds=100)
    assert not radio.was_fading(samples=total[0], lost=total[1])
    total = hear(radio, None, seconds=20, lost_part=0.4, start=total)
    assert radio.was_fading(samples=total[0], lost=total[1])
