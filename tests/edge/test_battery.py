"""How long a battery still lasts: told a day ahead, once."""

from __future__ import annotations

import pytest

from edge.core.battery import LOW_H, Battery

HOUR_S = 3600.0


def discharge(battery: Battery, *, life_h: float, from_pct: float = 100.0, every_s: float = 600.0) -> float:
    """Let it run down in a straight line; return how many hours were left when it was first called low."""
    now_s = 0.0
    while (pct := from_pct - now_s / HOUR_S / life_h * 100) > 0:
        battery.observe(int(pct), charging=False, now_s=now_s)
        if battery.low:
            return pct / 100 * life_h
        now_s += every_s
    raise AssertionError("never called low")


@pytest.mark.parametrize("life_h", [48.0, 100.0, 168.0, 400.0])
def test_staff_hear_a_day_before_it_is_flat(life_h: float) -> None:
    assert 24.0 <= discharge(Battery(), life_h=life_h) <= max(1.6 * LOW_H, 0.11 * life_h)


def test_a_device_that_never_lasts_a_day_is_low_as_soon_as_its_pace_is_known() -> None:
    assert discharge(Battery(), life_h=20.0) >= 18.0


def test_on_the_charger_nothing_is_low_and_afterwards_the_pace_is_measured_anew() -> None:
    battery = Battery()
    discharge(battery, life_h=48.0)
    battery.observe(40, charging=True, now_s=1e6)
    assert not battery.low
    battery.observe(100, charging=False, now_s=1e6 + HOUR_S)
    assert battery.hours_left() is None
    assert not battery.low


def test_it_is_called_low_once_though_the_forecast_wavers() -> None:
    battery, changes, was = Battery(), 0, False
    for i in range(2000):
        battery.observe(max(1, 50 - i // 40 + (i // 7) % 2), charging=False, now_s=i * 600.0)
        changes += battery.low != was
        was = battery.low
    assert changes == 1


def test_nothing_is_foretold_from_one_report() -> None:
    battery = Battery()
    battery.observe(50, charging=False, now_s=0.0)
    assert battery.hours_left() is None
    assert not battery.low
