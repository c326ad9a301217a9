"""Text messages through gammu-smsd, which owns the modem and is a program of its own.

A page becomes a file in smsd's outbox, by ``gammu-smsd-inject``. smsd moves it to the folder of sent messages
once the network has taken it, or to that of errors. What staff send back appears in the inbox: ``OK 4F2``
takes the incident whose code is 4F2. No number appears in logs and reasons but its last three digits.
"""

from __future__ import annotations

import configparser
import contextlib
import logging
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.channels import SmsSettings
from edge.sinks import Page, Reply, SinkRejected, SinkUnavailable
from edge.sinks.line import printable

log = logging.getLogger(__name__)

MOST_CHARACTERS = 160  # of one message in GSM 7-bit
INJECT, MONITOR = "gammu-smsd-inject", "gammu-smsd-monitor"
_COMMAND_S = 10.0  # both end within milliseconds
_LOOK_S = 1.0  # into the inbox
_OLD_S = 600.0  # a reply that is older than that at our start is to somebody else's call
_LATELY_S = 1800.0  # an OK without a code is for a page no older than that
_OPEN_S = 12 * 3600.0  # an incident that nobody closed is forgotten then
_OPEN_MOST = 200
_ASK_EVERY_S = 60.0  # a number is asked "Which?" so often at most: it may be a machine
_READ_MOST_OCTETS = 1000
_SHARED_MEMORY = Path("/proc/sysvipc/shm")

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
_DIGIT = re.compile(r"\d(?=(?:[ -]?\d){3})")
_CODE = re.compile(r"[0-9A-F]{3}")
_RECEIVED = re.compile(r"IN\d{8}_\d{6}_\d+_(?P<number>[^_]+)_00\.txt")
_WRITTEN = re.compile(r"Written message with ID (\S+)")
# Of the printable characters, GSM 7-bit lacks one and takes two places for these others.
_GSM = str.maketrans({"`": "'", "[": "(", "]": ")", "{": "(", "}": ")", "\\": "/", "|": "/", "^": " ", "~": "-"})


def masked(text: str) -> str:
    """Return ``text`` with all but the last three digits of each number as ``*``."""
    return _DIGIT.sub("*", text)


def sms_text(page: Page, *, replies: bool) -> str:
    """Return the text of the message, at most 160 characters of GSM 7-bit that take one place each.

    Where a person is to answer it ends with what to answer.
    """
    answer = f" Reply OK {page.code}" if replies and _asks(page) else ""
    return printable(page.text, MOST_CHARACTERS - len(answer)).translate(_GSM) + answer


def _asks(page: Page) -> bool:
    return bool(page.incident) and not page.cancel and page.kind not in {"blind", "test"}


@dataclass(frozen=True, slots=True)
class _Folders:
    inbox: Path
    outbox: Path
    sent: Path
    error: Path


@dataclass(slots=True)
class _Open:
    """An incident that somebody can answer."""

    code: str
    page_id: str = ""
    sent_s: dict[str, float] = field(default_factory=dict)  # by number; monotonic


class SmsSink:
    """The modem of one gammu-smsd. ``ignored_replies`` counts messages of numbers that nobody calls.

    `deliver` takes at most ``sent_wait_s`` and eleven seconds. A page that the modem did not send in that time
    stays in smsd's outbox and may still go: the same page again waits for that one, and the next page about
    the incident takes its place, so that a modem that comes back does not send an evening's calls.
    """

    def __init__(self, name: str, settings: SmsSettings) -> None:
        self.name = name
        self.ignored_replies = 0
        self._settings = settings
        self._groups = {number: group for group, number in reversed(list(settings.addresses.items()))}
        self._folders: _Folders | None = None
        self._waiting: dict[str, str] = {}  # page id: file name in the outbox
        self._newest: dict[tuple[str, str], str] = {}  # incident and number: id of the newest page
        self._open: dict[str, _Open] = {}  # by incident
        self._seen: set[str] = set()  # files of the inbox that are dealt with and could not be moved
        self._asked_s: dict[str, float] = {}
        self._second: dict[str, int] = {}  # by number: of the wall clock, of the last message
        self._since_s = time.monotonic() - _OLD_S
        self._look_s = 0.0

    def deliver(self, page: Page) -> None:
        """Send ``page``; return once the network has taken it. Sending the same page again is safe.

        Raises:
            SinkUnavailable: smsd or its modem did not send it, or not yet.
            SinkRejected: there is no number to send to, or nothing to say.
        """
        if not _NUMBER.fullmatch(page.to) or not page.text.strip():
            raise SinkRejected(self.name, "a page needs a number such as '+447700900123' and a text")
        folders = self._read_folders()
        if page.cancel:
            self._open.pop(page.incident, None)
        if page.page_id not in self._waiting:
            self._waiting[page.page_id] = self._inject(page.to, sms_text(page, replies=self._settings.replies))
            self._replace_older(page, folders)
        if self._settings.replies and _asks(page):
            self._note_open(page)
        self._wait_sent(page, folders)

    def check(self) -> None:
        """Raise `SinkUnavailable` unless smsd runs, has a modem that answers, and no message waits for long."""
        folders = self._read_folders()
        said = self._run(MONITOR, "-c", self._settings.rc_file, "-C", "-n", "1", "-d", "0")
        # client;phone id;IMEI;IMSI;sent;received;failed;battery;signal, after lines of its log
        fields = said.strip().rpartition("\n")[2].split(";")
        if len(fields) < 9:
            raise SinkUnavailable(self.name, f"{MONITOR} does not say how gammu-smsd is")
        if _is_left_alone(self._settings.rc_file):
            raise SinkUnavailable(self.name, "gammu-smsd has died")
        if not fields[-7].strip():
            raise SinkUnavailable(self.name, "no modem answers gammu-smsd")
        with _readable(self.name), os.scandir(folders.outbox) as entries:
            ages_s = [_age_s(entry.path) for entry in entries if entry.name.upper().startswith("OUT")]
        late = sum(age_s > self._settings.sent_wait_s for age_s in ages_s)
        if late:
            raise SinkUnavailable(self.name, f"the modem sends nothing: {late} messages wait in the outbox")
        if self._settings.replies:
            with _readable(self.name), os.scandir(folders.inbox):
                pass

    def close(self) -> None:
        """Nothing is kept open."""

    def listen(self, wake: int, timeout_s: float) -> list[Reply]:
        """Wait until ``wake`` can be read, the time is up, or staff answered; return their answers.

        Where an answer fits no call, or two, the sender is asked back, which takes a second at most unless gammu
        hangs.
        """
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        until_s = time.monotonic() + timeout_s
        while True:
            replies = self._heard()
            left_s = until_s - time.monotonic()
            if replies or left_s <= 0 or poll.poll(min(left_s, _LOOK_S) * 1000):
                return replies

    # -- to smsd ------------------------------------------------------------------------------

    def _read_folders(self) -> _Folders:
        """Return where smsd keeps its messages, as its own settings say.

        Raises:
            SinkUnavailable: they cannot be read, or leave open what became of a message.
        """
        rc = configparser.ConfigParser(
            delimiters="=", comment_prefixes=(";", "#"), strict=False, interpolation=None, allow_no_value=True
        )
        path = self._settings.rc_file
        try:
            rc.read_string(Path(path).read_text(encoding="latin-1"), path)
        except (OSError, configparser.Error) as error:
            raise SinkUnavailable(self.name, f"{path} cannot be read ({type(error).__name__})") from None
        section = next((name for name in rc.sections() if name.lower() == "smsd"), None)
        smsd = {key: value or "" for key, value in (rc.items(section) if section else ())}
        if smsd.get("service", "").lower() != "files":
            raise SinkUnavailable(self.name, f"{path}: [smsd] needs service = files")
        if self._settings.replies and smsd.get("inboxformat", "").lower() == "detail":
            raise SinkUnavailable(self.name, f"{path}: [smsd] needs inboxformat = standard for replies")
        folders = []
        for key in ("inboxpath", "outboxpath", "sentsmspath", "errorsmspath"):
            folder = smsd.get(key, "").strip()
            if not (folder.startswith("/") and folder.endswith("/")) or Path(folder) in folders:
                reason = f"{path}: [smsd] {key} needs a folder of its own, from / to /"
                raise SinkUnavailable(self.name, reason)
            folders.append(Path(folder))
        self._folders = _Folders(*folders)
        return self._folders

    def _inject(self, number: str, text: str) -> str:
        """Put a message into the outbox and return its file's name, which no earlier message has had."""
        if self._second.get(number) == int(time.time()):  # the name is made of number and second
            time.sleep(1.0 - time.time() % 1.0)
        said = self._run(INJECT, "-c", self._settings.rc_file, "TEXT", number, "-text", text)
        self._second[number] = int(time.time())
        written = _WRITTEN.search(said)
        if written is None:
            raise SinkUnavailable(self.name, f"{INJECT} does not say where it put the message")
        return os.path.basename(written[1])

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - a list without a shell; gammu's own programs, by settings and pages
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_S,
                check=False,
            )
        except FileNotFoundError:
            raise SinkUnavailable(self.name, f"{command[0]} is not installed (package gammu-smsd)") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise SinkUnavailable(self.name, f"{command[0]} did not end well ({type(error).__name__})") from None
        said = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            last = masked(said.strip().rpartition("\n")[2].partition(": ")[2])
            raise SinkUnavailable(self.name, f"gammu-smsd does not run, or cannot be asked ({last[:80]})")
        return said

    def _replace_older(self, page: Page, folders: _Folders) -> None:
        """Withdraw what still waits for the same number about the same incident."""
        older = self._newest.pop((page.incident, page.to), None) if page.incident else None
        self._newest[page.incident, page.to] = page.page_id
        while len(self._newest) > _OPEN_MOST:
            del self._newest[next(iter(self._newest))]
        while len(self._waiting) > _OPEN_MOST:
            del self._waiting[next(iter(self._waiting))]
        if older is not None and older != page.page_id and (name := self._waiting.pop(older, None)):
            with contextlib.suppress(OSError):  # it went just now; or the folder is not ours to change
                (folders.outbox / name).unlink()
                log.info("%s: an older page that still waited was withdrawn", self.name)

    def _wait_sent(self, page: Page, folders: _Folders) -> None:
        name = self._waiting[page.page_id]
        until_s = time.monotonic() + self._settings.sent_wait_s
        with _readable(self.name):
            while (folders.outbox / name).exists():
                if time.monotonic() >= until_s:
                    reason = f"the modem has not sent it within {self._settings.sent_wait_s:g} s"
                    raise SinkUnavailable(self.name, reason)
                time.sleep(0.1)
            del self._waiting[page.page_id]
            if (folders.error / name).exists():
                raise SinkUnavailable(self.name, "the modem could not send it")
            if not (folders.sent / name).exists():
                raise SinkUnavailable(self.name, "the message has disappeared from the outbox")

    # -- from staff ---------------------------------------------------------------------------

    def _note_open(self, page: Page) -> None:
        now_s = time.monotonic()
        known = self._open.pop(page.incident, None) or _Open(page.code)
        known.page_id = page.page_id
        known.sent_s[page.to] = now_s
        self._open[page.incident] = known  # the newest last
        for incident in [key for key, value in self._open.items() if now_s - max(value.sent_s.values()) > _OPEN_S]:
            del self._open[incident]
        while len(self._open) > _OPEN_MOST:
            del self._open[next(iter(self._open))]

    def _heard(self) -> list[Reply]:
        """Return what staff answered since the last look; an inbox that cannot be read is `check`'s business."""
        if not self._settings.replies or time.monotonic() < self._look_s:
            return []
        self._look_s = time.monotonic() + _LOOK_S
        replies = []
        with contextlib.suppress(OSError, SinkUnavailable):
            inbox = (self._folders or self._read_folders()).inbox
            received = {name for name in os.listdir(inbox) if _RECEIVED.fullmatch(name)}
            self._seen &= received
            for name in sorted(received - self._seen):
                try:
                    replies += self._answers(inbox / name)
                except FileNotFoundError:
                    log.debug("%s: a message was taken away just now", self.name)
                except OSError as error:
                    self._seen.add(name)
                    log.warning("%s: a message in the inbox cannot be read (%s)", self.name, error.strerror)
        return replies

    def _answers(self, path: Path) -> list[Reply]:
        # By the file's own age: the time in its name is by the network's clock, in the network's zone.
        age_s = _age_s(path)
        at_s = time.monotonic() - age_s  # so that setting the clock changes nothing
        with path.open("rb") as file:
            octets = file.read(_READ_MOST_OCTETS)
        if not octets and age_s < _LOOK_S:
            return []  # smsd writes it just now
        self._seen.add(path.name)
        if at_s < self._since_s:
            return []
        found = _RECEIVED.fullmatch(path.name)
        number = found["number"] if found else ""
        if number not in self._groups:
            self.ignored_replies += 1
            log.info("%s: a message of an unknown number is ignored", self.name)
            return []
        with contextlib.suppress(OSError):  # it is remembered all the same, until a restart
            handled = path.parent / "fallwatch"
            handled.mkdir(exist_ok=True)
            path.rename(handled / path.name)
            self._seen.discard(path.name)  # smsd may give the name to the next message
        code = _reading(_text(octets))
        if code is None:
            return []
        asked = [incident for incident, known in self._open.items() if number in known.sent_s]
        if code:
            fitting = [incident for incident, known in self._open.items() if known.code == code]
            fitting = [incident for incident in fitting if incident in asked] or fitting
        else:
            fitting = [
                incident for incident in asked if len(asked) == 1 and self._is_lately(incident, number, at_s)
            ]
        if not fitting:
            self._ask_which(number, asked)
            return []
        incident = fitting[-1]  # two with one code: the newest; the next OK is for the other
        known = self._open.pop(incident)
        return [Reply(known.page_id, incident, by=f"sms to {self._groups[number]}", acknowledges=True)]

    def _is_lately(self, incident: str, number: str, at_s: float) -> bool:
        sent_s = self._open[incident].sent_s[number]
        return sent_s <= at_s <= sent_s + _LATELY_S

    def _ask_which(self, number: str, incidents: list[str]) -> None:
        now_s = time.monotonic()
        if not incidents or now_s - self._asked_s.get(number, -_ASK_EVERY_S) < _ASK_EVERY_S:
            return
        self._asked_s[number] = now_s
        choices = " or ".join(f"OK {self._open[incident].code}" for incident in incidents[-5:])
        try:
            self._inject(number, f"Which? Reply {choices}")
        except SinkUnavailable as error:
            log.warning("%s: cannot ask back: %s", self.name, error.reason)


def _age_s(path: Path | str) -> float:
    """Return how long ago a file was written; nothing for one that is no longer there."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _reading(text: str) -> str | None:
    """Return the code that an OK names, nothing for a bare OK, None for what is no OK.

    An OK with anything else than a code after it names none that exists.
    """
    words: list[str] = re.findall(r"[A-Z0-9]+", text.upper())
    if words and re.fullmatch(rf"OK{_CODE.pattern}", words[0]):
        return words[0][2:]
    if not words or words[0] != "OK":
        return None
    if len(words) == 1:
        return ""
    return words[1] if _CODE.fullmatch(words[1]) else "?"


def _text(octets: bytes) -> str:
    """Return the text of a received message: smsd writes the system's characters, or UTF-16 with its mark."""
    if octets[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return octets.decode("utf-16", "replace")
    return octets.decode("utf-8", "replace")


def _is_left_alone(rc_file: str) -> bool:
    """Tell whether smsd was killed: its last status still lies in shared memory, which nobody has open.

    The memory's key is made from the settings file, as ftok(3) does it; its first octet is smsd's choice.
    """
    try:
        status = os.stat(rc_file)
        lines = _SHARED_MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:  # hidden from us: then the outbox tells, once there is something to send
        return False
    key = (status.st_dev & 0xFF) << 16 | status.st_ino & 0xFFFF
    columns = lines[0].split()
    at_key, at_users = columns.index("key"), columns.index("nattch")
    users = [int(row[at_users]) for row in map(str.split, lines[1:]) if int(row[at_key]) & 0xFFFFFF == key]
    return bool(users) and not any(users)


@contextlib.contextmanager
def _readable(sink: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SinkUnavailable(sink, f"the folders of gammu-smsd cannot be read ({error.strerror})") from None
