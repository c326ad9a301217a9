"""The bundles in the package: what they find in the recordings of `tests/data`, and what their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.core.detector import FallDetected
from edge.core.replay import replay
from edge.recording import read_recording
from models.card import BUNDLES, newest, shipped
from models.preprocess import Accel, Times
from models.scorer import Scorer

DATA = Path(__file__).parent.parent / "data"
WRIST, WAIST = newest("wrist"), newest("waist")
ALL = [*shipped("wrist"), *shipped("waist")]  # an older one runs where a newer one is refused


@pytest.fixture(scope="module", params=ALL, ids=[folder.name for folder in ALL])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    return Scorer(request.param)  # refuses a bundle that fails its hash or golden vectors


def runs(name: str) -> list[tuple[Times, Accel]]:
    return [(run.t_s, run.accel_g) for run in read_recording(DATA / name).runs]


def falls(found: list[object]) -> list[FallDetected]:
    return [f for f in found if isinstance(f, FallDetected)]


@pytest.mark.parametrize("name", ["fall-backward-wrist.csv", "fall-forward-wrist.csv"])
def test_an_acted_fall_is_found_soon_after_its_impact(name: str) -> None:
    (fall,) = falls(list(replay(runs(name), Scorer(WRIST))))
    t_s, accel_g = runs(name)[0]
    impact_s = float(t_s[np.linalg.norm(accel_g, axis=1).argmax()])
    assert fall.impact_s == pytest.approx(impact_s, abs=0.3)
    assert 0 < fall.raised_s - impact_s < 5


@pytest.mark.parametrize("name", ["fall-backward-wrist.csv", "fall-forward-wrist.csv"])
def test_a_fall_in_the_middle_of_daily_life_is_found_too(name: str) -> None:
    day, fall = runs("bend-wrist.csv")[0], runs(name)[0]
    begin_s = float(day[0][-1]) + 0.05
    found = falls(list(replay([day, (fall[0] + begin_s, fall[1])], Scorer(WRIST))))
    assert [f.impact_s > begin_s for f in found] == [True]


@pytest.mark.parametrize("name", ["bend-wrist.csv", "walk-wrist.csv", "sit-wrist.csv", "stairs-waist.csv"])
def test_daily_life_raises_no_alarm(name: str) -> None:
    assert falls(list(replay(runs(name), Scorer(WAIST if "waist" in name else WRIST)))) == []


def test_an_hour_on_a_table_raises_no_alarm(scorer: Scorer) -> None:
    rng = np.random.default_rng(0)
    t_s = np.arange(3600 * 25) / 25
    accel_g = (np.array([0.0, 0.0, 1.0]) + rng.normal(0, 0.01, (len(t_s), 3))).astype(np.float32)
    assert falls(list(replay([(t_s, accel_g)], scorer))) == []


def test_the_card_says_what_the_weights_were_made_from_and_how_well_they_did(scorer: Scorer) -> None:
    facts = scorer.card.facts
    assert BUNDLES / facts["name"] in ALL
    assert all(s["licence_as_found"] and len(s["sha256"]) == 64 for s in facts["training"]["sets"])
    assert facts["parity_to_torch"] <= 1e-4
    for kinds in facts["results"]["by_set"].values():
        assert {"falls", "detected", "false_alarms_per_hour", "daily_hours"} <= set(kinds["streams"])
        assert kinds["streams"]["false_alarms_per_hour_at_most_95"] > 0
    assert 20 < len(facts["results"]["by_person"]) <= facts["training"]["people"]
    text = json.dumps(facts)
    assert not any(place in text for place in ("/home", "/root", "/tmp", "/Users"))


def test_the_bundle_is_four_small_files(scorer: Scorer) -> None:
    folder = BUNDLES / scorer.card.name
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "card.md", "golden.npz", "model.onnx"]
    assert (folder / "model.onnx").stat().st_size < 600_000


def test_the_page_for_clinicians_is_made_from_the_card(scorer: Scorer) -> None:
    card_text = pytest.importorskip("training.card_text", reason="the training extra is not installed")
    page = (BUNDLES / scorer.card.name / "card.md").read_text(encoding="utf-8")
    assert page == card_text.readable(scorer.card)
    assert "not a medical diagnosis" in page
