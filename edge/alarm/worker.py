"""One thread for each sink, so that one that hangs holds up no other."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from edge.clock import utc_now
from edge.sinks import SinkError, SinkRejected

log = logging.getLogger(__name__)

WAITING_MOST = 500


class Sink(Protocol):
    """What a worker drives; see `edge.sinks`."""

    def deliver(self, item: Any, /) -> None: ...  # noqa: D102
    def check(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Report:
    """How a delivery, or with no item a check, ended."""

    sink: str
    item: Any
    at: datetime
    tag: Any = None  # what the submitter wants back with it
    error: str = ""  # empty: taken
    rejected: bool = False


class Worker:
    """Owns one sink; takes items in order of urgency and reports on each."""

    def __init__(self, name: str, sink: Sink, report: Callable[[Report], None], *, check_every_s: float) -> None:
        self.name = name
        self._sink = sink
        self._report = report
        self._check_every_s = check_every_s
        self._queue: queue.PriorityQueue[tuple[int, int, Any, Any]] = queue.PriorityQueue(WAITING_MOST)
        self._number = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work, with a check unless something is to be delivered at once."""
        self._thread.start()

    def submit(self, item: Any, *, urgency: int = 1, tag: Any = None) -> None:
        """Queue an item; lower urgency numbers first. A full queue is reported like an absent far end."""
        try:
            self._queue.put_nowait((urgency, next(self._number), item, tag))
        except queue.Full:
            self._report(Report(self.name, item, utc_now(), tag, f"{WAITING_MOST} items wait already"))

    def stop(self, timeout_s: float = 2.0) -> None:
        """End after the item in hand, or leave it to its fate when it hangs."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        wait_s = 0.5  # a check first would hold up the page for which the service may have been started again
        while not self._stop.is_set():
            try:
                _, _, item, tag = self._queue.get(timeout=min(wait_s, 0.5))
            except queue.Empty:
                wait_s -= 0.5
                if wait_s > 0:
                    continue
                item = tag = None
            self._do(item, tag)
            wait_s = self._check_every_s
        self._sink.close()

    def _do(self, item: Any, tag: Any) -> None:
        error, rejected = "", False
        try:
            if item is None:
                self._sink.check()
            else:
                self._sink.deliver(item)
        except SinkError as refusal:
            error, rejected = refusal.reason, isinstance(refusal, SinkRejected)
        except Exception as unforeseen:  # whatever a library throws must not end the channel
            log.exception("%s failed in a way nobody foresaw", self.name)
            error = f"{type(unforeseen).__name__} (see the log)"
        self._report(Report(self.name, item, utc_now(), tag, error, rejected))
