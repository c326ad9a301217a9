"""The facts every service shares: ids in order of time, moments as the contract writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.incident import new_incident_id, parse_utc, utc_text


@given(now_ms=st.integers(0, (1 << 48) - 1))
def test_an_incidents_id_is_a_uuid_of_version_7_that_begins_with_the_time(now_ms: int) -> None:
    incident = UUID(new_incident_id(now_ms))
    assert (incident.version, incident.variant) == (7, "specified in RFC 4122")
    assert incident.int >> 80 == now_ms


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_incident_id(1_763_780_047_000 + i // 10) for i in range(1000)]
    assert len(set(ids)) == 1000
    assert sorted(ids[::10]) == ids[::10]
    assert abs(int(new_incident_id().replace("-", "")[:12], 16) / 1000 - datetime.now(UTC).timestamp()) < 5


def test_moments_are_written_in_utc_with_milliseconds() -> None:
    moment = datetime(2026, 11, 22, 4, 14, 7, 250_499, tzinfo=timezone(timedelta(hours=1)))
    assert utc_text(moment) == "2026-11-22T03:14:07.250Z"
    assert parse_utc(utc_text(moment)) == moment.replace(microsecond=250_000)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        parse_utc("2026-11-22T03:14:07")
