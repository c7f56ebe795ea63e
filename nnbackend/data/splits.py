"""Splits of rows into two parts or folds: random, stratified by class, by groups or by time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.keys import Keys
from nnbackend.errors import ArgumentError, DataError

Rows = NDArray[np.int64]
FEWER = " Choose fewer folds."


def split_rows(
    n: int, fraction: float, seed: int, labels: NDArray[Any] | None, keys: Keys | None = None
) -> tuple[Rows, Rows]:
    """Return (remaining rows, held-out rows), both sorted; about `fraction` of n are held out.

    With labels (n,) the split is stratified, to within one row per class, and each class keeps a
    row if possible. The same seed gives the same rows.
    keys: groups, of which each is in one part; or times, of which the latest are held out.
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
    if keys is not None:
        held_out = _held_out(keys, n_held_out, rng)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)
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


def _held_out(keys: Keys, n_held_out: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the mask of whole groups or of the latest times with about `n_held_out` rows."""
    if keys.groups is not None:
        parts = np.unique(keys.groups, return_inverse=True)[1]
        ranks = rng.permutation(int(parts.max()) + 1)[parts]
    else:
        assert keys.order is not None
        ranks = -np.unique(keys.order, return_inverse=True)[1]
    values, counts = np.unique(ranks, return_counts=True)
    _check_parts(len(values), 2, keys, "A training and a held-out part")
    # The number of rows nearest to the wanted one, without the last part.
    totals = np.cumsum(counts)[:-1]
    last = values[np.abs(totals - n_held_out).argmin()]
    taken: NDArray[np.bool_] = ranks <= last
    return taken


def _check_parts(n: int, least: int, keys: Keys, parts: str, cure: str = "") -> None:
    if n < least:
        what = "groups" if keys.order is None else "different times"
        raise DataError(f"{parts} need at least {least} {what}. Received: {n}.{cure}")


def fold_rows(
    n: int, n_folds: int, seed: int, labels: NDArray[Any] | None, keys: Keys | None = None
) -> Iterator[tuple[Rows, Rows]]:
    """Yield (other rows, held-out rows) of each of `n_folds` folds.

    labels: classes (n,), to spread evenly if possible.
    keys: groups, of which each is in one fold; or times: the rows of a fold are later than all its
    other rows, which are more from fold to fold.
    Raises: DataError for fewer rows, groups or times than folds.
    """
    from sklearn import model_selection as kinds

    seed %= 1 << 32  # as scikit-learn takes it
    if keys is not None and keys.order is not None:
        times, codes = np.unique(keys.order, return_inverse=True)
        _check_parts(len(times), n_folds + 1, keys, f"{n_folds} folds", FEWER)
        for _, held in kinds.TimeSeriesSplit(n_folds).split(times):
            is_held = (codes >= held[0]) & (codes <= held[-1])
            yield np.flatnonzero(codes < held[0]), np.flatnonzero(is_held)
        return
    groups = None if keys is None else keys.groups
    if keys is not None and groups is not None:
        _check_parts(len(np.unique(groups)), n_folds, keys, f"{n_folds} folds", FEWER)
    if n < n_folds:
        raise DataError(f"{n_folds} folds need as many rows. Received: {n}.{FEWER}")
    if labels is not None and int(np.unique(labels, return_counts=True)[1].max()) < n_folds:
        labels = None
    kind = (
        (kinds.KFold if labels is None else kinds.StratifiedKFold) if groups is None
        else kinds.GroupKFold if labels is None else kinds.StratifiedGroupKFold
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer rows than folds
        folds = kind(n_folds, shuffle=True, random_state=seed)
        yield from folds.split(np.zeros(n), labels, groups)
