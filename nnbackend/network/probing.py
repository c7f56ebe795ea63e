"""Tests of custom formulas on a few numbers, before a network is built with them.

Kernels apply an activation element by element. A formula that sums over the array or uses an array
as a condition would work on some devices, and on others fail or return other numbers. So it is
refused here, with the same message on every device. So is a loss that does not return one loss per
row. A wrong slope may be intended, so it only causes a warning in the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nnbackend.backend import Backend
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import Activation
from nnbackend.network.layers import AbstractLayer, Dense
from nnbackend.network.losses import Loss

logger = logging.getLogger("nnbackend")
Numbers = NDArray[np.float64]

LOWEST, HIGHEST = -2.1234, 1.9876  # not round, so that kinks are unlikely to be hit
STEP = 1e-3  # of the finite differences; a formula may round to float32
# Fragments of array libraries' errors for an array where one number is needed.
NEEDS_A_NUMBER = re.compile("truth value|truth of|only .*arrays can be converted|Python scalar")


def check_activations(layers: Iterable[AbstractLayer], backend: Backend) -> None:
    """Raise ArgumentError for custom activations that do not work element by element."""
    pairs = [(la.activation, la.n_out) for la in layers if isinstance(la, Dense)]
    for phi, n_units in pairs:
        # A subclass may override delta, for units that depend on each other.
        if phi.kernel is None and type(phi) is Activation:
            with np.errstate(all="ignore"):
                _check(phi, n_units, backend)


def check_loss(loss: Loss, n_out: int, backend: Backend) -> None:
    """Raise ArgumentError for a custom loss that is not per-sample; log a wrong gradient."""
    if loss.kernel is not None:
        return
    a = np.linspace(0.1234, 0.8765, 3 * n_out).reshape(3, n_out)
    y = (np.add(*np.ogrid[:3, :n_out]) % 2).astype(np.float64)
    others = np.concatenate([a[:1], 0.5 * a[1:]])
    v = np.cos(np.arange(a.size)).reshape(a.shape)
    with np.errstate(all="ignore"):
        found = [_loss(loss, at, y, backend) for at in (a, others, a + STEP * v, a - STEP * v)]
    if any(pair is None for pair in found):
        return
    (rows, gradient), (moved, _), (above, _), (below, _) = (pair for pair in found if pair)
    if abs(moved[0] - rows[0]) > 1e-9 + 1e-6 * abs(rows[0]):
        raise ArgumentError(
            f"{_what(loss)}. Received: one whose loss of a row changed from {rows[0]:.4g} to "
            f"{moved[0]:.4g} as only other rows changed. Remove sums and means over the rows."
        )
    rise, slope = (above - below).sum() / (2.0 * STEP), (gradient * v).sum()
    if abs(rise - slope) > 1e-3 + 1e-2 * np.abs(gradient * v).sum():
        logger.warning(
            "the gradient of loss %r is not its slope: in one direction it is %.4g, and the "
            "finite difference of the loss is %.4g. Correct it, unless this is intended.",
            *(loss.name, slope, rise),
        )


def _loss(loss: Loss, a: Numbers, y: Numbers, backend: Backend) -> tuple[Numbers, Numbers] | None:
    """Return the losses and the gradient; None if the formula needs another library's arrays."""
    try:
        rows, gradient = loss.rows(a.copy(), y.copy(), np)
        if np.shape(rows) != (len(a),):
            raise ValueError(f"losses of shape {np.shape(rows)} for {len(a)} rows")
        return np.asarray(rows), np.broadcast_to(np.asarray(gradient), a.shape)
    except Exception as error:  # whatever a user's formula raises
        if isinstance(error, TypeError) and not backend.owns(a):
            return None
        raise ArgumentError(
            f"{_what(loss)}. Received: {type(error).__name__}: {error}. "
            "Sum over the outputs only: xp.sum(..., axis=1)."
        ) from error


def _what(loss: Loss) -> str:
    return (
        f"the loss {loss.name!r} must be a function of a, y and xp that returns the loss of each "
        "row (B,) and the gradient (B, O)"
    )


def _check(phi: Activation, n_units: int, backend: Backend) -> None:
    rows = 4 if n_units < 100 else 2
    z = np.linspace(LOWEST, HIGHEST, rows * n_units).reshape(rows, n_units)
    row, column = np.ogrid[:rows, :n_units]
    is_unchanged = (row + column) % 2 == 0
    # Moving the others changes the largest and the smallest value, the sum and the mean.
    moved = np.where(is_unchanged, z, -2.0 * z - 0.5)
    found = []
    for values in (z, moved):
        a = _values(phi, "f", values, None, backend)
        slope = None if a is None else _values(phi, "df", values, a, backend)
        if a is None or slope is None:
            return
        found.append((a, slope))
    (a, slope), (moved_a, moved_slope) = found
    _check_elementwise(phi, "f", a[is_unchanged], moved_a[is_unchanged])
    _check_elementwise(phi, "df", slope[is_unchanged], moved_slope[is_unchanged])
    _compare_slopes(phi, z, slope, backend)


def _values(
    phi: Activation, role: str, z: Numbers, a: Numbers | None, backend: Backend
) -> Numbers | None:
    """Return f(z) or df(z); None if the formula needs another library's arrays."""
    argument = z.copy()
    try:
        result = phi.value(argument, np) if a is None else phi.slope(argument, a.copy(), np)
        if result is None or not np.array_equal(argument, z):
            raise ValueError("it returns None" if result is None else "it changes z in place")
        return np.array(np.broadcast_to(np.asarray(result, np.float64), z.shape))
    except Exception as error:  # whatever a user's formula raises
        what = f"{role} of activation {phi.name!r} must be a formula for whole arrays"
        if NEEDS_A_NUMBER.search(str(error)):
            raise ArgumentError(
                f"{what}. Received: one that uses an array as a single number, as `if`, max() "
                f"and math.exp() do ({error}). Write np.where(z > 0, z, 0.0) for `z if z > 0 else "
                "0.0`, np.maximum for max, np.exp for math.exp."
            ) from error
        if isinstance(error, TypeError) and not backend.owns(z):
            return None  # such as CuPy's functions, which refuse NumPy's arrays
        raise ArgumentError(
            f"{what}, which returns an array of the same shape. Received: for z.shape={z.shape}, "
            f"{type(error).__name__}: {error}. Correct the formula."
        ) from error


def _check_elementwise(phi: Activation, role: str, before: Numbers, after: Numbers) -> None:
    """Raise ArgumentError for values that changed although only other elements did."""
    is_changed = np.abs(after - before) > 1e-9 + 1e-6 * np.abs(before)  # False if both are NaN
    if is_changed.any():
        i = int(np.argmax(is_changed))
        raise ArgumentError(
            f"{role} of activation {phi.name!r} must work element by element. Received: one whose "
            f"value at an element changed from {before[i]:.4g} to {after[i]:.4g} as only others "
            "changed. Remove sums, means and largest values over the array; for probabilities "
            "use the built-in 'softmax', for the largest of several pieces use Maxout."
        )


def _compare_slopes(phi: Activation, z: Numbers, slope: Numbers, backend: Backend) -> None:
    """Log a warning if df differs from the finite differences of f in many places."""
    above = _values(phi, "f", z + STEP, None, backend)
    below = _values(phi, "f", z - STEP, None, backend)
    if above is None or below is None:
        return
    rise = (above - below) / (2.0 * STEP)
    wrong = np.abs(slope - rise) > 1e-3 + 1e-2 * np.abs(rise)  # False where f is NaN
    if 5 * wrong.sum() > wrong.size:
        i = int(np.argmax(wrong))
        logger.warning(
            "df of activation %r is not the slope of f: at z = %.4g it is %.4g, and the finite "
            "difference of f is %.4g. Correct it, unless this is intended.",
            *(phi.name, z.flat[i], slope.flat[i], rise.flat[i]),
        )
