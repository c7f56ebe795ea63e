"""Backpropagation against finite differences, for every layer, activation and loss.

Kinks are avoided by construction: outputs start near 0.5, targets are far from them, and
each network asserts that no hidden unit is near a kink of its activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.network.initializers import get_initializer
from nnbackend.network.losses import LOSSES, get_loss
from nnbackend.network.workspace import DropoutSource

N_IN, K, B = 3, 2, 5
HIDDEN = sorted(set(ACTIVATIONS) - {"softmax"})
SMALL = get_initializer("normal", 0.05)
SPREAD = get_initializer("normal", 0.8)
LOSS_TABLE = [
    *((name, ()) for name in sorted(LOSSES)),
    ("huber", (0.3,)),  # all rows in the linear part
    ("huber", (9.0,)),  # all rows in the quadratic part
    ("quantile", (0.1,)),
    ("cross_entropy", (0.1,)),
    ("binary_cross_entropy", (0.1,)),
]


def data(loss: str, rows: int = B, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows, and targets of the loss whose distance from outputs near 0.5 is above 0.5."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, N_IN))
    if loss == "cross_entropy":
        return x, np.eye(K)[rng.integers(K, size=rows)]
    if loss == "binary_cross_entropy":
        return x, rng.integers(2, size=(rows, K)).astype(float)
    if loss == "poisson":
        return x, rng.poisson(2.0, size=(rows, K)).astype(float)
    return x, np.where(rng.random((rows, K)) < 0.5, -1.5, 2.5) + 0.3 * rng.random((rows, K))


def output_layer(activation: str) -> nn.Dense:
    """Return a last layer with all outputs near 0.5, where every loss is defined."""
    bias = -0.5 if activation in ("exponential", "softplus") else 0.5
    return nn.Dense(K, activation, weights=SMALL, biases=bias)


def network(layers: Sequence[Any], loss: Any, x: np.ndarray, seed: int = 0) -> nn.Network:
    """Return a network without a hidden unit within 1e-3 of a kink on rows x."""
    for candidate in range(seed, seed + 20):
        net = nn.Network([N_IN, *layers], loss, device="numpy", dtype="float64", seed=candidate)
        if all(np.abs(z).min() > 1e-3 for z in net.trace(x).z):
            return net
    raise AssertionError("no seed dodges the kinks")


def assert_checked(net: nn.Network, x: Any, y: Any, weight: Any = None) -> None:
    check = nn.check_gradients(net, x, y, weight, tolerance=1e-7)
    assert check.passed, str(check)
    assert np.abs([c.backprop for c in check.comparisons]).max() > 1e-6, "nothing was checked"


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", HIDDEN)
def test_hidden_layers(activation: str, loss: str, weighted: bool) -> None:
    x, y = data(loss)
    natural = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "softplus")
    net = network([nn.Dense(4, activation, weights=SPREAD), output_layer(natural)], loss, x)
    weight = np.array([0.5, 0.0, 2.0, 1.0, 3.0]) if weighted else None
    assert_checked(net, x, y, weight)


@pytest.mark.parametrize(("loss", "params"), LOSS_TABLE, ids=str)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_output_layers(activation: str, loss: str, params: tuple[float, ...]) -> None:
    """Check any output activation with any loss, fused or not."""
    x, y = data(loss, seed=1)
    net = network(
        [nn.Dense(4, "tanh", weights=SPREAD), output_layer(activation)], get_loss(loss, *params), x
    )
    check = nn.check_gradients(net, x, y, tolerance=1e-7)
    assert check.passed, str(check)


@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_maxout(loss: str, pieces: int) -> None:
    x, y = data(loss, seed=2)
    natural = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "softplus")
    layers = [nn.Maxout(3, pieces, weights=SPREAD), output_layer(natural)]
    net = nn.Network([N_IN, *layers], loss, device="numpy", dtype="float64", seed=4)
    if pieces > 1:  # the kinks of maxout are ties of the two largest pieces
        z = np.sort(net.trace(x).z[0].reshape(B, pieces, 3), axis=1)
        assert (z[:, -1] - z[:, -2]).min() > 1e-3
    assert_checked(net, x, y)


def test_maxout_at_the_output() -> None:
    x, y = data("quadratic")
    net = nn.Network([N_IN, 4, nn.Maxout(K, 3)], "quadratic", activation="tanh", device="numpy")
    assert_checked(net, x, y)


def test_layers_of_every_kind_in_one_deep_network() -> None:
    x, y = data("cross_entropy", rows=7, seed=4)
    layers = [5, nn.Maxout(4, 2), nn.Dense(6, "gelu"), nn.Dense(3, "leaky_relu"), nn.Dropout(0.5),
              nn.Dense(4, "elu"), nn.Dense(K, "softmax")]  # fmt: skip
    net = nn.Network([N_IN, *layers], activation="silu", device="numpy", dtype="float64", seed=5)
    assert_checked(net, x, y.argmax(axis=1), np.arange(7.0))


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_batch_of_one_row(loss: str) -> None:
    x, y = data(loss, rows=1, seed=6)
    natural = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "softplus")
    net = network([nn.Dense(4, "tanh", weights=SPREAD), output_layer(natural)], loss, x)
    assert_checked(net, x, y)
    assert_checked(net, x, y, [2.5])


def test_class_labels_and_one_hot() -> None:
    x, y = data("cross_entropy", rows=6)
    net = network([4, K], "cross_entropy", x)
    assert_checked(net, x, y.argmax(axis=1))
    assert_checked(net, x, y)


def test_a_single_output_with_a_vector_of_targets() -> None:
    x = np.random.default_rng(8).normal(size=(B, N_IN))
    net = network([4, 1], "quadratic", x)
    assert_checked(net, x, np.arange(B) * 1.5)


def test_a_float32_network_is_checked_in_float64_and_not_changed() -> None:
    x, y = data("quadratic")
    net = nn.Network([N_IN, 4, K], activation="tanh", device="numpy", seed=1)
    before = net.theta.copy()
    assert_checked(net, x.astype(np.float32), y)
    assert net.theta.dtype == np.float32
    assert np.array_equal(net.theta, before)


def test_a_wrong_slope_is_found() -> None:
    """The check itself fails for a wrong slope and reports where."""
    x, y = data("quadratic")
    wrong = nn.Activation("wrong", lambda z, xp: xp.tanh(z), lambda z, a, xp: 1.0 - 0.99 * a * a)
    check = nn.check_gradients(
        nn.Network([N_IN, nn.Dense(4, wrong), K], device="numpy", seed=1), x, y
    )
    assert not check
    assert check.max_error > 1e-5
    assert "FAILED" in str(check)
    assert "weights[0]" in str(check)
    wrong_loss = nn.Loss(
        "wrong", lambda a, y, xp: (0.5 * xp.sum((a - y) ** 2, axis=1), 2 * (a - y))
    )
    assert not nn.check_gradients(nn.Network([N_IN, K], wrong_loss, device="numpy"), x, y)


def test_the_check_is_printable_and_seeded() -> None:
    x, y = data("quadratic")
    net = nn.Network([N_IN, 4, K], activation="tanh", device="numpy")
    one, two = nn.check_gradients(net, x, y), nn.check_gradients(net, x, y)
    assert str(one) == str(two)
    assert str(one) != str(nn.check_gradients(net, x, y, seed=1))
    assert "passed: largest error" in str(one)
    # 5 directions, and each of the 3*4 + 4*2 weights and 4 + 2 biases.
    assert len(one.comparisons) == 5 + 20 + 6
    assert {c.what for c in one.comparisons} >= {"weights[1][3, 1]", "biases[0][2]"}


def test_a_large_network_is_checked_along_directions_only() -> None:
    x = np.random.default_rng(0).normal(size=(4, 30))
    net = nn.Network([30, 20, 2], activation="tanh", device="numpy")
    check = nn.check_gradients(net, x, np.zeros((4, 2)), n_directions=3)
    assert check
    assert len(check.comparisons) == 3
    with pytest.raises(nn.errors.ArgumentError, match="n_directions must be at least 1"):
        nn.check_gradients(net, x, np.zeros((4, 2)), n_directions=0)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Dropout(0.3), nn.Dense(4, "tanh"), nn.Dense(K, "identity")],
        [nn.Dense(6, "tanh"), nn.Dropout(0.5), nn.Dense(K, "softmax")],
        [nn.Maxout(5, 3), nn.Dropout(0.2), nn.Dense(4, "gelu"), nn.Dropout(0.6),
         nn.Dense(K, "sigmoid")],
        [nn.Dense(6, "tanh"), nn.Dropout(0.5), nn.Dropout(0.5), nn.Dense(K, "identity")],
    ],
    ids=["first", "hidden", "several", "two in a row"],
)  # fmt: skip
def test_dropout_with_a_fixed_mask(layers: list[Any]) -> None:
    """With a fixed seed and step, dropout is a deterministic function of theta."""
    loss = "cross_entropy" if layers[-1].activation.name == "softmax" else "quadratic"
    x, y = data(loss, rows=6, seed=9)
    net = nn.Network([N_IN, *layers], loss, device="numpy", dtype="float64", seed=2)
    backend = net.backend
    clock = backend.zeros((2,), "int64")
    clock[0] = 17  # the step
    grad = backend.zeros((net.n_parameters,), "float64")
    built, rule = net.for_training()
    space = net.workspace(x, built, grad=grad, dropout=DropoutSource(4, clock))

    def loss_now() -> float:
        totals = backend.zeros((4,), "float64")
        out = space.forward()
        backend.loss_and_delta(rule, out, y, None, space.out.delta, totals)
        return float(totals[0] / totals[1])

    loss_now()
    space.backward()
    got, theta, h = grad.copy(), net.theta.copy(), 1e-5
    assert np.abs(got).max() > 1e-3
    difference = np.empty_like(theta)
    for i in range(theta.size):
        v = h * np.eye(1, theta.size, i)[0]
        net.theta[:] = theta + v
        above = loss_now()
        net.theta[:] = theta - v
        difference[i] = (above - loss_now()) / (2 * h)
    np.testing.assert_allclose(got, difference, atol=1e-7 * np.abs(got).max())
    # The mask has an effect: the gradient without dropout differs.
    net.theta[:] = theta
    assert np.abs(net.backprop(x, y).vector - got).max() > 1e-3


def test_gradients_are_overwritten_not_accumulated() -> None:
    x, y = data("quadratic")
    net = nn.Network([N_IN, 4, K], device="numpy", dtype="float64")
    first, second = net.backprop(x, y), net.backprop(x, y)
    assert np.array_equal(first.vector, second.vector)
    assert first.vector is not second.vector


def test_the_mean_over_the_batch_is_computed_once() -> None:
    """Rows repeated k times change neither the loss nor any gradient."""
    x, y = data("quadratic")
    net = nn.Network([N_IN, 4, K], activation="tanh", device="numpy", dtype="float64")
    one, three = net.backprop(x, y), net.backprop(np.tile(x, (3, 1)), np.tile(y, (3, 1)))
    assert three.loss == pytest.approx(one.loss, rel=1e-14)
    np.testing.assert_allclose(three.vector, one.vector, rtol=1e-12, atol=1e-15)


def test_a_weight_of_k_equals_k_copies_of_the_row() -> None:
    x, y = data("quadratic")
    times = np.array([1, 0, 3, 2, 1])
    net = nn.Network([N_IN, 4, K], activation="tanh", device="numpy", dtype="float64")
    weighted = net.backprop(x, y, times)
    repeated = net.backprop(np.repeat(x, times, axis=0), np.repeat(y, times, axis=0))
    assert weighted.loss == pytest.approx(repeated.loss, rel=1e-13)
    np.testing.assert_allclose(weighted.vector, repeated.vector, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(net.backprop(x, y, times * 10.0).vector, weighted.vector, rtol=1e-12)
