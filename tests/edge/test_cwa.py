"""CWA files of Axivity loggers, written here block by block, read by us and by the makers' own reader."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openmovement.load import CwaData  # type: ignore[import-untyped]
from openmovement.load.cwa_load import _parse_cwa_data  # type: ignore[import-untyped]
from typer.testing import CliRunner

from edge.cli import app
from edge.recording import Recording, RecordingUnreadable, read_recording
from tests.edge.cwa_files import BEGIN, CAPACITY, COUNTS, block, blocks, header, sealed

SIZES = pytest.mark.parametrize("layout", [0x30, 0x32, 0x62], ids=["packed", "unpacked", "with gyroscope"])


def wave(n: int) -> list[COUNTS]:
    """Return counts of 1/256 g that are all different and fit a packed value exactly."""
    return [(i % 500 - 250, 8 * (i % 300) - 1200, 256) for i in range(n)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cwa") / "a.bin"  # the name says nothing


def read(file: Path, *parts: bytes) -> Recording:
    file.write_bytes(b"".join(parts))
    return read_recording(file)


def samples(recording: Recording) -> int:
    return sum(len(run.t_s) for run in recording.runs)


@SIZES
def test_a_file_is_read(file: Path, layout: int) -> None:
    counts = wave(1200)
    recording = read(file, header(), *blocks(counts, layout=layout))
    (run,) = recording.runs
    if layout == 0x30:  # a large value costs the others of its sample their last bits
        assert np.abs(run.accel_g * 256 - np.array(counts)).max() < 8
    else:
        assert np.array_equal(run.accel_g * 256, np.array(counts))
    assert run.accel_g.dtype == np.float32
    assert np.allclose(run.t_s, np.arange(1200) / 100, atol=1e-3)
    assert (recording.rate_hz, recording.range_g, recording.bad_rows) == (100.0, 8.0, 0)
    assert (recording.duration_s, recording.wearable) == (11.99, "4321")


@SIZES
def test_the_makers_own_reader_says_the_same(file: Path, layout: int) -> None:
    n = 20 * CAPACITY[layout]
    recording = read(file, header(), *blocks(wave(n), layout=layout, rate_hz=98.7, fractional=False))
    with CwaData(str(file), include_gyro=False) as theirs:
        table = theirs.get_sample_values()
    (run,) = recording.runs
    assert np.allclose(run.accel_g, table[:, 1:4], atol=1e-6)
    inside = slice(2 * CAPACITY[layout], -2 * CAPACITY[layout])  # its first and last have no times of their own
    ours_s = run.t_s - run.t_s[inside][0] + table[inside, 0][0]
    assert np.allclose(ours_s[inside], table[inside, 0], atol=1e-3)


@SIZES
def test_the_makers_own_reader_takes_fractions_of_a_second_the_same(file: Path, layout: int) -> None:
    """Block by block: for whole files that release of it overflows its own 16 bits."""
    size = CAPACITY[layout]
    parts = blocks(wave(20 * size), layout=layout, begin=BEGIN + timedelta(seconds=0.3))
    theirs_s = np.array([_parse_cwa_data(part)["estimatedFirstSampleTime"] for part in parts])
    (run,) = read(file, header(), *parts).runs
    assert np.allclose(run.t_s[::size], theirs_s - theirs_s[0], atol=1e-3)


def test_the_block_of_the_specification(file: Path) -> None:
    """Rate code 4A is 100 Hz and 8 g."""
    one = block([(0, 0, 256)] * 80, BEGIN, 0)
    assert (one[24], int.from_bytes(one[14:18], "little") >> 26) == (0x4A, 26)
    recording = read(file, one)
    assert (recording.rate_hz, recording.range_g, samples(recording)) == (100.0, 8.0, 80)
    assert recording.wearable is None


@pytest.mark.parametrize(
    ("code", "rate_hz", "range_g"), [(0x07, 12.5, 16), (0x49, 50, 8), (0x8B, 200, 4), (0xCC, 400, 2)]
)
def test_every_rate_and_range(file: Path, code: int, rate_hz: float, range_g: float) -> None:
    recording = read(file, header(), *blocks(wave(800), rate_code=code, rate_hz=rate_hz))
    assert (recording.rate_hz, recording.range_g) == (rate_hz, range_g)
    assert np.allclose(np.diff(recording.runs[0].t_s), 1 / rate_hz, rtol=0.02)


def test_an_ax6_says_how_fine_its_counts_are(file: Path) -> None:
    recording = read(file, header(), *blocks([(0, 0, 2048)] * 80, layout=0x62, scale=3))
    assert np.allclose(recording.runs[0].accel_g, [0, 0, 1])


def test_the_sensors_own_rate_is_found(file: Path) -> None:
    (run,) = read(file, header(), *blocks(wave(80 * 100), rate_hz=103.0)).runs
    assert np.allclose(run.t_s, np.arange(8000) / 103, atol=2e-3)


def test_a_damaged_block_is_counted_and_leaves_a_gap(file: Path) -> None:
    for layout in (0x30, 0x32):
        size = CAPACITY[layout]
        parts = blocks(wave(10 * size), layout=layout)
        parts[4] = parts[4][:200] + b"\xa5\x5a" + parts[4][202:]
        recording = read(file, header(), *parts)
        first, second = recording.runs
        assert (len(first.t_s), len(second.t_s), recording.bad_rows) == (4 * size, 5 * size, size)
        assert second.t_s[0] - first.t_s[-1] == pytest.approx((size + 1) / 100, abs=2e-3)
        assert np.allclose(second.accel_g[0] * 256, wave(10 * size)[5 * size], atol=8)


def test_a_logger_that_stopped_leaves_a_gap(file: Path) -> None:
    again = blocks(wave(800), begin=BEGIN + timedelta(seconds=60))
    first, second = read(file, header(), *blocks(wave(800)), *again).runs
    assert second.t_s[0] - first.t_s[0] == pytest.approx(60, abs=2e-3)


def test_a_block_left_out_leaves_a_gap(file: Path) -> None:
    parts = blocks(wave(800))
    recording = read(file, header(), *parts[:3], *parts[4:])
    assert ([len(run.t_s) for run in recording.runs], recording.bad_rows) == ([240, 480], 0)


def test_a_clock_that_was_set_back_goes_on_after_a_hole(file: Path) -> None:
    again = blocks(wave(800), begin=BEGIN - timedelta(days=400))
    first, second = read(file, header(), *blocks(wave(800)), *again).runs
    assert second.t_s[0] - first.t_s[-1] == pytest.approx(2.0)


def test_the_turn_of_a_leap_year_is_no_gap(file: Path) -> None:
    for begin in ("2027-12-31 23:59:58", "2028-02-28 23:59:58", "2028-02-29 23:59:58"):
        (run,) = read(file, header(), *blocks(wave(800), begin=type(BEGIN).fromisoformat(begin))).runs
        assert np.allclose(run.t_s, np.arange(800) / 100, atol=1e-3)


def test_a_last_block_that_is_not_full_and_a_cut_file(file: Path) -> None:
    parts = blocks(wave(430))
    assert samples(read(file, header(), *parts)) == 430
    recording = read(file, header(), *parts[:-1], parts[-1][:300])
    assert (samples(recording), recording.bad_rows) == (400, 80)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"MD", "no usable rows (80 bad)"),
        (header(), "no usable rows (0 bad)"),
        (b"AX" + bytes(1022), "no usable rows (160 bad)"),
        (header() + bytes(512), "no usable rows (80 bad)"),
        (header() + sealed(b"AX\xfc\x01" + bytes(506)), "no usable rows (80 bad)"),
    ],
)
def test_a_file_without_a_sound_block_says_why(file: Path, octets: bytes, reason: str) -> None:
    with pytest.raises(RecordingUnreadable) as refused:
        read(file, octets)
    assert refused.value.reason == reason


WHOLE = {layout: b"".join(blocks(wave(6 * CAPACITY[layout]), layout=layout)) for layout in CAPACITY}


@given(
    layout=st.sampled_from(list(CAPACITY)),
    flips=st.lists(st.tuples(st.integers(0, 6 * 512 - 1), st.integers(1, 255)), max_size=6),
)
def test_flipped_octets_cost_their_blocks_and_nothing_else(
    file: Path, layout: int, flips: list[tuple[int, int]]
) -> None:
    octets = bytearray(WHOLE[layout])
    for at, bits in flips:
        octets[at] ^= bits
    changed = {i for i in range(6) if octets[i * 512 : i * 512 + 512] != WHOLE[layout][i * 512 : i * 512 + 512]}
    lucky = {i for i in changed if np.frombuffer(octets, "<u2")[i * 256 : i * 256 + 256].sum() % 65536 == 0}
    size = CAPACITY[layout]
    try:
        recording = read(file, header(), bytes(octets))
    except RecordingUnreadable:
        assert len(changed) == 6
        return
    times = np.concatenate([run.t_s for run in recording.runs])
    assert np.all(np.diff(times) > 0)
    assert times[0] == 0
    if not lucky:
        assert (samples(recording), recording.bad_rows) == (size * (6 - len(changed)), size * len(changed))
        begun = [i for i in range(6) if i not in changed and (i == 0 or i - 1 in changed)]
        assert len(recording.runs) == len(begun)


@given(octets=st.binary(max_size=2000), fields=st.lists(st.binary(min_size=28, max_size=28), max_size=4))
def test_whatever_a_file_holds_it_is_read_or_refused(file: Path, octets: bytes, fields: list[bytes]) -> None:
    """Blocks with a right checksum and anything in their fields, and plain noise."""
    strange = [sealed(b"AX\xfc\x01" + field[:26] + bytes(480)) for field in fields]
    for content in (b"MD" + octets, b"AX" + octets, header() + b"".join([*strange, *blocks(wave(160))])):
        try:
            recording = read(file, content)
        except RecordingUnreadable:
            continue
        times = np.concatenate([run.t_s for run in recording.runs])
        assert np.all(np.diff(times) > 0)
        assert all(np.isfinite(run.accel_g).all() for run in recording.runs)


def test_a_fall_in_a_cwa_file_is_replayed_as_the_same_fall_in_csv(tmp_path: Path) -> None:
    source = Path(__file__).parent.parent / "data" / "fall-forward-wrist.csv"
    (run,) = read_recording(source).runs
    at_s = np.arange(0, run.t_s[-1], 0.01)
    g = np.stack([np.interp(at_s, run.t_s, run.accel_g[:, axis]) for axis in range(3)], axis=1)
    x, y, z = np.clip(np.round(g * 256), -2048, 2047).astype(int).T.tolist()
    (tmp_path / "x.cwa").write_bytes(header() + b"".join(blocks(list(zip(x, y, z, strict=True)), layout=0x30)))
    said = CliRunner().invoke(
        app, ["replay", "--json", "--placement", "wrist", str(tmp_path / "x.cwa"), str(source)]
    )
    logged, plain = map(json.loads, said.stdout.splitlines())
    assert [alarm["kind"] for alarm in logged["alarms"]] == ["fall"]
    assert logged["alarms"][0]["impact_s"] == pytest.approx(plain["alarms"][0]["impact_s"], abs=0.3)
