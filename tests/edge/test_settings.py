"""The home's settings: right ones are read, wrong ones answered with one line of what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.channels import EspaSettings
from edge.checked import SettingsError
from edge.settings import (
    EscalationSettings,
    ResidentSettings,
    Settings,
    load_settings,
    nhs_number_is_valid,
)

CONTRACT = """
[home]
id = "site-7"
name = "Rosewood House"
timezone = "Europe/London"

[[dongle]]
port = "/dev/serial/by-id/usb-fallwatch-dongle"

[[resident]]
id = "r12"
room = "12"
bed = "A"
nhs_number = "9434765919"
wearable = "0042"
placement = "wrist"

[[pager]]
kind = "espa444"
port = "/dev/ttyUSB1"        # or url = "tcp://host:port"
baud = 9600
format = "8N1"
station = "2"                # the paging system's address on the line; ours is "1"
variant = "poll-select"      # poll-select | select | block

[escalation]
groups = ["12", "20", "0", "99"]   # pager called first, then one more group at each step
steps_s = [120, 240, 480]          # after the first page without an acknowledgement
repeat_every_s = 120

[record]
kind = "fhir-r4"             # or "embedded", the default
base_url = "https://record.example/fhir"
auth = "smart-backend"       # none | bearer | smart-backend

[mqtt]
host = "localhost"
port = 1883
tls = false
"""
HOME = '[home]\nid = "site-7"\n'
PAGER = '[[pager]]\nport = "/dev/ttyUSB1"\n'
RESIDENT = '[[resident]]\nid = "r12"\nroom = "12"\n'


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("etc") / "fallwatch.toml"


def load(file: Path, text: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def refusal(file: Path, text: str) -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        load(file, text)
    line = str(refused.value)
    assert line.startswith(f"{file}: ")
    assert "\n" not in line
    return refused.value


def test_the_settings_of_the_contract_are_read(file: Path) -> None:
    settings = load(file, CONTRACT)
    assert (settings.home.id, settings.home.name, settings.path) == ("site-7", "Rosewood House", file)
    assert settings.dongle[0].port == "/dev/serial/by-id/usb-fallwatch-dongle"
    assert settings.resident == (
        ResidentSettings("r12", "12", "A", nhs_number="9434765919", wearable="0042", placement="wrist"),
    )
    (pager,) = settings.pager
    assert isinstance(pager, EspaSettings)
    assert (pager.baud, pager.format, pager.station, pager.variant) == (9600, "8N1", "2", "poll-select")
    assert settings.escalation == EscalationSettings(("12", "20", "0", "99"), (120.0, 240.0, 480.0), 120.0)
    assert (settings.record.kind, settings.record.auth) == ("fhir-r4", "smart-backend")
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.tls) == ("localhost", 1883, False)
    assert settings.secrets == file.parent / "secrets"


def test_a_home_needs_no_more_than_its_id(file: Path) -> None:
    settings = load(file, HOME)
    assert settings == Settings(settings.home, path=file)
    assert (settings.record.kind, settings.mqtt.host) == ("embedded", "")
    assert settings.escalation.follow_up_s == (180.0, 300.0, 600.0)
    assert settings.escalation.repeat_every_s == 120.0


def test_channels_of_every_kind_are_numbered_within_their_kind(file: Path) -> None:
    settings = load(
        file,
        HOME
        + '[[pager]]\nport = "/dev/ttyUSB1"\n'
        + '[[pager]]\nkind = "sms"\nrole = "fallback"\naddresses = { "0" = "+447700900123" }\n'
        + '[[pager]]\nurl = "tcp://moxa:4001"\n'
        + '[[pager]]\nkind = "relay"\nname = "corridor light"\nline = 17\n',
    )
    assert settings.channel_names() == ("espa-1", "sms-1", "espa-2", "corridor light")
    assert [channel.address("0") for channel in settings.pager] == ["0", "+447700900123", "0", "0"]
    assert settings.pager[1].address("12") is None  # a group's own number is no telephone


def test_a_shift_over_midnight_is_minutes_after_midnight(file: Path) -> None:
    text = '[[shift]]\nname = "night"\nbegins = "20:00"\nends = "08:15"\n'
    assert load(file, HOME + text).shift[0].minutes() == (1200, 495)


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("", "home", "is missing"),
        ("home = 3", "home", "write [home]"),
        ("[home]\n", "home.id", "is missing"),
        ('[home]\nid = ""\n', "home.id", "such as 'site-7'"),
        ('[home]\nid = "a/b"\n', "home.id", "such as 'site-7'"),
        ("[home]\nid = 7\n", "home.id", "text in quotes"),
        (HOME + 'timezone = "Europe/Atlantis"\n', "home.timezone", "'Europe/London'"),
        (HOME + 'timezone = "../../etc/passwd"\n', "home.timezone", "'Europe/London'"),
        (HOME + "colour = 1\n", "home.colour", "known here: id, name, timezone"),
        (HOME + "[homes]\n", "homes", "known here: home, dongle, resident, pager"),
        (HOME + "[dongle]\n", "dongle", "write [[dongle]]"),
        (HOME + "[[dongle]]\n", "dongle[1].port", "is missing"),
        (HOME + '[[dongle]]\nport = ""\n', "dongle[1].port", "/dev/serial/by-id"),
        (HOME + '[[dongle]]\nport = "a"\nbaud = true\n', "dongle[1].baud", "a whole number"),
        (HOME + '[[dongle]]\nport = "a"\nbaud = 1.5\n', "dongle[1].baud", "a whole number"),
        (HOME + '[[dongle]]\nport = "a"\nbaud = 0\n', "dongle[1].baud", "above 0"),
        (HOME + '[[dongle]]\nport = "a"\n' * 2, "dongle.port", "number 1 and 2 have the same"),
        (HOME + '[[resident]]\nid = "r1"\n', "resident[1].room", "is missing"),
        (HOME + '[[resident]]\nid = "r1"\nroom = " "\n', "resident[1].room", "such as '12'"),
        (HOME + '[[resident]]\nid = "Mrs Smith"\nroom = "1"\n', "resident[1].id", "such as 'r12'"),
        (HOME + RESIDENT + 'wearable = "123456789"\n', "resident[1].wearable", "1 to 8 letters"),
        (HOME + RESIDENT + 'wearable = "00 42"\n', "resident[1].wearable", "1 to 8 letters"),
        (HOME + RESIDENT + 'placement = "ankle"\n', "resident[1].placement", "'wrist', 'waist'"),
        (HOME + RESIDENT + 'nhs_number = "9434765918"\n', "resident[1].nhs_number", "check digit"),
        (HOME + RESIDENT + RESIDENT, "resident.id", "number 1 and 2 have the same"),
        (HOME + PAGER + 'groups = ["7"]\n', "pager[1].groups", "'7' is in no groups"),
        (HOME + PAGER + "addresses = 3\n", "pager[1].addresses", "write a table"),
        (HOME + PAGER + 'addresses = { "0" = 7 }\n', "pager[1].addresses.0", "text in quotes"),
        (HOME + PAGER + 'addresses = { "0" = " " }\n', "pager[1].addresses", "has no number"),
        (HOME + PAGER + 'role = "third"\n', "pager[1].role", "'primary', 'fallback'"),
        (HOME + PAGER + 'test_at = "25:00"\n', "pager[1].test_at", "such as '10:30'"),
        (HOME + PAGER + 'own = "2"\n', "pager[1].own", "another digit"),
        (HOME + '[[pager]]\nkind = "relay"\n', "pager[1].line", "is missing"),
        (HOME + "[[pager]]\nkind = 4\n", "pager[1].kind", "'espa444', 'tap'"),
        (HOME + '[[pager]]\nkind = "sms"\n', "pager[1].addresses", "+447700900123"),
        (HOME + '[[pager]]\nkind = "sms"\naddresses = { "0" = "112" }\n', "pager[1].addresses", "+447700900123"),
        (HOME + '[[zone]]\nname = "west"\n', "zone[1].rooms", "is missing"),
        (HOME + '[[shift]]\nname = "n"\nbegins = "20"\nends = "08:00"\n', "shift[1].begins", "such as '20:00'"),
        (HOME + '[[shift]]\nname = "n"\nbegins = "08:00"\nends = "08:00"\n', "shift[1].ends", "another time"),
        (HOME + '[[route]]\ngroups = ["1"]\n', "route[1].zone", "a zone, a shift or both"),
        (HOME + '[[route]]\ngroups = ["1"]\nzone = "west"\n', "route[1].zone", "add it as [[zone]]"),
        (HOME + '[[route]]\ngroups = ["1 2"]\nzone = "west"\n', "route[1].groups", "up to 16 digits"),
        (
            HOME + RESIDENT + 'wearable = "7"\n' + RESIDENT.replace("r12", "r13") + 'wearable = "7"\n',
            "resident.wearable",
            "number 1 and 2 have the same",
        ),
        (
            HOME
            + RESIDENT
            + 'nhs_number = "9434765919"\n'
            + RESIDENT.replace("r12", "r13")
            + 'nhs_number = "943 476 5919"\n',
            "resident.nhs_number",
            "number 1 and 2 have the same",
        ),
        (HOME + "[[pager]]\n", "pager[1].port", "either port (a serial line) or url"),
        (HOME + PAGER + 'url = "tcp://a:1"\n', "pager[1].port", "either port"),
        (HOME + '[[pager]]\nurl = "http://a"\n', "pager[1].url", "tcp://host:port"),
        (HOME + PAGER + 'kind = "smoke"\n', "pager[1].kind", "'espa444'"),
        (HOME + PAGER + 'format = "8X1"\n', "pager[1].format", "'8N1'"),
        (HOME + PAGER + 'station = "20"\n', "pager[1].station", "one digit"),
        (HOME + PAGER + 'variant = "shout"\n', "pager[1].variant", "'poll-select', 'select', 'block'"),
        (HOME + PAGER + "attempts = 0\n", "pager[1].attempts", "above 0"),
        (HOME + PAGER + "ack_wait_s = -1\n", "pager[1].ack_wait_s", "above 0"),
        (HOME + PAGER + "down_after_s = nan\n", "pager[1].down_after_s", "a number"),
        (HOME + PAGER + 'name = "espa-2"\n' + PAGER, "pager.name", "number 1 and 2 have the same"),
        (HOME + "[escalation]\ngroups = []\n", "escalation.groups", "at least one"),
        (HOME + '[escalation]\ngroups = "12"\n', "escalation.groups", "a list in [ ]"),
        (HOME + "[escalation]\ngroups = [12]\n", "escalation.groups[1]", "text in quotes"),
        (HOME + '[escalation]\ngroups = ["1\\n2"]\n', "escalation.groups", "pager or group numbers"),
        (HOME + "[escalation]\nsteps_s = [240, 120]\n", "escalation.steps_s", "rising"),
        (HOME + "[escalation]\nsteps_s = [0, 120]\n", "escalation.steps_s", "rising"),
        (HOME + '[escalation]\nsteps_s = [120, "later"]\n', "escalation.steps_s[2]", "a number"),
        (HOME + "[escalation]\nfollow_up_s = [600, 300]\n", "escalation.follow_up_s", "rising"),
        (HOME + "[escalation]\nrepeat_every_s = 0\n", "escalation.repeat_every_s", "above 0"),
        (HOME + "[escalation]\nrepeat_every_s = inf\n", "escalation.repeat_every_s", "a number"),
        (HOME + '[record]\nkind = "paper"\n', "record.kind", "'embedded', 'fhir-r4'"),
        (HOME + '[record]\nkind = "fhir-r4"\n', "record.base_url", "such as 'https://record.example/fhir'"),
        (HOME + '[record]\nauth = "bearer"\n', "record.token_file", "name the file"),
        (HOME + "[mqtt]\nport = 70000\n", "mqtt.port", "1883, or 8883 with TLS"),
        (HOME + '[mqtt]\ntls = "no"\n', "mqtt.tls", "true or false"),
        (HOME + "[detect]\nsilence_s = 0\n", "detect.silence_s", "above 0"),
        (HOME + "[detect]\nblind_page_s = -1\n", "detect.blind_page_s", "above 0"),
    ],
)
def test_each_wrong_thing_is_named_with_what_would_be_right(file: Path, text: str, key: str, remedy: str) -> None:
    refused = refusal(file, text)
    assert refused.key == key
    assert f": {key}: " in str(refused)
    assert remedy in refused.remedy
    assert "9434765" not in str(refused)  # an error is no place for people's numbers


@pytest.mark.parametrize("text", ["[home", "id = 'a\n", '[home]\nid = "a"\nid = "b"\n', "\x00"])
def test_what_is_no_toml_says_where(file: Path, text: str) -> None:
    assert re.search(r"is no TOML: .*(line \d|end of document)", str(refusal(file, text)))


def test_a_file_that_is_not_utf_8_says_so(file: Path) -> None:
    file.write_bytes(b'[home]\nid = "\xff"\n')
    with pytest.raises(SettingsError, match="is no TOML"):
        load_settings(file)


def test_a_file_that_is_not_there_or_not_readable_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no such file; .*--config"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings(tmp_path)


@given(text=st.text(alphabet="[]homeid=\"= \n1.a{},'#", max_size=80))
def test_whatever_the_file_holds_it_is_read_or_refused_in_one_line(file: Path, text: str) -> None:
    try:
        load(file, HOME + text)
    except SettingsError as error:
        line = str(error)
    else:
        line = ""
    assert "\n" not in line


def test_systemd_hands_over_the_secrets(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    assert load(file, HOME).secrets == Path("/run/credentials/x")


def test_who_wears_what_is_found(file: Path) -> None:
    settings = load(file, CONTRACT)
    assert settings.resident_of("0042") is settings.resident[0]
    assert settings.resident_of("0043") is None


def test_residents_without_wearable_or_number_do_not_collide(file: Path) -> None:
    settings = load(file, HOME + RESIDENT + RESIDENT.replace("r12", "r13"))
    assert len(settings.resident) == 2
    assert settings.resident_of("0042") is None


def test_pagers_are_named_by_order_where_they_have_no_name(file: Path) -> None:
    settings = load(file, HOME + PAGER + PAGER + 'name = "night"\n' + PAGER)
    assert settings.channel_names() == ("espa-1", "night", "espa-3")


@pytest.mark.parametrize("number", ["9434765919", "943 476 5919", "4505577104", "9876543210"])
def test_nhs_numbers_with_a_sound_check_digit_are_taken(number: str) -> None:
    assert nhs_number_is_valid(number)


@given(number=st.from_regex(r"[0-9]{9}", fullmatch=True))
def test_at_most_one_check_digit_is_right(number: str) -> None:
    weighed = sum(weight * int(digit) for weight, digit in zip(range(10, 1, -1), number, strict=True))
    right = [digit for digit in range(10) if nhs_number_is_valid(number + str(digit))]
    assert right == ([] if (check := -weighed % 11) == 10 else [check])


@pytest.mark.parametrize("number", ["", "943476591", "94347659190", "943476591X", "٩٤٣٤٧٦٥٩١٩"])
def test_what_is_no_number_of_ten_digits_is_refused(number: str) -> None:
    assert not nhs_number_is_valid(number)
