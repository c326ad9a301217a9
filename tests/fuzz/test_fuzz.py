"""Two minutes of fuzzing, shared by all decoders; ``make fuzz`` for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris has no wheel for this machine")

from tests.fuzz.__main__ import fuzz_all
from tests.fuzz.targets import TARGETS

SECONDS = 60.0  # of fuzzing, two targets at a time; starting each takes some more


@pytest.mark.parametrize("target", TARGETS)
def test_a_good_input_is_none_that_breaks(target: str) -> None:
    for seed in TARGETS[target].seeds:
        TARGETS[target].try_one(seed)


@pytest.mark.timeout(600)
def test_no_decoder_breaks_whatever_it_is_fed(tmp_path: Path) -> None:
    results = fuzz_all(list(TARGETS), SECONDS, tmp_path / "crashes")
    assert [str(result) for result in results if result.broken] == []
    assert all(result.executions > len(TARGETS[result.target].seeds) for result in results)
