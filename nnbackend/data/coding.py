"""The coding of a table's columns as features, stored so that later tables are read alike.

Numbers stay as they are, a column of boolean words becomes 0 and 1, and any other text becomes one
feature per category (one-hot). A category that is not in the coding is refused, because the model
has no weights for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from nnbackend.data.tables import (
    Column,
    Numbers,
    Table,
    Text,
    is_number,
    near_names,
    warn_of_lost_digits,
)
from nnbackend.data.targets import TASKS, Label, Task
from nnbackend.errors import DataError, Mention

logger = logging.getLogger("nnbackend")
ColumnKind = Literal["numeric", "boolean", "categorical"]

MAX_CATEGORIES = 100
MANY_CATEGORIES = 20  # more log a warning: the cells may be dates, or have units
BOOLEAN_WORDS = {"false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
BOOLEAN_CELLS = {**BOOLEAN_WORDS, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}


@dataclass(frozen=True)
class RawColumn:
    """One column of a table: its name, its kind, and its categories if it is categorical."""

    name: str
    kind: ColumnKind
    categories: tuple[str, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features made from this column."""
        if self.kind != "categorical":
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)


@dataclass(frozen=True)
class ColumnCoding:
    """The coding of raw columns as features, and of the target as class codes.

    `columns` are in the order of the features. If `has_header` is false, columns are matched by
    position, and `target_position` is the position of the target. With `target` None the target
    column of a table is ignored.
    """

    columns: tuple[RawColumn, ...]
    target: str | None
    task: Task | None
    classes: tuple[Label, ...] | None = None
    has_header: bool = True
    target_position: int | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, in order."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def text_positions(self, names: tuple[str, ...], where: str) -> set[int]:
        """Return the columns of a table that must be read as text, even if they look like numbers.

        Raises: DataError when the columns do not match.
        """
        features, target = self.match(names, where)
        positions = {
            at for at, raw in zip(features, self.columns, strict=True) if raw.kind != "numeric"
        }
        if target is not None and self.classes and isinstance(self.classes[0], str):
            positions.add(target)
        return positions

    def match(self, names: tuple[str, ...], where: str) -> tuple[list[int], int | None]:
        """Return the positions in `names` of the coded columns, and of the target or None.

        Raises: DataError when a coded column is missing.
        """
        if not self.has_header:
            return self._match_by_position(len(names), where)
        position = {name: i for i, name in enumerate(names)}
        absent = [column.name for column in self.columns if column.name not in position]
        if absent:
            raise DataError(
                f"{where}: the table must have the columns that the model was trained on. "
                f"Received: no column {', '.join(map(repr, absent[:10]))}. "
                f"{near_names(absent[0], names)}"
            )
        target = None if self.target is None else position.get(self.target)
        return [position[column.name] for column in self.columns], target

    def _match_by_position(self, width: int, where: str) -> tuple[list[int], int | None]:
        n = len(self.columns)
        if width == n:
            return list(range(n)), None
        if width == n + 1 and self.target_position is not None:
            at = self.target_position
            return [i for i in range(width) if i != at], None if self.target is None else at
        raise DataError(
            f"{where}: a table without header must have {n} columns, or {n + 1} with the target, "
            f"as when the model was trained. Received: {width} columns."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, text and numbers for JSON; `from_dict` restores an equal coding."""
        return {
            "columns": [
                {"name": c.name, "kind": c.kind, "categories": list(c.categories)}
                for c in self.columns
            ],
            "target": self.target,
            "task": self.task,
            "classes": None if self.classes is None else list(self.classes),
            "has_header": self.has_header,
            "target_position": self.target_position,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ColumnCoding:
        """Restore a coding from the result of `to_dict`.

        Raises: DataError when an entry is missing or invalid: the file may be untrusted.
        """
        try:
            columns = tuple(
                RawColumn(str(c["name"]), c["kind"], tuple(str(v) for v in c["categories"]))
                for c in stored["columns"]
            )
            classes = stored["classes"]
            coding = cls(
                columns=columns,
                target=stored["target"],
                task=stored["task"],
                classes=None if classes is None else tuple(classes),
                has_header=bool(stored["has_header"]),
                target_position=stored["target_position"],
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
            "kind": all(column.kind in get_args(ColumnKind) for column in self.columns),
            "target": self.target is None or isinstance(self.target, str),
            "task": self.task in (None, *TASKS),
            "classes": all(type(c) in get_args(Label) for c in self.classes or ()),
            "target_position": position is None
            or (type(position) is int and 0 <= position <= len(self.columns)),
        }.items():
            if not is_good:
                raise ValueError(f"invalid {name}")


def fit_column(table: Table, index: int, is_categorical: bool = False) -> RawColumn:
    """Return the coding of one column of a table.

    Raises: DataError for text with too many different values.
    """
    name, column = table.names[index], table.columns[index]
    if not isinstance(column, list):
        return RawColumn(name, "numeric")
    distinct = {cell for cell in column if cell is not None}
    if not is_categorical and {cell.lower() for cell in distinct} <= BOOLEAN_WORDS.keys():
        return RawColumn(name, "boolean")
    if len(distinct) > MAX_CATEGORIES:
        row, value = next(
            (row, cell)
            for row, cell in zip(table.row_numbers, column, strict=True)
            if is_categorical or (cell is not None and not is_number(cell))
        )
        raise DataError(
            f"{table.where}: a column of text must have at most {MAX_CATEGORIES} different values. "
            f"Received: {len(distinct)} in column {name!r}, such as {value!r} in data row {row}. "
            "Ignore it with ", Mention("ignore", [name]), ", or make it numeric or coarser.",
        )  # fmt: skip
    if len(distinct) > MANY_CATEGORIES and not is_categorical:
        logger.warning(
            "%s: column %r is text, such as %r; its %d different values become one feature each. "
            "%s ignores the column, %s silences this warning.",
            table.where, name, column[0], len(distinct),
            Mention("ignore", [name]), Mention("categorical", [name]),
        )  # fmt: skip
    return RawColumn(name, "categorical", tuple(sorted(distinct)))


def encode(table: Table, coding: ColumnCoding) -> Numbers:
    """Return the features of all columns in one array (n_rows, n_features)."""
    x = np.zeros((table.n_rows, len(coding.feature_names)))
    at = 0
    for raw, column in zip(coding.columns, table.columns, strict=True):
        if raw.kind == "categorical":
            codes = _codes(table, raw, column, {c: i for i, c in enumerate(raw.categories)})
            x[np.arange(table.n_rows), at + codes.astype(np.int64)] = 1.0
        elif raw.kind == "boolean":
            lowered = [cell.lower() if cell else cell for cell in as_text(column)]
            x[:, at] = _codes(table, raw, lowered, BOOLEAN_CELLS)
        else:
            warn_of_lost_digits(raw.name, column, table.where)
            x[:, at] = _as_numbers(table, raw, column) if isinstance(column, list) else column
        at += len(raw.feature_names)
    return x


def _codes(table: Table, raw: RawColumn, column: Column, known: Mapping[str, float]) -> Numbers:
    """Return the codes (n_rows,) of the cells; raise DataError for an unknown value."""
    cells = as_text(column)
    codes = np.empty(len(cells))
    for i, cell in enumerate(cells):
        code = known.get(cell or "")
        if code is None:
            raise DataError(
                f"{table.where}: column {raw.name!r} must have one of the values "
                f"{', '.join(map(repr, known))}. Received: {cell!r} in data row "
                f"{table.row_numbers[i]}. Correct the value, or train with rows that have it."
            )
        codes[i] = code
    return codes


def as_text(column: Column) -> Text:
    """Return the cells as text; whole numbers without a decimal point."""
    if isinstance(column, list):
        return column
    values = column.tolist()
    return [str(int(v)) if isinstance(v, int) or v.is_integer() else repr(v) for v in values]


def _as_numbers(table: Table, raw: RawColumn, column: Text) -> Numbers:
    for row, cell in zip(table.row_numbers, column, strict=True):
        if not is_number(cell or ""):
            raise DataError(
                f"{table.where}: column {raw.name!r} must be numbers, as when the model was "
                f"trained. Received: {cell!r} in data row {row}. Correct the value."
            )
    return np.array(column, dtype=np.float64)
