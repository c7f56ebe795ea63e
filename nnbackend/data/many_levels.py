"""Columns of many categories, such as postal codes: the mean target of each level is a feature.

The means are learnt from the training rows. A training row must not know its own target, so it is
encoded from the rows before it in a random order; new rows are encoded from all training rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.columns import CategoryColumn, Unusual, as_text, places_of
from nnbackend.data.tables import Column, Numbers
from nnbackend.data.targets import Label

PRIOR_ROWS = 5.0  # the weight of the mean of all rows, in rows of a level
FEWEST = 2  # rows of a level with a mean: the first row of a level never knows one
MOST_STORED = 30_000  # names and means of a column, which model files hold as text
ORDER_SEED = 0


class TargetValues(NamedTuple):
    """Targets as numbers whose means are features: values (n_rows, n_targets), names of these."""

    values: Numbers
    names: tuple[str, ...]

    def keep(self, rows: NDArray[np.bool_]) -> TargetValues:
        """Return the targets of some rows."""
        return TargetValues(self.values[rows], self.names)


def target_values(y: NDArray[np.generic], classes: Sequence[Label] | None) -> TargetValues:
    """Return the targets whose means describe a level: each class but the first as 0 or 1.

    Shapes: y (n_rows,) class codes or values, or values (n_rows, n_targets).
    """
    if classes is None:
        values = y.astype(np.float64).reshape(len(y), -1)
        return TargetValues(values, ("mean target",) * values.shape[1])
    values = (y[:, None] == np.arange(1, len(classes))).astype(np.float64)
    return TargetValues(values, tuple(f"share of {label}" for label in classes[1:]))


@dataclass(frozen=True)
class ManyLevelsColumn(CategoryColumn):
    """A column of more categories than features; their mean targets are features too.

    known: the levels with means.  means: those of each level in turn, n_targets each; the means of
    all rows count as PRIOR_ROWS rows of each level.  prior: the means of all rows, for other cells.
    targets: the names of the targets.

    Source: ordered target statistics of Prokhorenkova et al. 2018 (CatBoost), section 3.2, with one
    order of the rows.
    """

    known: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    prior: tuple[float, ...] = ()
    targets: tuple[str, ...] = ()
    kind: ClassVar[str] = "many categories"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (*self._level_names, *(f"{self.name}: {target}" for target in self.targets))

    def knows(self, level: str) -> bool:
        return level in self.known

    def encode(self, cells: Column, unusual: Unusual) -> Numbers:
        table = np.array([*self.means, *self.prior]).reshape(-1, len(self.prior))
        return np.concatenate([super().encode(cells, unusual), table[self._codes(cells)]], axis=1)

    def encode_training(self, cells: Column, target: Numbers, unusual: Unusual) -> Numbers:
        means = ordered_means(self._codes(cells), target, np.array(self.prior), len(self.known))
        return np.concatenate([super().encode(cells, unusual), means], axis=1)

    def _codes(self, cells: Column) -> NDArray[np.int64]:
        """Return the place of each cell among the known levels; their number for other cells."""
        place, other = places_of(self.known), len(self.known)
        return np.array([place.get(c or "", other) for c in as_text(cells)], np.int64)


def fit_means(one_hot: CategoryColumn, cells: Column, target: TargetValues) -> ManyLevelsColumn:
    """Return a column with the mean targets of its levels in addition to its features."""
    counts = Counter(cell for cell in as_text(cells) if cell is not None)
    most = MOST_STORED // (1 + len(target.names))
    ranked = sorted(counts, key=lambda level: (-counts[level], level))[:most]
    known = tuple(sorted(level for level in ranked if counts[level] >= FEWEST))
    prior = target.values.mean(axis=0)
    column = ManyLevelsColumn(
        one_hot.name, one_hot.levels, one_hot.has_other, one_hot.has_gaps,
        known=known, prior=tuple(prior.tolist()), targets=target.names, why=one_hot.why,
    )  # fmt: skip
    codes = column._codes(cells)
    rows = np.bincount(codes, minlength=len(known) + 1)[:-1, None]
    sums = np.zeros((len(known) + 1, len(target.names)))
    np.add.at(sums, codes, target.values)
    means = (sums[:-1] + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    return replace(column, means=tuple(means.ravel().tolist()))


def ordered_means(
    codes: NDArray[np.int64], target: Numbers, prior: Numbers, n_known: int
) -> Numbers:
    """Return the mean targets of the rows of the same level before each row, in a random order.

    Codes of n_known and more are no levels: these rows get the prior.
    Shapes: codes (n_rows,), target and result (n_rows, n_targets), prior (n_targets,).
    """
    order = np.random.Generator(np.random.Philox(ORDER_SEED)).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]  # by level, then in the random order
    codes, values = codes[order], target[order]
    is_first = np.append(True, codes[1:] != codes[:-1])[: len(codes)]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(codes)), 0))
    sums = np.cumsum(values, axis=0) - values  # of all rows before
    n_before = (np.arange(len(codes)) - first)[:, None]
    means = (sums - sums[first] + PRIOR_ROWS * prior) / (n_before + PRIOR_ROWS)
    means[codes >= n_known] = prior
    result = np.empty_like(means)
    result[order] = means
    return result
