"""Fuzz decoders, guided by what of them is reached.

``python -m tests.fuzz SECONDS`` runs all targets, two at a time, and ends with 1 if one of them broke;
``python -m tests.fuzz TARGET [FILE | libFuzzer options]`` runs one, or what broke it once more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CRASHES = ROOT / "fuzz-crashes"
AT_A_TIME = 2
PRODUCT = ["edge", "firmware_bridge", "models"]
_TALLY = 16  # octets: how often, how many octets


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What came of one target."""

    target: str
    executions: int
    octets: int
    broken: str  # what the fuzzer said at the end, if it is broken
    crash: Path | None

    def __str__(self) -> str:
        told = f"{self.target:14} {self.executions:>11} runs {self.octets:>13} octets"
        return told + (f"  BROKEN: {self.crash}\n{self.broken}" if self.broken else "  0 crashes")


def fuzz(target: str, seconds: float, crashes: Path = CRASHES) -> Fuzzed:
    """Fuzz one target in a process of its own for so long."""
    with tempfile.NamedTemporaryFile() as tally:
        tally.write(bytes(_TALLY))
        tally.flush()
        command = [sys.executable, "-m", "tests.fuzz", target, f"-max_total_time={max(round(seconds), 1)}"]
        command += [f"-artifact_prefix={crashes}/{target}-", "-timeout=20", "-rss_limit_mb=1500", "-verbosity=0"]
        crashes.mkdir(parents=True, exist_ok=True)
        before = set(crashes.iterdir())
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "FALLWATCH_FUZZ_TALLY": tally.name},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 120,
            check=False,
        )
        told = Path(tally.name).read_bytes()
    executions, octets = int.from_bytes(told[:8], "little"), int.from_bytes(told[8:], "little")
    new = sorted(set(crashes.iterdir()) - before)
    broken = "" if done.returncode == 0 and executions else _why(done.stdout + done.stderr)
    return Fuzzed(target, executions, octets, broken, new[0] if new else None)


def _why(told: str) -> str:
    """Return the traceback if there is one, else the end of what the fuzzer said."""
    _, uncaught, traceback = told.partition("Uncaught Python exception")
    return "\n".join(traceback.splitlines()[:40] if uncaught else told.splitlines()[-30:])


def fuzz_all(targets: list[str], seconds: float, crashes: Path = CRASHES) -> list[Fuzzed]:
    """Fuzz all targets within about ``seconds``, some at a time."""
    each_s = seconds * AT_A_TIME / len(targets)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda target: fuzz(target, each_s, crashes), targets))


def run_one(target: str, options: list[str]) -> None:
    """Fuzz in this process, which ends with it."""
    import atheris  # noqa: PLC0415  # it has no wheel for every machine

    with atheris.instrument_imports(include=PRODUCT):
        from tests.fuzz.targets import TARGETS, WORKSHOP  # noqa: PLC0415

    chosen = TARGETS[target]
    path = os.environ.get("FALLWATCH_FUZZ_TALLY")
    tally = None
    if path:
        with Path(path).open("r+b") as file:
            tally = mmap(file.fileno(), _TALLY)
    executions = octets = 0

    def try_one(data: bytes) -> None:
        nonlocal executions, octets
        executions += 1
        octets += len(data)
        if tally is not None:
            tally[:] = executions.to_bytes(8, "little") + octets.to_bytes(8, "little")
        chosen.try_one(data)

    corpus = Path(tempfile.mkdtemp(prefix="fallwatch-corpus-"))
    for i, seed in enumerate(chosen.seeds):
        (corpus / str(i)).write_bytes(seed)
    replays = any(not option.startswith("-") for option in options)
    where = [] if replays else [str(corpus)]
    try:
        atheris.Setup([sys.argv[0], f"-max_len={chosen.longest}", *options, *where], try_one)
        atheris.Fuzz()
    finally:
        shutil.rmtree(corpus, ignore_errors=True)
        shutil.rmtree(WORKSHOP, ignore_errors=True)


def main() -> int:
    """Run what the command line names; return the exit status."""
    try:
        import atheris  # noqa: F401, PLC0415
    except ImportError:
        sys.stdout.write("atheris is not installed: it has no wheel for this machine\n")
        return 0
    what, options = sys.argv[1], sys.argv[2:]
    if not what.replace(".", "").isdigit():
        run_one(what, options)
        return 0
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    results = fuzz_all(list(TARGETS), float(what))
    for result in results:
        sys.stdout.write(f"{result}\n")
    total = sum(result.octets for result in results)
    sys.stdout.write(f"{len(results)} targets, {sum(r.executions for r in results)} runs, {total} octets\n")
    return int(any(result.broken for result in results))


if __name__ == "__main__":
    sys.exit(main())
