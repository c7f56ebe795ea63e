"""The coding of a table's columns as features, stored so that later tables are read alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.columns import (
    CategoryColumn,
    CodedColumn,
    LeftOutColumn,
    NumberColumn,
    Unusual,
)
from nnbackend.data.many_levels import ManyLevelsColumn, TargetValues
from nnbackend.data.number_text import Decimal
from nnbackend.data.stored_columns import column_from_dict
from nnbackend.data.tables import NA, Numbers, Table, near_names, unique_names
from nnbackend.data.targets import TASKS, Label, Task
from nnbackend.errors import DataError


@dataclass(frozen=True)
class ColumnCoding:
    """The coding of raw columns as features, and of the target as class codes.

    `columns` are in the order of the features; some become none. If `has_header` is false, columns
    are matched by position, and `target_position` is the position of the target. With `target`
    None the target column of a table is ignored.
    """

    columns: tuple[CodedColumn, ...]
    target: str | None
    task: Task | None
    classes: tuple[Label, ...] | None = None
    has_header: bool = True
    target_position: int | None = None
    decimal: Decimal = "."

    @property
    def used(self) -> tuple[CodedColumn, ...]:
        """The columns that become features."""
        return tuple(column for column in self.columns if column.feature_names)

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the columns that identify a row."""
        return tuple(
            c.name for c in self.columns if isinstance(c, LeftOutColumn) and c.what == "id"
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, in order; equal ones are numbered."""
        return unique_names([name for c in self.columns for name in c.feature_names])

    @property
    def is_of_target(self) -> NDArray[np.bool_]:
        """For each feature, whether it is learnt from targets: (n_features,).

        Such features of a row differ between training and prediction.
        """
        n_targets = [len(c.targets) if isinstance(c, ManyLevelsColumn) else 0 for c in self.columns]
        parts = [
            np.arange(width := len(c.feature_names)) >= width - n
            for c, n in zip(self.columns, n_targets, strict=True)
        ]
        return np.concatenate([np.empty(0, bool), *parts])

    def text_positions(self, names: tuple[str, ...], where: str) -> set[int]:
        """Return the columns of a table that must be read as text, even if they look like numbers.

        With a decimal comma 1.500 is 1500, which only the text shows.
        Raises: DataError when the columns do not match.
        """
        features, target = self.match(names, where)
        positions = {
            at
            for at, raw in zip(features, self.used, strict=True)
            if not isinstance(raw, NumberColumn) or raw.decimal == ","
        }
        is_text = isinstance(self.classes[0], str) if self.classes else self.decimal == ","
        if target is not None and is_text:
            positions.add(target)
        return positions

    def least_codes(self, names: tuple[str, ...], where: str) -> dict[int, float]:
        """Return 0 for the positions of columns of which NA is a category, infinity for others.

        See `with_na`. Raises: DataError when the columns do not match.
        """
        features, target = self.match(names, where)
        least = {
            at: 0.0 if isinstance(raw, CategoryColumn) and raw.knows(NA) else math.inf
            for at, raw in zip(features, self.used, strict=True)
        }
        if target is not None:
            least[target] = 0.0 if NA in (self.classes or ()) else math.inf
        return least

    def match(self, names: tuple[str, ...], where: str) -> tuple[list[int], int | None]:
        """Return the positions in `names` of the columns used, and of the target or None.

        Raises: DataError when a coded column is missing.
        """
        if not self.has_header:
            return self._match_by_position(len(names), where)
        position = {name: i for i, name in enumerate(names)}
        absent = [column.name for column in self.used if column.name not in position]
        if absent:
            raise DataError(
                f"{where}: the table must have the columns that the model was trained on. "
                f"Received: no column {', '.join(map(repr, absent[:10]))}. "
                f"{near_names(absent[0], names)}"
                f"{NO_HEADER if len(absent) == len(self.used) else ''}"
            )
        target = None if self.target is None else position.get(self.target)
        return [position[column.name] for column in self.used], target

    def _match_by_position(self, width: int, where: str) -> tuple[list[int], int | None]:
        n, at = len(self.columns), self.target_position
        used = [i for i, column in enumerate(self.columns) if column.feature_names]
        if width == n:
            return used, None
        if width == n + 1 and at is not None:
            return [i + (i >= at) for i in used], None if self.target is None else at
        raise DataError(
            f"{where}: a table without header must have {n} columns, or {n + 1} with the target, "
            f"as when the model was trained. Received: {width} columns."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, text and numbers for JSON; `from_dict` restores an equal coding."""
        return {
            "columns": [column.to_dict() for column in self.columns],
            "target": self.target,
            "task": self.task,
            "classes": None if self.classes is None else list(self.classes),
            "has_header": self.has_header,
            "target_position": self.target_position,
            "decimal": self.decimal,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ColumnCoding:
        """Restore a coding from the result of `to_dict`.

        Raises: DataError when an entry is missing or invalid: the file may be untrusted.
        """
        try:
            columns = tuple(map(column_from_dict, stored["columns"]))
            classes = stored["classes"]
            coding = cls(
                columns=columns,
                target=stored["target"],
                task=stored["task"],
                classes=None if classes is None else tuple(classes),
                has_header=bool(stored["has_header"]),
                target_position=stored["target_position"],
                decimal=stored["decimal"],
            )
            coding._check()
            return coding
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "A stored column coding must have the entries that to_dict() writes. "
                f"Received: {type(error).__name__}: {error}"
            ) from error

    def _check(self) -> None:
        """Raise ValueError for invalid entries."""
        position = self.target_position
        for name, is_good in {
            "target": self.target is None or isinstance(self.target, str),
            "task": self.task in (None, *TASKS),
            "decimal": self.decimal in (".", ","),
            "classes": all(type(c) in get_args(Label) for c in self.classes or ()),
            "target_position": position is None
            or (type(position) is int and 0 <= position <= len(self.columns)),
        }.items():
            if not is_good:
                raise ValueError(f"invalid {name}")


NO_HEADER = " The first row of the file must hold the names of its columns."


def encode(table: Table, coding: ColumnCoding, is_silent: bool = False) -> Numbers:
    """Return the features of a table that has the columns of a coding: (n_rows, n_features).

    is_silent: whether to log nothing about cells that the coding does not know.
    """
    unusual = Unusual(table.where, table.row_numbers, is_silent)
    cells = dict(zip(table.names, table.columns, strict=True))
    parts = [column.encode(cells[column.name], unusual) for column in coding.used]
    return np.concatenate([np.empty((table.n_rows, 0)), *parts], axis=1)


def encode_training(table: Table, coding: ColumnCoding, target: TargetValues | None) -> Numbers:
    """Return the features of the rows to which a coding was fitted, with their targets.

    target: None if no column is fitted to targets.
    """
    if target is None:
        return encode(table, coding)
    unusual = Unusual(table.where, table.row_numbers)
    cells = dict(zip(table.names, table.columns, strict=True))
    parts = [c.encode_training(cells[c.name], target.values, unusual) for c in coding.used]
    return np.concatenate([np.empty((table.n_rows, 0)), *parts], axis=1)
