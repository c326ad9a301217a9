"""A model bundle's card: what the model expects, how it decides, what it was made from."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle import BUNDLES, BundleRefused, newest, shipped
from models.preprocess import PREPROCESSING_VERSION

__all__ = ["BUNDLES", "BundleRefused", "Card", "Decision", "newest", "read_card", "shipped"]

CARD_SCHEMA = 1
ACCELERATION = ("x_g", "y_g", "z_g")


@dataclass(frozen=True, slots=True)
class Decision:
    """From scores to alarms; every figure was fixed on people outside the test."""

    threshold: float  # a window at or above this speaks for a fall
    confirm_windows: int  # so many such windows within weigh_s raise the alarm
    suspect_threshold: float  # at or above this a fall is being weighed
    weigh_s: float  # how long a suspicion is weighed before it is dropped
    refractory_s: float  # one event, one alarm: windows this close belong to the last alarm
    still_g: float = 0.05  # standard deviation of |a| over 2 s below which somebody lies still
    long_lie_still_s: float = 90.0  # a weighed suspicion followed by so long a stillness alarms as a long lie


@dataclass(frozen=True, slots=True)
class Card:
    """What the daemon needs to know of a bundle; ``facts`` holds the whole card as written."""

    name: str
    placement: str
    rate_hz: float
    window_samples: int
    hop_samples: int
    clip_g: float  # infinite where the input is no acceleration
    decision: Decision
    onnx_sha256: str
    facts: dict[str, Any]
    features: tuple[str, ...] = ACCELERATION  # what each sample holds

    @property
    def window_s(self) -> float:
        """Length of one window in seconds."""
        return self.window_samples / self.rate_hz


def read_card(folder: Path) -> Card:
    """Read and check ``card.json`` and the ONNX file's hash.

    Raises:
        BundleRefused: a file is missing, the schema or preprocessing version is another, a value is
            missing or wrong, or the ONNX file is not the one the card describes.
    """
    try:
        facts = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        onnx_sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    except OSError as error:
        raise BundleRefused(folder, f"{error.filename} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BundleRefused(folder, f"card.json is no JSON: {error}") from None
    try:
        if facts["schema"] != CARD_SCHEMA:
            raise BundleRefused(folder, f"card schema {facts['schema']} is not {CARD_SCHEMA}: update fallwatch")
        if facts["preprocessing"] != PREPROCESSING_VERSION:
            raise BundleRefused(
                folder, f"was made for preprocessing {facts['preprocessing']}, this is {PREPROCESSING_VERSION}"
            )
        if facts["onnx_sha256"] != onnx_sha256:
            raise BundleRefused(folder, "model.onnx is not the file the card was written for (SHA-256 differs)")
        card = Card(
            name=str(facts["name"]),
            placement=str(facts["placement"]),
            rate_hz=float(facts["rate_hz"]),
            window_samples=int(facts["window_samples"]),
            hop_samples=int(facts["hop_samples"]),
            clip_g=float(facts["clip_g"]) if "features" not in facts else math.inf,
            decision=Decision(**facts["decision"]),
            onnx_sha256=onnx_sha256,
            facts=facts,
            features=tuple(map(str, facts.get("features", ACCELERATION))),
        )
        wrong = _wrong_values(card)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleRefused(folder, f"card.json: {error!r}") from None
    if wrong:
        raise BundleRefused(folder, f"card.json: out of range: {', '.join(wrong)}")
    return card


def _wrong_values(card: Card) -> list[str]:
    decision = card.decision
    within = {
        "placement": card.placement in {"wrist", "waist", "camera"},
        "rate_hz": 1 <= card.rate_hz <= 1000,
        "window_samples": 1 <= card.window_samples <= 100_000,
        "hop_samples": 1 <= card.hop_samples <= card.window_samples,
        "clip_g": 0 < card.clip_g <= 1000 or card.placement == "camera",
        "features": (len(card.features) == 3) is (card.placement != "camera"),
        "threshold": 0 < decision.threshold < 1,
        "suspect_threshold": 0 < decision.suspect_threshold <= decision.threshold,
        "confirm_windows": decision.confirm_windows >= 1,
        "weigh_s": 0 < decision.weigh_s <= 3600,
        "refractory_s": 0 <= decision.refractory_s <= 3600,
        "still_g": 0 <= decision.still_g <= 1,
        "long_lie_still_s": 0 < decision.long_lie_still_s <= 3600,
    }
    return [name for name, ok in within.items() if not ok]
