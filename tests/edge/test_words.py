"""What staff read on a pager."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.escalation import Words
from edge.core.incident import Incident, Kind
from edge.core.words import MOST_CHARACTERS, page_text, place

MOMENT = datetime(2026, 7, 22, 2, 14, 7, tzinfo=UTC)
LOCAL = MOMENT.astimezone(ZoneInfo("Europe/London"))
FALL = Incident("0193510c", "site-7", Kind.FALL, MOMENT, resident="r12", room="12", bed="A", wearable="0042")


def test_a_fall_says_where_and_when_by_the_homes_own_clock() -> None:
    assert page_text(FALL, Words.ALARM, local_time=LOCAL) == "FALL? RM 12 BED A 03:14"


def test_a_clock_that_cannot_be_believed_is_not_told() -> None:
    assert page_text(FALL, Words.ALARM, local_time=None) == "FALL? RM 12 BED A"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (Words.ON_FLOOR, "FALL? RM 12 BED A ON FLOOR 5 MIN"),
        (Words.MOVING, "FALL? RM 12 BED A MOVING"),
        (Words.UPRIGHT, "GOT UP? RM 12 BED A PLEASE CHECK"),
        (Words.AGAIN, "FALL? RM 12 BED A AGAIN"),
        (Words.DOWN, "FALL? RM 12 BED A SEEN ON FLOOR"),
        (Words.CANCELLED, "CANCELLED FALL? RM 12 BED A"),
    ],
)
def test_follow_ups_say_what_is_new(words: Words, text: str) -> None:
    assert page_text(FALL, words, local_time=LOCAL, minutes=5) == text


def test_a_doubt_is_said_last_as_small_displays_cut_it_off() -> None:
    text = page_text(FALL, Words.ALARM, local_time=LOCAL, doubted=True)
    assert text == "FALL? RM 12 BED A 03:14 CAMERA SEES SOMEBODY UPRIGHT"


@pytest.mark.parametrize(
    ("kind", "text"),
    [(Kind.LONG_LIE, "LONG LIE? RM 12 BED A 03:14"), (Kind.HELP_BUTTON, "HELP RM 12 BED A 03:14")],
)
def test_each_kind_has_its_own_word(kind: Kind, text: str) -> None:
    assert page_text(replace(FALL, kind=kind), Words.ALARM, local_time=LOCAL) == text


def test_blindness_says_its_cause() -> None:
    one = replace(FALL, kind=Kind.BLIND, cause="wearable silent")
    home = replace(one, room=None, bed=None, wearable=None, cause="receiver not connected")
    assert page_text(one, Words.ALARM, local_time=LOCAL) == "NO COVER RM 12 BED A WEARABLE SILENT 03:14"
    assert page_text(home, Words.ALARM, local_time=LOCAL) == "NO COVER RECEIVER NOT CONNECTED 03:14"
    assert page_text(home, Words.CANCELLED, local_time=LOCAL) == "CANCELLED NO COVER"


def test_a_room_without_a_bed_and_no_room_at_all_have_places_too() -> None:
    assert place(replace(FALL, bed=None)) == "RM 12"
    assert place(replace(FALL, room=None)) == ""


@given(room=st.text(max_size=150), bed=st.text(max_size=20))
def test_every_page_fits_and_a_drill_says_so_first(room: str, bed: str) -> None:
    for kind, words, drill in itertools.product(Kind, Words, (False, True)):
        facts = replace(FALL, kind=kind, room=room, bed=bed, cause="why", drill=drill)
        text = page_text(facts, words, local_time=LOCAL, minutes=3)
        assert len(text) <= MOST_CHARACTERS
        assert text.startswith("DRILL ") == drill
        assert "R12" not in text.replace(room.upper(), "").replace(bed.upper(), "")  # no resident's id
