"""A disk whose power is cut: what was written since the last sync is lost, torn, or there out of order.

`Disk` is an apsw VFS over the ordinary one. It knows of each file what is surely on it (as of the last sync) and
what is on its way, and can so tell what a cut at any write leaves. It can also answer writes with an error.
`through` has the stores of fallwatch work through it: they ask for ``sqlite3``, and get apsw in its place.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import apsw
import pytest

SECTOR = 512  # octets; what a disk writes whole
# What a program may find in place of a file that other programs shared in memory when the power went.
_STALE_SHM = b"\x18\xe2\x2d\x00" * 1024


@dataclass
class _File:
    """What is surely on disk of a file, and what is on its way: (offset, octets), or None to cut it at offset."""

    sure: bytes = b""
    under_way: list[tuple[int, bytes | None]] = field(default_factory=list)
    named: bool = True  # whether its folder is synced since it was made
    removed: bool = False  # the name is gone, but the folder not synced since

    def sync(self) -> None:
        content = bytearray(self.sure)
        for offset, octets in self.under_way:
            _apply(content, offset, octets)
        self.sure, self.under_way = bytes(content), []

    def after_cut(self, rng: random.Random) -> bytes:
        """Return what is found of it: the sure part, and any of the rest by sectors, in whatever order."""
        content = bytearray(self.sure)
        steps = [step for offset, octets in self.under_way for step in _sectors(offset, octets)]
        if rng.random() < 0.5:  # in order, up to somewhere
            steps = steps[: rng.randint(0, len(steps))]
        else:
            part = rng.random()
            steps = [step for step in steps if rng.random() < part]
        for offset, octets in steps:
            _apply(content, offset, octets)
        return bytes(content)


def _sectors(offset: int, octets: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if octets is None:
        yield offset, None
        return
    begin = 0
    while begin < len(octets):
        end = min(len(octets), begin + SECTOR - (offset + begin) % SECTOR)
        yield offset + begin, octets[begin:end]
        begin = end


def _apply(content: bytearray, offset: int, octets: bytes | None) -> None:
    if octets is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(octets)] = octets


class Disk(apsw.VFS):
    """A disk that loses power before its ``cut_at``-th step (a write, sync, cut or removal of a file).

    What a cut leaves is then in ``image``, by name of the file; the program runs on, unaware. ``refuse`` is asked
    before each step and may return the SQLite code of an error to answer with.
    """

    def __init__(
        self, rng: random.Random, *, cut_at: int = 0, refuse: Callable[[int, str], int] = lambda *_: 0
    ) -> None:
        self.vfs = f"disk-{id(self)}"
        self.steps = 0
        self.syncs = 0
        self.image: dict[str, bytes | None] | None = None  # None for a file that is gone
        self.on_cut: list[Callable[[], object]] = []
        self._rng, self._cut_at, self._refuse = rng, cut_at, refuse
        self._files: dict[str, _File] = {}
        super().__init__(self.vfs, "")

    @property
    def is_cut(self) -> bool:
        return self.image is not None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _OpenFile:  # noqa: N802
        assert name is not None, "nothing is written to files without a name"
        return _OpenFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.step("delete")
        super().xDelete(filename, False)
        self.file(filename).removed = True
        if syncdir:
            self.sync_folder()

    def file(self, path: str) -> _File:
        """Return what is known of a file; one that was never opened here is on disk as it is."""
        if path not in self._files:
            there = Path(path)
            self._files[path] = _File(there.read_bytes() if there.exists() else b"", named=there.exists())
        return self._files[path]

    def made_anew(self, path: str) -> None:
        if path in self._files and self._files[path].removed:
            self._files[path] = _File(named=False)

    def sync_folder(self) -> None:
        for path, file in list(self._files.items()):
            file.named = True
            if file.removed:
                del self._files[path]

    def step(self, what: str) -> None:
        """Count a step; at the one that was asked for, keep what a cut leaves."""
        self.steps += 1
        code = self._refuse(self.steps, what)
        if code:
            raise apsw.exception_for(code)
        if self.steps == self._cut_at:
            self.image = {}
            for path, file in self._files.items():
                name = Path(path).name
                there = self._rng.random() < 0.5 if (file.removed or not file.named) else True
                self.image[name] = file.after_cut(self._rng) if there else None
                if name.endswith("-wal"):
                    stale = self._rng.random() < 0.5
                    self.image[name.removesuffix("-wal") + "-shm"] = _STALE_SHM if stale else None
            for told in self.on_cut:
                told()

    def keep_image(self, folder: Path) -> None:
        """Have the folder hold what the cut left; files that were not opened here are as before."""
        assert self.image is not None
        for name, content in self.image.items():
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_bytes(content)


class _OpenFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename, flags: list[int]) -> None:
        self._disk = disk
        self._path = str(Path(name.filename() if isinstance(name, apsw.URIFilename) else name))
        self._syncs_folder = bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL))
        disk.made_anew(self._path)
        disk.file(self._path)
        super().__init__("", name, flags)

    @property
    def _file(self) -> _File:
        return self._disk.file(self._path)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.step("write")
        super().xWrite(data, offset)
        self._file.under_way.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.step("truncate")
        super().xTruncate(newsize)
        self._file.under_way.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.step("sync")  # the real disk is left in peace: only what we know of this one counts
        self._disk.syncs += 1
        self._file.sync()
        if self._syncs_folder:
            self._disk.sync_folder()


# -- apsw in place of sqlite3 -------------------------------------------------------------------


class Connection:
    """An apsw connection that looks like the one of ``sqlite3``, as far as the stores use it.

    ``after_commit`` is called with it when a commit has returned.
    """

    text_factory: object = None  # apsw reads text as UTF-8 itself

    def __init__(self, disk: Disk, path: str, *, timeout_s: float, instead: dict[str, str]) -> None:
        self.path = path
        self._instead = instead
        self.after_commit: Callable[[Connection], object] = lambda _: None
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
        with _as_sqlite3():
            self._db = apsw.Connection(path, flags, disk.vfs)
        self._db.set_busy_timeout(round(timeout_s * 1000))

    def execute(self, sql: str, values: Any = ()) -> _Rows:
        sql = self._instead.get(sql, sql)
        with _as_sqlite3():
            rows = self._db.execute(sql, values).fetchall()
        if sql == "COMMIT":
            self.after_commit(self)
        return _Rows(rows, self._db.changes())

    def executemany(self, sql: str, many: Iterable[Any]) -> None:
        with _as_sqlite3():
            self._db.executemany(sql, many)

    def executescript(self, sql: str) -> None:
        self.execute(sql)

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):  # of what is tidied up in closing; sqlite3 says nothing of it either
            self._db.close()


@dataclass
class _Rows:
    rows: list[Any]
    rowcount: int

    def fetchall(self) -> list[Any]:
        return self.rows

    def fetchone(self) -> Any:
        return self.rows[0] if self.rows else None


@contextlib.contextmanager
def _as_sqlite3() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        code = getattr(error, "extendedresult", 0) or getattr(error, "result", 0)
        kinds: dict[int, type[sqlite3.DatabaseError]] = {
            sqlite3.SQLITE_CONSTRAINT: sqlite3.IntegrityError,
            sqlite3.SQLITE_CORRUPT: sqlite3.DatabaseError,
            sqlite3.SQLITE_NOTADB: sqlite3.DatabaseError,
        }
        translated = kinds.get(code & 0xFF, sqlite3.OperationalError)(str(error))
        translated.sqlite_errorcode = code
        raise translated from None


def through(
    monkeypatch: pytest.MonkeyPatch,
    disk: Disk,
    *modules: ModuleType,
    instead: dict[str, str] | None = None,
    first: Sequence[str] = (),
    opened: Callable[[Connection], object] = lambda _: None,
) -> None:
    """Have stores open their files on ``disk`` from now on.

    Args:
        monkeypatch: puts ``sqlite3`` back in the end.
        disk: where.
        modules: which of our modules.
        instead: statements, and what is said in their place.
        first: statements for each new connection.
        opened: is shown each new connection.
    """

    def connect(path: str | Path, timeout: float = 5.0, **_: Any) -> Connection:
        connection = Connection(disk, str(path), timeout_s=timeout, instead=instead or {})
        for statement in first:
            connection.execute(statement)
        opened(connection)
        return connection

    for module in modules:
        monkeypatch.setattr(module, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": connect}))
