"""Captured steps: recorded, replayed, and called one by one where that fails."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in import STATE
from stand_in_backend import new_backend

import nnbackend as nn

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


def trained(device: Any, activation: Any = "tanh", n_rows: int = 48, **options: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, 6)).astype(np.float32)
    y = (x @ rng.standard_normal((6, 3))).argmax(axis=1)
    layers = [6, nn.Dense(9, activation), nn.Dropout(0.3), nn.Dense(3, "softmax")]
    net = nn.Network(layers, "cross_entropy", device=device, dtype="float32", seed=4)
    nn.train(net, x, y, **{"epochs": 12, "batch_size": 10, "seed": 6, **options})
    return net.backend.to_host(net.theta)


class Uncaptured:
    """Makes a backend call every step."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        backend.capture = self.capture

    def capture(self, step: Any) -> Any:
        def run(n: int) -> None:
            for _ in range(n):
                step()

        return run


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity", "elu"])
def test_replayed_steps_give_the_bits_of_called_ones(activation: str) -> None:
    captures, launches = STATE.captures, STATE.launches
    options = {"clip_norm": 1.0, "l2": 1e-3, "ema": 0.9, "max_norm": 2.0}
    backend = new_backend()
    backend.uses_narrow = backend.uses_fused = False  # they add up in another order
    got = trained(backend, activation, **options)
    assert STATE.captures > captures
    assert STATE.launches > launches
    launches = STATE.launches
    wanted = trained(Uncaptured(new_backend()).backend, activation, **options)
    assert STATE.launches == launches
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("n", [0, 1, 2, 16, 17, 18, 40])
def test_n_steps_are_n_steps(n: int) -> None:
    backend = new_backend()
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates = backend.zeros((2, 100), "float64")
    launches = STATE.launches
    run = backend.capture(lambda: backend.tick(clock, rates, hyper))
    run(n)
    assert backend.to_host(clock).tolist() == [n, n]
    assert STATE.launches - launches == (max(0, n - 1) // 16 + max(0, n - 1) % 16)


def test_what_cannot_be_recorded_is_called_with_the_same_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = new_backend()
    launches = STATE.launches

    def step() -> None:
        backend.tick(clock, rates, hyper)
        strided[...] = strided * 2.0  # a temporary: memory that a capture may not take

    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates, strided = backend.zeros((2, 9), "float64"), backend.zeros((2,), "float64")
    strided.fill(1.0)
    with caplog.at_level(logging.WARNING, logger="nnbackend.cupy"):
        run = backend.capture(step)
        run(3)
        run(2)
    assert backend.to_host(strided).tolist() == [32.0, 32.0]
    assert backend.to_host(clock).tolist() == [5, 5]
    assert STATE.launches == launches
    (said,) = [record.message for record in caplog.records]
    assert "called one by one" in said
    assert "allocation" in said


def test_a_scalar_read_in_the_step_is_not_recorded() -> None:
    backend = new_backend()
    value = backend.zeros((1,), "float64")

    def step() -> None:
        backend.fill(value, float(backend.to_host(value)[0]) + 1.0)

    backend.capture(step)(4)
    assert backend.to_host(value).tolist() == [4.0]
