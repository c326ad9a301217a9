"""Wearables and cameras: two that suspect raise one incident, one that is sure is never held back, and doubts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.alarm.document import incident_document
from edge.clock import monotonic_s
from edge.core.detector import FallDetected, Finding, Motion, MotionChanged, Suspected
from edge.core.fusion import (
    AFTER_S,
    BEFORE_S,
    DOWN_S,
    EVENTS_MOST,
    IMPACTS_MOST,
    SAME_S,
    TAKE_BACK_S,
    WEAK_MOST,
    Alarm,
    Fusion,
    Note,
    Sense,
    Source,
    UprightWatch,
    Verdict,
    Witness,
)
from edge.core.incident import Kind
from edge.core.replay import replay
from edge.core.seen import FEATURES, Person, Seen
from edge.detect.cameras import FoundBy
from edge.detect.pipeline import Found
from edge.detect.service import DetectService
from edge.journal import Case
from edge.recording import read_recording
from edge.settings import CameraSettings, load_settings
from models.card import newest
from models.scorer import Scorer
from tests.edge.home import Home, Pager, until
from tests.edge.test_pipeline import DATA, feed, pipeline, played

WRIST = Source(Sense.WEARABLE, "0012", "12", "r12", "wrist-2")
SPARE = replace(WRIST, id="1012")
CAMERA = Source(Sense.CAMERA, "cam-12", "12", "r12", "camera-1")
# Two live in room 14: what its camera sees may be of either.
BED_A = Source(Sense.WEARABLE, "014a", "14", "r14a")
BED_B = Source(Sense.WEARABLE, "014b", "14", "r14b")
SHARED = Source(Sense.CAMERA, "cam-14", "14", None)


def strong(source: Source, impact_s: float, probability: float = 0.95, *, long_lie: bool = False) -> Witness:
    return Witness(source, impact_s, probability, strong=True, long_lie=long_lie)


def weak(source: Source, impact_s: float, probability: float = 0.6) -> Witness:
    return Witness(source, impact_s, probability, strong=False)


@dataclass
class Lived:
    """Fusion as the service uses it, and the incidents that came of it."""

    unanswered: bool = True
    alarms: dict[str, Alarm] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    fusion: Fusion = field(init=False)

    def __post_init__(self) -> None:
        self.fusion = Fusion(lambda _: self.unanswered)

    def hear(self, *witnesses: Witness) -> list[Verdict]:
        return [v for w in witnesses for v in self._take(self.fusion.on_witness(w, now_s=w.impact_s))]

    def see(self, frames: Iterable[Seen], camera: Source = CAMERA) -> list[Verdict]:
        return [v for seen in frames for v in self._take(self.fusion.on_seen(camera.id, camera.room, seen))]

    def _take(self, verdicts: list[Verdict]) -> list[Verdict]:
        for told in verdicts:
            if isinstance(told, Note):
                self.notes.append(told)
            else:
                incident = f"i{len(self.alarms)}"
                self.alarms[incident] = told
                self.fusion.raised(told, incident)
        return verdicts


def person(head_m: float = 1.6, *, on_floor_s: float = 0.0, track: int = 1) -> Person:
    return Person(track, (head_m, *[0.0] * (len(FEATURES) - 1)), on_floor_s)


def frames(begin_s: float, end_s: float, *people: Person, cause: str = "") -> Iterator[Seen]:
    """Yield what a camera of ten frames a second sees."""
    for k in range(round(begin_s * 10), round(end_s * 10)):
        yield Seen(k / 10, people, 0.9, cause)


UP = person()
LYING = person(0.2, on_floor_s=30.0)


# -- two kinds of witnesses ---------------------------------------------------------------------------


def test_two_that_only_suspect_make_one_incident_of_the_resident_who_wears_one() -> None:
    home = Lived()
    assert home.hear(weak(SHARED, 100.0, 0.5)) == []
    (alarm,) = home.hear(weak(BED_B, 104.0, 0.8))
    assert isinstance(alarm, Alarm)
    assert (alarm.resident, alarm.probability, alarm.doubted) == ("r14b", 0.9, False)
    assert [w.source for w in alarm.witnesses] == [BED_B, SHARED]


def test_what_decided_is_named() -> None:
    both = Alarm((weak(WRIST, 0.0), weak(CAMERA, 0.0)), doubted=False)
    sure = Alarm((strong(WRIST, 0.0), weak(CAMERA, 0.0)), doubted=False)
    assert (both.model, sure.model) == ("wrist-2+camera-1", "wrist-2")


@given(apart_s=st.floats(-30, 30), camera_first=st.booleans())
def test_suspicions_meet_in_any_order_if_their_impacts_are_near(apart_s: float, camera_first: bool) -> None:
    home = Lived()
    said = [weak(CAMERA, 100.0), weak(WRIST, 100.0 + apart_s)]
    home.hear(*(said if camera_first else reversed(said)))
    assert len(home.alarms) == (abs(apart_s) < SAME_S)


def test_suspicions_of_one_kind_of_source_or_of_other_rooms_do_not_meet() -> None:
    home = Lived()
    home.hear(weak(WRIST, 100.0), weak(SPARE, 101.0), weak(SHARED, 100.0), weak(WRIST, 103.0))
    assert home.alarms == {}


def test_one_suspicion_of_a_camera_speaks_for_one_resident() -> None:
    home = Lived()
    home.hear(weak(SHARED, 100.0), weak(BED_A, 101.0), weak(BED_B, 102.0))
    assert [alarm.resident for alarm in home.alarms.values()] == ["r14a"]


@pytest.mark.parametrize("second", [strong(CAMERA, 104.0), weak(CAMERA, 104.0)])
def test_a_second_witness_of_a_fall_is_a_note_in_its_incident_and_is_told_once(second: Witness) -> None:
    home = Lived()
    (alarm,) = home.hear(strong(WRIST, 100.0))
    assert isinstance(alarm, Alarm)
    assert alarm.probability == 0.95
    (note,) = home.hear(second)
    body = {"strong": second.strong, "probability": second.probability}
    assert note == Note("i0", "witness", body | {"witnesses": ["camera"], "sources": ["cam-12"]})
    assert home.hear(second, strong(SPARE, 101.0)) == []


def test_of_two_who_fall_at_once_in_a_shared_room_each_has_an_incident_though_the_camera_saw_it_first() -> None:
    home = Lived()
    home.hear(strong(SHARED, 100.0), strong(BED_A, 101.0), strong(BED_B, 102.0))
    assert [alarm.resident for alarm in home.alarms.values()] == [None, "r14b"]
    assert [(note.incident, note.kind) for note in home.notes] == [("i0", "witness")]


def test_a_witness_belongs_to_the_residents_own_incident_rather_than_to_one_that_may_be_anybodys() -> None:
    home = Lived(unanswered=False)
    home.hear(strong(BED_A, 100.0), strong(SHARED, 111.0), weak(BED_A, 109.0))
    assert len(home.alarms) == 2
    home.hear(strong(BED_B, 111.0))  # the camera's is still free for the other
    assert [(note.incident, note.body["sources"]) for note in home.notes] == [("i1", ["014b"])]


def test_a_further_fall_joins_what_nobody_has_answered_and_is_new_otherwise() -> None:
    home = Lived()
    home.hear(strong(WRIST, 100.0), strong(CAMERA, 160.0))
    assert [(note.incident, note.kind) for note in home.notes] == [("i0", "again")]
    home.unanswered = False
    home.hear(strong(WRIST, 190.0))
    assert len(home.alarms) == 2


sources = st.sampled_from([WRIST, SPARE, CAMERA, BED_A, BED_B, SHARED])
witnesses = st.builds(Witness, sources, st.floats(0, 300), st.floats(0.5, 1), st.booleans())


@given(said=st.lists(witnesses, max_size=30), unanswered=st.booleans(), upright=st.booleans())
def test_whatever_comes_in_whatever_order_who_is_sure_is_heard_at_once_and_once(
    said: list[Witness], unanswered: bool, upright: bool
) -> None:
    home = Lived(unanswered)
    if upright:  # a camera that doubts everything
        home.see(frames(-10, 310, UP))
    heard: list[tuple[float, Alarm]] = []
    for w in said:
        before = len(home.alarms)
        told = home.hear(w)
        known = [e for e in home.fusion._events.get(w.source.room, ()) if w.source.resident in {e.resident, None}]
        if w.strong:  # it is in an incident now, this very moment
            assert any(abs(w.impact_s - at_s) < SAME_S for e in known for at_s in e.impacts_s)
        for verdict in told:
            kinds = {Sense.CAMERA, Sense.WEARABLE}
            if isinstance(verdict, Alarm):
                heard.append((w.impact_s, verdict))
                assert (
                    any(x.strong for x in verdict.witnesses)
                    or {x.source.sense for x in verdict.witnesses} == kinds
                )
        assert len(home.alarms) - before <= 1
    for i, (_, a) in enumerate(heard):
        for _, b in heard[:i]:
            same = a.resident == b.resident and a.witnesses[0].source.room == b.witnesses[0].source.room
            assert not same or abs(a.witnesses[0].impact_s - b.witnesses[0].impact_s) >= SAME_S
    if not any(w.strong for w in said) and len({w.source.sense for w in said}) < 2:
        assert not home.alarms
        assert not home.notes


def test_what_is_remembered_is_bounded() -> None:
    home = Lived(unanswered=False)
    home.hear(*(strong(WRIST, 20.0 * k) for k in range(200)))
    home.hear(*(weak(BED_A, 20.0 * k) for k in range(200)))
    home.unanswered = True
    home.hear(*(strong(BED_B, 20.0 * k) for k in range(200)))
    kept = home.fusion._events
    assert [len(kept["12"]), len(kept["14"])] == [EVENTS_MOST, 1]
    assert len(kept["14"][0].impacts_s) == IMPACTS_MOST
    assert [len(w) for w in home.fusion._weak.values()] == [WEAK_MOST]


@pytest.mark.parametrize("placement", ["wrist", "waist"])
def test_without_a_camera_recordings_of_people_raise_what_they_did(placement: str) -> None:
    scorer = Scorer(newest(placement))
    names = sorted(path.name for path in DATA.glob("*.csv"))
    worn = [f"{i:04d}" for i in range(1, len(names) + 1)]
    news = feed(pipeline(scorer, *worn), played(names))
    assert any(isinstance(found, Found) and isinstance(found.finding, Suspected) for found in news)
    for name, wearable in zip(names, worn, strict=True):
        home = Lived(unanswered=False)
        for found in news:
            if isinstance(found, Found) and found.wearable == wearable:
                at_s, finding = found.impact_at_s, found.finding
                if not isinstance(finding, MotionChanged):
                    home.hear(Witness(WRIST, at_s, finding.probability, isinstance(finding, FallDetected)))
        recording = read_recording(DATA / name)
        replayed = replay([(run.t_s, run.accel_g) for run in recording.runs], scorer)
        assert len(home.alarms) == sum(isinstance(finding, FallDetected) for finding in replayed)
        assert home.notes == []


# -- doubts -------------------------------------------------------------------------------------------


def test_a_camera_that_saw_one_person_upright_throughout_doubts_a_fall_that_is_raised_late() -> None:
    home = Lived()
    home.see(frames(90, 105, UP))
    (alarm,) = home.hear(strong(WRIST, 100.0))
    assert isinstance(alarm, Alarm)
    assert alarm.doubted
    assert alarm.body == {"witnesses": ["wearable"], "sources": ["0012"], "doubted": True}


def test_a_fall_that_is_raised_before_a_camera_can_tell_is_raised_as_ever_and_doubted_in_a_note() -> None:
    home = Lived()
    home.see(frames(90, 102, UP))
    (alarm,) = home.hear(strong(WRIST, 100.0))
    assert isinstance(alarm, Alarm)
    assert not alarm.doubted
    (note,) = home.see(frames(102, 160, UP))
    assert note == Note("i0", "doubt", {"doubted": True, "by": "cam-12"})


def test_a_doubt_is_taken_back_once_somebody_is_seen_on_the_floor_and_does_not_return() -> None:
    home = Lived()
    home.see(frames(90, 105, UP))
    home.hear(strong(WRIST, 100.0))
    assert home.see(frames(105, 106, person(0.3, on_floor_s=DOWN_S / 2))) == []
    (note,) = home.see(frames(106, 120, LYING))
    assert note == Note("i0", "doubt", {"doubted": False, "by": "cam-12"})
    assert home.see([*frames(120, 200, UP), *frames(200, 210, LYING)]) == []


def test_what_one_camera_took_back_another_does_not_doubt_again() -> None:
    home = Lived()
    other = replace(CAMERA, id="cam-12b")
    home.see(frames(90, 105, UP))
    home.hear(strong(WRIST, 100.0))
    home.see(frames(105, 106, LYING), other)
    home.see(frames(105, 120, UP))
    assert [(note.body["by"], note.body["doubted"]) for note in home.notes] == [("cam-12b", False)]


def test_who_lies_on_the_floor_much_later_has_nothing_to_do_with_it() -> None:
    home = Lived()
    home.see(frames(90, 105, UP))
    home.hear(strong(WRIST, 100.0))
    home.see(frames(100 + TAKE_BACK_S, 110 + TAKE_BACK_S, LYING))
    assert home.notes == []


def test_a_camera_that_suspects_a_fall_itself_takes_its_doubt_back() -> None:
    home = Lived()
    home.see(frames(90, 105, UP))
    home.hear(strong(WRIST, 100.0), weak(CAMERA, 106.0))
    assert [(note.kind, note.body.get("doubted")) for note in home.notes] == [("witness", None), ("doubt", False)]


def test_of_two_falls_in_one_incident_both_have_to_be_doubted() -> None:
    for upright_s, doubted in ((90.0, True), (120.0, False)):  # since when: before the first fall, or after it
        home = Lived()
        home.see(frames(upright_s, 165, UP))
        home.hear(strong(WRIST, 100.0), strong(WRIST, 160.0))
        (again,) = home.notes
        assert (again.kind, again.body["doubted"]) == ("again", doubted)


@pytest.mark.parametrize(
    "seen",
    [
        [*frames(90, 98.5, UP), *frames(98.5, 120)],  # left the room
        [*frames(99, 120, UP)],  # came in, or stood up, too late
        [*frames(90, 120, UP, person(track=2))],  # two people: which of them fell?
        [*frames(90, 101, UP), *frames(101, 120, person(track=2))],  # another one, perhaps
        [*frames(90, 120, person(0.9))],  # sits
        [*frames(90, 100, UP), *frames(100, 101, person(0.5)), *frames(101, 120, UP)],  # down and up again
        [*frames(90, 100, UP), *frames(101.5, 120, UP)],  # nobody knows what happened in the hole
        [*frames(90, 120, UP, cause="camera paused")],
        [*frames(90, 102.5, UP)],  # silent since
        [*frames(90, 120)],  # an empty room
    ],
)
def test_nothing_less_doubts_a_fall(seen: list[Seen]) -> None:
    home = Lived()
    home.see(seen)
    (alarm,) = home.hear(strong(WRIST, 100.0))
    assert isinstance(alarm, Alarm)
    assert not alarm.doubted
    assert home.notes == []


def test_a_camera_doubts_only_what_happens_in_its_room_and_no_fall_that_a_camera_saw() -> None:
    home = Lived()
    home.see(frames(90, 120, UP))
    home.hear(strong(BED_A, 100.0), strong(CAMERA, 105.0))
    assert [alarm.doubted for alarm in home.alarms.values()] == [False, False]
    assert home.see(frames(120, 130, UP)) == []


@given(
    since_s=st.floats(0, 100),
    until_s=st.floats(0, 100),
    impact_s=st.floats(0, 100),
)
def test_who_was_upright_for_less_than_around_the_impact_is_no_doubt(
    since_s: float, until_s: float, impact_s: float
) -> None:
    watch = UprightWatch("12")
    for seen in frames(0, until_s, UP):
        watch.observe(seen if seen.time_s >= since_s else replace(seen, people=(LYING,)))
    covered = since_s <= impact_s - BEFORE_S - 0.1 and until_s >= impact_s + AFTER_S + 0.2
    short = since_s > impact_s - BEFORE_S or until_s < impact_s + AFTER_S
    assert not (covered and not watch.doubts(impact_s))
    assert not (short and watch.doubts(impact_s))


# -- in the service -----------------------------------------------------------------------------------


@contextmanager
def service_of(home: Home) -> Iterator[DetectService]:
    """Yield the detect service with its journal, as it is after a start and before anything is heard."""
    service = DetectService(load_settings(home.config), home.state, home.run)
    service._open_journal()
    service._recall()
    service._wear_next_s = service._wear_last_s = 0.0
    try:
        yield service
    finally:
        assert service._journal is not None
        service._journal.close()


def felt(service: DetectService, finding: Finding, impact_at_s: float, wearable: str = "0001") -> None:
    service._on_news([Found(wearable, finding, impact_at_s)])


def document(case: Case) -> dict[str, object]:
    return incident_document(case, now_s=monotonic_s())


def saw(service: DetectService, *findings: Finding, seen: Iterable[Seen] = ()) -> None:
    camera = CameraSettings("cam-1", "1", "oak")
    service._cameras.card = replace(service._scorers["wrist"].card, name="camera-1")
    service._on_seen([FoundBy(camera, one) for one in (*findings, *seen)])


def test_a_suspicion_of_each_is_one_incident_on_disk(tmp_path: Path) -> None:
    with Home(tmp_path) as home, service_of(home) as service:
        at_s = monotonic_s() - 2.0
        felt(service, Suspected(1.0, 2.0, 0.45), at_s)
        assert home.cases() == []
        saw(service, Suspected(at_s + 1.0, at_s + 2.0, 0.6))
        (case,) = home.cases()
        assert (case.facts.kind, case.facts.wearable, case.facts.placement) == (Kind.FALL, "0001", "wrist")
        assert (case.facts.model, case.facts.probability) == ("shaken+camera-1", 0.78)
        assert document(case)["witnesses"] == ["wearable", "camera"]


def test_a_fall_that_only_the_camera_sees_is_raised_in_its_room_and_followed(tmp_path: Path) -> None:
    with Home(tmp_path) as home, service_of(home) as service:
        at_s = monotonic_s() - 40.0
        saw(service, FallDetected(at_s, at_s + 30.0, 0.7, long_lie=True))
        saw(service, MotionChanged(at_s, at_s + 40.0, Motion.STILL))
        felt(service, FallDetected(5.0, 6.0, 0.9), at_s + 3.0)
        (case,) = home.cases()
        facts = case.facts
        assert (facts.kind, facts.wearable, facts.placement) == (Kind.LONG_LIE, None, "camera")
        assert (facts.resident, facts.room, facts.bed, facts.model) == ("r1", "1", "A", "camera-1")
        assert [e.kind for e in case.events] == ["raised", "motion", "witness"]
        assert document(case)["witnesses"] == ["camera", "wearable"]


def test_a_killed_service_knows_its_incidents_and_its_doubts(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        at_s = monotonic_s() - 30.0
        with service_of(home) as service:
            saw(service, seen=frames(at_s - 5, at_s + 5, UP))
            felt(service, FallDetected(5.0, 6.0, 0.9), at_s)
        assert document(home.case())["doubted"] is True
        with service_of(home) as service:
            felt(service, FallDetected(5.0, 6.0, 0.9), at_s)  # the wearable sends it once more
            saw(service, FallDetected(at_s + 2.0, at_s + 3.0, 0.8))
        assert [e.kind for e in home.case().events] == ["raised", "witness", "doubt"]
        assert document(home.case())["doubted"] is False
        with service_of(home) as service:  # and so a third time
            saw(service, FallDetected(at_s + 2.0, at_s + 3.0, 0.8), seen=frames(at_s + 3, at_s + 9, LYING))
        assert len(home.case().events) == 3


def test_a_killed_service_knows_all_falls_of_an_incident(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        at_s = monotonic_s() - 30.0
        for _ in range(2):
            with service_of(home) as service:
                felt(service, FallDetected(5.0, 6.0, 0.9), at_s)
                felt(service, FallDetected(25.0, 26.0, 0.9), at_s + 20.0)
        assert [e.kind for e in home.case().events] == ["raised", "again"]


def test_an_incident_of_an_older_fallwatch_has_its_witness_and_no_doubt(tmp_path: Path) -> None:
    with Home(tmp_path) as home, service_of(home) as service:
        service._commit(Kind.FALL, "0001", impact_at_s=monotonic_s(), probability=0.9)
        told = document(home.case())
        assert (told["witnesses"], told["doubted"]) == (["wearable"], False)


def test_a_drill_is_no_fall_that_another_could_join(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        with home.journal() as journal, service_of(home) as service:
            service._commit(Kind.FALL, "0001", impact_at_s=monotonic_s())
            (case,) = home.cases()
            drill = replace(case.facts, incident="drill", drill=True)
            journal.resolve(case.facts.incident, "drill", "nobody")  # type: ignore[arg-type]
            journal.raise_incident(drill, since_impact_s=0.0)
        with service_of(home) as service:
            assert service._fusion.latest("1", "r1") != "drill"


def test_a_doubted_fall_is_called_and_widened_until_somebody_answers_and_told_anew_when_they_lie_there(
    tmp_path: Path,
) -> None:
    with Home(tmp_path) as home, Pager(home.pager_link) as pager, service_of(home) as service:
        home.start("alarm").ready()
        at_s = monotonic_s()
        saw(service, seen=frames(at_s - 9, at_s, UP))
        felt(service, FallDetected(5.0, 6.0, 0.9), at_s - 4.0)
        first = pager.wait("FALL? RM 1 BED A")
        assert first.text.endswith("CAMERA SEES SOMEBODY UPRIGHT")
        assert first.priority == "2"
        pager.wait("FALL? RM 1 BED A", to="20")  # widened, and again
        until(lambda: len(pager.texts("12")) >= 3)
        saw(service, seen=frames(at_s, at_s + 3, LYING))
        told = pager.wait("FALL? RM 1 BED A SEEN ON FLOOR")
        assert told.priority == "1"
        again = pager.wait("FALL? RM 1 BED A", to="12", after_s=told.at_s + 0.5)
        assert (again.priority, "UPRIGHT" in again.text) == ("1", False)
        with home.journal() as journal:
            journal.acknowledge(home.case().facts.incident, "anna")
        assert document(home.case())["state"] == "acknowledged"
