"""The home's model bundles: whose keys it trusts, what is installed, which one runs.

Shipped bundles are trusted with the program. Installed ones lie in ``models/`` of the state folder and are
checked at every load; a path in the settings is a developer's own and is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.failpoint import failpoint
from edge.settings import Settings
from models.bundle import (
    BUNDLES,
    MOST_OCTETS,
    NAME,
    SIGNATURE,
    BundleRefused,
    Files,
    Signed,
    key_id,
    newest,
    number_of,
    read_files,
    read_public_key,
    shipped,
    unpack,
    verify,
)
from models.selftest import selftest

PLACEMENTS = ("wrist", "waist", "camera")
SHADOWED = ("wrist", "waist")  # a model of these can run on trial
SHIPPED = "shipped"  # in place of a name: whichever is the newest shipped one
_ASIDE = ".new-"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which models the settings name for a placement; see `edge.settings.DetectSettings`."""

    model: str
    former: str
    shadow: str

    @classmethod
    def of(cls, settings: Settings, placement: str) -> Choice:
        """Return what the settings say of a placement."""
        detect = settings.detect
        return cls(*(getattr(detect, f"{placement}_{what}", "") for what in ("model", "former", "shadow")))

    @property
    def named(self) -> list[str]:
        """The models to try before the shipped ones, in order."""
        return [name for name in (self.model, self.former) if name not in {"", SHIPPED}] if self.model else []


class Bundles:
    """Finds, checks and installs bundles for one home."""

    def __init__(self, settings: Settings, state: Path) -> None:
        self._settings = settings
        self.store = state / "models"
        self.keys_folder = settings.path.parent / "model-keys"

    # -- keys -----------------------------------------------------------------------------------

    def keys(self) -> dict[str, Ed25519PublicKey]:
        """Return the trusted keys by id; a file that holds none is passed over."""
        keys = {}
        for path in sorted(self.keys_folder.glob("*.pub")):
            with contextlib.suppress(ValueError, OSError):
                key = read_public_key(path)
                keys[key_id(key)] = key
        return keys

    def trust(self, key: Ed25519PublicKey) -> str:
        """Trust whatever this key signs from now on, and return its id.

        Raises:
            OSError: it cannot be written.
        """
        _open_to_services(self.keys_folder)
        path = self.keys_folder / f"{key_id(key)}.pub"
        _write(path.with_suffix(".new"), key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        path.with_suffix(".new").replace(path)
        _sync(self.keys_folder)
        return key_id(key)

    def untrust(self, key: str) -> bool:
        """Trust a key no longer; return whether it was.

        Raises:
            OSError: it cannot be removed.
        """
        found = [path for path in self.keys_folder.glob("*.pub") if path.stem == key]
        for path in found:
            path.unlink()
            _sync(self.keys_folder)
        return bool(found)

    # -- finding --------------------------------------------------------------------------------

    def place(self, wanted: str) -> Path:
        """Return a bundle's folder from its name, or from a path, which has a slash in it; checks nothing."""
        if "/" in wanted:
            return Path(wanted)
        return BUNDLES / wanted if (BUNDLES / wanted / "card.json").exists() else self.store / wanted

    def check(self, folder: Path) -> Signed | None:
        """Check an installed bundle's signature and hashes; nothing is known of one that lies elsewhere.

        Raises:
            BundleRefused: it must not run.
        """
        try:
            if folder.parent.resolve() != self.store.resolve():
                return None
            if not folder.is_dir():
                raise BundleRefused(folder, "is not installed")
        except OSError as error:
            raise BundleRefused(folder, f"cannot be read ({error.strerror})") from None
        signed = verify(read_files(folder), self.keys(), folder)
        if signed.name != folder.name:
            raise BundleRefused(folder, f"is {signed.name} under another name")
        return signed

    def installed(self) -> list[Path]:
        """Return the folders of what is installed, whether it may run or not."""
        return sorted((p for p in self.store.glob("*-*") if NAME.fullmatch(p.name)), key=_by_number)

    def running(self, placement: str) -> str:
        """Return the name of the model that the settings choose for a placement."""
        chosen = Choice.of(self._settings, placement).model
        return Path(chosen).name if chosen else newest(placement).name

    # -- installing -----------------------------------------------------------------------------

    def install(self, file: Path, *, allow_older: bool = False) -> Signed:
        """Check a packed bundle in every respect and put it in place in one step; nothing runs by this.

        Raises:
            BundleRefused: it must not run here, or is older than what runs.
            OSError: it cannot be written.
        """
        files = unpack(_read_bounded(file), file)
        signed = verify(files, self.keys(), file)
        target = self.store / signed.name
        if self.place(signed.name) != target:
            raise BundleRefused(file, f"{signed.name} is shipped with fallwatch: a new model needs a new number")
        running = self.running(signed.placement)
        if signed.number < number_of(running) and not allow_older:
            raise BundleRefused(file, f"{signed.name} is older than {running}, which runs; --allow-older takes it")
        with self._locked():
            if target.exists():
                if (target / SIGNATURE).read_bytes() == files[SIGNATURE] and self.check(target):
                    return signed
                raise BundleRefused(file, f"another {signed.name} is installed: a new model needs a new number")
            aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.store))
            try:
                _fill(aside, files)
                failpoint("models.unpacked")
                try:
                    selftest(aside)
                except BundleRefused as error:
                    raise BundleRefused(file, error.reason) from None
                failpoint("models.tried")
                aside.rename(target)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            failpoint("models.renamed")
            _sync(self.store)
        return signed

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Have the store alone, without what an earlier installation left when it was cut off."""
        _open_to_services(self.store)
        folder = os.open(self.store, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            for left in self.store.glob(f"{_ASIDE}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            os.close(folder)

    def everything(self, placement: str) -> list[Path]:
        """Return all bundles for a placement, shipped and installed."""
        mine = [path for path in self.installed() if path.name.startswith(f"{placement}-")]
        return sorted([*shipped(placement), *mine], key=_by_number)


def _by_number(folder: Path) -> tuple[str, int]:
    return folder.name.rpartition("-")[0], number_of(folder.name)


def _read_bounded(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            octets = file.read(MOST_OCTETS + 1)
    except OSError as error:
        raise BundleRefused(path, f"cannot be read ({error.strerror})") from None
    if len(octets) > MOST_OCTETS:
        raise BundleRefused(path, f"is larger than {MOST_OCTETS >> 20} MiB")
    return octets


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to is empty


def _open_to_services(folder: Path) -> None:
    """Make a folder that services can read whoever makes it, whatever the umask."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


def _fill(folder: Path, files: Files) -> None:
    """Write a bundle's files for everybody to read: what is in them is no secret, and a service is not root."""
    folder.chmod(0o755)
    for name, octets in files.items():
        _write(folder / name, octets)
    _sync(folder)


def _write(path: Path, octets: bytes) -> None:
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
