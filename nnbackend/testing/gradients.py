"""Whole networks: their gradients against the textbook and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import LOSSES, OUTPUT_ACTIVATIONS, get_loss
from nnbackend.network.network import Network
from nnbackend.testing import oracle
from nnbackend.testing.gradient_check import check_gradients
from nnbackend.testing.kit import TOLERANCE, Suite, Told

_SHARES = {"sigmoid", "softmax"}
_POSITIVE = _SHARES | {"exponential", "softplus"}
# The output activations for which a loss has a meaning; any other loss takes all of them.
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
        rng = self.rng(loss)
        host = rng.standard_normal((5, net.n_in)).astype(dtype)
        verdict = check_gradients(
            net, backend.to_device(host), targets(rng, loss, (5, net.n_out)), n_directions=2
        )
        if not verdict:
            raise AssertionError(f"the gradient of {net!r} is no slope of its loss:\n{verdict}")

    def _compare(
        self, backend: Backend, dtype: str, layers: list[Any], loss: Any, case: str, *,
        rows: int = 7, weighted: bool = False, labels: bool = False,
    ) -> None:  # fmt: skip
        """Compare one network's output, loss, deltas and gradients with the oracle's."""
        net = Network(layers, loss, device=backend, dtype=dtype, seed=self.seed + 1)
        rng, name = self.rng(case, rows), net.loss.name
        biases = [0.3 * rng.standard_normal(b.shape) for b in net.biases]
        net.set_parameters(net.get_parameters()[0], biases)
        W, b = ([p.astype(np.float64) for p in host] for host in net.get_parameters())
        x = rng.standard_normal((rows, net.n_in)).astype(dtype)
        y = targets(rng, "cross_entropy" if labels else name, (rows, net.n_out)).astype(dtype)
        weight = (rng.random(rows) + 0.1).astype(dtype) if weighted else None
        if labels:
            net.classes = tuple(range(net.n_out))
        wanted = oracle.backprop(
            oracle.describe(net), W, b, (name, net.loss.params), x.astype(float), y.astype(float),
            None if weight is None else weight.astype(float),
        )  # fmt: skip
        given = backend.to_device(x)
        got = net.backprop(given, y.argmax(axis=1) if labels else y, weight)
        told = Told("backprop", f"{net!r}, {case}, {rows} rows, {dtype}", self.seed)
        tolerance, host = TOLERANCE[dtype], backend.to_host
        told.close("the output", host(net.feedforward(given)), wanted.output, tolerance)
        told.close("the loss", np.array([got.loss]), np.array([wanted.loss]), tolerance)
        for what, ours, theirs in (
            ("deltas", got.deltas, wanted.deltas), ("weights", got.weights, wanted.dW),
            ("biases", got.biases, wanted.db),
        ):  # fmt: skip
            for layer, (mine, reference) in enumerate(zip(ours, theirs, strict=True)):
                told.close(f"{what}[{layer}]", host(mine), reference, tolerance)


def targets(rng: np.random.Generator, loss: str, shape: tuple[int, int]) -> Any:
    """Give targets (B, O) for which a loss has a meaning."""
    if loss == "cross_entropy":
        return np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    if loss == "binary_cross_entropy":
        return rng.integers(0, 2, shape).astype(float)
    return rng.integers(0, 4, shape).astype(float) + (0.0 if loss == "poisson" else 0.25)
