"""One sealed file that holds a home, taken while its services run, and the way back onto this Pi or a new one."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import importlib.metadata
import io
import json
import os
import pwd
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast
from urllib.parse import quote

from edge.clock import clock_ok, utc_now
from edge.core.incident import parse_utc, utc_text
from edge.failpoint import failpoint
from edge.journal import JOURNAL_FILE, SCHEMA_VERSION, Journal
from edge.keys import doubted
from edge.runfile import read_runfile
from edge.sealed import SealedReader, SealedWriter, Unsealable
from edge.settings import load_settings

SCHEMA = 1
MANIFEST = "manifest.json"
SETTINGS = "settings.toml"
COUNTERS = "state/counters.json"
SUFFIX = ".fwbackup"
RESTORED = "restored"  # as the journal notes it for staff
_BESIDE = ("secrets", "model-keys")  # the settings file
# Of other processes, of virtual wearables, or of an earlier restore.
_LEFT_OUT = re.compile(r"\..*|.*(-wal|-shm|\.lock|\.new|\.tmp)|.*\.damaged.*|simulated|replaced-.*")
_SQLITE = b"SQLite format 3\0"
_BUSY_S = 5.0
_RUNNING_S = 15.0  # a service that said something so lately runs
_STAGING, _RESTORING = ".backup", ".restoring"


class BackupFailed(Exception):
    """No backup was made, checked or restored; ``path`` and ``reason`` say of what and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    home: str
    made_at: datetime
    fallwatch: str  # the version that made it
    journal_schema: int
    files: dict[str, dict[str, Any]]  # name: octets, sha256

    @property
    def octets(self) -> int:
        """All that is in it."""
        return sum(facts["octets"] for facts in self.files.values())


@dataclass(frozen=True, slots=True)
class _Part:
    """A file or folder on its way into a backup."""

    original: Path  # whose owner and mode it has
    content: bytes | Path | None  # what it held at one moment; a copy of a database; None of a folder


# -- making one ---------------------------------------------------------------------------------


def back_up(config: Path, state: Path, out: Path, passphrase: bytes) -> Manifest:
    """Write a backup; ``out`` appears in one step, whole and on disk, or not at all.

    Databases are copied by SQLite within one read transaction: nobody who writes to them waits for that.

    Raises:
        BackupFailed: a database is damaged, a file cannot be read, or ``out`` cannot be written.
        SettingsError: the settings cannot be used.
    """
    settings = load_settings(config)
    if out.exists():
        raise BackupFailed(out, "is there already, and a backup is never written over; name another")
    new = out.with_name(f".{out.name}.new")
    try:
        with _staging(state) as staging:
            files = _gather(config, state, staging)
            failpoint("backup.copied")
            manifest = Manifest(
                settings.home.id,
                utc_now(),
                importlib.metadata.version("fallwatch"),
                SCHEMA_VERSION,
                {name: _facts(part.content) for name, part in files.items() if part.content is not None},
            )
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                sealed = SealedWriter(file, passphrase)
                _write_tar(sealed, manifest, files)
                sealed.finish()
                failpoint("backup.written")
                file.flush()
                os.fsync(file.fileno())
        new.rename(out)
        _sync(out.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise BackupFailed(Path(error.filename or out), error.strerror or str(error)) from None
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return manifest


def back_up_to(folder: Path, config: Path, state: Path, passphrase: bytes, *, keep: int) -> tuple[Path, Manifest]:
    """Write a dated backup into a folder, then remove this home's oldest until ``keep`` are left.

    Raises:
        BackupFailed, SettingsError: as `back_up`; nothing was removed.
    """
    home = load_settings(config).home.id
    ours = re.compile(rf"fallwatch-{re.escape(home)}-\d{{8}}T\d{{6}}Z{re.escape(SUFFIX)}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.glob(f".fallwatch-*{SUFFIX}.new"):  # of one that was cut off
            left.unlink()
    except OSError as error:
        raise BackupFailed(folder, error.strerror or str(error)) from None
    out = folder / f"fallwatch-{home}-{utc_now():%Y%m%dT%H%M%SZ}{SUFFIX}"
    manifest = back_up(config, state, out, passphrase)
    # By name, and never the one just made: a clock that was wrong must not remove it.
    older = sorted(path for path in folder.iterdir() if ours.fullmatch(path.name) and path != out)
    for path in older[: max(len(older) - keep + 1, 0)]:
        path.unlink()
    return out, manifest


@contextlib.contextmanager
def _staging(state: Path) -> Iterator[Path]:
    """Have a folder for copies of databases, on the disk that held them all along, and clear it afterwards."""
    staging = state / _STAGING
    staging.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in staging.iterdir():
            left.unlink()
        yield staging
        shutil.rmtree(staging, ignore_errors=True)
    except BlockingIOError:
        raise BackupFailed(staging, "another backup is being made; wait for it") from None
    finally:
        os.close(folder)


def _databases(state: Path) -> list[Path]:
    return [path for path in sorted(state.iterdir()) if _is_kept(path) and path.is_file() and _is_database(path)]


def _is_kept(path: Path) -> bool:
    return not _LEFT_OUT.fullmatch(path.name)


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _gather(config: Path, state: Path, staging: Path) -> dict[str, _Part]:
    """Return all that a home consists of, by its name in the backup, with copies in place of databases."""
    databases = {path: _copy(path, staging / path.name) for path in _databases(state)}
    found = {SETTINGS: _Part(config, config.read_bytes())}
    for root, top in [*((name, config.parent / name) for name in _BESIDE), ("state", state)]:
        if not top.exists():
            continue
        for folder, folders, names in os.walk(top, onerror=_raise):
            folders[:] = sorted(name for name in folders if not _LEFT_OUT.fullmatch(name))
            inside = PurePosixPath(root, *Path(folder).relative_to(top).parts)
            found[str(inside)] = _Part(Path(folder), None)
            for path in (Path(folder, name) for name in sorted(names)):
                if not _LEFT_OUT.fullmatch(path.name) and path.is_file():
                    with contextlib.suppress(FileNotFoundError):  # a pause that has just ended
                        content = databases[path] if path in databases else path.read_bytes()
                        found[str(inside / path.name)] = _Part(path, content)
    return found


def _raise(error: OSError) -> None:
    raise error  # a folder that is closed to us is no empty one: its keys would be missing


def _copy(source: Path, target: Path) -> Path:
    """Copy a database that others write to meanwhile, all of it at one moment, and look whether it is whole."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=_BUSY_S)) as db,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        try:
            copy.execute("PRAGMA synchronous = OFF")  # soon removed again
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file
            verdict = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        except (sqlite3.Error, UnicodeDecodeError) as error:
            verdict = str(error)
    if verdict != "ok":
        raise BackupFailed(source, f"cannot be copied whole ({verdict}); see fallwatch status")
    return target


def _facts(content: bytes | Path) -> dict[str, Any]:
    if isinstance(content, bytes):
        return {"octets": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with content.open("rb") as file:
        return {"octets": content.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_tar(out: SealedWriter, manifest: Manifest, files: dict[str, _Part]) -> None:
    facts = {
        "schema": SCHEMA,
        "home": manifest.home,
        "made_at": utc_text(manifest.made_at),
        "fallwatch": manifest.fallwatch,
        "journal_schema": manifest.journal_schema,
        "files": manifest.files,
    }
    text = json.dumps(facts).encode()
    with tarfile.open(fileobj=cast("IO[bytes]", out), mode="w|", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
        for name, part in files.items():
            member = tar.gettarinfo(part.original, name)
            if part.content is None:
                tar.addfile(member)
                continue
            member.type, member.linkname, member.size = tarfile.REGTYPE, "", manifest.files[name]["octets"]
            with io.BytesIO(part.content) if isinstance(part.content, bytes) else part.content.open("rb") as file:
                tar.addfile(member, file)


# -- reading one -----------------------------------------------------------------------------------


def check(file: Path, passphrase: bytes) -> Manifest:
    """Read a whole backup and compare each file with the manifest.

    Raises:
        BackupFailed: it cannot be read, is damaged, or the passphrase is another.
    """
    with _opened(file, passphrase) as (manifest, tar):
        left = dict(manifest.files)
        for member in _members(tar):
            _need_place(file, member)
            if member.isreg():
                octets: Any = tar.extractfile(member)
                if hashlib.file_digest(octets, "sha256").hexdigest() != left.pop(member.name, {}).get("sha256"):
                    raise BackupFailed(file, f"{member.name} is not as its manifest says")
        if left:
            raise BackupFailed(file, f"{', '.join(left)} is missing in it")
    return manifest


@contextlib.contextmanager
def _opened(file: Path, passphrase: bytes) -> Iterator[tuple[Manifest, tarfile.TarFile]]:
    try:
        with file.open("rb") as sealed:
            reader = cast("IO[bytes]", SealedReader(cast("BinaryIO", sealed), passphrase))
            with tarfile.open(fileobj=reader, mode="r|") as tar:
                first = tar.next()
                if first is None or first.name != MANIFEST:
                    raise BackupFailed(file, "has no manifest")
                facts = json.loads(cast("IO[bytes]", tar.extractfile(first)).read())
                if facts["schema"] != SCHEMA or facts["journal_schema"] > SCHEMA_VERSION:
                    raise BackupFailed(file, f"was made by a newer fallwatch ({facts['fallwatch']}): update first")
                made_at = parse_utc(facts["made_at"])
                yield (
                    Manifest(facts["home"], made_at, facts["fallwatch"], facts["journal_schema"], facts["files"]),
                    tar,
                )
                while reader.read(1 << 16):  # to the end, which says that nothing was cut off
                    pass
    except Unsealable as error:
        raise BackupFailed(file, str(error)) from None
    except OSError as error:
        raise BackupFailed(Path(error.filename or file), error.strerror or str(error)) from None
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise BackupFailed(file, f"cannot be read: {error!r}") from None


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield what comes after the manifest."""
    while (member := tar.next()) is not None:
        yield member


def _need_place(file: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name).parts
    known = member.name == SETTINGS or (parts and parts[0] in {*_BESIDE, "state"})
    if not known or ".." in parts or not (member.isreg() or member.isdir()):
        raise BackupFailed(file, f"holds {member.name!r}, which has no place in a home")


def restore(
    file: Path, passphrase: bytes, *, config: Path, state: Path, run: Path, replace: bool, clock_is_right: bool
) -> tuple[Manifest, list[Path]]:
    """Put a home in place from a backup; return what it holds, and where what was there before now lies.

    Everything is read and checked first. The settings go last and without them no service starts, so a restore
    that was cut off leaves no half home at work; the same command again completes it.

    Raises:
        BackupFailed: a service runs, there is a home already, the clock is wrong, or the backup is not well.
    """
    manifest = check(file, passphrase)
    _need_rest(run)
    _need_clock(manifest, clock_is_right=clock_is_right)
    marker = state / _RESTORING
    cut_off = marker.exists()
    there = config.exists() or any((state / name).exists() for name in (JOURNAL_FILE, "counters.json"))
    if there and not replace and not cut_off:
        raise BackupFailed(config, "there is a home here already; --replace sets it aside")
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
        config.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        stamp = marker.read_text() if cut_off else f"replaced-{utc_now():%Y%m%dT%H%M%S}" if there else ""
        if not cut_off:
            _put(marker, io.BytesIO(stamp.encode()))
            _sync(state)
        failpoint("restore.begun")
        aside = _set_aside(config, state, stamp) if stamp else []
        failpoint("restore.aside")
        _place(file, passphrase, config, state)
        marker.unlink()
        _sync(state)
    except OSError as error:
        remedy = "; run the same command again, as root"
        raise BackupFailed(Path(error.filename or state), (error.strerror or str(error)) + remedy) from None
    return manifest, aside


def _need_rest(run: Path) -> None:
    for service in ("detect", "alarm"):
        said = read_runfile(run / f"{service}.json")
        if said is not None and said["age_s"] < _RUNNING_S:
            raise BackupFailed(run, f"{service} is running; sudo systemctl stop fallwatch.target, and wait 15 s")


def _need_clock(manifest: Manifest, *, clock_is_right: bool) -> None:
    """Commands to wearables count on from the clock: one that is behind would use a counter a second time."""
    if utc_now() < manifest.made_at:
        made = utc_text(manifest.made_at)
        raise BackupFailed(Path(MANIFEST), f"was made at {made}, which this clock has not reached: set the clock")
    if not clock_ok() and not clock_is_right:
        now = f"{utc_now():%Y-%m-%d %H:%M} UTC"
        reason = f"is not synchronised and says {now}; if that is right, say --clock-is-right"
        raise BackupFailed(Path("clock"), reason)


def _set_aside(config: Path, state: Path, stamp: str) -> list[Path]:
    """Move what is there into a folder beside it; what an earlier try already put in place is in the way."""
    folders = []
    here = [config, *(config.parent / name for name in _BESIDE)]
    lying = [p for p in state.iterdir() if not p.name.startswith((".", "replaced-"))]
    for folder, paths in ((config.parent / stamp, here), (state / stamp, lying)):
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in filter(Path.exists, paths):
            if not (folder / path.name).exists():
                path.rename(folder / path.name)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        _sync(folder.parent)
        folders.append(folder)
    return folders


def _place(file: Path, passphrase: bytes, config: Path, state: Path) -> None:
    settings: tuple[bytes, tarfile.TarInfo] | None = None
    touched = {config.parent, state}
    with _opened(file, passphrase) as (_, tar):
        for member in _members(tar):
            top, *rest = PurePosixPath(member.name).parts
            if member.name == SETTINGS:
                settings = cast("IO[bytes]", tar.extractfile(member)).read(), member
                continue
            target = (state if top == "state" else config.parent / top).joinpath(*rest)
            if member.isdir():
                _make_folder(target, member)
                continue
            octets = cast("IO[bytes]", tar.extractfile(member))
            if member.name == COUNTERS:
                octets = io.BytesIO(doubted(octets.read()))
            for suffix in ("-wal", "-shm"):  # of another database of this name
                target.with_name(target.name + suffix).unlink(missing_ok=True)
            _put(target, octets, member)
            touched.add(target.parent)
    if settings is None:
        raise BackupFailed(file, "holds no settings")
    journal = state / JOURNAL_FILE
    if journal.exists():
        _note(journal)
    failpoint("restore.placed")
    for folder in touched:
        _sync(folder)
    _put(config, io.BytesIO(settings[0]), settings[1])
    _sync(config.parent)


def _note(path: Path) -> None:
    """Have staff told that what happened since the backup is not known here."""
    journal = Journal(path)
    journal.add_note("lost", because=RESTORED)
    journal.close()
    owner = path.stat()
    for beside in path.parent.glob(f"{path.name}?*"):
        if os.geteuid() == 0:
            os.chown(beside, owner.st_uid, owner.st_gid)


def _make_folder(path: Path, member: tarfile.TarInfo) -> None:
    path.mkdir(exist_ok=True)
    _own(path, member)
    path.chmod(member.mode)


def _own(path: Path, member: tarfile.TarInfo) -> None:
    """Give a file to whom it belonged, by name; to the folder's owner where nobody here is called so."""
    if os.geteuid() != 0:
        return
    folder = path.parent.stat()
    uid, gid = folder.st_uid, folder.st_gid
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(member.uname).pw_uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(member.gname).gr_gid
    os.chown(path, uid, gid)


def _put(path: Path, octets: IO[bytes], member: tarfile.TarInfo | None = None) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        shutil.copyfileobj(octets, file)
        file.flush()
        if member is not None:
            _own(new, member)
            os.fchmod(file.fileno(), member.mode & 0o777)
        os.fsync(file.fileno())
    new.replace(path)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
