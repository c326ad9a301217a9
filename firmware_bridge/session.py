"""Keys and counters: sealing and opening packets, on the Pi's side and on the wearable's.

AES-128-CCM, one key per wearable, an 8-octet MIC. The nonce is direction, wearable, counter: a counter is never
used twice with one key, in either direction, whatever loses power when. All storing goes through a callable
the caller gives; the rules are in `PROTOCOL.md`, "Keys and counters".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from firmware_bridge.wire import (
    HEADER,
    MAX_PACKET,
    MIC_OCTETS,
    MIN_PACKET,
    TYPE_COMMAND,
    VERSION,
    Command,
    FirmwareBridgeError,
    Hello,
    Message,
    Proof,
    Prove,
    UplinkMessage,
    WireError,
    decode_message,
    encode_message,
    pack_wearable,
    read_header,
)

log = logging.getLogger(__name__)

KEY_OCTETS = 16
MAX_COUNTER = 0xFFFF_FFFF
ECHOES = 32  # counters remembered with the receiver that heard them first
WINDOW = 1024  # so far behind the highest counter a late packet is still taken, once
UPLINK_STEP = 64  # counters reserved on disk at a time: half a minute of one wearable
DOWNLINK_STEP = 8
ASK_AGAIN_S = 2.0
_UP, _DOWN = b"\x01", b"\x02"


class SealRefused(FirmwareBridgeError):
    """A packet cannot be sealed without risking a counter's second use; ``reason`` says why."""

    def __init__(self, wearable: str, reason: str) -> None:
        super().__init__(f"wearable {wearable}: {reason}")
        self.wearable = wearable
        self.reason = reason


class CountersNotSaved(FirmwareBridgeError):
    """The counters could not be written to disk; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Counters:
    """What the Pi has on disk about one wearable.

    No packet with a counter above ``uplink`` was ever accepted, none above ``downlink`` ever sealed. ``clean``:
    ``uplink`` is the last one accepted, so nothing at or below it is still to come.
    """

    uplink: int = 0
    downlink: int = 0
    clean: bool = True


@dataclass(slots=True)
class Counts:
    """What became of the packets that bore one wearable's id."""

    opened: int = 0
    forged: int = 0  # wrong key or changed octets
    stale: int = 0  # replayed
    echoes: int = 0  # heard by a second receiver as well
    unproved: int = (
        0  # authentic, but perhaps older than the Pi's restart: refused until the wearable proves itself
    )
    malformed: int = 0  # authentic, yet no message of this version


def _open(aead: AESCCM, direction: bytes, packet: bytes) -> bytes | None:
    if not MIN_PACKET <= len(packet) <= MAX_PACKET:
        return None
    try:
        return aead.decrypt(direction + packet[2:14], packet[14:], packet[:14])
    except InvalidTag:
        return None


def _seal(aead: AESCCM, direction: bytes, wearable: bytes, counter: int, message: Message) -> bytes:
    type_, body = encode_message(message)
    header = HEADER.pack(VERSION, type_, wearable, counter)
    return header + aead.encrypt(direction + header[2:], body, header)


def _aead(key: bytes) -> AESCCM:
    if len(key) != KEY_OCTETS:
        raise ValueError(f"a key has {KEY_OCTETS} octets, not {len(key)}")
    return AESCCM(key, tag_length=MIC_OCTETS)


class GatewaySession:
    """The Pi's side of one wearable: opens its packets, seals commands to it.

    ``reserve`` is called when more counters must be on disk first: it writes what `ahead` returns, calls
    `reserved`, and returns whether that worked. ``challenge`` is for tests; it is random otherwise.
    """

    def __init__(
        self,
        wearable: str,
        key: bytes,
        counters: Counters,
        *,
        reserve: Callable[[], bool],
        challenge: bytes | None = None,
    ) -> None:
        self.wearable = wearable
        self.counts = Counts()
        self.asked_s: float | None = None
        self.heard_unproved = False
        self._id = pack_wearable(wearable)
        self._aead = _aead(key)
        self._reserve = reserve
        self._highest = self._floor = self._ceiling = counters.uplink
        self._unsaved = 0  # up to here packets are taken though the disk refused their counters
        self._seen = 0  # bit i: counter highest - i was accepted
        self._downlink = self._downlink_ceiling = counters.downlink
        self._challenge = None if counters.clean else challenge or os.urandom(8)
        self._heard_by: dict[int, str] = {}  # the last counters taken: by which receiver

    @property
    def proved(self) -> bool:
        """Whether the Pi can tell this wearable's packets from recordings of them."""
        return self._challenge is None

    def open(self, packet: bytes, receiver: str = "") -> UplinkMessage | None:
        """Return the message of a packet that is authentic, new and well formed; count any other.

        What a second ``receiver`` hears as well is no replay.
        """
        body = _open(self._aead, _UP, packet)
        if body is None:
            self.counts.forged += 1
            return None
        try:
            message = decode_message(packet[1], body)
        except WireError as error:
            message = None
            log.debug("wearable %s: %s", self.wearable, error)
        if isinstance(message, Hello):
            # True even in an old recording: lets a Pi with restored, older state catch up with its own commands.
            self._downlink = max(self._downlink, message.last_command)
        counter = int.from_bytes(packet[10:14], "little")
        if not self._accept(counter, message):
            if self._heard_by.get(counter, receiver) != receiver:
                self.counts.stale -= 1
                self.counts.echoes += 1
            return None
        self._heard_by[counter] = receiver
        if len(self._heard_by) > ECHOES:
            del self._heard_by[next(iter(self._heard_by))]
        if counter > max(self._ceiling, self._unsaved) and not self._reserve():
            # A full disk must not hide a fall; the price is a possible replay after the next power cut.
            self._unsaved = counter + UPLINK_STEP
        if message is None or packet[1] == TYPE_COMMAND:
            self.counts.malformed += 1
            return None
        self.counts.opened += 1
        return message  # type: ignore[return-value]  # all but commands are uplink messages

    def _accept(self, counter: int, message: Message | None) -> bool:
        if counter > self._highest:
            jump = counter - self._highest
            self._seen = (self._seen << jump | 1) & ((1 << WINDOW) - 1) if jump < WINDOW else 1
            self._highest = counter
            self._challenge = None  # above anything accepted before the restart
            return True
        if counter <= self._floor:
            if self._challenge is None:
                self.counts.stale += 1
                return False
            if isinstance(message, Proof) and message.challenge == self._challenge:
                # Made after the challenge, so after the restart: whatever comes above it is new.
                self._highest = self._floor = self._ceiling = counter
                self._seen, self._challenge = 1, None
                return True
            self.counts.unproved += 1
            self.heard_unproved = True
            return False
        age = self._highest - counter
        if age >= WINDOW or self._seen >> age & 1:
            self.counts.stale += 1
            return False
        self._seen |= 1 << age
        return True

    def seal(self, command: Command) -> bytes:
        """Return a sealed packet for the wearable.

        Raises:
            SealRefused: all counters are used up, or the next ones cannot be stored.
        """
        if self._downlink >= MAX_COUNTER:
            raise SealRefused(self.wearable, "all command counters are used; pair it again")
        if self._downlink >= self._downlink_ceiling and not self._reserve():
            raise SealRefused(self.wearable, "counters cannot be stored")
        self._downlink += 1
        return _seal(self._aead, _DOWN, self._id, self._downlink, command)

    def prove_command(self) -> bytes:
        """Return a sealed challenge; its answer ends the doubt after an unclean restart. May be sent again.

        Raises:
            SealRefused: as `seal`.
            ValueError: there is nothing to prove.
        """
        if self._challenge is None:
            raise ValueError(f"wearable {self.wearable} has nothing to prove")
        return self.seal(Prove(self._challenge))

    def ahead(self) -> Counters:
        """Return what must be on disk for the next counters to be used."""
        uplink = self._ceiling
        if self._challenge is None:
            uplink = max(uplink, min(self._highest + UPLINK_STEP, MAX_COUNTER))
        downlink = max(self._downlink_ceiling, min(self._downlink + DOWNLINK_STEP, MAX_COUNTER))
        return Counters(uplink, downlink, clean=False)

    def reserved(self, counters: Counters) -> None:
        """Learn that ``counters``, from `ahead`, are on disk."""
        self._ceiling = counters.uplink
        self._downlink_ceiling = counters.downlink

    def at_rest(self) -> Counters:
        """Return what to store at a clean stop; the session must not be used afterwards."""
        if self._challenge is not None:
            return Counters(self._ceiling, self._downlink, clean=False)
        return Counters(self._highest, self._downlink, clean=True)


class Gateway:
    """All wearables of one home: routes packets by id, and stores all counters in one write.

    ``save`` puts the counters of the wearables it is given on disk in one step, or raises `CountersNotSaved`.
    Use from one thread.
    """

    def __init__(self, save: Callable[[Mapping[str, Counters]], None]) -> None:
        self.unknown = 0  # packets that bore the id of no wearable known here
        self.unreadable = 0  # ... or no packet's header at all
        self.save_failing = ""  # why the last save failed
        self._save = save
        self._sessions: dict[str, GatewaySession] = {}

    @property
    def wearables(self) -> tuple[str, ...]:
        """The wearables with a key here."""
        return tuple(self._sessions)

    def add(self, wearable: str, key: bytes, counters: Counters) -> GatewaySession:
        """Take up a wearable, or the new key of one."""
        session = GatewaySession(wearable, key, counters, reserve=self._reserve)
        self._sessions[wearable] = session
        return session

    @property
    def sessions(self) -> tuple[GatewaySession, ...]:
        """The sessions of all wearables with a key here."""
        return tuple(self._sessions.values())

    def session(self, wearable: str) -> GatewaySession | None:
        """Return one wearable's session; its ``counts`` and ``proved`` are for supervision."""
        return self._sessions.get(wearable)

    def open(self, packet: bytes, receiver: str = "") -> tuple[str, UplinkMessage] | None:
        """Return wearable and message of a packet that is authentic, new and well formed; count any other."""
        try:
            wearable = read_header(packet).wearable
        except WireError:
            self.unreadable += 1
            return None
        session = self._sessions.get(wearable)
        if session is None:
            self.unknown += 1
            return None
        message = session.open(packet, receiver)
        return None if message is None else (wearable, message)

    def seal(self, wearable: str, command: Command) -> bytes:
        """Return a sealed packet for a wearable.

        Raises:
            SealRefused: it has no key here, its counters are used up, or the next ones cannot be stored.
        """
        session = self._sessions.get(wearable)
        if session is None:
            raise SealRefused(wearable, "has no key here; pair it")
        return session.seal(command)

    def proofs_due(self, now_s: float) -> list[tuple[str, bytes]]:
        """Return the challenges to send now: once at start, then while an unproved wearable is heard."""
        due = []
        for wearable, session in self._sessions.items():
            if session.proved:
                continue
            first = session.asked_s is None
            if first or (session.heard_unproved and now_s - session.asked_s >= ASK_AGAIN_S):  # type: ignore[operator]
                session.asked_s, session.heard_unproved = now_s, False
                try:
                    due.append((wearable, session.prove_command()))
                except SealRefused as error:
                    log.warning("%s", error)
        return due

    def stop(self) -> None:
        """Store the exact counters, so that nothing is in doubt at the next start. Use no more afterwards."""
        try:
            self._save({wearable: session.at_rest() for wearable, session in self._sessions.items()})
        except CountersNotSaved as error:
            log.warning("wearables will have to prove themselves at the next start: %s", error.reason)

    def _reserve(self) -> bool:
        ahead = {wearable: session.ahead() for wearable, session in self._sessions.items()}
        try:
            self._save(ahead)
        except CountersNotSaved as error:
            if not self.save_failing:
                log.error("counters of wearables cannot be stored: %s", error.reason)
            self.save_failing = error.reason
            return False
        if self.save_failing:
            log.info("counters of wearables are stored again")
        self.save_failing = ""
        for wearable, counters in ahead.items():
            self._sessions[wearable].reserved(counters)
        return True


@dataclass(frozen=True, slots=True)
class WearableCounters:
    """What a wearable keeps in flash: counters reserved for sealing, the last command taken, its restarts."""

    uplink: int = 0
    command: int = 0
    boot: int = 0


class WearableSession:
    """The wearable's side, as its firmware does it: seals messages, opens commands.

    ``save`` puts the counters in flash, or raises; it returns before any of them is used. Commands are rare,
    so each one's counter is stored before it is obeyed.
    """

    def __init__(
        self,
        wearable: str,
        key: bytes,
        counters: WearableCounters,
        *,
        save: Callable[[WearableCounters], None],
        step: int = UPLINK_STEP,
    ) -> None:
        self.wearable = wearable
        self.boot = (counters.boot + 1) & 0xFFFF
        self.counts = Counts()
        self._id = pack_wearable(wearable)
        self._aead = _aead(key)
        self._save = save
        self._step = step
        self._uplink = self._reserved = counters.uplink
        self._command = counters.command

    @property
    def last_command(self) -> int:
        """Highest counter of a command taken."""
        return self._command

    def seal(self, message: UplinkMessage) -> bytes:
        """Return a sealed packet for the Pi.

        Raises:
            SealRefused: all counters are used; the wearable needs a new key.
        """
        if self._uplink >= MAX_COUNTER:
            raise SealRefused(self.wearable, "all counters are used; pair it again")
        if self._uplink >= self._reserved:
            reserved = min(self._uplink + self._step, MAX_COUNTER)
            self._save(WearableCounters(reserved, self._command, self.boot))
            self._reserved = reserved
        self._uplink += 1
        return _seal(self._aead, _UP, self._id, self._uplink, message)

    def open(self, packet: bytes) -> Command | None:
        """Return the command of a packet that is authentic, new and well formed; count any other."""
        body = _open(self._aead, _DOWN, packet)
        if body is None:
            self.counts.forged += 1
            return None
        counter = int.from_bytes(packet[10:14], "little")
        if counter <= self._command:
            self.counts.stale += 1
            return None
        self._save(WearableCounters(self._reserved, counter, self.boot))
        self._command = counter
        try:
            message = decode_message(packet[1], body)
        except WireError:
            self.counts.malformed += 1
            return None
        if packet[1] != TYPE_COMMAND:
            self.counts.malformed += 1
            return None
        self.counts.opened += 1
        return message  # type: ignore[return-value]  # checked by its type
