"""CUDA kernels of losses and scores, and of an output layer with its loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend.formulas import Activation, Array, Loss, Score
from nnbackend_cupy import grids
from nnbackend_cupy.launch import Launcher
from nnbackend_cupy.records import Kernel, variant
from nnbackend_cupy.sources import loss_lines, score_lines, slope_lines, value_lines
from nnbackend_cupy.tracing import Untraceable

MAX_OUTPUTS = 16  # of an output layer in one launch
SUM = np.dtype(np.float64)  # of sums of weights
MANY_ROWS = 16384  # above, a separate launch sums the sample weights
WEIGHT_TOTAL = Kernel("weight_total")


def output_filling(
    dtype: np.dtype[Any], loss: Loss, phi: Activation, below: Activation | None
) -> dict[str, object]:
    return {
        "VALUE": value_lines(dtype, phi),
        "SLOPE": slope_lines(dtype, phi),
        "BELOW": slope_lines(dtype, below or phi),
        "FORMULA": loss_lines(dtype, loss),
        "HAS_BELOW": int(below is not None),
    }


class LossKernels(Launcher):
    """The kernels of losses and scores."""

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        """Compute delta = d(mean loss)/d(out), and add to totals, as `Backend.loss_and_delta`."""
        has_labels, is_weighted = y.ndim == 1, weight is not None
        kernel = variant("loss", loss_lines, HAS_LABELS=has_labels, IS_WEIGHTED=is_weighted)
        weights = {} if weight is None else self._weights(weight)
        self._run(kernel, loss, out=out, y=y, **weights, delta=delta, totals=totals)

    def _weights(self, weight: Array) -> dict[str, Any]:
        """Return the operands of a weighted loss: many weights are summed before."""
        total, is_many = self._scratch("weight total", 1, SUM), weight.size > MANY_ROWS
        if is_many:
            self._run(WEIGHT_TOTAL, weight=weight, result=total)
        return {"weight": weight, "weight_total": total, "has_total": is_many}

    def add_score(
        self, score: Score, out: Array, y: Array, weight: Array | None, totals: Array
    ) -> None:
        """Compute totals[SCORE] += sum of weight * score."""
        has_labels, is_weighted = y.ndim == 1, weight is not None
        kernel = variant("score", score_lines, HAS_LABELS=has_labels, IS_WEIGHTED=is_weighted)
        weights = {} if weight is None else {"weight": weight}
        self._run(kernel, score, out=out, y=y, **weights, totals=totals)

    def output_layer(
        self, loss: Loss, phi: Activation, below: Activation | None,
        arrays: tuple[Array, Array, Array, Array, Array, Array], y: Array, z_below: Array,
        dx: Array, totals: Array,
    ) -> None:  # fmt: skip
        """Compute an output layer, its loss and the backward pass to the layer below.

        All in one launch:

            z = x W + b;  a = phi(z);  delta = phi'(z) dloss/da;  dx = delta W^T phi_below'(z_below)

        Shapes: arrays x (B, I), W (I, O), b (O,), z and a and delta (B, O); z_below and dx (B, I).
        """
        x, W, b, z, a, delta = arrays
        n_out = W.shape[1]
        if not 0 < n_out <= MAX_OUTPUTS or x.size == 0:
            raise Untraceable(f"an output layer of {n_out} units, at most {MAX_OUTPUTS}")
        warps = grids.warps_of_outputs(x.shape[0])
        self._run(
            variant("output", output_filling, HAS_LABELS=y.ndim == 1, O=n_out, WARPS=warps),
            *(loss, phi, below), x=x, W=W, b=b, z=z, a=a, delta=delta, y=y, z_below=z_below, dx=dx,
            totals=totals,
        )  # fmt: skip
