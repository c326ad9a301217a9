"""What set-up does to this computer: looks what is plugged in, tries parts, puts secrets and drop-ins in place."""

from __future__ import annotations

import asyncio
import dataclasses
import glob
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.cli.edit import hand_over, make_folder, sync_folder, write_private
from edge.directory import FIELDS, NoDirectory, Plan, decoded, parse_csv, parse_fhir, plan_import
from edge.doctor.finding import Finding, fault
from edge.failpoint import failpoint
from edge.keys import KeyStore
from edge.settings import BLE_KINDS, MqttSettings, Settings
from edge.setup.questions import BadAnswer, Found, Question
from edge.setup.written import KEY, answers_of, secret_name

BROKER = ("localhost", 1883)
LISTEN_S = 4.0  # a receiver says what it is within a second of being asked
CAMERA_S = 8.0
LIST_MAX_BYTES = 20 << 20
DROP_INS = Path("/usr/share/fallwatch/drop-ins")
DROP_IN_TARGET = Path("/etc/systemd/system/fallwatch-detect.service.d")
TARGET = "fallwatch.target"


def find(settings: Settings | None, *, may_ask: bool) -> Found:
    """Return what is plugged in here, and what the settings say so far."""
    from firmware_bridge.dongle import find_dongles  # noqa: PLC0415 - a serial library, for this alone

    receivers = find_dongles()
    present = answers_of(settings) if settings else {}
    host, port = BROKER
    broker = "" if present.get("broker", "none") != "none" else _broker_here(host, port)
    return Found(
        receivers=tuple(receivers),
        ports=tuple(port for port in sorted(glob.glob("/dev/serial/by-id/*")) if port not in receivers),
        adapters=_adapters(),
        cameras=_cameras(settings),
        timezone=_timezone(),
        broker=f"{host}:{port}" if broker else "",
        broker_wants_password=broker == "password",
        present=present,
        residents=tuple(
            {"id": r.id, "room": r.room, "wearable": r.wearable, "cover": r.cover} for r in settings.resident
        )
        if settings
        else (),
        may_start=may_ask and os.geteuid() == 0 and Path("/run/systemd/system").is_dir(),
    )


def _timezone() -> str:
    """Return the zone this computer is set to."""
    place = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    return place if place and place != "Etc/UTC" else "Europe/London"


def _cameras(settings: Settings | None) -> tuple[dict[str, Any], ...]:
    from edge.sources.depth import find_cameras  # noqa: PLC0415 - numpy and the makers' drivers

    known = {(c.kind, c.device) for c in settings.camera} if settings else set()
    return tuple({"kind": c.kind, "device": c.device} for c in find_cameras() if (c.kind, c.device) not in known)


def _adapters() -> tuple[str, ...]:
    """Return the Bluetooth radios that BlueZ knows; none where it does not run."""
    try:
        return asyncio.run(asyncio.wait_for(_ask_bluez(), 3.0))
    except (OSError, TimeoutError, EOFError, ImportError):
        return ()


async def _ask_bluez() -> tuple[str, ...]:
    from dbus_fast import BusType, Message, MessageType  # noqa: PLC0415 - Linux alone has it
    from dbus_fast.aio import MessageBus  # noqa: PLC0415  # seldom wanted

    bus = MessageBus(bus_type=BusType.SYSTEM)
    try:
        await bus.connect()
        ask = Message(
            destination="org.bluez",
            path="/",
            interface="org.freedesktop.DBus.ObjectManager",
            member="GetManagedObjects",
        )
        reply = await bus.call(ask)
        if reply is None or reply.message_type is MessageType.ERROR:
            return ()
        found = (Path(path).name for path, what in reply.body[0].items() if "org.bluez.Adapter1" in what)
        return tuple(sorted(found))
    finally:
        bus.disconnect()


def _broker_here(host: str, port: int) -> str:
    """Return ``open`` or ``password`` where a broker answers, empty where none does."""
    from edge.doctor.probes import probe_broker  # noqa: PLC0415 - paho

    found = probe_broker(MqttSettings(host=host, port=port), None, home="setup", wait_s=2.0)
    if found.state == "well":
        return "open"
    return "password" if found.says.startswith("refused us") else ""


# -- tried on the spot --------------------------------------------------------------------------


def try_part(part: str, settings: Settings, answers: Mapping[str, Any], state: Path) -> list[Finding]:
    """Try what has just been answered, for real; a pager sounds only where that was wished."""
    from edge.doctor import probes  # noqa: PLC0415 - numpy, for the ways in

    keys = KeyStore(settings.secrets, state)
    match part:
        case "receivers":
            found = [probes.probe_receiver(dongle, keys, wait_s=LISTEN_S) for dongle in settings.dongle]
            return [_before_pairing(one, keys) for one in found]
        case "bluetooth" if answers.get("bluetooth", "none") != "none":
            return [probes.probe_bluetooth(settings.ble, (), keys, wait_s=LISTEN_S)]
        case "cameras":
            fresh = {row["id"] for row in answers.get("cameras", ())}
            cameras = [camera for camera in settings.camera if camera.id in fresh]
            return [probes.probe_camera(camera, wait_s=CAMERA_S) for camera in cameras]
        case "pagers" if answers.get("test_page"):
            return [probes.probe_channel(settings, name) for name in settings.channel_names()]
        case "record" if settings.record.kind == "fhir-r4":
            return _try_record(settings, state)
        case "broker" if settings.mqtt.host:
            return [probes.probe_broker(settings.mqtt, settings.broker_password(), home=settings.home.id)]
    return []


def _before_pairing(found: Finding, keys: KeyStore) -> Finding:
    """Return what a receiver that speaks is worth while no wearable has a key yet: it is well."""
    if found.state != "warning" or keys.wearables():
        return found
    return Finding(found.part, "well", "speaks as a fallwatch receiver; wearables get their keys later")


def _try_record(settings: Settings, state: Path) -> list[Finding]:
    """Ask the record all that it can be asked without writing; the doctor writes a test entry at the end."""
    from edge.sinks.commission import commission  # noqa: PLC0415  # seldom wanted

    bare = dataclasses.replace(settings, resident=(), camera=())
    found = commission(bare, settings.secrets, state)
    bad = [fault("record", f"{f.what}: {f.said}", f.remedy) for f in found if not f.well]
    return bad or [Finding("record", "well", f"answers at {settings.record.base_url}")]


# -- lists of residents -------------------------------------------------------------------------


def read_list(question: Question, value: str, settings: Settings) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Return the residents of a list that are new or changed, and what is wrong with its other lines.

    Raises:
        BadAnswer: there is no such list.
    """
    try:
        if question.key == "residents_ward":
            rows = _of_ward(value, settings)
        else:
            path = Path(value)
            if path.stat().st_size > LIST_MAX_BYTES:
                raise NoDirectory(f"it is larger than {LIST_MAX_BYTES >> 20} MiB")
            text = decoded(path.read_bytes())
            if text.lstrip().startswith(("{", "[")):
                rows = parse_fhir(text, local_system=settings.record.patient_local_system)
            else:
                rows = parse_csv(text)
        plan = plan_import(rows, settings.resident)
    except OSError as error:
        raise BadAnswer(f"{value}: cannot be read ({error.strerror})") from None
    except NoDirectory as error:
        raise BadAnswer(f"{value}: {error}") from None
    return _new(plan), [
        fault(
            f"residents line {p.line}", f"{p.key}: {p.remedy}", "correct the line, then run fallwatch setup again"
        )
        for p in plan.problems
    ]


def _of_ward(ward: str, settings: Settings) -> list[Any]:
    from edge.directory import parse_ward  # noqa: PLC0415  # seldom wanted
    from edge.sinks import SinkError  # noqa: PLC0415  # seldom wanted
    from edge.sinks.record import FhirRecord  # noqa: PLC0415  # seldom wanted

    record = FhirRecord(settings.record, settings.secrets)
    try:
        return parse_ward(record.stays(ward), local_system=settings.record.patient_local_system)
    except SinkError as error:
        raise NoDirectory(error.reason) from None
    finally:
        record.close()


def _new(plan: Plan) -> list[dict[str, Any]]:
    wanted = {*plan.added, *plan.changed}
    rows = [asdict(resident) for resident in plan.residents if resident.id in wanted]
    return [{key: row[key] for key in FIELDS if row[key]} for row in rows]


# -- put in place -------------------------------------------------------------------------------


def keep_secret(question: Question, value: str, secrets: Path, *, typed: bool) -> str:
    """Put a token, password or key into the secrets folder, for the services to read; return its path there.

    Args:
        question: whose answer it is.
        value: the file that holds it; ``make`` for a key of our own; or, where ``typed``, the secret itself.
        secrets: the folder.
        typed: somebody typed it, so that what is no file is the secret.

    Raises:
        BadAnswer: there is no such file, or it cannot be put away.
    """
    path = secrets / secret_name(question.key, value, secrets)
    if str(path) == value and path.exists():
        return value
    try:
        if question.key == "record_key_file" and value == "make":
            text = path.read_text(encoding="ascii") if (path := secrets / KEY).exists() else _make_key(secrets)
        elif not typed or Path(value).is_file():
            text = Path(value).read_text(encoding="utf-8")
        else:
            text = value
        if not text.strip():
            raise BadAnswer(f"{question.key} ({question.flag}): it is empty")
        _put(path, text.strip() + "\n")
    except OSError as error:
        where = f"{question.key} ({question.flag})"
        raise BadAnswer(f"{where}: cannot be read or put into {secrets} ({error.strerror})") from None
    failpoint("setup.secret-kept")
    return str(path)


def _put(path: Path, text: str) -> None:
    make_folder(path.parent)
    new = path.with_name(f".{path.name}.new")
    write_private(new, text)
    hand_over(new, 0o640)
    new.replace(path)
    sync_folder(path.parent)


def _make_key(secrets: Path) -> str:
    """Return a new private key for the record, its public half put beside it for the record's operator."""
    import json  # noqa: PLC0415  # seldom wanted

    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # seldom wanted
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415  # seldom wanted
    from jwt.algorithms import RSAAlgorithm  # noqa: PLC0415  # seldom wanted

    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"alg": "RS384", "use": "sig"}
    _put(secrets / "record-key.jwks", json.dumps({"keys": [public]}, indent=1) + "\n")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def drop_ins_for(settings: Settings) -> tuple[str, ...]:
    """Return what the detect service must be allowed besides, as the settings want it."""
    wanted = {
        "bluetooth": any(wearable.kind in BLE_KINDS for wearable in settings.wearable),
        "camera": bool(settings.camera),
        "mqtt": settings.mqtt.wearables,
    }
    return tuple(name for name, wants in wanted.items() if wants)


def install_drop_ins(settings: Settings, source: Path = DROP_INS, target: Path = DROP_IN_TARGET) -> list[str]:
    """Copy the drop-ins that are wanted and not there yet; return their names.

    Raises:
        OSError: they cannot be copied.
    """
    done = []
    for name in drop_ins_for(settings):
        there, wanted = target / f"{name}.conf", source / f"{name}.conf"
        if wanted.is_file() and not (there.is_file() and there.read_bytes() == wanted.read_bytes()):
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = there.with_suffix(".new")
            shutil.copyfile(wanted, new)
            new.chmod(0o644)
            new.replace(there)
            done.append(name)
    return done


def systemctl(*words: str) -> str:
    """Run systemctl; return what went wrong, empty where nothing did."""
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            ["/usr/bin/systemctl", *words], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"status {done.returncode}")
