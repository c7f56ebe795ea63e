"""The methods of a network for data sets, whose rows may not fit in the device's memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from nnbackend import validation
from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.backend.ranks import Exchange
from nnbackend.data.row_scaler import RowScaler
from nnbackend.data.scalers import Scaler
from nnbackend.network.evaluation.passes import RowPasses, all_outputs, mean_scores
from nnbackend.network.evaluation.scores import ACCURACY, BINARY_ACCURACY, SQUARED_ERROR, Score
from nnbackend.network.layers import AbstractLayer, Dense
from nnbackend.network.losses import Loss
from nnbackend.network.workspace import Workspace


class DataSetMethods(ABC):
    """Outputs, predictions and scores of many rows; `Network` has the mathematics."""

    backend: Backend
    dtype: str
    n_in: int
    n_out: int
    layers: tuple[AbstractLayer, ...]
    loss: Loss
    _spare: dict[int, tuple[Workspace, Array]]  # see `RowPasses`

    @abstractmethod
    def workspace(
        self, x: Array, layers: Sequence[AbstractLayer] | None = None, *, theta: Array | None = None
    ) -> Workspace:
        """Return a workspace for passes over rows x (B, n_in)."""

    @abstractmethod
    def for_training(self) -> tuple[tuple[AbstractLayer, ...], Loss]:
        """Return the layers and the loss as a training step uses them."""

    def outputs(
        self, x: Any, scaler: Scaler | None = None, *, theta: Array | None = None
    ) -> np.ndarray:
        """Return the output activations of rows x (n, n_in): (n, n_out) on the host.

        x: an array, also one larger than the device's memory.  scaler: scales raw rows.
        theta (P,): other parameters than the network's.
        """
        x = validation.finite_rows(x, self.n_in, self.dtype, self.backend)
        spare = self._spare if theta is None else None  # these have the network's parameters
        return all_outputs(self._passes(scaler, theta=theta, spare=spare), x, self.n_out)

    def predict(self, x: Any) -> np.ndarray:
        """Return the predictions for rows x (n, n_in), on the host.

        After a softmax the class codes (n,); with the loss binary_cross_entropy 0 or 1; else the
        outputs. Predictions are (n,) for one output, (n, n_out) for several.
        """
        out = self.outputs(x)
        if self.loss.name == "cross_entropy":
            codes: np.ndarray = out.argmax(axis=1)
            return codes
        if self.loss.name == "binary_cross_entropy":
            out = (out > 0.5).astype(np.int64)
        return out[:, 0] if self.n_out == 1 else out

    def evaluate(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """Return the mean "loss" and the score, "accuracy" or "r2", of rows x with targets y."""
        x = validation.finite_rows(x, self.n_in, self.dtype, self.backend)
        n = int(x.shape[0])
        target = validation.targets(y, n, self.target_form, self.backend)
        weight = validation.sample_weights(sample_weight, n, self.dtype, self.backend)
        return self.evaluate_prepared(x, target, weight, self.score_for(target))

    def evaluate_prepared(
        self,
        x: Array,
        y: np.ndarray,
        weight: np.ndarray | None,
        score: Score,
        *,
        scaler: Scaler | None = None,
        theta: Array | None = None,
        ranks: Exchange | None = None,
    ) -> dict[str, float]:
        """Evaluate validated rows, targets and weights.

        scaler: scales raw rows.  theta (P,): other parameters than the network's.
        ranks: share the rows, and have the same result.
        """
        layers, loss = self.for_training()
        last, xp, backend = self.layers[-1], self.backend.xp, self.backend

        def activate(out: Array) -> Array:
            if loss is self.loss or not isinstance(last, Dense):
                return out
            with backend.active():
                return last.activation.value(out, xp)

        passes = self._passes(scaler, layers=layers, theta=theta)
        return mean_scores(
            passes, x, y, weight, loss=loss, score=score, activate=activate, ranks=ranks
        )

    def score_for(self, y: np.ndarray) -> Score:
        """Return the score of targets: accuracy for classes, r2 for values."""
        if self.loss.name == "binary_cross_entropy":
            return BINARY_ACCURACY
        is_classes = y.ndim == 1 or self.loss.name == "cross_entropy"
        return ACCURACY if is_classes else SQUARED_ERROR

    def _passes(
        self,
        scaler: Scaler | None,
        *,
        layers: Sequence[AbstractLayer] | None = None,
        theta: Array | None = None,
        spare: dict[int, tuple[Workspace, Array]] | None = None,
    ) -> RowPasses:
        row_scaler = None if scaler is None else RowScaler(scaler, self.backend, self.dtype)
        new_workspace = partial(self.workspace, layers=layers, theta=theta)
        return RowPasses(self.backend, self.dtype, new_workspace, row_scaler, spare)

    @property
    def target_form(self) -> validation.TargetForm:
        """The form of the targets that the loss expects."""
        return validation.TargetForm(self.n_out, self.dtype, self.loss.name)
