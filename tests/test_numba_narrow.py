"""Steps with operands in bfloat16: their rounding and pairing, and the training they give.

The reference is NumPy in float64, whose products round their operands in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitting import fit_model

import nnbackend as nn
from nnbackend_numpy.kernels import NumPyBackend

pytest.importorskip("numba", reason="numba is not installed")

import numba
from numba_runs import (
    backend_of,
    partition_small_steps,
    random_case,
    random_data,
    recorded_programs,
)
from operands import (
    GUARD,
    AtOffset,
    BetweenPages,
    from_panels,
    from_python,
    needs_pairs,
    paired,
    protected,
    rounded,
    run_in_child,
    to_panels,
)

from nnbackend_numba import buffers, narrow, pairs, panels, products, tiles
from nnbackend_numba.scalars import FAST

LANES = tiles.lanes("float32")
UNUSED = int(GUARD)  # of arrays of pairs
TOLERANCE = 5e-5  # relative to the largest number, after some steps
SMOOTH = ("tanh", "sigmoid", "gelu", "elu", "identity")

# ---- rounding -----------------------------------------------------------------------------------


@numba.njit(**FAST)
def round_in_each_way(values: Any, one: Any, halves: Any, both: Any) -> None:
    """Round numbers one by one; by vectors, one after the other; and by vectors, as pairs."""
    for i in range(values.size):
        one[i] = pairs.rounded(values[i])
    for i in range(0, values.size, LANES):
        place, to = values.ctypes.data + 4 * i, both.ctypes.data + 4 * i
        pairs.write_halves(halves.ctypes.data + 2 * i, place)
        pairs.write_pairs(to, place, values.ctypes.data + 4 * (values.size - LANES - i))
        pairs.write_pairs(to + both.itemsize * values.size, place, 0)


def as_bits(values: Any) -> np.ndarray:
    """Return the upper halves of float32 numbers."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def check_rounding(values: np.ndarray, expected: np.ndarray) -> None:
    """Compare each way to round with the expected bits."""
    n = values.size
    one, halves, both = np.zeros(n, np.int64), np.zeros(n, np.uint16), np.zeros((2, n), np.int32)
    round_in_each_way(values, one, halves, both)
    np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(halves, expected)
    other = expected.reshape(-1, LANES)[::-1].ravel()
    np.testing.assert_array_equal(both.view(np.uint16).reshape(2, n, 2)[0, :, 0], expected)
    np.testing.assert_array_equal(both.view(np.uint16).reshape(2, n, 2)[0, :, 1], other)
    np.testing.assert_array_equal(both[1], expected)


def test_each_upper_half_is_rounded_to_nearest_and_ties_to_even() -> None:
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (upper | np.uint32(lower)).view(np.float32)
        check_rounding(values, as_bits(rounded(values)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1.0),
        (1 + 2**-8, 1.0),  # ties
        (1 + 3 * 2**-8, 1 + 2**-6),
        (-1 - 3 * 2**-8, -1 - 2**-6),
        (1 + 2**-8 + 2**-23, 1 + 2**-7),
        (2 - 2**-23, 2.0),
        (0.0, 0.0),
        (-0.0, -0.0),
        (2.0**-149, 0.0),  # denormals
        (2.0**-134, 0.0),
        (3 * 2.0**-134, 2.0**-132),
        (5 * 2.0**-133, 5 * 2.0**-133),
        (2.0**127 * (2 - 2**-7), 2.0**127 * (2 - 2**-7)),  # the largest
        (2.0**127 * (2 - 2**-8 - 2**-20), 2.0**127 * (2 - 2**-7)),
        (2.0**127 * (2 - 2**-8), np.inf),
        (-np.finfo(np.float32).max, -np.inf),
        (np.inf, np.inf),
        (-np.inf, -np.inf),
        (np.nan, np.nan),
        (-np.nan, -np.nan),
    ],
)
def test_numbers_rounded_by_hand(value: float, expected: float) -> None:
    values = np.full(2 * LANES, value, np.float32)
    check_rounding(values, as_bits(np.full(2 * LANES, expected)))


def test_nan_with_any_bits_stays_nan() -> None:
    values = np.array([0x7F800001, 0xFF80FFFF, 0x7FFFFFFF, 0x7F808000], np.uint32).view(np.float32)
    values = np.resize(values, 2 * LANES)
    halves = as_bits(rounded(values))
    assert np.isnan((halves.astype(np.uint32) << 16).view(np.float32)).all()
    check_rounding(values, halves)


# ---- pairing ------------------------------------------------------------------------------------


def pairs_of(values: Any) -> Any:
    """Return rows of pairs of numbers, rounded."""
    return paired(rounded(values)).view(np.int32)


def compiled(operation: Any) -> Any:
    return numba.njit(**FAST)(operation.loop)


def check_rows(memory: Any, note: Callable[[Any], Any] = str) -> None:
    """Check `narrow_rows` with odd and even numbers of units, with halves and without."""
    narrow_rows = compiled(narrow.narrow_rows)
    for n_panels, n in ((1, 1), (1, 2), (3, 7), (2, 16)):
        x = np.random.default_rng(n).standard_normal((n_panels, n, LANES)).astype(np.float32)
        by_units = np.stack([pairs_of(panel.T).T for panel in x])
        by_rows = np.stack([pairs_of(panel) for panel in x])
        for n_halves in (0, n):
            note(f"rows: {n_panels} {n} {n_halves}")
            together = memory.put(np.full_like(by_units, UNUSED))
            halves = memory.put(np.full_like(by_rows[:, :n_halves], UNUSED))
            narrow_rows(memory.put(x), together, halves)
            np.testing.assert_array_equal(together, by_units)
            np.testing.assert_array_equal(halves, by_rows[:, :n_halves])
            memory.check(together)
            memory.check(halves)


def check_weights(memory: Any, note: Callable[[Any], Any] = str) -> None:
    """Check `narrow_weights` for parts of W with any number of rows and columns."""
    narrow_weights = compiled(narrow.narrow_weights)
    for n_in, n_out in ((1, 1), (2, 3), (5, 15), (6, 16), (7, 17), (9, 33), (4, 50)):
        W = np.random.default_rng(n_in).standard_normal((n_in, n_out)).astype(np.float32)
        by_rows, by_columns = pairs_of(W.T).T, pairs_of(W)
        end = len(by_rows)
        for first, last in {(0, end), (end // 2, end), (0, end // 2)}:
            note(f"weights: {n_in} {n_out} {first} {last}")
            together = memory.put(np.full((last - first, n_out), UNUSED, np.int32))
            halves = memory.put(np.full_like(by_columns, UNUSED))
            narrow_weights(memory.put(W), LANES, together, halves, first, last)
            np.testing.assert_array_equal(together, by_rows[first:last])
            expected = np.full_like(by_columns, UNUSED)
            expected[2 * first : 2 * last] = by_columns[2 * first : 2 * last]
            np.testing.assert_array_equal(halves, expected)
            memory.check(together)
            memory.check(halves)


def check_transposes(memory: Any, note: Callable[[Any], Any] = str) -> None:
    """Check `narrow_transpose` for a worker, with odd and even numbers of rows."""
    narrow_transpose = compiled(narrow.narrow_transpose)
    for rows, n_panels, units in ((1, 1, 3), (2, 1, 16), (17, 2, 21), (31, 2, 1), (32, 2, 40)):
        note(f"transposes: {rows} {units}")
        height, vectors = n_panels * LANES, -(-units // LANES)
        turned = np.full((2, vectors, height, LANES), np.nan, np.float32)
        rng = np.random.default_rng(rows)
        turned[1, :, :rows] = rng.standard_normal((vectors, rows, LANES))
        together = memory.put(np.full((2, vectors, height // 2, LANES), UNUSED, np.int32))
        narrow_transpose(memory.put(turned), rows, together, 1)
        expected = np.full_like(together, UNUSED)
        for v in range(vectors):
            expected[1, v, : (rows + 1) // 2] = pairs_of(turned[1, v, :rows].T).T
        np.testing.assert_array_equal(together, expected)
        memory.check(together)


CHECKS = (check_rows, check_weights, check_transposes)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("offset", [0, 8, 44])
def test_operands_are_rounded_and_paired(check: Callable[[Any], None], offset: int) -> None:
    check(AtOffset(offset))


@protected
@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_accessed_outside_of_the_operands(check: Any, tmp_path: Path) -> None:
    def work(note: Callable[[Any], None]) -> None:
        for is_last in (False, True):
            check(BetweenPages(is_last), note)

    run_in_child(work, tmp_path / "case")


# ---- the three products of a layer ---------------------------------------------------------------


def narrow_layer(x: Any, W: Any, delta: Any) -> Any:
    """Return a layer's operands, narrowed, and those of delta's transpose for worker 1 of 2."""
    layer = buffers.Buffers(2, LANES)
    made = layer.narrow(x, W)
    compiled(narrow.narrow_weights)(W, LANES, made.W_pairs, made.W_halves, 0, len(made.W_pairs))
    compiled(narrow.narrow_rows)(to_panels(x, LANES), made.x_pairs, made.x_halves)
    compiled(narrow.narrow_rows)(to_panels(delta, LANES), made.delta_pairs, made.x_halves[:, :0])
    turned = layer.transposes(delta)
    together = np.zeros((*turned.shape[:2], turned.shape[2] // 2, LANES), np.int32)
    from_python(panels.write_transposed)(to_panels(delta, LANES), turned, 1)
    compiled(narrow.narrow_transpose)(turned, len(delta), together, 1)
    return made, together


@needs_pairs
@pytest.mark.parametrize(
    ("n", "n_in", "n_out"),
    [(1, 1, 1), (2, 3, 2), (35, 37, 21), (33, 16, 32), (129, 75, 50), (64, 64, 64), (1030, 5, 7)],
)
def test_products_of_a_layer(n: int, n_in: int, n_out: int) -> None:
    address, n_panels = products.product_of("bf16").address, -(-n // LANES)
    rng = np.random.default_rng(n)
    x, W, delta = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((n, n_in), (n_in, n_out), (n, n_out))
    )
    # The row after an odd last one is multiplied with zero, so it must be finite.
    made, turned = narrow_layer(np.concatenate([x, x[n - n % 2 :]]), W, delta)
    x, W, delta = map(near, (x, W, delta))
    bound = 4 * np.finfo(np.float32).eps

    def check(got: Any, a: Any, b: Any, d: Any = 0.0) -> None:
        error, terms = abs(got - (a @ b + d)), abs(a) @ abs(b) + abs(d)
        assert (error <= bound * np.sqrt(a.shape[1]) * terms).all()

    b = rng.standard_normal(n_out).astype(np.float32)
    wide = np.ascontiguousarray(np.broadcast_to(b[:, None], (n_out, LANES)))
    z = np.full((n_panels, n_out, LANES), GUARD, np.float32)
    ends = (0, n_panels), (0, len(made.W_pairs)), (0, n_out)
    from_python(products.forward)(
        address, made.x_pairs, made.W_pairs, z, 0, *ends, wide.ctypes.data, 0
    )
    check(from_panels(z, n), x, W, b)

    dx = np.full((n_panels, n_in, LANES), GUARD, np.float32)
    from_python(products.input_gradient)(address, made.delta_pairs, made.W_halves, dx, 0, (0, n_in))
    check(from_panels(dx, n), delta, W.T)

    for lo, hi in ((0, n_in), (n_in // 2, n_in)):
        dW = np.full((hi - lo) * n_out + products.LONGER, GUARD, np.float32)
        from_python(products.weight_gradient)(
            address, made.x_halves, turned, 1, dW, (n + 1) // 2, n_out, (lo, hi), 0, 0, 0
        )
        check(dW[: (hi - lo) * n_out].reshape(-1, n_out), x[:, lo:hi].T, delta)


# ---- training -----------------------------------------------------------------------------------


class RoundedOperands(NumPyBackend):
    """NumPy, with the operands of all products of a step rounded to bfloat16."""

    def dense_forward(self, x: Any, W: Any, b: Any, phi: Any, z: Any, a: Any) -> None:
        z[...] = near(x) @ near(W) + b
        a[...] = phi.value(z, np)

    def dense_backward(
        self, x: Any, W: Any, z: Any, a: Any, phi: Any, delta: Any, dW: Any, db: Any, dx: Any
    ) -> None:
        delta[...] = phi.delta(delta, z, a, np)
        dW[...] = near(x).T @ near(delta)
        db[...] = delta.sum(axis=0)
        if dx is not None:
            dx[...] = near(delta) @ near(W).T


def near(values: Any) -> Any:
    """Return numbers rounded to float32, then to bfloat16, in float64."""
    return rounded(values).astype(np.float64)


@pytest.fixture(autouse=True)
def _partition_small_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    partition_small_steps(monkeypatch)


@needs_pairs
@pytest.mark.parametrize("case", range(40))
def test_random_networks_train_as_with_rounded_operands(
    case: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(case)
    layers, network, options = random_case(rng, SMOOTH)
    x, y = random_data(rng, layers, network, options, [np.float64, np.float32, np.uint8][case % 3])
    made = recorded_programs(monkeypatch)

    def trained(device: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        net = nn.Network(layers, **network, device=device, dtype=dtype, seed=case)
        _, history = fit_model(net, x, y, epochs=3, seed=case, **options)
        return net.backend.to_host(net.theta).astype(np.float64), np.array(history["train_loss"])

    ours = trained(backend_of(1 + case % 4, "bf16"), "float32")
    assert [program._step.is_narrow for program in made] == [True] * len(made) != []
    expected, others = (trained(RoundedOperands(), dtype) for dtype in ("float64", "float32"))
    # A number close to a tie may be rounded the other way, in NumPy's float32 too.
    for got, wanted, other in zip(ours, expected, others, strict=True):
        allowed = max(TOLERANCE * np.abs(wanted).max(), 5 * np.abs(other - wanted).max())
        assert np.abs(got - wanted).max() <= allowed, (layers, options)
    # Without the rounding, one of both is much further away.
    plain = trained(backend_of(1), "float32")
    assert any(
        np.abs(exact - wanted).max() > 2 * np.abs(got - wanted).max()
        for exact, wanted, got in zip(plain, expected, ours, strict=True)
    )


def train(sizes: tuple[int, ...], device: Any, dtype: str = "float32", **options: Any) -> Any:
    """Return the weights of a network after training on 45 rows."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((45, sizes[0])), rng.integers(0, sizes[-1], 45)
    hidden = [nn.Dense(n, "tanh") for n in sizes[1:-1]]
    layers = [sizes[0], *hidden, nn.Dropout(0.2), nn.Dense(sizes[-1], "softmax")]
    net = nn.Network(layers, "cross_entropy", device=device, dtype=dtype, seed=1)
    nn.train(
        net, x, y, epochs=3, batch_size=17, seed=1, **{"optimizer": nn.SGD(0.02, 0.9), **options}
    )
    return net.backend.to_host(net.theta)


@needs_pairs
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("sizes", [(401, 51, 3), (131, 70, 131, 5), (1, 1, 2), (7, 3)])
def test_any_partition_trains_as_with_rounded_operands(
    sizes: tuple[int, ...], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorded_programs(monkeypatch)
    ours = train(sizes, backend_of(workers, "bf16"))
    expected = train(sizes, RoundedOperands(), "float64")
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert made[0].workers == workers
    if sizes[0] == 401 and workers > 1:  # odd numbers of inputs, divided among the workers
        assert made[0]._step.partitioning.weights


@needs_pairs
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_run_gives_the_same_bits(workers: int) -> None:
    options = {"l2": 1e-3, "clip_norm": 1.0}
    runs = [train((31, 40, 21, 3), backend_of(workers, "bf16"), **options) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes()
    assert (runs[0] != train((31, 40, 21, 3), backend_of(workers), **options)).any()


@needs_pairs
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_that_was_not_written_changes_no_bit(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, made = train((37, 21, 5), backend_of(workers, "bf16")), []

    def poisoned(shape: tuple[int, ...], dtype: Any) -> Any:
        array = panels.aligned(shape, dtype)
        array.view(np.uint8)[...] = 0xFF  # NaN, also in bfloat16
        made.append(array)
        return array

    for module in (buffers, narrow):
        monkeypatch.setattr(module, "aligned", poisoned)
    assert train((37, 21, 5), backend_of(workers, "bf16")).tobytes() == expected.tobytes()
    assert made


@needs_pairs
def test_float64_is_exact() -> None:
    runs = [train((9, 8, 3), backend_of(2, p), "float64") for p in ("float32", "bf16")]
    assert runs[0].tobytes() == runs[1].tobytes()


@needs_pairs
def test_predictions_are_in_float32() -> None:
    x = np.random.default_rng(0).standard_normal((300, 33)).astype(np.float32)
    nets = [nn.Network([33, 65, 3], device=backend_of(1, p), seed=0) for p in ("float32", "bf16")]
    outputs = [net.outputs(x) for net in nets]
    np.testing.assert_array_equal(*outputs)


@needs_pairs
def test_steps_that_are_not_recorded_run_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    own = nn.Loss("own", lambda a, y, xp: (xp.sum((a - y) ** 4, axis=1), 4 * (a - y) ** 3))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    found = []
    with caplog.at_level("INFO", "nnbackend"):
        for precision in ("float32", "bf16"):
            net = nn.Network([4, 5, 2], own, device=backend_of(2, precision), seed=0)
            nn.train(net, x, y, epochs=2, batch_size=8)
            found.append(np.array(net.theta))
    np.testing.assert_array_equal(*found)
    assert "kernel by kernel" in caplog.text


@needs_pairs
def test_nan_is_detected() -> None:
    x = np.random.default_rng(0).standard_normal((30, 5))
    net = nn.Network([5, 9, 1], "quadratic", device=backend_of(1, "bf16"), seed=0)
    with pytest.raises(nn.errors.DivergedError), np.errstate(all="ignore"):
        nn.train(net, x, 1e6 * x[:, :1], optimizer=nn.SGD(1e3), epochs=30, batch_size=9)
