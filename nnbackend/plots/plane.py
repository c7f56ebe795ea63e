"""The plane of a decision boundary: two columns vary, the others are those of a typical row.

The other columns must not be set to means or medians one by one: a row with half of each category,
or with two at once, does not exist, and the network has never seen one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.columns import RowColumn, chosen_columns, columns_of, typical_row
from nnbackend.model.model import Model

WIDTH, MOST_LINES = 80, 2  # of the note
NO_BREAK = "\u00a0"
WHAT = "of numbers or dates"


@dataclass(frozen=True, eq=False)
class Plane:
    """Two columns of a model's rows, and the features of the row that the others are taken from.

    note: the values of the other columns, in a line or two; empty without other columns.
    """

    columns: tuple[RowColumn, RowColumn]
    row: np.ndarray
    note: str

    def features(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the features of points: the values of the two columns (n,) to (n, n_features)."""
        rows = np.repeat(self.row[None], len(first), axis=0)
        for column, values in zip(self.columns, (first, second), strict=True):
            rows[:, column.at] = column.features(values)
        return rows

    def values(self, x: np.ndarray) -> np.ndarray:
        """Return the values of the two columns in rows of features, NaN for none: (n, 2)."""
        return np.stack([column.values(x) for column in self.columns], axis=1)


def plane_of(
    model: Model,
    x: np.ndarray,
    *,
    columns: Sequence[str] | None = None,
    features: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> Plane:
    """Return the plane of two columns, chosen by name or by a feature's position.

    By default the first two of numbers or dates. x: the rows among which the typical one is.
    Raises: ArgumentError for other columns.
    """
    known = columns_of(model, names)
    suitable = [name for name, column in known.items() if column.is_number]
    if len(suitable) < 2:
        raise ArgumentError(
            f"A decision boundary needs two columns {WHAT}. Received: a model with "
            f"{len(suitable)} of {len(known)} columns. Draw its partial dependence instead "
            "(--kind dependence)."
        )
    if columns is None:
        columns = suitable[:2] if features is None else _names_at(known, features)
    if len(columns) != 2:
        expected = f"two columns {WHAT}"
        raise ArgumentError(Fault("columns", expected, list(columns)))
    first, second = chosen_columns(known, columns, WHAT, lambda c: c.is_number)
    has_both = ~np.isnan([first.values(x), second.values(x)]).any(axis=0)
    if not has_both.any():
        raise ArgumentError(
            f"A decision boundary needs a row with values of {first.name!r} and {second.name!r}. "
            f"Received: {len(x)} rows, none with both. Choose other columns or rows."
        )
    others = {name: c for name, c in known.items() if name not in columns}
    row = np.asarray(x[typical_row(others, x)], np.float64)
    return Plane((first, second), row, _note(others, row))


def _names_at(known: Mapping[str, RowColumn], features: tuple[int, int]) -> list[str]:
    """Return the names of the columns that have the features at two positions."""
    n = max(column.at.stop for column in known.values())
    owner = [name for name, c in known.items() for _ in range(c.at.start, c.at.stop)]
    are_positions = len(features) == 2 and all(0 <= f < n for f in features)
    names = [owner[f] for f in features] if are_positions else []
    if len(set(names)) != 2 or not all(known[name].is_number for name in names):
        expected = f"two features from 0 to {n - 1}, of different columns {WHAT}"
        raise ArgumentError(Fault("features", expected, features))
    return names


def _note(others: Mapping[str, RowColumn], row: np.ndarray) -> str:
    """Return the values of the other columns as text, cut to two lines."""
    shown = [  # no line breaks inside
        f"{name} = {column.shown(column.values(row[None])[0])}".replace(" ", NO_BREAK)
        for name, column in others.items()
        if column.has_values
    ]
    if not others:
        return ""
    for n in range(len(shown), -1, -1):
        rest = [f"… ({len(others) - n} more)".replace(" ", NO_BREAK)] if n < len(others) else []
        text = f"others as in a typical row: {', '.join([*shown[:n], *rest])}"
        lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False)
        if len(lines) <= MOST_LINES:
            break
    return "\n".join(lines).replace(NO_BREAK, " ")
