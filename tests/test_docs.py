"""What the documents say is so: commands parse, files are there, links lead somewhere, tables are complete."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import queue
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import typing
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edge.alarm.document import incident_document
from edge.alarm.mqtt_feed import MqttFeed
from edge.channels import AnyChannel, Channel
from edge.cli import app
from edge.core.escalation import Words
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.core.supervision import Cause
from edge.core.words import page_text
from edge.journal import Case
from edge.settings import (
    CameraSettings,
    CameraZoneSettings,
    ConsentSettings,
    HomeSettings,
    ResidentSettings,
    Settings,
    load_settings,
)
from edge.sinks.mqtt import EVENT_TYPES, parse_quiet, parse_set
from firmware_bridge.devices.broker import BrokerDecoder, Heard, Said
from firmware_bridge.wire import WORN, Status

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^(<!-- (?P<mark>[a-z ]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
PROMISES = re.compile(
    r"risk score|guarantee|predicts? (a )?falls?|prevents? falls?|never miss|life-?saving|100 ?%", re.I
)


def fences(page: Path, kind: str, mark: str | None = None) -> list[str]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [f["text"] for f in found if f["kind"] == kind and mark in {None, f["mark"]}]


def section(page: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of its kind."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows, headings and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    bodies = [
        line
        for i, line in enumerate(lines)
        if not set(line) <= set("|- ") and "|---" not in "".join(lines[i + 1 : i + 2])
    ]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in bodies]


# -- commands -----------------------------------------------------------------------------------


def shell_commands(script: str) -> Iterator[list[str]]:
    """Yield the simple commands of a script, here documents and quoted programs left whole."""
    script = re.sub(r"<<'(\w+)'\n.*?^\1$", "", script, flags=re.M | re.S)
    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars=";&|<>()\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    words: list[str] = []
    for token in lexer:
        if set(token) <= set(";&|()\n"):
            yield words
            words = []
        else:
            words.append(token)
    yield words


def fallwatch_calls() -> list[tuple[str, list[str]]]:
    calls = []
    for page in PAGES:
        for script in fences(page, "sh"):
            for words in shell_commands(script):
                at = 0
                while at < len(words) and (words[at] in {"sudo", "until", "do"} or "=" in words[at]):
                    at += 3 if words[at : at + 2] == ["sudo", "-u"] else 1
                redirect = next((i for i, word in enumerate(words) if word in {"<", ">"}), len(words))
                if at < len(words) and Path(words[at]).name == "fallwatch":
                    stop = redirect - words[redirect - 1].isdigit() if redirect < len(words) else redirect
                    calls.append((page.name, words[at + 1 : stop]))
    return calls


@pytest.mark.parametrize(
    ("page", "words"), fallwatch_calls(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_every_fallwatch_command_in_the_documents_parses(page: str, words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    name, rest = "fallwatch", list(words)
    while hasattr(command, "commands"):
        assert rest, f"{page}: {words} names no command"
        name, rest = rest[0], rest[1:]
        assert name in command.commands, f"{page}: there is no command {name}"
        command = command.commands[name]
    command.make_context(name, rest)  # raises what the command line would say


def test_the_documents_do_name_commands_for_everybody() -> None:
    named = {words[0] for _, words in fallwatch_calls()}
    assert {
        "replay",
        "simulate",
        "bench",
        "pair",
        "unpair",
        "run",
        "status",
        "incidents",
        "ack",
        "resolve",
    } <= named


def test_every_training_command_and_option_in_the_documents_exists() -> None:
    """Read from the source: what these need is not installed everywhere."""
    known = {"--help"}
    for name, configuration in (("train", "TrainConfig"), ("fit", "FitConfig")):
        source = ast.parse((ROOT / "training" / f"{name}.py").read_text(encoding="utf-8"))
        config = next(n for n in ast.walk(source) if isinstance(n, ast.ClassDef) and n.name == configuration)
        known |= {
            "--" + n.target.id.replace("_", "-")
            for n in config.body
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
    commands = (ROOT / "training" / "__main__.py").read_text(encoding="utf-8")
    lines = [
        line.split()
        for line in "\n".join(fences(ROOT / "docs" / "training.md", "sh")).splitlines()
        if "-m training " in line
    ]
    elsewhere = {"quantise": "quantise", "search": "search", "camera": "depth/learn"}
    elsewhere |= {"depth-clips": "depth/clips", "depth-folder": "depth/clips"}
    assert {"data", "train", "promote", "evaluate", *elsewhere} == {line[3] for line in lines}
    for line in lines:
        module = elsewhere.get(line[3])
        own = commands if module is None else (ROOT / "training" / f"{module}.py").read_text(encoding="utf-8")
        options = {word for word in line if word.startswith("--")}
        assert options <= known if line[3] == "train" else all(f'"{option}"' in own for option in options)
        assert f'"{line[3]}"' in commands


@pytest.mark.skipif(shutil.which("bash") is None, reason="the README's walk-through is for bash")
@pytest.mark.timeout(100)
def test_the_walk_through_of_the_readme_works_as_written(tmp_path: Path) -> None:
    script = "".join(fences(ROOT / "README.md", "sh", "by hand"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        script = script.replace("4440", str(free.getsockname()[1]))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FALLWATCH_")} | {"COLUMNS": "200"}
    with (tmp_path / "out").open("w+") as out:
        # A group of its own, so that nothing it began in the background outlives the test.
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            shell.wait(timeout=80)
        finally:
            with_services = (tmp_path / "out").read_text()
            subprocess.run(["kill", "--", f"-{shell.pid}"], check=False, stderr=subprocess.DEVNULL)
            shell.wait(timeout=10)
    services = tmp_path / "trial" / "services.log"
    said = with_services + (services.read_text() if services.exists() else "")
    assert shell.returncode == 0, said
    for words in (
        "is paired",
        "pager 12 FALL? RM 12 BED A",
        "All is well.",
        "NOBODY YET",
        "Acknowledged by anna",
        "Closed as fall",
        "AdverseEvent",
    ):
        assert words in said, f"{words!r} is missing in:\n{said}"


# -- files, links, examples ---------------------------------------------------------------------


def test_every_file_of_the_readme_tree_is_there() -> None:
    (tree,) = fences(ROOT / "README.md", "tree")
    folder, named = "", []
    for line in tree.splitlines():
        path = line.split()[0]
        if line.startswith(" "):
            path = folder + path
        elif path.endswith("/"):
            folder = path
        named.append(path)
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{page.name}: {target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml_examples_load_as_settings(page: Path, tmp_path: Path) -> None:
    examples = fences(page, "toml")
    examples += re.findall(r"^cat > \S+\.toml <<'END'\n(.*?)^END$", "".join(fences(page, "sh")), re.M | re.S)
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example, encoding="utf-8")
        load_settings(file)
    if page.name in {"README.md", "settings.md", "install.md"} and page.parent.name != "adr":
        assert examples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_promised(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if PROMISES.search(line) and "looks like a risk score" not in line] == []


def test_those_who_read_first_are_told_what_it_is_not() -> None:
    for name in ("README.md", "docs/staff.md", "docs/staff.html", "docs/install.md"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split()).lower()
        assert "alerts care staff to possible falls" in text, name
        assert "not a medical diagnosis" in text, name
        assert "not the only safeguard" in text, name


def test_the_licence_is_the_one_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_tests_that_pages_name_as_evidence_are_there() -> None:
    named = {
        (page.name, *found.groups())
        for page in PAGES
        for found in re.finditer(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 60
    for page, file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"def {test}\(", text), f"{page}: {file} has no {test}"


# -- settings -----------------------------------------------------------------------------------


def settings_tables() -> list[tuple[str, str, type[Any]]]:
    """Return heading, name and dataclass of each table of the settings; of channels what all have in common."""
    tables = []
    for name, hint in typing.get_type_hints(Settings).items():
        many = typing.get_origin(hint) is tuple
        cls = typing.get_args(hint)[0] if many else hint
        if name == "pager":
            cls = Channel
        if dataclasses.is_dataclass(cls):
            tables.append((f"[[{name}]]" if many else f"[{name}]", name, typing.cast("type[Any]", cls)))
    return tables


def agree(documented: dict[str, str], fields: list[Any], where: str) -> None:
    """Assert that a table has these keys in this order, each with its default."""
    assert list(documented) == [field.name for field in fields], where
    for field in fields:
        default = documented[field.name]
        if field.default_factory is not dataclasses.MISSING:
            assert tomllib.loads(f"v = {default.strip('`')}")["v"] == field.default_factory(), (
                f"{where} {field.name}"
            )
        elif field.default is dataclasses.MISSING or field.default is None:
            assert default == ("none" if field.default is None else "needed"), f"{where} {field.name}"
        else:
            wanted = list(field.default) if isinstance(field.default, tuple) else field.default
            assert tomllib.loads(f"v = {default.strip('`')}")["v"] == wanted, f"{where} {field.name}"


@pytest.mark.parametrize(("heading", "name", "cls"), settings_tables(), ids=str)
def test_the_settings_page_has_every_key_with_its_default(heading: str, name: str, cls: type[Any]) -> None:
    text = section("settings.md", heading).partition("\n### ")[0]
    agree({cells[0].strip("`"): cells[1] for cells in rows(text)}, list(dataclasses.fields(cls)), f"[{name}]")


@pytest.mark.parametrize(
    ("heading", "cls"), [("[camera.consent]", ConsentSettings), ("[[camera.zone]]", CameraZoneSettings)], ids=str
)
def test_the_settings_page_has_every_key_of_what_belongs_to_a_camera(heading: str, cls: type[Any]) -> None:
    text = section("settings.md", "[[camera]]").partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    agree({cells[0].strip("`"): cells[1] for cells in rows(text)}, list(dataclasses.fields(cls)), heading)


@pytest.mark.parametrize("cls", typing.get_args(AnyChannel), ids=lambda cls: cls.__name__)
def test_the_settings_page_has_every_key_of_every_kind_of_channel(cls: type[Any]) -> None:
    own = {field.name: field for field in dataclasses.fields(cls)}
    kind = str(own.pop("kind").default)
    common = {field.name: field for field in dataclasses.fields(Channel)}
    text = section("settings.md", "[[pager]]").partition(f'\n### kind = "{kind}"')[2].partition("\n### ")[0]
    fields = [f for name, f in own.items() if name not in common or f.default != common[name].default]
    documented = {cells[0].strip("`"): cells[1] for cells in rows(text)}
    order = list(documented)
    assert set(order) == {field.name for field in fields}, kind
    agree(documented, sorted(fields, key=lambda field: order.index(field.name)), kind)


def test_the_settings_page_has_no_table_that_is_not_there() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\[.*\])$", text, re.M) == [heading for heading, _, _ in settings_tables()]


# -- what staff read ----------------------------------------------------------------------------


HOME_CAUSES = (
    *(Cause.NO_MODEL, Cause.DONGLE_GONE, Cause.BLUETOOTH_GONE, Cause.INTERFERENCE),
    *(Cause.DETECT_SILENT, Cause.JOURNAL, Cause.UNREADABLE, Cause.RECORD, Cause.RECORD_REFUSES, Cause.BROKER),
)
# Something is broken, and nobody is less protected by it alone.
FAULTS = (
    "pager line espa-1 down",
    "incident store was damaged",
    "incident store was missing",
    "incident store was cut short",
    "incident store was restored",
    *(Cause.UNREADABLE, Cause.RECORD, Cause.RECORD_REFUSES, Cause.BROKER, Cause.INTERFERENCE),
    *(Cause.LOW_BATTERY, Cause.BUTTON_STUCK, Cause.WEAK_RADIO, Cause.OLD_FIRMWARE, Cause.TWO_WORN),
    Cause.CAMERA_REVIEW,
)


def incident(kind: Kind, *, room: bool = True, cause: str | None = None) -> Incident:
    now = datetime(2026, 11, 22, 3, 14, tzinfo=UTC)
    facts = Incident(new_incident_id(), "site-7", kind, now, cause=cause, fault=cause in FAULTS)
    return dataclasses.replace(facts, resident="r12", room="12", bed="A") if room else facts


def staff_texts() -> set[str]:
    """Return what stands in the first column of the staff page's tables."""
    text = (ROOT / "docs" / "staff.md").read_text(encoding="utf-8")
    return {cells[0].strip("`") for cells in rows(text) if cells[0].startswith("`")}


@pytest.mark.parametrize("words", list(Words))
def test_the_staff_page_has_every_text_about_a_fall(words: Words) -> None:
    text = page_text(incident(Kind.FALL), words, local_time=datetime(2026, 11, 22, 3, 14, tzinfo=UTC), minutes=5)
    assert text in staff_texts()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.BLIND])
def test_the_staff_page_has_the_call_of_every_kind(kind: Kind) -> None:
    text = page_text(incident(kind), Words.ALARM, local_time=datetime(2026, 11, 22, 3, 14, tzinfo=UTC))
    assert text in staff_texts()


@pytest.mark.parametrize("cause", [*Cause, *FAULTS])
def test_the_staff_page_has_every_cause_of_no_cover(cause: str) -> None:
    room = cause in set(Cause) and cause not in HOME_CAUSES
    text = page_text(incident(Kind.BLIND, room=room, cause=str(cause)), Words.ALARM, local_time=None)
    assert text in staff_texts()


def test_the_staff_page_has_the_end_of_no_cover() -> None:
    page = (ROOT / "docs" / "staff.md").read_text(encoding="utf-8")
    for room, cause in ((True, "x"), (False, "x"), (False, "pager line espa-1 down"), (True, Cause.LOW_BATTERY)):
        text = page_text(incident(Kind.BLIND, room=room, cause=cause), Words.CANCELLED, local_time=None)
        assert f"`{text}`" in page


def test_the_staff_page_has_no_text_that_the_code_cannot_send() -> None:
    at = datetime(2026, 11, 22, 3, 14, tzinfo=UTC)
    known = {page_text(incident(Kind.FALL), words, local_time=at, minutes=5) for words in Words}
    known |= {page_text(incident(kind), Words.ALARM, local_time=at) for kind in Kind}
    known.add(page_text(incident(Kind.FALL), Words.ALARM, local_time=at, doubted=True))
    for cause in [*map(str, Cause), *FAULTS]:
        for room in (True, False):
            known.add(page_text(incident(Kind.BLIND, room=room, cause=cause), Words.ALARM, local_time=None))
    assert staff_texts() <= known


def test_the_pages_to_print_for_staff_need_nothing_else_and_say_only_what_pagers_show() -> None:
    page = (ROOT / "docs" / "staff.html").read_text(encoding="utf-8")
    root = ET.fromstring(page.partition("\n")[2])
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import|https?:", page)
    assert len(root.findall(".//section")) == 4  # three pages and the card
    texts = staff_texts() | {"CANCELLED NO COVER RM 12 BED A", "TEST", "DRILL", "fallwatch status"}
    for code in root.iter("code"):
        said = code.text or ""
        assert any(said == text or f" {said}" in text or text.startswith(said) for text in texts), said


def test_the_staff_page_has_every_outcome() -> None:
    closing = section("staff.md", "Closing")
    for outcome in set(Outcome) - {Outcome.RESTORED, Outcome.DRILL}:  # by the system; by installers
        assert f"`{outcome}`" in closing


# -- what other programs read -------------------------------------------------------------------


def test_the_mqtt_page_has_every_field_of_an_incident() -> None:
    fields = [
        name for cells in rows(section("mqtt.md", "An incident")) for name in re.findall(r"`(\w+)`", cells[0])
    ]
    facts = dataclasses.replace(incident(Kind.BLIND, cause=str(Cause.CAMERA_GONE)), camera="cam-12")
    assert fields == list(incident_document(Case(facts), now_s=0.0))


def test_the_example_document_has_the_fields_of_a_real_one() -> None:
    (example,) = [text for text in fences(ROOT / "docs" / "mqtt.md", "json") if '"schema"' in text]
    document = incident_document(Case(incident(Kind.FALL)), now_s=0.0)
    assert list(json.loads(example)) == list(document)


def test_the_mqtt_page_has_every_field_of_a_camera() -> None:
    class Broker:
        def publish_camera(self, camera: str, look: dict[str, Any]) -> None:
            self.look = look

    settings = Settings(
        HomeSettings("site-7"),
        resident=(ResidentSettings("r12", "12"),),
        camera=(CameraSettings("cam-12", "12", "oak"),),
    )
    feed, feed._publisher = MqttFeed(settings, queue.SimpleQueue(), now_s=0.0), Broker()  # type: ignore[assignment]
    feed.cameras(None, now_s=0.0)
    text = section("mqtt.md", "A camera")
    fields = [name for cells in rows(text) for name in re.findall(r"`(\w+)`", cells[0])]
    (example,) = [text for text in fences(ROOT / "docs" / "mqtt.md", "json") if '"sees"' in text]
    assert fields == list(json.loads(example)) == list(feed._publisher.look)  # type: ignore[attr-defined]


def test_the_example_acknowledgement_is_taken() -> None:
    (example,) = [text for text in fences(ROOT / "docs" / "mqtt.md", "json") if '"state": "ack' in text]
    topic = "fallwatch/site-7/incident/0193510c-1c2d-7a00-8000-0123456789ab/set"
    assert parse_set(topic, example.encode()) == (
        "acknowledge",
        "0193510c-1c2d-7a00-8000-0123456789ab",
        "night-carer",
        "acknowledged",
    )


def test_the_example_of_quiet_is_taken() -> None:
    (example,) = [text for text in fences(ROOT / "docs" / "mqtt.md", "json") if '"minutes"' in text]
    topic = "fallwatch/site-7/resident/r12/quiet/set"
    assert parse_quiet(topic, example.encode()) == ("snooze", "r12", "night-carer", 600.0)


def test_the_examples_of_wearables_by_mqtt_are_taken() -> None:
    page = ROOT / "docs" / "mqtt.md"
    sealed, message = (bytes.fromhex(text) for text in fences(page, "octets"))
    (samples,) = [text for text in fences(page, "json") if '"xyz_g"' in text]
    decoder = BrokerDecoder("site-7", ["W1"])
    heard = decoder.feed("fallwatch/site-7/receiver/room-12/uplink", sealed, 0.0)
    assert isinstance(heard, Heard)
    assert heard.uplink.rssi_dbm == -60
    assert decoder.feed("fallwatch/site-7/wearable/W1/message", message, 0.0) == Said(
        "W1", (Status(87, 4083, 30, WORN, 61),)
    )
    said = decoder.feed("fallwatch/site-7/wearable/W1/samples", samples.encode(), 0.0)
    assert isinstance(said, Said)
    documented = [
        name
        for cells in rows(section("mqtt.md", "Wearables by MQTT"))
        for name in re.findall(r"`(\w+)`", cells[0])
    ]
    assert documented == list(json.loads(samples))


def test_the_mqtt_page_has_every_event_type() -> None:
    assert all(f"`{name}`" in section("mqtt.md", "Home Assistant") for name in EVENT_TYPES)


# -- what doctor says ---------------------------------------------------------------------------


def said_by_doctor() -> set[str]:
    """Return what doctor may find wrong, with ``...`` for what it has seen."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(p.value if isinstance(p, ast.Constant) else "..." for p in node.values)  # type: ignore[misc]
        return str(node.value) if isinstance(node, ast.Constant) else ""

    found = set()
    for path in (ROOT / "edge" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"fault", "warning"}:
                found.add(text(node.args[1]))
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "says":
                found.add(text(node.value))
    return {says for says in found if re.search(r"\w", says)}


def test_the_troubleshooting_page_has_everything_that_doctor_may_find_wrong() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    documented = {cells[0].replace("`", "") for cells in rows(section("troubleshooting.md", "What doctor checks"))}
    said = said_by_doctor()
    assert len(said) > 50
    assert not [says for says in said if says not in documented and f"`{says.partition(':')[0]}: ...`" not in page]


def test_the_troubleshooting_page_has_every_part_in_order() -> None:
    from edge.doctor.checks import PARTS  # noqa: PLC0415 - onnxruntime and more, for this test alone

    text = section("troubleshooting.md", "What doctor checks")
    assert re.findall(r"^### (.*)$", text, re.M) == list(PARTS)
