"""Pages out on every channel that serves a group, and what became of them; how each channel is.

Decides nothing about when and whom to call, only over which channels a call reaches people.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from edge.alarm.channels import open_channel
from edge.alarm.worker import Heard, Release, Report, Worker
from edge.core.delivery import Delivery
from edge.core.escalation import Call, Words
from edge.core.incident import Incident, Kind
from edge.core.routing import Ladder
from edge.core.supervision import LineWatch
from edge.settings import Settings
from edge.sinks import Page, Reply, Urgency

log = logging.getLogger(__name__)

DELIVERIES_MOST = 1000  # remembered: a reply may come late


@dataclass(frozen=True, slots=True)
class Sending:
    """What a page on a channel belongs to; goes out and comes back with it."""

    call: Call
    group: str
    text: str
    urgency: Urgency
    facts: Incident

    @property
    def key(self) -> tuple[str, int, str]:
        """What is the same for this page on all channels."""
        return (self.call.incident, self.call.number, self.group)


class Paging:
    """All channels of the home, each with a worker of its own."""

    def __init__(self, settings: Settings, inbox: Callable[[Report | Heard], None], *, now_s: float) -> None:
        self._home = settings.home.id
        self._fallback_after_s = settings.escalation.fallback_after_s
        self._channels = dict(zip(settings.channel_names(), settings.pager, strict=True))
        self._workers = {
            name: Worker(
                name,
                open_channel(name, channel, settings.secrets, beside=settings.path.parent),
                inbox,
                check_every_s=channel.check_every_s,
            )
            for name, channel in self._channels.items()
        }
        self.lines = {
            name: LineWatch(channel.down_after_s, good_s=now_s, since_s=now_s)
            for name, channel in self._channels.items()
        }
        self._first = settings.escalation.groups[0]
        self._deliveries: dict[tuple[str, int, str], tuple[Delivery, Sending]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._workers

    @property
    def names(self) -> list[str]:
        """The channels, in the order of the settings."""
        return list(self._workers)

    @property
    def alive(self) -> bool:
        """Whether every channel's thread is there."""
        return all(worker.alive for worker in self._workers.values())

    def start(self) -> None:
        """Begin to work."""
        for worker in self._workers.values():
            worker.start()

    def stop(self) -> None:
        """End after what is in hand."""
        for worker in self._workers.values():
            worker.stop()

    # -- out ----------------------------------------------------------------------------------

    def send(self, call: Call, facts: Incident, text: str, *, ladder: Ladder, now_s: float) -> None:
        """Send a call to its groups; to the next on the ladder besides when none of those can be reached."""
        calls = call.words in {Words.ALARM, Words.AGAIN, Words.DOWN} and not call.doubted
        urgent = calls and facts.kind is not Kind.BLIND and not facts.drill
        urgency = Urgency.EMERGENCY if urgent else Urgency.HIGH
        groups = list(call.groups)
        for rung in () if call.retry else ladder:  # each group of a round has retries of its own
            if any(self._reachable(group) for group in groups):
                break
            groups += [group for group in rung if group not in groups]
        for group in groups:
            sending = Sending(call, group, text, urgency, facts)
            serving = [name for name, channel in self._channels.items() if channel.address(group) is not None]
            primary = [name for name in serving if self._channels[name].role == "primary"]
            well = [name for name in primary if not self.lines[name].down]
            delivery = Delivery(
                primary,
                [name for name in serving if name not in primary],
                now_s=now_s,
                # Nobody waits for lines that are known to be down, though each is still tried.
                fallback_after_s=self._fallback_after_s if well else 0.0,
            )
            self._deliveries.pop(sending.key, None)  # a retry goes to the end of what is remembered
            self._deliveries[sending.key] = (delivery, sending)
            self._submit(primary, sending)
            self._submit(delivery.more(now_s), sending)
        while len(self._deliveries) > DELIVERIES_MOST:
            del self._deliveries[next(iter(self._deliveries))]

    def release(self, incident: str) -> None:
        """Have channels that go on calling, such as a contact, stop for an incident."""
        for worker in self._workers.values():
            if worker.holds:
                worker.submit(Release(incident))

    def test(self, name: str, local_time: datetime | None, *, mark: str = "") -> None:
        """Send a channel's test page: the daily one, or, with a ``mark`` of its own, one asked for."""
        channel = self._channels[name]
        served = [group for group in [channel.test_to, self._first, *channel.groups, *channel.addresses] if group]
        to = next((address for group in served if (address := channel.address(group)) is not None), None)
        if to is None:
            return
        when = "" if local_time is None else f" {local_time:%H:%M}"
        text = f"TEST {self._home} NO ACTION NEEDED{when}".upper()
        page_id = f"test/{self._home}/{name}/{mark or ('' if local_time is None else local_time.date())}"
        self._workers[name].submit(Page(page_id, to, text, Urgency.NORMAL), urgency=Urgency.NORMAL)

    def due(self, now_s: float) -> None:
        """Send by fallback channels what the main ones have not taken in time."""
        for delivery, sending in list(self._deliveries.values()):
            deadline_s = delivery.deadline_s()
            if deadline_s is not None and now_s >= deadline_s:
                self._submit(delivery.more(now_s), sending)

    def forget(self, incident: str) -> None:
        """Drop what is remembered of an incident that is over."""
        for key in [key for key in self._deliveries if key[0] == incident]:
            del self._deliveries[key]

    def _reachable(self, group: str) -> bool:
        return any(
            channel.address(group) is not None and not self.lines[name].down
            for name, channel in self._channels.items()
        )

    def _submit(self, names: Iterable[str], sending: Sending) -> None:
        facts, call = sending.facts, sending.call
        for name in names:
            to = self._channels[name].address(sending.group)
            assert to is not None
            page = Page(
                page_id=f"{call.incident}/{call.number}/{sending.group}/{name}",
                to=to,
                text=sending.text,
                urgency=sending.urgency,
                cancel=call.words is Words.CANCELLED,
                incident=call.incident,
                kind=facts.kind.value,
                room=facts.room or "",
                drill=facts.drill,
            )
            self._workers[name].submit(page, urgency=sending.urgency, tag=sending)

    # -- back ---------------------------------------------------------------------------------

    def on_report(self, report: Report, *, now_s: float) -> bool | None:
        """Take what a channel reports; tell whether its page has reached a transmitter: no once all refused.

        None: that is still open, or it was no page of a call.
        """
        line = self.lines[report.sink]
        # A far end that refuses one page is there, so it is well.
        there = report.rejected and report.item is not None
        was_well = line.well
        line.observe("" if there else report.error, now_s=now_s)
        if line.well != was_well:
            log.log(logging.INFO if line.well else logging.WARNING, "%s: %s", report.sink, report.error or "well")
        if not isinstance(report.tag, Sending):
            return None
        known = self._deliveries.get(report.tag.key)
        if known is None:
            return not report.error
        delivery, sending = known
        delivery.on_report(report.sink, accepted=not report.error)
        self._submit(delivery.more(now_s), sending)
        return True if delivery.accepted else False if delivery.failed else None

    def on_failure(self, channel: str, reply: Reply, *, now_s: float) -> Sending | None:
        """Take that a page which a channel had taken reached nobody; try the others. Return what it was."""
        _, number, group, _ = (reply.page_id.rsplit("/", 3) + [""] * 4)[:4]
        key = (reply.incident, int(number) if number.isdecimal() else -1, group)
        known = self._deliveries.get(key)
        if known is None:
            return None
        delivery, sending = known
        delivery.accepted = False
        delivery.on_report(channel, accepted=False)
        self._submit(delivery.more(now_s), sending)
        return sending
