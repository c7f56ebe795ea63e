"""Recorded steps with products of bfloat16 operands: close to float32, and the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnbackend as nn

pytest.importorskip("numba", reason="numba is not installed")

from nnbackend_numba import pairs, partitioning, program
from nnbackend_numba.backend import NumbaBackend

pytestmark = pytest.mark.skipif(not pairs.is_available(), reason="the processor has no AVX512-BF16")
ROUNDING = 2.0**-8  # of one operand, relative


@pytest.fixture(autouse=True)
def _partition_small_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WORK_PER_WORKER", 1)
    monkeypatch.setattr(program, "MIN_PARALLEL_WORK", 1)
    monkeypatch.setattr(partitioning, "MIN_INPUTS_PER_WORKER", 2)


def trained(
    precision: str, workers: int, sizes: tuple[int, ...], batch: int, **options: Any
) -> Any:
    """Return the movement of the weights in one epoch, from the same weights for each precision."""
    backend = NumbaBackend(precision)
    backend._threads = workers
    hidden = [nn.Dense(n, "tanh") for n in sizes[1:-1]]
    layers = [sizes[0], *hidden, nn.Dense(sizes[-1], "softmax")]
    net = nn.Network(layers, "cross_entropy", device=backend, seed=0)
    before, rng = [W.copy() for W in net.weights], np.random.default_rng(0)
    x, y = rng.standard_normal((61, sizes[0])), rng.integers(0, sizes[-1], 61)
    nn.train(net, x, y, epochs=1, batch_size=batch, optimizer=nn.SGD(0.1), seed=0, **options)
    return [W - old for W, old in zip(net.weights, before, strict=True)]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    ("sizes", "batch", "options"),
    [
        ((33, 2), 61, {}),
        ((33, 21, 3), 13, {}),
        ((131, 71, 130, 41), 17, {}),
        ((131, 71, 130, 41), 50, {"clip_norm": 0.5}),
        ((64, 64, 32), 16, {"l2": 1e-3}),
    ],
)
def test_weights_move_as_with_float32(
    sizes: tuple[int, ...], batch: int, options: dict[str, Any], workers: int
) -> None:
    exact = trained("float32", workers, sizes, batch, **options)
    narrow = trained("bf16", workers, sizes, batch, **options)
    again = trained("bf16", workers, sizes, batch, **options)
    for W, expected, repeated in zip(narrow, exact, again, strict=True):
        np.testing.assert_array_equal(W, repeated)
        assert not np.array_equal(W, expected)
        assert np.abs(W - expected).max() < 4 * ROUNDING * np.abs(expected).max()


def test_float64_and_direct_calls_are_exact() -> None:
    x = np.random.default_rng(0).standard_normal((70, 33))
    for dtype in ("float32", "float64"):
        outputs = [
            nn.Network([33, 9, 2], device="numba", dtype=dtype, precision=precision).outputs(x)
            for precision in ("float32", "bf16")
        ]
        np.testing.assert_array_equal(*outputs)
