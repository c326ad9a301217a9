"""The home's settings: TOML read once into frozen dataclasses that check themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from edge.channels import AnyChannel
from edge.checked import SettingsError, build, need, need_above_zero, need_rising

DEFAULT_CONFIG = Path("/etc/fallwatch/fallwatch.toml")
DEFAULT_STATE = Path("/var/lib/fallwatch")
DEFAULT_RUN = Path("/run/fallwatch")
CLOCK_PATTERN = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WEARABLE_PATTERN = re.compile(r"[A-Za-z0-9-]{1,8}")


def _need_wearable(wearable: str, key: str) -> None:
    """Refuse what cannot be a wearable's id; none at all is well."""
    right = wearable == "" or bool(WEARABLE_PATTERN.fullmatch(wearable))
    need(right, key, f"{wearable!r} is no wearable; use 1 to 8 letters, digits or '-', as printed on it")


def _need_groups(groups: tuple[str, ...]) -> None:
    need(bool(groups), "groups", "name at least one pager or group, such as ['12', '0']")
    usable = all(re.fullmatch(r"[0-9A-Za-z*#]{1,16}", group) for group in groups)
    need(usable, "groups", "use pager or group numbers of up to 16 digits")


@dataclass(frozen=True, slots=True)
class HomeSettings:
    """The care home itself."""

    id: str
    name: str = ""
    timezone: str = "Europe/London"

    def __post_init__(self) -> None:
        need(bool(ID_PATTERN.fullmatch(self.id)), "id", "use letters, digits, '.', '_' or '-', such as 'site-7'")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            need(False, "timezone", f"{self.timezone!r} is no time zone here; use one such as 'Europe/London'")


@dataclass(frozen=True, slots=True)
class DongleSettings:
    """One receiver for wearables on a serial port."""

    port: str
    baud: int = 460800

    def __post_init__(self) -> None:
        need(bool(self.port), "port", "name its serial port, such as '/dev/serial/by-id/usb-fallwatch-dongle'")
        need_above_zero(self, "baud")


@dataclass(frozen=True, slots=True)
class ResidentSettings:
    """Who wears what, and where staff should go."""

    id: str
    room: str
    bed: str = ""
    nhs_number: str = ""
    local_id: str = ""  # the home's own number where a resident has no NHS number
    wearable: str = ""
    spare: str = ""  # a second one, worn while the first charges
    placement: Literal["wrist", "waist"] = "wrist"
    cover: Literal["must", "should", "none"] = (
        "must"  # staff's decision: what happens while nobody watches over them
    )

    def __post_init__(self) -> None:
        need(bool(ID_PATTERN.fullmatch(self.id)), "id", "use letters, digits, '.', '_' or '-', such as 'r12'")
        need(bool(self.room.strip()), "room", "name the room staff should go to, such as '12'")
        for key in ("wearable", "spare"):
            _need_wearable(getattr(self, key), key)
        need(not self.spare or bool(self.wearable), "spare", "name it as wearable; there is no first one")
        need(
            self.nhs_number == "" or nhs_number_is_valid(self.nhs_number),
            "nhs_number",
            "its check digit is wrong; copy the ten digits again from the resident's papers",
        )

    @property
    def wearables(self) -> tuple[str, ...]:
        """All that this resident may wear."""
        return tuple(filter(None, (self.wearable, self.spare)))


BLE_KINDS = ("bangle", "polar", "witmotion-ble")
SERIAL_KINDS = ("witmotion", "shimmer")
FEELS_SKIN = ("fallwatch", "bangle")  # they tell themselves whether they are worn


@dataclass(frozen=True, slots=True)
class WearableSettings:
    """A wearable that does not come by a fallwatch receiver: how it is reached, and how it samples."""

    id: str
    kind: Literal["bangle", "polar", "witmotion-ble", "witmotion", "shimmer", "mqtt"]
    address: str = ""  # of Bluetooth
    port: str = ""  # of a serial line
    baud: int = 115200
    rate_hz: float = 50.0
    range_g: int = 8

    def __post_init__(self) -> None:
        _need_wearable(self.id, "id")
        need(bool(self.id), "id", "name it, such as '0042'")
        if self.kind in BLE_KINDS:
            right = bool(re.fullmatch(r"([0-9A-F]{2}:){5}[0-9A-F]{2}", self.address))
            need(right, "address", "give its Bluetooth address in capitals, such as 'A0:9E:1A:00:00:42'")
        if self.kind in SERIAL_KINDS:
            need(bool(self.port), "port", "name its serial port, such as '/dev/serial/by-id/usb-witmotion'")
        need(20.0 <= self.rate_hz <= 200.0, "rate_hz", "use a rate from 20 to 200")
        if self.kind.startswith("witmotion"):
            need(self.rate_hz in {20, 50, 100, 200}, "rate_hz", "a WitMotion has 20, 50, 100 and 200")
        if self.kind == "polar":
            need(self.range_g <= 8, "range_g", "a Polar has 2, 4 and 8")
        need(self.range_g in {2, 4, 8, 16}, "range_g", "use 2, 4, 8 or 16")
        need_above_zero(self, "baud")

    @property
    def link(self) -> str:
        """The name of the link it comes by."""
        return f"ble:{self.address}" if self.kind in BLE_KINDS else self.port or "mqtt"


@dataclass(frozen=True, slots=True)
class BleSettings:
    """The Bluetooth radio of this computer."""

    adapter: str = "hci0"

    @property
    def port(self) -> str:
        """The name of the radio among the links."""
        return f"ble:{self.adapter}"


INTRINSICS = ("fx", "fy", "cx", "cy")
TELLS_NO_INTRINSICS = ("v4l2",)  # a folder has its calib.json


@dataclass(frozen=True, slots=True)
class CameraZoneSettings:
    """A bed or chair in a camera's view: who lies there is in bed."""

    kind: Literal["bed", "chair"]
    polygon_m: tuple[tuple[float, ...], ...]  # corners of its surface, camera x and z
    height_m: float  # of its surface above the floor

    def __post_init__(self) -> None:
        right = len(self.polygon_m) >= 3 and all(len(corner) == 2 for corner in self.polygon_m)
        need(right, "polygon_m", "give three or more corners, such as [[-0.5, 2.0], [0.5, 2.0], [0.5, 4.0]]")
        need(0 <= self.height_m <= 2, "height_m", "use a height from 0 to 2")


@dataclass(frozen=True, slots=True)
class ConsentSettings:
    """What allows a camera to look: the resident's consent, or a best-interests decision."""

    kind: Literal["consent", "best-interests"]
    given: date
    review: date  # from this day on it no longer counts

    def __post_init__(self) -> None:
        need(self.given < self.review, "review", "name a day after given")

    def holds(self, today: date) -> bool:
        """Tell whether it is in date."""
        return self.given <= today < self.review


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """A depth camera: where it hangs, how it is reached, and what allows it to look."""

    id: str
    room: str
    kind: Literal["orbbec", "oak", "arducam", "realsense", "v4l2", "folder"]
    device: str = ""  # a serial number or a path; empty: the first found
    width: int = 640
    height: int = 480
    fps: float = 30.0
    fx: float = 0.0  # these four in pixels, where the camera does not tell them
    fy: float = 0.0
    cx: float = 0.0
    cy: float = 0.0
    floor: tuple[float, ...] = ()  # of the plane in camera axes; empty: found
    resident: str = ""  # whose room it is
    consent: ConsentSettings | None = None  # without it the camera stays off
    zone: tuple[CameraZoneSettings, ...] = ()

    def __post_init__(self) -> None:
        need(bool(ID_PATTERN.fullmatch(self.id)), "id", "use letters, digits, '.', '_' or '-', such as 'cam-12'")
        need(bool(self.room.strip()), "room", "name the room it hangs in, such as '12'")
        need(self.kind != "folder" or bool(self.device), "device", "name the folder of its images")
        for key in ("width", "height"):
            need(16 <= getattr(self, key) <= 4096, key, "use a number from 16 to 4096, such as 640 and 480")
        need(1 <= self.fps <= 120, "fps", "use a rate from 1 to 120, such as 30")
        given = [key for key in INTRINSICS if getattr(self, key)]
        missing = next((key for key in INTRINSICS if key not in given), "")
        need(not given or not missing, missing, f"is missing beside {', '.join(given)}: give all four")
        need(bool(given) or self.kind not in TELLS_NO_INTRINSICS, "fx", f"a {self.kind} camera does not tell it")
        need(all(getattr(self, key) >= 0 for key in INTRINSICS), "fx", "use numbers above 0")
        level = len(self.floor) == 4 and abs(math.hypot(*self.floor[:3]) - 1) < 0.01 and self.floor[3] > 0
        need(
            not self.floor or level, "floor", "copy the four numbers from fallwatch camera floor, or leave it out"
        )


@dataclass(frozen=True, slots=True)
class EscalationSettings:
    """Whom to call, and how soon to widen the call."""

    groups: tuple[str, ...] = ("0",)
    steps_s: tuple[float, ...] = (120.0, 240.0, 480.0)
    repeat_every_s: float = 120.0
    follow_up_s: tuple[float, ...] = (180.0, 300.0, 600.0)  # still on the floor
    fallback_after_s: float = 10.0  # no primary channel has taken a page for so long: the fallback ones get it
    technical_repeat_s: float = 1800.0  # one wearable without cover, or a fault, is told again

    def __post_init__(self) -> None:
        _need_groups(self.groups)
        need_rising(self, "steps_s", "[120, 240, 480]")
        need_rising(self, "follow_up_s", "[180, 300, 600]")
        need_above_zero(self, "repeat_every_s", "fallback_after_s", "technical_repeat_s")


@dataclass(frozen=True, slots=True)
class ZoneSettings:
    """Rooms that the same staff look after."""

    name: str
    rooms: tuple[str, ...]

    def __post_init__(self) -> None:
        need(bool(self.name.strip()), "name", "give it a name, such as 'first floor'")
        need(bool(self.rooms), "rooms", "name at least one room, such as ['12', '14']")


@dataclass(frozen=True, slots=True)
class ShiftSettings:
    """A part of the day, in the home's own time; one that ends before it begins goes over midnight."""

    name: str
    begins: str
    ends: str

    def __post_init__(self) -> None:
        need(bool(self.name.strip()), "name", "give it a name, such as 'night'")
        for key in ("begins", "ends"):
            need(bool(CLOCK_PATTERN.fullmatch(getattr(self, key))), key, "use a time such as '20:00'")
        need(self.begins != self.ends, "ends", "use another time than begins; leave the shift out for always")

    def minutes(self) -> tuple[int, int]:
        """Return when it begins and ends, in minutes after midnight."""
        begins, ends = (int(text[:2]) * 60 + int(text[3:]) for text in (self.begins, self.ends))
        return begins, ends


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """Whom to call instead of ``escalation.groups``, for a zone, in a shift, or both."""

    groups: tuple[str, ...]
    zone: str = ""
    shift: str = ""

    def __post_init__(self) -> None:
        _need_groups(self.groups)
        need(bool(self.zone or self.shift), "zone", "name a zone, a shift or both; [escalation] is for the rest")


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
    key_algorithm: Literal["RS384", "ES384", "RS512"] = "RS384"  # some national services want the last
    token_url: str = ""  # found from the server when left out
    scope: str = ""  # what to ask for; fitted to the server when left out
    identifier_system: str = "https://fallwatch.example/id"  # prefix of our own identifier systems
    patient_local_system: str = ""  # identifier system of local_id
    timeout_s: float = 10.0
    down_after_s: float = 900.0  # staff are told when it has been away for so long

    def __post_init__(self) -> None:
        if self.kind == "fhir-r4":
            need(
                bool(re.match(r"https?://[^/]+", self.base_url)),
                "base_url",
                "give the server's FHIR address, such as 'https://record.example/fhir'",
            )
        need(self.auth != "bearer" or bool(self.token_file), "token_file", "name the file that holds the token")
        need(
            bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s|,$\\]+", self.identifier_system)),
            "identifier_system",
            "use a URL or URN of the home's own, such as 'https://rosewood.example/id'",
        )
        need_above_zero(self, "timeout_s")


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
    down_after_s: float = 25.0  # staff are told when it has been away for so long
    wearables: bool = False  # samples of wearables come by it, from receivers in the rooms

    def __post_init__(self) -> None:
        need(not self.wearables or bool(self.host), "host", "name the broker by which wearables come")
        need(0 < self.port < 65536, "port", "use a port from 1 to 65535; 1883, or 8883 with TLS")
        need(self.keepalive_s >= 2, "keepalive_s", "use 2 or more seconds, such as 20")
        need_above_zero(self, "down_after_s")


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """How soon silence is news, and which model bundles run."""

    wrist_model: str = ""  # empty: the newest shipped
    waist_model: str = ""
    camera_model: str = ""
    wrist_former: str = ""  # what ran before it: runs where it is refused, and is what fallwatch goes back to
    waist_former: str = ""
    camera_former: str = ""
    wrist_shadow: str = ""  # on trial beside the first, alarms nobody; empty: none
    waist_shadow: str = ""
    silence_s: float = 60.0  # a wearable that said nothing for so long is reported blind
    blind_page_s: float = 30.0  # ... and a person is paged after so long
    not_worn_page_s: float = 900.0  # the same for one that is not worn: time for a wash
    charging_page_s: float = 10_800.0  # the same for one on its charger
    link_page_s: float = 20.0  # the same for a receiver, or this computer's Bluetooth
    camera_page_s: float = 20.0  # the same for a camera

    def __post_init__(self) -> None:
        need_above_zero(self, "silence_s", "blind_page_s", "not_worn_page_s", "charging_page_s", "link_page_s")
        need_above_zero(self, "camera_page_s")


@dataclass(frozen=True, slots=True)
class Settings:
    """All of one home's settings, checked."""

    home: HomeSettings
    dongle: tuple[DongleSettings, ...] = ()
    resident: tuple[ResidentSettings, ...] = ()
    pager: tuple[AnyChannel, ...] = ()
    escalation: EscalationSettings = field(default_factory=EscalationSettings)
    zone: tuple[ZoneSettings, ...] = ()
    shift: tuple[ShiftSettings, ...] = ()
    route: tuple[RouteSettings, ...] = ()
    record: RecordSettings = field(default_factory=RecordSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    wearable: tuple[WearableSettings, ...] = ()
    ble: BleSettings = field(default_factory=BleSettings)
    camera: tuple[CameraSettings, ...] = ()
    path: Path = DEFAULT_CONFIG

    def __post_init__(self) -> None:
        own: dict[str, list[str]] = {
            "resident.id": [r.id for r in self.resident],
            "resident.wearable": [r.wearable for r in self.resident] + [r.spare for r in self.resident],
            "resident.nhs_number": [r.nhs_number.replace(" ", "") for r in self.resident],
            "resident.local_id": [r.local_id for r in self.resident],
            "dongle.port": [d.port for d in self.dongle],
            "wearable.id": [w.id for w in self.wearable],
            "wearable.address": [w.address for w in self.wearable],
            "wearable.port": [w.port for w in self.wearable] + [d.port for d in self.dongle],
            "pager.name": list(self.channel_names()),
            "zone.name": [z.name for z in self.zone],
            "shift.name": [s.name for s in self.shift],
            "camera.id": [c.id for c in self.camera],
            # Two of a kind that each take the first found would take the same.
            "camera.device": [f"{c.kind} {c.device}" for c in self.camera],
        }
        for key, values in own.items():
            for i, value in enumerate(values):
                first = values.index(value)
                remedy = f"number {first + 1} and {i + 1} have the same; give each its own"
                need(not value or first == i, key, remedy)
        for i, route in enumerate(self.route, start=1):
            for key, wanted in (("zone", route.zone), ("shift", route.shift)):
                there = own[f"{key}.name"]
                remedy = f"there is no {key} {wanted!r} among {', '.join(there) or 'none'}; add it as [[{key}]]"
                need(not wanted or wanted in there, f"route[{i}].{key}", remedy)
        groups = {*self.escalation.groups, *(group for route in self.route for group in route.groups)}
        for i, channel in enumerate(self.pager, start=1):
            for key, named in (("groups", channel.groups), ("addresses", tuple(channel.addresses))):
                stray = next((g for g in named if g not in groups), "")
                need(not stray, f"pager[{i}].{key}", f"{stray!r} is in no groups of [escalation] or [[route]]")
        rooms = {*(r.room for r in self.resident), *(room for zone in self.zone for room in zone.rooms)}
        for i, camera in enumerate(self.camera, start=1):
            remedy = f"{camera.room!r} is the room of no [[resident]] and in no [[zone]]"
            need(camera.room in rooms, f"camera[{i}].room", remedy)
            theirs = next((r for r in self.resident if r.id == camera.resident), None)
            remedy = f"there is no resident {camera.resident!r}; add them as [[resident]]"
            need(not camera.resident or theirs is not None, f"camera[{i}].resident", remedy)
            remedy = f"{camera.resident} lives in room {theirs.room if theirs else ''}, not {camera.room}"
            need(theirs is None or theirs.room == camera.room, f"camera[{i}].resident", remedy)

    @property
    def secrets(self) -> Path:
        """The folder of keys: beside the settings file, or what systemd hands over."""
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(credentials) if credentials else self.path.parent / "secrets"

    def broker_password(self) -> str | None:
        """Return the password of the broker; None where there is none, or it cannot be read."""
        if self.mqtt.password_file:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                return (self.secrets / self.mqtt.password_file).read_text(encoding="utf-8").strip()
        return None

    def resident_of(self, wearable: str) -> ResidentSettings | None:
        """Return who wears ``wearable``, if anybody does."""
        return next((r for r in self.resident if wearable in r.wearables), None)

    def cameras_of(self, resident: str) -> tuple[CameraSettings, ...]:
        """Return the cameras in a resident's own room."""
        return tuple(camera for camera in self.camera if camera.resident == resident)

    def wearable_kind(self, wearable: str) -> str:
        """Return what a wearable is: ``fallwatch`` for one that comes by our own receiver."""
        return next((w.kind for w in self.wearable if w.id == wearable), "fallwatch")

    def link_of(self, wearable: str) -> str:
        """Return by what a wearable comes: ``dongle``, ``ble``, ``serial`` or ``mqtt``."""
        kind = self.wearable_kind(wearable)
        return (
            "dongle"
            if kind == "fallwatch"
            else "ble"
            if kind in BLE_KINDS
            else ("serial" if kind in SERIAL_KINDS else "mqtt")
        )

    def is_sealed(self, wearable: str) -> bool:
        """Tell whether a wearable seals what it sends with a key of its own."""
        return self.wearable_kind(wearable) in {"fallwatch", "bangle"}

    def channel_names(self) -> tuple[str, ...]:
        """Return the channels' names in order, ``espa-1``, ``sms-1`` and so on where none is given."""
        numbers: Counter[str] = Counter()
        names = []
        for channel in self.pager:
            stem = channel.kind.removesuffix("444")
            numbers[stem] += 1
            names.append(channel.name or f"{stem}-{numbers[stem]}")
        return tuple(names)


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
    settings = build(Settings, table, path, "")
    return dataclasses.replace(settings, path=path)
