"""Weight gradients of many rows and few units: their kernels, and when a backend uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulator import LACKING, ORDERS, EmulationError, compile_on_host
from stand_in_backend import modules, new_backend

import nnbackend as nn
from nnbackend_cupy import grids, sources
from nnbackend_cupy.kernels import Kernels
from nnbackend_cupy.tracing import Untraceable

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
SIZES = [
    *((1, 1, 1), (5, 3, 1), (700, 1, 65), (333, 130, 1), (1000, 64, 1), (530, 64, 10)),
    *((257, 10, 16), (301, 16, 33), (290, 33, 16), (129, 17, 17), (33, 33, 65), (400, 64, 64)),
    *((1301, 65, 33), (211, 130, 68), (97, 20, 130)),
]


def kernels(order: int | None = None, multiprocessors: int = 3) -> Kernels:
    return Kernels(
        lambda source, name: compile_on_host(source, name, order), np.zeros, multiprocessors
    )


def arrays(
    sizes: tuple[int, int, int], dtype: str, offset: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, delta, dW and db, each `offset` numbers after an aligned address."""
    rows, n_in, n_out = sizes
    rng = np.random.default_rng(rows)

    def placed(*shape: int) -> np.ndarray:
        n = int(np.prod(shape))
        whole = np.zeros(n + 64 + offset, dtype)
        begin = -whole.ctypes.data % 64 // whole.itemsize + offset
        return whole[begin : begin + n].reshape(shape)

    x, delta, dW, db = placed(rows, n_in), placed(rows, n_out), placed(n_in, n_out), placed(n_out)
    x[...], delta[...] = rng.standard_normal(x.shape), rng.standard_normal(delta.shape)
    dW.fill(np.nan)
    db.fill(np.nan)
    return x, delta, dW, db


def agree(x: np.ndarray, delta: np.ndarray, dW: np.ndarray, db: np.ndarray) -> None:
    tolerance = len(x) ** 0.5 * (1e-14 if dW.dtype == np.float64 else 2e-6)
    wide, gradient = x.astype(np.float64), delta.astype(np.float64)
    np.testing.assert_allclose(dW, wide.T @ gradient, rtol=0, atol=4 * tolerance)
    np.testing.assert_allclose(db, gradient.sum(axis=0), rtol=0, atol=4 * tolerance)


# ---- the kernels --------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0, 1])
def test_weight_gradients(sizes: tuple[int, int, int], dtype: str, offset: int) -> None:
    made = kernels()
    for given in (arrays(sizes, dtype, offset), arrays(sizes, dtype, offset)):
        made.weight_gradient(
            *given
        )  # the second starts with the sums of the first in scratch memory
        agree(*given)


@pytest.mark.parametrize("sizes", [(700, 64, 64), (410, 33, 70), (520, 20, 7), (520, 7, 20)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_order_of_threads_gives_the_same_bits(
    sizes: tuple[int, int, int], dtype: str
) -> None:
    results = set()
    for order in ORDERS:
        given = arrays(sizes, dtype)
        kernels(order).weight_gradient(*given)
        agree(*given)
        results.add((given[2].tobytes(), given[3].tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("sizes", [(100, 70, 66), (100, 66, 5), (100, 5, 66)])
def test_nan_stays_in_its_row_and_column(sizes: tuple[int, int, int]) -> None:
    x, delta, dW, db = arrays(sizes, "float32")
    x[70, 3], delta[99, 4] = np.nan, np.inf
    kernels().weight_gradient(x, delta, dW, db)
    with np.errstate(invalid="ignore"):
        wanted = np.isfinite(x.T @ delta)
    assert not wanted[3].any()
    assert not wanted[:, 4].any()
    np.testing.assert_array_equal(np.isfinite(dW), wanted)
    np.testing.assert_array_equal(np.isfinite(db), np.arange(len(db)) != 4)


@pytest.mark.parametrize("sizes", [(0, 20, 20), (0, 20, 1)])
def test_the_gradient_of_no_rows_is_zero(sizes: tuple[int, int, int]) -> None:
    x, delta, dW, db = arrays(sizes, "float32")
    kernels().weight_gradient(x, delta, dW, db)
    assert not dW.any()
    assert not db.any()


def test_unsupported_arrays_are_refused() -> None:
    x, delta, dW, db = arrays((6, 4, 3), "float32")
    for given in (
        (x[::2], delta[::2], dW, db),
        (x, delta, dW.T.copy().T, db),
        (x, delta.astype("f8"), dW, db),
        (*(a.astype("f2") for a in (x, delta, dW, db)),),
        (x[:, :0].copy(), delta, dW[:0], db),
    ):
        with pytest.raises(Untraceable):
            kernels().weight_gradient(*given)


@pytest.mark.parametrize("tiles", [1, 2, 4, 300])
@pytest.mark.parametrize("rows", [0, 1, 17, 1000, 8192, 65536, 1_000_003])
def test_the_grid_covers_all_rows_once(rows: int, tiles: int) -> None:
    chunks, rows_of_block = grids.over_tall(rows, tiles, 132)
    assert rows_of_block % grids.TALL_STAGE == 0
    assert (chunks - 1) * rows_of_block < max(rows, 1) <= chunks * rows_of_block
    assert tiles * chunks <= max(tiles, 264)


def test_each_lane_has_separate_sums() -> None:
    made, given = kernels(), arrays((200, 20, 20), "float32")
    made.weight_gradient(*given, 0)
    made.weight_gradient(*given, 1)
    made.weight_gradient(*given, 1)
    assert len(made._local.arrays) == 2


@pytest.mark.parametrize(
    ("text", "instead", "sizes"),
    [
        ("wait_for_copies<STAGES - 2>();", "", (700, 64, 64)),
        ("wait_for_copies<STAGES - 2>();", "wait_for_copies<STAGES - 1>();", (700, 64, 64)),
        ("is_packable(x) && is_packable(delta)", "true", (100, 64, 64)),
        ("n_in % V == 0 && n_out % V == 0", "n_in % V == 0", (100, 64, 65)),
        ("n_in % V == 0 && n_out % V == 0", "n_out % V == 0", (100, 65, 64)),
        ("n_many % V == 0 && is_packable(many)", "n_many % V == 0", (100, 64, 3)),
    ],
)
def test_a_missing_wait_or_check_is_detected(
    monkeypatch: pytest.MonkeyPatch, text: str, instead: str, sizes: tuple[int, int, int]
) -> None:
    whole, files = sources.file_text, ("weight_gradient.cu", "thin_gradient.cu")
    assert sum(whole(file).count(text) for file in files) == 1
    monkeypatch.setattr(sources, "file_text", lambda name: whole(name).replace(text, instead))

    def check() -> None:
        for order in ORDERS:
            for offset in (0, 1):
                given = arrays(sizes, "float32", offset)
                kernels(order).weight_gradient(*given)
                agree(*given)

    with pytest.raises((EmulationError, AssertionError)):
        check()


# ---- in training --------------------------------------------------------------------------------


@pytest.fixture
def low_threshold(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    space = modules().CuPyBackend._is_tall.__globals__
    return lambda rows: monkeypatch.setitem(space, "TALL_ROWS", rows)


def trained(dtype: str = "float32", precision: str = "float32") -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 20)).astype(dtype)
    y = (x @ rng.standard_normal((20, 3))).argmax(axis=1)
    backend = new_backend(precision)
    backend.uses_narrow = False
    layers = [nn.Dense(20, "tanh"), nn.Dense(20, "relu"), 3]
    net = nn.Network([20, *layers], "cross_entropy", device=backend, dtype=dtype, seed=4)
    nn.train(net, x, y, epochs=3, batch_size=128, seed=6)
    return backend, backend.to_host(net.theta)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_gives_the_weights_of_the_products(
    dtype: str, low_threshold: Callable[[int], None]
) -> None:
    by_products, wanted = trained(dtype)
    low_threshold(100)
    own, got = trained(dtype)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    counts = [len(backend.report()["products"]) for backend in (own, by_products)]
    assert counts[0] < counts[1]
    assert not own.report()["not_recorded"]
    # That of the first layer runs on the main stream.
    lanes = {lane for role, lane, _ in own._kernels._local.arrays if role == "partial"}
    assert lanes == {0, 1}


def test_when_a_backend_uses_the_kernels() -> None:
    plain, fast = new_backend(), new_backend("tf32")
    for backend, dtype, sizes, expected in (
        (plain, "f4", (8192, 64, 64), True),
        (plain, "f4", (8191, 64, 64), False),
        (plain, "f4", (8192, 128, 128), True),
        (plain, "f4", (8192, 129, 128), False),
        (plain, "f4", (8192, 256, 64), True),
        (plain, "f4", (8192, 1, 257), False),
        (plain, "f8", (8192, 64, 64), True),
        (plain, "f8", (8192, 65, 64), False),
        (fast, "f4", (8192, 64, 64), True),
        (fast, "f4", (8192, 65, 64), False),
    ):
        rows, n_in, n_out = sizes
        x, dW = np.broadcast_to(np.zeros(1, dtype), (rows, n_in)), np.zeros((n_in, n_out), dtype)
        assert backend._is_tall(x, dW) is expected, (backend.precision, dtype, sizes)


def test_cublaslt_computes_what_the_kernels_refuse(low_threshold: Callable[[int], None]) -> None:
    low_threshold(4)
    backend = new_backend()
    whole = backend.to_device(np.arange(48, dtype="f").reshape(8, 6))
    delta, db = backend.to_device(np.ones((8, 2), "f")), backend.zeros((2,), "float32")
    dW = backend.zeros((3, 2), "float32")
    backend._weight_gradient(whole[:, :3], delta, dW, db, 0)
    host = backend.to_host(whole)
    np.testing.assert_allclose(backend.to_host(dW), host[:, :3].T @ np.ones((8, 2)))
    np.testing.assert_array_equal(backend.to_host(db), 8.0)
    assert not backend.report()["fallbacks"]
