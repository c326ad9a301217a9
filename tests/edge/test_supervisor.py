"""Who is told what about whom: from what wearables send to what a person must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.core.supervision import Cause
from edge.detect.pipeline import Pipeline
from edge.detect.supervisor import Close, Raise, Supervisor, Told, topic_of
from edge.settings import Settings, load_settings
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.wire import BUTTON_HELD, CHARGING, WORN, Hello, Samples, Status, Uplink, encode_frame
from models.scorer import Scorer

KEY = bytes(range(16))
SETTINGS = """
[home]
id = "home"
[[dongle]]
port = "dongle"
"""


@dataclass
class Bed:
    """A small home whose wearables say what a test wants, second by second."""

    settings: Settings
    scorer: Scorer | None
    now_s: float = 1000.0
    told: list[Told] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        gateway = Gateway(lambda _: None)
        worn = [w for r in self.settings.resident for w in r.wearables]
        for wearable in worn:
            gateway.add(wearable, KEY, Counters())
        self.pipeline = Pipeline(gateway, dict.fromkeys(worn, self.scorer))
        self.supervisor = Supervisor(self.settings, self.pipeline)
        self.rng = np.random.default_rng(3)
        self.begun_s = self.now_s

    def run(
        self, seconds: float, *speaking: str, flags: int = WORN, rssi_dbm: int = -60, still: bool = False
    ) -> None:
        """Let time pass, in which these wearables send."""
        for _ in range(round(seconds)):
            self.now_s += 1.0
            swing_g = 0.003 if still else 0.3
            motion_g = np.array([0, 0, 1.0]) + self.rng.normal(0, swing_g, (50, 3)) * [1, 1, 0.2]
            xyz = np.round(motion_g / 8 * 32768).astype("<i2").tobytes()
            device_s = self.now_s - self.begun_s
            first, tick = round(device_s * 50), round(device_s * 32768)
            heard: list[Any] = []
            for wearable in speaking:
                for half in (0, 1):
                    sent = Samples(
                        1,
                        tick + half * 16384,
                        first + half * 25,
                        5000,
                        8,
                        flags,
                        xyz[half * 150 : half * 150 + 150],
                    )
                    heard.append((wearable, sent, rssi_dbm))
            self.pipeline.on_messages(heard, self.now_s)
            self.told += self.supervisor.look(self.now_s, self.lost)

    def say(self, wearable: str, message: Any) -> None:
        self.pipeline.on_messages([(wearable, message, -60)], self.now_s)

    def take(self) -> list[Told]:
        told, self.told = self.told, []
        return told


@pytest.fixture
def bed(tmp_path: Path, peak_scorer: Scorer) -> Any:
    def make(*residents: str, scorer: Scorer | None = peak_scorer, more: str = "") -> Bed:
        path = tmp_path / "fallwatch.toml"
        path.write_text(SETTINGS + "".join(f"[[resident]]\n{text}\n" for text in residents) + more)
        return Bed(load_settings(path), scorer)

    return make


R12 = 'id = "r12"\nroom = "12"\nwearable = "0042"'


def raised(told: list[Told]) -> list[tuple[Cause, bool, bool]]:
    return [(t.cause, t.fault, t.board_only) for t in told if isinstance(t, Raise)]


def test_a_wearable_that_stops_dead_is_known_and_told_within_ninety_seconds_and_closed_when_it_is_back(
    bed: Any,
) -> None:
    home = bed(R12)
    home.run(120, "0042")
    home.run(91)
    assert home.supervisor.watch("0042").cause is Cause.SILENT
    (told,) = home.take()
    assert (told.cause, told.wearable, told.resident.id) == (Cause.SILENT, "0042", "r12")
    home.run(5, "0042")
    assert home.take() == [Close(told.topic)]


def test_one_that_fades_away_is_out_of_range(bed: Any) -> None:
    home = bed(R12)
    home.run(300, "0042")
    for rssi_dbm in range(-60, -92, -2):
        home.run(2, "0042", rssi_dbm=rssi_dbm)
    home.run(91)
    assert raised(home.take()) == [(Cause.OUT_OF_RANGE, False, False)]


def test_who_often_comes_back_by_itself_is_called_for_later_but_never_later_than_ten_minutes(bed: Any) -> None:
    home, waits_s = bed(R12), []
    home.run(60, "0042")
    for _ in range(6):
        gone_s = home.now_s
        while not home.told:
            home.run(1)
        waits_s.append(home.now_s - gone_s)
        home.take()
        home.run(30, "0042")
        assert [type(told) for told in home.take()] == [Close]
    assert waits_s[0] <= 91
    assert sorted(waits_s) == waits_s
    assert waits_s[-1] <= 661


def test_cover_decides_who_hears(bed: Any) -> None:
    should = R12.replace("r12", "r13").replace("0042", "0043") + '\ncover = "should"'
    nobody = 'id = "r14"\nroom = "14"\ncover = "none"'
    bare = 'id = "r15"\nroom = "15"'
    home = bed(R12, should, nobody, bare)
    home.run(60, "0042", "0043")
    home.take()
    home.run(120)
    assert sorted((t.resident.id, t.cause, t.board_only) for t in home.take()) == [
        ("r12", Cause.SILENT, False),
        ("r13", Cause.SILENT, True),
    ]
    assert home.supervisor.blind("r15").cause is Cause.NO_WEARABLE
    assert home.supervisor.blind("r14").cause is None


def test_on_the_charger_and_taken_off_have_their_own_times(bed: Any) -> None:
    home = bed(R12, more="[detect]\ncharging_page_s = 300\nnot_worn_page_s = 100\n")
    home.run(60, "0042")
    home.run(299, "0042", flags=CHARGING)
    assert home.take() == []
    home.run(90, "0042", flags=0)  # off the charger, not on the wrist yet: the time begins anew
    assert home.take() == []
    home.run(15, "0042", flags=0)
    assert raised(home.take()) == [(Cause.NOT_WORN, False, False)]


def test_a_second_wearable_protects_while_the_first_charges_and_both_worn_is_a_warning(bed: Any) -> None:
    home = bed(R12 + '\nspare = "0077"', more="[detect]\ncharging_page_s = 60\n")
    home.run(60, "0042")
    home.run(30, "0042", flags=CHARGING)
    for _ in range(100):
        home.run(1, "0042", flags=CHARGING)
        home.run(1, "0077")
    told = home.take()
    assert all(isinstance(t, Close) or t.fault for t in told), told
    assert home.supervisor.blind("r12").cause is None
    home.run(700, "0042", "0077")
    assert raised(home.take()) == [(Cause.TWO_WORN, True, True)]


def test_a_battery_that_will_not_last_the_day_is_told_once_while_the_wearer_is_protected(bed: Any) -> None:
    home = bed(R12)
    for hour in range(60):
        home.now_s += 3540
        home.say("0042", Status(max(100 - hour * 2, 0), 3900, 25, WORN, 1))
        home.run(60, "0042")
    told = [t for t in home.take() if isinstance(t, Raise) and t.fault]
    assert [(t.cause, t.board_only) for t in told] == [(Cause.LOW_BATTERY, False)]


def test_a_button_held_for_minutes_is_stuck(bed: Any) -> None:
    home = bed(R12)
    home.run(500, "0042", flags=WORN | BUTTON_HELD)
    assert (Cause.BUTTON_STUCK, True, False) in raised(home.take())


def test_old_firmware_is_for_the_board(bed: Any) -> None:
    home = bed(R12)
    home.say("0042", Hello(1, (0, 9, 0), 1, 8, 5000))
    home.run(5, "0042")
    assert raised(home.take()) == [(Cause.OLD_FIRMWARE, True, True)]


def test_a_receiver_that_is_gone_is_one_call_not_one_for_each_resident(bed: Any) -> None:
    home = bed(R12, R12.replace("r12", "r13").replace("0042", "0043"))
    home.run(60, "0042", "0043")
    home.lost["dongle"] = "was unplugged"
    home.run(200)
    (told,) = home.take()
    assert (told.cause, told.resident, told.fault) == (Cause.DONGLE_GONE, None, False)


def test_no_model_is_one_call(bed: Any) -> None:
    home = bed(R12, scorer=None)
    home.run(100, "0042")
    assert raised(home.take()) == [(Cause.NO_MODEL, False, False)]


def test_many_forged_packets_are_interference_which_ends_when_they_do(bed: Any) -> None:
    home = bed(R12)
    forger = WearableSession("0042", bytes(16), WearableCounters(), save=lambda _: None)
    for _ in range(70):
        home.pipeline.feed(
            "dongle", encode_frame(Uplink(-50, forger.seal(Status(50, 3900, 20, WORN, 1)))), home.now_s
        )
        home.run(1, "0042")
    assert raised(home.take()) == [(Cause.INTERFERENCE, True, False)]
    home.run(700, "0042")
    assert home.take() == [Close(f"home {Cause.INTERFERENCE}")]


def test_what_two_receivers_hear_is_no_interference(bed: Any) -> None:
    home = bed(R12)
    session = WearableSession("0042", KEY, WearableCounters(), save=lambda _: None)
    for _ in range(200):
        frame = encode_frame(Uplink(-50, session.seal(Status(50, 3900, 20, WORN, 1))))
        for port in ("dongle", "mqtt"):
            home.pipeline.feed(port, frame, home.now_s)
        home.run(1, "0042")
    assert home.take() == []
    counts = home.pipeline.gateway.session("0042").counts
    assert (counts.opened, counts.stale, counts.echoes) == (200, 0, 200)


def test_what_an_earlier_run_told_is_not_told_again_and_is_closed_when_it_is_over(bed: Any) -> None:
    home = bed(R12)
    topic = topic_of("r12", Cause.SILENT, fault=False)
    home.supervisor.resume(topic, Cause.SILENT)
    home.run(200)
    assert home.take() == []
    home.run(2, "0042")
    assert home.take() == [Close(topic)]
