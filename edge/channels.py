"""The kinds of channel on which people are called, as ``[[pager]]`` of the settings gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from edge.checked import need, need_above_zero

_ADDRESS = re.compile(r"tcp://[^/:]+:\d{1,5}")
_URL = re.compile(r"https?://[^/\s]+(/\S*)?")
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of ntfy
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(_URL.fullmatch(text) and parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # a port that is none
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """What all kinds have in common."""

    name: str = ""  # espa-1, sms-1 ... by order within the kind when left out
    role: Literal["primary", "fallback"] = "primary"  # fallback: only for what no primary channel takes
    groups: tuple[str, ...] = ()  # of the escalation, that it calls; empty: all
    addresses: Mapping[str, str] = field(default_factory=dict)  # group: its number on this channel, where another
    check_every_s: float = 15.0  # keep-alive of an idle channel
    down_after_s: float = 40.0  # nothing good for so long: the channel is down
    test_at: str = ""  # a test page each day, at this time of the home; empty: none
    test_to: str = ""  # ... to this group; the first it calls when left out

    def __post_init__(self) -> None:
        need_above_zero(self, "check_every_s", "down_after_s")
        need(self.test_at == "" or bool(_CLOCK.fullmatch(self.test_at)), "test_at", "use a time such as '10:30'")
        for key, number in self.addresses.items():
            need(bool(number.strip()), "addresses", f"group {key!r} has no number")

    def address(self, group: str) -> str | None:
        """Return the number of a group on this channel; None when it is not called here."""
        if self.groups and group not in self.groups:
            return None
        return self.addresses.get(group, group)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressedChannel(Channel):
    """A channel on which a group's own number means nothing: only the groups in ``addresses`` are called."""

    def address(self, group: str) -> str | None:
        """Return the address of a group on this channel; None when it is not called here."""
        return self.addresses.get(group) if not self.groups or group in self.groups else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChannel(Channel):
    """A channel on a serial line, or on a serial server in the network."""

    port: str = ""
    url: str = ""  # tcp://host:port
    baud: int = 9600
    format: str = "8N1"
    attempts: int = 3

    def __post_init__(self) -> None:
        super(LineChannel, self).__post_init__()
        need(
            bool(self.port) != bool(self.url), "port", "give either port (a serial line) or url (tcp://host:port)"
        )
        need(
            not self.url or bool(_ADDRESS.fullmatch(self.url)),
            "url",
            f"{self.url!r} is no address; use tcp://host:port",
        )
        need(
            bool(re.fullmatch(r"[78][NEO][12]", self.format)),
            "format",
            f"{self.format!r} is no line format; use data bits, parity and stop bits, such as '8N1' or '7E2'",
        )
        need(self.baud > 0, "baud", "use the line's speed in bit/s, such as 9600")
        need_above_zero(self, "attempts")


@dataclass(frozen=True, slots=True, kw_only=True)
class EspaSettings(LineChannel):
    """A pager system that speaks ESPA 4.4.4."""

    kind: Literal["espa444"] = "espa444"
    station: str = "2"  # the paging system's address on the line
    own: str = "1"  # ours
    variant: Literal["poll-select", "select", "block", "slave"] = "poll-select"
    ends: Literal["ours", "theirs"] = "ours"  # whose EOT ends a transaction
    ack_wait_s: float = 2.0
    poll_wait_s: float = 20.0  # variant slave: a line on which nobody polls for so long is down
    beep: str = "2"  # for emergencies; what it sounds like is set in the pager system
    most_characters: int = 128
    status_poll_s: float = 0.0  # as control station, ask the pager system so often for its status; 0: never
    # Values of records 7 (call status) and 8 (system status) differ by maker: none is taken for a person, or
    # for a failure, unasked.
    status_acknowledges: tuple[str, ...] = ()
    status_fails: tuple[str, ...] = ()
    system_status_fails: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super(EspaSettings, self).__post_init__()
        need(bool(re.fullmatch(r"[0-9]", self.station)), "station", "use one digit, such as '2'")
        need(
            bool(re.fullmatch(r"[0-9]", self.own)) and self.own != self.station,
            "own",
            "use another digit than station",
        )
        need(bool(re.fullmatch(r"[0-9]", self.beep)), "beep", "use one digit, such as '2'")
        need(20 <= self.most_characters <= 128, "most_characters", "use 20 to 128, as the pagers show")
        need(self.status_poll_s >= 0, "status_poll_s", "use a number of seconds, or 0 for never")
        need(
            not self.status_poll_s or self.variant in {"poll-select", "select"},
            "status_poll_s",
            "leave it out: in this variant we are not the control station",
        )
        both = sorted({*self.status_acknowledges} & {*self.status_fails})
        need(not both, "status_fails", f"{both} acknowledge as well; choose one")
        need_above_zero(self, "ack_wait_s", "poll_wait_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class TapSettings(LineChannel):
    """A paging terminal that speaks TAP 1.8 (IXO)."""

    kind: Literal["tap"] = "tap"
    format: str = "7E1"
    password_file: str = ""  # in the secrets folder; at most 6 characters
    answer_wait_s: float = 10.0  # the specification gives a terminal so long
    most_characters: int = 128

    def __post_init__(self) -> None:
        super(TapSettings, self).__post_init__()
        need(20 <= self.most_characters <= 1000, "most_characters", "use 20 to 1000, as the terminal takes")
        need_above_zero(self, "answer_wait_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnppSettings(Channel):
    """A paging server that speaks SNPP (RFC 1861)."""

    kind: Literal["snpp"] = "snpp"
    host: str
    port: int = 444
    login: str = ""  # sent first where the server wants one
    password_file: str = ""  # in the secrets folder
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        super(SnppSettings, self).__post_init__()
        need(bool(self.host), "host", "name the paging server")
        need(bool(re.fullmatch(r"[!-~]{0,64}", self.login)), "login", "use a name without spaces")
        need(bool(self.login) or not self.password_file, "login", "is needed where there is a password_file")
        need(0 < self.port < 65536, "port", "use a port from 1 to 65535; 444 is usual")
        need_above_zero(self, "timeout_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings(Channel):
    """A volt-free contact into a spare input of the nurse-call system, by GPIO."""

    kind: Literal["relay"] = "relay"
    chip: str = "/dev/gpiochip0"
    line: int
    # Fail-safe: the coil is held while all is well, so that a power cut, a crash and a cut wire call too.
    fail_safe: bool = True
    active_low: bool = False  # the relay board holds its coil while the line is low
    mode: Literal["latch", "pulse"] = "latch"  # latch: until a person acknowledges
    pulse_s: float = 3.0  # also for test pages, and for news of an incident that was acknowledged

    def __post_init__(self) -> None:
        super(RelaySettings, self).__post_init__()
        need(self.line >= 0, "line", "use the number of the GPIO line, such as 17")
        need_above_zero(self, "pulse_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsSettings(AddressedChannel):
    """Text messages by a modem on this machine, through gammu-smsd."""

    kind: Literal["sms"] = "sms"
    rc_file: str = "/etc/gammu-smsdrc"
    sent_wait_s: float = 30.0
    replies: bool = True  # "OK 4F2" from a number that was called acknowledges
    check_every_s: float = 20.0

    def __post_init__(self) -> None:
        super(SmsSettings, self).__post_init__()
        for group, number in self.addresses.items():
            right = bool(re.fullmatch(r"\+[1-9]\d{6,14}", number))
            need(
                right, "addresses", f"{number!r} of group {group!r} is no number; use one such as '+447700900123'"
            )
        need(bool(self.addresses), "addresses", 'name a number for at least one group: { "99" = "+447700900123" }')
        need_above_zero(self, "sent_wait_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaipSettings(Channel):
    """An alarm receiving centre that speaks SCAIP (SS 91100, CLC/TS 50134-9)."""

    kind: Literal["scaip"] = "scaip"
    host: str
    port: int = 5060
    transport: Literal["udp", "tcp", "tls"] = "udp"
    ca_file: str = ""  # tls: certificate that signed the centre's, where it is its own
    local_port: int = 0  # udp: where the centre's answers arrive; 0: any
    controller: str  # the controller id, as the centre knows us
    receiver: str = ""  # the SIP user at the centre to send to, where it wants one
    codes_file: str = ""  # TOML beside the settings file, as agreed with the centre; empty: the shipped table
    speech: str = "no-voice:"
    answer_wait_s: float = 8.0  # for the centre's own answer, after SIP's
    check_every_s: float = 20.0  # a heartbeat message
    down_after_s: float = 50.0

    def __post_init__(self) -> None:
        super(ScaipSettings, self).__post_init__()
        need(bool(self.host), "host", "name the alarm receiving centre's SIP host")
        need(0 < self.port < 65536, "port", "use a port from 1 to 65535; 5060 is usual, 5061 with TLS")
        need(0 <= self.local_port < 65536, "local_port", "use a port up to 65535, or 0 for any")
        need(
            bool(re.fullmatch(r"[A-Za-z0-9._-]{1,32}", self.controller)),
            "controller",
            "use the id the centre gave out",
        )
        need(
            bool(re.fullmatch(r"[A-Za-z0-9._+-]{0,64}", self.receiver)),
            "receiver",
            "use the user's name alone, without sip: and host",
        )
        right = bool(re.fullmatch(r"(no-voice|gsm|tel|sip):[!-~]{0,64}", self.speech))
        need(right, "speech", "use 'no-voice:', or a number to call back such as 'tel:+441632960123'")
        need_above_zero(self, "answer_wait_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class NtfySettings(AddressedChannel):
    """Push messages to telephones by an ntfy server; beside pagers, never in their place."""

    kind: Literal["ntfy"] = "ntfy"
    url: str
    token_file: str = ""  # in the secrets folder
    replies_topic: str = ""  # the message's button publishes there: an acknowledgement; empty: no button
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        super(NtfySettings, self).__post_init__()
        need(_is_url(self.url), "url", "give the server's address, such as 'http://ntfy.home:8080'")
        need(
            bool(self.addresses), "addresses", 'name a topic for at least one group: { "99" = "rosewood-nights" }'
        )
        for group, topic in self.addresses.items():  # who knows a topic can read it, so it is not shown here
            right = bool(_TOPIC.fullmatch(topic))
            need(right, "addresses", f"the topic of group {group!r} may have letters, digits, - and _ only")
        right = not self.replies_topic or bool(_TOPIC.fullmatch(self.replies_topic))
        need(right, "replies_topic", "use letters, digits, - and _ only")
        right = self.replies_topic not in self.addresses.values()
        need(right, "replies_topic", "use a topic that no group is called on")
        need_above_zero(self, "timeout_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings(Channel):
    """An HTTP address that is told of each call, as JSON."""

    kind: Literal["webhook"] = "webhook"
    url: str
    secret_file: str = ""  # in the secrets folder; signs each body (HMAC-SHA256)
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        super(WebhookSettings, self).__post_init__()
        need(_is_url(self.url), "url", "give the address, such as 'https://host/fallwatch'")
        need_above_zero(self, "timeout_s")


AnyChannel = (
    EspaSettings
    | TapSettings
    | SnppSettings
    | RelaySettings
    | SmsSettings
    | ScaipSettings
    | NtfySettings
    | WebhookSettings
)
