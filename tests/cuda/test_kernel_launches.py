"""Launches of kernels: their number, grids and memory; and unsupported arguments.

The shapes complete those of the conformance kit: more elements than threads, sums that several
blocks share. Small limits of the grid reach them with little work.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from emulated import EmulatedBackend
from emulator import LACKING, ORDERS, EmulationError, compile_on_host

from nnbackend.backend import Backend, philox
from nnbackend.network.activations import Activation, get_activation
from nnbackend.network.evaluation.scores import ACCURACY
from nnbackend.network.losses import get_loss
from nnbackend.testing import ReferenceBackend
from nnbackend.training.optimizers import SGD, Adam
from nnbackend_cupy import grids, losses, sources
from nnbackend_cupy.grids import over_columns
from nnbackend_cupy.kernels import Kernels
from nnbackend_cupy.tracing import Untraceable

needs_emulator = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
every_order = pytest.mark.parametrize("order", ORDERS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
REFERENCE = ReferenceBackend()
TANH, SOFTMAX = get_activation("tanh"), get_activation("softmax")
CROSS_ENTROPY = get_loss("cross_entropy").fused()


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the GPU to three blocks."""
    monkeypatch.setattr(grids, "MAX_BLOCKS", 6)
    monkeypatch.setattr(grids, "FEW_BLOCKS", 2)
    monkeypatch.setattr(losses, "MANY_ROWS", 50)


def normal(*shape: int, dtype: str = "float64", seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def agree(got: np.ndarray, wanted: np.ndarray) -> None:
    tolerance = 1e-12 if got.dtype == np.float64 else 2e-5
    scale = float(abs(wanted).max())
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale)


# ---- more than one round, more than one block ---------------------------------------------------


@needs_emulator
@every_order
@every_dtype
@pytest.mark.parametrize(("rows", "columns"), [(530, 12), (1703, 1), (301, 37), (4100, 3)])
@pytest.mark.usefixtures("small_gpu")
def test_layers_of_many_rows(order: int, dtype: str, rows: int, columns: int) -> None:
    kernels, shape = EmulatedBackend(order).kernels, (rows, columns)
    z, b, delta = normal(*shape, dtype=dtype), normal(columns, dtype=dtype), normal(*shape, seed=2)
    delta = delta.astype(dtype)
    a, db = np.full_like(z, np.nan), np.full_like(b, np.nan)
    z64, delta64 = z.astype(np.float64) + b, delta.astype(np.float64)
    kernels.bias_activation(z, b, a, TANH)
    agree(z, z64)
    agree(a, np.tanh(z64))
    delta64 = TANH.delta(delta64, z64, np.tanh(z64), np)
    kernels.slope(delta, z, a, TANH)
    agree(delta, delta64)
    kernels.bias_gradient(delta, db)
    agree(db, delta64.sum(axis=0))
    kernels.slope(delta, z, a, TANH)
    agree(delta, TANH.delta(delta64, z64, np.tanh(z64), np))


@needs_emulator
@every_order
@every_dtype
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(("rows", "columns"), [(900, 1), (123, 40), (51, 9), (7, 100)])
@pytest.mark.usefixtures("small_gpu")
def test_losses_of_many_rows(
    order: int, dtype: str, weighted: bool, rows: int, columns: int
) -> None:
    out = normal(rows, columns, dtype=dtype)
    y = np.random.default_rng(3).integers(0, columns, rows).astype(np.int32)
    weight = abs(normal(rows, dtype=dtype, seed=4)) if weighted else None
    delta, totals = np.full_like(out, np.nan), np.array([3e7, 1.0, 2.0, 5.0])
    wide = [None if v is None else v.astype(np.float64) for v in (out, weight)]
    wanted, sums = np.empty((rows, columns)), totals.copy()
    REFERENCE.loss_and_delta(CROSS_ENTROPY, wide[0], y, wide[1], wanted, sums)
    REFERENCE.add_score(ACCURACY, wide[0], y, wide[1], sums)
    kernels = EmulatedBackend(order).kernels
    kernels.loss_and_delta(CROSS_ENTROPY, out, y, weight, delta, totals)
    kernels.add_score(ACCURACY, out, y, weight, totals)
    agree(delta, wanted)
    np.testing.assert_allclose(totals, sums, rtol=1e-12 if dtype == "float64" else 1e-6)


@needs_emulator
@every_order
@every_dtype
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.usefixtures("small_gpu")
def test_vectors_longer_than_a_round(order: int, dtype: str, offset: int) -> None:
    n = 7001
    kernels, rule = EmulatedBackend(order).kernels, Adam(0.05)
    arrays = [normal(n + 1, dtype=dtype, seed=k)[offset : offset + n] for k in range(4)]
    arrays[3] **= 2
    theta, g, m, v = arrays
    wide = [a.astype(np.float64) for a in arrays]
    hyper, totals, sums = np.array([0.05, 0.0, 3.0]), np.zeros(4), np.zeros(4)
    for backend, (theta, g, m, v), into in ((kernels, arrays, totals), (REFERENCE, wide, sums)):
        backend.add_penalty(theta[:4000], g[:4000], 0.01, 0.1, 32, into)
        backend.clip_norm(g, 3.0)
        backend.optimizer_step(rule, theta, g, [m, v], hyper, 0.1, 4000)
        backend.average(theta, m, 0.9, hyper)
    for got, wanted in zip(arrays, wide, strict=True):
        agree(got, wanted)
    np.testing.assert_allclose(totals, sums, rtol=1e-5)


@needs_emulator
@every_order
@pytest.mark.usefixtures("small_gpu")
def test_dropout_draws_the_bits_of_the_host(order: int) -> None:
    x = normal(70, 53)
    a, mask, clock = np.empty_like(x), np.empty(x.shape, bool), np.array([12, 3])
    kernels = EmulatedBackend(order).kernels
    kernels.dropout_forward(x, 0.4, (2**64 - 1, 5), clock, 1000, a, mask)
    wanted = philox.host_mask(2**64 - 1, 5, 12, 1000, x.shape, 0.4)
    np.testing.assert_array_equal(mask, wanted)
    assert 0.5 < mask.mean() < 0.7
    np.testing.assert_array_equal(a, x * (wanted * (1.0 / 0.6)))


@needs_emulator
@every_order
@pytest.mark.usefixtures("small_gpu")
def test_other_matrices_longer_than_a_round(order: int) -> None:
    z, a, which = normal(300, 21), np.zeros((300, 7)), np.zeros((300, 7), np.int32)
    dz, mask, dx, W = np.zeros_like(z), normal(300, 7) > 0, np.zeros((300, 7)), normal(400, 9)
    shift, factor = normal(21), normal(21, seed=2)
    got = []
    for backend in (EmulatedBackend(order), REFERENCE):
        x, w = z.copy(), W.copy()
        backend.maxout_forward(z, a, which)
        backend.maxout_backward(a, which, dz)
        backend.dropout_backward(a, mask, 0.3, dx)
        backend.scale_rows(x, shift, factor, 2.0, x)
        backend.max_norm(w, 19.0)
        got.append([v.copy() for v in (a, which, dz, dx, x, w)])
    for ours, theirs in zip(*got, strict=True):
        agree(ours.astype(np.float64), theirs)
    assert 0 < (got[1][5] != W).any(axis=0).sum() < 9


@needs_emulator
def test_dropout_at_its_threshold() -> None:
    # The first unit's bits equal the threshold, so it is dropped; with one more, it is kept.
    bits = philox.host_bits(3, 0, 1, 0, (1, 16))
    x, clock = np.ones((1, 16)), np.array([1, 0])
    for above in (0, 1):
        a, mask = np.empty_like(x), np.empty(x.shape, bool)
        rate = 1.0 - (int(bits[0, 0]) + above) / 65536
        EmulatedBackend().kernels.dropout_forward(x, rate, (3, 0), clock, 0, a, mask)
        np.testing.assert_array_equal(mask, philox.host_mask(3, 0, 1, 0, x.shape, rate))
        assert mask[0, 0] == (above == 1)


@needs_emulator
@every_order
def test_a_sum_of_more_parts_than_a_block_has_strips(
    order: int, monkeypatch: pytest.MonkeyPatch, small_gpu: None
) -> None:
    monkeypatch.setattr(grids, "MAX_BLOCKS", 64)
    (_, chunks), sizes = over_columns(1300, 37)
    assert chunks > grids.THREADS // sizes["width"]
    delta, db = normal(1300, 37), np.full(37, np.nan)
    EmulatedBackend(order).kernels.bias_gradient(delta, db)
    agree(db, delta.sum(axis=0))


@needs_emulator
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int32", "float32", "float64", "bool"])
@pytest.mark.usefixtures("small_gpu")
def test_rows_of_any_kind_are_gathered(kind: str) -> None:
    data = (100 * abs(normal(200, 45))).astype(kind)
    order, clock, size = np.random.default_rng(0).permutation(200), np.array([1, 1]), 50
    for source, shape in ((data, (60, 45)), (data[::2], (60, 45)), (data[:, 0].copy(), (60,))):
        out = np.full(shape, np.nan, np.float32)
        chosen = order[order < len(source)]
        EmulatedBackend(2).kernels.gather_rows(source, chosen, clock, size, out[:size])
        np.testing.assert_array_equal(out[:size], source[chosen[50:100]].astype(np.float32))
        assert np.isnan(out[size:]).all()
    images, out = data.reshape(200, 5, 9), np.zeros((size, 5, 9), np.float32)
    EmulatedBackend(2).kernels.gather_rows(images, order, clock, size, out)
    np.testing.assert_array_equal(out, images[order[50:100]].astype(np.float32))


@needs_emulator
@pytest.mark.usefixtures("small_gpu")
def test_every_order_of_threads_gives_the_same_bits() -> None:
    results = []
    for order in ORDERS:
        kernels = EmulatedBackend(order).kernels
        delta, db, totals = normal(1500, 5, dtype="float32"), np.empty(5, "f"), np.zeros(4)
        y, weight = np.zeros((1500, 5), "f"), abs(normal(1500, dtype="float32"))
        for _ in range(2):  # the second starts with the counters and sums of the first
            kernels.bias_gradient(delta, db)
            kernels.loss_and_delta(get_loss("quadratic"), delta, y, weight, delta, totals)
            vector = delta.ravel()
            kernels.add_penalty(vector, vector.copy(), 0.1, 0.2, 9, totals)
            kernels.clip_norm(vector, 0.001)
        results.append((db.tobytes(), totals.tobytes(), delta.tobytes()))
    assert len(set(results)) == 1


@needs_emulator
@pytest.mark.parametrize("name", ["bias_activation", "slope", "optimizer_step", "clip_norm"])
def test_alignment_is_checked_before_wide_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, a, g = (_odd(16) for _ in range(3))
    run = {
        "bias_activation": lambda k: k.bias_activation(
            z.reshape(4, 4), np.zeros(4), a.reshape(4, 4), TANH
        ),
        "slope": lambda k: k.slope(g.reshape(4, 4), z.reshape(4, 4), a.reshape(4, 4), TANH),
        "optimizer_step": lambda k: k.optimizer_step(SGD(), z, g, [], np.zeros(3), 0.0, 0),
        "clip_norm": lambda k: (g.fill(1.0), k.clip_norm(g, 0.1)),
    }[name]
    run(EmulatedBackend().kernels)
    whole, look = sources.file_text, "return ((unsigned long long)place & 15) == 0;"
    assert look in whole("common.cu")
    monkeypatch.setattr(sources, "file_text", lambda f: whole(f).replace(look, "return true;"))
    with pytest.raises(EmulationError, match="misaligned"):
        run(EmulatedBackend().kernels)


def _odd(n: int) -> np.ndarray:
    """Return ones at an address that is a multiple of 8 and not of 16."""
    whole = np.ones(n + 2)
    begin = 1 if whole.ctypes.data % 16 == 0 else 2
    return whole[begin : begin + n]


# ---- launches and memory ------------------------------------------------------------------------


class Counting:
    """Kernels that count their launches and allocations."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.made: list[tuple[int, ...]] = []
        self.kernels = Kernels(self.compile, self.zeros)

    def compile(self, source: str, name: str) -> Any:
        return lambda grid, block, args: self.launched.append(name)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        self.made.append(shape)
        return np.zeros(shape, dtype)


def test_a_step_has_few_launches_and_allocates_once() -> None:
    counting, f = Counting(), np.float32
    kernels, adam, tanh = counting.kernels, Adam(), TANH
    rows = np.zeros((128, 100), f), np.zeros((128, 10), f)
    theta, hyper, totals = [np.zeros(79_510, f) for _ in range(4)], np.zeros(3), np.zeros(4)
    clock, order = np.zeros(2, np.int64), np.zeros(1000, np.int64)
    b, y = (np.zeros(100, f), np.zeros(10, f)), np.zeros(128, np.int32)

    def step() -> None:
        kernels.tick(clock, np.zeros((2, 5)), hyper)
        kernels.gather_rows(np.zeros((1000, 100), np.uint8), order, clock, 128, rows[0])
        kernels.gather_rows(np.zeros(1000, np.int32), order, clock, 128, y)
        kernels.bias_activation(rows[0], b[0], rows[0], tanh)
        kernels.bias_activation(rows[1], b[1], rows[1], get_activation("identity"))
        kernels.loss_and_delta(CROSS_ENTROPY, rows[1], y, None, rows[1], totals)
        kernels.bias_gradient(rows[1], b[1])
        kernels.slope(rows[0], rows[0], rows[0], tanh)
        kernels.bias_gradient(rows[0], b[0])
        kernels.optimizer_step(adam, theta[0], theta[1], theta[2:], hyper, 0.01, 70_000)

    step()
    heads = [name.partition("_")[0] for name in counting.launched]
    assert heads == [
        *("tick", "gather", "gather", "activation", "activation", "loss"),
        *("column", "slope", "column", "update"),
    ]
    made = len(counting.made)
    assert made > 0
    step()
    assert len(counting.made) == made
    assert len(counting.launched) == 2 * len(heads)


@needs_emulator
@every_order
@pytest.mark.parametrize("sizes", [(7, 5, 1), (3, 40, 700)])
def test_a_step_starts_in_one_launch(order: int, sizes: tuple[int, ...], small_gpu: None) -> None:
    batch_size, columns, more = sizes
    rng, n = np.random.default_rng(3), 4 * batch_size
    data = [
        rng.integers(0, 200, (n, columns), np.uint8),
        rng.integers(0, 9, n, np.int32),
        rng.standard_normal((n, more)),
    ]
    chosen = rng.permutation(n)
    rates = rng.random((2, 4))
    results = []
    for launcher in (EmulatedBackend(order).kernels, None):
        outs = [np.zeros((batch_size, columns), np.float32), np.zeros(batch_size, np.int32),
                np.zeros((batch_size, more))]  # fmt: skip
        clock, hyper = np.array([10, -1]), np.zeros(3)
        for _ in range(3):
            pairs = list(zip(data, outs, strict=True))
            if launcher is not None:
                launcher.begin_step(clock, rates, hyper, chosen, batch_size, pairs)
            else:
                REFERENCE.tick(clock, rates, hyper)
                for source, out in pairs:
                    REFERENCE.gather_rows(source, chosen, clock, batch_size, out)
            results.append([array.copy() for array in (clock, hyper, *outs)])
    for mine, wanted in zip(results[:3], results[3:], strict=True):
        for a, b in zip(mine, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_clipping_takes_two_launches() -> None:
    counting = Counting()
    counting.kernels.clip_norm(np.zeros(5000), 1.0)
    assert [name.partition("_")[0] for name in counting.launched] == ["norm", "clip"]


def test_softmax_in_the_middle_is_computed_row_by_row() -> None:
    counting, z = Counting(), np.zeros((4, 3))
    counting.kernels.slope(z, z, z, SOFTMAX)
    assert [name.partition("_")[0] for name in counting.launched] == ["row"]


def test_a_formula_is_compiled_once() -> None:
    compiled: list[str] = []
    kernels = Kernels(
        lambda source, name: compiled.append(name) or (lambda grid, block, args: None), np.zeros
    )
    z, b = np.zeros((2, 2)), np.zeros(2)
    for _ in range(3):
        kernels.bias_activation(z, b, z, get_activation("tanh"))  # an equal one
    kernels.bias_activation(z.astype("f"), b.astype("f"), z.astype("f"), TANH)
    assert len(compiled) == len(set(compiled)) == 2


def test_empty_arrays_launch_nothing() -> None:
    counting, f = Counting(), np.float64
    kernels, none = counting.kernels, np.zeros((0, 4))
    kernels.bias_activation(none, np.zeros(4), none, TANH)
    kernels.slope(none, none, none, TANH)
    kernels.loss_and_delta(CROSS_ENTROPY, none, none, None, none, np.zeros(4))
    kernels.add_score(ACCURACY, none, none, None, np.zeros(4))
    kernels.dropout_forward(none, 0.5, (1, 2), np.zeros(2, np.int64), 0, none, none.astype(bool))
    kernels.optimizer_step(SGD(), np.zeros(0), np.zeros(0), [], np.zeros(3), 0.0, 0)
    kernels.scale_rows(none, np.zeros(4), np.zeros(4), None, none)
    kernels.max_norm(none, 1.0)
    kernels.gather_rows(none, np.zeros(0, int), np.zeros(2, int), 5, np.zeros((0, 4), f))
    assert not counting.launched


@needs_emulator
def test_the_gradient_of_no_rows_is_zero() -> None:
    db = np.full(4, np.nan)
    EmulatedBackend().kernels.bias_gradient(np.zeros((0, 4)), db)
    np.testing.assert_array_equal(db, 0.0)


@pytest.mark.parametrize("columns", [1, 3, 7, 8, 10, 100, 1000, 5000])
@pytest.mark.parametrize("rows", [0, 1, 100, 128, 1000, 65536])
def test_the_grid_of_column_sums_covers_all_once(rows: int, columns: int) -> None:
    (tiles, chunks), sizes = over_columns(rows, columns)
    width, rows_of_block = sizes["width"], sizes["rows_of_block"]
    assert width in (1, 2, 4, 8, 16, 32)
    assert (tiles - 1) * width < columns <= tiles * width
    assert (chunks - 1) * rows_of_block < max(rows, 1) <= chunks * rows_of_block
    assert tiles * chunks <= max(tiles, grids.MAX_BLOCKS)
    if rows <= 128 and columns >= 8:
        assert chunks == 1  # a usual batch needs no exchange between blocks


# ---- what is refused ----------------------------------------------------------------------------

F, D = np.zeros((4, 3), np.float32), np.zeros((4, 3))
REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "two dtypes": ("bias_activation", (F, D[0], F, TANH)),
    "half precision": ("bias_activation", (F.astype("e"), F[0].astype("e"), F.astype("e"), TANH)),
    "transposed": ("slope", (D.T, D.T, D.T, TANH)),
    "every second row": ("bias_gradient", (np.zeros((8, 3))[::2], D[0])),
    "targets of another dtype": ("add_score", (ACCURACY, F, D, None, D[0])),
    "labels of another dtype": ("add_score", (ACCURACY, F, np.zeros(4, np.uint8), None, D[0])),
    "weights of another dtype": ("add_score", (ACCURACY, F, F, np.zeros(4), D[0])),
    "data with strided rows": (
        "gather_rows",
        (np.zeros((4, 6))[:, ::2], np.zeros(4, int), np.zeros(2, int), 4, D),
    ),
    "complex data": ("gather_rows", (D.astype(complex), np.zeros(4, int), np.zeros(2, int), 4, D)),
    "a formula": ("bias_activation", (D, D[0], D, Activation("no", lambda z: z or 0.0, abs))),
    "sums of another dtype": ("add_score", (ACCURACY, F, F, None, F[0])),
    "rates of another dtype": ("average", (F[0], F[0], 0.9, F[0])),
    "winners of another dtype": ("maxout_forward", (D, D, np.zeros((4, 3), np.int64))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_arguments_are_refused_before_a_launch(case: str) -> None:
    name, arguments = REFUSED[case]
    counting = Counting()
    for _ in range(2):  # the second time from the cache
        with pytest.raises(Untraceable):
            getattr(counting.kernels, name)(*arguments)
    assert not counting.launched


def test_kernels_have_the_signatures_of_a_backend() -> None:
    shared = [
        name
        for name, _ in inspect.getmembers(Kernels, inspect.isfunction)
        if not name.startswith("_") and hasattr(Backend, name)
    ]
    assert len(shared) == 14
    for name in shared:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Kernels, Backend))
        assert list(ours.parameters) == list(theirs.parameters), name
        assert [p.default for p in ours.parameters.values()] == [
            p.default for p in theirs.parameters.values()
        ]


@needs_emulator
def test_a_kernel_compiled_for_the_host_runs() -> None:
    kernels = Kernels(compile_on_host, np.zeros)
    clock, hyper = np.array([4, -1]), np.zeros(3)
    kernels.tick(clock, np.array([[0.5, 0.25], [0.9, 0.8]]), hyper)
    np.testing.assert_array_equal(clock, [5, 0])
    np.testing.assert_array_equal(hyper, [0.5, 0.9, 5.0])
