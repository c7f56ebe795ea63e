"""Networks packed into one, and the calibration of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

import nnbackend as nn
from nnbackend.errors import ArgumentError
from nnbackend.model.calibration import temperature
from nnbackend.model.packing import pack

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
LAYERS: dict[str, list[Any]] = {
    "dense": [nn.Dense(7, "tanh"), nn.Dropout(0.3), nn.Dense(4, "silu")],
    "maxout": [nn.Maxout(6, 3), nn.Maxout(4, 2), nn.Dense(3, "relu")],
    "no hidden layer": [],
}


@pytest.mark.parametrize("hidden", LAYERS.values(), ids=LAYERS)
def test_a_regression_packs_to_the_mean_of_its_members(hidden: list[Any]) -> None:
    members = [nn.Network([5, *hidden, 2], device="numpy", seed=seed) for seed in range(3)]
    for seed, net in enumerate(members):
        rng = np.random.default_rng(seed)
        weights, biases = net.get_parameters()
        net.set_parameters(weights, [rng.normal(size=b.shape) for b in biases])
    expected = np.mean([net.outputs(X) for net in members], axis=0)
    np.testing.assert_allclose(pack(members).outputs(X), expected, rtol=1e-5, atol=1e-6)


def test_a_classifier_packs_to_the_geometric_mean_of_probabilities() -> None:
    members = [
        nn.Network([5, 8, 3], loss="cross_entropy", device="numpy", seed=seed) for seed in range(4)
    ]
    product = np.prod([net.outputs(X).astype(np.float64) for net in members], axis=0) ** 0.25
    expected = product / product.sum(axis=1, keepdims=True)
    packed = pack(members)
    np.testing.assert_allclose(packed.outputs(X), expected, rtol=1e-5)
    assert packed.layers[0].n_outputs(5) == 32


def test_members_of_other_shapes_are_refused() -> None:
    members = [nn.Network([5, width, 1], device="numpy") for width in (3, 4)]
    with pytest.raises(ArgumentError, match="equal layers"):
        pack(members)


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_temperature_finds_the_factor_of_distorted_logits(factor: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 3)) * 2.0
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    codes = (p.cumsum(axis=1) < rng.random((len(z), 1))).sum(axis=1)
    found = temperature(factor * z, codes, np.ones(len(z)))
    assert found == pytest.approx(factor, rel=0.05)


def test_temperature_has_the_least_loss_nearby() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1.0, 1.0], size=500)
    log_p, codes = np.log(p), (p[:, 1] > rng.normal(0.5, 0.3, 500)).astype(int)
    weights = rng.random(500)

    def loss(t: float) -> float:
        p = np.exp(log_p / t)
        return float(log_loss(codes, p / p.sum(axis=1, keepdims=True), sample_weight=weights))

    t = temperature(log_p, codes, weights)
    assert loss(t) <= min(loss(1.02 * t), loss(t / 1.02))
