"""Whole networks: their gradients against the textbook and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import LOSSES, OUTPUT_ACTIVATIONS, get_loss
from nnbackend.network.network import Network
from nnbackend.testing import oracle
from nnbackend.testing.error_bounds import BoundedNamespace, ErrorBoundBackend
from nnbackend.testing.gradient_check import STEP, check_gradients
from nnbackend.testing.kit import MOST_DRAWS, FailureReport, Suite

_SHARES = {"sigmoid", "softmax"}
_POSITIVE = _SHARES | {"exponential", "softplus"}
# The valid output activations of a loss; other losses take all of them.
_OUTPUTS = {"cross_entropy": _SHARES, "binary_cross_entropy": _SHARES, "poisson": _POSITIVE}
PAIRS = [(loss, out) for loss in LOSSES for out in ACTIVATIONS if out in _OUTPUTS.get(loss, {out})]
LOSS_NUMBERS = {"huber": 0.7, "quantile": 0.8, "cross_entropy": 0.1, "binary_cross_entropy": 0.1}

STACKS: dict[str, list[int | AbstractLayer]] = {
    "one layer": [3, Dense(2, "tanh")],
    "one unit each": [1, Dense(1, "tanh"), Dense(1, "identity")],
    "four layers": [3, Dense(5, "tanh"), Dense(2, "sigmoid"), Dense(4, "elu"), Dense(2, "softmax")],
    "maxout": [3, Maxout(3, n_pieces=3), Dense(2, "identity")],
    "maxout at the end": [3, Dense(4, "tanh"), Maxout(2)],
    "dropout left out": [3, Dropout(0.2), Dense(4, "tanh"), Dropout(0.5), Dense(2, "softmax")],
}


class GradientConformance(Suite):
    """Backpropagation through whole networks, against `oracle` and against differences."""

    @pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "softmax"])
    def test_hidden_activation(self, backend: Backend, dtype: str, activation: str) -> None:
        layers = [4, Dense(6, activation), Dense(5, activation), Dense(2, "identity")]
        self._compare(backend, dtype, layers, "quadratic", f"hidden {activation}")

    @pytest.mark.parametrize(("loss", "output"), PAIRS)
    def test_loss_with_output(self, backend: Backend, dtype: str, loss: str, output: str) -> None:
        layers = [4, Dense(5, "tanh"), Dense(3, output)]
        self._compare(backend, dtype, layers, loss, f"{loss} of {output}")

    @pytest.mark.parametrize("loss", list(LOSS_NUMBERS))
    def test_loss_with_a_number(self, backend: Backend, dtype: str, loss: str) -> None:
        chosen = get_loss(loss, LOSS_NUMBERS[loss])
        layers = [4, Dense(5, "tanh"), Dense(3, OUTPUT_ACTIVATIONS.get(loss, "identity"))]
        self._compare(backend, dtype, layers, chosen, str(chosen))

    @pytest.mark.parametrize("rows", [1, 13])
    @pytest.mark.parametrize("stack", list(STACKS))
    def test_layers(self, backend: Backend, dtype: str, stack: str, rows: int) -> None:
        self._compare(backend, dtype, STACKS[stack], "quadratic", stack, rows=rows)

    @pytest.mark.parametrize("as_labels", [False, True], ids=["one-hot", "labels"])
    @pytest.mark.parametrize("loss", ["cross_entropy", "quadratic"])
    def test_sample_weights(self, backend: Backend, dtype: str, loss: str, as_labels: bool) -> None:
        layers = [4, Dense(5, "tanh"), Dense(3, "softmax")]
        self._compare(backend, dtype, layers, loss, "weighted", weighted=True, labels=as_labels)

    @pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "softmax"])
    def test_differences_of_an_activation(self, backend: Backend, activation: str) -> None:
        layers: list[int | AbstractLayer] = [3, Dense(4, activation), Dense(2, "identity")]
        self._check_differences(backend, layers, "quadratic")

    @pytest.mark.parametrize("loss", list(LOSSES))
    def test_differences_of_a_loss(self, backend: Backend, loss: str) -> None:
        layers: list[int | AbstractLayer] = [
            3,
            Dense(4, "tanh"),
            Dense(3, OUTPUT_ACTIVATIONS.get(loss, "identity")),
        ]
        self._check_differences(backend, layers, loss)

    @pytest.mark.parametrize("stack", list(STACKS))
    def test_differences_of_layers(self, backend: Backend, stack: str) -> None:
        self._check_differences(backend, STACKS[stack], "quadratic")

    def _check_differences(
        self, backend: Backend, layers: list[int | AbstractLayer], loss: str
    ) -> None:
        dtype = "float64" if "float64" in backend.float_dtypes else "float32"
        net = Network(layers, loss, device=backend, dtype=dtype, seed=self.seed)
        problem = self._clear_problem(
            net, ("differences", loss), lambda rng: Problem(rng, net, loss, 5), STEP
        )[0]
        verdict = check_gradients(net, backend.to_device(problem.x), problem.y, n_directions=2)
        if not verdict:
            raise AssertionError(
                f"the gradient of {net!r} is not the slope of its loss:\n{verdict}"
            )

    def _compare(
        self, backend: Backend, dtype: str, layers: list[Any], loss: Any, case: str, *,
        rows: int = 7, weighted: bool = False, labels: bool = False,
    ) -> None:  # fmt: skip
        """Compare one network's output, loss, deltas and gradients with the oracle's."""
        net = Network(layers, loss, device=backend, dtype=dtype, seed=self.seed + 1)
        rng = self.rng(case, "biases")
        biases = [0.3 * rng.standard_normal(b.shape) for b in net.biases]
        net.set_parameters(net.get_parameters()[0], biases)
        problem, bounds = self._clear_problem(
            net, (case, rows),
            lambda rng: Problem(rng, net, "cross_entropy" if labels else net.loss.name, rows,
                                weighted, labels),
        )  # fmt: skip
        wanted = problem.by_the_oracle(net)
        given, weight = backend.to_device(problem.x), problem.weight
        got = net.backprop(given, problem.y.argmax(axis=1) if labels else problem.y, weight)
        report = FailureReport("backprop", f"{net!r}, {case}, {rows} rows, {dtype}", self.seed)
        host = backend.to_host
        report.within("the output", host(net.feedforward(given)), wanted.output, bounds.output)
        report.within("the loss", got.loss, wanted.loss, bounds.loss)
        for what, ours, theirs, allowed in (
            ("deltas", got.deltas, wanted.deltas, bounds.deltas),
            ("weights", got.weights, wanted.dW, bounds.dW),
            ("biases", got.biases, wanted.db, bounds.db),
        ):  # fmt: skip
            for layer, (mine, reference, bound) in enumerate(
                zip(ours, theirs, allowed, strict=True)
            ):
                report.within(f"{what}[{layer}]", host(mine), reference, bound)

    def _clear_problem(
        self, net: Network, case: tuple[object, ...],
        draw: Callable[[np.random.Generator], Problem], moved: float = 0.0,
    ) -> tuple[Problem, oracle.Result]:  # fmt: skip
        """Return a problem at no kink and far from overflow, and the error bounds of its solution.

        moved: the change of every parameter under which no kink is met.
        """
        for attempt in range(MOST_DRAWS):
            problem = draw(self.rng(*case, attempt))
            if not problem.is_in_range(net):  # as exp(exp(z)) may be in float32
                continue
            found, bounds = problem.with_bounds(net, moved)
            if not (found.undecided if moved else found.kinks):
                return problem, bounds
        FailureReport("backprop", repr(net), self.seed).fail(
            "its inputs lie at a kink or overflow; draw others"
        )


class Problem:
    """Rows, targets and weights for one network."""

    def __init__(
        self, rng: np.random.Generator, net: Network, targets_of: str, rows: int,
        weighted: bool = False, labels: bool = False,
    ) -> None:  # fmt: skip
        self.x = rng.standard_normal((rows, net.n_in)).astype(net.dtype)
        self.y = targets(rng, targets_of, (rows, net.n_out)).astype(net.dtype)
        self.weight = (rng.random(rows) + 0.1).astype(net.dtype) if weighted else None

    def by_the_oracle(self, net: Network) -> oracle.Result:
        """Return the textbook's results."""
        W, b = ([p.astype(np.float64) for p in host] for host in net.get_parameters())
        weight = None if self.weight is None else self.weight.astype(float)
        return oracle.backprop(
            oracle.describe(net), W, b, (net.loss.name, net.loss.params),
            self.x.astype(float), self.y.astype(float), weight,
        )  # fmt: skip

    def is_in_range(self, net: Network) -> bool:
        """Return True if the squares of all results are finite in the network's dtype."""
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = self.by_the_oracle(net)
        results = [wanted.loss, wanted.output, *wanted.dW, *wanted.db, *wanted.deltas]
        limit = float(np.sqrt(np.finfo(net.dtype).max))
        return all(bool((np.abs(result) <= limit).all()) for result in results)

    def with_bounds(self, net: Network, moved: float) -> tuple[BoundedNamespace, oracle.Result]:
        """Return the kinks met, and the error bound of each result."""
        backend = ErrorBoundBackend()
        layers: list[int | AbstractLayer] = [net.n_in, *net.layers]
        twin = Network(layers, net.loss, device=backend, dtype=net.dtype)
        twin.set_parameters(*net.get_parameters())
        twin.theta.bound[...] = moved
        x = backend.to_device(self.x)
        got = twin.backprop(x, self.y, self.weight)
        totals: Any = backend.last_read
        loss = totals[LOSS : LOSS + 1] / totals[WEIGHT : WEIGHT + 1]
        return backend.xp, oracle.Result(
            float(loss.bound[0]), twin.feedforward(x).bound,
            *([array.bound for array in part] for part in (got.weights, got.biases, got.deltas)),
        )  # fmt: skip


def targets(rng: np.random.Generator, loss: str, shape: tuple[int, int]) -> Any:
    """Return valid targets (B, O) of a loss."""
    if loss == "cross_entropy":
        return np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    if loss == "binary_cross_entropy":
        return rng.integers(0, 2, shape).astype(float)
    return rng.integers(0, 4, shape).astype(float) + (0.0 if loss == "poisson" else 0.25)
