"""A bundle's files: where shipped ones lie, one file to carry them in, and a developer's signature over them.

The bytes are checked before anything looks at what they mean, so neither numpy nor onnxruntime is loaded here.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

BUNDLES = Path(__file__).parent
SIGNATURE = "signature.json"
SIGNATURE_SCHEMA = 1
NEEDED = ("card.json", "golden.npz", "model.onnx")
ALLOWED = frozenset({*NEEDED, "card.md", SIGNATURE})
MOST_OCTETS = 2 << 20  # of a whole bundle; the largest shipped has 0.6 MiB
NAME = re.compile(r"(wrist|waist|camera)-([1-9][0-9]{0,5})")
_SIGNED_AS = b"fallwatch model bundle\n"  # so that no signature made for something else fits
_BLOCK = 512  # of tar

Files = Mapping[str, bytes]


class BundleRefused(Exception):
    """A model bundle must not run; ``folder`` and ``reason`` say which and why."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder = folder
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature that holds says: the bundle's name and placement, and whose key it was."""

    name: str
    placement: str
    key: str

    @property
    def number(self) -> int:
        """Which of its placement it is; a higher one is newer."""
        return number_of(self.name)


def number_of(name: str) -> int:
    """Return a bundle's number, 0 of a name that has none."""
    match = NAME.fullmatch(name)
    return int(match[2]) if match else 0


def shipped(placement: str) -> list[Path]:
    """Return the shipped bundles for a placement, such as ``models/wrist-2``, the newest first."""
    folders = (card.parent for card in BUNDLES.glob(f"{placement}-*/card.json"))
    numbered = {int(f.name.rpartition("-")[2]): f for f in folders if f.name.rpartition("-")[2].isdecimal()}
    return [numbered[number] for number in sorted(numbered, reverse=True)]


def newest(placement: str) -> Path:
    """Return the newest shipped bundle for a placement.

    Raises:
        BundleRefused: none is shipped.
    """
    folders = shipped(placement)
    if not folders:
        raise BundleRefused(BUNDLES / f"{placement}-*", f"no model for {placement} is installed")
    return folders[0]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return a bundle's files by name.

    Raises:
        BundleRefused: one is missing, cannot be read or does not belong there, or they are too large.
    """
    files, octets = {}, 0
    try:
        for path in sorted(folder.iterdir()):
            status = path.lstat()
            if path.name not in ALLOWED or not stat.S_ISREG(status.st_mode):
                raise BundleRefused(folder, f"holds {path.name!r}, which does not belong in a bundle")
            octets += status.st_size
            if octets > MOST_OCTETS:
                raise BundleRefused(folder, f"is larger than {MOST_OCTETS >> 20} MiB")
            files[path.name] = path.read_bytes()
    except OSError as error:
        raise BundleRefused(folder, f"{error.filename} cannot be read ({error.strerror})") from None
    _need_all(files, folder)
    return files


def _need_all(files: Files, where: Path) -> None:
    missing = ", ".join(name for name in NEEDED if name not in files)
    if missing:
        raise BundleRefused(where, f"has no {missing}")


# -- signatures ---------------------------------------------------------------------------------


def key_id(key: Ed25519PublicKey) -> str:
    """Return what a key is called: the beginning of its hash."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key in PEM.

    Raises:
        ValueError: there is none in it that signs bundles.
        OSError: it cannot be read.
    """
    key = load_pem_public_key(path.read_bytes()[:4096])
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is no Ed25519 key")
    return key


def sign(files: Files, key: Ed25519PrivateKey, where: Path) -> bytes:
    """Return the text of ``signature.json`` for a bundle.

    Raises:
        BundleRefused: its name is none that a home can install.
    """
    _names(files, where)
    facts = {
        "schema": SIGNATURE_SCHEMA,
        "key": key_id(key.public_key()),
        "files": {name: _sha256(files[name]) for name in sorted(files) if name != SIGNATURE},
    }
    return _text({**facts, "signature": key.sign(_SIGNED_AS + _text(facts)).hex()})


def verify(files: Files, keys: Mapping[str, Ed25519PublicKey], where: Path) -> Signed:
    """Check a bundle's signature and every file's hash.

    Raises:
        BundleRefused: there is no signature, nobody trusted made it, or a file is not the one that was signed.
    """
    text = files.get(SIGNATURE)
    if text is None:
        raise BundleRefused(where, "is not signed")
    try:
        facts = json.loads(text)
        signature, key, hashes = bytes.fromhex(facts.pop("signature")), facts["key"], facts["files"]
        # Written in one way only: else an octet could change and nobody would know.
        well = facts["schema"] == SIGNATURE_SCHEMA and _text({**facts, "signature": signature.hex()}) == text
        if not well or set(facts) != {"schema", "key", "files"}:
            raise ValueError("form")
        trusted = keys.get(key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleRefused(where, f"{SIGNATURE} is no signature of this version") from None
    if trusted is None:
        raise BundleRefused(where, f"is signed with key {str(key)[:16]!r}, which is not trusted here")
    try:
        trusted.verify(signature, _SIGNED_AS + _text(facts))
    except InvalidSignature:
        raise BundleRefused(where, f"its signature is not that of key {key}") from None
    given = files.keys() - {SIGNATURE}
    wrong = sorted(name for name in given | hashes.keys() if hashes.get(name) != _sha256(files.get(name)))
    if wrong:
        raise BundleRefused(where, f"{', '.join(wrong)}: not as it was signed")
    return Signed(*_names(files, where), key)


def _names(files: Files, where: Path) -> tuple[str, str]:
    """Return name and placement of a card, which the hash vouches for; what else it says is read elsewhere."""
    try:
        card = json.loads(files["card.json"])
        name, placement = card["name"], card["placement"]
        match = NAME.fullmatch(name)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleRefused(where, f"card.json cannot be read: {error!r}") from None
    if match is None or match[1] != placement:
        raise BundleRefused(where, f"is called {name!r}: a bundle is called such as {placement}-7")
    return name, placement


def _sha256(octets: bytes | None) -> str | None:
    return None if octets is None else hashlib.sha256(octets).hexdigest()


def _text(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=True).encode() + b"\n"


# -- one file ----------------------------------------------------------------------------------


def pack(files: Files) -> bytes:
    """Return a bundle as one tar file: the same files give the same octets."""
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(files):
                member = tarfile.TarInfo(name)  # time 0, owner 0, mode 0644
                member.size = len(files[name])
                tar.addfile(member, io.BytesIO(files[name]))
        return out.getvalue()


def unpack(octets: bytes, where: Path) -> dict[str, bytes]:
    """Return the files of what `pack` made, in memory and no larger than what is given.

    Raises:
        BundleRefused: it was not made so.
    """
    files: dict[str, bytes] = {}
    at = 0
    try:
        while any(header := octets[at : at + _BLOCK]):
            name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
            if header[156:157] != tarfile.REGTYPE or name not in ALLOWED or name in files:
                raise BundleRefused(where, f"holds {name[:60]!r}, which does not belong in a bundle")
            at += _BLOCK
            files[name] = octets[at : at + size]
            at += -(-size // _BLOCK) * _BLOCK
    except ValueError:
        raise BundleRefused(where, "is no file of fallwatch model pack") from None
    # No second reading of what tar allows: whatever differs from what we write by one octet is refused.
    if not files or pack(files) != octets:
        raise BundleRefused(where, "is not as fallwatch model pack writes it: damaged, or made by something else")
    _need_all(files, where)
    return files
