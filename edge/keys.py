"""Wearables' keys and the Pi's counters on disk."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets as randomness
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.settings import WEARABLE_PATTERN
from firmware_bridge.session import (
    KEY_OCTETS,
    MAX_COUNTER,
    Counters,
    CountersNotSaved,
    Gateway,
    WearableCounters,
    WearableSession,
)

log = logging.getLogger(__name__)

_EPOCH_S = 1_577_836_800  # 2020-01-01
_CREDENTIALS = ("wearables_", "wearable-")
_SIMULATED_STEP = 1024  # a virtual wearable may play at many times real time


class KeyUnusable(Exception):
    """A key cannot be read, written or removed; ``path`` and ``reason`` say which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class KeyStore:
    """Keys in the secrets folder, counters in the state folder.

    A key is ``wearables/<id>.key``, 32 hexadecimal digits. Among systemd's credentials, which have no folders,
    it is ``wearables_<id>.key`` (a folder loaded whole) or ``wearable-<id>.key``. The counters of all wearables
    are one file, bound to the keys they belong to; where it is lost or damaged, every wearable must prove
    itself (`firmware_bridge.session`) before it is heard again.
    """

    def __init__(self, secrets: Path, state: Path) -> None:
        self._folder = secrets / "wearables"
        self._credentials = secrets
        self._counters = state / "counters.json"
        self._simulated = state / "simulated"

    def wearables(self) -> tuple[str, ...]:
        """Return the ids of all wearables with a key, sorted."""
        found = {path.stem for path in self._folder.glob("*.key")}
        for prefix in _CREDENTIALS:
            found |= {path.stem.removeprefix(prefix) for path in self._credentials.glob(f"{prefix}*.key")}
        return tuple(sorted(wearable for wearable in found if WEARABLE_PATTERN.fullmatch(wearable)))

    def load(self, wearable: str) -> bytes | None:
        """Return a wearable's key, or nothing if it has none.

        Raises:
            KeyUnusable: there is a file, but it cannot be read or holds no key.
        """
        for path in self._paths(wearable):
            try:
                text = path.read_text(encoding="ascii").strip()
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise KeyUnusable(path, f"cannot be read ({error})") from None
            if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * KEY_OCTETS}}}", text):
                raise KeyUnusable(
                    path, f"is no key of {2 * KEY_OCTETS} hexadecimal digits; pair the wearable again"
                )
            return bytes.fromhex(text)
        return None

    def make(self, wearable: str) -> bytes:
        """Make, store and return a new random key; its counters start afresh.

        Raises:
            KeyUnusable: it cannot be written.
        """
        key = randomness.token_bytes(KEY_OCTETS)
        self._store(wearable, key, Counters())
        return key

    def put(self, wearable: str, key: bytes) -> None:
        """Store a key that came with the wearable, which must then prove itself once: it may have been in use.

        Raises:
            KeyUnusable: it cannot be written.
            ValueError: it has not the length of a key.
        """
        if len(key) != KEY_OCTETS:
            raise ValueError(f"a key has {KEY_OCTETS} octets, not {len(key)}")
        if key != self.load(wearable):
            self._store(wearable, key, _lost())

    def wipe(self, wearable: str) -> bool:
        """Overwrite and remove a wearable's key and its counters; return whether there was one.

        Raises:
            KeyUnusable: it cannot be removed.
        """
        found = False
        for path in self._paths(wearable):
            try:
                with path.open("r+b") as file:
                    file.write(bytes(path.stat().st_size))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()
                _sync_folder(path.parent)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise KeyUnusable(path, f"cannot be removed ({error.strerror})") from None
            found = True
        with contextlib.suppress(OSError), self._locked() as rows:
            rows.pop(wearable, None)
        self._simulated_path(wearable).unlink(missing_ok=True)
        return found

    def gateway(self, wearables: Iterable[str]) -> Gateway:
        """Return the Pi's sessions with those wearables that have a usable key; log which have none."""
        keys = {}
        for wearable in wearables:
            try:
                key = self.load(wearable)
            except KeyUnusable as error:
                log.error("wearable %s cannot be heard: %s", wearable, error)
                continue
            if key is None:
                log.warning("wearable %s cannot be heard: it has no key; run fallwatch pair", wearable)
            else:
                keys[wearable] = key
        try:
            counters = self._read()
        except OSError as error:
            log.error("%s cannot be read: %s", self._counters, error.strerror)
            counters = {}
        prints = {wearable: _fingerprint(key) for wearable, key in keys.items()}

        def save(changed: Mapping[str, Counters]) -> None:
            self._save(changed, prints)

        gateway = Gateway(save)
        for wearable, key in keys.items():
            row = counters.get(wearable)
            found = _counters_of(row, prints[wearable])
            if found is None:
                log.warning("wearable %s: its counters are lost; it must prove itself first", wearable)
            gateway.add(wearable, key, found or _lost())
        return gateway

    def simulated_wearable(self, wearable: str) -> WearableSession:
        """Return the wearable's own side for a virtual one, with counters in a file of its own.

        Raises:
            KeyUnusable: it has no usable key, or the counters cannot be written.
        """
        key = self.load(wearable)
        if key is None:
            raise KeyUnusable(self._paths(wearable)[0], "is missing; run fallwatch pair")
        path, print_ = self._simulated_path(wearable), _fingerprint(key)
        counters = WearableCounters()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            row = json.loads(path.read_text(encoding="ascii"))
            if row["key"] == print_:
                counters = WearableCounters(row["uplink"], row["command"], row["boot"])

        def save(new: WearableCounters) -> None:
            row = {"key": print_, "uplink": new.uplink, "command": new.command, "boot": new.boot}
            try:
                _write(path, json.dumps(row))
            except OSError as error:
                raise KeyUnusable(path, f"cannot be written ({error.strerror})") from None

        return WearableSession(wearable, key, counters, save=save, step=_SIMULATED_STEP)

    def _paths(self, wearable: str) -> list[Path]:
        if not WEARABLE_PATTERN.fullmatch(wearable):
            raise ValueError(f"{wearable!r} is no wearable id")
        name = f"{wearable}.key"
        return [self._folder / name, *(self._credentials / (prefix + name) for prefix in _CREDENTIALS)]

    def _simulated_path(self, wearable: str) -> Path:
        return self._simulated / f"{wearable}.json"

    def _store(self, wearable: str, key: bytes, counters: Counters) -> None:
        path = self._paths(wearable)[0]
        try:
            # Counters first: without its key a row is harmless, a key without its row would count as lost.
            with self._locked() as rows:
                rows[wearable] = _row(counters, _fingerprint(key))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, key.hex() + "\n")
        except OSError as error:
            raise KeyUnusable(path, f"cannot be written ({error.strerror})") from None

    def _save(self, changed: Mapping[str, Counters], prints: Mapping[str, str]) -> None:
        try:
            with self._locked() as rows:
                for wearable, counters in changed.items():
                    row = rows.get(wearable)
                    if row is None or row["key"] == prints[wearable]:
                        rows[wearable] = _row(counters, prints[wearable])
        except OSError as error:
            raise CountersNotSaved(f"{self._counters}: {error.strerror}") from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        """Yield the rows for change, and write them back in one step; two processes take turns."""
        folder = self._counters.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = self._read()
            before = json.dumps(rows)
            yield rows
            if json.dumps(rows) != before:
                _write(self._counters, json.dumps({"schema": 1, "sum": _sum(rows), "wearables": rows}, indent=1))
        finally:
            os.close(lock)

    def _read(self) -> dict[str, Any]:
        try:
            text = self._counters.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            table = json.loads(text)
            rows: dict[str, Any] = table["wearables"]
            if table["schema"] != 1 or table["sum"] != _sum(rows):
                raise ValueError("its sum is wrong")
        except (ValueError, KeyError, TypeError) as error:
            aside = self._counters.with_suffix(".damaged")
            log.error("%s is damaged (%s); kept as %s", self._counters, error, aside)
            self._counters.replace(aside)
            return {}
        return rows


def doubted(text: bytes) -> bytes:
    """Return the counters' file of a backup as a restored home must begin with it.

    What was received and sent since the backup is not known. So every wearable must prove itself before it is
    heard, and commands count on from the clock: the caller sees to it that this is right.
    """
    try:
        rows = json.loads(text)["wearables"]
        rows = {
            wearable: _row(
                Counters(_lost().uplink, max(_lost().downlink, row["downlink"]), clean=False), row["key"]
            )
            for wearable, row in rows.items()
        }
    except (ValueError, KeyError, TypeError):
        rows = {}  # without a row a wearable must prove itself as well
    return json.dumps({"schema": 1, "sum": _sum(rows), "wearables": rows}, indent=1).encode()


def _lost() -> Counters:
    """Return counters for a key whose past is unknown: nothing is taken before a proof.

    Commands then count from the seconds since 2020: far above what any home has sent, and higher each time.
    """
    return Counters(uplink=MAX_COUNTER, downlink=max(0, int(time.time()) - _EPOCH_S), clean=False)


def _counters_of(row: Any, print_: str) -> Counters | None:
    if row is None or row["key"] != print_:
        return None
    return Counters(row["uplink"], row["downlink"], row["clean"])


def _row(counters: Counters, print_: str) -> dict[str, Any]:
    return {"key": print_, "uplink": counters.uplink, "downlink": counters.downlink, "clean": counters.clean}


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"fallwatch" + key).hexdigest()[:16]


def _sum(rows: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """Put a file in place so that a power cut leaves either the old one or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="ascii", opener=_private) as file:
        if os.geteuid() == 0:  # an installer pairs as root; the service must still read and write its folder
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync_folder(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
