"""Recordings as they come from people's disks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.recording import Recording, RecordingUnreadable, read_recording

DATA = Path(__file__).parent.parent / "data"
HEADER = "time_s,x_g,y_g,z_g\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings") / "a.csv"


def rows(n: int = 100, *, rate_hz: float = 50.0, begin_s: float = 0.0) -> list[str]:
    return [f"{begin_s + i / rate_hz:.3f},0.1,{i / 1000:.3f},0.98" for i in range(n)]


def read(file: Path, text: str | bytes) -> Recording:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recording(file)


def samples(recording: Recording) -> int:
    return sum(len(run.t_s) for run in recording.runs)


def refusal(file: Path, text: str | bytes) -> str:
    with pytest.raises(RecordingUnreadable) as refused:
        read(file, text)
    assert "\n" not in refused.value.reason
    return refused.value.reason


def test_a_recording_is_read(file: Path) -> None:
    recording = read(file, HEADER + "\n".join(rows()) + "\n")
    (run,) = recording.runs
    assert np.allclose(run.t_s, np.arange(100) / 50, atol=1e-9)
    assert run.accel_g.dtype == np.float32
    assert np.allclose(run.accel_g[7], [0.1, 0.007, 0.98])
    assert recording.duration_s == 1.98
    assert (recording.bad_rows, recording.placement, recording.rate_hz) == (0, None, None)
    assert recording.measured_rate_hz == pytest.approx(50)


def test_comments_before_the_header_say_what_it_is(file: Path) -> None:
    comments = "# placement: Waist\n#rate_hz:25\n# range_g : 8\n\n# wearable: 0042\n# note: fell, twice\n"
    recording = read(file, comments + HEADER + "\n".join(rows()))
    assert (recording.placement, recording.rate_hz) == ("waist", 25.0)
    assert (recording.range_g, recording.wearable) == (8.0, "0042")


@pytest.mark.parametrize("value", ["", "fast", "nan", "-3", "0", "1e9"])
def test_a_comment_that_makes_no_sense_is_as_none(file: Path, value: str) -> None:
    comments = f"# placement: {value}\n# rate_hz: {value}\n# range_g: {value}\n"
    recording = read(file, comments + HEADER + "\n".join(rows()))
    assert (recording.placement, recording.rate_hz, recording.range_g) == (None, None, None)


@pytest.mark.parametrize(
    "header",
    [
        "time_s,x_g,y_g,z_g\n",
        "\ufefftime_s,x_g,y_g,z_g\r\n",
        " Time_S , X_g,y_g ,z_g\n",
        '"time_s","x_g","y_g","z_g"\n',
        "\n  \ntime_s,x_g,y_g,z_g\n\n",
    ],
)
def test_byte_order_marks_line_ends_and_blanks_do_not_matter(file: Path, header: str) -> None:
    end = "\r\n" if "\r" in header else "\n"
    recording = read(file, header + end.join(rows()) + end)
    assert (samples(recording), recording.bad_rows) == (100, 0)


@pytest.mark.parametrize(
    "row",
    [
        "nan,0,0,1",
        "0.5,nan,0,1",
        "0.5,0,NaN,1",
        "0.5,0,0,inf",
        "-inf,0,0,1",
        "0.5,0,0,1e30",
        "1e300,0,0,1",
        "0.5,0,0,-201",
        "0.5,0,0",
        "0.5,0,0,1,2",
        "0.5,,0,1",
        "0.5;0;0;1",
        "# a comment",
        "time_s,x_g,y_g,z_g",
        "0.5,0,0,1 g",
        "0.5,0,\0,1",
        "\ufffd\ufffd",
        "x" * 200_000,
    ],
)
def test_a_bad_row_is_counted_and_the_others_are_used(file: Path, row: str) -> None:
    good = rows()
    recording = read(file, HEADER + "\n".join([*good[:25], row, *good[25:], row, row]))
    assert recording.bad_rows == 3
    assert samples(recording) == 100
    assert recording.duration_s == 1.98


def test_a_stray_quotation_mark_does_not_swallow_the_rows_after_it(file: Path) -> None:
    good = rows()
    recording = read(file, HEADER + "\n".join([*good[:25], '0.5,"0,x,1', *good[25:]]))
    assert (samples(recording), recording.bad_rows) == (100, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("# placement: wrist\n", "is empty"),
        ("\ufeff", "is empty"),
        (HEADER, "no usable rows (0 bad)"),
        (HEADER + "a,b,c,d\n0,0,0\n", "no usable rows (2 bad)"),
        ("\n".join(rows()), "no header: the first line should be time_s,x_g,y_g,z_g"),
        ("t,x,y,z\n" + "\n".join(rows()), "no header"),
        ("time_s,y_g,x_g,z_g\n" + "\n".join(rows()), "no header"),
        (bytes(range(256)) * 50, "no header"),
        (b"\x7fELF" + bytes(1000), "no header"),
        ((HEADER + "\n".join(rows())).encode("utf-16"), "no header"),
    ],
)
def test_a_file_that_holds_no_recording_says_why(file: Path, text: str | bytes, reason: str) -> None:
    assert reason in refusal(file, text)


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(RecordingUnreadable, match=reason):
            read_recording(path)


def test_one_usable_row_is_a_recording(file: Path) -> None:
    recording = read(file, HEADER + "12.5,0,0,1\n")
    assert (samples(recording), recording.duration_s) == (1, 0.0)
    assert recording.measured_rate_hz == 50.0


@pytest.mark.parametrize("zero_s", [-1000.0, 0.0, 1_763_780_047.25])
def test_times_count_from_the_first_sample_whatever_their_zero(file: Path, zero_s: float) -> None:
    recording = read(file, HEADER + "\n".join(rows(begin_s=zero_s)))
    assert recording.runs[0].t_s[0] == 0.0
    assert recording.duration_s == 1.98


def test_bursts_are_spread_and_a_real_gap_is_a_gap(file: Path) -> None:
    text = [f"{math.ceil((i + 1) / 25) / 2:.3f},0,0,1" for i in range(1500) if not 500 <= i < 700]
    recording = read(file, HEADER + "\n".join(text))
    first, second = recording.runs
    assert np.allclose(np.diff(first.t_s), 0.02, atol=1e-3)
    assert (len(first.t_s), len(second.t_s)) == (500, 800)
    assert second.t_s[0] == pytest.approx(14.0, abs=0.1)
    assert recording.duration_s == pytest.approx(29.98, abs=0.1)


def test_times_that_repeat_or_step_back_a_little_are_ordinary(file: Path) -> None:
    text = [f"{i // 5 / 10 - 0.3 * (i % 97 == 50):.3f},0,0,1" for i in range(500)]
    recording = read(file, HEADER + "\n".join(text))
    assert (samples(recording), recording.bad_rows) == (500, 0)
    assert np.allclose(np.diff(recording.runs[0].t_s), 0.02, atol=1e-3)


ANYWHERE = [(at, stray_s) for at in (1, 300, 998) for stray_s in (-99.0, 0.5, 9000.0, 1e9)]


@pytest.mark.parametrize(("at", "stray_s"), [(0, 9000.0), *ANYWHERE, (999, -99.0)])
def test_one_stray_time_costs_one_row(file: Path, at: int, stray_s: float) -> None:
    good = rows(1000, begin_s=10.0)
    stray = [*good[:at], f"{stray_s},0.1,0.2,0.98", *good[at + 1 :]]
    recording = read(file, HEADER + "\n".join(stray))
    assert recording.bad_rows == 1
    assert samples(recording) == 999
    assert recording.duration_s == pytest.approx(19.98, abs=0.05)


def test_a_clock_that_was_set_back_goes_on_after_a_hole(file: Path) -> None:
    recording = read(file, HEADER + "\n".join([*rows(500, begin_s=100), *rows(500, begin_s=3)]))
    first, second = recording.runs
    assert (samples(recording), recording.bad_rows) == (1000, 0)
    assert second.t_s[0] - first.t_s[-1] == pytest.approx(2.0, abs=0.05)


@given(text=st.binary(max_size=300) | st.text(alphabet='0123456789.,-e\n\r "#naif', max_size=300))
def test_whatever_a_file_holds_it_is_read_or_refused(file: Path, text: str | bytes) -> None:
    body = text if isinstance(text, bytes) else text.encode()
    for content in (body, HEADER.encode() + body):
        try:
            recording = read(file, content)
        except RecordingUnreadable:
            continue
        times = np.concatenate([run.t_s for run in recording.runs])
        assert times[0] == 0.0
        assert np.all(np.diff(times) > 0)
        assert recording.duration_s >= 0
        assert all(np.isfinite(run.accel_g).all() for run in recording.runs)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.csv")), ids=lambda path: path.name)
def test_the_recordings_of_the_tests_are_sound(path: Path) -> None:
    recording = read_recording(path)
    assert recording.bad_rows == 0
    assert 10 < recording.duration_s < 60
    assert recording.placement in {"wrist", "waist"}
    assert 19 < recording.measured_rate_hz < 205


def test_there_are_at_most_six_short_recordings_one_of_a_fall_and_where_they_come_from() -> None:
    recordings = list(DATA.glob("*.csv"))
    assert 1 <= len(recordings) <= 6
    assert any("fall" in path.name for path in recordings)
    provenance = (DATA / "PROVENANCE.md").read_text(encoding="utf-8")
    assert all(path.name in provenance for path in recordings)
