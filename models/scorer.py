"""Run a bundle's network: batches of windows in, probabilities out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.card import BundleRefused, Card, read_card
from models.preprocess import Accel

GOLDEN_TOLERANCE = 1e-3


class Scorer:
    """One ONNX session on one thread; refuses a bundle that fails its own golden vectors."""

    def __init__(self, folder: Path) -> None:
        self.card: Card = read_card(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # The card's hash covers the ONNX file alone, so weights in other files are looked for where none can be.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
        try:
            self._session = ort.InferenceSession(
                (folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises many kinds; each means the same to us
            raise BundleRefused(folder, f"onnxruntime cannot load it: {error}") from None
        self._input = self._session.get_inputs()[0].name
        self._check_golden(folder)

    def score(self, windows: Accel) -> NDArray[np.float32]:
        """Return the probability of a fall for each window.

        Args:
            windows: shape (batch, window_samples, features), float32, at the card's rate; for wearables in g, axes
                x y z.

        Returns:
            Shape (batch,), float32, 0 to 1.
        """
        if len(windows) == 0:
            return np.empty(0, np.float32)
        clipped = np.clip(windows, -self.card.clip_g, self.card.clip_g)
        (probability,) = self._session.run(None, {self._input: clipped})
        return np.asarray(probability, np.float32).reshape(-1)

    def _check_golden(self, folder: Path) -> None:
        try:
            with (folder / "golden.npz").open("rb") as file, np.load(file, allow_pickle=False) as golden:
                windows, wanted = golden["windows"], golden["probabilities"]
        except Exception as error:  # numpy, zipfile and zlib raise many kinds
            raise BundleRefused(folder, f"golden.npz cannot be read: {error!r}") from None
        wanted_shape = (len(wanted), self.card.window_samples, len(self.card.features))
        if len(wanted) == 0 or windows.shape != wanted_shape:
            raise BundleRefused(folder, f"golden.npz holds windows of shape {windows.shape}, not {wanted_shape}")
        try:
            got = self.score(windows.astype(np.float32))
        except Exception as error:  # a shape the network does not take, or a broken kernel
            raise BundleRefused(folder, f"fails on its golden vectors: {error}") from None
        if got.shape != wanted.shape or not np.allclose(got, wanted, atol=GOLDEN_TOLERANCE):
            raise BundleRefused(folder, "gives other scores than its golden vectors")
