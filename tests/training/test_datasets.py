"""Each set's layout and traps, on made-up files; what the real files hold is tested where they are."""

from __future__ import annotations

import os
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the training extra is not installed")
pytest.importorskip("tqdm", reason="the training extra is not installed")

from scipy.io import savemat

from tests.training.real import real_trials
from training import datasets
from training.datasets import DataMissing, Ledger, clean, fingerprint, load, locate
from training.readers import Trial

HEADER = """% Age: {age}
% MAC Address; Sensor_ID; Position; Device Model
%f8:95:c7:f3:ba:82; 0; RIGHTPOCKET; lge-LG-H815-5.1
%C4:BE:84:70:0E:80; {wrist}; WRIST; SensorTag
%C4:BE:84:71:A5:02; {waist}; WAIST; SensorTag
% TimeStamp; Sample No; X-Axis; Y-Axis; Z-Axis; Sensor Type; Sensor ID;
"""


def umafall(folder: Path, name: str, *, wrist: int = 3, waist: int = 2, age: int = 24, rows: list[str]) -> None:
    path = folder / "UMAFall_Dataset" / f"UMAFall_{name}_2016-06-15_21-28-09.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER.format(age=age, wrist=wrist, waist=waist) + "\n".join(rows) + "\n")


def still(sensor: int, *, seconds: float = 4.0, x: float = 0.0, impact_at: int | None = None) -> list[str]:
    rows = []
    for i in range(int(seconds * 20)):
        z = 5.0 if i == impact_at else 1.0 + 0.001 * i
        rows.append(f"{i * 50};{i};{x};0.01;{z};0;{sensor}")
    return rows


def only(trials: list[Trial]) -> Trial:
    (trial,) = trials
    return trial


def test_a_umafall_file_gives_the_wrist_and_the_waist_its_header_names(tmp_path: Path) -> None:
    rows = still(4, impact_at=40) + still(1, x=0.5, impact_at=42)
    umafall(tmp_path, "Subject_05_Fall_lateralFall_1", wrist=4, waist=1, rows=rows)
    trials, ledger = load(["umafall"], root=tmp_path)
    wrist, waist = trials
    assert (wrist.placement, waist.placement) == ("wrist", "waist")
    assert (wrist.person, wrist.activity, wrist.is_fall, wrist.age_group) == (
        "umafall/05",
        "lateralFall",
        True,
        "young",
    )
    assert wrist.accel_g.shape == (80, 3)
    assert wrist.accel_g.dtype == np.float32
    assert wrist.impact_s == pytest.approx(2.0, abs=0.06)
    assert waist.accel_g[0, 0] == np.float32(0.5)
    assert ledger.dropped == {"umafall": {"no chest samples": 1, "no ankle samples": 1}}


def test_times_that_come_in_pairs_are_spread_evenly(tmp_path: Path) -> None:
    rows = [f"{(i // 2) * 100};{i};0;0;{1 + i / 1000};0;3" for i in range(80)]
    umafall(tmp_path, "Subject_05_ADL_Bending_1", rows=rows)
    trials, _ = load(["umafall"], root=tmp_path)
    steps = np.diff(only(trials).time_s)
    assert np.allclose(steps, steps[0], rtol=0.01)
    assert steps[0] == pytest.approx(0.05, abs=0.002)


def test_the_numbers_a_spreadsheet_broke_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [f"{i * 50};{i};-101.123.046.875;0.1;0.9;0;3;" for i in range(80)]
    umafall(tmp_path, "Subject_13_ADL_Bending_1", rows=rows)
    trials, ledger = load(["umafall"], root=tmp_path)
    assert trials == []
    assert ledger.dropped["umafall"] == {"spreadsheet dots in the numbers (Subject 13)": 1}


def test_an_extra_semicolon_at_the_end_of_a_line_loses_no_row(tmp_path: Path) -> None:
    umafall(tmp_path, "Subject_14_ADL_Bending_1", rows=[row + ";" for row in still(3)])
    trials, ledger = load(["umafall"], root=tmp_path)
    assert len(only(trials).accel_g) == 80
    assert ledger.dropped["umafall"] == {f"no {place} samples": 1 for place in ("waist", "chest", "ankle")}


def smartfallmm(folder: Path, name: str, text: str) -> None:
    path = folder / "SmartFallMM-Dataset" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def watch_rows(*, seed: int, n: int = 96, begin_s: float = 0.0) -> str:
    """Samples as the watch hands them on: two at a time, every 60 ms."""
    rng = np.random.default_rng(seed)
    begin = datetime(2022, 8, 4, 11, 24, tzinfo=UTC) + timedelta(seconds=begin_s)
    rows = ""
    for i, (x, y, z) in enumerate(rng.normal(0, 0.1, (n, 3))):
        when = begin + timedelta(milliseconds=60 * (i // 2) + i % 2)
        rows += f"{when:%Y-%m-%d %H:%M:%S.%f},{x},{y},{9.80665 + z}\n"
    return rows


def test_a_watch_is_read_in_metres_and_its_pairs_are_spread(tmp_path: Path) -> None:
    smartfallmm(tmp_path, "young/accelerometer/watch/S29A10T01.csv", watch_rows(seed=1))
    trial = only(load(["smartfallmm"], root=tmp_path)[0])
    assert (trial.person, trial.activity, trial.is_fall) == ("smartfallmm/S29", "back-fall", True)
    assert trial.rate_hz == pytest.approx(33.3, abs=1)
    assert np.median(np.linalg.norm(trial.accel_g, axis=1)) == pytest.approx(1.0, abs=0.02)
    assert np.diff(trial.time_s) == pytest.approx(0.03, abs=0.001)


def test_a_watch_that_sent_twice_in_disorder_with_leftovers_is_put_right(tmp_path: Path) -> None:
    rows = watch_rows(seed=1).splitlines(keepends=True)
    leftover = watch_rows(seed=2, n=8, begin_s=-426.0)
    mixed = [*rows[40:], *rows[:60], *leftover.splitlines(keepends=True), *rows]
    smartfallmm(tmp_path, "young/accelerometer/watch/S46A10T01.csv", "".join(mixed))
    smartfallmm(tmp_path, "young/accelerometer/watch/S29A10T01.csv", "".join(rows))
    trials, ledger = load(["smartfallmm"], root=tmp_path)
    assert only(trials).duration_s == pytest.approx(96 * 0.03, abs=0.1)
    assert ledger.dropped["smartfallmm-watch"] == {"copy of another trial": 1}  # the two are the same now


def test_a_copy_is_used_once(tmp_path: Path) -> None:
    for name in ("S45A10T13", "S45A11T01", "S45A14T05"):
        smartfallmm(tmp_path, f"young/accelerometer/watch/{name}.csv", watch_rows(seed=1))
    trials, ledger = load(["smartfallmm"], root=tmp_path)
    assert only(trials).activity == "back-fall"
    assert ledger.dropped["smartfallmm-watch"] == {"copy of another trial": 2}


def test_one_recording_filed_as_a_fall_and_as_none_is_not_used_at_all(tmp_path: Path) -> None:
    for name in ("S45A02T01", "S45A11T01"):
        smartfallmm(tmp_path, f"young/accelerometer/watch/{name}.csv", watch_rows(seed=1))
    trials, ledger = load(["smartfallmm"], root=tmp_path)
    assert trials == []
    assert ledger.dropped["smartfallmm-watch"] == {"copy of another trial": 1, "filed as a fall and as none": 1}


def test_a_gyroscope_filed_as_acceleration_is_dropped(tmp_path: Path) -> None:
    rows = "".join(f"1.65844E+12,2022-07-21T15:29:00.536,{i * 0.04:.3f},90.5,-101.2,{i}\n" for i in range(100))
    smartfallmm(tmp_path, "young/accelerometer/meta_wrist/S30A09T01.csv", rows)
    trials, ledger = load(["smartfallmm"], root=tmp_path)
    assert trials == []
    assert list(ledger.dropped["smartfallmm-meta-wrist"].values()) == [1]


@pytest.mark.parametrize(
    "row",
    ["-9.57,13.50.22.969,-3.09,0.43", "2022-08-04 11:24:02.384,1.0,2.0", "2022-08-04 11:24:02.384,1,2,nan"],
)
def test_a_file_with_other_columns_is_dropped(tmp_path: Path, row: str) -> None:
    smartfallmm(tmp_path, "old/accelerometer/watch/S23A07T01.csv", watch_rows(seed=2) + row + "\n")
    trials, ledger = load(["smartfallmm"], root=tmp_path)
    assert trials == []
    assert ledger.dropped["smartfallmm-watch"] == {"columns are not those of the set": 1}


def test_a_header_left_in_is_no_row(tmp_path: Path) -> None:
    text = "epoc (ms),timestamp,elapsed (s),x-axis (g),y-axis (g),z-axis (g)\n"
    text += "".join(
        f"17217650765{i:02},2024-07-23T15:04:36,{i * 0.02:.3f},0.01,-0.02,{1 + i / 1000}\n" for i in range(99)
    )
    smartfallmm(tmp_path, "old/accelerometer/meta_hip/S01A01T01.csv", text)
    trial = only(load(["smartfallmm"], root=tmp_path)[0])
    assert (trial.placement, trial.age_group, round(trial.rate_hz)) == ("waist", "old", 50)
    assert len(trial.accel_g) == 99


def test_a_sisfall_file_is_read_as_its_first_accelerometer_in_g(tmp_path: Path) -> None:
    folder = tmp_path / "SisFall_dataset" / "SA05"
    folder.mkdir(parents=True)
    (folder / "desktop.ini").write_text("[x]")
    (folder / "F10_SA05_R05.txt").write_text("  17,-256, -11,  73,  36, -41,  41,-1025, -33;\r\n" * 800)
    trial = only(load(["sisfall"], root=tmp_path)[0])
    assert (trial.person, trial.activity, trial.is_fall, trial.placement) == ("sisfall/SA05", "F10", True, "waist")
    assert trial.accel_g[0].tolist() == pytest.approx([17 / 256, -1.0, -11 / 256])
    assert trial.duration_s == pytest.approx(4.0)


def test_hifd_gets_its_gravity_back(tmp_path: Path) -> None:
    folder = tmp_path / "HIFD" / "subject_01" / "non-fall"
    folder.mkdir(parents=True)
    zero, one = np.zeros((200, 1)), np.ones((200, 1))
    savemat(folder / "walk.mat", {"ax": zero, "ay": zero, "az": zero, "w": one, "x": zero, "y": zero, "z": zero})
    trial = only(load(["hifd"], root=tmp_path)[0])
    assert trial.accel_g[0].tolist() == [0.0, 0.0, 1.0]
    assert (trial.person, trial.activity, trial.is_fall) == ("hifd/01", "walk", False)


def test_geotec_leaves_the_phone_out(tmp_path: Path) -> None:
    folder = tmp_path / "sp-sw-har-dataset" / "DATA" / "s10"
    folder.mkdir(parents=True)
    (folder.parent / "subjects_info.csv").write_text("subject_id,age\ns10,66\n")
    text = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label\n"
    text += "".join(f"0,0,9.80665,1,1,1,{1657544592956 + i * 10},SEATED\n" for i in range(300))
    (folder / "s10_03_sw.csv").write_text(text)
    (folder / "s10_03_sp.csv").write_text(text)
    trial = only(load(["geotec"], root=tmp_path)[0])
    assert (trial.placement, trial.age_group) == ("wrist", "old")
    assert trial.accel_g[0].tolist() == pytest.approx([0, 0, 1])


def test_hmp_counts_become_g(tmp_path: Path) -> None:
    folder = tmp_path / "HMP_Dataset" / "Walk"
    folder.mkdir(parents=True)
    (folder / "Accelerometer-2011-03-24-09-51-07-walk-f1.txt").write_text("32 32 63\n" * 64)
    trial = only(load(["hmp"], root=tmp_path)[0])
    assert (trial.person, trial.range_g) == ("hmp/f1", 1.5)
    assert trial.accel_g[0].tolist() == pytest.approx([0.0238, 0.0238, 1.5], abs=1e-3)


def test_assist_iot_uses_the_tag_and_cuts_where_the_clock_steps_back(tmp_path: Path) -> None:
    folder = tmp_path / "multimodal-fall-detection-dataset" / "data" / "full_acceleration" / "stairs" / "03"
    folder.mkdir(parents=True)
    rows = ["SET|PARTICIPANT|TIMESTAMP|SOURCE|X|Y|Z|TYPE|ACTIVITY|IS_FALL"]
    for minute, activity in ((30, 6), (10, 5)):
        for i in range(400):
            stamp = f"2023-02-01 12:{minute}:{i * 8 // 1000:02}.{i * 8 % 1000:03}"
            rows.append(f"stairs|3|{stamp}|TAG|-1.0|{i / 1e4}|0.{minute}|A|{activity}|0")
            rows.append(f"stairs|3|{stamp}|WATCH_L|0.1|0.1|0.1|A|{activity}|0")
    (folder / "acceleration.csv").write_text("\n".join(rows) + "\n")
    trials, _ = load(["assist-iot"], root=tmp_path)
    assert [t.activity for t in trials] == ["stairs quickly", "stairs slowly"]
    assert [len(t.accel_g) for t in trials] == [400, 400]
    assert {t.placement for t in trials} == {"waist"}


def trial_of(accel_g: np.ndarray, *, is_fall: bool = False) -> Trial:
    return Trial(
        dataset="made-up",
        person="made-up/1",
        activity="x",
        is_fall=is_fall,
        placement="wrist",
        rate_hz=50.0,
        range_g=8.0,
        age_group="young",
        time_s=np.arange(len(accel_g)) / 50.0,
        accel_g=accel_g.astype(np.float32),
        source="x",
    )


@pytest.mark.parametrize(("scale", "n"), [(9.81, 200), (0.1, 200), (1.0, 10)])
def test_what_no_body_worn_sensor_says_is_dropped(scale: float, n: int) -> None:
    ledger = Ledger()
    assert clean([trial_of(np.tile([0.0, 0.0, scale], (n, 1)))], ledger) == []
    assert sum(ledger.dropped["made-up"].values()) == 1


def test_the_data_hash_depends_on_samples_and_labels_and_not_on_their_order() -> None:
    a, b = trial_of(np.full((100, 3), 0.5)), trial_of(np.full((100, 3), 0.6))
    assert fingerprint([a, b]) == fingerprint([b, a])
    assert fingerprint([a, b]) != fingerprint([a, trial_of(b.accel_g, is_fall=True)])


def test_an_archive_is_unpacked_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "HMP_Dataset").mkdir()
    (tmp_path / "HMP_Dataset" / "README.txt").write_text("hello")
    root = tmp_path / "archives"
    root.mkdir()
    with tarfile.open(root / "hmp-wrist-adl.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "HMP_Dataset", "HMP_Dataset")
    folder = locate("hmp", root)
    assert (folder / "README.txt").read_text() == "hello"
    before = (folder / "README.txt").stat().st_mtime_ns, folder.stat().st_ino
    assert locate("hmp", root) == folder
    assert ((folder / "README.txt").stat().st_mtime_ns, folder.stat().st_ino) == before
    assert len(list((tmp_path / "cache" / "fallwatch").iterdir())) == 1  # no scratch is left behind


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing, match=r"hmp-wrist-adl\.tar\.xz"):
        locate("hmp", tmp_path)
    monkeypatch.delenv("FALLWATCH_DATA", raising=False)
    with pytest.raises(DataMissing, match="FALLWATCH_DATA"):
        load(["hmp"])


real_data = pytest.mark.skipif(
    "FALLWATCH_DATA" not in os.environ, reason="FALLWATCH_DATA does not name a folder with the real data sets"
)


@real_data
@pytest.mark.parametrize(
    ("name", "dataset", "falls", "others"),
    [
        ("umafall", "umafall", 397, 944),
        ("smartfallmm", "smartfallmm-watch", 261, 1109),
        ("smartfallmm", "smartfallmm-meta-hip", 293, 1289),
        ("sisfall", "sisfall", 600, 632),
        ("hifd", "hifd", 103, 245),
        ("geotec", "geotec", 0, 223),
        ("hmp", "hmp", 0, 839),
        ("assist-iot", "assist-iot", 0, 16),
    ],
)
def test_the_real_set_holds_what_its_description_says(name: str, dataset: str, falls: int, others: int) -> None:
    worn = [t for t in real_trials(name) if t.dataset == dataset]
    trials = [t for t in worn if t.placement in {"wrist", "waist"}]
    assert sum(t.is_fall for t in trials) == falls
    assert sum(not t.is_fall for t in trials) == others
    assert all((np.diff(t.time_s) > 0).all() for t in trials)
    medians = [float(np.median(np.linalg.norm(t.accel_g, axis=1))) for t in trials]
    assert np.median(medians) == pytest.approx(1.0, abs=0.08)


def test_every_set_says_its_licence_and_whom_to_cite() -> None:
    assert all(s.licence and s.cite and s.archive.endswith(".tar.xz") for s in datasets.SOURCES.values())
