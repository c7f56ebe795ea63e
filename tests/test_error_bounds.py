"""Error bounds of the kit's reference: by the terms of each element, propagated, with its kinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.testing.error_bounds import ELEMENTWISE, TOLERANCE, BoundedArray, ErrorBoundBackend
from nnbackend.testing.kit import FailureReport
from nnbackend.testing.trajectories import NEAR_A_JUMP, WatchedReference, reference_run, run


def bounded(*arrays: Any, dtype: str = "float32") -> tuple[ErrorBoundBackend, list[BoundedArray]]:
    device = ErrorBoundBackend()
    return device, [device.to_device(np.asarray(a, dtype)) for a in arrays]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_of_a_cancelling_sum_follows_its_terms(dtype: str) -> None:
    device, (a,) = bounded([1.0, -3.0, 2.0, 2.0**-20], dtype=dtype)
    total = device.xp.sum(a)
    assert total.value == 2.0**-20
    assert total.bound == pytest.approx(TOLERANCE[dtype] * (6.0 + 2.0**-20))


def test_the_bound_of_a_matrix_product_follows_its_terms() -> None:
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((5, 7)), rng.standard_normal((7, 3))
    _, (given, weights) = bounded(x, W, dtype="float64")
    np.testing.assert_allclose((given @ weights).bound, 1e-12 * np.abs(x) @ np.abs(W))


def test_errors_propagate_by_the_slope() -> None:
    device, (z,) = bounded([-2.0, 0.3, 5.0], dtype="float64")
    z.bound[...] = 1e-6
    slope = 1.0 - np.tanh(z.value) ** 2
    np.testing.assert_allclose(device.xp.tanh(z).bound, 1e-6 * slope, rtol=1e-3)
    np.testing.assert_allclose((2.0 / z).bound, 1e-6 * 2.0 / z.value**2, rtol=1e-3)
    np.testing.assert_allclose((z * z).bound, np.sqrt(2) * 1e-6 * np.abs(z.value), rtol=1e-3)
    assert device.xp.kinks == 0


def test_float64_within_a_float32_computation_keeps_its_tolerance() -> None:
    device, (rows,) = bounded([1.0, 2.0, 4.0])
    total = device.xp.sum(device.xp.astype(rows, device.xp.float64))
    assert total.dtype == np.float64
    assert total.bound == pytest.approx(7e-12)
    back = device.xp.astype(total, np.float32)
    assert back.bound == pytest.approx(ELEMENTWISE * TOLERANCE["float32"] * 7.0)


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (lambda z, xp: xp.where(z > 0, z, 0.0), 0),  # continuous: both sides are within the error
        (lambda z, xp: xp.where(z > 0, xp.ones_like(z), 0.0), 1),
        (lambda z, xp: xp.sign(z), 1),
        (lambda z, xp: xp.argmax(z, axis=0), 1),
        (lambda z, xp: 1.0 / z, 1),
    ],
    ids=["relu", "step", "sign", "argmax", "divide"],
)
def test_a_discontinuity_within_the_error_is_counted(
    function: Callable[..., Any], kinks: int
) -> None:
    device, (z,) = bounded([1e-7, -1e-7, 3.0, -2.0], dtype="float64")
    z = z[:2]
    function(z, device.xp)
    assert device.xp.kinks == 0, "exact numbers are compared exactly"
    z.bound[...] = [1e-6, 0.0]
    function(z, device.xp)
    assert device.xp.kinks == kinks


def test_exact_zeros_and_ties_are_certain() -> None:
    device, (z,) = bounded([[0.0, 0.0], [2.0, 2.0]])
    x, W, b = (device.to_device(np.asarray(v, "f")) for v in ([[3.0]], [[0.0, 2.0]], [0.0, -6.0]))
    product = x @ W + b  # 3 * 0, and 3 * 2 - 6: only the first is exact in every order
    device.xp.where(product[:, :1] > 0, device.xp.ones_like(product[:, :1]), 0.0)
    assert device.xp.argmax(z, axis=1).value.tolist() == [0, 0]
    assert device.xp.kinks == 0
    device.xp.sign(product)
    assert device.xp.kinks == 1


def test_a_whole_network_has_bounds() -> None:
    device = ErrorBoundBackend()
    layers = [4, nn.Dense(6, "relu"), nn.Dropout(0.5), nn.Maxout(5), nn.Dense(3, "softmax")]
    net = nn.Network(layers, "absolute", device=device, dtype="float32")
    rng = np.random.default_rng(1)
    x = device.to_device(rng.standard_normal((7, 4)).astype("f"))
    y = rng.integers(0, 3, 7)
    got = net.backprop(x, y)
    one = nn.Network(layers, "absolute", device="numpy", dtype="float64")
    one.set_parameters(*net.get_parameters())
    wanted = one.backprop(x.value, y)
    np.testing.assert_allclose(got.vector.value, wanted.vector, atol=1e-14)
    largest = np.abs(got.vector.value).max()
    assert 1e-7 * largest < np.median(got.vector.bound) < 1e-3 * largest


def test_elements_are_compared_one_by_one() -> None:
    report, wanted = FailureReport("kernel", "case", 0), np.array([1e3, 1e-3])
    report.close("a", wanted * (1 + 1e-6), wanted, 1e-5)
    for wrong in (1e-3 + 1e-6, np.nan, np.inf):
        with pytest.raises(AssertionError, match=r"a is wrong\n.*\n.*worst at \(1,\)"):
            report.close("a", np.array([1e3, wrong]), wanted, 1e-5)
    report.within("a", np.nan, np.nan, 0.0)
    with pytest.raises(AssertionError, match="1 of 1 elements are beyond"):
        report.within("a", 1.0, np.nan, 0.0)


def test_a_training_run_near_a_discontinuity_is_redrawn() -> None:
    config = "decay and schedules"
    seed, taken = reference_run(config, "float32", 3).seed
    assert (seed, taken > 0) == (3, True)
    for attempt in range(taken + 1):
        reference = WatchedReference()
        run(config, reference, "float64", "float32", (seed, attempt))
        assert (reference.nearest > NEAR_A_JUMP["float32"]) == (attempt == taken)
