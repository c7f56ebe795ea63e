"""Partial dependence: the mean prediction when a column has the same value in all rows.

The curves of single rows (individual conditional expectation) show what the mean hides: rows in
which the column acts in another way. A combination of values need not exist in the data; where
columns depend on one another, read the curves with care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.columns import RowColumn, as_dates, chosen_columns, columns_of
from nnbackend.model.model import Model
from nnbackend.model.tables import code_table

POINTS = 40
ROWS = 1_000
CURVES = 40
MOST_LEVELS = 12  # of a column of categories, the most frequent ones
ENDS = 0.01, 0.99  # quantiles: a few extreme values would take most of a picture
N_COLUMNS = 4  # by default


@dataclass(frozen=True, eq=False)
class Dependence:
    """How the predictions of a model depend on one column.

    grid: increasing numbers, dates as numpy.datetime64, or names of levels, most frequent first.
    mean: the mean prediction of n_rows rows.  curves: the predictions of single rows.
    deciles: of the column's numbers or dates.  shares: of the rows that have each level.
    outputs: the name of each output.  what: what is predicted.
    n_levels: the number of all levels.
    Shapes: grid (n,); mean (n, n_outputs); curves (n_curves, n, n_outputs); deciles (9,) and shares
    (0,), or (0,) and (n,).
    """

    column: str
    grid: np.ndarray
    mean: np.ndarray
    curves: np.ndarray
    deciles: np.ndarray
    shares: np.ndarray
    outputs: tuple[str, ...]
    what: str
    n_rows: int
    n_levels: int

    @property
    def is_of_levels(self) -> bool:
        """Whether the column has levels, without an order, instead of numbers or dates."""
        return bool(self.n_levels)


def partial_dependence(
    model: Model,
    x: Any,
    columns: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    points: int = POINTS,
    rows: int = ROWS,
    curves: int = CURVES,
    seed: int = 0,
) -> dict[str, Dependence]:
    """Return how the predictions depend on columns: {name: Dependence}.

        mean(v) = 1/n sum_i f(x_i with the column set to v)

    All features of a table's column change together. Class probabilities, of two classes the
    second one's; else values in their units.
    x: rows as for `Model.predict`, or features of a table.  columns: names; by default the first 4.
    names: of the columns of an array.  points: of the grid, quantiles of the numbers.
    rows: at most so many, drawn with the seed.  curves: of so many of them.
    Raises: ArgumentError for columns that are unknown or of free text, and for no rows.
    Source: Friedman 2001, section 8.2; curves: Goldstein, Kapelner, Bleich and Pitkin 2015.
    """
    known = columns_of(model, names)
    if columns is None:
        columns = [name for name, column in known.items() if column.has_values][:N_COLUMNS]
    chosen = chosen_columns(
        known, columns, "of numbers, dates, yes and no, or categories", lambda c: c.has_values
    )
    features: Any = code_table(x, model.preprocessing.columns)
    if not len(features):
        raise ArgumentError("The dependence needs a row at least. Received: none.")
    for name, value in {"points": points, "rows": rows}.items():
        if value < 1:
            raise ArgumentError(Fault(name, "at least 1", value))
    order = np.random.default_rng(seed).permutation(len(features))[:rows]
    part = np.asarray(features[np.sort(order)], np.float64)
    singles = np.searchsorted(np.sort(order), np.sort(order[: max(0, curves)]))
    return {column.name: _dependence(model, part, column, points, singles) for column in chosen}


def _dependence(
    model: Model, x: np.ndarray, column: RowColumn, points: int, singles: np.ndarray
) -> Dependence:
    """Return the dependence on one column. Shapes: x (n, n_features); singles (n_curves,)."""
    values = column.values(x)
    values = values[~np.isnan(values)]
    is_of_levels = bool(column.levels)
    if is_of_levels:
        grid, shares = _levels(column, values)
    elif column.is_date:
        grid, shares = _dates(values, points), np.empty(0)
    else:
        grid, shares = _quantiles(values, points), np.empty(0)
    features, changed = column.features(grid), x.copy()
    means, curves = [], []
    for cells in features:  # a value at a time: all rows of all values may not fit in memory
        changed[:, column.at] = cells
        outputs = _outputs(model, changed)
        means.append(outputs.mean(axis=0, dtype=np.float64))
        curves.append(outputs[singles])
    deciles = np.empty(0) if is_of_levels else _deciles(values)
    if is_of_levels:
        grid = np.array([column.levels[int(place)] for place in grid], object)
    elif column.is_date:
        grid, deciles = as_dates(grid), as_dates(deciles)
    return Dependence(
        column.name, grid, np.array(means), np.stack(curves, axis=1), deciles, shares,
        *_names(model), len(x), len(column.levels),
    )  # fmt: skip


def _quantiles(values: np.ndarray, points: int) -> np.ndarray:
    """Return different values at even quantiles, or all of them if they are few."""
    if not len(values):
        return np.zeros(1)
    different = np.unique(values)
    if len(different) <= points:
        return different
    return np.unique(np.quantile(values, np.linspace(*ENDS, points), method="inverted_cdf"))


def _dates(values: np.ndarray, points: int) -> np.ndarray:
    """Return days at even quantiles; over a long time, all of one day of the week and one time.

    Otherwise the differences between the days of the week would look like those over the years.
    """
    grid = _quantiles(values, points)
    if np.ptp(grid) < 7.0 * points:
        return grid
    weekday = np.bincount((np.floor(values) % 7).astype(np.int64)).argmax()
    shift = (weekday - np.floor(grid) + 3) % 7 - 3
    return np.unique(np.floor(grid) + shift + np.median(values % 1.0))


def _deciles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, np.arange(1, 10) / 10) if len(values) else np.empty(0)


def _levels(column: RowColumn, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most frequent levels of a column, as positions, and the share of each.

    Yes and no keep their order.
    """
    counts = np.array([(values == place).sum() for place in range(len(column.levels))])
    places = np.arange(len(counts))
    if len(counts) > 2:
        places = np.argsort(-counts, kind="stable")[:MOST_LEVELS]
    return places.astype(np.float64), counts[places] / max(1, len(values))


def _has_proba(model: Model) -> bool:
    is_of_classes = model.is_classifier or model.network.loss.name == "binary_cross_entropy"
    return is_of_classes and model.has_probabilities


def _outputs(model: Model, x: np.ndarray) -> np.ndarray:
    """Return the predictions to draw: (n, n_outputs)."""
    if _has_proba(model):
        p = model.predict_proba(x)
        return p[:, 1:] if model.is_classifier and p.shape[1] == 2 else p
    out = model.outputs(x) if model.is_classifier else model.predict(x)
    return out.reshape(len(x), -1)


def _names(model: Model) -> tuple[tuple[str, ...], str]:
    """Return the names of the outputs of `_outputs`, and what they are."""
    stored = model.preprocessing.columns
    target = stored["target"] if stored is not None else None
    n = model.network.n_out
    classes = tuple(map(str, model.classes or range(max(n, 2) if model.is_classifier else n)))
    if not _has_proba(model):
        outputs = classes if model.is_classifier else tuple(f"output {i}" for i in range(n))
        what = "output" if model.is_classifier else f"predicted {target or 'value'}"
        return outputs[:n], what
    if model.is_classifier and len(classes) == 2:
        of = f"{target} = {classes[1]}" if target else repr((model.classes or (0, 1))[1])
        return classes[1:], f"probability of {of}"
    return classes, f"probability of {target}" if target else "probability"
