"""Loops of direct calls, on matrices row by row: activations after a product of NumPy's."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend_numba import scalars

formula: Any = None  # replaced, see `compiling`


def activate(z, b, a):
    """z += b;  a = phi(z)."""
    for i in range(z.shape[0]):
        zi, ai = z[i], a[i]
        for j in range(zi.size):
            v = zi[j] + b[j]
            zi[j] = v
            ai[j] = formula(v, scalars)


def activate_in_place(z, b):
    """Compute the same if a is z."""
    for i in range(z.shape[0]):
        zi = z[i]
        for j in range(zi.size):
            zi[j] = formula(zi[j] + b[j], scalars)


def softmax(z, b, a):
    """z += b;  a = e^z / sum e^z of a row."""
    for i in range(z.shape[0]):
        zi, ai = z[i], a[i]
        top = -zi.dtype.type(np.inf)
        for j in range(zi.size):
            zi[j] += b[j]
            top = max(top, zi[j])
        total = zi.dtype.type(0)
        for j in range(zi.size):
            ai[j] = scalars.exp(zi[j] - top)
            total += ai[j]
        for j in range(zi.size):
            ai[j] /= total
