"""Each barrier is needed: with any one of them taken out, some thread order gives wrong numbers.

The proof that the emulator would find a forgotten one.
"""

from __future__ import annotations

import numpy as np
import pytest
from emulated import EmulatedBackend
from emulator import LACKING, EmulationError

from nnbackend.backend import Backend, philox
from nnbackend.network.losses import get_loss
from nnbackend.network.scores import SQUARED_ERROR
from nnbackend.testing import ReferenceBackend
from nnbackend.training.optimizers import SGD
from nnbackend_cupy import grids, sources

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))

BARRIER = "__syncthreads();"
BARRIERS = [
    (path.name, i)
    for path in sorted(sources.FOLDER.glob("*.cu"))
    for i in range(path.read_text(encoding="utf-8").count(BARRIER))
]
ORDERS = range(8)  # some need blocks to change places at one moment of many


def without(text: str, i: int) -> str:
    """Take out one barrier."""
    parts = text.split(BARRIER)
    return BARRIER.join(parts[: i + 1]) + BARRIER.join(["", *parts[i + 1 :]])[len(BARRIER) :]


def results(backend: Backend) -> list[np.ndarray]:
    """Run one kernel for each barrier, on sizes that several blocks share."""
    rng = np.random.default_rng(0)
    delta, db, totals = rng.standard_normal((700, 5)), np.zeros(5), np.zeros(4)
    y, weight, out = rng.standard_normal((700, 5)), rng.random(700), np.zeros((700, 5))
    backend.loss_and_delta(get_loss("quadratic"), delta, y, weight, out, totals)
    backend.add_score(SQUARED_ERROR, delta, y, None, totals)
    theta, hyper = rng.standard_normal(900), np.array([0.1, 0.9, 3.0])
    backend.optimizer_step(SGD(momentum=0.9), theta, delta.ravel()[:900], [theta + 1], hyper, 0, 0)
    W = rng.standard_normal((300, 5))
    backend.max_norm(W, 0.5)
    a, mask = np.zeros((700, 5)), np.zeros((700, 5), bool)
    backend.dropout_forward(delta, 0.5, (1, 2), np.array([3, 1]), 0, a, mask)
    if isinstance(backend, EmulatedBackend):
        backend.kernels.bias_gradient(delta, db)
    else:
        db[...] = delta.sum(axis=0)
    return [out, totals, theta, W, a, db]


def is_right(order: int) -> bool:
    """Tell whether the emulated kernels give what the reference gives."""
    try:
        got, wanted = results(EmulatedBackend(order)), results(ReferenceBackend())
    except EmulationError:
        return False
    return all(np.allclose(g, w, rtol=1e-9, atol=1e-9) for g, w in zip(got, wanted, strict=True))


@pytest.fixture(autouse=True)
def _small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "MOST_BLOCKS", 12)
    grids.over_columns.cache_clear()


def test_all_is_right_with_all_barriers() -> None:
    assert all(is_right(order) for order in ORDERS)


@pytest.mark.parametrize(("file", "i"), BARRIERS)
def test_a_barrier_less_shows(monkeypatch: pytest.MonkeyPatch, file: str, i: int) -> None:
    whole = sources._file
    monkeypatch.setattr(
        sources, "_file", lambda name: without(whole(name), i) if name == file else whole(name)
    )
    assert not all(is_right(order) for order in ORDERS)


def test_the_number_of_barriers() -> None:
    assert len(BARRIERS) == 7
    assert without(f"a{BARRIER}b{BARRIER}c", 1) == f"a{BARRIER}bc"
    assert philox.UNITS_PER_BLOCK == 16  # as layers.cu has it
