"""What many tests share: a network small enough to know by heart, and bundles made of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from models.card import Card, Decision
from models.preprocess import Accel
from models.scorer import Scorer

# A deadline for each example would measure the machine; pytest's own time-out ends what hangs.
hypothesis.settings.register_profile("fallwatch", deadline=None)
hypothesis.settings.load_profile("fallwatch")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests marked ``first`` first, so that none of minutes is left to the end, and ``alone`` last."""
    items.sort(key=lambda item: (item.get_closest_marker("first") is None, _is_alone(item)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    """Run a test marked ``alone`` while no other worker runs any; outside of pytest's time-out, as it waits."""
    here = Path(__file__)
    with here.open("rb") as room, here.with_name("test_house.py").open("rb") as door:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits for an empty room lets nobody else in
        fcntl.flock(room, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # whoever was forked meanwhile has a copy


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


WINDOW = 160  # samples: 5 s at 32 Hz
LEAST_FALL_G = 3.0  # a window with this peak scores 0.5
DECISION = {"threshold": 0.5, "confirm_windows": 2, "suspect_threshold": 0.4, "weigh_s": 3.0, "refractory_s": 10.0}

MakeBundle = Callable[..., Path]


def peak_probability(windows: Accel) -> NDArray[np.float32]:
    """Return what the little network says: the sigmoid of the window's peak above 3 g."""
    peak_g = np.sqrt((windows.astype(np.float32) ** 2).sum(axis=2)).max(axis=1)
    return np.asarray(1 / (1 + np.exp(LEAST_FALL_G - peak_g)), np.float32)


class PeakScorer(Scorer):
    """The little network without onnxruntime."""

    def __init__(self, card: Card) -> None:
        self.card = card

    def score(self, windows: Accel) -> NDArray[np.float32]:
        return peak_probability(windows)


@pytest.fixture(scope="session")
def peak_scorer() -> PeakScorer:
    decision = Decision(**DECISION)  # type: ignore[arg-type]  # confirm_windows is whole
    return PeakScorer(Card("peak-1", "wrist", 32.0, WINDOW, 16, 16.0, decision, "", {}))


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    return lambda name="peak-1", **changes: _write_bundle(tmp_path / name, name, **changes)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_bundle(tmp_path_factory.mktemp("models") / "peak-1", "peak-1")


def _write_bundle(folder: Path, name: str, *, external: bool = False, **card: Any) -> Path:
    """Write a bundle; ``external`` keeps a weight in a file of its own, other names change the card."""
    network, weight = _network(external=external)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(network)
    if external:
        (folder / "weight.bin").write_bytes(weight)
    facts = {
        "schema": 1,
        "name": name,
        "placement": "wrist",
        "rate_hz": 32,
        "window_samples": WINDOW,
        "hop_samples": 16,
        "clip_g": 16,
        "preprocessing": 1,
        "onnx_sha256": hashlib.sha256(network).hexdigest(),
        "decision": DECISION,
    }
    (folder / "card.json").write_text(json.dumps(facts | card))
    windows = np.random.default_rng(0).normal(0, 1, (8, WINDOW, 3)).clip(-2.4, 2.4).astype(np.float32)
    np.savez(folder / "golden.npz", windows=windows, probabilities=peak_probability(windows))
    return folder


def _network(*, external: bool) -> tuple[bytes, bytes]:
    """Return the network as ONNX, and its one weight matrix (of ones and zeros) as bytes."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415  # slow, and few tests need it

    identity = numpy_helper.from_array(np.eye(3, dtype=np.float32), "identity")
    weight = identity.raw_data
    if external:
        identity.ClearField("raw_data")
        identity.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weight.bin"), ("offset", "0"), ("length", str(len(weight)))):
            identity.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("MatMul", ["accel_g", "identity"], ["turned"]),
        helper.make_node("Mul", ["turned", "turned"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axis_xyz"], ["square"], keepdims=0),
        helper.make_node("Sqrt", ["square"], ["magnitude"]),
        helper.make_node("ReduceMax", ["magnitude", "axis_time"], ["peak"], keepdims=0),
        helper.make_node("Sub", ["peak", "least"], ["above"]),
        helper.make_node("Sigmoid", ["above"], ["probability"]),
    ]
    constants = [
        identity,
        numpy_helper.from_array(np.array([2], np.int64), "axis_xyz"),
        numpy_helper.from_array(np.array([1], np.int64), "axis_time"),
        numpy_helper.from_array(np.array(LEAST_FALL_G, np.float32), "least"),
    ]
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("accel_g", TensorProto.FLOAT, ["batch", WINDOW, 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString(), weight
