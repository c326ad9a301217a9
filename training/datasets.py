"""The public recordings: where they are, what is used, what is dropped and why.

Folders or archives are looked for in the folder named by ``FALLWATCH_DATA``; an archive is unpacked
once, to ``$XDG_CACHE_HOME/fallwatch``.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from training import readers
from training.readers import Drop, Trial

MIN_S = 1.5  # shorter than an impact and what follows it
MEDIAN_G = (0.5, 2.5)  # the median |a| of a body-worn accelerometer lies within; hopping goes down to 0.57
MOST_G = 20.0  # on one axis; no device of these sets measures more


class DataMissing(Exception):
    """Training data is not where ``FALLWATCH_DATA`` points."""


@dataclass(frozen=True, slots=True)
class Source:
    """One public set."""

    archive: str
    folder: str
    licence: str  # as found in the copy
    cite: str
    read: Callable[[Path, Drop], Iterator[Trial]]


SOURCES: dict[str, Source] = {
    "umafall": Source(
        "umafall.tar.xz",
        "UMAFall_Dataset",
        "none stated in the copy; its university offers it for free download to evaluate fall detectors",
        "Casilari et al., Procedia Computer Science 110 (2017) 32-39",
        readers.read_umafall,
    ),
    "smartfallmm": Source(
        "smartfallmm-acc.tar.xz",
        "SmartFallMM-Dataset",
        "none stated in the copy",
        "SmartFallMM: A Multimodal Dataset Collected with Commodity Devices",
        readers.read_smartfallmm,
    ),
    "sisfall": Source(
        "sisfall-SA01-08.tar.xz",
        "SisFall_dataset",
        "none stated in the copy",
        "Sucerquia, López, Vargas-Bonilla: SisFall, Universidad de Antioquia (2016); people SA01 to SA08",
        readers.read_sisfall,
    ),
    "hifd": Source(
        "hifd.tar.xz",
        "HIFD",
        "none stated in the copy",
        "Nho, Lim, Kwon: HIFD, IEEE Access (2020)",
        readers.read_hifd,
    ),
    "geotec": Source(
        "geotec-sp-sw-har.tar.xz",
        "sp-sw-har-dataset",
        "CC BY 4.0",
        "Matey-Sanz, Casteleyn, Granell: Data in Brief (2023) 109809",
        readers.read_geotec,
    ),
    "hmp": Source(
        "hmp-wrist-adl.tar.xz",
        "HMP_Dataset",
        "research use; commercial application or redistribution has to be arranged",
        "Bruno, Mastrogiovanni, Sgorbissa, Vernazza, Zaccaria: ICRA (2013) 1602-1607",
        readers.read_hmp,
    ),
    "assist-iot": Source(
        "assist-iot-stairs.tar.xz",
        "multimodal-fall-detection-dataset",
        "CC BY 4.0",
        "Danilenka et al.: Multimodal fall detection dataset, doi:10.5281/zenodo.8340378 (stairs only)",
        readers.read_assist_iot,
    ),
}


@dataclass(slots=True)
class Ledger:
    """What was dropped from each set, counted by reason."""

    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def drop(self, dataset: str, reason: str) -> None:
        """Count one trial that is not used."""
        self.dropped.setdefault(dataset, Counter())[reason] += 1


def data_root() -> Path:
    """Return the folder that ``FALLWATCH_DATA`` names.

    Raises:
        DataMissing: the variable is not set or names no folder.
    """
    named = os.environ.get("FALLWATCH_DATA")
    if not named or not Path(named).is_dir():
        raise DataMissing("set FALLWATCH_DATA to the folder with the data sets or their .tar.xz archives")
    return Path(named)


def load(names: Iterable[str] = SOURCES, *, root: Path | None = None) -> tuple[list[Trial], Ledger]:
    """Read and clean the named sets.

    Raises:
        DataMissing: a set is neither unpacked nor archived in the data folder.
    """
    ledger = Ledger()
    trials: list[Trial] = []
    for name in names:
        trials += clean(SOURCES[name].read(locate(name, root or data_root()), ledger.drop), ledger)
    return trials, ledger


def clean(trials: Iterable[Trial], ledger: Ledger) -> list[Trial]:
    """Drop trials that are no acceleration of a person, or copies of one kept before."""
    kept: dict[bytes, Trial] = {}
    disputed: set[bytes] = set()
    for trial in trials:
        reason = _unusable(trial)
        if reason:
            ledger.drop(trial.dataset, reason)
            continue
        key = hashlib.sha256(trial.accel_g.tobytes()).digest()
        if key not in kept:
            kept[key] = trial
            continue
        ledger.drop(trial.dataset, "copy of another trial")
        if kept[key].is_fall != trial.is_fall:
            disputed.add(key)
    for key in disputed:
        ledger.drop(kept.pop(key).dataset, "filed as a fall and as none")
    return list(kept.values())


def _unusable(trial: Trial) -> str | None:
    if trial.duration_s < MIN_S:
        return f"shorter than {MIN_S} s"
    median_g = float(np.median(np.linalg.norm(trial.accel_g, axis=1)))
    if not MEDIAN_G[0] <= median_g <= MEDIAN_G[1] or float(np.abs(trial.accel_g).max()) > MOST_G:
        return "no acceleration in g (gyroscope, wrong column, damaged row)"
    return None


def locate(name: str, root: Path) -> Path:
    """Return the folder of a set, unpacking its archive into the cache when needed.

    Raises:
        DataMissing: neither folder nor archive is there.
    """
    source = SOURCES[name]
    if (root / source.folder).is_dir():
        return root / source.folder
    archive = root / source.archive
    if not archive.is_file():
        raise DataMissing(f"{name}: neither {source.folder}/ nor {source.archive} in {root}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fallwatch"
    unpacked = cache / f"{archive.name}-{archive.stat().st_size}"
    if not unpacked.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch, tarfile.open(archive) as tar:
            tar.extractall(Path(scratch) / "x", filter="data")
            try:
                (Path(scratch) / "x").rename(unpacked)  # whole or not at all
            except OSError:
                if not unpacked.is_dir():  # another process was first
                    raise
    return unpacked / source.folder


def fingerprint(trials: Iterable[Trial]) -> str:
    """Return a SHA-256 over the samples and labels of trials, whatever their order."""
    digests = sorted(
        hashlib.sha256(f"{t.dataset} {t.person} {t.activity} {t.is_fall}".encode() + t.accel_g.tobytes()).digest()
        for t in trials
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def summary(trials: list[Trial], ledger: Ledger) -> Table:
    """Return a table of what is used and what is not."""
    table = Table("set", "people", "falls", "other trials", "hours fall / other", "dropped and why")
    for dataset in sorted({t.dataset for t in trials} | set(ledger.dropped)):
        of = [t for t in trials if t.dataset == dataset]
        falls, others = [t for t in of if t.is_fall], [t for t in of if not t.is_fall]
        dropped = "\n".join(f"{n} {reason}" for reason, n in sorted(ledger.dropped.get(dataset, {}).items()))
        hours = " / ".join(f"{sum(t.duration_s for t in part) / 3600:.2f}" for part in (falls, others))
        people = str(len({t.person for t in of}))
        table.add_row(dataset, people, str(len(falls)), str(len(others)), hours, dropped)
    return table
