"""One reader per public set: its own layout in, `Trial`s out.

Each reader knows the traps of its set; what holds for all sets is done in `training.datasets`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from models.preprocess import Accel, Times, respace

STANDARD_GRAVITY = 9.80665
OLD_FROM = 60  # years
ONSET_S = 2.0  # a fall begins at most so long before its impact
NEAR_LARGEST = 0.6  # of the largest |a| above 1 g
Drop: TypeAlias = Callable[[str, str], None]  # data set, reason


@dataclass(frozen=True, slots=True)
class Trial:
    """One recording of one person; a step above 1 s in ``time_s`` is a hole in it."""

    dataset: str
    person: str  # unique over all sets
    activity: str
    is_fall: bool
    placement: str  # wrist, waist, chest, ankle
    rate_hz: float  # nominal
    range_g: float
    age_group: str  # young, old
    time_s: Times  # shape (n,), rising, evenly spaced between holes
    accel_g: Accel  # shape (n, 3), float32, g, gravity included
    source: str  # path inside the set

    @property
    def duration_s(self) -> float:
        """From the first sample to one period past the last."""
        return float(self.time_s[-1] - self.time_s[0]) + 1 / self.rate_hz if len(self.time_s) else 0.0

    @property
    def impact_s(self) -> float | None:
        """When a fall hit the ground; no set labels it, so this is an estimate.

        The largest |a|; in trials cut by hand the first moment that comes near it (`NEAR_LARGEST`), because
        there the largest may be the getting up.
        """
        if not self.is_fall:
            return None
        shock_g = np.linalg.norm(self.accel_g, axis=1) - 1.0
        enough_g = NEAR_LARGEST * shock_g.max() if self.is_cut_by_hand else shock_g.max()
        return float(self.time_s[int(np.argmax(shock_g >= enough_g))])

    @property
    def onset_s(self) -> float:
        """Before when an alarm cannot be about the fall: `ONSET_S` before the impact.

        The start of a trial cut by hand, whose impact may lie outside what is left of it.
        """
        first_s = float(self.time_s[0])
        return first_s if self.is_cut_by_hand else max(first_s, (self.impact_s or 0.0) - ONSET_S)

    @property
    def is_cut_by_hand(self) -> bool:
        """Cut by hand around the activity, not always well."""
        return self.dataset.startswith("smartfallmm")


def even_times(count: int, rate_hz: float) -> Times:
    """Return sample times where only the rate can be trusted."""
    return np.arange(count, dtype=np.float64) / rate_hz


def spaced(arrival_s: Times, rate_hz: float | None = None) -> Times:
    """Return arrival times re-spaced as the daemon does it, from zero, rising over the holes."""
    runs = respace(arrival_s - arrival_s[0], rate_hz)
    return np.concatenate([times for _, _, times in runs])


# -- UMAFall ---------------------------------------------------------------------------------------

_UMAFALL_NAME = re.compile(r"UMAFall_Subject_(\d+)_(ADL|Fall)_(\w+?)_(\d+)_\d{4}-")


def read_umafall(folder: Path, drop: Drop) -> Iterator[Trial]:
    """Read SensorTags at about 20 Hz over BLE; which sensor is worn where is in each file's header."""
    for path in sorted(folder.glob("*.csv")):
        name = _UMAFALL_NAME.match(path.name)
        if name is None:
            drop("umafall", "file name of no trial")
            continue
        lines = [line.rstrip("; ") for line in path.read_text(errors="replace").splitlines()]
        worn, age = {}, 0
        for line in lines:
            fields = [f.strip() for f in line.lstrip("%").split(";")]
            if line.startswith("%") and len(fields) >= 4 and fields[3] == "SensorTag":
                worn[fields[2].lower()] = fields[1]
            if line.startswith("% Age"):
                age = int(re.sub(r"\D", "", line) or 0)
        rows = [line.split(";") for line in lines if line[:1].isdigit()]
        if any(value.count(".") > 1 for row in rows for value in row):
            # Decimal points became thousands dots in a spreadsheet: the scale of the values is lost.
            drop("umafall", "spreadsheet dots in the numbers (Subject 13)")
            continue
        for placement in ("wrist", "waist", "chest", "ankle"):
            of = [row for row in rows if len(row) == 7 and row[6] == worn.get(placement) and row[5] == "0"]
            if len(of) < 20:
                drop("umafall", f"no {placement} samples")
                continue
            table = np.array([[float(v) for v in (row[0], *row[2:5])] for row in of])
            table = table[np.argsort(table[:, 0], kind="stable")]
            yield Trial(
                dataset="umafall",
                person=f"umafall/{name[1]}",
                activity=name[3],
                is_fall=name[2] == "Fall",
                placement=placement,
                rate_hz=20.0,
                range_g=8.0,
                age_group="old" if age >= OLD_FROM else "young",
                time_s=spaced(table[:, 0] / 1000, 20.0),
                accel_g=table[:, 1:].astype(np.float32),
                source=path.name,
            )


# -- SmartFallMM -----------------------------------------------------------------------------------

_SMARTFALLMM_NAME = re.compile(r"(S\d+)A(\d+)T(\d+)")
_SMARTFALLMM_ACTIVITIES = (
    *("", "drink", "pick-up", "jacket", "step-up", "sweep", "wash-hands", "wave", "walk", "sit-stand"),
    *("back-fall", "front-fall", "left-fall", "right-fall", "rotate-fall"),
)
_SMARTFALLMM_SENSORS = {"watch": ("wrist", 8.0), "meta_wrist": ("wrist", 2.0), "meta_hip": ("waist", 2.0)}


def read_smartfallmm(folder: Path, drop: Drop) -> Iterator[Trial]:
    """Read a watch at about 33 Hz whose uploads came in disorder, and two +-2 g sensors at 25 or 50 Hz."""
    for age_group in ("young", "old"):
        for sensor, (placement, range_g) in _SMARTFALLMM_SENSORS.items():
            dataset = f"smartfallmm-{sensor.replace('_', '-')}"
            for path in sorted((folder / age_group / "accelerometer" / sensor).glob("*.csv")):
                name = _SMARTFALLMM_NAME.match(path.name)
                table = _smartfallmm_table(path, watch=sensor == "watch")
                if name is None or table is None:
                    drop(dataset, "columns are not those of the set")
                    continue
                table = _in_order(table, values_repeat=sensor != "watch")
                time_s, accel_g = (
                    _spread(table[:, 0]),
                    table[:, 1:] / (STANDARD_GRAVITY if sensor == "watch" else 1.0),
                )
                rate_hz = 1 / max(float(np.median(np.diff(time_s))), 1e-3)
                if not 20.0 <= rate_hz <= 150.0:
                    drop(dataset, "clock of no use")
                    continue
                activity = int(name[2])
                yield Trial(
                    dataset=dataset,
                    person=f"smartfallmm/{name[1]}",
                    activity=_SMARTFALLMM_ACTIVITIES[activity],
                    is_fall=activity >= 10,
                    placement=placement,
                    rate_hz=rate_hz,
                    range_g=range_g,
                    age_group=age_group,
                    time_s=time_s,
                    accel_g=accel_g.astype(np.float32),
                    source=str(path.relative_to(folder)),
                )


def _smartfallmm_table(path: Path, *, watch: bool) -> NDArray[np.float64] | None:
    """Return time x y z; None where a data row has another shape."""
    rows = []
    with path.open(newline="", errors="replace") as file:
        for fields in csv.reader(file):
            if not any(fields) or not any(c.isdigit() for c in fields[0]):
                continue  # blank, or a header left in
            if len(fields) != (4 if watch else 6):
                return None
            try:
                time_s = _clock_s(fields[0]) if watch else float(fields[2])
                rows.append([time_s, *(float(v) for v in fields[-3:])])
            except ValueError:
                return None
    table = np.array(rows, np.float64)
    return table if len(table) >= 2 and np.isfinite(table).all() else None


def _clock_s(text: str) -> float:
    """Return the seconds of a watch's date and time, or of its time alone."""
    when = datetime.fromisoformat(text if "-" in text else f"2000-01-01 {text}")
    return when.replace(tzinfo=UTC).timestamp()


def _in_order(table: NDArray[np.float64], *, values_repeat: bool) -> NDArray[np.float64]:
    """Undo what uploads did: sent twice, out of order, leftovers of minutes before.

    The watch resolves so finely that a sample never repeats by itself; the others' do. By its count a watch
    trial of S43 to S46 would last a minute; put in order it lasts as long as the other sensors say, with the
    impact where they have it.
    """
    table = table[np.argsort(table[:, 0], kind="stable")]
    _, first = np.unique(table if values_repeat else table[:, 1:], axis=0, return_index=True)
    table = table[np.sort(first)]
    pieces = np.split(table, np.flatnonzero(np.diff(table[:, 0]) > 5.0) + 1)
    return max(pieces, key=len)


def _spread(arrival_s: Times) -> Times:
    """Return even times between holes of a second.

    The daemon's re-spacing is made for streams; these uploads come in pairs, threes and worse.
    """
    runs = np.split(arrival_s - arrival_s[0], np.flatnonzero(np.diff(arrival_s) > 1.0) + 1)
    longest = max(runs, key=len)
    usual_s = max(float(longest[-1] - longest[0]) / max(len(longest) - 1, 1), 1e-3)
    steps_s = [(run[-1] - run[0]) / (len(run) - 1) if len(run) > 20 else usual_s for run in runs]
    return np.concatenate(
        [run[0] + np.arange(len(run)) * step_s for run, step_s in zip(runs, steps_s, strict=True)]
    )


# -- SisFall ---------------------------------------------------------------------------------------


def read_sisfall(folder: Path, drop: Drop) -> Iterator[Trial]:
    """Read the ADXL345 (+-16 g, 13 bits) of a 200 Hz device on the waist; SE people are old."""
    for path in sorted(folder.glob("S[AE]*/[DF]??_S*.txt")):
        code, person, _ = path.stem.split("_")
        text = path.read_text(errors="replace").replace(";", " ").replace(",", " ")
        values = np.array(text.split(), np.float64)
        if len(values) == 0 or len(values) % 9:
            drop("sisfall", "rows are not of 9 columns")
            continue
        accel_g = values.reshape(-1, 9)[:, :3] * (32 / 8192)
        yield Trial(
            dataset="sisfall",
            person=f"sisfall/{person}",
            activity=code,
            is_fall=code.startswith("F"),
            placement="waist",
            rate_hz=200.0,
            range_g=16.0,
            age_group="old" if person.startswith("SE") else "young",
            time_s=even_times(len(accel_g), 200.0),
            accel_g=accel_g.astype(np.float32),
            source=str(path.relative_to(folder)),
        )


# -- HIFD ------------------------------------------------------------------------------------------


def read_hifd(folder: Path, drop: Drop) -> Iterator[Trial]:  # noqa: ARG001
    """Read a wrist device that took gravity out; it is put back along its own quaternion.

    Which way the quaternion turns is not documented; the way taken here leaves |a| of walking nearest
    to 1 g on average (1.07 g, the other way 0.85 g), which is no proof. A stress set, reported apart.
    """
    for path in sorted(folder.glob("subject_*/*fall/*.mat")):
        mat = loadmat(path)
        accel_g = np.hstack([mat[axis] for axis in ("ax", "ay", "az")]).astype(np.float64)
        w, x, y, z = (mat[axis].ravel().astype(np.float64) for axis in "wxyz")
        gravity = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), w * w - x * x - y * y + z * z], axis=1)
        gravity /= np.maximum(np.linalg.norm(gravity, axis=1, keepdims=True), 1e-6)
        yield Trial(
            dataset="hifd",
            person=f"hifd/{path.parts[-3].removeprefix('subject_')}",
            activity=path.stem,
            is_fall=path.parent.name == "fall",
            placement="wrist",
            rate_hz=50.0,
            range_g=16.0,
            age_group="young",
            time_s=even_times(len(accel_g), 50.0),
            accel_g=(accel_g + gravity).astype(np.float32),
            source=str(path.relative_to(folder)),
        )


# -- GeoTec ----------------------------------------------------------------------------------------


def read_geotec(folder: Path, drop: Drop) -> Iterator[Trial]:
    """Read a watch at about 104 Hz: rise, walk, turn, walk, sit. The phone, worn elsewhere, is left out."""
    with (folder / "DATA" / "subjects_info.csv").open(newline="") as file:
        ages = {row["subject_id"]: int(row["age"]) for row in csv.DictReader(file)}
    for path in sorted(folder.glob("DATA/s*/s*_sw.csv")):
        with path.open(newline="") as file:
            columns = ("timestamp", "x_acc", "y_acc", "z_acc")
            rows = [[float(row[k]) for k in columns] for row in csv.DictReader(file)]
        if len(rows) < 2:
            drop("geotec", "empty")
            continue
        table, person = np.array(rows), path.parent.name
        yield Trial(
            dataset="geotec",
            person=f"geotec/{person}",
            activity="rise-walk-sit",
            is_fall=False,
            placement="wrist",
            rate_hz=104.0,
            range_g=8.0,
            age_group="old" if ages[person] >= OLD_FROM else "young",
            time_s=spaced(table[:, 0] / 1000),
            accel_g=(table[:, 1:] / STANDARD_GRAVITY).astype(np.float32),
            source=str(path.relative_to(folder)),
        )


# -- HMP -------------------------------------------------------------------------------------------


def read_hmp(folder: Path, drop: Drop) -> Iterator[Trial]:
    """Read a wrist sensor of 6 bits and +-1.5 g at 32 Hz: daily movements only."""
    for path in sorted(folder.glob("*/Accelerometer-*.txt")):
        values = np.array(path.read_text().split(), np.float64)
        if len(values) == 0 or len(values) % 3:
            drop("hmp", "rows are not of 3 columns")
            continue
        accel_g = -1.5 + 3.0 * values.reshape(-1, 3) / 63.0
        yield Trial(
            dataset="hmp",
            person=f"hmp/{path.stem.rpartition('-')[2]}",
            activity=path.parent.name.lower(),
            is_fall=False,
            placement="wrist",
            rate_hz=32.0,
            range_g=1.5,
            age_group="young",
            time_s=even_times(len(accel_g), 32.0),
            accel_g=accel_g.astype(np.float32),
            source=str(path.relative_to(folder)),
        )


# -- ASSIST-IoT ------------------------------------------------------------------------------------


def read_assist_iot(folder: Path, drop: Drop) -> Iterator[Trial]:
    """Read a belt tag at about 125 Hz on stairs; the two watches are wrongly scaled and left out."""
    for path in sorted(folder.glob("data/full_acceleration/*/*/acceleration.csv")):
        times, accel, labels = [], [], []
        with path.open(newline="") as file:
            for row in csv.DictReader(file, delimiter="|"):
                if row["SOURCE"] == "TAG" and row["TYPE"] == "A":
                    when = datetime.fromisoformat(row["TIMESTAMP"]).replace(tzinfo=UTC)
                    times.append(when.timestamp())
                    accel.append([float(row[axis]) for axis in "XYZ"])
                    labels.append((row["ACTIVITY"], row["IS_FALL"] == "1"))
        drop("assist-iot", "two watches with wrong scale, 10 Hz")
        arrival_s = np.array(times)
        changed = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
        cuts = sorted({0, *(np.flatnonzero(np.abs(np.diff(arrival_s)) > 1.0) + 1).tolist(), *changed, len(labels)})
        for start, stop in pairwise(cuts):
            activity, is_fall = labels[start]
            yield Trial(
                dataset="assist-iot",
                person=f"assist-iot/{path.parent.name}",
                activity={"5": "stairs slowly", "6": "stairs quickly"}.get(activity, activity),
                is_fall=is_fall,
                placement="waist",
                rate_hz=125.0,
                range_g=16.0,
                age_group="young",
                time_s=spaced(np.maximum.accumulate(arrival_s[start:stop])),
                accel_g=np.array(accel[start:stop], np.float32),
                source=f"{path.relative_to(folder)}#{activity}",
            )
