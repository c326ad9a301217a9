"""The right people by the right channel: several lines, fall-back, quiet times, drills, replies, test pages."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge import journal as journal_module
from edge.alarm.paging import Paging, Sending
from edge.alarm.service import AlarmService
from edge.alarm.worker import Report
from edge.clock import monotonic_s, utc_now
from edge.core.escalation import Call, Words
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.journal import JOURNAL_FILE, Journal
from edge.settings import Settings, load_settings
from edge.sinks import Page, Reply, Urgency
from tests.edge.home import Home, Pager, until

TWO_LINES = """
[[pager]]
port = "{folder}/pager"
check_every_s = 1
down_after_s = 3
[[pager]]
name = "spare"
role = "fallback"
port = "{folder}/pager-2"
check_every_s = 1
down_after_s = 3
"""
CALM = '[escalation]\ngroups = ["12", "20"]\nsteps_s = [600]\nrepeat_every_s = 600\nfallback_after_s = 2\n'


def fall(journal: Journal, *, kind: Kind = Kind.FALL, room: str = "1", resident: str = "r1") -> str:
    """Commit an incident as detect does."""
    incident = Incident(
        new_incident_id(),
        "site-7",
        kind,
        utc_now(),
        utc_now(),
        resident=resident,
        room=room,
        bed="A",
        wearable="0001",
    )
    journal.raise_incident(incident, since_impact_s=0.0)
    return incident.incident


def settings_of(folder: Path, text: str) -> Settings:
    path = folder / "fallwatch.toml"
    path.write_text('[home]\nid = "site-7"\n' + text, encoding="utf-8")
    return load_settings(path)


# -- over which channels ------------------------------------------------------------------------------

FACTS = Incident(
    "0193510c-1c2d-7a00-8000-0123456789ab", "site-7", Kind.FALL, datetime(2026, 11, 22, 3, 14, tzinfo=UTC)
)
LADDER = (("12",), ("20",), ("99",))


class Far:
    """A paging system that records what it is sent; ``fails`` has the channels that take nothing."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, str]] = []  # channel, to
        self.pages: list[tuple[str, Page, object]] = []
        self.paging = Paging(settings, lambda _: None, now_s=0.0)
        for name, worker in self.paging._workers.items():

            def submit(item: object, *, urgency: int = 1, tag: object = None, name: str = name) -> None:
                assert isinstance(item, Page)
                self.sent.append((name, item.to))
                self.pages.append((name, item, tag))

            monkeypatch.setattr(worker, "submit", submit)

    def send(self, *groups: str, number: int = 1, now_s: float = 0.0) -> None:
        self.sent.clear()
        self.pages.clear()
        call = Call(FACTS.incident, number, Words.ALARM, groups)
        self.paging.send(call, FACTS, "FALL? RM 12", ladder=LADDER, now_s=now_s)

    def answer(self, channel: str, error: str = "", *, now_s: float = 0.0) -> bool | None:
        """Have a channel report on the page it was sent last."""
        page, tag = next((p, t) for name, p, t in reversed(self.pages) if name == channel)
        return self.paging.on_report(Report(channel, page, utc_now(), tag, error), now_s=now_s)


MIXED = """
[escalation]
groups = ["12", "20", "99"]
[[pager]]
url = "tcp://127.0.0.1:1"
groups = ["12", "20"]
[[pager]]
kind = "webhook"
url = "http://127.0.0.1:1/"
role = "fallback"
groups = ["12", "99"]
addresses = { "99" = "manager" }
"""


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Far:
    return Far(settings_of(tmp_path, MIXED), monkeypatch)


def test_a_group_is_called_on_the_channels_that_serve_it_by_its_number_there(far: Far) -> None:
    far.send("12", "20", "99")
    assert far.sent == [("espa-1", "12"), ("espa-1", "20"), ("webhook-1", "manager")]
    assert far.answer("webhook-1") is True


def test_what_the_main_channel_refuses_goes_to_the_other_and_is_retried_only_when_that_refuses_too(
    far: Far,
) -> None:
    far.send("12")
    assert far.answer("espa-1", "no answer") is None  # still open: the other may take it
    assert far.sent == [("espa-1", "12"), ("webhook-1", "12")]
    assert far.answer("webhook-1", "HTTP 500") is False


def test_a_main_channel_that_hangs_is_gone_round_after_a_while(far: Far) -> None:
    far.send("12")
    far.paging.due(9.9)
    assert far.sent == [("espa-1", "12")]
    far.paging.due(10.0)
    assert far.sent == [("espa-1", "12"), ("webhook-1", "12")]
    far.paging.due(30.0)
    assert len(far.sent) == 2


def test_a_channel_that_is_known_to_be_down_is_tried_and_not_waited_for(far: Far) -> None:
    far.paging.lines["espa-1"].down = True
    far.send("12")
    assert far.sent == [("espa-1", "12"), ("webhook-1", "12")]


def test_when_nobody_called_can_be_reached_the_next_on_the_ladder_is_called(far: Far) -> None:
    far.paging.lines["espa-1"].down = True
    far.send("20")
    assert far.sent == [("espa-1", "20"), ("espa-1", "12"), ("webhook-1", "12")]


def test_a_page_that_was_taken_and_reached_nobody_goes_to_the_other_channel(far: Far) -> None:
    far.send("12")
    assert far.answer("espa-1") is True
    (_, page, tag) = far.pages[0]
    assert far.paging.on_failure("espa-1", Reply(page.page_id, page.incident, failure="absent"), now_s=5.0) is tag
    assert far.sent == [("espa-1", "12"), ("webhook-1", "12")]
    stray = Reply("no such page", "no such incident", failure="absent")
    assert far.paging.on_failure("espa-1", stray, now_s=5.0) is None


def test_drills_and_faults_do_not_push_ahead_of_a_fall(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    far.send("12")
    assert far.pages[0][1].urgency is Urgency.EMERGENCY
    for facts in (
        Incident(**{**{f: getattr(FACTS, f) for f in FACTS.__dataclass_fields__}, "drill": True}),
        Incident("b", "site-7", Kind.BLIND, FACTS.raised_at, cause="receiver not connected"),
    ):
        far.pages.clear()
        call = Call(facts.incident, 1, Words.ALARM, ("12",))
        far.paging.send(call, facts, "text", ladder=LADDER, now_s=0.0)
        (_, page, tag) = far.pages[0]
        assert page.urgency is Urgency.HIGH
        assert isinstance(tag, Sending)
        assert (page.kind, page.drill) == (facts.kind.value, facts.drill)


def test_a_doubted_call_is_sent_like_any_but_behind_the_others(far: Far) -> None:
    for words, doubted, urgency in (
        (Words.ALARM, True, Urgency.HIGH),
        (Words.AGAIN, True, Urgency.HIGH),
        (Words.DOWN, False, Urgency.EMERGENCY),
    ):
        far.sent.clear()
        far.pages.clear()
        call = Call(FACTS.incident, 1, words, ("12", "99"), doubted=doubted)
        far.paging.send(call, FACTS, "text", ladder=LADDER, now_s=0.0)
        assert far.sent == [("espa-1", "12"), ("webhook-1", "manager")]
        assert {page.urgency for _, page, _ in far.pages} == {urgency}


# -- in a home ----------------------------------------------------------------------------------------


def test_the_loss_of_a_line_is_told_on_the_other_within_a_minute_and_with_its_cause(tmp_path: Path) -> None:
    with Home(tmp_path, pager=TWO_LINES, calls=CALM) as home, Pager(tmp_path / "pager-2") as spare:
        pager = Pager(home.pager_link)
        home.start("alarm").ready()
        home.start("detect").ready()
        until(lambda: home.status()[1]["pager espa-1"]["well"])
        pager.station.stop()
        lost_s = time.monotonic()
        told = spare.wait("FAULT PAGER LINE ESPA-1 DOWN: ")
        assert told.at_s - lost_s < 3 + 1 + 3 * 3 + 5  # settings above, and three attempts
        with home.journal() as journal:
            fall(journal)
        assert spare.wait("FALL? RM 1 BED A").at_s - lost_s < 60
        entry = home.status()[1]["pager espa-1"]
        assert not entry["well"]


@pytest.mark.alone
def test_quiet_while_staff_care_for_somebody_ends_by_itself_and_a_button_breaks_through(tmp_path: Path) -> None:
    with Home(tmp_path, calls=CALM) as home, Pager(home.pager_link) as pager:
        home.start("alarm").ready()
        until((home.state / JOURNAL_FILE).exists)
        asked = home.ask("snooze", "--room", "1", "--minutes", "15", "--by", "anna")
        assert (asked.returncode, asked.stderr) == (0, "")
        with home.journal() as journal:
            quiet = fall(journal)
            other = fall(journal, room="2", resident="r2")
            pager.wait("FALL? RM 2 BED A")
            fall(journal, kind=Kind.HELP_BUTTON)
            pager.wait("HELP RM 1 BED A")
            assert "FALL? RM 1 BED A" not in " ".join(pager.texts())
            quiet_part = until(lambda: home.status()[1].get("quiet r1"))  # it says so once a second
            assert "falls are quiet for 14 min" in quiet_part["cause"]

            home.start("alarm").kill()  # what staff asked for outlives the service
            home.start("alarm").ready()
            time.sleep(1.5)
            assert "FALL? RM 1 BED A" not in " ".join(pager.texts())

            ended_s = time.monotonic()
            assert home.ask("snooze", "--room", "1", "--end", "--by", "ben").returncode == 0
            assert pager.wait("FALL? RM 1 BED A").at_s - ended_s < 5
            journal.acknowledge(quiet, "anna")
            assert journal.acknowledge(other, "ben") == "ben"


def test_a_drill_is_marked_timed_and_counts_as_no_fall(tmp_path: Path) -> None:
    with Home(tmp_path, calls=CALM) as home, Pager(home.pager_link) as pager:
        home.start("alarm").ready()
        until((home.state / JOURNAL_FILE).exists)
        result: list[str] = []
        asked = threading.Thread(
            target=lambda: result.append(
                home.ask("drill", "--resident", "r1", "--json", "--by", "installer").stdout
            )
        )
        asked.start()
        page = pager.wait("DRILL FALL? RM 1 BED A")
        case = home.case()
        assert case.facts.drill
        assert home.ask("ack", case.facts.incident, "--by", "night").returncode == 0
        asked.join(30)
        timed = json.loads(result[0])
        assert (timed["by"], timed["paged"][0]["accepted"], page.cancels) == ("night", True, False)
        assert 0 < timed["paged"][0]["after_s"] < timed["acknowledged_s"] < 20
        until(lambda: home.case().first("resolved"))
        closed = home.case().first("resolved")
        assert closed is not None
        assert closed.body["outcome"] == Outcome.DRILL
        until(lambda: any(entry.type == "Communication" for entry in home.entries()))
        assert not {"AdverseEvent", "Task"} & {entry.type for entry in home.entries()}


def test_a_drill_without_the_alarm_service_rehearses_nothing_and_says_so(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        with home.journal():
            pass
        refused = home.ask("drill", "--resident", "r1")
        assert refused.returncode == 1
        assert "the alarm service does not run" in refused.stderr


def test_a_page_is_acknowledged_from_the_pager_where_its_system_can_say_so(tmp_path: Path) -> None:
    pager_table = '[[pager]]\nport = "{folder}/pager"\nstatus_acknowledges = ["5"]\n'
    with Home(tmp_path, pager=pager_table, calls=CALM) as home, Pager(home.pager_link) as pager:
        home.start("alarm").ready()
        with home.journal() as journal:
            incident = fall(journal)
            pager.wait("FALL? RM 1 BED A")
            shown = pager.texts()[0]
            pager.station.tell([("1", "12"), ("2", shown), ("7", "5")])
            until(lambda: home.case().first("acknowledged"))
            answer = home.case().first("acknowledged")
            assert answer is not None
            assert (answer.incident, answer.body["by"]) == (incident, "pager 12")


def test_each_channel_gets_its_test_page_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = '[[pager]]\nurl = "tcp://127.0.0.1:1"\ntest_at = "10:30"\n[escalation]\ngroups = ["12"]\n'
    (tmp_path / "state").mkdir()
    service = AlarmService(settings_of(tmp_path, table), tmp_path / "state", tmp_path / "run")
    sent: list[str] = []
    monkeypatch.setattr(service._paging, "test", lambda name, _local: sent.append(name))
    service._journal = Journal(tmp_path / "state" / "journal.db")
    local = datetime(2026, 11, 22, tzinfo=UTC)
    monkeypatch.setattr(service, "_local_time", lambda: local)
    monkeypatch.setattr(journal_module, "utc_now", lambda: local)
    for day in (22, 23, 24):
        for minute in range(0, 1440, 7):
            local = datetime(2026, 11, day, minute // 60, minute % 60, tzinfo=UTC)
            service._send_tests(60.0 * minute)
        assert len(sent) == day - 21
    monkeypatch.setattr(service, "_local_time", lambda: None)  # the clock is lost: once in 24 hours
    begun_s = monotonic_s() + 100_000
    for minute in range(2 * 1440):
        service._send_tests(begun_s + 60.0 * minute)
    assert len(sent) in {5, 6}
    service._journal.close()
