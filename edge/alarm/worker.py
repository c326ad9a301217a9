"""One thread for each sink, so that one that hangs holds up no other."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from edge.clock import utc_now
from edge.sinks import Reply, SinkError, SinkRejected, SinkUnavailable

log = logging.getLogger(__name__)

WAITING_MOST = 500
TURN_S = 0.5


class Sink(Protocol):
    """What a worker drives; see `edge.sinks`."""

    def deliver(self, item: Any, /) -> None: ...  # noqa: D102
    def check(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@runtime_checkable
class Listener(Protocol):
    """A sink that hears answers while nothing is to be delivered."""

    def listen(self, wake: int, timeout_s: float) -> list[Reply]:
        """Wait until ``wake`` can be read, the time is up, or something came back; return what did."""


@runtime_checkable
class Holder(Protocol):
    """A sink that goes on calling until it is told to stop, such as a contact."""

    def release(self, incident: str) -> None:
        """Stop calling for an incident."""


@dataclass(frozen=True, slots=True)
class Release:
    """Somebody goes: an item for a `Holder`."""

    incident: str


@dataclass(frozen=True, slots=True)
class Report:
    """How a delivery, or with no item a check, ended."""

    sink: str
    item: Any
    at: datetime
    tag: Any = None  # what the submitter wants back with it
    error: str = ""  # empty: taken
    rejected: bool = False
    retry_after_s: float | None = None  # when the far end wants to be asked again, if it said so


@dataclass(frozen=True, slots=True)
class Heard:
    """Something came back from a sink's far end."""

    sink: str
    reply: Reply


class Worker:
    """Owns one sink; takes items in order of urgency and reports on each."""

    def __init__(
        self, name: str, sink: Sink, report: Callable[[Report | Heard], None], *, check_every_s: float
    ) -> None:
        self.name = name
        self.holds = isinstance(sink, Holder)
        self._sink = sink
        self._report = report
        self._check_every_s = check_every_s
        self._queue: queue.PriorityQueue[tuple[int, int, Any, Any]] = queue.PriorityQueue(WAITING_MOST)
        self._number = itertools.count()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work, with a check unless something is to be delivered at once."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is there: nothing a sink does may end it."""
        return self._thread.is_alive()

    def submit(self, item: Any, *, urgency: int = 1, tag: Any = None) -> None:
        """Queue an item; lower urgency numbers first. A full queue is reported like an absent far end."""
        try:
            self._queue.put_nowait((urgency, next(self._number), item, tag))
        except queue.Full:
            self._report(Report(self.name, item, utc_now(), tag, f"{WAITING_MOST} items wait already"))
        os.eventfd_write(self._wake, 1)

    def stop(self, timeout_s: float = 2.0) -> None:
        """End after the item in hand, or leave it to its fate when it hangs."""
        self._stop.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        # A check first would hold up the page for which the service may have been started again.
        check_s = time.monotonic() + TURN_S
        while not self._stop.is_set():
            try:
                _, _, item, tag = self._queue.get_nowait()
            except queue.Empty:
                now_s = time.monotonic()
                if now_s < check_s:
                    self._wait(min(check_s - now_s, TURN_S))
                    continue
                item = tag = None
            self._do(item, tag)
            check_s = time.monotonic() + self._check_every_s
        self._sink.close()

    def _wait(self, timeout_s: float) -> None:
        """Wait for an item; meanwhile hear what the far end says, where the sink can."""
        if isinstance(self._sink, Listener):
            try:
                for reply in self._sink.listen(self._wake, timeout_s):
                    self._report(Heard(self.name, reply))
            except SinkError as gone:
                self._report(Report(self.name, None, utc_now(), None, gone.reason))
                self._stop.wait(timeout_s)
            except Exception:  # as in `_do`
                log.exception("%s failed in a way nobody foresaw while it listened", self.name)
                self._stop.wait(timeout_s)
        else:
            select_readable(self._wake, timeout_s)
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return

    def _do(self, item: Any, tag: Any) -> None:
        error, rejected, retry_after_s = "", False, None
        try:
            if item is None:
                self._sink.check()
            elif isinstance(item, Release):
                if isinstance(self._sink, Holder):
                    self._sink.release(item.incident)
            else:
                self._sink.deliver(item)
        except SinkError as refusal:
            error, rejected = refusal.reason, isinstance(refusal, SinkRejected)
            retry_after_s = refusal.retry_after_s if isinstance(refusal, SinkUnavailable) else None
        except Exception as unforeseen:  # whatever a library throws must not end the channel
            log.exception("%s failed in a way nobody foresaw", self.name)
            error = f"{type(unforeseen).__name__} (see the log)"
        self._report(Report(self.name, item, utc_now(), tag, error, rejected, retry_after_s))


def select_readable(descriptor: int, timeout_s: float) -> bool:
    """Wait until ``descriptor`` can be read, or the time is up; tell which."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
