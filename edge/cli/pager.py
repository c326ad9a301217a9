"""The installer's tool for pager lines: send a test page, and see every octet that goes over the line."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import typer

from edge.cli import Config, Json, Run, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, Settings, load_settings

if TYPE_CHECKING:
    from edge.alarm.worker import Sink
    from edge.channels import AnyChannel
    from edge.sinks import SinkError

RUNS_KEPT = 10_000
OCTETS_A_ROW = 16
STALE_S = 6.0
_NAMES = {
    0x01: "SOH", 0x02: "STX", 0x03: "ETX", 0x04: "EOT", 0x05: "ENQ", 0x06: "ACK", 0x0A: "LF", 0x0D: "CR",
    0x11: "XON", 0x13: "XOFF", 0x15: "NAK", 0x17: "ETB", 0x1B: "ESC", 0x1E: "RS", 0x1F: "US",
}  # fmt: skip

Name = Annotated[
    str | None, typer.Argument(help="The pager line, as fallwatch status names it; needed with several.")
]
Trace = Annotated[bool, typer.Option("--trace", help="Show every octet on a line: sent tx, received rx.")]

pager_app = typer.Typer(no_args_is_help=True, help="Pager lines: test them, and see what goes over them.")
app.add_typer(pager_app, name="pager")


@pager_app.command("test", epilog="Example: fallwatch pager test espa-1 --to 12 --trace")
def pager_test(
    name: Name = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="GROUP", help="Whom; when left out, whom the daily test calls.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="What the pager shows; TEST, the home and the time when left out.")
    ] = None,
    trace: Trace = False,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
) -> None:
    """Send a test page, as urgent as an alarm, without the alarm service. Status 1 if it is not taken."""
    from edge.sinks import Page, SinkError
    from edge.sinks.line import masked

    settings = load_settings(config)
    name, channel = _channel(settings, name)
    group = to or next(_served(settings, channel), None)
    address = None if group is None else channel.address(group)
    if group is None or address is None:
        known = ", ".join(_served(settings, channel))
        stop(f"{name} calls no group {group or ''}: give --to one of {known or 'its groups'}", status=2)
    if text is not None and not text.strip():
        stop("--text is empty: give words, or leave it out", status=2)
    now = datetime.now(ZoneInfo(settings.home.timezone))
    page = Page(f"test/{uuid4()}", address, text or f"TEST {settings.home.id} {now:%H:%M}".upper())
    shown = _Shown(live=trace and not as_json)
    sink = _open(settings, name, channel, shown if trace else None, run)
    result: dict[str, Any] = {"channel": name, "kind": channel.kind, "group": group, "to": masked(address)}
    result |= {"text": page.text, "accepted": False, "reason": "", "next": ""}
    began_s = time.monotonic()
    try:
        sink.deliver(page)
        result["accepted"] = True
    except SinkError as error:
        result |= {"reason": error.reason, "next": _remedy(error, channel, run)}
    finally:
        sink.close()
    result["took_s"] = round(time.monotonic() - began_s, 3)
    if as_json:
        say(json.dumps({**result, "trace": list(shown.runs)} if trace else result))
    elif result["accepted"]:
        took = f"{name} took {page.text!r} for {masked(address)} in {result['took_s']:.2f} s"
        say(f"{took}. That is the transmitter, not a person.")
        say(f"Next: see that the pager of group {group} shows it and sounds as it will for a fall.")
    else:
        say(f"{name} did NOT take {page.text!r} for {masked(address)}: {result['reason']}.")
        say(f"Next: {result['next']}")
    raise SystemExit(0 if result["accepted"] else 1)


@pager_app.command("listen", epilog="Example: fallwatch pager listen espa-1 --seconds 120 --trace")
def pager_listen(
    name: Name = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=86400.0, help="For so long.")] = 60.0,
    trace: Trace = False,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
) -> None:
    """Attend a line as the idle alarm service does, and show what the far end says: polls, status, answers."""
    from edge.alarm.worker import Listener
    from edge.sinks import SinkError

    settings = load_settings(config)
    name, channel = _channel(settings, name)
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # what a sink makes of a status, to stderr
    shown = _Shown(live=trace, as_json=as_json)
    sink = _open(settings, name, channel, shown if trace else None, run)
    wake, end = os.pipe()  # never written to: nothing is queued here
    until_s = time.monotonic() + seconds
    try:
        if not isinstance(sink, Listener):
            stop(f"{name} hears nothing: a channel of kind {channel.kind} has no answers", status=2)
        while (left_s := until_s - time.monotonic()) > 0:
            for reply in sink.listen(wake, left_s):
                say(json.dumps({"reply": asdict(reply)}) if as_json else f"heard: {reply}")
    except SinkError as error:
        stop(f"{name}: {error.reason}. {_remedy(error, channel, run)}", status=1)
    finally:
        sink.close()
        os.close(wake)
        os.close(end)
    if not as_json:
        say(f"{shown.received_octets} octets came within {seconds:g} s." if trace else f"{seconds:g} s are over.")


def named(octets: bytes) -> str:
    """Return octets as people read them: printable ones as they are, others as ``<SOH>`` or ``<E4>``."""
    return "".join(chr(o) if 0x20 <= o < 0x7F else f"<{_NAMES.get(o, f'{o:02X}')}>" for o in octets)


class _Shown:
    """What went over the line: kept for a document, or shown as it happens."""

    def __init__(self, *, live: bool, as_json: bool = False) -> None:
        self.runs: deque[dict[str, Any]] = deque(maxlen=RUNS_KEPT)
        self.received_octets = 0
        self._live, self._as_json = live, as_json
        self._began_s = time.monotonic()

    def __call__(self, way: str, octets: bytes) -> None:
        at_ms = round((time.monotonic() - self._began_s) * 1000, 1)
        self.received_octets += len(octets) if way == "rx" else 0
        run = {"at_ms": at_ms, "way": way, "hex": octets.hex(" "), "text": named(octets)}
        if not self._live:
            self.runs.append(run)
        elif self._as_json:
            say(json.dumps(run))
        else:
            for at in range(0, len(octets), OCTETS_A_ROW):
                row = octets[at : at + OCTETS_A_ROW]
                start = f"{at_ms:9.1f} ms  {way}" if at == 0 else " " * 16
                say(f"{start}  {row.hex(' '):<{3 * OCTETS_A_ROW}} {named(row)}")


def _channel(settings: Settings, name: str | None) -> tuple[str, AnyChannel]:
    names = settings.channel_names()
    if not names:
        stop(f"{settings.path}: pager: there is no [[pager]] yet; see docs/settings.md", status=2)
    if name is None and len(names) > 1:
        stop(f"which pager line? Name one of {', '.join(names)}", status=2)
    if name is not None and name not in names:
        stop(f"there is no pager line {name!r}; name one of {', '.join(names)}", status=2)
    chosen = name or names[0]
    return chosen, settings.pager[names.index(chosen)]


def _served(settings: Settings, channel: AnyChannel) -> Iterator[str]:
    """Yield the groups that a channel calls, whom the daily test calls first."""
    groups = [channel.test_to, *settings.escalation.groups, *channel.groups, *channel.addresses]
    yield from dict.fromkeys(group for group in groups if group and channel.address(group) is not None)


def _open(settings: Settings, name: str, channel: AnyChannel, trace: _Shown | None, run: Path) -> Sink:
    from edge.alarm.channels import open_channel
    from edge.channels import LineChannel

    if trace is not None and not isinstance(channel, LineChannel):
        logging.getLogger(__name__).warning("a channel of kind %s is no line, so it has no trace", channel.kind)
    if getattr(channel, "url", "").startswith("tcp://") and _alarm_runs(run):
        logging.getLogger(__name__).warning(
            "the alarm service is connected to %s too; where the far end takes one caller only, stop it first",
            name,
        )
    return open_channel(name, channel, settings.secrets, trace, beside=settings.path.parent)


def _alarm_runs(run: Path) -> bool:
    from edge.runfile import read_runfile

    told = read_runfile(run / "alarm.json")
    return told is not None and told["age_s"] < STALE_S


def _remedy(error: SinkError, channel: AnyChannel, run: Path) -> str:
    """Say what to do about a page that was not taken."""
    from edge.channels import LineChannel
    from edge.sinks import SinkRejected
    from edge.sinks.line import LineHeld

    if isinstance(error, LineHeld) and _alarm_runs(run):
        return (
            "the alarm service holds the line. Stop it (sudo systemctl stop fallwatch-alarm), test, and start it "
            "again at once, as nobody is called meanwhile; or let it test by itself each day with test_at."
        )
    if isinstance(error, LineHeld):
        return "end the other program; sudo fuser -v names it."
    if isinstance(error, SinkRejected):
        return "ask whoever looks after the far end for a number it knows; give it with --to or in addresses."
    if isinstance(channel, LineChannel):
        return (
            "compare cable, port, baud, format and the protocol's settings with those of the far end; "
            "--trace shows what goes over the line."
        )
    return "compare the channel's settings in docs/settings.md with those of the far end, and try the network."
