"""The home's settings: TOML read once into frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

DEFAULT_CONFIG = Path("/etc/fallwatch/fallwatch.toml")
DEFAULT_STATE = Path("/var/lib/fallwatch")
DEFAULT_RUN = Path("/run/fallwatch")
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WEARABLE_PATTERN = re.compile(r"[A-Za-z0-9-]{1,8}")


class SettingsError(Exception):
    """The settings cannot be used; says in one line the file, the key and what would be right."""

    def __init__(self, path: Path | str, key: str, remedy: str) -> None:
        super().__init__(f"{path}: {key}: {remedy}" if key else f"{path}: {remedy}")
        self.path = path
        self.key = key
        self.remedy = remedy


def _need(ok: bool, key: str, remedy: str) -> None:
    if not ok:
        raise ValueError(f"{key}\0{remedy}")


def _need_above_zero(settings: object, *names: str) -> None:
    for name in names:
        _need(getattr(settings, name) > 0, name, "use a number above 0")


def _need_rising(settings: object, name: str, example: str) -> None:
    times_s = getattr(settings, name)
    rising = all(time_s > 0 for time_s in times_s) and list(times_s) == sorted(set(times_s))
    _need(rising, name, f"use rising numbers of seconds above 0, such as {example}")


@dataclass(frozen=True, slots=True)
class HomeSettings:
    """The care home itself."""

    id: str
    name: str = ""
    timezone: str = "Europe/London"

    def __post_init__(self) -> None:
        _need(bool(ID_PATTERN.fullmatch(self.id)), "id", "use letters, digits, '.', '_' or '-', such as 'site-7'")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            _need(False, "timezone", f"{self.timezone!r} is no time zone here; use one such as 'Europe/London'")


@dataclass(frozen=True, slots=True)
class DongleSettings:
    """One receiver for wearables on a serial port."""

    port: str
    baud: int = 460800

    def __post_init__(self) -> None:
        _need(bool(self.port), "port", "name its serial port, such as '/dev/serial/by-id/usb-fallwatch-dongle'")
        _need_above_zero(self, "baud")


@dataclass(frozen=True, slots=True)
class ResidentSettings:
    """Who wears what, and where staff should go."""

    id: str
    room: str
    bed: str = ""
    nhs_number: str = ""
    local_id: str = ""  # the home's own number where a resident has no NHS number
    wearable: str = ""
    placement: Literal["wrist", "waist"] = "wrist"

    def __post_init__(self) -> None:
        _need(bool(ID_PATTERN.fullmatch(self.id)), "id", "use letters, digits, '.', '_' or '-', such as 'r12'")
        _need(bool(self.room.strip()), "room", "name the room staff should go to, such as '12'")
        _need(
            self.wearable == "" or bool(WEARABLE_PATTERN.fullmatch(self.wearable)),
            "wearable",
            f"{self.wearable!r} is no wearable; use 1 to 8 letters, digits or '-', as printed on it",
        )
        _need(
            self.nhs_number == "" or nhs_number_is_valid(self.nhs_number),
            "nhs_number",
            "its check digit is wrong; copy the ten digits again from the resident's papers",
        )


@dataclass(frozen=True, slots=True)
class PagerSettings:
    """One paging channel."""

    kind: Literal["espa444"] = "espa444"
    name: str = ""  # espa-1, espa-2 ... by order when left out
    port: str = ""
    url: str = ""  # tcp://host:port
    baud: int = 9600
    format: str = "8N1"
    station: str = "2"
    variant: Literal["poll-select", "select", "block"] = "poll-select"
    ack_wait_s: float = 2.0
    attempts: int = 3
    check_every_s: float = 20.0  # keep-alive poll of an idle line
    down_after_s: float = 60.0  # no good transaction for so long: the line is down

    def __post_init__(self) -> None:
        _need(
            bool(self.port) != bool(self.url), "port", "give either port (a serial line) or url (tcp://host:port)"
        )
        _need(
            not self.url or bool(re.fullmatch(r"tcp://[^/:]+:\d{1,5}", self.url)),
            "url",
            f"{self.url!r} is no address; use tcp://host:port",
        )
        _need(
            bool(re.fullmatch(r"[78][NEO][12]", self.format)),
            "format",
            f"{self.format!r} is no line format; use data bits, parity and stop bits, such as '8N1' or '7E2'",
        )
        _need(bool(re.fullmatch(r"[0-9]", self.station)), "station", "use one digit, such as '2'")
        _need(self.baud > 0, "baud", "use the line's speed in bit/s, such as 9600")
        _need_above_zero(self, "ack_wait_s", "attempts", "check_every_s", "down_after_s")


@dataclass(frozen=True, slots=True)
class EscalationSettings:
    """Whom to call, and how soon to widen the call."""

    groups: tuple[str, ...] = ("0",)
    steps_s: tuple[float, ...] = (120.0, 240.0, 480.0)
    repeat_every_s: float = 120.0
    follow_up_s: tuple[float, ...] = (180.0, 300.0, 600.0)  # still on the floor

    def __post_init__(self) -> None:
        _need(bool(self.groups), "groups", "name at least one pager or group, such as ['12', '0']")
        _need(
            all(re.fullmatch(r"[0-9A-Za-z*#]{1,16}", group) for group in self.groups),
            "groups",
            "use pager or group numbers of up to 16 digits",
        )
        _need_rising(self, "steps_s", "[120, 240, 480]")
        _need_rising(self, "follow_up_s", "[180, 300, 600]")
        _need_above_zero(self, "repeat_every_s")


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Where the fall is written down."""

    kind: Literal["embedded", "fhir-r4"] = "embedded"
    base_url: str = ""
    auth: Literal["none", "bearer", "smart-backend"] = "none"
    token_file: str = ""  # bearer: a file in the secrets folder
    client_id: str = "fallwatch"  # smart-backend: as the record's operator knows us
    key_file: str = "record-key.pem"  # smart-backend: PEM private key in the secrets folder
    key_id: str = ""
    key_algorithm: Literal["RS384", "ES384"] = "RS384"
    token_url: str = ""  # found from the server when left out
    scope: str = ""  # what to ask for; fitted to the server when left out
    identifier_system: str = "https://fallwatch.example/id"  # prefix of our own identifier systems
    patient_local_system: str = ""  # identifier system of local_id
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.kind == "fhir-r4":
            _need(
                bool(re.match(r"https?://[^/]+", self.base_url)),
                "base_url",
                "give the server's FHIR address, such as 'https://record.example/fhir'",
            )
        _need(self.auth != "bearer" or bool(self.token_file), "token_file", "name the file that holds the token")
        _need_above_zero(self, "timeout_s")


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """The building's message broker; leave the table out to use none."""

    host: str = ""  # empty: no broker
    port: int = 1883
    tls: bool = False
    ca_file: str = ""
    username: str = ""
    password_file: str = ""
    discovery_prefix: str = "homeassistant"
    keepalive_s: int = 20

    def __post_init__(self) -> None:
        _need(0 < self.port < 65536, "port", "use a port from 1 to 65535; 1883, or 8883 with TLS")
        _need(self.keepalive_s >= 2, "keepalive_s", "use 2 or more seconds, such as 20")


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """How soon silence is news, and which model bundles run."""

    wrist_model: str = ""  # empty: the newest shipped
    waist_model: str = ""
    wrist_shadow: str = ""  # on trial beside the first, alarms nobody; empty: none
    waist_shadow: str = ""
    silence_s: float = 60.0  # a wearable that said nothing for so long is reported blind
    blind_page_s: float = 120.0  # ... and a person is paged after so long

    def __post_init__(self) -> None:
        _need_above_zero(self, "silence_s", "blind_page_s")


@dataclass(frozen=True, slots=True)
class Settings:
    """All of one home's settings, checked."""

    home: HomeSettings
    dongle: tuple[DongleSettings, ...] = ()
    resident: tuple[ResidentSettings, ...] = ()
    pager: tuple[PagerSettings, ...] = ()
    escalation: EscalationSettings = field(default_factory=EscalationSettings)
    record: RecordSettings = field(default_factory=RecordSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    path: Path = DEFAULT_CONFIG

    def __post_init__(self) -> None:
        own: dict[str, list[str]] = {
            "resident.id": [r.id for r in self.resident],
            "resident.wearable": [r.wearable for r in self.resident],
            "resident.nhs_number": [r.nhs_number.replace(" ", "") for r in self.resident],
            "resident.local_id": [r.local_id for r in self.resident],
            "dongle.port": [d.port for d in self.dongle],
            "pager.name": list(self.channel_names()),
        }
        for key, values in own.items():
            for i, value in enumerate(values):
                first = values.index(value)
                remedy = f"number {first + 1} and {i + 1} have the same; give each its own"
                _need(not value or first == i, key, remedy)

    @property
    def secrets(self) -> Path:
        """The folder of keys: beside the settings file, or what systemd hands over."""
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(credentials) if credentials else self.path.parent / "secrets"

    def resident_of(self, wearable: str) -> ResidentSettings | None:
        """Return who wears ``wearable``, if anybody does."""
        return next((r for r in self.resident if r.wearable == wearable), None)

    def channel_names(self) -> tuple[str, ...]:
        """Return the pagers' names in order, ``espa-1`` and so on where none is given."""
        return tuple(p.name or f"espa-{i}" for i, p in enumerate(self.pager, start=1))


def nhs_number_is_valid(number: str) -> bool:
    """Check length and check digit (mod 11); says nothing on whether the number was ever issued."""
    digits = number.replace(" ", "")
    if not re.fullmatch(r"[0-9]{10}", digits):
        return False
    check = 11 - sum(weight * int(d) for weight, d in zip(range(10, 1, -1), digits[:9], strict=True)) % 11
    return check % 11 == int(digits[9]) and check != 10


def load_settings(path: Path) -> Settings:
    """Read and check the settings file.

    Raises:
        SettingsError: there is no such file, it is no TOML, or a key is unknown, missing or wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(path, "", "there is no such file; write it, or name another with --config") from None
    except OSError as error:
        raise SettingsError(path, "", f"cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(path, "", f"is no TOML: {error}") from None
    settings = _build(Settings, table, path, "")
    return dataclasses.replace(settings, path=path)


T = typing.TypeVar("T")


def _build(cls: type[T], table: Mapping[str, Any], path: Path, where: str) -> T:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "path"}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise SettingsError(path, where + key, f"unknown key; known here: {', '.join(fields)}")
    values = {key: _value(hints[key], value, path, where + key) for key, value in table.items()}
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise SettingsError(path, where + name, "is missing")
    try:
        return cls(**values)
    except ValueError as error:
        key, _, remedy = str(error).partition("\0")
        raise SettingsError(path, where + key, remedy) from None


def _value(hint: Any, value: Any, path: Path, key: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise SettingsError(path, key, f"is a table: write [{key}]")
        return _build(typing.cast("type[Any]", hint), value, path, key + ".")
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list):
            wanted = f"[[{key}]]" if dataclasses.is_dataclass(item) else "a list in [ ]"
            raise SettingsError(path, key, f"write {wanted}")
        return tuple(_value(item, v, path, f"{key}[{i}]") for i, v in enumerate(value, start=1))
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise SettingsError(path, key, f"{value!r} is not known; use one of {', '.join(map(repr, choices))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not fits or (hint is float and not math.isfinite(value)):
        words = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
        raise SettingsError(path, key, f"{value!r} is wrong; use {words[hint]}")
    return value
