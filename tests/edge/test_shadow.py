"""A model on trial beside the first: judges the same streams, alarms nobody, and never disturbs the first."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge import journal as journal_module
from edge.core.detector import FallDetected
from edge.core.incident import Kind, Outcome
from edge.detect.ledger import Judged, WearLedger
from edge.detect.pipeline import News, Pipeline
from edge.detect.service import DetectService
from edge.detect.shadow import QUEUE_READS, Shadow, Trial
from edge.detect.wearer import Heard
from edge.journal import JOURNAL_FILE, Journal, JournalUnavailable, Moment, ShadowAlarm, Wear
from edge.settings import load_settings
from models.card import Card, Decision
from models.preprocess import Accel
from models.scorer import Scorer
from tests.conftest import DECISION, WINDOW, MakeBundle, PeakScorer
from tests.edge.home import CARD, FALL, FALLWATCH, Home, Pager, until, write_model
from tests.edge.test_pipeline import DAILY, FALLS, PORT, Radio, falls, feed, gateway, message, played, still

NOW = datetime(2026, 11, 22, 3, 14, 7, tzinfo=UTC)
CALM = '[escalation]\ngroups = ["12"]\nsteps_s = [600]\nrepeat_every_s = 600\n'
ALARM = "FALL? RM 1 BED A"
# Passes its golden vectors, of which there are two, and cannot score one window or three.
PAIRS_ONLY = """
<ir_version: 10, opset_import: ["" : 18]>
pairs (float[b, 160, 3] accel_g) => (float[c] probability)
<int64[1] pair = {2}, int64[1] samples = {1}, int64[1] axes = {2}, float limit_g = {4.0}> {
    magnitude_g = ReduceL2<keepdims = 0>(accel_g, axes)
    peak_g = ReduceMax<keepdims = 0>(magnitude_g, samples)
    over_g = Sub(peak_g, limit_g)
    two = Reshape(over_g, pair)
    probability = Sigmoid(two)
}
"""


def pipelines(scorer: Scorer, *wearables: str) -> Pipeline:
    return Pipeline(gateway(*wearables), dict.fromkeys(wearables, scorer), shadowed=wearables)


def peak(*, rate_hz: float = 32.0, **decision: float) -> PeakScorer:
    """Return the little network with another decision or rate."""
    decided = Decision(**DECISION | decision)  # type: ignore[arg-type]  # mypy sees float | int for each, confirm_windows is an int
    return PeakScorer(Card("peak-2", "wrist", rate_hz, WINDOW, round(rate_hz / 2), 16.0, decided, "", {}))


def shadowed(taking: Pipeline, shadow: Shadow, reads: list[tuple[float, bytes]]) -> tuple[list[News], list[str]]:
    """Feed all; return what the first model says, and the wearables of which the shadow would raise a fall."""
    news, would_raise = [], []
    for now_s, data in reads:
        news += taking.feed(PORT, data, now_s)
        would_raise += [wearable for wearable, _ in shadow.take(taking.take_heard())]
    news += taking.on_timer(now_s + 10)
    return news, would_raise + [wearable for wearable, _ in shadow.take(taking.take_heard())]


# -- beside the first ---------------------------------------------------------------------------


def test_a_shadow_finds_the_fall_that_the_first_finds_and_no_other(peak_scorer: PeakScorer) -> None:
    reads, names = played([FALLS[0], *DAILY[:2]]), ("0001", "0002", "0003")
    news, would_raise = shadowed(pipelines(peak_scorer, *names), Shadow(peak(), names), reads)
    assert would_raise == ["0001"]
    assert news == feed(Pipeline(gateway(*names), dict.fromkeys(names, peak_scorer)), reads)
    assert [len(falls(news, name)) for name in names] == [1, 0, 0]


@pytest.mark.parametrize("rate_hz", [25.0, 40.0, 100.0])
def test_a_shadow_has_a_rate_of_its_own(peak_scorer: PeakScorer, rate_hz: float) -> None:
    shadow = Shadow(peak(rate_hz=rate_hz), ["0001"])
    news, would_raise = shadowed(pipelines(peak_scorer, "0001"), shadow, played([FALLS[0]]))
    assert (len(falls(news)), would_raise) == (1, ["0001"])


def test_what_the_shadow_finds_goes_by_its_own_decision(peak_scorer: PeakScorer) -> None:
    names, reads = ("0001", "0002"), played([FALLS[1], "bend-wrist.csv"])
    jumpy = {"threshold": 0.1, "suspect_threshold": 0.05, "confirm_windows": 1}
    for decision, wanted in ((jumpy, ["0001", "0002"]), ({"threshold": 0.99, "suspect_threshold": 0.99}, [])):
        shadow = Shadow(peak(**decision), names)
        news, would_raise = shadowed(pipelines(peak_scorer, *names), shadow, reads)
        assert sorted(would_raise) == wanted
        assert [len(falls(news, name)) for name in names] == [1, 0]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_how_a_shadow_is_handed_the_samples_changes_nothing(peak_scorer: PeakScorer, data: st.DataObject) -> None:
    taking, names = pipelines(peak_scorer, "0001", "0002"), ["0001", "0002"]
    feed(taking, played(FALLS))
    heard = taking.take_heard()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(heard) - 1), max_size=20)))
    shadow = Shadow(peak_scorer, names)
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(heard)], strict=True):
        found += shadow.take(heard[start:stop])
    assert sorted(found, key=str) == sorted(Shadow(peak_scorer, names).take(heard), key=str)
    assert [wearable for wearable, _ in sorted(found, key=str)] == names


def test_silence_settles_what_a_shadow_weighs(peak_scorer: PeakScorer) -> None:
    radio, taking, shadow = Radio(), pipelines(peak_scorer, "0001"), Shadow(peak(), ["0001"])
    hit = still(24)
    hit[-3:] *= 6
    for i in range(10):
        taking.feed(PORT, radio.frame(message(24 * i, hit if i == 9 else still(24))), 0.48 * (i + 1))
    assert shadow.take(taking.take_heard()) == []
    taking.on_timer(20.0)
    assert [wearable for wearable, _ in shadow.take(taking.take_heard())] == ["0001"]


def test_a_shadow_judges_where_no_first_model_may_run() -> None:
    taking, shadow = Pipeline(gateway("0001"), {"0001": None}, shadowed=["0001"]), Shadow(peak(), ["0001"])
    news, would_raise = shadowed(taking, shadow, played([FALLS[0]]))
    assert (news, would_raise) == ([], ["0001"])


def test_without_a_shadow_nothing_is_kept(peak_scorer: PeakScorer) -> None:
    taking = Pipeline(gateway("0001", "0002"), dict.fromkeys(["0001", "0002"], peak_scorer), shadowed=["0002"])
    feed(taking, played([FALLS[0], FALLS[1]]))
    assert {heard.wearable for heard in taking.take_heard()} == {"0002"}
    assert taking.take_heard() == []


def test_only_worn_time_counts_and_for_each_model_its_own(peak_scorer: PeakScorer) -> None:
    radio, taking, shadow = Radio(), pipelines(peak_scorer, "0001"), Shadow(peak(rate_hz=25.0), ["0001"])
    worn, on_charger, off = 1, 3, 0
    for i, flags in enumerate([worn] * 8 + [on_charger] * 4 + [off] * 4 + [worn] * 4):
        samples = message(25 * i, still(25))
        taking.feed(PORT, radio.frame(type(samples)(**{**fields(samples), "flags": flags})), 0.5 * (i + 1))
        shadow.take(taking.take_heard())
    judge = taking.wearers["0001"].judge
    assert judge is not None
    assert judge.worn_s == pytest.approx(6.0, abs=0.1)
    assert shadow.judges["0001"].worn_s == pytest.approx(6.0, abs=0.1)


def fields(samples: Any) -> dict[str, Any]:
    return {name: getattr(samples, name) for name in samples.__dataclass_fields__}


# -- its thread ---------------------------------------------------------------------------------


@contextlib.contextmanager
def trial(folder: Path, *, first: str | None = "wrist-9") -> Any:
    running = Trial(folder, "wrist", first, ["0001"])
    running.start()
    try:
        until(lambda: running.cause != "still loading")
        yield running
    finally:
        running.stop()


def heard_of(name: str = FALLS[0]) -> list[Heard]:
    taking = pipelines(peak(), "0001")
    feed(taking, played([name]))
    return taking.take_heard()


def test_a_trial_judges_in_a_thread_of_its_own(bundle: Path) -> None:
    with trial(bundle) as running:
        assert (running.name, running.cause) == ("peak-1", None)
        running.offer(heard_of())
        running.stop()  # what waits is judged
        assert [wearable for wearable, _ in running.found] == ["0001"]
        assert running.worn_s() == {"0001": pytest.approx(14.8, abs=0.2)}


def test_a_bundle_that_must_not_run_is_refused_with_a_reason(make_bundle: MakeBundle, tmp_path: Path) -> None:
    other = make_bundle("other", onnx_sha256="0" * 64)
    for folder, first, reason in (
        (tmp_path / "nowhere", None, "card.json cannot be read"),
        (other, None, "SHA-256 differs"),
        (make_bundle("hip", placement="waist"), None, "is for the waist"),
        (make_bundle("wrist-9"), "wrist-9", "has the same name"),
    ):
        with trial(folder, first=first) as running:
            assert str(running.cause).startswith("refused: ")
            assert reason in str(running.cause)
            running.offer(heard_of())
            assert not running.found


def test_one_that_raises_while_it_scores_stops_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = write_bundle(tmp_path / "pairs", PAIRS_ONLY)
    with trial(pairs) as running:
        assert running.cause is None
        heard = heard_of()
        running.offer(heard)
        assert until(lambda: running.cause).startswith("stopped: ")
        for _ in range(2 * QUEUE_READS):
            running.offer(heard)
        assert running.skipped_reads == 0  # nobody keeps what nobody will judge
    assert "the first goes on" in caplog.text


class Stuck(PeakScorer):
    """Scores nothing until it is let."""

    def __init__(self) -> None:
        super().__init__(peak().card)
        self.let, self.asked = threading.Event(), threading.Event()

    def score(self, windows: Accel) -> NDArray[np.float32]:
        self.asked.set()
        assert self.let.wait(30)
        return super().score(windows)


def test_one_that_cannot_keep_up_holds_nobody_up_and_goes_on_later(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    monkeypatch.setattr("edge.detect.shadow.Scorer", lambda _: stuck)
    heard = heard_of()
    with trial(bundle) as running:
        running.offer(heard[:2])
        assert stuck.asked.wait(30)
        begun_s = time.monotonic()
        for _ in range(QUEUE_READS + 1):
            running.offer(heard[2:3])
        assert time.monotonic() - begun_s < 1.0
        assert running.skipped_reads == QUEUE_READS + 1
        running.offer(heard[2:])
        stuck.let.set()
        until(lambda: running.found)
        assert running.cause is None


# -- how long it was worn -----------------------------------------------------------------------

FIRST = Judged("wrist-1", False, "wrist", "0001")


def moment(after_s: float) -> Moment:
    return Moment(NOW + timedelta(seconds=after_s), 1000.0 + after_s)


def test_wear_is_told_as_stretches_that_grow(peak_scorer: PeakScorer) -> None:
    ledger = WearLedger(1000.0)
    assert ledger.rows({FIRST: 0.0}, moment(60)) == []  # nothing worn, nothing said
    for after_s, worn_s in ((900, 700.0), (1800, 1500.0)):
        wear = Wear("wrist-1", False, "wrist", "0001", NOW, NOW + timedelta(seconds=after_s), worn_s)
        assert ledger.rows({FIRST: worn_s}, moment(after_s)) == [wear]
        ledger.written()


def test_each_day_has_a_stretch_of_its_own_told_until_it_is_written() -> None:
    ledger, day_s = WearLedger(1000.0), 86400.0
    (first,) = ledger.rows({FIRST: 100.0}, moment(900))
    (ended,) = ledger.rows({FIRST: 5000.0}, moment(day_s))
    assert (ended.begun_at, ended.worn_s) == (first.begun_at, 5000.0)
    for _ in range(2):  # the journal did not take it
        rows = ledger.rows({FIRST: 6000.0}, moment(day_s + 900))
        assert [(row.begun_at, row.worn_s) for row in rows] == [(NOW, 5000.0), (ended.until_at, 1000.0)]
    ledger.written()
    (row,) = ledger.rows({FIRST: 6500.0}, moment(day_s + 1800))
    assert (row.begun_at, row.worn_s) == (ended.until_at, 1500.0)


# -- on disk ------------------------------------------------------------------------------------


def shadow_alarm(after_s: float = 0.0, *, model: str = "wrist-2", wearable: str = "0001") -> ShadowAlarm:
    at = NOW + timedelta(seconds=after_s)
    return ShadowAlarm(model, wearable, "r1", at, at + timedelta(seconds=2), 0.97, long_lie=False)


def wear(worn_s: float, *, until_s: float = 900.0) -> Wear:
    return Wear("wrist-2", True, "wrist", "0001", NOW, NOW + timedelta(seconds=until_s), worn_s)


def test_alarms_and_wear_are_on_disk_once_however_often_they_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE)
    for worn_s in (800.0, 1600.0):
        alarms = [shadow_alarm(), shadow_alarm(5.0), shadow_alarm(wearable="0002"), shadow_alarm(60.0)]
        journal.keep_trial(alarms, [wear(worn_s)], forget_before=None, wait=False)
    assert journal.shadow_alarms(NOW) == [shadow_alarm(), shadow_alarm(wearable="0002"), shadow_alarm(60.0)]
    assert journal.shadow_alarms(NOW + timedelta(seconds=30)) == [shadow_alarm(60.0)]
    assert journal.wear(NOW) == [wear(1600.0)]
    assert journal.wear(NOW + timedelta(seconds=900)) == []
    journal.close()


def test_what_is_old_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.keep_trial([shadow_alarm()], [wear(10.0)], forget_before=NOW, wait=False)
    journal.keep_trial([shadow_alarm(9000.0)], [], forget_before=NOW + timedelta(seconds=1000), wait=False)
    long_ago = NOW - timedelta(days=1)
    assert (journal.shadow_alarms(long_ago), journal.wear(long_ago)) == ([shadow_alarm(9000.0)], [])
    journal.close()


def test_a_journal_from_before_there_were_shadows_opens_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(journal_module._SCHEMA)
        db.execute("INSERT INTO cursor VALUES ('record', 7)")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    journal = Journal(path)
    assert journal.quarantined is None
    assert journal.cursor("record") == 7
    journal.keep_trial([shadow_alarm()], [wear(10.0)], forget_before=None, wait=False)
    assert len(journal.shadow_alarms(NOW)) == len(journal.wear(NOW)) == 1
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as db:  # an older fallwatch still takes it
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_trial_waits_for_no_other_process_that_writes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE)
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun_s = time.monotonic()
        with pytest.raises(JournalUnavailable):
            journal.keep_trial([shadow_alarm()], [], forget_before=None, wait=False)
        assert time.monotonic() - begun_s < 0.5
        other.execute("ROLLBACK")
    journal.keep_trial([shadow_alarm()], [], forget_before=None, wait=False)
    assert journal.shadow_alarms(NOW) == [shadow_alarm()]
    journal.close()


def test_a_damaged_row_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.keep_trial([shadow_alarm(), shadow_alarm(60.0)], [wear(10.0)], forget_before=None, wait=False)
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as db:
        db.execute("UPDATE shadow_alarm SET probability = 'x' WHERE rowid = 1")
        db.execute("UPDATE wear SET begun_at = 'x'")
    assert journal.shadow_alarms(NOW) == [shadow_alarm(60.0)]
    assert journal.wear(NOW) == []
    journal.close()


# -- the service --------------------------------------------------------------------------------


def write_bundle(folder: Path, network: str) -> Path:
    """Write a network as a bundle with the card of `write_model`."""
    write_model(folder)
    octets = onnx.parser.parse_model(network).SerializeToString()
    (folder / "model.onnx").write_bytes(octets)
    return rename(folder, onnx_sha256=hashlib.sha256(octets).hexdigest())


def rename(folder: Path, **changes: Any) -> Path:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"name": folder.name} | changes))
    return folder


def on_trial(home: Home, folder: Path) -> None:
    home.config.write_text(home.config.read_text().replace("[detect]", f'[detect]\nwrist_shadow = "{folder}"'))


def twin(folder: Path) -> Path:
    """Write a bundle that decides as the first does."""
    write_model(folder)
    return rename(folder)


def jumpy(folder: Path) -> Path:
    """Write a bundle that takes walking for a fall."""
    write_model(folder)
    decision = CARD["decision"] | {"threshold": 0.05, "suspect_threshold": 0.04, "confirm_windows": 1}  # type: ignore[operator]  # CARD holds objects, this one a dict
    return rename(folder, decision=decision)


def shadow_rows(home: Home) -> list[ShadowAlarm]:
    with home.journal() as journal:
        return journal.shadow_alarms(NOW - timedelta(days=36500))


def test_a_fall_is_paged_once_and_noted_for_the_shadow_and_the_report_has_both(tmp_path: Path) -> None:
    with Home(tmp_path, calls=CALM) as home, Pager(home.pager_link) as pager:
        on_trial(home, twin(home.folder / "twin"))
        home.start("alarm").ready()
        detect = home.start("detect").ready()
        with home.wear([home.wearable(1, FALL), home.wearable(2, loop=True)]):
            pager.wait(ALARM)
            (alarm,) = until(lambda: [a for a in shadow_rows(home) if a.wearable == "0001"])
            told = home.told("detect") or {}
            assert [(s["model"], s["cause"]) for s in told["shadows"]] == [("twin", None)]
            assert home.status()[1]["shadow twin"]["well"]
        case = home.case()
        assert (alarm.model, alarm.resident, case.facts.model) == ("twin", "r1", "shaken")
        assert case.facts.impact_at is not None
        assert abs(alarm.impact_at - case.facts.impact_at) < timedelta(seconds=0.5)
        with home.journal() as journal:
            assert journal.resolve(case.facts.incident, Outcome.FALL, "anna")
        detect.stop()
        report = json.loads(home.ask("report", "--json").stdout)
        first, shadow = report["models"]
        assert (first["model"], first["alarms"], first["outcomes"]["fall"]) == ("shaken", 1, 1)
        assert (shadow["model"], shadow["outcomes"]["fall"]) == ("twin", 1)
        assert first["wearables"] == shadow["wearables"] == 2
        assert first["wearer_weeks"] * 604800 == pytest.approx(shadow["wearer_weeks"] * 604800, abs=61)
        (compared,) = report["comparisons"]
        assert compared["falls_found_by"] == {"both": 1, "first_only": 0, "shadow_only": 0, "neither": 0}
        assert [c.facts.kind for c in home.cases()] == [Kind.FALL]
        assert {page.text[:16] for page in pager.pages} <= {ALARM, f"CANCELLED {ALARM}"[:16]}


def test_a_shadow_that_breaks_leaves_the_first_to_page_and_is_a_remark_in_status(tmp_path: Path) -> None:
    with Home(tmp_path, wearables=1, calls=CALM) as home, Pager(home.pager_link) as pager:
        on_trial(home, write_bundle(home.folder / "pairs", PAIRS_ONLY))
        home.start("alarm").ready()
        home.start("detect").ready()
        with home.wear([home.wearable(1, FALL)], speed=2.0):
            pager.wait(ALARM)
            status, parts = home.status()
        remark = parts["shadow pairs"]
        assert (status, remark["well"], remark["on_trial"]) == (0, True, False)
        assert remark["cause"].startswith("stopped: ")
        assert "nobody is less protected" in remark["cause"]
        assert shadow_rows(home) == []


def test_a_shadow_that_is_not_there_is_named_and_stops_no_start(tmp_path: Path) -> None:
    with Home(tmp_path, wearables=1, calls=CALM) as home:
        on_trial(home, home.folder / "nowhere")
        home.start("detect").ready()
        (told,) = until(lambda: [s for s in home.told("detect")["shadows"] if s["cause"] != "still loading"])  # type: ignore[index]  # JSON: a list of dicts
        assert (told["model"], told["cause"].split()[0]) == ("nowhere", "refused:")
        assert (home.told("detect") or {})["models_refused"] == {}


def test_a_kill_doubles_no_alarm_of_a_shadow_and_loses_no_more_than_it_must(tmp_path: Path) -> None:
    with Home(tmp_path, wearables=1, calls=CALM) as home:
        on_trial(home, twin(home.folder / "twin"))
        with home.wear([home.wearable(1, FALL)], speed=2.0):
            detect = home.start("detect").ready()
            until(lambda: shadow_rows(home))
            detect.kill()
            again = home.start("detect").ready()
            time.sleep(2.5)  # the impact would still be in the window of whoever had kept one
            again.stop()
        assert [alarm.model for alarm in shadow_rows(home)] == ["twin"]
        with home.journal() as journal:
            stretches = journal.wear(NOW - timedelta(days=36500))
        assert [(w.model, w.shadow) for w in stretches] == [("shaken", False), ("twin", True)] * 2
        assert all(0 < w.worn_s <= 2 * (w.until_at - w.begun_at).total_seconds() + 2 for w in stretches)


def test_a_journal_that_is_busy_delays_the_shadow_and_nobody_else(tmp_path: Path) -> None:
    with Home(tmp_path, wearables=1, calls=CALM) as home:
        on_trial(home, jumpy(home.folder / "jumpy"))
        home.start("detect").ready()
        with (
            contextlib.closing(sqlite3.connect(home.state / JOURNAL_FILE, isolation_level=None)) as other,
            home.wear([home.wearable(1)]),
        ):
            other.execute("BEGIN IMMEDIATE")
            until(lambda: (home.told("detect") or {})["shadows"][0]["unwritten"])
            until_s = time.monotonic() + 3.0
            while time.monotonic() < until_s:
                assert (home.told("detect") or {"age_s": 99})["age_s"] < 1.9
                time.sleep(0.1)
            other.execute("ROLLBACK")
            until(lambda: shadow_rows(home))
            assert home.cases() == []


def test_alarms_that_the_journal_never_takes_are_bounded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.detect.service.TRIAL_ALARMS", 3)
    with Home(tmp_path, wearables=1) as home:
        on_trial(home, twin(home.folder / "twin"))
        service = DetectService(load_settings(home.config), home.state, home.run)
        (running,) = service._trials
        for at_s in range(5):
            running.found.append(("0001", FallDetected(at_s, at_s, 0.9)))
        service._trial_next_s = float("inf")  # as after a refusal
        service._wear_next_s, service._wear_last_s = float("inf"), 0.0
        service._keep_trials(1.0)
        words = service._trial_words(running)
        assert (words["unwritten"], words["lost_alarms"]) == (3, 2)


def test_the_bench_takes_a_shadow_and_refuses_what_must_not_run(bundle: Path, tmp_path: Path) -> None:
    # A process of its own: it ties itself to one core.
    command = [*FALLWATCH, "bench", "--wearables", "2", "--seconds", "5", "--json", "--shadow"]
    ended = subprocess.run([*command, str(bundle)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ended.stdout)["windows"] >= 2 * 8  # of the first alone
    refused = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "model is refused" in refused.stderr
