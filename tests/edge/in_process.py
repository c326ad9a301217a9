"""The command line in this process: quick, and the environment is as before when it ends."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from edge.cli import main


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[Any, str, str]:
    """Return status, standard output and standard error of ``fallwatch`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["fallwatch", *map(str, arguments)])
    capsys.readouterr()
    before = dict(os.environ)
    try:
        main()
        status: Any = 0
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        os.environ.clear()
        os.environ.update(before)
    return status, *capsys.readouterr()
