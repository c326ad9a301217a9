"""Doctor tries parts for real, and what it thinks of them leads to what to do."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cli.doctor import as_text, last_line
from edge.core.incident import Incident, Kind, new_incident_id
from edge.doctor import judge, machine
from edge.doctor.checks import CHECKS, PARTS, Check, Home, examine
from edge.doctor.finding import Finding, fault, skipped, warning, well
from edge.doctor.machine import Clock, Machine, Packages, Storage, Systemd, Unit
from edge.doctor.probes import (
    judge_consent,
    probe_bluetooth,
    probe_broker,
    probe_camera,
    probe_channel,
    probe_receiver,
    probe_record,
    probe_serial_wearable,
)
from edge.journal import JOURNAL_FILE, Journal, Overview, overview
from edge.keys import KeyStore
from edge.runfile import write_runfile
from edge.settings import (
    BleSettings,
    CameraSettings,
    ConsentSettings,
    DetectSettings,
    DongleSettings,
    HomeSettings,
    MqttSettings,
    RecordSettings,
    ResidentSettings,
    Settings,
    WearableSettings,
    load_settings,
)
from edge.sinks.fhir import NHS_NUMBER_SYSTEM, RecordCase, tried
from tests.edge import home as homes
from tests.edge.brokers import amqtt, free_port
from tests.edge.eyes import empty_room
from tests.edge.home import Pager
from tests.edge.in_process import run_here
from tests.edge.record_peers import NHS_NUMBER, Peer

CONSENT = ConsentSettings("consent", date(2020, 1, 1), date(2999, 1, 1))
NOW = datetime(2026, 11, 22, 3, 14, tzinfo=UTC)
WHOLE = Overview("ok", 4096, 0, {}, {}, {}, {}, NOW, {"espa-1": NOW})
READY = tuple(Unit(name, True, "active", "enabled", 0, 60.0) for name in machine.UNITS)
SYSTEMD = Systemd(READY, Unit(machine.TARGET, True, "active", "enabled", 0, None), runtime_watchdog=True)
SPEAKS = {"age_s": 0.4}


def states(found: Any) -> list[str]:
    return [finding.state for finding in found]


# -- a home, tried --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[homes.Home]:
    before = os.umask(0o027)
    with homes.Home(tmp_path, wearables=1) as made:
        yield made
    os.umask(before)


def looked_at(home: homes.Home, *only: str, pages: bool = True, wait_s: float = 8.0) -> dict[str, Finding]:
    looking = Home(load_settings(home.config), home.state, home.run, wait_s=wait_s, pages=pages)
    return {finding.part.replace(f"{home.folder}/", ""): finding for finding in examine(looking, only)}


def test_a_home_whose_services_do_not_run_is_tried_directly(home: homes.Home) -> None:
    with Pager(home.pager_link) as pager, home.wear([home.wearable(1)]):
        found = looked_at(home, "settings", "receiver", "wearable", "pager", "record", "disk")
        assert pager.texts() == [pager.texts()[0]]
        assert pager.texts()[0].startswith("TEST SITE-7 NO ACTION NEEDED")
    assert set(states(found.values())) == {"well"}, found
    assert "hears 0001" in found["receiver dongle"].says
    assert "decrypted" in found["wearable 0001"].says
    assert "took a test page" in found["pager espa-1"].says


def test_counters_are_as_they_were_after_a_try(home: homes.Home) -> None:
    before = (home.state / "counters.json").read_bytes()
    with home.wear([home.wearable(1)]):
        assert probe_receiver(DongleSettings(str(home.dongle_link)), home.keys, wait_s=8.0).state == "well"
        assert (
            "no wearable is paired yet"
            in probe_receiver(
                DongleSettings(str(home.dongle_link)), KeyStore(home.folder, home.state), wait_s=8.0
            ).says
        )
    assert (home.state / "counters.json").read_bytes() == before


def test_a_home_whose_services_run_is_judged_by_what_they_say_and_paged_by_way_of_them(home: homes.Home) -> None:
    with Pager(home.pager_link) as pager, home.wear([home.wearable(1)]):
        home.start("alarm").ready()
        home.start("detect").ready()
        homes.until(lambda: home.told_of("0001")["samples"] > 0)
        found = looked_at(home, "receiver", "wearable", "pager", "services", "journal")
        assert [text for text in pager.texts() if text.startswith("TEST SITE-7")]
        quiet = len(pager.pages)
        assert looked_at(home, "pager", pages=False)["pager espa-1"].state == "well"
        assert len(pager.pages) == quiet
    assert set(states(found.values())) == {"well"}, found
    assert "samples in" in found["wearable 0001"].says
    assert "running service" in found["pager espa-1"].says


def test_what_is_not_there_is_a_fault_with_what_to_do(home: homes.Home) -> None:
    found = looked_at(home, "receiver", "wearable", "pager", wait_s=1.0)
    assert set(states(found.values())) == {"fault"}
    assert all(finding.next for finding in found.values())
    assert "No such file" in found["receiver dongle"].says


def test_a_wearable_with_another_key_is_told_from_one_that_is_silent(home: homes.Home) -> None:
    wearable = home.wearable(1)
    home.keys.make("0001")
    with home.wear([wearable]):
        found = looked_at(home, "receiver", "wearable", wait_s=3.0)
    assert found["wearable 0001"] == fault(
        "wearable 0001",
        "is heard, but sealed with another key",
        "sudo fallwatch pair 0001, and give it the new key",
    )
    assert "do not open" in found["receiver dongle"].says
    home.keys.wipe("0001")
    assert "has no key" in looked_at(home, "wearable", wait_s=1.0)["wearable 0001"].says


def test_a_port_that_speaks_something_else_is_no_receiver(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    port, keys, ended = os.ttyname(follower), KeyStore(tmp_path, tmp_path), threading.Event()
    assert "says nothing" in probe_receiver(DongleSettings(port), keys, wait_s=0.5).says

    def speak() -> None:
        while not ended.wait(0.05):
            os.write(leader, b"hello world\r\n")

    speaker = threading.Thread(target=speak)
    speaker.start()
    assert "not as a fallwatch receiver" in probe_receiver(DongleSettings(port), keys, wait_s=1.0).says
    line = WearableSettings("7", "witmotion", port=port)
    assert "not in the format of its kind" in probe_serial_wearable(line, wait_s=1.0).says
    ended.set()
    speaker.join()
    os.close(leader)
    os.close(follower)


def test_bluetooth_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    found = probe_bluetooth(BleSettings("hci77"), (), KeyStore(tmp_path, tmp_path), wait_s=2.0)
    assert found.state == "fault"


def test_a_camera_shows_a_frame_and_a_floor(tmp_path: Path) -> None:
    lens = {"width": 320, "height": 240, "fps": 10, "fx": 280.0, "fy": 280.0, "cx": 159.5, "cy": 119.5}
    camera = CameraSettings("cam-12", "12", "folder", str(empty_room(tmp_path / "room")), consent=CONSENT, **lens)  # type: ignore[arg-type]
    assert probe_camera(camera, wait_s=15.0).state == "well"
    gone = probe_camera(replace(camera, device=str(tmp_path / "nowhere")), wait_s=3.0)
    assert (gone.state, gone.says[:8]) == ("fault", "no frame")


@pytest.mark.parametrize(
    ("consent", "state"),
    [
        (None, "fault"),
        (replace(CONSENT, review=date(2026, 11, 22)), "fault"),
        (replace(CONSENT, given=date(2026, 11, 23)), "fault"),
        (replace(CONSENT, review=date(2026, 12, 1)), "warning"),
        (CONSENT, None),
    ],
)
def test_a_camera_without_consent_is_never_opened(consent: ConsentSettings | None, state: str | None) -> None:
    found = judge_consent(CameraSettings("cam-12", "12", "oak", consent=consent), NOW.date())
    assert (found and found.state) == state


def test_a_broker_gives_our_own_message_back() -> None:
    with amqtt() as broker:
        assert probe_broker(MqttSettings("127.0.0.1", broker.port), None, home="site-7").state == "well"
    gone = probe_broker(MqttSettings("127.0.0.1", broker.port), None, home="site-7")
    assert "cannot be reached" in gone.says


def test_a_test_entry_in_a_fhir_record_never_reads_as_a_fall(tmp_path: Path) -> None:
    peer = Peer(tmp_path, free_port(), [])
    peer.start()
    try:
        peer.add_patient(NHS_NUMBER_SYSTEM, NHS_NUMBER)
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "token").write_text("edge-token")
        record = RecordSettings(kind="fhir-r4", base_url=peer.base_url, auth="bearer", token_file="token")
        residents = (ResidentSettings("r12", "12", nhs_number=NHS_NUMBER),)
        settings = Settings(
            HomeSettings("site-7"), residents and (), residents, record=record, path=tmp_path / "f.toml"
        )
        found = probe_record(settings, tmp_path)
        assert (found.state, "found once" in found.says) == ("well", True), found
        for kind in ("Observation", "CommunicationRequest"):
            (entry,) = peer.all(kind)
            assert entry["status"] == "entered-in-error"
            assert entry["meta"]["tag"][0]["code"] == "HTEST"
            assert "reference" not in entry["subject"]
            assert "1912002" not in json.dumps(entry)
        assert not [kind for kind in ("Task", "AdverseEvent", "Communication", "Provenance") if peer.all(kind)]
        nobody = replace(settings, resident=(*residents, ResidentSettings("r13", "13", nhs_number="9434765870")))
        assert "resident r13" in probe_record(nobody, tmp_path).says
        assert len(peer.all("Observation")) == 1  # what is not found once is said before anything is written
    finally:
        peer.kill()


def test_a_test_entry_that_could_be_about_somebody_is_refused() -> None:
    facts = Incident(new_incident_id(), "site-7", Kind.FALL, NOW, drill=True)
    with pytest.raises(ValueError, match="about nobody"):
        tried(RecordCase(facts, ResidentSettings("r12", "12"), RecordSettings(), ""), at=NOW)
    with pytest.raises(ValueError, match="about nobody"):
        tried(RecordCase(replace(facts, drill=False), None, RecordSettings(), ""), at=NOW)


def test_a_relay_of_pages_without_a_number_is_named() -> None:
    from edge.channels import NtfySettings  # noqa: PLC0415 - for this test alone

    settings = Settings(HomeSettings("s"), pager=(NtfySettings(url="http://127.0.0.1:9", addresses={"0": "t"}),))
    assert probe_channel(settings, "ntfy-1").state == "fault"  # nobody listens there


# -- secrets and rights ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda home: home.config.chmod(0o644), "can be read by everybody"),
        (
            lambda home: (home.folder / "secrets" / "wearables" / "0001.key").chmod(0o604),
            "can be read by everybody",
        ),
        (lambda home: (home.folder / "secrets" / "broker").write_text(" \n"), "is empty"),
        (lambda home: (home.folder / "secrets" / "broker").write_text("ChangeMe\n"), "would guess"),
        (lambda home: (home.folder / "secrets" / "wearables" / "0001.key").write_text("0" * 32), "would guess"),
    ],
)
def test_rights_and_secrets_that_are_wrong_are_faults(
    home: homes.Home, spoil: Callable[[homes.Home], object], says: str
) -> None:
    spoil(home)
    (found,) = looked_at(home, "settings").values()
    assert (found.state, says in found.says) == ("fault", True), found


def test_a_secret_that_is_named_and_not_there_is_a_fault(home: homes.Home) -> None:
    home.config.write_text(home.config.read_text() + '\n[mqtt]\nhost = "b"\npassword_file = "broker"\n')
    assert looked_at(home, "settings")["settings broker"].state == "fault"


def test_what_the_account_of_the_services_cannot_read_or_write_is_a_fault() -> None:
    kept = judge.Kept("/x", 0o640, readable=False)
    assert [f.says for f in judge.judge_kept([kept], "fallwatch")] == ["the account fallwatch cannot read it"]
    kept = judge.Kept("/x", 0o750, readable=True, writable=False, must_write=True)
    assert [f.says for f in judge.judge_kept([kept], "fallwatch")] == ["the account fallwatch cannot write it"]


# -- the computer ---------------------------------------------------------------------------------


def write(root: Path, **texts: str) -> None:
    for path, text in texts.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_pi_is_read_from_its_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        sys__class__thermal__thermal_zone0__temp="83100\n",
        proc__meminfo="MemTotal:  948304 kB\nMemAvailable:  51200 kB\n",
        proc__swaps="Filename Type Size Used Priority\n/var/swap file 102396 0 -2\n",
        proc__uptime="86400.5 1.0\n",
        dev__watchdog0="",
    )
    soc = tmp_path / "sys/devices/platform/soc/soc:firmware"
    soc.mkdir(parents=True)
    (soc / "get_throttled").write_text("50005\n")
    for path, text in (("name", "rpi_volt\n"), ("in0_lcrit_alarm", "1\n")):
        write(tmp_path, **{f"sys__class__hwmon__hwmon1__{path}": text})
    write(
        tmp_path, sys__block__mmcblk0__device__life_time="0x01 0x09\n", sys__block__sda__device__life_time="0x00\n"
    )
    found = machine.read_machine(tmp_path)
    assert found == Machine(64, 83.1, 0x50005, True, 948304 / 1024, 50.0, ("/var/swap",), False, True, 86400.5)
    assert machine.read_storage(tmp_path, tmp_path).used_life_pct == (("mmcblk0", 90),)
    says = [finding.says for finding in judge.judge_machine(found)]
    assert says == ["gets too little voltage", "is too hot and slows down (83 C)", "has 50 MiB of memory left"]
    assert states(judge.judge_swap(found, cameras=True)) == ["fault"]
    assert states(judge.judge_swap(found, cameras=False)) == []
    assert not any(tmp_path.glob(".doctor-*"))


def test_a_computer_that_tells_nothing_of_itself_is_well(tmp_path: Path) -> None:
    assert states(judge.judge_machine(machine.read_machine(tmp_path))) == ["well"]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "well"),
        ({"bits": 32}, "fault"),
        ({"throttled": 1 << 16}, "warning"),
        ({"throttled": 1 << 18}, "warning"),
        ({"temperature_c": 75.0}, "warning"),
    ],
)
def test_a_computer_in_trouble_is_named(changes: dict[str, Any], state: str) -> None:
    assert states(judge.judge_machine(replace(Machine(64, 50.0), **changes))) == [state]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "well"),
        ({"read_only": True}, "fault"),
        ({"write_s": None, "write_error": "No space left"}, "fault"),
        ({"free_mib": 20.0}, "fault"),
        ({"free_mib": 200.0}, "warning"),
        ({"write_s": 2.5}, "warning"),
        ({"used_life_pct": (("mmcblk0", 90),)}, "warning"),
    ],
)
def test_a_disk_in_trouble_is_named(changes: dict[str, Any], state: str) -> None:
    assert states(judge.judge_storage(replace(Storage(9000.0, 30000.0, False, 0.01), **changes))) == [state]


@pytest.mark.parametrize(
    ("clock", "state"),
    [
        (Clock(True, False, 10.0, "Europe/London"), "well"),
        (Clock(False, False, 10.0, "Europe/London"), "warning"),
        (Clock(False, True, 4000.0, "Europe/London"), "warning"),
        (Clock(False, False, 4000.0, "Europe/London"), "fault"),
    ],
)
def test_a_clock_that_nothing_sets_is_a_fault(clock: Clock, state: str) -> None:
    assert judge.judge_clock(clock, SYSTEMD).state == state


def test_a_time_service_that_our_services_cannot_ask_is_named() -> None:
    clock = Clock(True, True, 4000.0, "Europe/London", by_timesyncd=False)
    deaf = replace(SYSTEMD, units=(replace(READY[0], asks_clock=False), READY[1]))
    assert [judge.judge_clock(clock, s).state for s in (None, SYSTEMD, deaf)] == ["well", "well", "warning"]
    assert judge.judge_clock(replace(clock, by_timesyncd=True), deaf).state == "well"


SHOWN = """\
Id=fallwatch-detect.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=disabled
NRestarts=4
ActiveEnterTimestampMonotonic=40000000
ProtectClock=yes

Id=fallwatch-alarm.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
UnitFileState=disabled
NRestarts=0
ActiveEnterTimestampMonotonic=0

Id=fallwatch.target
LoadState=loaded
ActiveState=active
UnitFileState=enabled
"""


def test_systemd_is_read_as_it_prints() -> None:
    found = machine.parse_systemd(SHOWN, "RuntimeWatchdogUSec=15s\n", now_s=100.0)
    assert found is not None
    assert found.runtime_watchdog
    assert found.units[0] == Unit(
        "fallwatch-detect.service", True, "active", "disabled", 4, 60.0, asks_clock=False
    )
    says = {f.part: f.state for f in judge.judge_services(SPEAKS, None, found)}
    assert says == {
        "services alarm": "fault",
        "services fallwatch-alarm.service": "fault",
        "services fallwatch-detect.service": "warning",
    }
    for off in ("0", "infinity"):
        idle = machine.parse_systemd(SHOWN, f"RuntimeWatchdogUSec={off}\n", now_s=100.0)
        assert idle is not None
        assert not idle.runtime_watchdog
    assert machine.parse_systemd("", "", now_s=0.0) is None


@pytest.mark.parametrize(
    ("detect", "alarm", "systemd", "states_"),
    [
        (SPEAKS, SPEAKS, SYSTEMD, ["well"]),
        (SPEAKS, SPEAKS, None, ["well"]),
        (None, None, None, ["warning"]),
        (None, SPEAKS, None, ["fault"]),
        ({"age_s": 60.0}, SPEAKS, None, ["fault"]),
        (SPEAKS, SPEAKS, replace(SYSTEMD, target=replace(SYSTEMD.target, enabled="disabled")), ["fault"]),
        (SPEAKS, SPEAKS, replace(SYSTEMD, target=replace(SYSTEMD.target, loaded=False)), ["warning"]),
    ],
)
def test_services_that_do_not_speak_or_start_are_named(
    detect: Any, alarm: Any, systemd: Systemd | None, states_: list[str]
) -> None:
    assert states(judge.judge_services(detect, alarm, systemd)) == states_


def test_a_computer_that_would_hang_for_good_is_named() -> None:
    there = Machine(64, has_watchdog=True)
    assert judge.judge_watchdog(Machine(64), SYSTEMD).state == "warning"
    assert judge.judge_watchdog(there, replace(SYSTEMD, runtime_watchdog=False)).state == "warning"
    assert judge.judge_watchdog(there, SYSTEMD).state == "well"


@pytest.mark.parametrize(
    ("packages", "state"),
    [
        (None, "skipped"),
        (Packages("", ()), "skipped"),
        (Packages("install ok installed", ()), "well"),
        (Packages("install ok half-configured", ("fallwatch",)), "fault"),
        (Packages("install ok installed", ("linux-image",)), "warning"),
    ],
)
def test_an_upgrade_left_half_way_is_named(packages: Packages | None, state: str) -> None:
    assert judge.judge_packages(packages).state == state


# -- the journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "well"),
        ({"verdict": "row 3 missing from index"}, "fault"),
        ({"open_incidents": 1}, "warning"),
        ({"outbox": {"record parked": 2}}, "fault"),
        ({"outbox": {"record waiting": 500}}, "warning"),
        ({"size_octets": 1 << 30}, "warning"),
    ],
)
def test_a_journal_in_trouble_is_named(changes: dict[str, Any], state: str) -> None:
    assert states(judge.judge_journal(replace(WHOLE, **changes))) == [state]


def test_drills_and_daily_pages_that_are_overdue_are_named() -> None:
    later = NOW + timedelta(days=100)
    assert states(judge.judge_practice(WHOLE, NOW, {"espa-1": "10:30"})) == ["well"]
    assert states(judge.judge_practice(WHOLE, later, {"espa-1": "10:30"})) == ["warning", "warning"]
    assert states(judge.judge_practice(replace(WHOLE, drilled_at=None), NOW, {"tap-1": ""})) == ["warning"] * 2


def test_a_journal_is_told_in_numbers_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    journal = Journal(path)
    facts = Incident(new_incident_id(), "site-7", Kind.FALL, NOW, resident="r12", drill=True)
    journal.raise_incident(facts, since_impact_s=0.0)
    assert overview(path).drilled_at is None  # nobody has answered
    journal.acknowledge(facts.incident, "anna")
    journal.raise_incident(replace(facts, incident=new_incident_id(), drill=False), since_impact_s=0.0)
    journal.add_note("tested", channel="espa-1", accepted=True, reason="")
    journal.add_note("tested", channel="tap-1", accepted=False, reason="no answer")
    journal.close()
    names, octets = sorted(p.name for p in tmp_path.iterdir()), path.read_bytes()
    found = overview(path)
    assert (found.verdict, found.open_incidents, found.incidents) == ("ok", 2, {"fall open": 2})
    assert found.events == {"raised": 2, "acknowledged": 1}
    assert found.drilled_at is not None
    assert list(found.tested_at) == ["espa-1"]
    assert path.read_bytes() == octets
    assert {*names} <= {p.name for p in tmp_path.iterdir()}
    assert "anna" not in repr(found)


# -- what services tell ---------------------------------------------------------------------------


def told(**changes: Any) -> dict[str, Any]:
    return {"cause": None, "samples": 100, "battery_pct": 80, **changes}


@pytest.mark.parametrize(
    ("now", "before", "spare", "state"),
    [
        (told(samples=200), told(), False, "well"),
        (told(), told(), False, "fault"),  # nothing was decrypted meanwhile
        (told(), told(), True, "skipped"),
        (told(samples=200, battery_pct=15), told(), False, "warning"),
        (told(cause="wearable has another key"), told(), False, "fault"),
        (told(cause="wearable not worn"), told(), False, "warning"),
        (None, None, False, "fault"),
    ],
)
def test_a_wearable_is_well_only_while_its_samples_rise(now: Any, before: Any, spare: bool, state: str) -> None:
    found = judge.judge_told_wearable("0042", now, before, waited_s=8.0, spare=spare)
    assert (found.state, bool(found.next)) == (state, state in {"fault", "warning"})


SEES = {"cause": None, "paused_left_s": None, "frame_s_ago": 0.4}


@pytest.mark.parametrize(
    ("told_of", "consent", "state"),
    [
        (SEES, CONSENT, "well"),
        (SEES, None, "fault"),
        (SEES, replace(CONSENT, review=date(2000, 1, 1), given=date(1999, 1, 1)), "fault"),
        ({**SEES, "cause": "camera floor not found"}, CONSENT, "fault"),
        ({**SEES, "cause": "camera consent to be reviewed within two weeks"}, CONSENT, "well"),
        ({**SEES, "frame_s_ago": 60.0}, CONSENT, "fault"),
        ({**SEES, "frame_s_ago": None}, CONSENT, "fault"),
        ({**SEES, "cause": "camera paused", "paused_left_s": 300}, CONSENT, "skipped"),
        (None, CONSENT, "fault"),
    ],
)
def test_a_camera_is_judged_by_the_service_that_has_it(
    tmp_path: Path, told_of: Any, consent: ConsentSettings | None, state: str
) -> None:
    camera = CameraSettings("cam-12", "12", "oak", consent=consent)
    cameras = {} if told_of is None else {"cam-12": told_of}
    assert write_runfile(tmp_path / "detect.json", {"cameras": cameras})
    settings = Settings(HomeSettings("site-7"), resident=(ResidentSettings("r12", "12"),), camera=(camera,))
    (found,) = examine(Home(settings, tmp_path, tmp_path, wait_s=1.0, pages=False), ["camera"])
    assert (found.part, found.state) == ("camera cam-12", state)


def test_a_model_that_cannot_be_used_is_told_with_the_one_that_runs_instead(tmp_path: Path) -> None:
    residents = (ResidentSettings("r12", "12", wearable="0042"),)
    settings = Settings(HomeSettings("site-7"), resident=residents)
    looking = Home(settings, tmp_path, tmp_path, wait_s=1.0, pages=False)
    assert states(examine(looking, ["model"])) == ["well"]
    bad = replace(settings, detect=DetectSettings(wrist_model=f"{tmp_path}/none"))
    (found,) = examine(replace(looking, settings=bad), ["model"])
    assert (found.state, "runs instead" in found.says) == ("warning", True)


# -- the command ----------------------------------------------------------------------------------

texts = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=150)


@given(
    part=st.sampled_from(PARTS),
    name=texts,
    says=texts,
    state=st.sampled_from(["well", "warning", "fault", "skipped"]),
)
def test_every_line_fits_a_terminal_of_80_columns(part: str, name: str, says: str, state: Any) -> None:
    lines = as_text(Finding(f"{part} {name}", state, says, "do this"), 80).splitlines()
    assert all(len(line) < 80 for line in lines)
    assert lines[-1].strip() == "do: do this"


def test_the_last_line_counts_and_says_where_to_begin() -> None:
    found = [well("disk", "x"), warning("clock", "x", "y"), fault("pager a", "x", "y"), skipped("journal", "x")]
    assert last_line(found) == "1 well, 1 warnings, 1 faults, 1 skipped. Next: see pager a above."
    assert last_line(found[:1]).endswith("nothing is left to do here.")


def test_the_command_ends_with_1_only_at_a_fault_and_names_its_parts(
    home: homes.Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--config", home.config, "--state", home.state, "--run", home.run)
    status, out, _ = run_here(monkeypatch, capsys, "doctor", "--only", "disk", "--json", *where)
    assert status == 0
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["well"]
    status, out, _ = run_here(monkeypatch, capsys, "doctor", "--only", "receiver", "--wait-s", "1", *where)
    assert status == 1
    assert out.splitlines()[0].startswith("FAULT    receiver dongle")
    status, _, err = run_here(monkeypatch, capsys, "doctor", "--only", "pagers", *where)
    assert (status, "pager, record" in err) == (2, True)


def test_a_check_that_breaks_hides_no_other(home: homes.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_home: Home) -> list[Finding]:
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr("edge.doctor.checks.CHECKS", (Check(("clock",), breaks), *CHECKS[-3:-2]))
    found = looked_at(home)
    assert (found["clock"].state, found["disk"].state) == ("fault", "well")
