"""From the settings of a channel to the sink that serves it; each loads what it needs only when it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.alarm.worker import Sink
from edge.channels import (
    AnyChannel,
    EspaSettings,
    NtfySettings,
    RelaySettings,
    ScaipSettings,
    SmsSettings,
    SnppSettings,
    TapSettings,
    WebhookSettings,
)

Trace = Callable[[str, bytes], None]


def open_channel(
    name: str, settings: AnyChannel, secrets: Path, trace: Trace | None = None, *, beside: Path | None = None
) -> Sink:
    """Return the sink of a channel; it connects to nothing yet.

    Args:
        name: as `Settings.channel_names` has it.
        settings: one of ``[[pager]]``.
        secrets: the folder of secret files that settings name.
        beside: the folder of the settings file, where other files lie that it names; left out, above ``secrets``.
        trace: shown every octet of a line, as ``("tx" | "rx", octets)``; not every kind has one.
    """
    # Imported here: a home pays in memory only for the channels it has.
    match settings:
        case EspaSettings():
            from edge.sinks.espa import EspaPager  # noqa: PLC0415

            return EspaPager(name, settings, trace)
        case TapSettings():
            from edge.sinks.tap import TapSink  # noqa: PLC0415

            return TapSink(name, settings, secrets, trace)
        case SnppSettings():
            from edge.sinks.snpp import SnppSink  # noqa: PLC0415

            return SnppSink(name, settings, secrets)
        case RelaySettings():
            from edge.sinks.relay import RelaySink  # noqa: PLC0415

            return RelaySink(name, settings)
        case SmsSettings():
            from edge.sinks.sms import SmsSink  # noqa: PLC0415

            return SmsSink(name, settings)
        case ScaipSettings():
            from edge.sinks.scaip import ScaipSink  # noqa: PLC0415

            return ScaipSink(
                name,
                settings,
                secrets,
                codes=(beside or secrets.parent) / settings.codes_file if settings.codes_file else None,
            )
        case NtfySettings():
            from edge.sinks.push import NtfySink  # noqa: PLC0415

            return NtfySink(name, settings, secrets)
        case WebhookSettings():
            from edge.sinks.push import WebhookSink  # noqa: PLC0415

            return WebhookSink(name, settings, secrets)
