"""Try a bundle in a process of its own: what it costs, and how it breaks, stays there.

``python -m models.selftest FOLDER`` writes one line of JSON, ``{"name": ...}`` or ``{"refused": ...}``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from models.bundle import BundleRefused

MOST_OCTETS = 1 << 30  # of addresses; a shipped bundle and the libraries take less than a third of that
MOST_CPU_S = 20
MOST_S = 60.0


def selftest(folder: Path) -> None:
    """Read a bundle's card and run its golden vectors, as a service will, in a child with limits.

    Raises:
        BundleRefused: it must not run, or it broke off.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-m", "models.selftest", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603  # this very program
            command, env=environment, capture_output=True, timeout=MOST_S, check=False, stdin=subprocess.DEVNULL
        )
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise BundleRefused(folder, f"took longer than {MOST_S:.0f} s over its golden vectors") from None
    except ValueError:
        raise BundleRefused(folder, f"broke off over its golden vectors (status {done.returncode})") from None
    if "refused" in told:
        raise BundleRefused(folder, told["refused"])


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_OCTETS, MOST_OCTETS))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from models.scorer import Scorer  # noqa: PLC0415  # within the limits

    try:
        told = {"name": Scorer(Path(sys.argv[1])).card.name}
    except BundleRefused as error:
        told = {"refused": error.reason}
    except MemoryError:
        told = {"refused": "takes too much memory"}
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    _main()
