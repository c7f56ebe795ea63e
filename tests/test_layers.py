"""Layers as records: sizes, equality, invalid options; dropout's arithmetic."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import ArgumentError
from nnbackend.network.workspace import DropoutSource

LAYERS = [nn.Dense(3), nn.Dense(2, "elu", "normal", 0.1), nn.Maxout(4, 3), nn.Dropout(0.25)]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers_are_records(layer: Any) -> None:
    again = pickle.loads(pickle.dumps(layer))
    assert again == layer
    assert hash(again) == hash(layer)
    with pytest.raises(FrozenInstanceError):
        layer.n_out = 5
    # One layer can be used in several networks, and several times in one.
    if not isinstance(layer, nn.Dropout):
        size = layer.n_out
        shared = nn.Network([size, layer, layer], device="numpy")
        assert len(shared.weights) == 2
        assert not np.shares_memory(shared.weights[0], shared.weights[1])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Dense(0), "n_out must be a whole number, at least 1. Received: n_out=0"),
        (lambda: nn.Dense(-1), "n_out must be a whole number"),
        (lambda: nn.Dense(2.5), "n_out must be a whole number.*n_out=2.5"),
        (lambda: nn.Dense(True), "n_out must be a whole number.*n_out=True"),
        (lambda: nn.Maxout(0), "n_out must be a whole number"),
        (lambda: nn.Maxout(3, 0), "n_pieces must be a whole number, at least 1"),
        (lambda: nn.Maxout(3, 1.5), "n_pieces must be a whole number"),
        (
            lambda: nn.Dropout(1.0),
            "drop_rate must be a number of at least 0 and below 1.*=1.0",
        ),
        (lambda: nn.Dropout(-0.1), "drop_rate must be a number of at least 0"),
        (lambda: nn.Dropout(float("nan")), "drop_rate must be a number of at least 0"),
        (lambda: nn.Dense(3, 5), "activation must be a name or an nnbackend.Activation"),
    ],
)
def test_invalid_options_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        make()


def dropped(
    rate: float, step: int, *, seed: int = 0, rows: int = 50, units: int = 40
) -> np.ndarray:
    """Return dropout's output for ones, from a network of identity layers."""
    layers = [units, nn.Dropout(rate), nn.Dense(units, "identity")]
    net = nn.Network(layers, device="numpy", dtype="float64")
    net.set_parameters([np.eye(units)], [np.zeros(units)])
    clock = net.backend.zeros((2,), "int64")
    clock[0] = step
    space = net.workspace(np.ones((rows, units)), dropout=DropoutSource(seed, clock))
    return space.forward().copy()


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_kept_units_are_scaled_up_and_the_mean_stays(rate: float) -> None:
    a = dropped(rate, 1, rows=2000)
    assert set(np.round(np.unique(a), 12)) <= {0.0, round(1 / (1 - rate), 12)}
    deviation = np.sqrt(rate / (1 - rate) / a.size)
    assert abs(a.mean() - 1.0) <= 5 * deviation + 1e-4  # the rate is rounded to 1 / 65536


def test_every_step_seed_and_row_drops_different_units() -> None:
    assert np.array_equal(dropped(0.5, 3), dropped(0.5, 3))
    assert not np.array_equal(dropped(0.5, 3), dropped(0.5, 4))
    assert not np.array_equal(dropped(0.5, 3), dropped(0.5, 3, seed=1))
    assert len({row.tobytes() for row in dropped(0.5, 3)}) == 50


def test_a_part_of_a_batch_has_the_mask_of_the_whole() -> None:
    net = nn.Network([9, nn.Dropout(0.4), nn.Dense(9, "identity", weights=1.0)], device="numpy")
    x = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float32)
    clock = net.backend.zeros((2,), "int64")
    whole = net.workspace(x, dropout=DropoutSource(3, clock)).forward()
    part = net.workspace(x[5:].copy(), dropout=DropoutSource(3, clock, first_row=5)).forward()
    np.testing.assert_allclose(part, whole[5:], rtol=1e-6)


def test_two_dropout_layers_draw_independently() -> None:
    """Each layer has independent bits, addressed by its index."""
    layers = [400, nn.Dropout(0.5), nn.Dropout(0.5), nn.Dense(400, "identity")]
    net = nn.Network(layers, device="numpy", dtype="float64")
    net.set_parameters([np.eye(400)], [np.zeros(400)])
    clock = net.backend.zeros((2,), "int64")
    a = net.workspace(np.ones((10, 400)), dropout=DropoutSource(0, clock)).forward()
    assert abs((a > 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
