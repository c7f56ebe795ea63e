"""The kinds of columns by name, and their restoring from a model file, which may be untrusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from nnbackend.data.columns import (
    CategoryColumn,
    CodedColumn,
    DateColumn,
    LeftOutColumn,
    NumberColumn,
    YesNoColumn,
)
from nnbackend.data.many_levels import ManyLevelsColumn
from nnbackend.data.text_columns import TextColumn

KINDS: dict[str, type[CodedColumn]] = {
    kind.kind: kind
    for kind in (
        *(NumberColumn, YesNoColumn, CategoryColumn, ManyLevelsColumn, DateColumn),
        *(TextColumn, LeftOutColumn),
    )
}
MOST_FEATURES = 1 << 16  # of a column of text


def column_from_dict(stored: Mapping[str, Any]) -> CodedColumn:
    """Restore a column from the result of `to_dict`.

    Raises: KeyError, TypeError or ValueError when an entry is missing or invalid.
    """
    values = dict(stored)
    kind = KINDS[values.pop("kind")]
    for name in ("levels", "known", "targets"):
        if name in values:
            values[name] = tuple(map(str, values[name]))
    for name in ("means", "prior"):
        if name in values:
            values[name] = tuple(values[name])
    for name, value in values.items():
        if not _CHECKS[name](value):
            raise ValueError(f"invalid {name}")
    column = kind(**values)
    if isinstance(column, ManyLevelsColumn):
        n = len(column.targets)
        if not n or len(column.prior) != n or len(column.means) != n * len(column.known):
            raise ValueError("invalid means")
    return column


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("name", "what"), lambda v: isinstance(v, str)),
    **dict.fromkeys(("has_gaps", "has_other", "has_time"), lambda v: isinstance(v, bool)),
    **dict.fromkeys(("fill", "last"), _is_number),
    **dict.fromkeys(("levels", "known"), lambda v: len(set(v)) == len(v)),
    **dict.fromkeys(("means", "prior"), lambda v: all(map(_is_number, v))),
    "targets": lambda v: True,
    "n_features": lambda v: type(v) is int and 0 < v <= MOST_FEATURES,
    "decimal": lambda v: v in (".", ","),
    "order": lambda v: v in ("ymd", "dmy", "mdy"),
}
