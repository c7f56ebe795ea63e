"""The columns of a model's rows: their values in features, and the features of other values.

A column of a table is one feature or several, of which not all combinations exist: a row is of one
category at a time. So a picture that changes a column changes all its features together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.data.coding import ColumnCoding
from nnbackend.data.columns import (
    NO_VALUE,
    OTHER,
    CategoryColumn,
    CodedColumn,
    DateColumn,
    FilledColumn,
    NumberColumn,
    Unusual,
    YesNoColumn,
)
from nnbackend.data.tables import near_names, unique_names
from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.model import Model

DAY_0 = np.datetime64("1970-01-01T00:00:00")


@dataclass(frozen=True)
class RowColumn:
    """A column of a model's rows. at: the positions of its features.  coded: their coding."""

    name: str
    at: slice
    coded: CodedColumn

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers or dates, which can be an axis."""
        return isinstance(self.coded, (NumberColumn, DateColumn))

    @property
    def is_date(self) -> bool:
        """Whether the values are dates, in days since 1970."""
        return isinstance(self.coded, DateColumn)

    @property
    def has_values(self) -> bool:
        """Whether the values are known from the features: not of free text."""
        return isinstance(self.coded, (FilledColumn, CategoryColumn))

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of the values of a column of yes and no, or of categories; else none."""
        if isinstance(self.coded, YesNoColumn):
            return "no", "yes"
        if not isinstance(self.coded, CategoryColumn):
            return ()
        more = [OTHER] * self.coded.has_other + [NO_VALUE] * self.coded.has_gaps
        return (*self.coded.levels, *more)

    def values(self, x: np.ndarray) -> np.ndarray:
        """Return the values in rows of features x (n, n_features): (n,), NaN for no value.

        Dates are days since 1970, yes is 1 and no is 0, categories are positions in `levels`.
        """
        features = np.asarray(x[:, self.at], np.float64)
        if isinstance(self.coded, FilledColumn):
            return self.coded.values_of(features)
        assert isinstance(self.coded, CategoryColumn)
        places = self.coded.places(features)
        return np.where(places < 0, np.nan, places)

    def features(self, values: np.ndarray) -> np.ndarray:
        """Return the features of values like those of `values`: (n,) to (n, width)."""
        if isinstance(self.coded, FilledColumn):
            return self.coded.features_of(np.asarray(values, np.float64))
        assert isinstance(self.coded, CategoryColumn)
        cells = [self.coded.cells[int(place)] for place in values]
        return self.coded.encode(cells, Unusual("", range(len(cells)), is_silent=True))

    def shown(self, value: float) -> str:
        """Return a value as text for people."""
        if np.isnan(value):
            return NO_VALUE
        if self.is_date:
            return str(as_dates(value))[:10]
        if self.levels and value in range(len(self.levels)):
            return self.levels[int(value)]
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def as_dates(days: Any) -> Any:
    """Return days since 1970 as numpy.datetime64, to the second."""
    seconds = np.round(np.asarray(days) * 86_400.0).astype("timedelta64[s]")
    return DAY_0 + seconds


def columns_of(model: Model, names: Sequence[str] | None = None) -> Mapping[str, RowColumn]:
    """Return the columns of a model's rows by name, in the order of their features.

    names: of the columns of an array, x0, x1, ... by default; a table has its own.
    """
    known = model.preprocessing.columns
    if known is None:
        found: Sequence[CodedColumn] = [
            NumberColumn(name)
            for name in unique_names(names or [f"x{i}" for i in range(model.n_features)])
        ]
    else:
        found = ColumnCoding.from_dict(known).used
    columns, start = {}, 0
    for coded in found:
        end = start + len(coded.feature_names)
        columns[coded.name] = RowColumn(coded.name, slice(start, end), coded)
        start = end
    return columns


def chosen_columns(
    columns: Mapping[str, RowColumn], wanted: Sequence[str], what: str, is_fit: Any
) -> list[RowColumn]:
    """Return columns by their names.

    what: the kind of columns that are expected.  is_fit: whether a column is of that kind.
    Raises: ArgumentError for a name that is unknown or given twice, or of another kind.
    """
    suitable = [name for name, column in columns.items() if is_fit(column)]
    wrong = [name for name in wanted if name not in suitable]
    if wrong or not wanted or len(set(wanted)) < len(wanted):
        of = f", not {columns[wrong[0]].coded.kind}" if wrong and wrong[0] in columns else ""
        hint = near_names(wrong[0] if wrong else "", suitable)
        expected = f"different columns of the model, {what}{of}"
        raise ArgumentError(Fault("columns", expected, list(wanted), (hint,)))
    return [columns[name] for name in wanted]


def typical_row(columns: Mapping[str, RowColumn], x: np.ndarray) -> int:
    """Return the position of the row nearest to the typical value of each column.

        distance = sum |value - median| / interquartile range                of numbers and dates
                 + sum 1 - rows of the level / rows of the most frequent one       of levels

    A row of the data is a combination of values that exists; one of medians may be none.
    Shapes: x (n, n_features).
    """
    distance = np.zeros(len(x))
    for column in columns.values():
        if not column.has_values:
            continue
        values = column.values(x)
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        if column.is_number:
            low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
            scale = high - low or float(known.std()) or 1.0
            away = np.abs(values - middle) / scale
        else:
            levels, places, counts = np.unique(values, return_inverse=True, return_counts=True)
            away = 1.0 - (counts / counts[~np.isnan(levels)].max())[places]
        distance += np.where(np.isnan(values), 1.0, away)
    return int(distance.argmin())
