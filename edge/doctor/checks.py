"""All checks of a home, each for some parts: they run at once, and what they find comes in order."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from edge.alarm.channels import open_channel
from edge.clock import monotonic_s, utc_now
from edge.core.supervision import Cause
from edge.doctor import judge, machine
from edge.doctor.finding import Finding, fault, skipped, warning, well
from edge.doctor.listen import Heard, listen
from edge.doctor.probes import (
    camera_remedy,
    judge_bluetooth,
    judge_consent,
    judge_receiver,
    page_remedy,
    port_remedy,
    probe_broker,
    probe_camera,
    probe_channel,
    probe_record,
)
from edge.journal import JOURNAL_FILE, Journal, JournalUnavailable, overview
from edge.keys import KeyStore
from edge.runfile import leave_word, read_runfile
from edge.settings import BLE_KINDS, DEFAULT_STATE, SERIAL_KINDS, CameraSettings, Settings
from edge.sinks import SinkError
from models.card import BUNDLES, BundleRefused, shipped

log = logging.getLogger(__name__)

ACCOUNT = "fallwatch"
PAGE_WAIT_S = 15.0  # a slow line tries three times
FRAME_AGE_S = 5.0  # as detect has it


@dataclass(frozen=True, slots=True)
class Home:
    """What is looked at, and how."""

    settings: Settings
    state: Path
    run: Path
    wait_s: float
    pages: bool  # send test pages
    entries: bool = True  # write a test entry into the record
    root: Path = machine.ROOT

    @property
    def detect(self) -> dict[str, Any] | None:
        """What the detect service says now; None unless it runs."""
        told = read_runfile(self.run / "detect.json")
        return told if judge.runs(told) else None

    @property
    def alarm(self) -> dict[str, Any] | None:
        """What the alarm service says now; None unless it runs."""
        told = read_runfile(self.run / "alarm.json")
        return told if judge.runs(told) else None

    @property
    def today(self) -> datetime:
        """The time in the home."""
        return utc_now().astimezone(ZoneInfo(self.settings.home.timezone))


@dataclass(frozen=True, slots=True)
class Check:
    """Looks at parts whose names begin with one of ``parts``."""

    parts: tuple[str, ...]
    look: Callable[[Home], Iterable[Finding]]


def examine(home: Home, only: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield what every check finds, or those for the parts in ``only``, in the order of `CHECKS`."""
    wanted = [check for check in CHECKS if not only or {*only} & {*check.parts}]
    with ThreadPoolExecutor(max_workers=max(len(wanted), 1)) as pool:
        looking = [pool.submit(_look, check, home) for check in wanted]
        for done in looking:
            yield from (f for f in done.result() if not only or f.part.partition(" ")[0] in only)


def _look(check: Check, home: Home) -> list[Finding]:
    try:
        return list(check.look(home))
    except Exception as error:  # one check that fails in a way nobody foresaw does not hide the others
        log.exception("%s", check.parts[0])
        says = f"could not be looked at: {type(error).__name__}: {error}"
        return [fault(check.parts[0], says, "run as root; if it stays, send fallwatch support-bundle")]


# -- settings and secrets -----------------------------------------------------------------------


def _settings(home: Home) -> Iterator[Finding]:
    settings, account = home.settings, _account(home.state)
    secrets = settings.path.parent / "secrets"
    named = [settings.record.token_file, settings.mqtt.password_file]
    named += [settings.record.key_file] if settings.record.auth == "smart-backend" else []
    named += [
        getattr(c, key, "") for c in settings.pager for key in ("password_file", "token_file", "secret_file")
    ]
    paths = [settings.path, settings.path.with_suffix(".toml.old"), secrets, home.state]
    found = [_kept(path, account, state=home.state) for path in paths if path.exists()]
    inside = sorted(secrets.rglob("*")) if secrets.is_dir() else []
    found += [_kept(path, account, state=home.state, secret=path.is_file()) for path in inside]
    for name in filter(None, named):
        if not (secrets / name).is_file():
            todo = f"put the secret into {secrets / name}, mode 640, group {account.name}"
            yield fault(f"settings {name}", "is named in the settings and not there", todo)
    yield from judge.judge_kept(found, account.name)


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gids: frozenset[int]


def _account(state: Path) -> _Account:
    """Return whose the services are: the account of the package, or, where there is none, whoever asks."""
    try:
        entry = pwd.getpwnam(ACCOUNT) if state == DEFAULT_STATE else pwd.getpwuid(os.geteuid())
    except KeyError:
        return _Account(str(os.geteuid()), os.geteuid(), frozenset(os.getgroups()))
    groups = {entry.pw_gid, *(g.gr_gid for g in grp.getgrall() if entry.pw_name in g.gr_mem)}
    return _Account(entry.pw_name, entry.pw_uid, frozenset(groups))


def _kept(path: Path, account: _Account, *, state: Path, secret: bool = False) -> judge.Kept:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid in account.gids else 0
    bits, need = mode >> shift & 7, 5 if path.is_dir() else 4
    root = account.uid == 0
    return judge.Kept(
        str(path),
        mode,
        readable=root or bits & need == need,
        writable=root or bool(bits & 2),
        must_write=path == state,
        secret=path.read_bytes()[:4096] if secret else None,
    )


# -- wearables and cameras ----------------------------------------------------------------------


def _ways_in(home: Home) -> Iterator[Finding]:
    settings = home.settings
    worn = [w for r in settings.resident for w in r.wearables]
    if not (settings.dongle or settings.wearable or settings.mqtt.wearables or settings.camera):
        yield fault("receiver", "the settings name no way in", "add a [[dongle]], [[wearable]] or [[camera]]")
    for resident in settings.resident:
        if not resident.wearables and resident.cover != "none" and not settings.cameras_of(resident.id):
            todo = f'sudo fallwatch pair WEARABLE --resident {resident.id}; or cover = "none" if staff decide so'
            yield warning(f"wearable {resident.id}", "this resident has no wearable and no camera", todo)
    if home.detect is not None:
        yield from _told_ways_in(home, worn)
    elif settings.dongle or settings.wearable or settings.mqtt.wearables:
        keys = KeyStore(settings.path.parent / "secrets", home.state)
        heard = listen(settings, keys, worn, wait_s=home.wait_s)
        yield from _heard_ways_in(settings, heard)


def _heard_ways_in(settings: Settings, heard: Heard) -> Iterator[Finding]:
    for dongle in settings.dongle:
        yield judge_receiver(heard, dongle.port)
    for port in (w.port for w in settings.wearable if w.kind in SERIAL_KINDS and w.port in heard.lost):
        reason = heard.lost[port]
        yield fault(f"receiver {port}", f"cannot be used: {reason}", port_remedy(port, reason))
    if any(w.kind in BLE_KINDS for w in settings.wearable):
        yield judge_bluetooth(heard, settings.ble)
    for resident in settings.resident:
        speaking = [w for w in resident.wearables if heard.speaks(w)]
        for wearable in resident.wearables:
            part = f"wearable {wearable}"
            if wearable in heard.without_key:
                yield fault(part, f"cannot be heard: {heard.without_key[wearable]}", _pair(wearable))
            elif heard.speaks(wearable):
                battery = heard.pipeline.wearers[wearable].battery.pct
                rssi_dbm = heard.pipeline.wearers[wearable].radio.rssi_dbm
                strength = "" if rssi_dbm is None else f", {rssi_dbm} dBm"
                level = "" if battery is None else f", battery {battery} %"
                yield judge.low_battery(part, battery) or well(part, f"is heard and decrypted{strength}{level}")
            elif heard.forged(wearable):
                todo = judge.wearable_remedy(Cause.OTHER_KEY, wearable)
                yield fault(part, "is heard, but sealed with another key", todo)
            elif speaking:
                yield skipped(part, f"not heard within {heard.waited_s:.0f} s; the resident's other one is")
            else:
                todo = judge.wearable_remedy(Cause.NEVER_HEARD, wearable)
                yield fault(part, f"not heard within {heard.waited_s:.0f} s", todo)


def _pair(wearable: str) -> str:
    return judge.wearable_remedy(Cause.NO_KEY, wearable)


def _told_ways_in(home: Home, worn: Sequence[str]) -> Iterator[Finding]:
    """Judge by what detect says: its ports are its own, and what it counts as samples was decrypted."""
    before = after = home.detect or {}
    begun_s = monotonic_s()
    while monotonic_s() - begun_s < home.wait_s:
        time.sleep(0.5)
        after = home.detect or after
        if all(_samples(after, w) > _samples(before, w) for w in worn):
            break
    waited_s, settings = monotonic_s() - begun_s, home.settings
    links: dict[str, Any] = after.get("links", {})
    for name in dict.fromkeys([*(d.port for d in settings.dongle), *links]):
        yield judge.judge_told_link(name, links.get(name))
    told, old = after.get("wearables", {}), before.get("wearables", {})
    for resident in settings.resident:
        spare = len(resident.wearables) > 1 and after.get("residents", {}).get(resident.id, {}).get("well", False)
        for wearable in resident.wearables:
            now, then = told.get(wearable), old.get(wearable)
            yield judge.judge_told_wearable(wearable, now, then, waited_s=waited_s, spare=spare)


def _samples(told: dict[str, Any], wearable: str) -> int:
    return int(told.get("wearables", {}).get(wearable, {}).get("samples", 0))


def _cameras(home: Home) -> Iterator[Finding]:
    told = (home.detect or {}).get("cameras", {}) if home.detect is not None else None
    cameras = home.settings.camera
    with ThreadPoolExecutor(max_workers=max(len(cameras), 1)) as pool:
        yield from pool.map(lambda camera: _camera(home, camera, told), cameras)


def _camera(home: Home, camera: CameraSettings, told: dict[str, Any] | None) -> Finding:
    if told is None:
        return probe_camera(camera, wait_s=max(home.wait_s, 12.0))  # a Pi takes its time to load OpenCV
    part, known = f"camera {camera.id}", told.get(camera.id)
    refused = judge_consent(camera, home.today.date())
    if refused is not None and refused.state == "fault":
        return refused
    if known is None:
        return fault(part, "is not known to the running service", "sudo systemctl restart fallwatch.target")
    if known["paused_left_s"] is not None:
        return skipped(part, f"paused for {known['paused_left_s']} s more", camera_remedy(Cause.CAMERA_PAUSED))
    if known["cause"] and known["cause"] != Cause.CAMERA_REVIEW:
        return fault(part, f"does not see: {known['cause']}", camera_remedy(known["cause"]))
    if known["frame_s_ago"] is None or known["frame_s_ago"] > FRAME_AGE_S:
        return fault(part, "no frame came lately", camera_remedy(Cause.CAMERA_GONE))
    return refused or well(part, f"a frame came {known['frame_s_ago']:.0f} s ago, and the floor is known")


def _models(home: Home) -> Iterator[Finding]:
    placements = {r.placement for r in home.settings.resident if r.wearables}
    for placement in sorted({*placements, *(["camera"] if home.settings.camera else [])}):
        yield _model(home.settings, placement)


def _model(settings: Settings, placement: str) -> Finding:
    from models.scorer import Scorer  # noqa: PLC0415 - onnxruntime, for this check alone

    part, refused = f"model {placement}", ""
    wanted = getattr(settings.detect, f"{placement}_model")
    own = [Path(wanted) if "/" in wanted else BUNDLES / wanted] if wanted else []
    for folder in [*own, *shipped(placement)]:
        try:
            card = Scorer(folder).card
            if card.placement != placement:
                raise BundleRefused(folder, f"is for the {card.placement}")
        except BundleRefused as error:
            refused = refused or f"{folder.name} is refused: {error.reason}"
            continue
        if refused:
            return warning(
                part, f"{refused}; {card.name} runs instead", "install the bundle again, or name another"
            )
        return well(part, f"{card.name}: hash and golden vectors are right")
    return fault(part, refused or "no bundle is installed", "install fallwatch again: a bundle comes with it")


# -- pagers, record, broker ---------------------------------------------------------------------


def _pagers(home: Home) -> Iterator[Finding]:
    names = home.settings.channel_names()
    if not names:
        yield fault(
            "pager", "the settings name no channel: nobody would be called", "add a [[pager]]: docs/paging.md"
        )
    told = home.alarm
    with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
        yield from pool.map(lambda name: _pager(home, name, told), names)


def _pager(home: Home, name: str, told: dict[str, Any] | None) -> Finding:
    if told is None:
        return probe_channel(home.settings, name) if home.pages else _reach(home.settings, name)
    return (
        _page_by_service(home, name) if home.pages else judge.judge_told_channel(name, told["channels"].get(name))
    )


def _page_by_service(home: Home, name: str) -> Finding:
    """Have the running service send a test page; a note in the journal says how it went."""
    part, begun_s, begun_at = f"pager {name}", monotonic_s(), utc_now()
    if not leave_word(home.run, {"do": "test", "channel": name, "mark": uuid4().hex}):
        return fault(part, f"{home.run} cannot be written", "run as root, or as the account fallwatch")
    try:
        journal = Journal(home.state / JOURNAL_FILE)
        try:
            while monotonic_s() - begun_s < PAGE_WAIT_S:
                time.sleep(0.2)
                for note in journal.notes_since(begun_at, "tested"):
                    if note.body.get("channel") == name:
                        took_s = monotonic_s() - begun_s
                        if note.body["accepted"]:
                            return well(part, f"took a test page from the running service in {took_s:.1f} s")
                        todo = "see its cable and the far end; stop the service for fallwatch pager test --trace"
                        return fault(part, f"did NOT take a test page: {note.body['reason']}", todo)
        finally:
            journal.close()
    except JournalUnavailable as error:
        return fault(part, f"a test page cannot be followed: {error.reason}", "see the line journal here")
    return fault(
        part,
        f"no test page went out within {PAGE_WAIT_S:.0f} s",
        "sudo systemctl restart fallwatch-alarm; ask again",
    )


def _reach(settings: Settings, name: str) -> Finding:
    part, channel = f"pager {name}", settings.pager[settings.channel_names().index(name)]
    try:
        sink = open_channel(name, channel, settings.secrets, beside=settings.path.parent)
        try:
            sink.check()
        finally:
            sink.close()
    except SinkError as error:
        return fault(part, f"does not answer: {error.reason}", page_remedy(error, channel))
    return well(part, "answers; no test page was sent")


def _record(home: Home) -> Iterator[Finding]:
    yield probe_record(home.settings, home.state, write=home.entries)


def _broker(home: Home) -> Iterator[Finding]:
    mqtt = home.settings.mqtt
    if mqtt.host:
        yield probe_broker(mqtt, home.settings.broker_password(), home=home.settings.home.id)


# -- the computer -------------------------------------------------------------------------------


def _clock(home: Home) -> Iterator[Finding]:
    clock = machine.read_clock(home.settings.home.timezone, home.root)
    yield judge.judge_clock(clock, machine.read_systemd(home.root))


def _disk(home: Home) -> Iterator[Finding]:
    if not home.state.is_dir():
        yield fault(
            "disk", f"{home.state} is no folder", "install the package, or make it for the account fallwatch"
        )
        return
    yield from judge.judge_storage(machine.read_storage(home.state, home.root))


def _journal(home: Home) -> Iterator[Finding]:
    path = home.state / JOURNAL_FILE
    if not path.exists():
        yield skipped("journal", "none yet: the services begin it", "sudo systemctl start fallwatch.target")
        return
    try:
        found = overview(path)
    except JournalUnavailable as error:
        yield fault(
            "journal", f"cannot be read: {error.reason}", "run as root; see disk and rights of the state folder"
        )
        return
    yield from judge.judge_journal(found)
    daily = dict(zip(home.settings.channel_names(), (c.test_at for c in home.settings.pager), strict=True))
    yield from judge.judge_practice(found, utc_now(), daily)


def _machine(home: Home) -> Iterator[Finding]:
    found, systemd = machine.read_machine(home.root), machine.read_systemd(home.root)
    yield from judge.judge_machine(found)
    yield from judge.judge_swap(found, cameras=bool(home.settings.camera))
    yield judge.judge_watchdog(found, systemd)
    yield from judge.judge_services(
        read_runfile(home.run / "detect.json"), read_runfile(home.run / "alarm.json"), systemd
    )
    yield judge.judge_packages(machine.read_packages())


CHECKS = (
    Check(("settings",), _settings),
    Check(("receiver", "bluetooth", "wearable"), _ways_in),
    Check(("camera",), _cameras),
    Check(("model",), _models),
    Check(("pager",), _pagers),
    Check(("record",), _record),
    Check(("broker",), _broker),
    Check(("clock",), _clock),
    Check(("disk",), _disk),
    Check(("journal", "practice"), _journal),
    Check(("machine", "watchdog", "services", "package"), _machine),
)
PARTS = tuple(part for check in CHECKS for part in check.parts)
