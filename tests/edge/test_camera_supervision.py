"""Which camera sees, who is told when one does not, and when none may look: consent, a pause for personal care."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import pause as pauses
from edge.alarm.document import incident_document
from edge.core.detector import FallDetected
from edge.core.escalation import Escalation, Policy
from edge.core.incident import Incident, Kind
from edge.core.seen import FEATURES, Person, Seen
from edge.core.supervision import CameraSight, Cause, camera_cause_of
from edge.detect.cameras import Cameras, FoundBy
from edge.detect.eyes import Saw, Shut
from edge.detect.ledger import WearLedger
from edge.detect.pipeline import Pipeline
from edge.detect.service import DetectService
from edge.detect.supervisor import Close, Raise, Supervisor, Told, topic_of
from edge.journal import JOURNAL_FILE, Case, Journal
from edge.pause import PAUSE_MOST_S, begin_pause, end_pause, read_pause
from edge.settings import Settings, load_settings
from edge.sources.depth import Found
from firmware_bridge.session import Gateway
from tests.edge.in_process import run_here

HOME = """
[home]
id = "home"
[[zone]]
name = "ground floor"
rooms = ["lounge"]
"""
RESIDENT = '[[resident]]\nid = "r{0}"\nroom = "{0}"\n'
CAMERA = '[[camera]]\nid = "{0}"\nroom = "{1}"\nkind = "oak"\ndevice = "{0}"\nresident = "{2}"\n'
CONSENT = '[camera.consent]\nkind = "consent"\ngiven = 2026-11-01\nreview = 2027-05-01\n'
R12 = RESIDENT.format("12")
CAM12 = CAMERA.format("cam-12", "12", "r12") + CONSENT
SEES = CameraSight(consented=True, paused=False, heard_s=0.0)
DAY = date(2026, 11, 22)


def read(folder: Path, *tables: str) -> Settings:
    path = folder / "fallwatch.toml"
    path.write_text(HOME + "".join(tables), encoding="utf-8")
    return load_settings(path)


@dataclass
class Bed:
    """A small home whose cameras are as a test wants, second by second."""

    settings: Settings
    now_s: float = 1000.0
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        worn = [w for r in self.settings.resident for w in r.wearables]
        self.pipeline = Pipeline(Gateway(lambda _: None), dict.fromkeys(worn), unsealed=set(worn))
        self.supervisor = Supervisor(self.settings, self.pipeline)

    def run(self, seconds: float, **other: CameraSight) -> None:
        """Let time pass, in which all cameras see but the ``other`` ones; ``_`` stands for ``-``."""
        for _ in range(round(seconds)):
            self.now_s += 1.0
            sights = {
                c.id: replace(other.get(c.id.replace("-", "_"), SEES), heard_s=self.now_s)
                for c in self.settings.camera
            }
            self.told += self.supervisor.look(self.now_s, {}, sights)

    def take(self) -> list[Told]:
        """Return what was told about cameras since the last time."""
        told, self.told = self.told, []
        return [t for t in told if t.topic.startswith(("camera", "review", "blind"))]


@pytest.fixture
def bed(tmp_path: Path) -> Any:
    return lambda *tables: Bed(read(tmp_path, *tables))


def blind(cause: Cause) -> CameraSight:
    return replace(SEES, says=cause)


def test_a_camera_that_is_gone_is_told_after_twenty_seconds_and_closed_when_it_is_back(bed: Any) -> None:
    home = bed(R12, CAM12)
    home.run(60)
    home.run(20, cam_12=blind(Cause.CAMERA_GONE))
    assert home.take() == []
    assert home.supervisor.camera("cam-12").cause is Cause.CAMERA_GONE
    assert home.supervisor.blind("r12").cause is Cause.CAMERA_GONE
    home.run(2, cam_12=blind(Cause.CAMERA_GONE))
    (told,) = home.take()
    assert (told.topic, told.cause, told.fault, told.board_only) == (
        "camera cam-12",
        Cause.CAMERA_GONE,
        False,
        False,
    )
    assert (told.resident.id, told.camera.id, told.wearable) == ("r12", "cam-12", None)
    home.run(1)
    assert home.take() == [Close("camera cam-12")]
    assert home.supervisor.blind("r12").cause is None


def test_where_a_wearable_is_left_it_is_a_fault_and_no_cover_is_the_wearables_own(bed: Any) -> None:
    home = bed(R12 + 'wearable = "0042"\n', CAM12)
    home.run(30, cam_12=blind(Cause.CAMERA_BLOCKED))
    (told,) = [t for t in home.take() if t.topic == "camera cam-12"]
    assert (told.fault, told.board_only) == (True, False)
    assert home.supervisor.blind("r12").cause is not None  # of the wearable, which was never heard
    assert home.supervisor.blind("r12").cause is not Cause.CAMERA_BLOCKED


def test_of_two_cameras_in_a_room_the_last_to_go_leaves_no_cover(bed: Any) -> None:
    home = bed(R12, CAM12, CAMERA.format("cam-b", "12", "r12") + CONSENT)
    home.run(30, cam_b=blind(Cause.CAMERA_GONE))
    assert [(t.topic, t.fault) for t in home.take()] == [("camera cam-b", True)]
    assert home.supervisor.blind("r12").cause is None
    home.run(30, cam_b=blind(Cause.CAMERA_GONE), cam_12=blind(Cause.CAMERA_HOT))
    assert [(t.topic, t.fault) for t in home.take()] == [("camera cam-12", False)]


def test_cover_decides_who_hears(bed: Any) -> None:
    home = bed(R12 + 'cover = "should"\n', CAM12, CAMERA.format("cam-l", "lounge", "") + CONSENT)
    home.run(30, cam_12=blind(Cause.CAMERA_GONE), cam_l=blind(Cause.CAMERA_GONE))
    told = {t.topic: t for t in home.take()}
    assert told["camera cam-12"].board_only
    assert not told["camera cam-l"].board_only
    assert told["camera cam-l"].resident is None


def test_a_blindness_that_changes_its_cause_goes_on(bed: Any) -> None:
    home = bed(R12, CAM12)
    home.run(30, cam_12=blind(Cause.CAMERA_FROZEN))
    home.run(30, cam_12=blind(Cause.CAMERA_GONE))
    assert [t.cause for t in home.take()] == [Cause.CAMERA_FROZEN]


def test_a_pause_calls_nobody_ends_an_open_call_and_what_is_then_still_so_is_told_anew(bed: Any) -> None:
    paused = replace(SEES, paused=True)
    home = bed(R12, CAM12)
    home.run(3600, cam_12=paused)
    assert home.take() == []
    assert home.supervisor.camera("cam-12").cause is Cause.CAMERA_PAUSED
    assert home.supervisor.blind("r12").cause is Cause.CAMERA_PAUSED
    home.run(15, cam_12=blind(Cause.CAMERA_SILENT))  # it takes its time to start
    assert home.take() == []
    home.run(10, cam_12=blind(Cause.CAMERA_GONE))
    assert [type(t) for t in home.take()] == [Raise]
    home.run(5, cam_12=paused)
    assert home.take() == [Close("camera cam-12")]
    home.run(25, cam_12=blind(Cause.CAMERA_GONE))
    assert [type(t) for t in home.take()] == [Raise]


def test_consent_that_ran_out_is_on_the_board_once_and_hides_nothing_after_it_is_renewed(bed: Any) -> None:
    home = bed(R12, CAM12)
    home.run(7200, cam_12=replace(SEES, consented=False))
    (told,) = home.take()
    assert (told.cause, told.board_only) == (Cause.CAMERA_CONSENT, True)
    home.run(60, cam_12=blind(Cause.CAMERA_GONE))
    closed, told = home.take()
    assert (closed, told.board_only) == (Close("camera cam-12"), False)


def test_a_review_that_is_near_is_on_the_board_until_it_is_done(bed: Any) -> None:
    home = bed(R12, CAM12)
    home.run(7200, cam_12=replace(SEES, review_soon=True))
    (told,) = home.take()
    assert (told.cause, told.fault, told.board_only) == (Cause.CAMERA_REVIEW, True, True)
    home.run(1)
    assert home.take() == [Close("review cam-12")]


def test_what_an_earlier_run_told_stays_told(bed: Any) -> None:
    home = bed(R12, CAM12)
    for cause in (Cause.CAMERA_GONE, Cause.CAMERA_REVIEW):
        topic = topic_of("r12", cause, fault=False, camera="cam-12")
        home.supervisor.resume(topic, cause)
    home.run(30, cam_12=replace(blind(Cause.CAMERA_GONE), review_soon=True))
    assert home.take() == []
    home.run(1)
    assert {t.topic for t in home.take()} == {"camera cam-12", "review cam-12"}


def test_somebody_who_had_nothing_and_got_a_camera_has_cover(bed: Any) -> None:
    home = bed(R12, CAM12)
    home.supervisor.resume("blind r12", Cause.NO_WEARABLE)
    home.run(1)
    assert home.take() == [Close("blind r12")]


def test_each_cause_comes_before_those_that_it_explains() -> None:
    sight = CameraSight(consented=False, paused=True, heard_s=None, says=Cause.CAMERA_DARK)
    assert camera_cause_of(sight, now_s=100.0) is Cause.CAMERA_CONSENT
    assert camera_cause_of(replace(sight, consented=True), now_s=100.0) is Cause.CAMERA_PAUSED
    sight = replace(sight, consented=True, paused=False)
    assert camera_cause_of(sight, now_s=100.0) is Cause.CAMERA_SILENT
    assert camera_cause_of(replace(sight, heard_s=94.0), now_s=100.0) is Cause.CAMERA_SILENT
    assert camera_cause_of(replace(sight, heard_s=96.0), now_s=100.0) is Cause.CAMERA_DARK
    assert camera_cause_of(replace(sight, heard_s=96.0, says=None), now_s=100.0) is None


# -- what the eyes say --------------------------------------------------------------------------------------


@dataclass
class Watched:
    """The cameras of a home without their eyes."""

    cameras: Cameras
    state: Path
    now_s: float = 1000.0

    def tick(self, today: date = DAY, *, clock_ok: bool = True) -> list[FoundBy]:
        return self.cameras.on_timer(self.now_s, today, clock_ok=clock_ok)

    @property
    def cause(self) -> Cause | None:
        return camera_cause_of(self.cameras.sights(self.now_s)["cam-12"], now_s=self.now_s)

    @property
    def may_look(self) -> bool:
        (looking,) = self.cameras._known.values()
        return looking.eye.may_look

    def saw(self, *people: Person, cause: str = "", age_s: float = 0.0) -> list[FoundBy]:
        seen = Seen(self.now_s - age_s, people, 0.9, cause)
        return self.cameras.on_event(Saw("cam-12", seen, self.now_s))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(Cameras(read(tmp_path, R12, CAM12), tmp_path, None), tmp_path)


def on_floor(on_floor_s: float) -> Person:
    return Person(1, tuple(0.0 if name != "head_m" else 0.2 for name in FEATURES), on_floor_s)


def test_a_camera_sees_once_its_eye_has_said_so(watched: Watched) -> None:
    watched.tick()
    assert watched.may_look
    assert watched.cause is Cause.CAMERA_SILENT
    watched.saw()
    assert watched.cause is None
    assert watched.cameras.words("cam-12", watched.now_s + 2.0)["frame_s_ago"] == 2.0
    watched.cameras.on_event(Shut("cam-12", "ended"))
    assert watched.cause is Cause.CAMERA_SILENT


def test_an_eye_that_says_it_is_well_without_a_new_frame_is_not_believed(watched: Watched) -> None:
    watched.tick()
    watched.saw()
    frame_s = watched.now_s
    for _ in range(6):
        watched.now_s += 1.0
        watched.saw(age_s=watched.now_s - frame_s)
    assert watched.cause is Cause.CAMERA_GONE
    assert watched.cameras.words("cam-12", watched.now_s)["frame_s_ago"] == 6.0


def test_somebody_who_lies_on_the_floor_is_found_without_a_model(watched: Watched) -> None:
    watched.tick()
    found = []
    for i in range(300):
        watched.now_s += 0.1
        found += watched.saw(on_floor(i / 10))
    (fall,) = [f.finding for f in found if isinstance(f.finding, FallDetected)]
    assert fall.long_lie
    assert {f.camera.id for f in found} == {"cam-12"}


def test_what_comes_from_a_camera_that_was_switched_off_counts_for_nothing(watched: Watched) -> None:
    watched.tick()
    begin_pause(watched.state, "12", 60, "anna")
    watched.tick()
    assert not watched.may_look
    assert [f for i in range(300) for f in watched.saw(on_floor(i / 10))] == []
    assert watched.cause is Cause.CAMERA_PAUSED
    words = watched.cameras.words("cam-12", watched.now_s)
    assert words["paused_by"] == "anna"
    assert 55 <= words["paused_left_s"] <= 60
    end_pause(watched.state, "12")
    watched.tick()
    assert watched.may_look
    assert watched.cause is Cause.CAMERA_SILENT


def test_consent_is_looked_at_each_day(watched: Watched) -> None:
    for today, may_look, soon in (
        (date(2026, 10, 31), False, False),
        (date(2026, 11, 1), True, False),
        (date(2027, 4, 16), True, False),
        (date(2027, 4, 17), True, True),
        (date(2027, 4, 30), True, True),
    ):
        watched.tick(today)
        sight = watched.cameras.sights(watched.now_s)["cam-12"]
        assert (watched.may_look, sight.review_soon and sight.consented) == (may_look, soon), today
    watched.tick(date(2027, 5, 1))
    assert not watched.may_look
    assert watched.cause is Cause.CAMERA_CONSENT


@pytest.mark.parametrize(
    ("first", "may_look"), [(DAY, True), (date(1970, 1, 1), False), (date(2030, 1, 1), False)]
)
def test_a_clock_that_cannot_be_believed_leaves_it_as_it_was(
    watched: Watched, first: date, may_look: bool
) -> None:
    watched.tick(first, clock_ok=False)
    assert watched.may_look is may_look
    for today in (DAY, date(1970, 1, 1), date(2030, 1, 1)):
        watched.tick(today, clock_ok=False)
        assert watched.may_look is may_look
    watched.tick(date(2027, 5, 1))
    assert not watched.may_look
    watched.tick(DAY, clock_ok=False)
    assert not watched.may_look
    watched.tick(DAY)
    assert watched.may_look


def test_without_a_record_of_consent_it_never_looks(tmp_path: Path) -> None:
    home = Watched(Cameras(read(tmp_path, R12, CAMERA.format("cam-12", "12", "r12")), tmp_path, None), tmp_path)
    home.tick()
    assert not home.may_look
    assert home.cause is Cause.CAMERA_CONSENT


# -- a pause ------------------------------------------------------------------------------------------------


def test_a_pause_is_for_one_room_and_is_over_when_it_is_ended(tmp_path: Path) -> None:
    assert begin_pause(tmp_path, "12", 600, "anna")
    held = read_pause(tmp_path, "12")
    assert held is not None
    assert held.by == "anna"
    assert 590 < held.left_s <= 600
    assert read_pause(tmp_path, "14") is None
    assert end_pause(tmp_path, "12")
    assert read_pause(tmp_path, "12") is None
    assert not end_pause(tmp_path, "12")


@settings(max_examples=30)
@given(room=st.text(min_size=1, max_size=20))
def test_any_room_has_a_file_of_its_own_in_the_folder(tmp_path_factory: pytest.TempPathFactory, room: str) -> None:
    state = tmp_path_factory.mktemp("state")
    try:
        room.encode()
    except UnicodeEncodeError:
        return
    assert begin_pause(state, room, 60, "anna")
    assert read_pause(state, room) is not None
    (file,) = (state / "pauses").iterdir()
    assert file.parent == state / "pauses"


class Clocks:
    """Both clocks, in hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mono_s, self.wall, self.ok, self.boot = 5000.0, datetime(2026, 11, 22, tzinfo=UTC), True, "one"
        monkeypatch.setattr("edge.runfile.monotonic_s", lambda: self.mono_s)
        monkeypatch.setattr("edge.runfile.boot_id", lambda: self.boot)
        monkeypatch.setattr(pauses, "utc_now", lambda: self.wall)
        monkeypatch.setattr(pauses, "clock_ok", lambda: self.ok)

    def passes(self, seconds: float) -> None:
        self.mono_s += seconds
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_it_ends_by_itself_and_never_lasts_longer_than_an_hour(tmp_path: Path, clocks: Clocks) -> None:
    begin_pause(tmp_path, "12", 20 * 60, "anna")
    clocks.passes(1199)
    assert read_pause(tmp_path, "12") is not None
    clocks.passes(2)
    assert read_pause(tmp_path, "12") is None
    begin_pause(tmp_path, "12", 1e9, "anna")
    clocks.passes(PAUSE_MOST_S + 1)
    assert read_pause(tmp_path, "12") is None


@settings(max_examples=50)
@given(step_s=st.floats(-1e8, 1e8), at_s=st.floats(0, 1500), ok=st.booleans())
def test_no_step_of_the_clock_makes_it_longer(
    tmp_path_factory: pytest.TempPathFactory, step_s: float, at_s: float, ok: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clocks, state = Clocks(patch), tmp_path_factory.mktemp("state")
        clocks.ok = ok
        begin_pause(state, "12", 1200, "anna")
        clocks.passes(at_s)
        clocks.wall += timedelta(seconds=step_s)
        held = read_pause(state, "12")
        assert held is None or held.left_s <= 1200 - at_s + 1e-3  # as files round
        if not ok and at_s < 1199:
            assert held is not None  # and a clock that was only now set right does not end it
        clocks.passes(max(1200 - at_s, 0.0) + 0.01)
        assert read_pause(state, "12") is None


def test_a_reboot_ends_it(tmp_path: Path, clocks: Clocks) -> None:
    begin_pause(tmp_path, "12", 1200, "anna")
    clocks.boot, clocks.mono_s = "two", 5001.0
    assert read_pause(tmp_path, "12") is None


@pytest.mark.parametrize("body", ["", "[]", "{", '{"mono_s": "x"}', '{"by": 3}'])
def test_a_file_that_is_no_pause_is_none(tmp_path: Path, clocks: Clocks, body: str) -> None:
    begin_pause(tmp_path, "12", 1200, "anna")
    (file,) = (tmp_path / "pauses").iterdir()
    file.write_text(body, encoding="utf-8")
    assert read_pause(tmp_path, "12") is None


@pytest.mark.parametrize("length", ["NaN", "1e999", '"x"', "null", "-5", "1" + "0" * 400, "[]"])
def test_a_length_that_is_none_pauses_no_longer_than_an_hour(tmp_path: Path, clocks: Clocks, length: str) -> None:
    begin_pause(tmp_path, "12", 1200, "anna")
    (file,) = (tmp_path / "pauses").iterdir()
    told = json.loads(file.read_text())
    del told["length_s"]
    file.write_text(json.dumps(told)[:-1] + f', "length_s": {length}}}', encoding="utf-8")
    held = read_pause(tmp_path, "12")
    assert held is None or held.left_s <= PAUSE_MOST_S


# -- the service --------------------------------------------------------------------------------------------


class Detection:
    """The service of a home with one camera, whose eye is the test."""

    def __init__(self, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now_s = folder, 5000.0
        monkeypatch.setattr("edge.detect.service.monotonic_s", lambda: self.now_s)
        self._settings = settings
        self.start()

    def start(self) -> None:
        self.service = DetectService(self._settings, self.folder, self.folder)
        self.service._open_journal()
        self.service._recall()
        self.service._ledger, self.service._wear_next_s, self.service._wear_last_s = WearLedger(0.0), 1e9, 0.0

    def run(self, seconds: float, *people: Person) -> None:
        for _ in range(round(seconds)):
            self.now_s += 1.0
            if self.cameras["cam-12"].cause is not Cause.CAMERA_CONSENT:
                self.service._on_event(Saw("cam-12", Seen(self.now_s, people, 0.9), self.now_s))
            self.service._tick(self.now_s)

    @property
    def cameras(self) -> dict[str, Any]:
        return {"cam-12": self.service._supervisor.camera("cam-12")}

    def cases(self) -> list[Case]:
        with contextlib.closing(Journal(self.folder / JOURNAL_FILE)) as journal:
            return [c for c in journal.cases(limit=100) if c.facts.camera]

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "detect.json").read_text())["cameras"]["cam-12"]
        return told


LONG = CONSENT.replace("2027", "2999").replace("2026", "2020")


def test_a_fall_that_a_camera_saw_is_on_disk_with_its_room_its_resident_and_what_saw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = CAMERA.format("cam-12", "12", "r12") + LONG
    home = Detection(tmp_path, read(tmp_path, R12 + 'bed = "A"\n', camera), monkeypatch)
    home.run(5)
    assert (home.told()["well"], home.told()["cause"], home.told()["frame_s_ago"]) == (True, None, 0.0)
    for on_floor_s in range(30):
        home.run(1, on_floor(on_floor_s))
    (case,) = home.cases()
    facts = case.facts
    assert (facts.kind, facts.placement, facts.camera) == (Kind.LONG_LIE, "camera", "cam-12")
    assert (facts.resident, facts.room, facts.bed, facts.wearable) == ("r12", "12", "A", None)
    raised = case.first("raised")
    assert raised is not None
    assert 20.0 <= raised.body["since_impact_s"] <= 30.0  # so the time on the floor is known
    document = incident_document(case, now_s=home.now_s)
    assert (document["camera"], document["placement"]) == ("cam-12", "camera")


def test_what_is_on_the_board_is_not_told_again_by_the_next_run_and_calls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Detection(tmp_path, read(tmp_path, R12, CAMERA.format("cam-12", "12", "r12")), monkeypatch)
    home.run(5)
    assert home.told()["cause"] == Cause.CAMERA_CONSENT
    home.start()
    home.run(5)
    (case,) = home.cases()
    assert (case.facts.cause, case.facts.board_only) == (Cause.CAMERA_CONSENT, True)
    home._settings = read(tmp_path, R12, CAMERA.format("cam-12", "12", "r12") + LONG)
    home.start()
    home.run(5)
    (case,) = home.cases()
    assert case.first("resolved") is not None
    assert home.told()["well"]


def test_a_camera_that_is_blind_asks_the_first_group_alone() -> None:
    facts = Incident("i", "home", Kind.BLIND, datetime.now(UTC), room="12", camera="cam-12", cause="camera gone")
    for camera, wanted in (("cam-12", {"12"}), (None, {"12", "20"})):
        policy = Policy((("12",), ("20",)), (120.0,), 120.0)
        escalation = Escalation(replace(facts, camera=camera), policy, now_s=0.0)
        calls = [call for now_s in range(0, 4000, 10) for call in escalation.due(now_s=now_s)]
        assert {group for call in calls for group in call.groups} == wanted


# -- the command line ---------------------------------------------------------------------------------------


def test_the_commands_say_what_is_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read(tmp_path, R12, CAM12)
    where = ("--config", settings.path, "--state", tmp_path, "--run", tmp_path)
    monkeypatch.setattr("edge.cli.cameras.SEEN_WITHIN_S", 0.2)

    def ask(*words: object) -> tuple[Any, str]:
        status, out, err = run_here(monkeypatch, capsys, *where, "camera", *words)
        return status, out + err

    assert ask("pause", "13") == (2, "fallwatch: room '13' has no camera; there are some in 12\n")
    assert ask("pause", "12", "--minutes", "61")[0] == 2
    assert ask("resume", "12") == (0, "Room 12 was not paused.\n")
    Journal(tmp_path / JOURNAL_FILE).close()
    status, said = ask("pause", "12", "--by", "anna")
    assert (status, "has not taken it yet" in said) == (1, True)  # detect does not run: do not go by it
    held = read_pause(tmp_path, "12")
    assert held is not None
    assert 1190 < held.left_s <= 1200
    status, said = ask("status", "--json")
    assert (status, json.loads(said)["cause"]) == (1, "fall detection stopped")
    monkeypatch.setattr("edge.sources.depth.find_cameras", list)
    assert ask("find")[0] == 1
    monkeypatch.setattr("edge.sources.depth.find_cameras", lambda: [Found("oak", "1944", "OAK-D")])
    status, said = ask("find")
    assert status == 0
    assert said.startswith('kind = "oak"  device = "1944"  OAK-D\n')
