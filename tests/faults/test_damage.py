"""A journal that is damaged or gone, at the start or while the service runs: people are called, and told."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edge.core.incident import Outcome
from edge.journal import JOURNAL_FILE, Journal
from tests.faults.counts import SEED, count, folder_in_memory, tell
from tests.faults.test_schedules import HOME
from tests.faults.virtual import VirtualHome, virtual_home

PLACES = count(30, 200)
START_S = 15.0  # and all that follows, some minutes of virtual time
Harm = Callable[[Path, random.Random], None]

pytestmark = pytest.mark.timeout(300)


def home_at_work(folder: Path, rng: random.Random) -> dict[str, str]:
    """Leave the files of a home in which some incidents are closed and some open; return the open ones' rooms."""
    with virtual_home(HOME, folder / "before", rng) as home:
        home.tells_record = False
        for number in range(12):
            home.at(1.0 + number, partial(home.fall, resident=f"r{1 + number % 2}"))
        home.run(200.0)
        cases = home.journal.open_cases()
        for case in cases[:8]:
            home.journal.resolve(case.facts.incident, Outcome.FALL, "anna")
        with closing(sqlite3.connect(folder / "before" / JOURNAL_FILE)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        home.at(home.now_s + 1.0, home.fall)
        home.run(home.now_s + 60.0)
        cases.append(home.journal.open_cases()[-1])
        # Copied while it is open, as a power cut finds it: most in the file, the last minute in the log beside it.
        shutil.copytree(folder / "before", folder / "state")
        return {case.facts.incident: case.facts.room or "" for case in cases[8:]}


def flip(path: Path, rng: random.Random) -> None:
    """Damage up to 16 octets at one place."""
    content = bytearray(path.read_bytes())
    at = rng.choice([rng.randrange(100), rng.randrange(len(content)), rng.randrange(len(content))])
    for offset in range(at, min(at + rng.choice([1, 4, 16]), len(content))):
        content[offset] ^= rng.randint(1, 255)
    descriptor = os.open(path, os.O_WRONLY)  # in place: the file under the service is the same
    os.write(descriptor, content)
    os.close(descriptor)


def wipe(path: Path, rng: random.Random) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def look(home: VirtualHome, opened: dict[str, str], new: str) -> Counter[str]:
    """Return what became of the incidents that were open, of a new one, and of the damaged file."""
    faults = [s for s in home.far.sent if "INCIDENT STORE" in s.page.text]
    called = {s.page.incident for s in home.far.sent if s.page.text.startswith("FALL?")}
    late = home.first_page_s(new) - home.raised_s[new]
    kept = [*home.folder.glob(f"{JOURNAL_FILE}.damaged-*")]
    return Counter(
        quarantined=bool(kept),
        told=bool(faults),
        unseen=sum(incident not in called for incident in opened) * (not faults),
        late_page=late > 2.0,
        kept_but_not_told=bool(kept) and not faults,
    )


def life(rng: random.Random, harm: Harm, part: str, *, running: bool) -> Counter[str]:
    """Harm a file before the service starts, or while it runs; return what became of the incidents."""
    with folder_in_memory() as folder:
        opened = home_at_work(folder, rng)
        path = folder / "state" / f"{JOURNAL_FILE}{part}"
        if not running:
            harm(path, rng)
        with virtual_home(HOME, folder / "state", rng) as home:
            home.tells_record = False
            if running:
                home.at(2.0, partial(harm, path, rng))
            else:  # as after a power cut
                home.clock.boot = "the boot after"
            home.at(30.0, home.fall)
            home.run(200.0)
            (new,) = home.raised_s
            return look(home, opened, new)


@pytest.mark.parametrize("part", ["", "-wal"], ids=["file", "log"])
@pytest.mark.parametrize("running", [False, True], ids=["at-the-start", "while-it-runs"])
def test_wherever_the_journal_is_damaged_people_are_called(part: str, running: bool) -> None:
    total, slowest_s = Counter[str](), 0.0
    for seed in range(SEED, SEED + PLACES):
        begun_s = time.monotonic()
        total += life(random.Random(seed), flip, part, running=running)
        slowest_s = max(slowest_s, time.monotonic() - begun_s)
    when = "while it runs" if running else "at the start"
    tell(f"6 journal{part} damaged {when}", places=PLACES, **total, slowest_s=slowest_s)
    assert (total["late_page"], total["kept_but_not_told"]) == (0, 0)
    assert slowest_s < START_S


@pytest.mark.parametrize("loss", [wipe, truncate])
@pytest.mark.parametrize("running", [False, True], ids=["at-the-start", "while-it-runs"])
def test_a_journal_that_is_gone_or_cut_short_is_told(loss: Harm, running: bool) -> None:
    total = Counter[str]()
    for seed in range(SEED, SEED + count(3, 50)):
        total += life(random.Random(seed), loss, "", running=running)
    when = "while it runs" if running else "at the start"
    tell(f"6 journal {loss.__name__}d {when}", times=count(3, 50), **total)
    assert (total["unseen"], total["late_page"], total["kept_but_not_told"]) == (0, 0, 0)


# -- what was once wrong, in its plainest form --------------------------------------------------


def test_an_open_incident_that_cannot_be_read_is_told() -> None:
    def spoil(path: Path, _: random.Random) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE incident SET body = CAST(x'7bff' AS TEXT) WHERE closed = 0")
            db.commit()

    assert life(random.Random(SEED), spoil, "", running=False)["unseen"] == 0


def test_an_open_incident_that_was_only_in_a_damaged_log_is_told() -> None:
    def spoil(path: Path, _: random.Random) -> None:
        content = bytearray(path.read_bytes())
        content[100] ^= 1  # in the first page of the log
        path.write_bytes(content)

    assert life(random.Random(SEED), spoil, "-wal", running=False)["unseen"] == 0


def test_a_damaged_name_in_the_schema_is_damage_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    Journal(path).close()
    content = path.read_bytes().replace(b"indexoutbox_waiting", b"indexoutbox_wait\xaa\xaa\xaa")
    path.write_bytes(content.replace(b"CREATE INDEX outbox", b"CREATE IN\xaaEX outbox"))
    journal = Journal(path)
    assert journal.quarantined is not None
    journal.close()
