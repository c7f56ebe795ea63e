"""Initial weights: statistics, seeds, the same draw for every dtype."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import ArgumentError, ShapeError
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.network.initializers import INITIALIZERS, Initializer, get_initializer

FAN_IN, FAN_OUT = 300, 200
# Variance of one weight, from the papers: Glorot and Bengio 2010 eq. 12 and 16, He et al. 2015
# eq. 10, LeCun et al. 1998 eq. 16; N(0, 1); a uniform of half width 0.05.
VARIANCES = {
    "glorot_normal": 2 / 500,
    "glorot_uniform": 2 / 500,
    "he_normal": 2 / 300,
    "he_uniform": 2 / 300,
    "lecun_normal": 1 / 300,
    "lecun_uniform": 1 / 300,
    "normal": 1.0,
    "uniform": 0.1**2 / 12,
}


def draw(name: Any, *params: float, seed: int = 0) -> np.ndarray:
    layer = nn.Dense(FAN_OUT, "tanh", weights=get_initializer(name, *params))
    return nn.Network([FAN_IN, layer], device="numpy", dtype="float64", seed=seed).weights[0]


def test_every_initializer_is_tested() -> None:
    assert set(VARIANCES) | {"zeros", "constant"} == set(INITIALIZERS)


@pytest.mark.parametrize("name", sorted(VARIANCES))
def test_mean_and_variance(name: str) -> None:
    w, variance = draw(name), VARIANCES[name]
    n = w.size
    # Five standard deviations: of a mean sqrt(var / n), of a variance var sqrt((k - 1) / n) with
    # kurtosis k at most 3.
    assert abs(w.mean()) < 5 * math.sqrt(variance / n)
    assert abs(w.var() / variance - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("name", sorted(VARIANCES))
def test_the_shape_of_the_distribution(name: str) -> None:
    w = draw(name) / math.sqrt(VARIANCES[name])
    kurtosis = (w**4).mean()
    if name.endswith("uniform"):  # bounded by sqrt(3) standard deviations, kurtosis 9/5
        assert 1.72 < np.abs(w).max() <= math.sqrt(3)
        assert abs(kurtosis - 1.8) < 0.05
    else:
        assert np.abs(w).max() > 3.5
        assert abs(kurtosis - 3.0) < 0.2


def test_constants() -> None:
    assert not draw("zeros").any()
    assert (draw("constant", 0.25) == 0.25).all()
    assert (draw(0.25) == 0.25).all()
    assert draw("normal", 0.5, 3.0).mean() == pytest.approx(3.0, abs=0.02)
    assert np.abs(draw("uniform", 2.0)).max() == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_auto_depends_on_the_activation(activation: str) -> None:
    family = {"relu": "he_normal", "leaky_relu": "he_normal", "elu": "he_normal",
              "gelu": "he_normal", "silu": "he_normal", "mish": "he_normal",
              "softplus": "he_normal", "selu": "lecun_normal"}  # fmt: skip
    layer = nn.Dense(5, activation)
    assert layer.weights.name == family.get(activation, "glorot_uniform")
    assert layer.biases.name == "zeros"


def test_biases_have_a_separate_initializer() -> None:
    layers = [3, nn.Dense(400, "relu", biases=0.1), nn.Maxout(200, 2, biases="normal"), 1]
    net = nn.Network(layers, device="numpy")
    assert (net.biases[0] == np.float32(0.1)).all()
    assert net.biases[1].std() == pytest.approx(1.0, abs=0.2)
    assert not net.biases[2].any()


def test_maxout_uses_the_fans_of_one_piece() -> None:
    layer = nn.Maxout(100, 4, weights="glorot_normal")
    w = nn.Network([300, layer], device="numpy").weights[0]
    assert w.shape == (300, 400)
    assert w.var() == pytest.approx(2 / (300 + 100), rel=0.03)


def test_layers_and_seeds_draw_independently() -> None:
    layers = [10, *(nn.Dense(10, "tanh", weights="normal") for _ in range(3))]
    net = nn.Network(layers, device="numpy", seed=1)
    other = nn.Network(layers, device="numpy", seed=2)
    drawn = [w.tobytes() for w in (*net.weights, *other.weights)]
    assert len(set(drawn)) == 6
    # A layer's weights depend only on its index, not on the layers after it.
    shorter = nn.Network(layers[:3], device="numpy", seed=1)
    np.testing.assert_array_equal(shorter.weights[1], net.weights[1])


def test_dropout_changes_no_weight() -> None:
    plain = nn.Network([4, 5, 2], device="numpy", seed=3)
    dropped = nn.Network([4, nn.Dropout(0.1), 5, nn.Dropout(0.5), 2], device="numpy", seed=3)
    np.testing.assert_array_equal(plain.theta, dropped.theta)


@pytest.mark.parametrize("name", sorted(VARIANCES))
def test_float32_is_float64_rounded(name: str) -> None:
    layers = [20, nn.Dense(30, "tanh", weights=name, biases="normal"), 2]
    double = nn.Network(layers, device="numpy", dtype="float64", seed=7).theta
    single = nn.Network(layers, device="numpy", dtype="float32", seed=7).theta
    np.testing.assert_array_equal(single, double.astype(np.float32))


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_initializers_can_be_pickled(name: str) -> None:
    again = pickle.loads(pickle.dumps(get_initializer(name)))
    assert again == get_initializer(name)
    np.testing.assert_array_equal(draw(again), draw(name))
    numbered = pickle.loads(pickle.dumps(get_initializer("normal", 0.1, 2.0)))
    assert numbered.params == (0.1, 2.0)


def test_a_custom_initializer() -> None:
    eye = Initializer("eye", lambda rng, shape, fan_in, fan_out: np.eye(*shape))
    net = nn.Network([3, nn.Dense(3, "identity", weights=eye)], device="numpy")
    np.testing.assert_array_equal(net.weights[0], np.eye(3))
    flat = Initializer("flat", lambda rng, shape, fan_in, fan_out: np.ones(3))
    with pytest.raises(ShapeError, match="weights must have the shapes"):
        nn.Network([3, nn.Dense(3, "identity", weights=flat)], device="numpy")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Dense(3, weights="he_norml"), "Did you mean 'he_normal'"),
        (lambda: nn.Maxout(3, biases="zero"), "Did you mean 'zeros'"),
        (lambda: nn.Dense(3, weights=None), "initializer must be a name, a number"),
        (lambda: nn.Dense(3, weights=True), "initializer must be a name, a number"),
        (lambda: get_initializer("normal", -1.0), "std of normal must be at least 0.*std=-1.0"),
        (lambda: get_initializer("uniform", -1.0), "limit of uniform must be at least 0"),
    ],
)
def test_invalid_initializers_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        make()


def test_an_array_of_weights_is_refused() -> None:
    with pytest.raises(ArgumentError, match="initializer must be a name, a number or"):
        nn.Dense(2, weights=np.ones((3, 2)))
