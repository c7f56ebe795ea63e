"""Gradient check: backpropagation against finite differences.

For random directions v, the slope of the loss along v must equal the inner product of v and the
gradient: one number per direction, whatever the shapes. In small networks each parameter is checked
too. Everything runs in float64 on the network's device. If that has no float64, its gradient is
float32, and NumPy computes the differences in float64.

Source of the directional form: HIPS/autograd, `check_grads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend.backend.philox import host_generator
from nnbackend.errors import ArgumentError
from nnbackend.network.network import Network
from nnbackend.validation import host_array

EVERY_PARAMETER_UP_TO = 300
TOLERANCE = {"float64": 1e-7, "float32": 1e-4}
STEP = 1e-5
_CHECK_STREAM = 1 << 35


@dataclass(frozen=True)
class Comparison:
    """One slope, by backpropagation and by finite differences."""

    what: str
    backprop: float
    difference: float
    error: float


@dataclass(frozen=True)
class GradientCheck:
    """The result of `check_gradients`, printable; true if all slopes agree."""

    comparisons: tuple[Comparison, ...]
    tolerance: float
    device: str
    dtype: str = "float64"

    @property
    def max_error(self) -> float:
        """The largest error, relative to the larger of the slope and the gradient's scale."""
        return max(c.error for c in self.comparisons)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance; NaN is not."""
        return all(c.error <= self.tolerance for c in self.comparisons)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        shown = sorted(self.comparisons, key=lambda c: -c.error)[:8]
        width = max(len(c.what) for c in shown)
        lines = [
            f"{'slope along':<{width}}  {'backprop':>18}  {'finite difference':>18}  {'error':>8}"
        ]
        for c in shown:
            lines.append(
                f"{c.what:<{width}}  {c.backprop:>18.10e}  {c.difference:>18.10e}  {c.error:>8.1e}"
            )
        if len(self.comparisons) > len(shown):
            lines.append(f"... and {len(self.comparisons) - len(shown)} more, all closer")
        verdict = "passed" if self.passed else "FAILED"
        lines.append(
            f"{verdict}: largest error {self.max_error:.1e}, tolerance {self.tolerance:.0e}, "
            f"{self.dtype} on {self.device}"
        )
        return "\n".join(lines)


def check_gradients(
    net: Network,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    n_directions: int = 5,
    tolerance: float | None = None,
    seed: int = 0,
) -> GradientCheck:
    """Compare backpropagation with central finite differences on rows x (B, n_in), targets y.

        <v, grad> = (C(theta + h v) - C(theta - h v)) / 2h

    Errors are relative to max(|slope|, |grad| / sqrt(P)). A kink (ReLU at 0, a tie of maxout)
    within h of an activation makes the difference wrong, not backprop; another seed or batch
    then passes. tolerance: by default 1e-7, and 1e-4 on a device without float64.
    >>> print(bool(check_gradients(Network([2, 3, 1], device="numpy"), [[0.5, 1.0]], [1.0])))
    True
    """
    if n_directions < 1:
        raise ArgumentError(f"n_directions must be at least 1. Received: {n_directions}.")
    backend = net.backend
    dtype = "float64" if "float64" in backend.float_dtypes else "float32"
    twin = _twin(net, backend, dtype)
    judge = twin if dtype == "float64" else _twin(twin, "numpy", "float64")
    theta = judge.backend.to_host(judge.theta)
    # Host rows are not scaled: a check is not a training step.
    host = backend.to_host(x) if backend.owns(x) else host_array(x, "x")
    x = backend.to_device(host.astype(dtype))
    gradient = backend.to_host(twin.backprop(x, y, sample_weight).vector).astype(np.float64)
    x = judge.backend.to_device(host.astype(dtype).astype(np.float64))
    scale = float(np.linalg.norm(gradient)) / np.sqrt(theta.size)

    def loss_at(point: np.ndarray) -> float:
        judge.backend.to_device(point, out=judge.theta)
        return _loss(judge, x, y, sample_weight)

    def compare(what: str, v: np.ndarray) -> Comparison:
        slope = float(v @ gradient)
        difference = (loss_at(theta + STEP * v) - loss_at(theta - STEP * v)) / (2 * STEP)
        reference = max(abs(slope), abs(difference), scale, 1e-10)
        return Comparison(what, slope, difference, abs(slope - difference) / reference)

    rng = host_generator(seed, _CHECK_STREAM)
    comparisons = []
    for i in range(n_directions):
        v = rng.standard_normal(theta.size)
        comparisons.append(compare(f"random direction {i + 1}", v / np.linalg.norm(v)))
    if theta.size <= EVERY_PARAMETER_UP_TO:
        for name, i in _names(twin):
            comparisons.append(compare(name, np.eye(1, theta.size, i)[0]))
    allowed = TOLERANCE[dtype] if tolerance is None else tolerance
    return GradientCheck(tuple(comparisons), allowed, backend.device, dtype)


def _twin(net: Network, device: str | Backend, dtype: str) -> Network:
    """Return a network with the same parameters on another device."""
    twin = Network([net.n_in, *net.layers], net.loss, device=device, dtype=dtype)
    twin.set_parameters(*net.get_parameters())
    return twin


def _loss(net: Network, x: Any, y: Any, sample_weight: Any) -> float:
    """Return the mean loss alone, in float64."""
    backend = net.backend
    layers, loss = net.for_training()
    space = net.workspace(net.rows_on_device(x), layers)
    target, weight = net.device_targets(y, sample_weight, space.rows)
    totals = backend.zeros((4,), backend.sum_dtype)
    out = space.forward()
    unused = backend.empty((space.rows, net.n_out), net.dtype)
    backend.loss_and_delta(loss, out, target, weight, unused, totals)
    sums = backend.to_host(totals)
    return float(sums[LOSS] / sums[WEIGHT])


def _names(net: Network) -> list[tuple[str, int]]:
    """Return the name of each parameter and its index in the flat vector."""
    names, place = [], 0
    for layer, ((n_in, n_out), _) in enumerate(net.layout.shapes):
        for i in range(n_in):
            for j in range(n_out):
                names.append((f"weights[{layer}][{i}, {j}]", place))
                place += 1
    for layer, (_, n_biases) in enumerate(net.layout.shapes):
        for j in range(n_biases):
            names.append((f"biases[{layer}][{j}]", place))
            place += 1
    return names
