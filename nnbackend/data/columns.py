"""The kinds of a table's columns, and the features that the cells of each become.

A column is fitted to the training rows, stored in the model, and read again for new rows. No cell
is refused: without a value, or with a value that the column does not know, it gets features of its
own or those of a typical row, and `Unusual` counts it.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.dates import DAYS_OF_YEAR, days_of
from nnbackend.data.number_text import Decimal, decimal_of, numbers_in
from nnbackend.data.tables import (
    Column,
    Numbers,
    Text,
    missing_mask,
    warn_of_lost_digits,
)

logger = logging.getLogger("nnbackend")
Mask = NDArray[np.bool_]
OTHER, NO_VALUE = "other", "no value"  # end the names of these features
UNKNOWN = "\0"  # a cell that is no level
YES_OR_NO = {
    **dict.fromkeys(("no", "false", "n", "f", "nein", "non", "não", "nao", "0", "0.0"), 0.0),
    **dict.fromkeys(("yes", "true", "y", "t", "sí", "si", "ja", "oui", "sim", "1", "1.0"), 1.0),
}


class Unusual:
    """The log of cells that the fitted columns do not know.

    where: the name of the table; row_numbers: those of its rows.
    is_silent: whether nothing is logged.
    """

    def __init__(
        self,
        where: str,
        row_numbers: Sequence[int] | NDArray[np.int64],
        is_silent: bool = False,
    ) -> None:
        self.where, self.row_numbers, self.is_silent = where, row_numbers, is_silent

    def note(self, name: str, what: str, mask: Mask, cells: Column, instead: str) -> None:
        """Log the masked cells of a column: what they are, and what stands for them."""
        if (n := int(mask.sum())) and not self.is_silent:
            first = int(np.argmax(mask))
            is_gap = missing_mask(cells)[first]
            cell = "" if is_gap else f"such as {str(cells[first])!r} "
            logger.warning(
                "%s: column %r has %s in %d of %d rows, %sin data row %d; %s",
                self.where, name, what, n, len(mask), cell, self.row_numbers[first], instead,
            )  # fmt: skip

    def note_lost_digits(self, name: str, cells: Column) -> None:
        """Log whole numbers that the conversion to float64 rounds."""
        if not self.is_silent:
            warn_of_lost_digits(name, cells, self.where)


@dataclass(frozen=True)
class CodedColumn(ABC):
    """A column as features. why: the reason for its kind, for the person who trains."""

    name: str
    why: str = field(default="", compare=False, kw_only=True)

    kind: ClassVar[str]

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features made from this column."""

    @abstractmethod
    def encode(self, cells: Column, unusual: Unusual) -> Numbers:
        """Return the features of all cells: (n_rows, n_features)."""

    def encode_training(self, cells: Column, target: Numbers, unusual: Unusual) -> Numbers:
        """Return the features of the rows to which the column is fitted, with their targets.

        Shapes: target (n_rows, n_targets); result (n_rows, n_features).
        """
        return self.encode(cells, unusual)

    def to_dict(self) -> dict[str, Any]:
        """Return plain text, numbers and lists for JSON; `from_dict` restores the column."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        del values["why"]
        return {"kind": self.kind, **values}


@dataclass(frozen=True)
class FilledColumn(CodedColumn):
    """A column of values, of which `fill` stands for no value and for unknown cells.

    has_gaps: whether training rows have no value; only then a last feature marks such cells.
    """

    fill: float = 0.0
    has_gaps: bool = False

    unknown: ClassVar[str]  # what a cell without a value of this kind is

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (*self._names, *[f"{self.name}: {NO_VALUE}"] * self.has_gaps)

    def encode(self, cells: Column, unusual: Unusual) -> Numbers:
        values, gaps = self._values(cells, unusual), missing_mask(cells)
        unknown = np.isnan(values)
        unusual.note(self.name, self.unknown, unknown & ~gaps, cells, self._instead)
        if not self.has_gaps:
            unusual.note(self.name, "no value", gaps, cells, self._instead)
        return self.features_of(values)

    def features_of(self, values: Numbers) -> Numbers:
        """Return the features of values (n_rows,), NaN for no value: (n_rows, n_features)."""
        unknown = np.isnan(values)
        features = self._features(np.where(unknown, self.fill, values), unknown)
        return np.column_stack([*features, *[unknown] * self.has_gaps]).astype(np.float64)

    def values_of(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of features, the inverse of `features_of`.

        Without a feature for gaps they are `fill`, else NaN.
        """
        values = self._first_value(features[:, 0])
        return np.where(features[:, -1] > 0.0, np.nan, values) if self.has_gaps else values

    @property
    def _names(self) -> tuple[str, ...]:
        """Names of the features of the value."""
        return (self.name,)

    @property
    def _instead(self) -> str:
        """What stands for unknown cells, for a note."""
        return f"{self.fill:g} stands for it"

    @abstractmethod
    def _values(self, cells: Column, unusual: Unusual) -> Numbers:
        """Return the values of all cells (n_rows,), NaN where they are unknown."""

    def _features(self, values: Numbers, unknown: Mask) -> list[Any]:
        """Return the features of values, of which some are unknown and filled."""
        return [values]

    def _first_value(self, feature: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of the first feature of the column."""
        return feature


@dataclass(frozen=True)
class NumberColumn(FilledColumn):
    """A column of numbers.

    decimal: how text is read that could be either, such as 1,234, if no other cell shows it.
    """

    decimal: Decimal = "."
    kind: ClassVar[str] = "number"
    unknown: ClassVar[str] = "no number"

    def _values(self, cells: Column, unusual: Unusual) -> Numbers:
        unusual.note_lost_digits(self.name, cells)
        own = decimal_of([{c for c in cells if c}]) if isinstance(cells, list) else None
        return as_numbers(cells, own or self.decimal)


@dataclass(frozen=True)
class YesNoColumn(FilledColumn):
    """A column of yes and no, as 1 and 0; `fill` is the share of yes."""

    kind: ClassVar[str] = "yes/no"
    unknown: ClassVar[str] = "neither yes nor no"

    @property
    def _instead(self) -> str:
        return f"the share of yes, {self.fill:.3g}, stands for it"

    def _values(self, cells: Column, unusual: Unusual) -> Numbers:
        return np.array([YES_OR_NO.get((c or "").lower(), math.nan) for c in as_text(cells)])


@dataclass(frozen=True)
class CategoryColumn(CodedColumn):
    """A column of categories: one feature for each level.

    has_other: whether rare levels of the training rows share a feature, which unknown ones get too;
    otherwise these have 0 in all features of the column.
    """

    levels: tuple[str, ...] = ()
    has_other: bool = False
    has_gaps: bool = False
    kind: ClassVar[str] = "category"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self._level_names

    def knows(self, level: str) -> bool:
        """Return True if a level has features of its own."""
        return level in self.levels

    @property
    def cells(self) -> tuple[str | None, ...]:
        """A cell for each feature of a level: the levels, an unknown one, and no value."""
        return (*self.levels, *[UNKNOWN] * self.has_other, *[None] * self.has_gaps)

    def places(self, features: Numbers) -> NDArray[np.int64]:
        """Return the position in `cells` of each row's cell; -1 for one with none of the features.

        Shapes: features (n_rows, n_features); result (n_rows,).
        """
        one_hot = features[:, : len(self._level_names)]
        return np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1).astype(np.int64)

    @property
    def _level_names(self) -> tuple[str, ...]:
        more = [OTHER] * self.has_other + [NO_VALUE] * self.has_gaps
        levels = [f"{self.name}={level}" for level in self.levels]
        return (*levels, *(f"{self.name}: {word}" for word in more))

    def encode(self, cells: Column, unusual: Unusual) -> Numbers:
        text, gaps = as_text(cells), missing_mask(cells)
        width = len(self._level_names)  # codes of this size: none of the features
        other = len(self.levels) if self.has_other else width
        place = places_of(self.levels)
        codes = np.array([place.get(cell or "", other) for cell in text], np.int64)
        instead = "it counts as none of the levels that the model knows"
        if not self.has_other:
            unusual.note(self.name, "an unknown level", (codes == other) & ~gaps, cells, instead)
        if not self.has_gaps:
            unusual.note(self.name, "no value", gaps, cells, instead)
        codes[gaps] = len(self.levels) + self.has_other if self.has_gaps else width
        x = np.zeros((len(text), width + 1))
        x[np.arange(len(text)), codes] = 1.0
        return x[:, :width]


@dataclass(frozen=True)
class DateColumn(FilledColumn):
    """A column of dates: days before the latest training date, time of the year and of the week.

    order: of year, month and day, as in "dmy".  last: the latest training date, in days since 1970.
    has_time: whether the time of the day is a feature too.
    """

    order: str = "ymd"
    last: float = 0.0
    has_time: bool = False
    kind: ClassVar[str] = "date"
    unknown: ClassVar[str] = "no date"

    @property
    def _names(self) -> tuple[str, ...]:
        cycles = ["year", "week"] + ["day"] * self.has_time
        names = [f"{self.name}: {f} of {c}" for c in cycles for f in ("sine", "cosine")]
        return (f"{self.name}: days", *names)

    @property
    def _instead(self) -> str:
        return "a typical date stands for it"

    def _values(self, cells: Column, unusual: Unusual) -> Numbers:
        return days_of(as_text(cells), self.order)

    def _features(self, values: Numbers, unknown: Mask) -> list[Any]:
        features = [values - self.last]
        for period in (DAYS_OF_YEAR, 7.0, 1.0)[: 2 + self.has_time]:
            angle = 2.0 * np.pi * (values % period) / period
            features += [np.where(unknown, 0.0, f(angle)) for f in (np.sin, np.cos)]
        return features

    def _first_value(self, feature: NDArray[np.float64]) -> NDArray[np.float64]:
        return feature + self.last


@dataclass(frozen=True)
class LeftOutColumn(CodedColumn):
    """A column that is no feature. what: "id", "text" or "empty"."""

    what: str = "id"
    kind: ClassVar[str] = "left out"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return ()

    def encode(self, cells: Column, unusual: Unusual) -> Numbers:
        return np.empty((len(cells), 0))


# ---- cells --------------------------------------------------------------------------------------


def places_of(levels: Sequence[str]) -> dict[str, int]:
    """Return the place of each level, also by the other spelling of a whole number: 2 and 2.0.

    Programs that keep a column with gaps as float64 write 2.0; JSON and other files have 2.
    """
    place = {level: i for i, level in enumerate(levels)}
    others = {_respelled(level): i for level, i in place.items()}
    return {spelled: i for spelled, i in others.items() if spelled is not None} | place


def _respelled(level: str) -> str | None:
    """Return a whole number with or without a decimal point; None for any other text."""
    whole = level.removesuffix(".0")
    digits = whole.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    return f"{level}.0" if whole == level else whole


def as_text(column: Column) -> Text:
    """Return the cells as text; whole numbers without a decimal point, None for no value."""
    if isinstance(column, list):
        return column
    return [_number_as_text(value) for value in column.tolist()]


def _number_as_text(value: float | int) -> str | None:
    if value != value:
        return None
    is_whole = isinstance(value, int) or value.is_integer()
    return str(int(value)) if is_whole else repr(value)


def as_numbers(column: Column, decimal: Decimal) -> Numbers:
    """Return the cells as numbers (n_rows,), NaN for any other text and for no value."""
    return numbers_in(column, decimal) if isinstance(column, list) else column.astype(np.float64)
