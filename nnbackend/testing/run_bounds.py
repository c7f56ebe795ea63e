"""The error bounds of a run: how far rounding may move its parameters, losses and outputs.

The reference trains in float64 some more times, and each kernel's operands are multiplied by
1 + noise, the noise some units of rounding. So each summed term is disturbed on its own, and the
spread of the results bounds that of correct devices. A run that rounding may lead elsewhere, such
as one at a kink, spreads widely and is not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.errors import NNBackendError
from nnbackend.testing.reference import ReferenceBackend
from nnbackend.testing.run_cases import RunCase, RunData, RunResult

EPS = {"float64": 2.0**-52, "float32": 2.0**-23}
UNITS = 32.0  # of rounding, in the noise
DRAWS = 3
MOST_GROWTH = 100.0  # of the noise; beyond, three draws do not bound the spread
COLUMNS = ("train_loss", "valid_loss", "learning_rate")


class Unsuitable(Exception):
    """A run to which a property does not apply; the message says why."""


class Disagreement(AssertionError):
    """A run that lacks a property."""


class NoisyReference(ReferenceBackend):
    """The reference with noise in its kernels; it sums all |changes| of the parameters.

    noise: the standard deviation of the relative noise; 0 for none.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        self.noise, self.rng = noise, np.random.default_rng(seed)
        self.from_ends = 1.0  # the least distance of a probability from 0 and 1
        self.terms: Any = 0.0  # |first theta| + the sum of all |changes|
        self._last: Any = 0.0

    def disturbed(self, array: Any) -> Any:
        """Return a noisy copy; without noise the array."""
        if not self.noise:
            return array
        return array * (1.0 + self.noise * self.rng.standard_normal(array.shape))

    def dense_forward(self, x, W, b, phi, z, a):  # type: ignore[no-untyped-def]
        super().dense_forward(self.disturbed(x), self.disturbed(W), self.disturbed(b), phi, z, a)
        if phi.name in ("sigmoid", "softmax"):
            self.from_ends = min(self.from_ends, float(a.min()), float(1.0 - a.max()))

    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore[no-untyped-def]
        delta[...] = self.disturbed(delta)
        a = self.disturbed(a)
        super().dense_backward(self.disturbed(x), self.disturbed(W), z, a, phi, delta, dW, db, dx)

    def loss_and_delta(self, loss, out, y, weight, delta, totals):  # type: ignore[no-untyped-def]
        super().loss_and_delta(loss, self.disturbed(out), y, weight, delta, totals)

    def optimizer_step(self, rule, theta, gradient, *rest):  # type: ignore[no-untyped-def]
        self.read(theta)
        super().optimizer_step(rule, theta, self.disturbed(gradient), *rest)
        self.read(theta)

    def read(self, theta: Any) -> None:
        """Add the changes since the last call."""
        self.terms = self.terms + np.abs(theta - self._last)
        self._last = theta.copy()


@dataclass(frozen=True)
class Bounds:
    """The reference's result and, of each of its parts, the largest error of a correct device."""

    case: RunCase
    wanted: RunResult
    theta: np.ndarray
    outputs: np.ndarray
    columns: dict[str, np.ndarray]

    def check(self, what: str, got: RunResult, wanted: RunResult | None = None) -> None:
        """Raise Disagreement if a result is outside of the bounds around the wanted one."""
        wanted = wanted or self.wanted
        given, expected = ((len(r.columns["epoch"]), r.stop_reason) for r in (got, wanted))
        if given != expected:
            raise Disagreement(f"{what}: (epochs, stop_reason) {given}, expected {expected}")
        for name, bound in self.columns.items():
            _compare(what, name, np.array(got.columns[name]), wanted.columns[name], bound)
        _compare(what, "theta", got.theta, wanted.theta, self.theta)
        _compare(what, "outputs", got.outputs, wanted.outputs, self.outputs)


def bounds_of(case: RunCase, data: RunData | None = None) -> Bounds:
    """Return the reference's result of a run with bounds. Raises: Unsuitable.

    data: other data than those of the case.
    """
    if str(case.options.get("optimizer", "")).startswith("lbfgs"):
        raise Unsuitable("the line search of L-BFGS compares losses, so rounding decides")
    wanted, terms = _reference_run(case, data, 0)
    noisy = [_reference_run(case, data, 1 + k)[0] for k in range(DRAWS)]
    if any((len(r.columns["epoch"]), r.stop_reason) != _end(wanted) for r in noisy):
        raise Unsuitable("rounding decides when this run stops")
    _check_decisions(case, wanted)
    eps = EPS[case.dtype]
    floor = eps * (UNITS * terms + 4.0 * terms.max())
    theta = floor + 2.0 * _spread([r.theta for r in noisy], wanted.theta)
    size = np.abs(wanted.outputs)
    outputs = UNITS * eps * (size + 0.1 * (1.0 + size.max()))
    outputs = outputs + 2.0 * _spread([r.outputs for r in noisy], wanted.outputs)
    columns = {}
    for name in (n for n in COLUMNS if n in wanted.columns):
        values = np.array(wanted.columns[name])
        spread = _spread([np.array(r.columns[name]) for r in noisy], values)
        columns[name] = UNITS * eps * (np.abs(values) + 0.1) + 2.0 * spread
    for bound, scale in ((theta, terms.max()), (outputs, 1.0 + size.max())):
        if not float(bound.max()) <= MOST_GROWTH * UNITS * eps * float(scale):
            raise Unsuitable("rounding errors grow too much in this run")
    return Bounds(case, wanted, theta, outputs, columns)


def _reference_run(case: RunCase, data: RunData | None, draw: int) -> tuple[RunResult, np.ndarray]:
    """Train on the reference in float64, from parameters rounded to the case's dtype."""
    noise = UNITS * EPS[case.dtype] if draw else 0.0
    backend = NoisyReference(noise, draw)
    try:
        net = case.network(backend, "float64")
        start = case.network("reference").get_parameters()
        net.set_parameters(*([p.astype(float) for p in part] for part in start))
        result = case.fit(case.model(net), noisy_data(case, data or case.draw_data(), backend))
    except NNBackendError as error:
        raise Unsuitable(f"refused: {error}") from error
    backend.read(net.theta)
    is_clipped = backend.from_ends < UNITS * EPS["float32"] and "entropy" in case.loss
    if is_clipped and case.dtype == "float32":
        raise Unsuitable("float32 clips a probability that float64 does not")
    if not all(np.isfinite(part).all() for part in (result.theta, result.outputs)):
        raise Unsuitable("the result is not finite")
    return result, backend.terms


def noisy_data(case: RunCase, data: RunData, backend: NoisyReference) -> RunData:
    """Return the case's data; with noise, as far as rounding in the network's dtype moves them."""
    if not backend.noise:
        return data
    from_mean = data.x - data.x.mean(axis=0) if case.scale in ("standard", "robust") else data.x
    moved = (backend.disturbed(from_mean) - from_mean) + UNITS * EPS["float64"] * np.abs(data.x)
    y = data.y if case.has_labels else backend.disturbed(data.y)
    y = y if case.loss in ("quadratic", "absolute", "huber", "quantile") else data.y
    return RunData(data.x + moved, y, data.weight)


def _check_decisions(case: RunCase, result: RunResult) -> None:
    """Raise Unsuitable where two costs are so close that rounding orders them."""
    stopping = case.options.get("early_stopping")
    if stopping is None and "plateau" not in str(case.options.get("schedule")):
        return
    name = "valid_loss" if "valid_loss" in result.columns else "train_loss"
    costs = np.array(result.columns[name])
    gaps = np.abs(costs[:, None] - costs)[np.triu_indices(len(costs), 1)]
    least = (stopping or {}).get("min_delta", 0.0)
    near = 1e4 * EPS[case.dtype] * (1.0 + np.abs(costs).max())
    if (np.minimum(gaps, np.abs(gaps - least)) < near).any():
        raise Unsuitable("rounding decides which epoch is the best")


def _end(result: RunResult) -> tuple[int, str]:
    return len(result.columns["epoch"]), result.stop_reason


def _spread(results: list[np.ndarray], wanted: np.ndarray) -> np.ndarray:
    spread: np.ndarray = np.max([np.abs(result - wanted) for result in results], axis=0)
    return spread


def _compare(what: str, part: str, got: np.ndarray, wanted: Any, bound: np.ndarray) -> None:
    excess = np.abs(got.astype(float) - wanted) / bound
    worst = np.unravel_index(int(np.nan_to_num(excess, nan=np.inf).argmax()), excess.shape)
    if not excess[worst] <= 1.0:
        place = ", ".join(str(int(i)) for i in worst)
        raise Disagreement(
            f"{what}: {part}[{place}] is {got[worst]!s}, expected {np.asarray(wanted)[worst]!s} "
            f"within {bound[worst]:.2g}"
        )
