from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import queue
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

import pytest

from edge.core.incident import Kind
from edge.detect.service import DetectService
from edge.journal import JOURNAL_FILE, Case
from edge.settings import load_settings
from firmware_bridge.session import WearableCounters, WearableSession
from firmware_bridge.virtual import VirtualDongle
from tests.edge.brokers import MOSQUITTO, Broker, Heard, Listener, amqtt, free_port, mosquitto
from tests.edge.home import DATA, FALL, FALL_IMPACT_S, WALK, Home, Pager, until

ALARM = "FALL? RM 1 BED A"
CALM = '[escalation]\ngroups = ["12"]\nsteps_s = [600]\nrepeat_every_s = 600\n'
# The contract's example, each key with the types it may have.
DOCUMENT: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "incident": (str,),
    "home": (str,),
    "kind": (str,),
    "state": (str,),
    "resident": (str,),
    "room": (str,),
    "placement": (str,),
    "impact_at": (str,),
    "raised_at": (str,),
    "clock_ok": (bool,),
    "probability": (float,),
    "on_floor_s": (int,),
    "moving": (bool, NoneType),
    "paged": (list,),
    "acknowledged": (dict, NoneType),
    "resolved": (dict, NoneType),
    "model": (str,),
    "drill": (bool,),
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker") if MOSQUITTO else amqtt() as broker:
        yield broker


def mqtt_table(broker: Broker) -> str:
    return f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'


# -- the main job -------------------------------------------------------------------------------


def test_a_recorded_fall_goes_from_the_wearable_to_pager_broker_and_record(tmp_path: Path, broker: Broker) -> None:
    incidents = "fallwatch/site-7/incident"
    with (
        Home(tmp_path, more=mqtt_table(broker), shipped=True) as home,
        Pager(home.pager_link) as pager,
        Listener(broker.port, f"{incidents}/+") as live,
    ):
        home.start("run")
        until(lambda: home.told("detect"))
        data = [f"{DATA / FALL},wearable=0001", f"{DATA / WALK},wearable=0002,loop"]
        home.start("simulate", "--port", str(home.dongle_link), "--play", data[0], "--play", data[1])

        first = pager.wait(ALARM, to="12")
        case = home.case()
        incident, raised = case.facts.incident, case.first("raised")
        assert raised is not None
        assert raised.mono_s < first.at_s  # on disk before anybody is told
        assert pager.pages[0] == first

        second = pager.wait(ALARM, to="20")
        third = pager.wait(ALARM, to="0")
        assert 1.5 <= second.at_s - raised.mono_s < 1.5 + 3.0
        assert 3.0 <= third.at_s - raised.mono_s < 3.0 + 4.0
        pager.wait(ALARM, to="0", after_s=third.at_s + 0.1)  # it repeats
        assert {page.to for page in pager.pages[:2]} == {"12"}  # before it widened

        document = retained(broker, incident)
        assert {key: kinds for key, kinds in DOCUMENT.items() if type(document.get(key)) not in kinds} == {}
        assert (document["schema"], document["incident"], document["home"]) == (1, incident, "site-7")
        assert (document["kind"], document["state"], document["drill"]) == ("fall", "paged", False)
        assert (document["resident"], document["room"], document["placement"]) == ("r1", "1", "wrist")
        assert 0 < document["probability"] <= 1
        assert document["impact_at"] < document["raised_at"]
        assert {*document["paged"][0]} >= {"channel", "at", "accepted"}
        assert document["paged"][0]["channel"] == "espa-1"
        with Listener(broker.port, "fallwatch/site-7/status") as late:
            assert late.hear() == Heard("fallwatch/site-7/status", b"online", retained=True)

        live.say(f"{incidents}/{incident}/set", json.dumps({"by": "anna", "state": "acknowledged"}))
        until(lambda: home.case().first("acknowledged"))
        time.sleep(1.0)  # what was on its way to the transmitter
        pages = len(pager.pages)
        time.sleep(2.5)  # the next round would have come in 2 s
        assert pager.texts()[pages:] == []
        assert "anna had acknowledged" in home.ask("ack", incident, "--by", "ben").stdout

        closed = home.ask("resolve", incident[:18], "--outcome", "fall", "--by", "anna")
        assert (closed.returncode, closed.stderr) == (0, "")
        states = [json.loads(heard.payload)["state"] for heard in live.hear_until(is_cleared)[:-1]]
        assert list(dict.fromkeys(states)) == ["raised", "paged", "acknowledged", "resolved"]
        with Listener(broker.port, f"{incidents}/+") as late:
            assert late.hear_nothing_for(0.5)
        assert home.ask("resolve", incident, "--outcome", "fall").returncode == 1
        assert home.ask("ack", "0000").returncode == 1

        until(lambda: any(e.type == "AdverseEvent" for e in home.entries()))
        shown = [json.loads(line) for line in home.ask("record", "show", "--json").stdout.splitlines()]
        counts = Counter(entry["type"] for entry in shown if entry["incident"] == incident)
        assert {kind: counts[kind] for kind in ("Observation", "Task", "AdverseEvent")} == {
            "Observation": 1,
            "Task": 1,
            "AdverseEvent": 1,
        }
        assert counts["Communication"] == sum(event.kind == "paged" for event in home.case().events)
        assert {entry["status"] for entry in shown if entry["type"] == "Observation"} == {"final"}


def is_cleared(heard: Heard) -> bool:
    return not heard.payload


def retained(broker: Broker, incident: str) -> dict[str, Any]:
    topic = f"fallwatch/site-7/incident/{incident}"
    with Listener(broker.port, topic) as late:
        heard = late.hear()
    assert (heard.topic, heard.retained) == (topic, True)
    document: dict[str, Any] = json.loads(heard.payload)
    return document


@pytest.mark.skipif(
    importlib.util.find_spec("digimat") is None, reason="digimat-espa is not installed: it builds only by hand"
)
def test_the_same_with_a_pager_system_and_a_fhir_server_of_others(tmp_path: Path) -> None:
    with fhir_server(tmp_path) as server, independent_station() as (port, pages):
        record = f'[record]\nkind = "fhir-r4"\nbase_url = "{server}"\nauth = "bearer"\ntoken_file = "token"\n'
        pager = f'[[pager]]\nport = "{port}"\n'
        with Home(tmp_path, pager=pager, more=record) as home:
            (tmp_path / "secrets" / "token").write_text("edge-token\n")
            home.start("alarm").ready()
            home.start("detect").ready()
            with home.wear([home.wearable(1, FALL)], speed=3.0):
                # Records 1 and 2 of ESPA's block: whom to call, and the text.
                first = pages.get(timeout=40)
                assert (first["1"], first["2"].strip()) == ("12", ALARM)
                incident = home.case().facts.incident
                called = home.ask("ack", incident, "--by", "ben")
                assert (called.returncode, called.stderr) == (0, "")
                assert home.ask("resolve", incident, "--outcome", "fall", "--by", "ben").returncode == 0

            def told() -> dict[str, list[dict[str, Any]]]:
                kinds = ("Observation", "Task", "AdverseEvent", "CommunicationRequest")
                return {kind: ask_fhir(server, f"{kind}?_count=100") for kind in kinds}

            until(lambda: told()["AdverseEvent"])
            until(lambda: told()["Observation"][0]["status"] == "final")
            assert {kind: len(found) for kind, found in told().items()} == {
                "Observation": 1,
                "Task": 1,
                "AdverseEvent": 1,
                "CommunicationRequest": 1,
            }
            case = home.case()
            paged = [event for event in case.events if event.kind == "paged"]
            until(lambda: len(ask_fhir(server, "Communication?_count=100")) == len(paged))
            with home.journal() as journal:
                assert journal.parked("record") == []


@contextlib.contextmanager
def fhir_server(folder: Path) -> Iterator[str]:
    port, base = free_port(), folder / "fhir"
    base.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("fhir_server.py")), str(base), str(port)]
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/fhir"

    def answers() -> bool:
        assert process.poll() is None, (base / "log").read_text()
        with contextlib.suppress(OSError):
            ask_fhir(url, "Patient")
            return True
        return False

    try:
        until(answers, 60)
        yield url
    finally:
        process.kill()
        process.wait()


def ask_fhir(url: str, path: str) -> list[dict[str, Any]]:
    host = url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        connection.request("GET", f"/fhir/{path}", headers={"Authorization": "Bearer edge-token"})
        answer = connection.getresponse()
        bundle = json.loads(answer.read())
        assert answer.status == 200, bundle
        return [entry["resource"] for entry in bundle.get("entry", [])]
    finally:
        connection.close()


@contextlib.contextmanager
def independent_station() -> Iterator[tuple[str, queue.SimpleQueue[dict[str, str]]]]:
    """digimat-espa's station: its port, and the pages it takes."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("espa_station.py"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    pages: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    lines = process.stdout

    def read() -> None:
        for line in lines:
            pages.put(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield port, pages
    finally:
        process.kill()
        process.wait()
        reader.join()
        lines.close()


# -- the system never looks well while blind ----------------------------------------------------


def test_a_dead_detect_is_told_to_staff_within_seconds_and_withdrawn_when_it_is_back(tmp_path: Path) -> None:
    with Home(tmp_path) as home, Pager(home.pager_link) as pager:
        home.start("alarm").ready()
        detect = home.start("detect").ready()
        with home.wear([home.wearable(1, loop=True), home.wearable(2, loop=True)]):
            until(lambda: home.told("alarm"))
            detect.kill()
            died_s = time.monotonic()
            told = pager.wait("NO COVER FALL DETECTION STOPPED", timeout_s=15)
            assert told.at_s - died_s < 10.0
            code, parts = home.status()
            assert (code, parts["service detect"]["well"]) == (1, False)
            assert parts["wearable 0001"]["cause"] == "fall detection stopped"

            home.start("detect").ready()
            withdrawn = pager.wait("CANCELLED NO COVER", after_s=told.at_s)
            assert withdrawn.cancels or withdrawn.text == "CANCELLED NO COVER"
            until(lambda: home.case(Kind.BLIND).first("resolved"))
            time.sleep(1.5)  # each group that was called hears of it, one after the other
            pages = len(pager.pages)
            time.sleep(2.5)  # it would repeat after 2 s
            assert pager.texts()[pages:] == []
            assert [case.facts.cause for case in home.cases()] == ["fall detection stopped"]


def test_status_says_who_is_blind_and_why(tmp_path: Path) -> None:
    with Home(tmp_path, silence_s=2.0) as home, Pager(home.pager_link):
        code, parts = home.status()
        assert code == 1
        assert {part["well"] for part in parts.values()} == {False}
        assert parts["service detect"]["cause"] == parts["service alarm"]["cause"] == "not running"
        assert parts["wearable 0001"]["cause"] == "fall detection stopped"
        assert parts["pager espa-1"]["cause"] == "alarm service stopped"

        home.start("alarm").ready()
        home.start("detect").ready()
        silent = home.wearable(2, silent_from_s=7.0)
        with home.wear([home.wearable(1, loop=True), silent]):
            until(lambda: home.status()[0] == 0, hint=str(home.status()))
            code, parts = home.status()
            assert code == 0
            assert {name: part["cause"] for name, part in parts.items() if not part["well"]} == {}
            assert {"receiver dongle", "wearable 0002", "pager espa-1", "record record"} <= {*parts}
            assert "All is well." in home.ask("status").stdout

            until(lambda: not home.told_of("0002")["well"])
            code, parts = home.status()
            blind = {name: part["cause"] for name, part in parts.items() if not part["well"]}
            assert (code, blind) == (1, {"wearable 0002": "wearable silent"})
            shown = home.ask("status")
            assert shown.returncode == 1
            assert "BLIND" in shown.stdout

        until(lambda: not home.told_of("0001")["well"])
        code, parts = home.status()
        assert (code, parts["receiver dongle"]["well"]) == (1, False)
        assert parts["receiver dongle"]["cause"]


def test_a_pager_line_that_is_down_stays_told_when_detect_starts(tmp_path: Path) -> None:
    dead = f'[[pager]]\nport = "{tmp_path}/nothing"\ncheck_every_s = 1\ndown_after_s = 1\n'
    with Home(tmp_path, pager=dead) as home:
        home.start("alarm").ready()
        assert (home.case(Kind.BLIND).facts.cause or "").startswith("pager line espa-1 down: ")
        home.start("detect").ready()
        with home.wear([home.wearable(1), home.wearable(2)]):
            until(lambda: home.receiver()["well"])
            time.sleep(1.5)  # it looks once a second at what it may withdraw
        assert home.case(Kind.BLIND).first("resolved") is None


def test_news_of_an_incident_that_was_lost_with_an_older_journal_holds_nothing_up(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        service = DetectService(load_settings(home.config), home.state, home.run)
        service._note("lost", "motion", motion="moving")
        service._commit(Kind.BLIND, None, cause="receiver not connected")
        assert [case.facts.kind for case in home.cases()] == [Kind.BLIND]
        assert service._journal is not None
        service._journal.close()


def test_a_program_that_hangs_while_it_writes_the_journal_holds_no_page_up(tmp_path: Path) -> None:
    with Home(tmp_path) as home, Pager(home.pager_link) as pager:
        home.start("alarm").ready()
        home.start("detect").ready()
        with contextlib.closing(sqlite3.connect(home.state / JOURNAL_FILE, isolation_level=None)) as hanging:
            hanging.execute("BEGIN IMMEDIATE")
            with home.wear([home.wearable(1, FALL)], speed=2.0):
                begun_s = time.monotonic()
                page = pager.wait(ALARM)
            assert page.at_s - begun_s - FALL_IMPACT_S / 2 < 10.0
            hanging.execute("ROLLBACK")
        assert home.case().facts.room == "1"


# -- the supervisor -----------------------------------------------------------------------------


def test_the_supervisor_starts_again_what_dies_in_time_for_a_fall_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with Home(tmp_path, calls=CALM) as home, Pager(home.pager_link) as pager:
        supervisor = home.start("run")
        until(lambda: home.told("detect") and home.told("alarm"))
        with home.wear([home.wearable(1, FALL)]):
            time.sleep(FALL_IMPACT_S - 3.0)
            detect = next(pid for pid, command in supervisor.children().items() if "detect" in command)
            os.kill(detect, signal.SIGKILL)
            pager.wait(ALARM)
        assert supervisor.process.poll() is None

        children = supervisor.children()
        assert len(children) == 2
        supervisor.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


# -- bad input at the rim -----------------------------------------------------------------------


class Line:
    """A pty with nothing behind it: says whatever a test wants said."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        self.name = os.ttyname(self._far)
        new = link.with_name("new-link")
        new.symlink_to(self.name)
        new.replace(link)

    def say(self, data: bytes) -> None:
        for at in range(0, len(data), 512):
            os.write(self._near, data[at : at + 512])

    def unplug(self) -> None:
        os.close(self._near)
        os.close(self._far)
        if os.readlink(self._link) == self.name:
            self._link.unlink()


def test_noise_forgeries_strangers_and_loose_plugs_are_counted_and_survived(tmp_path: Path) -> None:
    rng = random.Random(4)
    forger = WearableSession("0002", b"\x55" * 16, WearableCounters(), save=lambda _: None)
    stranger = WearableSession("9999", b"\x66" * 16, WearableCounters(), save=lambda _: None)
    with Home(tmp_path) as home:
        detect = home.start("detect").ready()
        until(lambda: home.receiver()["cause"] == "No such file or directory")  # the port is not there yet
        good = home.wearable(1, loop=True)
        others = [home.wearable(session, loop=True) for session in (forger, stranger)]
        dongle = VirtualDongle([good, *others])

        line = Line(home.dongle_link)
        played = play(dongle, 2.5, lambda frames: line.say(rng.randbytes(rng.randint(1, 200)) + b"\0" + frames))
        until(lambda: home.receiver()["well"])
        until(lambda: home.told_of("0001")["samples"] > 0)

        played = play(dongle, played + 2.5, lambda frames: line.say(torn(frames)))
        until(lambda: home.receiver()["bad_frames"] > 5)
        until(lambda: home.told_of("0002")["forged"] > 3)
        told = home.told("detect")
        assert told is not None
        assert told["radio"]["unknown_wearable"] > 3
        _, parts = home.status()
        assert parts["service detect"]["unknown_wearable"] > 3
        assert parts["wearable 0002"]["forged"] > 3
        assert parts["wearable 0002"]["cause"] == "wearable has another key"
        assert parts["receiver dongle"]["bad_frames"] > 5

        line.unplug()
        until(lambda: not home.receiver()["well"])
        samples = home.told_of("0001")["samples"]
        line = Line(home.dongle_link)
        played = play(dongle, played + 3.0, line.say)
        until(lambda: home.receiver()["well"])
        until(lambda: home.told_of("0001")["samples"] > samples)

        # The name moves to another device while the old one is still there, and silent.
        old, line = line, Line(home.dongle_link)
        samples = home.told_of("0001")["samples"]
        play(dongle, played + 3.0, line.say)
        until(lambda: home.told_of("0001")["samples"] > samples)
        old.unplug()
        line.unplug()

        assert detect.process.poll() is None
        ready = next(i for i, text in enumerate(detect.lines()) if "detect is ready" in text)
        took_s = time.monotonic() - detect.started_s
        assert len(detect.lines()[ready + 1 :]) <= 1 + took_s / 10, detect.tail()


def torn(frames: bytes) -> bytes:
    """Cut every third frame short, so that it runs into the next."""
    pieces = frames.split(b"\0")
    return b"".join(piece[: len(piece) // 2] if i % 3 == 2 else piece + b"\0" for i, piece in enumerate(pieces))


def play(dongle: VirtualDongle, until_s: float, say: Callable[[bytes], None]) -> float:
    """Say what a dongle says up to ``until_s`` of its time, in real time; return that time."""
    begun_s, from_s = time.monotonic(), dongle.now_s
    while dongle.now_s < until_s:
        time.sleep(0.05)
        if frames := dongle.frames_until(min(from_s + time.monotonic() - begun_s, until_s)):
            say(frames)
    return until_s


@pytest.mark.parametrize("command", ["run", "detect", "alarm", "status", "simulate"])
def test_no_command_works_without_settings(tmp_path: Path, command: str) -> None:
    more = ["--port", str(tmp_path / "dongle"), "--play", str(DATA / FALL)] if command == "simulate" else []
    home = Home(tmp_path)
    home.config.unlink()
    result = home.ask(command, *more)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"fallwatch: {home.config}: there is no such file; write it, or name another with --config\n"
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_text(path.read_text() + "\n[home2]\n"), "home2: unknown key; known here: home, "),
        (
            lambda path: path.write_text(path.read_text().replace('room = "1"', "room = 1")),
            "resident[1].room: 1 is wrong; use text in quotes",
        ),
        (lambda path: path.write_text("[home\n"), "is no TOML"),
    ],
)
def test_settings_that_cannot_be_used_end_with_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    home = Home(tmp_path)
    spoil(home.config)
    result = home.ask("run")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert f"{home.config}: {said}" in result.stderr


# -- a disk that is full ------------------------------------------------------------------------


class Disk(Protocol):
    def refuse(self) -> None: ...
    def give(self) -> None: ...


class FullFolder:
    """The state folder on a small disk of its own, filled to the last byte."""

    def __init__(self, home: Home) -> None:
        self._filler = home.state / "filler"

    def refuse(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def give(self) -> None:
        self._filler.unlink()


class ShortFiles:
    """No file may grow beyond what the journal already has: what a quota does, and needs no root."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def _limit(self, octets: int) -> None:
        for pid in self._pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (octets, resource.RLIM_INFINITY))

    def refuse(self) -> None:
        self._limit(32768)

    def give(self) -> None:
        self._limit(resource.RLIM_INFINITY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A home's folder whose state folder is a disk of 16 MiB, or nothing where we may not mount one."""
    folder = tmp_path / "home"
    (folder / "state").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16M", "none", str(folder / "state")]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", str(folder / "state")], check=True)


def test_a_full_disk_stops_no_page_and_what_happened_is_written_later(
    tmp_path: Path, small_disk: Path | None, broker: Broker
) -> None:
    with Home(small_disk or tmp_path, more=mqtt_table(broker)) as home, Pager(home.pager_link) as pager:
        services = [home.start("alarm").ready(), home.start("detect").ready()]
        until(lambda: home.status()[1]["record record"]["well"])
        disk = FullFolder(home) if small_disk else ShortFiles([service.pid for service in services])
        without_disk(home, pager, broker, disk)


@contextlib.contextmanager
def log_in_use(home: Home) -> Iterator[Callable[[], None]]:
    """Use up the room that the journal's log has, and read it, so that it cannot begin anew there."""
    log = home.state / f"{JOURNAL_FILE}-wal"
    size = log.stat().st_size
    with home.journal() as journal:
        while log.stat().st_size == size:
            journal.add_note("tested", channel="none")
    reader = sqlite3.connect(home.state / JOURNAL_FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM note").fetchone()
    try:
        yield reader.close
    finally:
        reader.close()


def without_disk(home: Home, pager: Pager, broker: Broker, disk: Disk) -> None:
    with home.wear([home.wearable(1, FALL), home.wearable(2, loop=True)]), log_in_use(home) as let_go:
        begun_s = time.monotonic()
        disk.refuse()
        page = pager.wait(ALARM, timeout_s=40)
        assert page.at_s - begun_s - FALL_IMPACT_S < 10.0
        assert home.cases() == []
        assert home.told("detect")["unwritten"]  # type: ignore[index]  # it speaks
        for _ in range(4):  # steadily: what flickers is overlooked
            time.sleep(0.5)
            code, parts = home.status()
            assert (code, parts["journal journal"]["well"]) == (1, False)
            assert parts["journal journal"]["cause"]
        pager.wait(ALARM, to="0")  # it widens as ever
        pager.wait("NO COVER INCIDENT STORE CANNOT BE WRITTEN", timeout_s=30)
        incident = home.told("detect")["unwritten"][0]["incident"]["incident"]  # type: ignore[index]
        with Listener(broker.port) as staff:
            staff.say(f"fallwatch/site-7/incident/{incident}/set", json.dumps({"by": "anna"}))
        time.sleep(1.0)
        pages = len([text for text in pager.texts() if text.startswith(ALARM)])
        time.sleep(2.5)
        assert len([text for text in pager.texts() if text.startswith(ALARM)]) == pages
        full_s = time.monotonic() - begun_s

        disk.give()
        let_go()
        case: Case = until(lambda: next((c for c in home.cases() if c.first("acknowledged")), None))
        assert case.facts.incident == incident
        assert case.first("paged") is not None
        until(lambda: home.status()[0] == 0, hint=str(home.status()))
        assert home.ask("resolve", incident, "--outcome", "fall", "--by", "anna").returncode == 0
        until(lambda: any(e.type == "AdverseEvent" for e in home.entries()))
        counts = Counter(e.type for e in home.entries() if e.incident == incident)
        assert (counts["Observation"], counts["Task"], counts["AdverseEvent"]) == (1, 1, 1)
        until(lambda: all(case.first("resolved") for case in home.cases()))
        assert [c.facts.kind for c in home.cases() if c.facts.kind is not Kind.BLIND] == [Kind.FALL]
        for service in ("alarm", "detect"):
            text = (home.folder / f"{service}.log").read_text().splitlines()
            assert len(text) <= 8 + full_s / 10 * 2, "\n".join(text)


# -- size and speed -----------------------------------------------------------------------------


def test_both_services_are_small_and_soon_ready(tmp_path: Path) -> None:
    with Home(tmp_path, wearables=6, calls=CALM) as home, Pager(home.pager_link):
        alarm = home.start("alarm").ready()
        detect = home.start("detect").ready()
        with home.wear([home.wearable(number, loop=True) for number in range(1, 7)]):
            time.sleep(max(0.0, detect.started_s + 10 - time.monotonic()))
            assert {w["well"] for w in home.told("detect")["wearables"].values()} == {True}  # type: ignore[index]
            sizes = {"alarm": alarm.rss_mib(), "detect": detect.rss_mib()}
        starts = {"alarm": alarm.ready_s(), "detect": detect.ready_s()}
        sys.stdout.write(f"RSS in MiB {sizes}, ready in s {starts}\n")
        assert sizes["alarm"] <= 60
        assert sizes["detect"] <= 130
        assert max(starts.values()) <= 10  # type: ignore[type-var,operator]  # both spoke


def test_the_alarm_service_knows_nothing_of_numpy_or_onnxruntime() -> None:
    script = "import sys, edge.cli.services, edge.alarm.service; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "edge.alarm.service" in loaded
    assert {"numpy", "onnxruntime", "models.scorer", "edge.detect.service"} & {*loaded} == set()
