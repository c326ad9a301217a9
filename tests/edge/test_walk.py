"""The walk test's judgement, its book and its map, without a radio."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import walk
from edge.core.radio import AWAY_S, FADED_DBM, NOT_STRONG_DBM, WEAK_PART
from edge.core.walk import Carried, Cover, Packet, Room, advice, judged, measured
from edge.settings import HomeSettings, ResidentSettings, Settings
from edge.walk.book import FILE, Book, BookUnusable, Spot, natural, read_book, read_plan, write_book
from edge.walk.drawing import walk_map
from models import preprocess

GOOD = Carried("0042", 60, 0, 0.0, -60.0, -64, 0.0, 87)
FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "walk-map.svg"
DEAD = Carried("0042", 0, 0, 1.0, None, None, 30.0, 87)
SETTINGS = Settings(
    HomeSettings("site-7", "Rosewood House"),
    resident=(
        ResidentSettings("r12", "12", wearable="0042"),
        ResidentSettings("r14", "14", cover="none"),
        ResidentSettings("r9", "9"),
    ),
)


def packets(*missing: int, count: int = 60, rssi_dbm: int = -60) -> list[Packet]:
    """Return half a second of samples at 50 Hz each, from second 100 on, without those that are missing."""
    return [Packet(100.4 + i / 2, rssi_dbm, 1, 25 * i, 25) for i in range(count) if i not in missing]


def heard(found: list[Packet]) -> Carried:
    return measured("0042", found, begin_s=100.0, end_s=130.0, rate_hz=50.0)


def test_what_is_lost_in_a_room_is_told_by_sample_numbers() -> None:
    carried = heard(packets(10, 20, 21, 22))
    assert (carried.packets, carried.lost, carried.gap_s) == (56, 4, 1.5)
    assert carried.lost_part == pytest.approx(4 / 60, abs=1e-4)
    assert (carried.rssi_median_dbm, carried.rssi_worst_dbm) == (-60, -60)


def test_a_wearable_that_falls_silent_in_a_room_or_comes_late_into_it_lost_that_time() -> None:
    assert heard(packets(count=30)).lost_part == pytest.approx(0.5, abs=0.02)
    assert heard(packets(*range(30))).lost_part == pytest.approx(0.5, abs=0.02)
    assert heard(packets(count=30)).gap_s == pytest.approx(15, abs=0.6)


def test_what_was_lost_in_another_room_is_not_held_against_this_one() -> None:
    before = [Packet(90.0, -60, 1, 0, 25)]
    later = [replace(p, first=p.first + 50_000) for p in packets()]
    assert heard(before + later).lost_part == 0.0


def test_samples_that_come_twice_count_once() -> None:
    overlapping = [replace(p, first=p.first, n=50) for p in packets(7, 30)]
    assert heard(overlapping).lost == 0
    assert heard(packets(7) + packets(7)).packets == 59


def test_nothing_heard_is_all_lost() -> None:
    carried = heard([])
    assert (carried.packets, carried.lost_part, carried.gap_s) == (0, 1.0, 30.0)
    assert judged(carried) == (Cover.NONE, ("nothing was heard",))


@given(st.permutations(packets(3, 17)), st.integers(0, 58))
def test_the_order_of_arrival_and_what_is_seen_twice_change_nothing(found: list[Packet], twice: int) -> None:
    once = heard(packets(3, 17))
    shuffled = heard([*found, found[min(twice, len(found) - 1)]])
    assert (shuffled.lost, shuffled.lost_part, shuffled.gap_s) == (once.lost, once.lost_part, once.gap_s)


def test_the_limits_are_those_by_which_supervision_and_the_detector_judge() -> None:
    assert walk.BRIDGE_S == preprocess.BRIDGE_S
    limits = [
        (replace(GOOD, lost_part=0.05), Cover.GOOD),
        (replace(GOOD, lost_part=0.051), Cover.WEAK),
        (replace(GOOD, lost_part=WEAK_PART), Cover.NONE),
        (replace(GOOD, gap_s=preprocess.BRIDGE_S), Cover.GOOD),
        (replace(GOOD, gap_s=preprocess.BRIDGE_S + 0.1), Cover.WEAK),
        (replace(GOOD, gap_s=AWAY_S), Cover.NONE),
        (replace(GOOD, rssi_median_dbm=NOT_STRONG_DBM + 1), Cover.GOOD),
        (replace(GOOD, rssi_median_dbm=NOT_STRONG_DBM), Cover.WEAK),
        (replace(GOOD, rssi_worst_dbm=int(FADED_DBM)), Cover.WEAK),
        (replace(GOOD, rssi_median_dbm=FADED_DBM), Cover.NONE),
        (replace(GOOD, rssi_median_dbm=None, rssi_worst_dbm=None), Cover.GOOD),
    ]
    for carried, cover in limits:
        found, reasons = judged(carried)
        assert (found, bool(reasons)) == (cover, cover is not Cover.GOOD), carried


def test_a_room_is_worth_what_its_worst_wearable_found() -> None:
    room = Room("12", "", 30, (GOOD, replace(DEAD, wearable="0043")))
    assert room.cover is Cover.NONE
    assert room.reasons == ("0043: nothing was heard",)
    assert Room("12", "", 30, ()).cover is Cover.NONE


def test_neighbours_without_cover_get_one_receiver_and_rooms_far_off_another() -> None:
    places = {"20": (0.0, 0.0), "21": (8.0, 0.0), "40": (60.0, 0.0), "1": (30.0, 0.0)}
    rooms = [Room(name, "", 30, (GOOD if name == "1" else replace(GOOD, lost_part=0.3),)) for name in places]
    said = advice(rooms, places, ["50"])
    assert said[0].startswith("Add a receiver near rooms 20, 21,")
    assert said[1].startswith("Add a receiver near room 40,")
    assert said[2].startswith("Walk room 50:")
    assert advice([Room("1", "", 30, (GOOD,))], places, []) == ()


def test_the_page_for_installers_has_these_limits() -> None:
    page = (FIGURE.parents[1] / "walktest.md").read_text(encoding="utf-8")
    for limit in (f"up to {walk.GOOD_PART:.0%}", f"{WEAK_PART:.0%} and more", f"up to {walk.BRIDGE_S:g} s"):
        assert f"| {limit} |" in page
    for limit in (f"{AWAY_S:g} s and more", f"above {NOT_STRONG_DBM:g} dBm", f"at or below {FADED_DBM:g} dBm"):
        assert f"| {limit} |" in page


# -- the book -----------------------------------------------------------------------------------


def book() -> Book:
    plan = (Spot("12", (0.0, 0.0)), Spot("bath", (4.0, 0.0)), Spot("by the lift", (2.0, 3.0), "receiver"))
    return Book(("0042",), plan).with_room(Room("12", "2026-12-01T09:00:00.000Z", 30, (GOOD,)))


def test_the_walk_is_kept_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    assert read_book(tmp_path) == Book()
    write_book(tmp_path, book())
    again = read_book(tmp_path)
    assert again == book()
    write_book(tmp_path, again.with_room(Room("bath", "", 30, (DEAD,))))
    assert read_book(tmp_path).rooms["bath"].cover is Cover.NONE
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_residents_rooms_that_nobody_walked_are_named() -> None:
    assert book().unwalked(SETTINGS) == ("bath", "9")  # nobody is called for the one in room 14
    document = book().document(SETTINGS)
    assert document["unwalked"] == ["bath", "9"]
    assert json.loads(json.dumps(document))["rooms"][0]["cover"] == "good"


@pytest.mark.parametrize("text", ["", "[]", '{"rooms": 1}', '{"rooms": [], "plan": [{}], "carried": []}'])
def test_a_book_that_cannot_be_read_is_never_taken_for_an_empty_one(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BookUnusable, match="move it away"):
        read_book(tmp_path)


def test_a_plan_comes_as_csv_or_toml(tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(
        "\ufeffroom,x_m,y_m,kind\n12,0,0,\nbath,4,0,room\nby the lift,2,3,receiver\n"
    )
    (tmp_path / "plan.toml").write_text(
        '[[room]]\nname = "12"\nx_m = 0\ny_m = 0\n[[room]]\nname = "bath"\nx_m = 4.0\ny_m = 0.0\n'
        '[[receiver]]\nname = "by the lift"\nx_m = 2.0\ny_m = 3\n'
    )
    assert read_plan(tmp_path / "plan.csv") == read_plan(tmp_path / "plan.toml") == book().plan
    (tmp_path / "names.csv").write_text("room\n12\nbath\n")
    assert read_plan(tmp_path / "names.csv") == (Spot("12"), Spot("bath"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "first line"),
        ("a.csv", "room,x\n12,1\n", "first line"),
        ("a.csv", "room,x_m,y_m\n12,1,\n", "line 2"),
        ("a.csv", "room,x_m,y_m\n12,1,far\n", "line 2"),
        ("a.csv", "room,x_m,y_m\n12,1,inf\n", "line 2"),
        ("a.csv", "room\n12\n12\n", "twice"),
        ("a.csv", "room\n", "no room"),
        ("a.toml", "room = 1", r"\[\[room\]\]"),
        ("a.toml", "[[room]]\nname = '12'\ncolour = 1", r"room\[1\]"),
        ("a.toml", "[[", "no TOML"),
    ],
)
def test_a_plan_that_is_wrong_is_refused_with_what_would_be_right(
    name: str, text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BookUnusable, match=words):
        read_plan(tmp_path / name)


def test_room_9_comes_before_room_10() -> None:
    assert sorted(["10", "9", "bath 2", "bath 10", "1a"], key=natural) == ["1a", "9", "10", "bath 2", "bath 10"]


# -- the map ------------------------------------------------------------------------------------


def made_up_walk() -> str:
    """Return the map of a made-up home with a receiver at one end, as `docs/figures/walk-map.svg` has it."""
    wing = [Spot(str(number), (4.0 * i, 0.0)) for i, number in enumerate(range(1, 9))]
    wing += [Spot(str(number), (4.0 * i, 8.0)) for i, number in enumerate(range(9, 17))]
    wing += [Spot("corridor", (14.0, 4.0)), Spot("bath", (24.0, 4.0)), Spot("office", (4.0, 4.0), "receiver")]
    rooms = {}
    for spot in wing[:-3]:
        assert spot.at_m is not None
        far_m = abs(spot.at_m[0] - 4.0) + 4.0
        lost = max(far_m - 16.0, 0.0) / 60
        seen = replace(GOOD, rssi_median_dbm=round(-48 - 1.6 * far_m), lost_part=lost, rssi_worst_dbm=-80)
        rooms[spot.name] = Room(spot.name, "", 30, (DEAD if spot.name == "16" else seen,))
    rooms["corridor"] = Room("corridor", "", 30, (GOOD,))
    drawn = walk_map(wing, rooms, title="Walk test: a made-up home")
    assert drawn is not None
    return drawn


def test_the_map_in_the_documents_is_what_the_code_draws() -> None:
    assert FIGURE.read_text(encoding="utf-8") == made_up_walk()


def test_the_map_reads_without_colour_and_holds_what_names_hold() -> None:
    plan = [Spot("<12> & co", (0.0, 0.0)), Spot("13", (4.0, 0.0)), Spot("14", (8.0, 0.0)), Spot("15", (12.0, 0.0))]
    rooms = {
        "<12> & co": Room("<12> & co", "", 30, (GOOD,)),
        "13": Room("13", "", 30, (replace(GOOD, lost_part=0.1),)),
        "14": Room("14", "", 30, (DEAD,)),
    }
    drawn = walk_map(plan, rooms, title="Rose & Wood")
    assert drawn is not None
    root = ET.fromstring(drawn)
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<12> & co", "G", "W", "N", "?", "good", "weak", "no cover", "not walked"} <= set(texts)
    hatched = [rect.get("fill") for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert hatched.count("url(#weak)") == hatched.count("url(#none)") == 2  # the room, and the legend
    assert walk_map([Spot("12")], rooms, title="") is None
