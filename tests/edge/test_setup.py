"""The guided set-up: what it asks, what it writes, and what is left of it when it is killed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge.checked import build
from edge.cli.edit import write_settings
from edge.cli.setup import pair_all
from edge.directory import NoDirectory, parse_ward
from edge.doctor.finding import Finding, fault
from edge.settings import Settings, load_settings
from edge.setup import machine
from edge.setup.comments import COMMENTS
from edge.setup.guide import Deeds, Guide
from edge.setup.progress import FILE, Progress, checked_answers, example_answers, keep_progress, load_progress
from edge.setup.questions import BY_KEY, QUESTIONS, BadAnswer, Found, implied, next_question, usable
from edge.setup.written import answers_of, settings_text
from edge.sinks.record import FhirRecord
from firmware_bridge.virtual import DonglePty, VirtualDongle
from tests.edge.brokers import amqtt
from tests.edge.in_process import run_here
from tests.edge.test_cli import SETTINGS

FALLWATCH = [sys.executable, "-m", "edge.cli"]
ROOT = Path(__file__).resolve().parent.parent.parent
SECRETS = Path("/etc/fallwatch/secrets")
NHS_NUMBER = "9434765919"
LEAST: dict[str, Any] = {
    "home_id": "site-7",
    "receivers": ["/dev/ttyACM0"],
    "groups": ["12", "0"],
    "pagers": [{"kind": "espa444", "port": "/dev/ttyUSB1"}],
    "residents": [{"id": "r12", "room": "12"}],
}
FLAGS = ["--home-id", "site-7", "--receiver", "none", "--group", "12", "--pager"]
FLAGS += ["kind=espa444,port=/nowhere/pager", "--resident", "room=12", "--wearable", "resident=r12,wearable=0042"]


class Script:
    """Somebody before a terminal who says what is written here, and then walks away."""

    def __init__(self, *words: Any) -> None:
        self.words = list(words)
        self.said: list[str] = []

    def _next(self) -> Any:
        if not self.words:
            raise KeyboardInterrupt
        return self.words.pop(0)

    def say(self, text: str = "") -> None:
        self.said.append(text)

    def text(self, ask: str, suggested: str = "", *, hidden: bool = False) -> str:
        return str(self._next() or suggested)

    def yes(self, ask: str, *, suggested: bool) -> bool:
        return bool(self._next())

    def choose(self, ask: str, options: Sequence[str], suggested: str) -> str:
        wanted = self._next() or suggested
        return next(option for option in options if option.split(":")[0] == wanted)

    def pick(self, ask: str, options: Sequence[str], suggested: Sequence[str]) -> list[str]:
        return list(self._next())


def guide(
    asker: Script | None = None,
    given: Mapping[str, Any] = LEAST,
    found: Found = Found(),  # noqa: B008 - it is frozen
    *,
    before: str = "",
    tried: Callable[[str, Settings, Mapping[str, Any]], Sequence[Finding]] = lambda *_: (),
    **more: Any,
) -> Guide:
    deeds = Deeds(
        try_part=tried,
        keep_secret=lambda question, _value, _typed: str(SECRETS / question.key),
        read_list=lambda *_: (
            [{"id": "r99", "room": "99"}],
            [fault("residents line 3", "room: is missing", "correct it")],
        ),
        keep=more.pop("keep", lambda _progress: None),
        tell=lambda _finding: None,
    )
    config = SECRETS.parent / "fallwatch.toml"
    return Guide(
        asker=asker,
        found=found,
        given=implied(given),
        before=before,
        config=config,
        deeds=deeds,
        clock=float,
        **more,
    )


def loaded(text: str) -> Settings:
    settings = build(Settings, tomllib.loads(text), SECRETS.parent / "fallwatch.toml", "")
    return dataclasses.replace(settings, path=SECRETS.parent / "fallwatch.toml")


# -- the plan ------------------------------------------------------------------------------------


def test_a_set_up_replays_from_its_answers_without_a_terminal() -> None:
    first = guide(Script("Rosewood House", "", "", [], "9 12", "", "tap", "/dev/ttyS0", "", "", False, True))
    first.given = {"record": "embedded", "residents": LEAST["residents"], "cover": "must", "wearables": []}
    first.given |= {"residents_from": "typed", "broker": "none"}
    text = first.run()
    assert loaded(text).pager[0].kind == "tap"
    assert loaded(text).home.id == "rosewood-house"
    assert guide(given=first.answers).run() == text
    assert first.progress.asked == 12


def test_every_question_is_asked_only_once_and_ends() -> None:
    found = Found(adapters=("hci0",), cameras=({"kind": "orbbec", "device": "A"},), may_start=True)
    answers: dict[str, Any] = {}
    while question := next_question(answers, found):
        answers[question.key] = usable(question, question.example)
    skipped = {"residents_file", "residents_ward", "record_client_id", "record_key_file", "broker_ca_file"}
    assert set(BY_KEY) - set(answers) == skipped


def test_where_nobody_can_be_asked_what_is_missing_is_named_by_flag_and_key() -> None:
    for key in LEAST:
        least = {k: v for k, v in LEAST.items() if k != key}
        asked = BY_KEY["residents_from" if key == "residents" else key]
        with pytest.raises(BadAnswer, match=f"Give {asked.flag}, or {asked.key} in --answers"):
            guide(given=least).run()
    least = {k: v for k, v in LEAST.items() if k != "receivers"}
    found = Found(receivers=("/dev/found",))
    assert loaded(guide(given=least, found=found, yes=True).run()).dongle[0].port == "/dev/found"


def test_an_answer_that_does_not_go_with_the_others_is_refused_at_once_and_asked_again() -> None:
    clash = {**LEAST, "wearables": [{"resident": "r13", "wearable": "0042"}]}
    with pytest.raises(BadAnswer, match=r"wearables \(--wearable\)"):
        guide(given=clash).run()
    asker = Script("site 7", "site-7")
    assert (
        loaded(guide(asker, {k: v for k, v in LEAST.items() if k != "home_id"} | REST).run()).home.id == "site-7"
    )
    assert any("use letters, digits" in line for line in asker.said)


REST = {"home_name": "", "timezone": "Europe/London", "steps_s": [60], "test_page": False, "record": "embedded"}
REST |= {"cover": "must", "wearables": [], "broker": "none"}


@pytest.mark.parametrize(
    ("words", "ports", "open_"),
    [
        (["again", "again", "on"], ["/dev/ttyACM0"], 1),
        (["change", ["/dev/ttyACM1"]], ["/dev/ttyACM1"], 0),
        (["out"], [], 1),
        (None, ["/dev/ttyACM0"], 1),
    ],
)
def test_a_part_at_fault_is_tried_again_changed_left_out_or_gone_past(
    words: list[Any] | None, ports: list[str], open_: int
) -> None:
    def tried(part: str, settings: Settings, _answers: Mapping[str, Any]) -> list[Finding]:
        broken = part == "receivers" and [d.port for d in settings.dongle] == ["/dev/ttyACM0"]
        return [fault("receiver /dev/ttyACM0", "says nothing", "plug it in")] if broken else []

    one = guide(None if words is None else Script(*words), LEAST | REST, tried=tried)
    assert [dongle.port for dongle in loaded(one.run()).dongle] == ports
    assert len(one.doubts) == open_


def test_a_list_of_residents_is_taken_and_its_bad_lines_stay_open() -> None:
    one = guide(given={k: v for k, v in LEAST.items() if k != "residents"} | {"residents_file": "list.csv"})
    settings = loaded(one.run())
    assert [(r.id, r.cover) for r in settings.resident] == [("r99", "must")]
    assert [finding.part for finding in one.doubts] == ["residents line 3"]


def test_a_wearable_is_asked_for_those_who_are_to_have_one_and_have_none() -> None:
    residents = [{"id": "r1", "room": "1"}, {"id": "r2", "room": "2", "wearable": "0002"}]
    residents += [{"id": "r3", "room": "3", "cover": "none"}]
    known = ({"id": "r0", "room": "0", "wearable": "", "cover": "must"},)
    seeds = BY_KEY["wearables"].seeds
    assert seeds is not None
    wanted = seeds({"residents": residents, "cover": "must"}, Found(residents=known))
    assert [row["resident"] for row in wanted] == ["r0", "r1"]
    assert [row["resident"] for row in seeds({"residents": residents, "cover": "none"}, Found())] == []


# -- answers from elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hoem_id", "x", "hoem_id: unknown key; known here: home_name, home_id"),
        ("home_id", 7, "home_id (--home-id): 7 is wrong; use text in quotes"),
        ("record", "paper", "'paper' is not known; use one of embedded, fhir-r4"),
        ("pagers", [{"kind": "flag"}], "kind 'flag' is not known"),
        ("pagers", ["kind=espa444,port=/dev/x,baud=fast"], "invalid literal"),
        ("pagers", ["kind=espa444,port=/dev/x,speed=9600"], "speed: unknown key"),
        ("residents", [f"room=12,nhs_number={NHS_NUMBER}"], "nhs_number: not on a command line"),
        ("residents", [{"id": "r1"}], "room: is missing"),
        ("steps_s", ["soon"], "could not convert"),
        ("broker", "localhost", "use host:port"),
        ("start", "perhaps", "use true or false"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(BadAnswer) as refused:
        checked_answers({key: value})
    assert said in str(refused.value)
    assert NHS_NUMBER not in str(refused.value)


def test_a_flag_gives_a_whole_line_of_a_list() -> None:
    line = "kind=sms,addresses.99=+447700900123,role=fallback"
    assert usable(BY_KEY["pagers"], [line]) == [
        {"kind": "sms", "addresses": {"99": "+447700900123"}, "role": "fallback"}
    ]
    assert usable(BY_KEY["pagers"], ["kind=tap,port=tcp://h:9,baud=1200"]) == [
        {"kind": "tap", "url": "tcp://h:9", "baud": 1200}
    ]
    assert usable(BY_KEY["residents"], ["room=12,bed=A"]) == [{"room": "12", "bed": "A", "id": "r12a"}]


def run_setup(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*FALLWATCH, "setup", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def places(folder: Path) -> list[object]:
    return ["--config", folder / "etc/fallwatch.toml", "--state", folder / "state", "--run", folder / "run"]


def test_the_example_answers_parse_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, example, __ = run_here(monkeypatch, capsys, "setup", "--example-answers")
    for name in ("token.txt", "broker-password.txt"):
        (tmp_path / name).write_text("hush")
    (tmp_path / "answers.toml").write_text(
        example.replace("/media/usb", str(tmp_path))
        .replace("https://record.example", "http://127.0.0.1:9")
        .replace("localhost:1883", "127.0.0.1:9")
    )
    monkeypatch.setattr("edge.doctor.checks.examine", lambda _home: iter(()))
    monkeypatch.setattr("edge.setup.machine.LISTEN_S", 0.1)
    monkeypatch.setattr("edge.setup.machine.CAMERA_S", 0.1)
    monkeypatch.setattr("edge.cli.setup.SETTLE_S", 0.0)
    monkeypatch.setattr("edge.cli.setup.STARTED_WITHIN_S", 0.0)
    monkeypatch.setattr("edge.setup.machine.systemctl", lambda *_: "")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    words = ["setup", "--answers", tmp_path / "answers.toml", "--json", *places(tmp_path)]
    status, out, _ = run_here(monkeypatch, capsys, *words)
    told = json.loads(out)
    assert (status, told["written"], told["asked"], told["paired"]) == (1, True, 0, ["0042"])
    assert {finding["part"].split()[0] for finding in told["doubts"]} >= {"receiver", "record", "broker"}
    settings = load_settings(tmp_path / "etc/fallwatch.toml")
    assert (settings.home.name, settings.record.token_file) == ("Rosewood House", "record-token")
    token = tmp_path / "etc/secrets/record-token"
    assert (token.read_text(), stat.S_IMODE(token.stat().st_mode)) == ("hush\n", 0o640)
    assert stat.S_IMODE(settings.path.stat().st_mode) == 0o640
    assert not (tmp_path / "state" / FILE).exists()
    status, out, _ = run_here(monkeypatch, capsys, *words)
    assert (json.loads(out)["written"], json.loads(out)["paired"]) == (False, [])


def test_a_dry_run_shows_the_settings_and_does_nothing(tmp_path: Path) -> None:
    done = run_setup(*FLAGS, "--dry-run", *places(tmp_path))
    assert done.returncode == 0, done.stderr
    assert loaded(done.stdout).resident[0].wearable == "0042"
    assert list(tmp_path.iterdir()) == []
    refused = run_setup(*FLAGS[2:], *places(tmp_path))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1].endswith("Give --home-id, or home_id in --answers")
    assert list(tmp_path.iterdir()) == []


# -- what is written -----------------------------------------------------------------------------

words = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789", min_size=1, max_size=8)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12).map(str.strip)
ids = st.lists(words, unique=True, max_size=4)
channels = st.fixed_dictionaries(
    {"kind": st.sampled_from(["espa444", "tap"]), "baud": st.sampled_from([1200, 9600])},
    optional={"format": st.sampled_from(["8N1", "7E2"]), "test_at": st.just("10:30"), "role": st.just("fallback")},
)


@st.composite
def all_answers(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.lists(st.text("0123456789", min_size=1, max_size=4), min_size=1, max_size=4, unique=True))
    residents = [
        {"id": id_, "room": draw(words), "placement": draw(st.sampled_from(["wrist", "waist"]))}
        for id_ in draw(ids)
    ]
    worn = draw(st.lists(words, unique=True, max_size=len(residents)))
    answers = {
        "home_name": draw(names),
        "home_id": draw(words),
        "timezone": draw(st.sampled_from(["Europe/London", "Europe/Berlin"])),
        "receivers": [f"/dev/{name}" for name in draw(ids)],
        "groups": groups,
        "steps_s": sorted(draw(st.sets(st.integers(1, 999).map(float), max_size=3))),
        "pagers": [{**line, "port": f"/dev/p{i}"} for i, line in enumerate(draw(st.lists(channels, max_size=3)))],
        "record": draw(st.sampled_from(["embedded", "fhir-r4"])),
        "residents": residents,
        "cover": draw(st.sampled_from(["must", "should", "none"])),
        "wearables": [{"resident": r["id"], "wearable": w} for r, w in zip(residents, worn, strict=False)],
        "broker": draw(st.sampled_from(["none", "broker:1883", "10.0.0.9:8883"])),
    }
    if answers["record"] == "fhir-r4":
        answers |= {"record_url": "https://r.example/fhir", "record_auth": "bearer"}
        answers |= {
            "record_token_file": str(SECRETS / "token"),
            "record_identifier_system": "https://h.example/id",
        }
    if answers["broker"] != "none":
        answers |= {"broker_tls": draw(st.sampled_from([True, False])), "broker_username": draw(words)}
        answers |= {"broker_password_file": str(SECRETS / "broker-password")}
    return answers


@examples(max_examples=60)
@given(all_answers(), all_answers())
def test_what_is_written_loads_gives_the_answers_back_and_is_changed_by_nothing_else(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    text = ""
    for answers in (first, second):
        text = settings_text(text, answers, SECRETS)
        settings = loaded(text)
        present = answers_of(settings)
        for key, value in answers.items():
            if key == "pagers":
                lines: dict[str, Any] = {
                    getattr(c, "port", ""): c for c in settings.pager
                }  # a new one may come last
                assert len(lines) == len(value)
                for line in value:
                    assert {name: getattr(lines[line["port"]], name) for name in line} == line
            elif key == "receivers":
                assert sorted(present[key]) == sorted(value)
            elif key not in {"residents", "cover", "wearables"}:
                assert present[key] == value, key
        residents = {resident.id: resident for resident in settings.resident}
        for row in answers["residents"]:
            assert (residents[row["id"]].room, residents[row["id"]].cover) == (row["room"], answers["cover"])
        for row in answers["wearables"]:
            assert row["wearable"] in residents[row["resident"]].wearables
        assert settings_text(text, present, SECRETS) == text


def test_a_persons_comments_stay_where_they_were_and_only_what_is_answered_changes() -> None:
    text = SETTINGS + "test_at = '10:30'  # before coffee\n\n# the end\n"
    answers: dict[str, Any] = {
        "home_name": "Rosewood House",
        "receivers": ["/dev/fallwatch-dongle", "/dev/second"],
    }
    answers |= {"residents": [{"id": "r14", "room": "14"}]}
    after = settings_text(text, answers, SECRETS)
    gone = [line for line in text.splitlines() if line not in after.splitlines()]
    assert gone == []
    new = [line for line in after.splitlines() if line not in text.splitlines()]
    assert new == [
        "# For people. It is not sent anywhere.",
        'name = "Rosewood House"',
        'port = "/dev/second"',
        'id = "r14"',
        'room = "14"',
    ]
    assert '# Do not mix these two up!\n[[resident]]\nid = "r12"' in after
    assert 'id = "site-7"  # as on the door\n' in after


def test_each_line_of_explanation_stands_on_the_settings_page() -> None:
    page = re.sub(r"[`\\]|\[([^]]*)\]\([^)]*\)", r"\1", (ROOT / "docs/settings.md").read_text(encoding="utf-8"))
    assert [key for key, comment in COMMENTS.items() if comment.rstrip(".") not in page] == []
    text = settings_text("", {q.key: usable(q, q.example) for q in QUESTIONS}, SECRETS)
    above = zip(text.splitlines(), text.splitlines()[1:], strict=False)
    bare = [line.split()[0] for comment, line in above if "=" in line and not comment.startswith("# ")]
    known = {"id", "room", "cover"}  # a second resident's
    assert set(bare) == known


def test_the_page_of_questions_is_complete() -> None:
    page = (ROOT / "docs/setup.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| ") and " | `--" in line]
    assert table == [f"| {q.ask} | `{q.flag}` | `{q.key}` |" for q in QUESTIONS]


# -- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("setup.secret-kept", False),
        ("settings.new-written", False),
        ("settings.old-kept", False),
        ("settings.replaced", True),
        ("setup.paired", True),
    ],
)
def test_killed_at_any_step_the_old_settings_or_the_new_are_there_whole(
    tmp_path: Path, place: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "etc/fallwatch.toml"
    config.parent.mkdir()
    config.write_text('[home]\nid = "site-7"  # as on the door\n')
    before = config.read_bytes()
    (tmp_path / "token").write_text("hush")
    more = ["--record", "fhir-r4", "--record-url", "http://127.0.0.1:9/fhir", "--record-auth", "bearer"]
    more += ["--record-token-file", str(tmp_path / "token")]
    whole = run_setup(*FLAGS, *more, "--dry-run", *places(tmp_path)).stdout
    assert load_settings(config).path.read_bytes() == before
    monkeypatch.setenv("FALLWATCH_FAILPOINTS", f"{place}=kill@1")
    assert run_setup(*FLAGS, *more, *places(tmp_path)).returncode == -signal.SIGKILL
    assert config.read_bytes() == (whole.encode() if written else before)
    assert load_settings(config).home.id == "site-7"
    assert "hush" not in config.read_text()


def test_killed_between_two_answers_it_has_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, left in (("setup.before-keeping", 3), ("setup.kept", 4)):
        code = (
            "import pathlib, sys; from edge.setup.progress import *\n"
            "for i in range(1, 9): keep_progress(pathlib.Path(sys.argv[1]), Progress({'home_id': f'h{i}'}))"
        )
        monkeypatch.setenv("FALLWATCH_FAILPOINTS", f"{place}=kill@4")
        subprocess.run([FALLWATCH[0], "-c", code, str(tmp_path)], timeout=30, check=False)
        assert load_progress(tmp_path).answers == {"home_id": f"h{left}"}
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_progress_that_cannot_be_used_is_none(tmp_path: Path) -> None:
    for text in ("", "[", "hoem = 1\n[so_far]\ntried = []\nasked = 1\nspent_s = 1.0", "[so_far]\ntried = 3"):
        (tmp_path / FILE).write_text(text)
        assert load_progress(tmp_path) == Progress()
    progress = Progress(
        {"cameras": usable(BY_KEY["cameras"], BY_KEY["cameras"].example)}, ["home"], ["0042"], 3, 1.5
    )
    keep_progress(tmp_path, progress)
    assert load_progress(tmp_path) == progress


class Person:
    """Somebody at a real terminal without a cursor."""

    def __init__(self, *words: object) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(FALLWATCH[0], [*FALLWATCH, *map(str, words)], {**os.environ, "TERM": "dumb"})
        self.seen = ""

    def until(self, words: str) -> None:
        until_s = time.monotonic() + 30
        while words not in self.seen:
            assert time.monotonic() < until_s, self.seen
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += os.read(self.fd, 4096).decode()

    def types(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode() + b"\n")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def test_on_a_terminal_it_is_killed_and_goes_on_with_the_answers_so_far(tmp_path: Path) -> None:
    first = Person("setup", *places(tmp_path))
    first.until("What is the home called?")
    first.until("Answer: ")
    first.types("Rosewood House")
    first.until("[rosewood-house]")
    first.types("")
    first.until("time zone")
    first.kill()
    kept = (tmp_path / "state" / FILE).read_text()
    assert 'home_id = "rosewood-house"' in kept
    second = Person("setup", *places(tmp_path))
    second.until("2 answers are kept")
    second.types("yes")
    second.until("time zone")
    assert "called?" not in second.seen
    second.kill()


def test_a_key_is_shown_until_the_wearable_has_taken_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[bytes] = []
    monkeypatch.setattr("edge.cli.pairing.show_key", lambda _name, key: shown.append(key))
    text = '[home]\nid = "x"\n[[resident]]\nid = "r12"\nroom = "12"\nwearable = "0042"\n'
    settings = dataclasses.replace(loaded(text), path=tmp_path / "fallwatch.toml")
    one = guide(Script())
    with pytest.raises(KeyboardInterrupt):  # killed while it is on the screen
        pair_all(settings, tmp_path, one, qr=True)
    again = guide(Script(""), progress=Progress(to_show=one.progress.to_show))
    assert pair_all(settings, tmp_path, again, qr=True) == []
    assert len({*shown}) == 1
    assert (len(shown), again.progress.to_show) == (2, [])


# -- the machine ---------------------------------------------------------------------------------


def test_a_receiver_is_well_before_any_wearable_is_paired_and_one_that_is_none_is_not(tmp_path: Path) -> None:
    stop = Event()
    dongle = DonglePty(VirtualDongle([]), tmp_path / "dongle")
    thread = Thread(target=dongle.run, args=(stop,))
    thread.start()
    text = f'[home]\nid = "x"\n[[dongle]]\nport = "{tmp_path}/dongle"\n[[dongle]]\nport = "{tmp_path}/none"\n'
    settings = dataclasses.replace(loaded(text), path=tmp_path / "fallwatch.toml")
    try:
        heard, missing = machine.try_part("receivers", settings, {}, tmp_path)
    finally:
        stop.set()
        thread.join()
        dongle.close()
    assert (heard.state, heard.next) == ("well", "")
    assert (missing.state, missing.says) == ("fault", "cannot be used: No such file or directory")


def test_what_is_here_is_found_and_what_the_settings_say_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    with amqtt() as broker:
        monkeypatch.setattr(machine, "BROKER", ("127.0.0.1", broker.port))
        found = machine.find(loaded(SETTINGS), may_ask=False)
    assert (found.broker, found.broker_wants_password) == (f"127.0.0.1:{broker.port}", False)
    assert found.present["receivers"] == ["/dev/fallwatch-dongle"]
    assert [row["id"] for row in found.residents] == ["r12", "r13"]
    assert guide(given={}, found=found, before=SETTINGS).run() == SETTINGS  # what is not answered stays
    fresh = dataclasses.replace(found, present={}, residents=())
    assert loaded(guide(found=fresh).run()).mqtt.port == broker.port


def test_settings_are_begun_for_the_services_to_read_and_a_second_writing_keeps_the_first(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "fallwatch.toml"
    write_settings(path, "a = 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    write_settings(path, "a = 2\n")
    assert (path.read_text(), path.with_suffix(".toml.old").read_text()) == ("a = 2\n", "a = 1\n")
    assert not path.with_suffix(".toml.new").exists()


def test_a_secret_that_is_typed_is_in_the_secrets_folder_and_nowhere_else(tmp_path: Path) -> None:
    question, secrets = BY_KEY["record_token_file"], tmp_path / "secrets"
    path = machine.keep_secret(question, "hush", secrets, typed=True)
    assert Path(path).read_text() == "hush\n"
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o640
    assert machine.keep_secret(question, path, secrets, typed=False) == path
    with pytest.raises(BadAnswer, match="cannot be read") as refused:
        machine.keep_secret(question, "hush", secrets, typed=False)
    assert "hush" not in str(refused.value)


def test_a_key_of_our_own_is_made_once_with_its_public_half(tmp_path: Path) -> None:
    question = BY_KEY["record_key_file"]
    path = Path(machine.keep_secret(question, "make", tmp_path, typed=False))
    made = path.read_text()
    public = json.loads((tmp_path / "record-key.jwks").read_text())["keys"][0]
    assert (made.startswith("-----BEGIN PRIVATE KEY"), public["kty"], "d" in public) == (True, "RSA", False)
    machine.keep_secret(question, "make", tmp_path, typed=False)
    assert path.read_text() == made


def test_the_detect_service_gets_the_rights_that_the_settings_want(tmp_path: Path) -> None:
    source, target = tmp_path / "drop-ins", tmp_path / "etc"
    source.mkdir()
    for name in ("bluetooth", "camera", "mqtt"):
        (source / f"{name}.conf").write_text(f"# {name}\n")
    text = '[home]\nid = "x"\n[[wearable]]\nid = "1"\nkind = "polar"\naddress = "A0:9E:1A:00:00:42"\n'
    settings = loaded(text + '[mqtt]\nhost = "b"\nwearables = true\n')
    assert machine.install_drop_ins(settings, source, target) == ["bluetooth", "mqtt"]
    assert (target / "mqtt.conf").read_text() == "# mqtt\n"
    assert machine.install_drop_ins(settings, source, target) == []
    assert machine.install_drop_ins(loaded('[home]\nid = "x"\n'), source, tmp_path / "none") == []


# -- a ward of the record ------------------------------------------------------------------------

PLACES: list[dict[str, Any]] = [
    {"resourceType": "Location", "id": "w1", "name": "Ground floor"},
    {"resourceType": "Location", "id": "b1", "name": "A", "physicalType": {"coding": [{"code": "bd"}]}},
    {"resourceType": "Location", "id": "ro", "name": "12", "physicalType": {"coding": [{"code": "ro"}]}},
]
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"family": "Smith"}],
    "identifier": [{"system": "https://fhir.nhs.uk/Id/nhs-number", "value": NHS_NUMBER}],
}
STAY: dict[str, Any] = {
    "resourceType": "Encounter",
    "id": "e1",
    "subject": {"reference": "Patient/p1"},
    "location": [{"location": {"reference": f"Location/{id_}"}} for id_ in ("w1", "ro", "b1")],
}


def test_a_stay_says_who_is_in_which_room_and_bed() -> None:
    (row,) = parse_ward([*PLACES, PATIENT, STAY])
    assert row.said == {"nhs_number": NHS_NUMBER, "local_id": "", "room": "12", "bed": "A", "id": "r-p1"}
    assert len(parse_ward([*PLACES, PATIENT, STAY, {**STAY, "id": "e2"}])) == 1
    for gone in ([STAY], [{**PATIENT, "active": False}, STAY], [PATIENT]):
        with pytest.raises(NoDirectory):
            parse_ward(gone)


@pytest.fixture
def ward() -> Iterator[tuple[str, list[str]]]:
    """A server that knows one ward, and gives its stays on two pages."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            base = f"http://{self.headers['Host']}"
            found: list[dict[str, Any]] = []
            links = []
            if self.path.startswith("/Location?_count=200&name=Ground"):
                found = PLACES[:1]
            elif self.path.startswith("/Location?_count=200&partof="):
                found = PLACES[1:]
            elif self.path == "/page2":
                found = [PATIENT]
            elif self.path.startswith("/Encounter"):
                found, links = [STAY, *PLACES], [{"relation": "next", "url": f"{base}/page2"}]
            body = {"resourceType": "Bundle", "entry": [{"resource": r} for r in found], "link": links}
            octets = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_residents_of_a_ward_come_from_the_record(ward: tuple[str, list[str]]) -> None:
    base_url, asked = ward
    text = f'[home]\nid = "x"\n[record]\nkind = "fhir-r4"\nbase_url = "{base_url}"\n'
    rows, problems = machine.read_list(BY_KEY["residents_ward"], "Ground floor", loaded(text))
    assert rows == [{"id": "r-p1", "room": "12", "bed": "A", "nhs_number": NHS_NUMBER, "placement": "wrist"}]
    assert problems == []
    assert not [path for path in asked if NHS_NUMBER in path]
    with pytest.raises(BadAnswer, match="the record has no location 'Attic'"):
        machine.read_list(BY_KEY["residents_ward"], "Attic", loaded(text))
    assert FhirRecord(loaded(text).record, SECRETS).stays("Ground floor")


def test_the_example_names_every_question() -> None:
    assert [q.key for q in QUESTIONS if not re.search(rf"^(# )?(\[\[)?{q.key}\b", example_answers(), re.M)] == []
