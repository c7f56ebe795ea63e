"""A user's own formulas, tried on a few numbers before a network is built on them.

Kernels take an activation element by element. One that adds up over the array, or decides by an
array's truth, would work on some devices and on others fail at the first step, or give other
numbers: it is refused here, in the same words everywhere. So is a loss that gives no loss for each
row. A slope that is no slope may be meant, so it gets a line in the log.
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

LOWEST, HIGHEST = -2.1234, 1.9876  # not round, so that a kink is hardly ever hit
STEP = 1e-3  # of the finite differences; a formula may round to float32
# What array libraries say of an array where one number is needed.
NEEDS_A_NUMBER = re.compile("truth value|truth of|only .*arrays can be converted|Python scalar")


def check_activations(layers: Iterable[AbstractLayer], backend: Backend) -> None:
    """Refuse activations of a user's own that do not work element by element.

    Raises: ArgumentError, saying what f or df did.
    """
    pairs = [(la.activation, la.n_out) for la in layers if isinstance(la, Dense)]
    for phi, n_units in pairs:
        # A subclass may have a delta of its own, for units that depend on each other.
        if phi.kernel is None and type(phi) is Activation:
            with np.errstate(all="ignore"):
                _check(phi, n_units, backend)


def check_loss(loss: Loss, n_out: int, backend: Backend) -> None:
    """Refuse a loss of a user's own that is not one for each row, with its gradient.

    Raises: ArgumentError, saying what the formula did.
    """
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
            f"{_what(loss)}. Received: one whose loss of a row went from {rows[0]:.4g} to "
            f"{moved[0]:.4g} as only other rows changed. Leave out sums and means over the rows."
        )
    rise, slope = (above - below).sum() / (2.0 * STEP), (gradient * v).sum()
    if abs(rise - slope) > 1e-3 + 1e-2 * np.abs(gradient * v).sum():
        logger.warning(
            "the gradient of loss %r is not its slope: in one direction it gives %.4g, and the "
            "loss rises by %.4g. Correct it, unless it is meant so.",
            *(loss.name, slope, rise),
        )


def _loss(loss: Loss, a: Numbers, y: Numbers, backend: Backend) -> tuple[Numbers, Numbers] | None:
    """Return the losses and the gradient; None where another library's arrays are asked for."""
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
            "Sum over the outputs alone: xp.sum(..., axis=1)."
        ) from error


def _what(loss: Loss) -> str:
    return (
        f"the loss {loss.name!r} must be a function of a, y and xp that gives the loss of each row "
        "(B,) and the gradient (B, O)"
    )


def _check(phi: Activation, n_units: int, backend: Backend) -> None:
    rows = 4 if n_units < 100 else 2
    z = np.linspace(LOWEST, HIGHEST, rows * n_units).reshape(rows, n_units)
    row, column = np.ogrid[:rows, :n_units]
    stays = (row + column) % 2 == 0
    moved = np.where(stays, z, -2.0 * z - 0.5)  # largest, smallest, sum and mean are others
    found = []
    for values in (z, moved):
        a = _values(phi, "f", values, None, backend)
        slope = None if a is None else _values(phi, "df", values, a, backend)
        if a is None or slope is None:
            return
        found.append((a, slope))
    (a, slope), (moved_a, moved_slope) = found
    _check_alone(phi, "f", a[stays], moved_a[stays])
    _check_alone(phi, "df", slope[stays], moved_slope[stays])
    _compare(phi, z, slope, backend)


def _values(
    phi: Activation, role: str, z: Numbers, a: Numbers | None, backend: Backend
) -> Numbers | None:
    """Return what f or df makes of z; None where it asks for another library's arrays."""
    seen = z.copy()
    try:
        given = phi.value(seen, np) if a is None else phi.slope(seen, a.copy(), np)
        if given is None or not np.array_equal(seen, z):
            raise ValueError("it gives None" if given is None else "it changes z itself")
        return np.array(np.broadcast_to(np.asarray(given, np.float64), z.shape))
    except Exception as error:  # whatever a user's formula raises
        what = f"{role} of activation {phi.name!r} must be a formula for whole arrays"
        if NEEDS_A_NUMBER.search(str(error)):
            raise ArgumentError(
                f"{what}. Received: one that takes an array for a single number, as `if`, max() "
                f"and math.exp() do ({error}). Write np.where(z > 0, z, 0.0) for `z if z > 0 else "
                "0.0`, np.maximum for max, np.exp for math.exp."
            ) from error
        if isinstance(error, TypeError) and not backend.owns(z):
            return None  # such as CuPy's own functions, which refuse NumPy's arrays
        raise ArgumentError(
            f"{what}, which gives an array of the same shape. Received: for z.shape={z.shape}, "
            f"{type(error).__name__}: {error}. Mend the formula."
        ) from error


def _check_alone(phi: Activation, role: str, before: Numbers, after: Numbers) -> None:
    """Refuse values that changed though only other elements did."""
    other = np.abs(after - before) > 1e-9 + 1e-6 * np.abs(before)  # false where both are NaN
    if other.any():
        i = int(np.argmax(other))
        raise ArgumentError(
            f"{role} of activation {phi.name!r} must work element by element. Received: one whose "
            f"value at an element went from {before[i]:.4g} to {after[i]:.4g} as only others "
            "changed. Leave out sums, means and largest values over the array; for probabilities "
            "name the built-in 'softmax', for the largest of several pieces use Maxout."
        )


def _compare(phi: Activation, z: Numbers, slope: Numbers, backend: Backend) -> None:
    """Say in the log when df is far from the finite differences of f in many places."""
    above = _values(phi, "f", z + STEP, None, backend)
    below = _values(phi, "f", z - STEP, None, backend)
    if above is None or below is None:
        return
    rise = (above - below) / (2.0 * STEP)
    wrong = np.abs(slope - rise) > 1e-3 + 1e-2 * np.abs(rise)  # false where f has no value
    if 5 * wrong.sum() > wrong.size:
        i = int(np.argmax(wrong))
        logger.warning(
            "df of activation %r is not the slope of f: at z = %.4g it gives %.4g, and f rises by "
            "%.4g. Correct it, unless it is meant so.",
            *(phi.name, z.flat[i], slope.flat[i], rise.flat[i]),
        )
