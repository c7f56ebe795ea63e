"""Traced formulas compute the same in CUDA C; those that cannot be traced raise an error.

test_kernels.py checks the results of every built-in formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from built_in import (
    ALL_LOSSES,
    DTYPES,
    RULES,
    SCORES,
    loss_source,
    score_source,
    source_of,
    update_source,
)
from emulated import EmulatedBackend
from emulator import LACKING

from nnbackend.network.activations import ACTIVATIONS, Activation, get_activation
from nnbackend.network.evaluation.scores import Score
from nnbackend.network.losses import Loss
from nnbackend.training.optimizers import SGD
from nnbackend_cupy import layers
from nnbackend_cupy.codegen import Printer, number
from nnbackend_cupy.tracing import ELEMENTS, XP, Untraceable, as_symbol, inputs, traced

needs_emulator = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


# ---- the built-in formulas ----------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_traced(name: str, dtype: np.dtype[Any]) -> None:
    phi, of_row = get_activation(name), "row_" if name == "softmax" else ""
    value = source_of(layers.BIAS_ACTIVATION, f"T={dtype}", phi)
    assert value.name.startswith(f"{of_row}activation_{name}")
    slope = source_of(layers.SLOPE, f"T={dtype}", phi)
    assert slope.name.startswith(f"{of_row}slope_{name}")


@every_dtype
@pytest.mark.parametrize("target", ["y", "labels"])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["", "weighted"])
def test_every_loss_and_score_is_traced(
    dtype: np.dtype[Any], target: str, is_weighted: bool
) -> None:
    of = dtype.name, "" if target == "y" else "int32", is_weighted
    names = {loss_source(loss, *of).name for loss in ALL_LOSSES}
    names |= {score_source(score, *of).name for score in SCORES}
    assert len(names) == len(ALL_LOSSES) + len(SCORES)


@every_dtype
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_update_rule_is_traced(rule: Any, dtype: np.dtype[Any]) -> None:
    text = update_source(rule, dtype.name, len(rule.state)).text
    assert "theta = " in text
    assert text.count("  c[") - text.count("  c[N_COEFFICIENTS]") == len(
        rule.coefficients(0.1, 0.9, 1.0)
    )


# ---- custom formulas ----------------------------------------------------------------------------

FORMULAS: dict[str, Callable[..., Any]] = {
    "power": lambda z: z**3 - z**-1 + abs(z) ** 2.5 + 2.0**z + abs(z) ** 0.5,
    "exp": lambda z: np.exp(-z * z) / (1 + np.expm1(-z * z) ** 2),
    "where": lambda z: np.where((z > 0) & ~(z > 2), z, 0.1 * z),
    "truth times number": lambda z: z * (z > 0) + (z < -1) * 2 - (z != 1) * (z > 0) * 1.5,
    "extremes": lambda z: np.maximum(z, 0) + np.minimum(z, 1.5) - np.clip(z, -1, 1) + z.clip(0, 1),
    "numbers of NumPy": lambda z: np.sqrt(2 / np.pi) * z + np.float64(0.1) + np.array(2.0) * z,
    "logarithms": lambda z: np.log1p(np.exp(z)) + np.log(1 + z * z) + np.logaddexp(0.5 * z, 0),
    "waves": lambda z: np.sin(z) * np.cos(z) + np.arctan(z) + np.sinh(0.1 * z) - np.tanh(z),
    "steps": lambda z: np.sign(z) + np.floor(z) - np.ceil(2 * z) + np.trunc(z) + np.rint(3 * z),
    "negative": lambda z: -(-z - 1) - (-2.0) * z + (+z) / -3,
    "not finite": lambda z: np.where(np.isnan(z) | ~np.isfinite(z), 0.0, z + np.float32(1)),
    "of the dtype": lambda z: (z > 0).astype(z.dtype) + np.finfo(z.dtype).eps + np.ones_like(z),
    "a constant": lambda z: 1.0,
    "over the row": lambda z: z / (1 + np.sum(np.abs(z), axis=1, keepdims=True)),
    "three deep": lambda z: (
        (z - z.mean(axis=1, keepdims=True))
        / np.sqrt(np.mean((z - z.mean(axis=1, keepdims=True)) ** 2, axis=1, keepdims=True) + 0.1)
    ),
    "a column": lambda z: z * np.max(z, axis=-1)[:, None] - z.min(axis=1).reshape(-1, 1),
    "the place": lambda z: z * (z.argmax(axis=1) == 2)[:, None] + z.argmin(axis=1)[..., None],
    "all and any": lambda z: z * (z > -1).all(axis=1, keepdims=True) + (z > 2).any(axis=1)[:, None],
    "the width": lambda z: z / z.shape[1] + (z > 0).sum(axis=1)[:, None],
    "a product": lambda z: z * np.prod(1 + 0.1 * z, axis=1, keepdims=True),
}


def example(dtype: np.dtype[Any]) -> np.ndarray:
    z = np.random.default_rng(5).standard_normal((9, 7)) * 1.5
    z[:3, :] = abs(z[:3, :])
    z[4, :] = z[4, 0]  # ties
    return z.astype(dtype)


@needs_emulator
@every_dtype
@pytest.mark.parametrize("name", FORMULAS)
def test_a_custom_formula(name: str, dtype: np.dtype[Any]) -> None:
    f, z = FORMULAS[name], example(dtype)
    a, backend = np.full_like(z, np.nan), EmulatedBackend(2)
    backend.kernels.bias_activation(z.copy(), np.zeros(7, dtype), a, Activation(name, f, f))
    wanted = np.broadcast_to(f(z.astype(np.float64)), z.shape)
    tolerance = 1e-12 if dtype == np.float64 else 3e-5
    np.testing.assert_allclose(a, wanted, rtol=tolerance, atol=tolerance)


@needs_emulator
def test_nan_is_propagated() -> None:
    z = np.array([[np.nan, 1.0, -np.inf, np.inf]])
    f = lambda z: np.maximum(z, 0.0) + np.minimum(0.0, z) + np.sign(z) + np.clip(z, -1, 1)  # noqa: E731
    a = np.zeros_like(z)
    phi = Activation("nan", f, f)
    EmulatedBackend().kernels.bias_activation(z.copy(), np.zeros(4), a, phi)
    np.testing.assert_array_equal(a, f(z))
    g = lambda z: z.max(axis=1, keepdims=True) + z.argmax(axis=1)[:, None] * z[:, :]  # noqa: E731
    b = np.zeros((3, 4))
    y = np.array([[1.0, np.nan, 3.0, np.nan], [2.0, 5.0, 5.0, 1.0], [-np.inf] * 4])
    with np.errstate(invalid="ignore"):
        wanted = g(y)
    EmulatedBackend().kernels.bias_activation(y.copy(), np.zeros(4), b, Activation("g", g, g))
    np.testing.assert_array_equal(b, wanted)


@needs_emulator
def test_the_cube_of_the_documentation() -> None:
    cube = Activation("cube", lambda z: z**3, lambda z: 3 * z**2)
    backend, z = EmulatedBackend(), np.array([[1.0, -2.0], [3.0, 0.5]])
    b, a, delta, db = np.array([1.0, 0.0]), np.zeros((2, 2)), np.ones((2, 2)), np.zeros(2)
    backend.kernels.bias_activation(z, b, a, cube)
    np.testing.assert_array_equal(a, [[8.0, -8.0], [64.0, 0.125]])
    backend.kernels.slope(delta, z, a, cube)
    backend.kernels.bias_gradient(delta, db)
    np.testing.assert_array_equal(delta, [[12.0, 12.0], [48.0, 0.75]])
    np.testing.assert_array_equal(db, [60.0, 12.75])


# ---- formulas that cannot be traced -------------------------------------------------------------


def _in_place(z: Any) -> Any:
    z[z < 0] = 0.0
    return z


def _adding_in_place(z: Any) -> Any:
    z += 1.0
    return z


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "if": (lambda z: z if z > 0 else 0 * z, "branches on an array's values"),
    "and": (lambda z: z > 0 and z < 1, "branches on an array's values"),
    "max of Python": (lambda z: max(z, 0.0), "branches on an array's values"),
    "math": (lambda z: math.exp(z), "to a number"),
    "float": (lambda z: float(z), "to a number"),
    "round": (lambda z: round(z), "fails on symbols: TypeError"),
    "a loop": (lambda z: [2 * v for v in z], "to a number"),
    "over the batch": (lambda z: z / np.sum(z, axis=0), "computes sum over axis 0"),
    "over everything": (lambda z: z / z.max(), "computes max over axis None"),
    "in place": (_in_place, "changes an array in place"),
    "added in place": (_adding_in_place, "changes an array in place"),
    "an output": (lambda z: np.add(z, 1, out=z), r"calls add.__call__ with \['out'\]"),
    "a reduction of a ufunc": (lambda z: np.add.reduce(z, 1), r"calls add.reduce"),
    "some columns": (lambda z: z[:, :2], "selects elements"),
    "a foreign array": (lambda z: z + np.ones(7), "a ndarray that is not a number"),
    "an unknown function": (lambda z: np.convolve(z, z), "convolve is not a function"),
    "a vector for a matrix": (lambda z: z.sum(axis=1), r"returns shape|combines shapes"),
    "rows and matrix": (lambda z: z - z.max(axis=1), "combines shapes"),
    "minus of truth": (lambda z: (z > 0) - (z < 0), "subtracts booleans"),
    "bits of numbers": (lambda z: z & 1, "bitwise operations on numbers"),
    "transposed": (lambda z: z.T, "has no 'T'"),
    "an error of its own": (lambda z: 1 // 0, "ZeroDivisionError"),
    "the rows": (lambda z: z / z.shape[0], "uses the size B"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_formula_that_needs_values_is_refused_with_a_reason(name: str) -> None:
    f, says = REFUSED[name]
    phi = Activation(name, f, f)
    with pytest.raises(Untraceable, match=says):
        source_of(layers.BIAS_ACTIVATION, "T=float32", phi)
    with pytest.raises(Untraceable):
        source_of(layers.SLOPE, "T=float32", phi)


def test_a_loss_that_is_not_per_row_is_refused() -> None:
    for formula in (
        lambda a, y, xp: (xp.sum(a - y), a - y),
        lambda a, y, xp: (xp.sum(a - y, axis=1), xp.sum(a, axis=1)),
        lambda a, y, xp: a - y,
        lambda a, y, xp: None,
    ):
        with pytest.raises(Untraceable):
            loss_source(Loss("own", formula), "float32")
    with pytest.raises(Untraceable):
        score_source(Score("own", lambda a, y, xp: a - y), "float32")


def test_a_rule_with_a_wrong_number_of_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match="returns 1 state vectors, expected 2"):
        update_source(SGD(momentum=0.9), "float32", 2)


# ---- the text -----------------------------------------------------------------------------------


def test_a_value_used_twice_is_computed_once() -> None:
    (z,) = inputs("float32", ELEMENTS, "z")

    def f(z: Any) -> Any:
        for _ in range(20):  # as a tree a million exponentials
            z = np.exp(z) + np.exp(z)
        return z

    printer = Printer("float32", {"z": "z"})
    printer.value(as_symbol(traced(f, z), z, ELEMENTS))
    assert sum("expf" in line for line in printer.lines) == 20


@pytest.mark.parametrize("value", [0.1, 1e-8, 3.0, -2.5, 1 / 3, 1e30, 5e-324, 2**53 + 1])
def test_numbers_have_exact_texts(value: float) -> None:
    assert float(number(value, "f", np.dtype("float64"))) == float(value)
    text = number(value, "f", np.dtype("float32"))
    assert text.endswith("f")
    assert np.float32(text[:-1]) == np.float32(value)


def test_different_formulas_have_different_names() -> None:
    first, second = (Activation("own", lambda z, k=k: k * z, lambda z: 1.0) for k in (2.0, 3.0))
    names = {
        source_of(layers.BIAS_ACTIVATION, f"T={dtype}", phi).name
        for phi in (first, second)
        for dtype in DTYPES
    }
    assert len(names) == 4
    assert source_of(layers.BIAS_ACTIVATION, "T=float32", first).name in names
    assert XP.exp(0.0) == 1.0
