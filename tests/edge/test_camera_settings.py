"""A camera in the settings: where it hangs, whose room it is, and what allows it to look."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from edge.checked import SettingsError
from edge.settings import CameraSettings, CameraZoneSettings, ConsentSettings, Settings, load_settings

HOME = """
[home]
id = "site-7"
[[resident]]
id = "r12"
room = "12"
[[zone]]
name = "ground floor"
rooms = ["lounge"]
"""
CAMERA = """
[[camera]]
id = "cam-12"
room = "12"
kind = "orbbec"
resident = "r12"
"""
CONSENT = """
[camera.consent]
kind = "consent"
given = 2026-11-01
review = 2027-05-01
"""
ZONE = """
[[camera.zone]]
kind = "bed"
polygon_m = [[-0.5, 2], [0.4, 2.0], [0.4, 4.0]]
height_m = 0.5
"""


def load(folder: Path, text: str) -> Settings:
    (folder / "fallwatch.toml").write_text(HOME + text, encoding="utf-8")
    return load_settings(folder / "fallwatch.toml")


def test_a_camera_with_its_consent_and_its_bed_is_read(tmp_path: Path) -> None:
    (camera,) = load(tmp_path, CAMERA + CONSENT + ZONE).camera
    assert camera == CameraSettings(
        "cam-12",
        "12",
        "orbbec",
        resident="r12",
        consent=ConsentSettings("consent", date(2026, 11, 1), date(2027, 5, 1)),
        zone=(CameraZoneSettings("bed", ((-0.5, 2.0), (0.4, 2.0), (0.4, 4.0)), 0.5),),
    )


def test_consent_holds_from_the_day_it_was_given_until_the_day_of_its_review() -> None:
    consent = ConsentSettings("best-interests", date(2026, 11, 1), date(2027, 5, 1))
    days = [date(2026, 10, 31), date(2026, 11, 1), date(2027, 4, 30), date(2027, 5, 1)]
    assert [consent.holds(day) for day in days] == [False, True, True, False]


def test_a_camera_may_hang_in_a_room_of_nobodys(tmp_path: Path) -> None:
    text = CAMERA.replace('"12"', '"lounge"').replace('resident = "r12"', "")
    assert load(tmp_path, text).camera[0].resident == ""


def test_consent_that_is_past_its_review_does_not_stop_the_services(tmp_path: Path) -> None:
    assert load(tmp_path, CAMERA + CONSENT.replace("2027", "2026").replace("11-01", "01-01")).camera


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        (CAMERA.replace('room = "12"', 'room = "13"'), "camera[1].room", "'13' is the room of no"),
        (CAMERA.replace('"r12"', '"r13"'), "camera[1].resident", "no resident 'r13'"),
        (CAMERA.replace('room = "12"', 'room = "lounge"'), "camera[1].resident", "r12 lives in room 12"),
        (CAMERA * 2, "camera.id", "number 1 and 2"),
        (CAMERA + CAMERA.replace("cam-12", "cam-b"), "camera.device", "number 1 and 2"),
        (CAMERA.replace("orbbec", "webcam"), "camera[1].kind", "'webcam' is not known"),
        (CAMERA.replace("orbbec", "v4l2"), "camera[1].fx", "does not tell it"),
        (CAMERA + "fx = 300.0\nfy = 300.0\ncx = 160.0", "camera[1].cy", "is missing beside fx, fy, cx"),
        (CAMERA.replace("orbbec", "folder"), "camera[1].device", "name the folder"),
        (CAMERA + "floor = [0, 1, 0]", "camera[1].floor", "four numbers"),
        (CAMERA + "floor = [0, 3, 0, 2.2]", "camera[1].floor", "four numbers"),
        (CAMERA + "fps = 0", "camera[1].fps", "from 1 to 120"),
        (CAMERA + CONSENT.replace("2026-11-01", '"2026-11-01"'), "camera[1].consent.given", "a date without"),
        (CAMERA + CONSENT.replace("2026-11-01", "2026-11-01T10:00:00"), "camera[1].consent.given", "a date"),
        (CAMERA + CONSENT.replace("review = 2027-05-01", ""), "camera[1].consent.review", "is missing"),
        (CAMERA + CONSENT.replace("2027", "2025"), "camera[1].consent.review", "a day after given"),
        (CAMERA + CONSENT.replace('"consent"', '"family"'), "camera[1].consent.kind", "'family' is not known"),
        (CAMERA + ZONE.replace("bed", "sofa"), "camera[1].zone[1].kind", "'sofa' is not known"),
        (CAMERA + ZONE.replace(", [0.4, 4.0]", ""), "camera[1].zone[1].polygon_m", "three or more corners"),
        (CAMERA + "images = true", "camera[1].images", "unknown key"),
    ],
)
def test_what_is_wrong_is_said_by_key_and_what_would_be_right(
    tmp_path: Path, text: str, key: str, remedy: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, text)
    assert refused.value.key == key
    assert remedy in refused.value.remedy
