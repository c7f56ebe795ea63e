"""Random splits of rows, stratified by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.errors import ArgumentError, DataError

Rows = NDArray[np.int64]


def split_rows(
    n: int, fraction: float, seed: int, labels: NDArray[Any] | None
) -> tuple[Rows, Rows]:
    """Return (remaining rows, held-out rows), both sorted; about `fraction` of n are held out.

    With labels (n,) the split is stratified, to within one row per class, and each class keeps a
    row if possible. The same seed gives the same rows.
    Raises: ArgumentError when fraction is not between 0 and 1; DataError for fewer than 2 rows.
    """
    if not 0.0 < fraction < 1.0:
        raise ArgumentError(
            "fraction must lie between 0 and 1, both excluded. "
            f"Received: fraction={fraction!r}. For a fifth of the rows use 0.2."
        )
    if n < 2:
        raise DataError(f"A split needs at least 2 rows, one for each side. Received: {n}.")
    rng = np.random.Generator(np.random.Philox(seed))
    n_held_out = min(max(round(fraction * n), 1), n - 1)
    held_out = np.zeros(n, dtype=bool)
    if labels is None:
        held_out[rng.permutation(n)[:n_held_out]] = True
    else:
        for members, n_taken in _shares(labels, fraction, n_held_out):
            held_out[rng.permutation(members)[:n_taken]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _shares(y: NDArray[Any], fraction: float, n_held_out: int) -> list[tuple[Rows, int]]:
    """Return for each class its rows and how many to hold out, `n_held_out` in total.

    Largest remainder method; a class that would lose its last row comes after all others.
    """
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    quota = fraction * counts
    taken = np.minimum(np.floor(quota).astype(np.int64), counts - 1)
    can_spare = taken + 1 < counts
    order = np.lexsort((taken - quota, ~can_spare))
    taken[order[: n_held_out - int(taken.sum())]] += 1
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    return [(rows, int(n)) for rows, n in zip(members, taken, strict=True)]
