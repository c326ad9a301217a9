"""A file that only a passphrase opens, written and read as a stream.

Chunks of 64 KiB, each sealed with ChaCha20-Poly1305; a chunk's nonce is its number and whether it is the last, so
none can be left out, put elsewhere, repeated or cut off. The key comes from the passphrase and the file's own salt
by scrypt, so no nonce is ever used twice with one key.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC = b"fallwatch backup 1\n"
SALT_OCTETS = 16
CHUNK = 64 << 10
_TAG = 16
_COST = 1 << 15  # 32 MiB and a second of a Pi for each guess


class Unsealable(Exception):
    """The file is damaged, cut off, of another kind, or the passphrase is another."""


def _cipher(passphrase: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class SealedWriter:
    """What is written here goes to ``out`` sealed; only `finish` makes it whole."""

    def __init__(self, out: BinaryIO, passphrase: bytes) -> None:
        self._out, self._head = out, MAGIC + os.urandom(SALT_OCTETS)
        self._cipher = _cipher(passphrase, self._head[len(MAGIC) :])
        self._held, self._number = bytearray(), 0
        out.write(self._head)

    def write(self, octets: bytes) -> int:
        """Take any number of octets."""
        self._held += octets
        while len(self._held) > CHUNK:  # the last one is never empty unless all is
            self._seal(bytes(self._held[:CHUNK]), last=False)
            del self._held[:CHUNK]
        return len(octets)

    def finish(self) -> None:
        """Write the last chunk."""
        self._seal(bytes(self._held), last=True)

    def _seal(self, plain: bytes, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._number, last=last), plain, self._head))
        self._number += 1


class SealedReader:
    """Gives what `SealedWriter` was given; nothing comes out that was not checked.

    Raises:
        Unsealable: see there; from any read as well.
    """

    def __init__(self, file: BinaryIO, passphrase: bytes) -> None:
        self._head = file.read(len(MAGIC) + SALT_OCTETS)
        if not self._head.startswith(MAGIC) or len(self._head) < len(MAGIC) + SALT_OCTETS:
            raise Unsealable("is no backup of this version")
        self._file, self._cipher = file, _cipher(passphrase, self._head[len(MAGIC) :])
        self._number, self._plain, self._next = 0, b"", file.read(CHUNK + _TAG)
        self._at_end = False

    def read(self, count: int) -> bytes:
        """Return at most ``count`` octets; none at the end."""
        while not self._plain and not self._at_end:
            self._plain = self._open()
        octets, self._plain = self._plain[:count], self._plain[count:]
        return octets

    def _open(self) -> bytes:
        sealed, self._next = self._next, self._file.read(CHUNK + _TAG)
        self._at_end = not self._next
        try:
            plain = self._cipher.decrypt(_nonce(self._number, last=self._at_end), sealed, self._head)
        except InvalidTag:
            first = "its passphrase is another, or it is damaged"
            raise Unsealable(first if self._number == 0 else "is damaged or cut off") from None
        self._number += 1
        return plain
