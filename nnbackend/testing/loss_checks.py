"""The kernels at the output: every loss and its delta, and every score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.network.evaluation.scores import ACCURACY, BINARY_ACCURACY, SQUARED_ERROR, Score
from nnbackend.network.losses import LOSSES, Loss, get_loss
from nnbackend.testing.kit import FailureReport, Suite, fresh

SHAPES = ((1, 1), (1, 5), (6, 1), (13, 3), (300, 11))

_PLAIN = {name: get_loss(name) for name in LOSSES} | {
    "huber(0.3)": get_loss("huber", 0.3),
    "quantile(0.9)": get_loss("quantile", 0.9),
    "cross_entropy(0.1)": get_loss("cross_entropy", 0.1),
    "binary_cross_entropy(0.1)": get_loss("binary_cross_entropy", 0.1),
    "of_a_user": Loss("fourth", lambda a, y, xp: (xp.sum((a - y) ** 4, axis=1), 4 * (a - y) ** 3)),
}
FORMULAS: dict[str, Loss] = _PLAIN | {
    f"{name} on logits": loss.fused() for name, loss in _PLAIN.items() if loss.on_logits is not None
}
SCORES: dict[str, Score] = {
    "accuracy": ACCURACY,
    "binary_accuracy": BINARY_ACCURACY,
    "squared_error": SQUARED_ERROR,
    "of_a_user": Score("largest error", lambda a, y, xp: xp.max(xp.abs(a - y), axis=1)),
}
# Large previous sums: adding this batch in float32 would lose it.
TOTALS = np.array([3e7, 2e7, 5.0, 1e7])


class LossChecks(Suite):
    """The output's kernels against the base class."""

    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    @pytest.mark.parametrize("loss", list(FORMULAS))
    def test_loss_and_delta(self, backend: Backend, dtype: str, loss: str, weighted: bool) -> None:
        formula = FORMULAS[loss]
        for shape in SHAPES:
            for as_labels in (False, True):

                def inputs(
                    rng: np.random.Generator, shape: Any = shape, as_labels: bool = as_labels
                ) -> dict[str, np.ndarray]:
                    names = {"out": outputs(rng, loss, shape).astype(dtype), "totals": TOTALS}
                    names["delta"] = np.full(shape, np.nan, dtype)
                    if weighted:
                        some = rng.random(shape[0]) > 0.3
                        names["weight"] = (rng.random(shape[0]) * some + 0.01).astype(dtype)
                    wanted = targets(rng, loss, shape).astype(dtype)
                    return names | {"y": labels(rng, shape) if as_labels else wanted}

                self.compare_kernel(
                    backend, "loss_and_delta", inputs, ["delta", "totals"],
                    lambda b, a: b.loss_and_delta(
                        formula, a.out, a.y, a.weight if weighted else None, a.delta, a.totals
                    ),
                    loss,
                )  # fmt: skip

    @pytest.mark.parametrize("loss", [name for name in FORMULAS if name.endswith("on logits")])
    def test_loss_on_logits_far_out(self, backend: Backend, dtype: str, loss: str) -> None:
        far = 80.0 if loss.startswith("poisson") else 500.0
        out = np.array([[-far, far], [far, -far], [0.0, 0.0], [far, far]], dtype)
        names = {"out": out, "delta": np.full((4, 2), np.nan, dtype), "totals": np.zeros(4)}
        names["y"] = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype)
        self.compare_kernel(
            backend, "loss_and_delta", names, ["delta", "totals"],
            lambda b, a: b.loss_and_delta(FORMULAS[loss], a.out, a.y, None, a.delta, a.totals),
            f"{loss}, far from 0",
        )  # fmt: skip

    def test_the_mean_over_the_batch_is_in_delta(self, backend: Backend, dtype: str) -> None:
        # By hand: quadratic loss, a - y is 1 everywhere, four rows.
        out, y = np.full((4, 2), 3.0, dtype), np.full((4, 2), 2.0, dtype)
        delta, totals = backend.empty((4, 2), dtype), backend.zeros((4,), backend.sum_dtype)
        arrays = fresh(backend, out), fresh(backend, y)
        backend.loss_and_delta(get_loss("quadratic"), *arrays, None, delta, totals)
        report = FailureReport("loss_and_delta", f"quadratic loss, 4 rows, {dtype}", self.seed)
        report.close("delta (includes 1/B)", backend.to_host(delta), np.full((4, 2), 0.25), 1e-7)
        report.close("totals", backend.to_host(totals), np.array([4.0, 4.0, 0.0, 0.0]), 1e-7)

    def test_a_batch_without_weight_gives_nothing(self, backend: Backend, dtype: str) -> None:
        names: dict[str, np.ndarray] = {"out": np.ones((3, 2), dtype), "y": np.zeros((3, 2), dtype)}
        names |= {"weight": np.zeros(3, dtype), "delta": np.full((3, 2), np.nan, dtype)}
        self.compare_kernel(
            backend, "loss_and_delta", names | {"totals": TOTALS}, ["delta", "totals"],
            lambda b, a: b.loss_and_delta(
                get_loss("quadratic"), a.out, a.y, a.weight, a.delta, a.totals
            ),
            "all weights are 0",
        )  # fmt: skip

    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    @pytest.mark.parametrize("score", list(SCORES))
    def test_add_score(self, backend: Backend, dtype: str, score: str, weighted: bool) -> None:
        for shape in SHAPES:
            rng = self.rng(score, shape)
            names = {"out": rng.random(shape).astype(dtype), "totals": TOTALS}
            if weighted:
                names["weight"] = rng.random(shape[0]).astype(dtype)
            for y in ((rng.random(shape) > 0.5).astype(dtype), labels(rng, shape)):
                self.compare_kernel(
                    backend, "add_score", {**names, "y": y}, ["totals"],
                    lambda b, a: b.add_score(
                        SCORES[score], a.out, a.y, a.weight if weighted else None, a.totals
                    ),
                    score,
                )  # fmt: skip


def outputs(rng: np.random.Generator, loss: str, shape: tuple[int, int]) -> Array:
    """Return typical inputs of a loss: probabilities, rates, or any numbers."""
    z = 2.0 * rng.standard_normal(shape)
    if loss.endswith("on logits") or not FORMULAS[loss].partner:
        return z
    e = np.exp(0.5 * z)
    return {"softmax": e / (e.sum(axis=1, keepdims=True) + 0.1), "sigmoid": e / (1 + e)}.get(
        FORMULAS[loss].partner or "", e
    )


def targets(rng: np.random.Generator, loss: str, shape: tuple[int, int]) -> Array:
    """Return valid targets of a loss."""
    if loss.startswith("poisson"):
        return rng.integers(0, 5, shape).astype(float)
    if loss.startswith("binary_cross_entropy"):
        return rng.choice([0.0, 0.3, 1.0], shape)
    if loss.startswith("cross_entropy"):
        return np.eye(shape[1])[labels(rng, shape)]
    return rng.standard_normal(shape)


def labels(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return class labels, (B,) int32."""
    return rng.integers(0, shape[1], shape[0]).astype(np.int32)
