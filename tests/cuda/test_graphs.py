"""Captured steps are replayed, and called one by one if the capture fails."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in import STATE
from stand_in_backend import new_backend

import nnbackend as nn
from nnbackend.network.activations import Activation, get_activation

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
    """A patch that makes a backend call every step."""

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
    backend.uses_narrow = backend.uses_fused = False  # they sum in another order
    got = trained(backend, activation, **options)
    assert STATE.captures > captures
    assert STATE.launches > launches
    launches = STATE.launches
    wanted = trained(Uncaptured(new_backend()).backend, activation, **options)
    assert STATE.launches == launches
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("n", [0, 1, 2, 16, 17, 18, 40])
def test_run_makes_n_steps(n: int) -> None:
    backend = new_backend()
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates = backend.zeros((2, 100), "float64")
    launches = STATE.launches
    run = backend.capture(lambda: backend.tick(clock, rates, hyper))
    run(n)
    assert backend.to_host(clock).tolist() == [n, n]
    assert STATE.launches - launches == (max(0, n - 1) // 16 + max(0, n - 1) % 16)


def test_a_step_that_cannot_be_captured_is_called_with_the_same_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = new_backend()
    launches = STATE.launches

    def step() -> None:
        backend.tick(clock, rates, hyper)
        strided[...] = strided * 2.0  # a temporary array, which a capture must not allocate

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
    (message,) = [record.message for record in caplog.records]
    assert "called one by one" in message
    assert "allocation" in message


def test_a_scalar_read_in_the_step_is_not_recorded() -> None:
    backend = new_backend()
    value = backend.zeros((1,), "float64")

    def step() -> None:
        backend.fill(value, float(backend.to_host(value)[0]) + 1.0)

    backend.capture(step)(4)
    assert backend.to_host(value).tolist() == [4.0]


# ---- work on the side stream --------------------------------------------------------------------


class Layer:
    """The arrays of a dense layer, for backward passes."""

    def __init__(self, backend: Any) -> None:
        rng = np.random.default_rng(0)
        on = lambda *shape: backend.to_device(rng.standard_normal(shape))  # noqa: E731
        self.backend, self.phi = backend, get_activation("identity")
        self.x, self.W, self.b, self.z = on(6, 4), on(4, 3), on(3), on(6, 3)
        self.deltas = [on(6, 3), on(6, 3)]
        self.dx, self.copied = on(6, 4), on(4, 3)
        self.dW, self.db = [on(4, 3) for _ in range(3)], on(3)

    def back(self, i: int = 0, delta: int = 0) -> None:
        arrays = (self.x, self.W, self.z, self.z, self.phi, self.deltas[delta], self.dW[i])
        self.backend.dense_backward(*arrays, self.db, self.dx)


def copies_the_gradient(layer: Layer) -> None:
    layer.backend.fill(layer.dW[0], 0.0)
    layer.back()
    layer.backend.copy(layer.dW[0], layer.copied)


def takes_two_buffers_in_turn(layer: Layer) -> None:
    layer.phi = Activation("half", lambda z, xp: 0.5 * z, lambda z, a, xp: 0.0 * z + 0.5)
    for i in range(3):
        layer.back(i, i % 2)


def feeds_forward_again(layer: Layer) -> None:
    W, b = layer.backend.to_device(np.eye(4) * 0.5), layer.backend.to_device(np.ones(4))
    rows = layer.backend.to_device(np.ones((6, 4)))
    feed = layer.backend.dense_forward

    def step() -> None:
        feed(rows, W, b, layer.phi, layer.x, layer.x)
        layer.back()
        feed(layer.dx, W, b, layer.phi, layer.x, layer.x)

    layer.step = step  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "work", [copies_the_gradient, takes_two_buffers_in_turn, feeds_forward_again]
)
def test_a_step_waits_for_the_side_stream_before_it_uses_its_arrays(work: Any) -> None:
    results = []
    for is_captured in (True, False):
        layer = Layer(new_backend())
        step: Any = partial(work, layer)
        if work is feeds_forward_again:
            work(layer)
            step = layer.step  # type: ignore[attr-defined]
        if is_captured:
            layer.backend.capture(step)(3)
            assert not layer.backend.report()["not_recorded"]
        else:
            for _ in range(3):
                step()
        results.append([layer.backend.to_host(a) for a in (*layer.dW, layer.copied, layer.dx)])
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


# ---- threads ------------------------------------------------------------------------------------


def in_a_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_run_that_continues_in_another_thread_is_still_captured() -> None:
    backend = new_backend()
    gradient = backend.to_device(np.full(8, 2.0))
    run = backend.capture(lambda: backend.clip_norm(gradient, 0.5))
    in_a_thread(lambda: run(1))
    in_a_thread(lambda: run(20))  # may have the id of the first thread
    run(40)
    assert backend.report()["recorded"]
    assert not backend.report()["not_recorded"]
    assert np.linalg.norm(backend.to_host(gradient)) == pytest.approx(0.5)


def test_a_fallback_in_another_thread_does_not_affect_this_step() -> None:
    backend = new_backend()
    flip = Activation("flip", lambda z, xp: xp.flip(z, axis=1), lambda z, a, xp: z)
    z, gradient = backend.zeros((2, 3), "float64"), backend.zeros((8,), "float64")
    x, W, b = (backend.zeros(shape, "float64") for shape in ((2, 4), (4, 3), (3,)))
    calls = []

    def step() -> None:
        backend.clip_norm(gradient, 0.5)
        if not calls and backend._thread_state.recorder is None:
            calls.append(in_a_thread(lambda: backend.dense_forward(x, W, b, flip, z, z)))

    backend.uses_fused = False
    backend.capture(step)(3)
    assert backend._fallbacks
    assert not backend.report()["not_recorded"]
