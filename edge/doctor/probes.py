"""Try one part for real, given its settings alone, while the services do not run: `Finding` says what was seen."""

from __future__ import annotations

import contextlib
import os
import queue
import ssl
import threading
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.alarm.channels import open_channel
from edge.broker import ping_every_s, prepare
from edge.channels import AnyChannel, LineChannel
from edge.clock import clock_ok, monotonic_s, utc_now
from edge.core.incident import Incident, Kind, new_incident_id
from edge.detect.eyes import Eye, EyeEvent, Saw, Shut
from edge.doctor.finding import Finding, fault, warning, well
from edge.doctor.listen import Heard, listen
from edge.keys import KeyStore
from edge.settings import (
    BleSettings,
    CameraSettings,
    DongleSettings,
    HomeSettings,
    MqttSettings,
    Settings,
    WearableSettings,
)
from edge.sinks import Page, SinkError, SinkRejected, Urgency
from edge.sinks.commission import commission
from edge.sinks.fhir import RecordCase, tried
from edge.sinks.line import LineHeld, masked
from edge.sinks.record import EmbeddedRecord, open_record

ANY_ADDRESS = "00:00:00:00:00:00"  # nobody's: the radio scans while it is missed


# -- ways in ------------------------------------------------------------------------------------


def probe_receiver(dongle: DongleSettings, keys: KeyStore, *, wait_s: float) -> Finding:
    """Open a receiver and wait until it speaks and a frame of a paired wearable opens with its key.

    Counters on disk stay as they are, and nothing is sent to a wearable.
    """
    heard = listen(Settings(_HOME, dongle=(dongle,)), keys, keys.wearables(), wait_s=wait_s)
    return judge_receiver(heard, dongle.port)


def judge_receiver(heard: Heard, port: str) -> Finding:
    """Say how a receiver is by what was heard."""
    part, dongle = f"receiver {port}", heard.pipeline.dongles.get(port)
    if port in heard.lost:
        return fault(part, f"cannot be used: {heard.lost[port]}", port_remedy(port, heard.lost[port]))
    if not heard.octets.get(port):
        todo = "unplug it and plug it in again; compare the port in the settings with ls /dev/serial/by-id/"
        return fault(part, f"opens, but says nothing within {heard.waited_s:.0f} s", todo)
    if dongle is None or (dongle.hello is None and dongle.status is None):
        todo = "is this the fallwatch receiver, and baud as its papers say? Compare ls /dev/serial/by-id/"
        return fault(part, "speaks, but not as a fallwatch receiver", todo)
    speaking = [w for w in heard.pipeline.wearers if heard.speaks(w)]
    firmware = f"firmware {'.'.join(map(str, dongle.hello.firmware))}" if dongle.hello else "answers"
    if speaking:
        return well(part, f"{firmware}, hears {_few(speaking)}")
    if not heard.pipeline.wearers:
        return well(part, f"{firmware}; no wearable is paired yet")
    forged = [w for w in heard.pipeline.wearers if heard.forged(w)]
    if forged:
        todo = "pair it again: fallwatch pair WEARABLE, and show it the new key"
        return fault(part, f"frames of {', '.join(forged)} do not open with their key", todo)
    if heard.pipeline.gateway.unknown:
        todo = "is it a neighbour's? If it is ours: fallwatch pair WEARABLE --resident ID"
        return warning(part, "hears only wearables that have no key here", todo)
    todo = "bring a paired and charged wearable near, and try again"
    return warning(part, f"{firmware}, but no wearable was heard within {heard.waited_s:.0f} s", todo)


def port_remedy(port: str, reason: str) -> str:
    """Return what to do about a serial port that cannot be used."""
    if "in use" in reason:
        return f"end the other program (sudo fuser -v {port} names it), or let the services run and ask again"
    if "ermission" in reason:
        return "run as root, or as a member of the group dialout"
    return "plug it in, then compare the port in the settings with ls /dev/serial/by-id/"


def probe_bluetooth(
    ble: BleSettings, wearables: Sequence[WearableSettings], keys: KeyStore, *, wait_s: float
) -> Finding:
    """Bring the Bluetooth radio up and wait for a frame of each of its ``wearables``; of none, for any signal."""
    anybody = (WearableSettings("nobody", "polar", address=ANY_ADDRESS),)
    settings = Settings(_HOME, ble=ble, wearable=tuple(wearables) or anybody)
    heard = listen(settings, keys, [w.id for w in wearables], wait_s=wait_s)
    return judge_bluetooth(heard, ble)


def judge_bluetooth(heard: Heard, ble: BleSettings) -> Finding:
    """Say how the Bluetooth radio is by what was heard."""
    part = f"bluetooth {ble.adapter}"
    speaking = [w for w in heard.pipeline.wearers if heard.speaks(w)]
    if speaking:
        return well(part, f"hears {_few(speaking)}")
    if ble.port in heard.lost:
        todo = (
            "see systemctl status bluetooth and rfkill list; name the adapter in [ble] as bluetoothctl list does"
        )
        return fault(part, f"cannot be used: {heard.lost[ble.port]}", todo)
    if ble.port not in heard.opened:
        todo = "see rfkill list; bring a Bluetooth wearable near; try a USB adapter on an extension lead"
        return warning(part, f"is there, but nothing was heard within {heard.waited_s:.0f} s", todo)
    if heard.pipeline.wearers:
        todo = "charge it and bring it near; end the telephone's app that holds it; compare its address"
        return warning(part, "hears other devices, but none of this home's wearables", todo)
    return well(part, "hears Bluetooth devices")


def probe_serial_wearable(wearable: WearableSettings, *, wait_s: float) -> Finding:
    """Open the line of a wearable that has one of its own, and wait for samples in its format."""
    keys = KeyStore(Path("/nonexistent"), Path("/nonexistent"))  # it has no seal
    heard = listen(Settings(_HOME, wearable=(wearable,)), keys, [wearable.id], wait_s=wait_s)
    part = f"wearable {wearable.id}"
    if wearable.port in heard.lost:
        reason = heard.lost[wearable.port]
        return fault(part, f"its line cannot be used: {reason}", port_remedy(wearable.port, reason))
    if heard.speaks(wearable.id):
        return well(part, f"samples come by {wearable.port}")
    if heard.octets.get(wearable.port):
        todo = "compare kind, baud, rate_hz and range_g with the maker's papers"
        return fault(part, "speaks, but not in the format of its kind", todo)
    return fault(part, f"says nothing within {heard.waited_s:.0f} s", "charge it, switch it on, see its cable")


# -- cameras ------------------------------------------------------------------------------------


def probe_camera(camera: CameraSettings, *, wait_s: float) -> Finding:
    """Open a camera, where consent lets it look today, and wait for a frame and a floor.

    No image leaves the camera's own process.
    """
    part = f"camera {camera.id}"
    if (refused := judge_consent(camera, utc_now().date())) is not None and refused.state == "fault":
        return refused
    eye, stop = Eye(camera), threading.Event()
    eye.allow(True)
    events: queue.Queue[EyeEvent] = queue.Queue()
    thread = threading.Thread(target=eye.run, args=(events.put, stop), daemon=True)
    thread.start()
    says, frames, ended, until_s = "", 0, "", monotonic_s() + wait_s
    while monotonic_s() < until_s:
        with contextlib.suppress(queue.Empty):
            match events.get(timeout=0.2):
                case Saw(seen=seen):
                    says, frames = seen.cause, frames + (seen.time_s > 0)
                case Shut(reason=reason):
                    ended = reason
        if frames and not says:
            break
    stop.set()
    thread.join(3.0)
    if not frames or says == "camera gone":
        why = f" (its program {ended})" if ended else ""
        todo = "see its cable and power; compare fallwatch camera find with kind and device in the settings"
        return fault(part, f"no frame within {wait_s:.0f} s{why}", todo)
    if says:
        return fault(part, f"frames come, but: {says}", camera_remedy(says))
    return refused or well(part, "a frame came, and the floor is known")


def camera_remedy(cause: str) -> str:
    """Return what to do about a camera that says it cannot see."""
    match cause:
        case "camera floor not found":
            return "clear a piece of floor in its view; fallwatch camera floor keeps it"
        case "camera lens blocked" | "camera sees too little" | "camera picture frozen":
            return "wipe the lens, look what hangs before it, keep it out of the sun"
        case "camera knocked":
            return "fix its mount, then find its floor again: fallwatch camera floor"
        case "camera paused":
            return "somebody paused it for care: it comes back by itself, or fallwatch camera resume ROOM"
        case "camera too slow":
            return "plug it into a USB 3 port by a short cable, or lower width, height and fps"
        case "camera too hot":
            return "give it air, out of the sun and away from the radiator"
    return "see its cable and power; compare fallwatch camera find with kind and device in the settings"


def judge_consent(camera: CameraSettings, today: date) -> Finding | None:
    """Say what stands in the way of a camera's looking; None where nothing does."""
    part, consent = f"camera {camera.id}", camera.consent
    if consent is None:
        todo = "it stays off; once consent is given in writing, add [camera.consent] to the settings"
        return fault(part, "has no consent in the settings", todo)
    if not consent.holds(today):
        todo = "it stays off; have consent reviewed, then change given and review in [camera.consent]"
        return fault(part, f"consent is not in date: {consent.given} to {consent.review}", todo)
    if (consent.review - today).days <= CONSENT_SOON_DAYS:
        todo = "ask the manager to review it; then change review in [camera.consent]"
        return warning(part, f"consent ends on {consent.review}", todo)
    return None


CONSENT_SOON_DAYS = 14  # as staff are told


# -- channels -----------------------------------------------------------------------------------


def probe_channel(settings: Settings, name: str) -> Finding:
    """Send a test page by the channel ``name`` of ``Settings.channel_names``: a pager sounds."""
    part = f"pager {name}"
    channel = settings.pager[settings.channel_names().index(name)]
    wanted = [channel.test_to, *settings.escalation.groups, *channel.groups, *channel.addresses]
    address = next((a for group in wanted if group and (a := channel.address(group)) is not None), None)
    if address is None:
        return fault(part, "calls no group", "see its groups and addresses in the settings: fallwatch plan")
    local = datetime.now(ZoneInfo(settings.home.timezone))
    page = Page(
        f"test/{uuid4()}",
        address,
        f"TEST {settings.home.id} NO ACTION NEEDED {local:%H:%M}".upper(),
        Urgency.NORMAL,
    )
    began_s = monotonic_s()
    try:
        sink = open_channel(name, channel, settings.secrets, beside=settings.path.parent)
        try:
            sink.deliver(page)
        finally:
            sink.close()
    except SinkError as error:
        return fault(
            part, f"did NOT take a test page for {masked(address)}: {error.reason}", page_remedy(error, channel)
        )
    return well(part, f"took a test page for {masked(address)} in {monotonic_s() - began_s:.1f} s")


def page_remedy(error: SinkError, channel: AnyChannel) -> str:
    """Return what to do about a page that was not taken."""
    if isinstance(error, LineHeld):
        return "end the other program (sudo fuser -v PORT names it), or let the services run and ask again"
    if isinstance(error, SinkRejected):
        return "ask who looks after the far end for a number it knows; put it in addresses"
    if isinstance(channel, LineChannel):
        return "compare cable, port, baud, format and station with the far end: fallwatch pager test --trace"
    return "compare the channel's settings with the far end, and try the network"


# -- record -------------------------------------------------------------------------------------


def probe_record(settings: Settings, state: Path, *, write: bool = True) -> Finding:
    """Find each resident once in the care record, and ``write`` a test entry into it and withdraw it.

    The entry is marked as a test, names no patient, and ends as entered in error.
    """
    for found in commission(settings, settings.secrets, state):
        if not found.well:
            return fault("record", f"{found.what}: {found.said}", found.remedy)
    if not write:
        return well("record", "can be reached; no test entry was written")
    now = utc_now()
    incident = Incident(
        incident=new_incident_id(),
        home=settings.home.id,
        kind=Kind.FALL,
        raised_at=now,
        impact_at=now,
        clock_ok=clock_ok(),
        drill=True,
    )
    item = tried(RecordCase(incident, None, settings.record, "TEST OF THE CONNECTION"), at=now)
    record = open_record(settings, settings.secrets, state)
    if isinstance(record, EmbeddedRecord):
        _begin_for_its_owner(record.path)
    began_s = monotonic_s()
    try:
        record.deliver(item)
    except SinkError as error:
        todo = "see docs/care-record.md for what the server must allow; falls wait on this machine meanwhile"
        return fault("record", f"did not take a test entry: {error.reason}", todo)
    finally:
        record.close()
    missing = [r.id for r in settings.resident if not (r.nhs_number or r.local_id)]
    took = f"took a test entry and withdrew it in {monotonic_s() - began_s:.1f} s"
    if settings.record.kind == "embedded":
        return well("record", f"on this machine, {took}")
    if missing:
        todo = "entries about them name no patient: fallwatch residents import takes numbers from a list"
        return warning("record", f"{took}; no number for {_few(missing)}", todo)
    return well("record", f"{took}; each of {len(settings.resident)} residents found once")


def _begin_for_its_owner(path: Path) -> None:
    """Have a record that root begins belong to the account whose folder it is in."""
    if os.geteuid() == 0 and not path.exists():
        owner = path.parent.stat()
        with contextlib.suppress(FileExistsError):
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchown(number, owner.st_uid, owner.st_gid)
            os.close(number)


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# -- broker -------------------------------------------------------------------------------------


def probe_broker(settings: MqttSettings, password: str | None, *, home: str, wait_s: float = 5.0) -> Finding:
    """Publish a message to the building's broker and hear it back; nothing is retained."""
    part, topic, mark = f"broker {settings.host}", f"fallwatch/{home}/doctor", uuid4().hex.encode()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"fallwatch-{home}-doctor-{mark[:6].decode()}")
    came: queue.Queue[str] = queue.Queue()

    def on_connect(_client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _more: Any) -> None:
        if reason.is_failure:
            came.put(f"refused us ({reason})")
        else:
            client.subscribe(topic, qos=1)

    def on_subscribe(_client: mqtt.Client, _data: Any, _mid: int, reasons: list[Any], _more: Any) -> None:
        if reasons[0].is_failure:
            came.put(f"does not let us hear {topic} ({reasons[0]})")
        else:
            client.publish(topic, mark, qos=1)

    def on_message(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.payload == mark:
            came.put("")

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    began_s = monotonic_s()
    try:
        prepare(client, settings, password)
        client.connect(settings.host, settings.port, ping_every_s(settings))
        client.loop_start()
        try:
            reason = came.get(timeout=wait_s)
        finally:
            client.disconnect()
            client.loop_stop()
    except queue.Empty:
        todo = f"let our user publish and subscribe to fallwatch/{home}/# in the broker's access list"
        return fault(part, f"connects, but our own message did not come back within {wait_s:.0f} s", todo)
    except (OSError, ValueError, ssl.SSLError) as error:
        todo = "see host, port, tls and ca_file in [mqtt], and that the broker runs"
        return fault(part, f"cannot be reached: {getattr(error, 'strerror', None) or error}", todo)
    if reason:
        return fault(part, reason, "see username and password_file in [mqtt], and the broker's access list")
    return well(part, f"our own message came back in {monotonic_s() - began_s:.2f} s")


_HOME = HomeSettings("doctor")
