"""A home in one sealed file: whole or not at all, and a restored one lets no old packet in."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import backup as backups
from edge.backup import BackupFailed, back_up, back_up_to, check, restore
from edge.core.incident import Incident, Kind, new_incident_id
from edge.journal import JOURNAL_FILE, Journal
from edge.keys import KeyStore
from edge.runfile import write_runfile
from edge.sealed import CHUNK, MAGIC, SALT_OCTETS, SealedReader, SealedWriter, Unsealable
from edge.settings import load_settings
from firmware_bridge.session import MAX_COUNTER
from firmware_bridge.wire import Identify, Proof, Prove, Status
from tests.edge.in_process import run_here

WORDS = b"four words are easy"
STATUS = Status(87, 4083, 30, 1, 61)
SETTINGS = """
[home]
id = "site-7"

[[resident]]
id = "r12"
room = "12"
wearable = "0042"
nhs_number = "9434765919"
"""


class House:
    """A home's folders, and what one does with them."""

    def __init__(self, folder: Path) -> None:
        self.config, self.state, self.run = folder / "etc/fallwatch.toml", folder / "state", folder / "run"

    def fill(self) -> str:
        """Set it up with a key, a model's file and an incident; return the incident."""
        self.config.parent.mkdir(parents=True)
        self.config.write_text(SETTINGS)
        self.config.chmod(0o640)
        self.keys().make("0042")
        (self.state / "models/wrist-7").mkdir(parents=True)
        (self.state / "models/wrist-7/card.json").write_text("{}")
        (self.state / "simulated").mkdir()
        (self.state / "journal.db.damaged-1").touch()
        return self.fall()

    def keys(self) -> KeyStore:
        return KeyStore(self.config.parent / "secrets", self.state)

    def fall(self) -> str:
        facts = Incident(new_incident_id(), "site-7", Kind.FALL, datetime.now(UTC), room="12", resident="r12")
        journal = Journal(self.state / JOURNAL_FILE)
        journal.raise_incident(facts)
        journal.close()
        return facts.incident

    def incidents(self) -> set[str]:
        journal = Journal(self.state / JOURNAL_FILE)
        found = {case.facts.incident for case in journal.cases(limit=1_000_000)}
        journal.close()
        return found

    def restore(self, file: Path, *, replace: bool = False, clock_is_right: bool = True) -> list[Path]:
        return restore(
            file,
            WORDS,
            config=self.config,
            state=self.state,
            run=self.run,
            replace=replace,
            clock_is_right=clock_is_right,
        )[1]

    def options(self) -> list[str]:
        return ["--config", str(self.config), "--state", str(self.state), "--run", str(self.run)]


@pytest.fixture
def home(tmp_path: Path) -> House:
    return House(tmp_path / "old")


@pytest.fixture
def new_pi(tmp_path: Path) -> House:
    return House(tmp_path / "new")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "site-7.fwbackup"


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(WORDS + b"\n")
    path.chmod(0o600)
    return path


# -- there and back ------------------------------------------------------------------------------


def test_a_home_goes_onto_a_new_pi(
    *,
    home: House,
    new_pi: House,
    file: Path,
    passphrase: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fallwatch(*words: object) -> tuple[Any, str, str]:
        return run_here(monkeypatch, capsys, *words, "--passphrase-file", passphrase)

    incident = home.fill()
    assert fallwatch(*home.options(), "backup", "--out", file)[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    octets = file.read_bytes()
    assert b"9434765919" not in octets
    assert (home.keys().load("0042") or b"").hex().encode() not in octets
    assert fallwatch("backup", "--check", file, "--json")[0] == 0
    status, out, err = fallwatch(*new_pi.options(), "restore", file, "--clock-is-right")
    assert (status, err) == (0, "")
    assert "The old computer must not run again" in out
    assert new_pi.config.read_text() == SETTINGS
    assert new_pi.config.stat().st_mode & 0o777 == 0o640
    assert new_pi.keys().load("0042") == home.keys().load("0042")
    assert new_pi.incidents() == {incident}
    there = {str(path.relative_to(new_pi.state)) for path in new_pi.state.rglob("*") if path.is_file()}
    assert there == {"journal.db", "journal.db.lock", "counters.json", "models/wrist-7/card.json"}


def test_staff_are_told_that_what_came_after_the_backup_is_not_known(
    home: House, new_pi: House, file: Path
) -> None:
    home.fill()
    back_up(home.config, home.state, file, WORDS)
    new_pi.restore(file)
    journal = Journal(new_pi.state / JOURNAL_FILE, look_for_loss=True)
    lost = journal.last_note("lost")
    journal.close()
    assert lost is not None
    assert lost.body["because"] == backups.RESTORED


def test_after_a_restore_no_recorded_packet_is_heard_and_no_command_counter_comes_again(
    home: House, new_pi: House, file: Path
) -> None:
    home.fill()
    watch, old = home.keys().simulated_wearable("0042"), home.keys().gateway(["0042"])
    first = watch.seal(STATUS)
    assert old.open(first) is not None
    old.stop()
    back_up(home.config, home.state, file, WORDS)
    old = home.keys().gateway(["0042"])
    later = [watch.seal(STATUS) for _ in range(3)]
    sent = [old.seal("0042", Identify()) for _ in range(40)]
    assert all(old.open(packet) is not None for packet in later)

    new_pi.restore(file)
    gateway = new_pi.keys().gateway(["0042"])
    assert [gateway.open(packet) for packet in [first, *later]] == [None] * 4
    session = gateway.session("0042")
    assert session is not None
    assert not session.proved
    command = gateway.seal("0042", Identify())
    counters = {int.from_bytes(packet[10:14], "little") for packet in sent}
    assert int.from_bytes(command[10:14], "little") > max(counters)
    assert int.from_bytes(command[10:14], "little") < MAX_COUNTER
    # The wearable itself is heard again as soon as it has answered.
    proof = watch.open(gateway.proofs_due(0.0)[0][1])
    assert isinstance(proof, Prove)

    assert gateway.open(watch.seal(Proof(proof.challenge))) is not None
    assert gateway.open(watch.seal(STATUS)) is not None


def test_a_home_that_is_there_is_replaced_only_when_asked_and_is_set_aside(home: House, file: Path) -> None:
    before = home.fill()
    back_up(home.config, home.state, file, WORDS)
    after = home.fall()
    with pytest.raises(BackupFailed, match="there is a home here already"):
        home.restore(file)
    assert home.incidents() == {before, after}
    aside = home.restore(file, replace=True)
    assert home.incidents() == {before}
    assert {path.parent for path in aside} == {home.config.parent, home.state}
    assert (aside[0] / "fallwatch.toml").read_text() == SETTINGS
    kept = sqlite3.connect(aside[1] / JOURNAL_FILE).execute("SELECT id FROM incident").fetchall()
    assert {row[0] for row in kept} == {before, after}
    assert not [name for name in check_names(home, file.with_name("again.fwbackup")) if "replaced" in name]


def check_names(home: House, file: Path) -> list[str]:
    back_up(home.config, home.state, file, WORDS)
    return list(check(file, WORDS).files)


def test_a_wrong_clock_and_a_running_service_are_in_the_way(
    home: House, new_pi: House, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.fill()
    back_up(home.config, home.state, file, WORDS)
    monkeypatch.setattr(backups, "clock_ok", lambda: False)
    with pytest.raises(BackupFailed, match="is not synchronised and says"):
        new_pi.restore(file, clock_is_right=False)
    monkeypatch.setattr(backups, "utc_now", lambda: datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(BackupFailed, match="set the clock"):
        new_pi.restore(file)
    monkeypatch.undo()
    new_pi.run.mkdir(parents=True)
    write_runfile(new_pi.run / "alarm.json", {})
    with pytest.raises(BackupFailed, match="alarm is running"):
        new_pi.restore(file)
    assert not new_pi.state.exists()
    assert not new_pi.config.exists()


def test_the_oldest_go_and_those_of_another_home_stay(home: House, tmp_path: Path) -> None:
    home.fill()
    folder = tmp_path / "stick"
    folder.mkdir()
    names = [f"fallwatch-site-7-2026010{day}T000000Z.fwbackup" for day in range(1, 6)]
    for name in [*names, "fallwatch-site-71-20260101T000000Z.fwbackup", "letter.txt"]:
        (folder / name).touch()
    made, _ = back_up_to(folder, home.config, home.state, WORDS, keep=3)
    left = {path.name for path in folder.iterdir()}
    assert left == {*names[3:], made.name, "fallwatch-site-71-20260101T000000Z.fwbackup", "letter.txt"}


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("short", 0o600, "fewer than 12"),
        ("four words are easy", 0o644, "everybody may read it"),
        (None, 0, "cannot"),
    ],
)
def test_a_weak_or_open_passphrase_is_refused(
    *,
    home: House,
    file: Path,
    tmp_path: Path,
    text: str | None,
    mode: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home.fill()
    path = tmp_path / "words"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    words = [*home.options(), "backup", "--out", file, "--passphrase-file", path]
    status, _, err = run_here(monkeypatch, capsys, *words)
    assert status == 2
    assert says in err
    assert not file.exists()


# -- while the home is at work -------------------------------------------------------------------


@pytest.fixture
def writing(home: House) -> Iterator[Callable[[], tuple[list[str], float]]]:
    """A journal that is written to all the time; stopping it gives what was committed and the longest write."""
    home.fill()
    told, longest_s, stop = list[str](), [0.0], threading.Event()

    def write() -> None:
        journal = Journal(home.state / JOURNAL_FILE)
        while not stop.is_set():
            facts = Incident(new_incident_id(), "site-7", Kind.FALL, datetime.now(UTC), room="12")
            begun_s = time.monotonic()
            journal.raise_incident(facts, filler="x" * 2000)
            longest_s[0] = max(longest_s[0], time.monotonic() - begun_s)
            told.append(facts.incident)
        journal.close()

    thread = threading.Thread(target=write)
    thread.start()

    def end() -> tuple[list[str], float]:
        stop.set()
        thread.join()
        return told, longest_s[0]

    yield end
    end()


def test_a_backup_holds_up_no_incident_and_has_all_that_was_committed_before_it(
    home: House, new_pi: House, file: Path, passphrase: Path, writing: Callable[[], tuple[list[str], float]]
) -> None:
    time.sleep(0.3)
    journal = Journal(home.state / JOURNAL_FILE)
    before = {case.facts.incident for case in journal.cases(limit=1_000_000)}
    journal.close()
    words = ["backup", "--out", str(file), "--passphrase-file", str(passphrase)]
    subprocess.run([sys.executable, "-m", "edge.cli", *home.options(), *words], check=True, timeout=60)
    _, longest_s = writing()
    assert longest_s < 1.0  # on this machine a write now and then takes a tenth of that by itself
    new_pi.restore(file)
    assert before <= new_pi.incidents() <= home.incidents()


def test_a_damaged_database_makes_no_backup(home: House, file: Path) -> None:
    home.fill()
    path = home.state / JOURNAL_FILE
    octets = bytearray(path.read_bytes())
    octets[4096:8192] = b"\xff" * 4096
    path.write_bytes(octets)
    with pytest.raises(BackupFailed, match="cannot be copied whole"):
        back_up(home.config, home.state, file, WORDS)
    assert list(file.parent.glob("*backup*")) == []


# -- cut off ------------------------------------------------------------------------------------


def killed(home: House, place: str, *words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", *home.options(), *map(str, words)],
        env={**os.environ, "FALLWATCH_FAILPOINTS": f"{place}=kill@1"},
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("place", ["backup.copied", "backup.written"])
def test_killed_while_it_backs_up_there_is_no_half_backup_and_the_next_one_cleans_up(
    home: House, passphrase: Path, tmp_path: Path, place: str
) -> None:
    home.fill()
    folder = tmp_path / "stick"
    killed(home, place, "backup", "--to", folder, "--passphrase-file", passphrase)
    assert list(folder.glob("fallwatch-*")) == []
    made, _ = back_up_to(folder, home.config, home.state, WORDS, keep=3)
    assert check(made, WORDS).home == "site-7"
    assert list(folder.iterdir()) == [made]
    assert not (home.state / ".backup").exists()


@pytest.mark.parametrize("place", ["restore.begun", "restore.aside", "restore.placed"])
@pytest.mark.parametrize("replace", [True, False], ids=["replacing", "new"])
def test_killed_while_it_restores_no_half_home_runs_and_the_same_command_completes_it(
    *, home: House, new_pi: House, file: Path, passphrase: Path, place: str, replace: bool
) -> None:
    before = home.fill()
    back_up(home.config, home.state, file, WORDS)
    after = home.fall()
    target = home if replace else new_pi
    words = ["restore", file, "--clock-is-right", "--passphrase-file", passphrase]
    killed(target, place, *words, *["--replace"] * replace)
    if place != "restore.begun":
        assert not target.config.exists()  # without settings no service starts
    aside = target.restore(file)
    assert target.incidents() == {before}
    assert load_settings(target.config).home.id == "site-7"
    if replace:
        kept = sqlite3.connect(aside[1] / JOURNAL_FILE).execute("SELECT id FROM incident").fetchall()
        assert {row[0] for row in kept} == {before, after}
    assert not (target.state / ".restoring").exists()


# -- damaged ------------------------------------------------------------------------------------


def sealed(plain: bytes) -> bytes:
    out = io.BytesIO()
    writer = SealedWriter(out, WORDS)
    writer.write(plain)
    writer.finish()
    return out.getvalue()


def opened(octets: bytes, passphrase: bytes = WORDS) -> bytes:
    reader, plain = SealedReader(io.BytesIO(octets), passphrase), b""
    while part := reader.read(10_000):
        plain += part
    return plain


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_was_sealed_is_opened_whatever_its_size(size: int) -> None:
    plain = os.urandom(size)
    assert opened(sealed(plain)) == plain


SEALED = sealed(bytes(4 * CHUNK + 5))


@given(data=st.data())
@settings(max_examples=25)  # each takes scrypt's time
def test_damage_anywhere_is_found(data: st.DataObject) -> None:
    octets = bytearray(SEALED)
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    octets[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Unsealable):
        opened(bytes(octets))


def test_chunks_left_out_swapped_or_cut_off_are_found() -> None:
    head, step = len(MAGIC) + SALT_OCTETS, CHUNK + 16
    chunks = [SEALED[at : at + step] for at in range(head, len(SEALED), step)]
    assert len(chunks) == 5
    for wrong in (
        chunks[1:],
        chunks[:-1],
        [*chunks, chunks[-1]],
        [chunks[1], chunks[0], *chunks[2:]],
        [chunks[-1]],
        [],
    ):
        with pytest.raises(Unsealable):
            opened(SEALED[:head] + b"".join(wrong))
    with pytest.raises(Unsealable, match="passphrase is another"):
        opened(SEALED, b"four other words here")


def test_a_damaged_backup_touches_nothing(home: House, new_pi: House, file: Path) -> None:
    home.fill()
    (home.state / "more.bin").write_bytes(os.urandom(3 * CHUNK))
    back_up(home.config, home.state, file, WORDS)
    octets = file.read_bytes()
    for bad in (octets[:-1], octets[: len(octets) // 2], octets[:-40] + bytes([octets[-40] ^ 1]) + octets[-39:]):
        file.write_bytes(bad)
        with pytest.raises(BackupFailed):
            new_pi.restore(file)
    assert not new_pi.state.exists()
    assert not new_pi.config.exists()
