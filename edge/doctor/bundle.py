"""One file for support, free of personal data: whatever is not known to be harmless is left out.

Settings and what services say are taken key by key: numbers, yes and no, and choices among our own words. Free
text, such as logs, keeps only words that this program itself can say, and short numbers; all else becomes ``~``.
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import importlib.metadata
import io
import json
import os
import platform
import random
import re
import tarfile
import time
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from edge.clock import clock_ok
from edge.core.incident import Kind
from edge.core.supervision import Cause
from edge.doctor import machine
from edge.doctor.finding import Finding
from edge.journal import JOURNAL_FILE, JournalUnavailable, Overview, overview
from edge.settings import Settings
from models.card import BUNDLES

LOGS_MOST_OCTETS = 1 << 20
LOG_LINES_MOST = 4000
LOG_SINCE = "-48h"
RESTARTS_MOST = 40
HIDDEN = "~"
LEAST_KNOWN = 3  # shorter ones are no names, and are in every text
_OF_PATHS = {"dev", "serial", "by", "id", "usb", "etc", "fallwatch", "http", "https", "tcp"}
_WORD = re.compile(r"\w+")
_LONG_NUMBER = re.compile(r"\+?\d(?:[ ().:/-]{0,2}\d){4,}")  # telephone, NHS and serial numbers, dates
_NAMED = re.compile(r"\b(room|bed|resident|group|pager|by) (?!itself|the|way|is|has|which|are)(\S+)")
# Texts of settings that can only be what their pattern allows.
_HARMLESS = {
    "timezone": r"[A-Za-z]+/[A-Za-z_]+|UTC",
    "format": r"[78][NEO][12]",
    **dict.fromkeys(("station", "own", "beep"), r"[0-9]"),
    **dict.fromkeys(("test_at", "begins", "ends"), r"\d\d:\d\d"),
}
_EVENTS = (
    "raised",
    "paged",
    "motion",
    "again",
    "witness",
    "doubt",
    "acknowledged",
    "attended",
    "resolved",
    "recorded",
)
_NOTES = ("lost", "loss-told", "snoozed", "snooze-ended", "test-sent", "tested", "camera-paused", "camera-resumed")
_OUTBOX = tuple(f"{sink} {state}" for sink in ("record", "mqtt") for state in ("waiting", "done", "parked"))
_INCIDENTS = tuple(f"{kind} {state}" for kind in Kind for state in ("open", "closed"))
_VERSIONS = (
    *("fallwatch", "bleak", "cobs", "cryptography", "dbus-fast", "numpy", "onnxruntime", "opencv-python-headless"),
    *("paho-mqtt", "pyjwt", "pyserial", "rich", "segno", "tomlkit", "typer", "gpiod", "depthai", "pyrealsense2"),
)
_OWN_NAMES = {"wrist", "waist", "camera", "detect", "alarm", *machine.UNITS}
_PACKAGES = ("edge", "firmware_bridge", "models")
_UNHEARD = ("cli", "home")  # their texts hold examples, such as names of staff
LOG_COMMAND = (
    *("journalctl", "-o", "json", "--no-pager", "-u", "fallwatch-*", "--since", LOG_SINCE),
    *("-n", str(LOG_LINES_MOST)),
)
RESTART_COMMAND = (
    *("journalctl", "-o", "json", "--no-pager", "-u", "fallwatch-*", "-t", "systemd", "--since", "-30d"),
    *("-n", str(RESTARTS_MOST)),
)
Ask = Callable[[Iterable[str]], str | None]

CONTENTS = {
    "doctor.jsonl": "what fallwatch doctor found, without test pages",
    "status.json": "what both services say of themselves: numbers and causes",
    "settings.json": "the settings: numbers, choices, and of every text only whether it is set",
    "journal.json": "how many incidents, events and pages of each kind; none of them",
    "machine.json": "memory, disk, temperature, clock, versions of programs, state of the services",
    "logs.txt": "the services' log of the last two days, words of fallwatch itself only",
    "restarts.txt": "when systemd started or stopped the services in the last month",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of a bundle, and the archive of them."""

    files: Mapping[str, str]
    archive: bytes

    @property
    def manifest(self) -> str:
        """What is in it, in plain words."""
        return self.files["MANIFEST.txt"]


def make_bundle(
    settings: Settings,
    findings: Iterable[Finding],
    told: Mapping[str, Mapping[str, Any] | None],
    state: Path,
    *,
    ask: Ask = machine.ask,  # type: ignore[assignment]  # a sequence is what it is given
    root: Path = machine.ROOT,
) -> Bundle:
    """Return what support needs.

    Args:
        settings: the home's; of them numbers and choices are taken.
        findings: of doctor.
        told: the run files of ``detect`` and ``alarm``, None where one does not run.
        state: the state folder.
        ask: runs a program of the system and returns what it prints, or None.
        root: of /sys, /proc and /dev.
    """
    look = _overview(state)
    hide = Hider(settings)
    files = {
        "doctor.jsonl": "".join(json.dumps(_finding(finding, hide)) + "\n" for finding in findings),
        "status.json": _json({name: _told(body, hide) for name, body in told.items()}),
        "settings.json": _json(harmless(settings)),
        "journal.json": _json(look if isinstance(look, str) else _journal(look, hide)),
        "machine.json": _json(_machine(state, hide, root)),
        "logs.txt": _log(ask(LOG_COMMAND), hide),
        "restarts.txt": _log(ask(RESTART_COMMAND), hide),
    }
    files = {"MANIFEST.txt": _manifest(files), **files}
    return Bundle(files, _archive(files))


def _json(document: Any) -> str:
    return json.dumps(document, indent=1) + "\n"


def _manifest(files: Mapping[str, str]) -> str:
    lines = [
        "What fallwatch support-bundle packed, for support to find a fault by.",
        "It holds no name, number, address, telephone number, key or image. Residents, wearables and channels",
        "have numbers that are drawn anew for each bundle. Read it before you send it: it is all plain text.",
        "",
        *(f"{name:<16}{len(text.encode()):>9} octets  {CONTENTS[name]}" for name, text in files.items()),
    ]
    return "\n".join(lines) + "\n"


def _archive(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            octets = text.encode()
            member = tarfile.TarInfo(f"fallwatch-support/{name}")
            member.size, member.mtime, member.mode = len(octets), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(octets))
    return out.getvalue()


# -- free text ----------------------------------------------------------------------------------


@cache
def vocabulary() -> frozenset[str]:
    """Return every word that our own program can say: of its texts and names, without examples and docstrings."""
    words: set[str] = set()
    for package in _PACKAGES:
        folder = Path(__file__).resolve().parents[2] / package
        for path in sorted(folder.rglob("*.py")):
            if not {*path.relative_to(folder).parts} & {*_UNHEARD}:
                words |= _words_of(path)
    texts = [*map(os.strerror, errno.errorcode), *Cause, "Traceback most recent call last File line in INFO DEBUG"]
    texts += [
        "Started Stopped Stopping Starting Deactivated Failed Scheduled restart job main process exited code"
    ]
    texts += ["killed status signal exited success result watchdog timeout service unit consumed CPU memory peak"]
    for text in texts:
        words |= {word.lower() for word in _WORD.findall(text)}
    return frozenset({"a", "s"} | {word for word in words if len(word) > 1 and not any(map(str.isdigit, word))})


def _words_of(path: Path) -> set[str]:
    words, docstrings = [path.stem], set[int]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant() as docstring):
                docstrings.add(id(docstring))
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                words += _WORD.findall(text)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                words.append(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                words.append(name)
    return {word.lower() for word in words}


class Hider:
    """Takes out of texts what may lead to a person or a place."""

    def __init__(self, settings: Settings) -> None:
        self._numbers: dict[tuple[str, str], str] = {}
        for kind, names in (
            ("resident", [r.id for r in settings.resident]),
            ("wearable", [w for r in settings.resident for w in r.wearables] + [w.id for w in settings.wearable]),
            ("camera", [c.id for c in settings.camera]),
            (
                "link",
                [d.port for d in settings.dongle] + [w.link for w in settings.wearable] + [settings.ble.port],
            ),
            ("pager", list(settings.channel_names())),
        ):
            each = list(dict.fromkeys(names))
            random.SystemRandom().shuffle(each)
            self._numbers |= {(kind, name): f"{kind}-{n}" for n, name in enumerate(each, start=1)}
        known = {text.lower() for text in _texts(settings) if len(text) >= LEAST_KNOWN}
        self._known = sorted(known, key=len, reverse=True)  # the longest first: one may be part of another
        self._names = {word for text in known for word in _WORD.findall(text)} - _OF_PATHS

    def name(self, kind: str, name: str) -> str:
        """Return the number that stands for a part in this bundle."""
        return self._numbers.get((kind, name), f"{kind}-{HIDDEN}")

    def text(self, text: str) -> str:
        """Return a text with nothing but words of ours and short numbers."""
        text = text.lower()  # so that one comparison does for all ways of writing
        for known in self._known:
            text = text.replace(known, HIDDEN)
        text = _NAMED.sub(rf"\1 {HIDDEN}", text)
        text = _LONG_NUMBER.sub(HIDDEN, text)
        text = _WORD.sub(lambda found: found[0] if self._is_ours(found[0]) else HIDDEN, text)
        return re.sub(rf"[^\x20-\x7e]+|{HIDDEN}(?:\W?{HIDDEN})+", HIDDEN, text)

    def _is_ours(self, word: str) -> bool:
        if word.isascii() and word.isdigit():
            return len(word) <= 4
        return word in vocabulary() and word not in self._names


def _texts(node: Any, key: str = "") -> Iterable[str]:
    """Yield every text that somebody wrote into the settings, but for choices among our own words."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        hints = typing.get_type_hints(type(node))
        for field in dataclasses.fields(node):
            value = getattr(node, field.name)
            own = field.default is not dataclasses.MISSING and value == field.default
            if field.name != "path" and not own and typing.get_origin(hints[field.name]) is not typing.Literal:
                yield from _texts(value, field.name)
    elif isinstance(node, Mapping):
        for text in (*node.keys(), *node.values()):
            yield from _texts(text, key)
    elif isinstance(node, tuple):
        for item in node:
            yield from _texts(item, key)
    elif isinstance(node, str) and not re.fullmatch(_HARMLESS.get(key, "(?!)"), node):
        yield node
        yield node.replace(" ", "")


# -- key by key ---------------------------------------------------------------------------------


def harmless(node: Any, key: str = "", hint: Any = None) -> Any:
    """Return settings as plain tables: numbers and choices as they are, of texts whether they are set."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        hints = typing.get_type_hints(type(node))
        return {
            field.name: harmless(getattr(node, field.name), field.name, hints[field.name])
            for field in dataclasses.fields(node)
            if field.name != "path"
        }
    if node is None or isinstance(node, bool | int | float):
        return node
    if isinstance(node, tuple):
        if all(dataclasses.is_dataclass(item) for item in node):
            tables = [harmless(item) for item in node]
            random.SystemRandom().shuffle(tables)  # in no order that leads back to anybody
            return tables
        numbers = all(isinstance(item, int | float) for item in node)
        return list(node) if numbers else f"{len(node)} of them"
    if isinstance(node, Mapping):
        return f"{len(node)} of them"
    if isinstance(node, str) and node:
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        if node in choices or re.fullmatch(_HARMLESS.get(key, "(?!)"), node):
            return node
    return "set" if node else ""


def _finding(finding: Finding, hide: Hider) -> dict[str, str]:
    word, _, name = finding.part.partition(" ")
    kind = {"receiver": "link", "bluetooth": "link", "practice": "pager"}.get(word, word)
    own = name in _OWN_NAMES
    part = f"{word} {name if own else hide.name(kind, name)}" if name else word
    return {"part": part, "state": finding.state, "says": hide.text(finding.says), "next": hide.text(finding.next)}


def _told(body: Mapping[str, Any] | None, hide: Hider) -> Any:
    """Return what a service says of itself, part by part."""
    if body is None:
        return "does not run"
    parts: dict[str, Any] = {}
    plural = {"links": "link", "wearables": "wearable", "residents": "resident", "cameras": "camera"}
    for key, value in body.items():
        kind = plural.get(key) or ("pager" if key == "channels" else "")
        if kind:
            parts[key] = {
                "record" if name == "record" else hide.name(kind, name): _facts(facts, hide)
                for name, facts in value.items()
            }
        elif key in {"journal", "mqtt", "radio"} and value is not None:
            parts[key] = _facts(value, hide)
        elif key == "models":
            shipped = {folder.name for folder in BUNDLES.iterdir()}
            parts[key] = [name if name in shipped else "own" for name in value.values()]
        elif isinstance(value, bool | int | float):
            parts[key] = value
        elif isinstance(value, list | dict):
            parts[key] = f"{len(value)} of them"
    return parts


def _facts(facts: Mapping[str, Any], hide: Hider) -> dict[str, Any]:
    """Return the numbers among some facts, and in our own words why something is not well."""
    kept: dict[str, Any] = {}
    for key, value in facts.items():
        if value is None or isinstance(value, bool | int | float):
            kept[key] = value
        elif key in {"cause", "warning"}:
            kept[key] = hide.text(value)
        elif key == "firmware" and re.fullmatch(r"\d{1,3}(\.\d{1,3}){2}", value):
            kept[key] = value
    return kept


def _overview(state: Path) -> Overview | str:
    try:
        return overview(state / JOURNAL_FILE)
    except JournalUnavailable:
        return "cannot be read, or is not there"


def _journal(look: Overview, hide: Hider) -> dict[str, Any]:
    def of(counted: Mapping[str, int], known: Iterable[str]) -> dict[str, int]:
        kept = {name: counted[name] for name in known if name in counted}
        return {**kept, "other": sum(counted.values()) - sum(kept.values())}

    return {
        "whole": look.verdict == "ok",
        "size_octets": look.size_octets,
        "open": look.open_incidents,
        "incidents": of(look.incidents, _INCIDENTS),
        "events": of(look.events, _EVENTS),
        "notes": of(look.notes, _NOTES),
        "outbox": of(look.outbox, _OUTBOX),
        "drilled": None if look.drilled_at is None else f"{look.drilled_at:%Y-%m-%d}",
        "tested": {hide.name("pager", name): f"{at:%Y-%m-%d}" for name, at in look.tested_at.items()},
    }


def _machine(state: Path, hide: Hider, root: Path) -> dict[str, Any]:
    found, systemd, packages = machine.read_machine(root), machine.read_systemd(root), machine.read_packages()
    storage: Any = machine.read_storage(state, root) if state.is_dir() else None
    versions: dict[str, str | None] = {}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "system": [platform.system(), platform.machine(), platform.release()],
        "python": platform.python_version(),
        "versions": versions,
        "machine": {**dataclasses.asdict(found), "swaps": len(found.swaps)},
        "storage": storage and {**dataclasses.asdict(storage), "write_error": hide.text(storage.write_error)},
        "synchronised": clock_ok(),
        "systemd": None if systemd is None else dataclasses.asdict(systemd),
        "package": None if packages is None else {"status": packages.status, "half": len(packages.half)},
    }


def _log(printed: str | None, hide: Hider) -> str:
    """Return what journalctl printed as JSON, in words of ours, the newest kept."""
    if printed is None:
        return "systemd keeps no log here\n"
    lines, octets = list[str](), 0
    for row in reversed(printed.splitlines()):
        try:
            said = json.loads(row)
            at = datetime.fromtimestamp(int(said["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
            unit = said.get("UNIT") or said.get("_SYSTEMD_UNIT") or ""
            message = said["MESSAGE"]
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if not isinstance(message, str):  # octets that are no text
            continue
        line = f"{at:%Y-%m-%d %H:%M:%S} {unit if unit in machine.UNITS else HIDDEN} {hide.text(message)}\n"
        octets += len(line)
        if octets > LOGS_MOST_OCTETS:
            break
        lines.append(line)
    return "".join(reversed(lines)) or "nothing\n"
