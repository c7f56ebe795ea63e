"""The rows of a request and the answer to them, without any HTTP.

JSON is read here, so that nothing in it is guessed: duplicate names, NaN and infinity are refused.
CSV is read as the command `predict` reads it.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnbackend import data
from nnbackend.data import Dataset
from nnbackend.data.coding import ColumnCoding
from nnbackend.errors import ArgumentError, DataError
from nnbackend.model.model import Model

CSV_NAME = "rows.csv"  # the name of a request's table in messages
SHOWN = 10  # columns in a note
READERS = Path(str(data.__file__)).parent
ReadCSV = Callable[[str], Dataset]


class BodyError(ValueError):
    """A body that is no JSON or no rows."""


class TooManyRowsError(ValueError):
    """More rows than one request may have."""


@dataclass(frozen=True)
class Rows:
    """Rows of a request: x as `Model.predict` takes them, columns to repeat, and notes."""

    x: Any
    n: int
    ids: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def json_rows(body: bytes, model: Model) -> Rows:
    """Return the rows of a JSON text: an object or a list of objects, by the columns' names.

    For a model that was fitted to an array: a list of numbers, or a list of such lists.
    Raises: BodyError for anything else.
    """
    columns, value = model.preprocessing.columns, _parsed(body)
    if columns is None:
        return _plain_rows(value, model.n_features)
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BodyError(
            "The body must be a JSON object of column names and values, or a list of such objects. "
            f"Received: {_shown(value)}."
        )
    coding = ColumnCoding.from_dict(columns)
    names = dict.fromkeys(name for row in rows for name in row)
    ids = {name: [row.get(name) for row in rows] for name in coding.ids if name in names}
    known = {column.name for column in coding.columns} | {coding.target}
    others = [name for name in names if name not in known]
    notes = [f"columns that the model does not use: {_listed(others)}"] if others else []
    return Rows(rows, len(rows), ids, tuple(notes))


def csv_rows(body: bytes, read: ReadCSV) -> Rows:
    """Return the rows of a CSV text, read by a function of a path.

    Raises: DataError for a text that the function refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CSV_NAME
        path.write_bytes(body)
        table = read(str(path))
    return Rows(table.x, table.n_samples, table.ids)


def answer(
    model: Model, read: Callable[[], Rows], max_rows: int, level: float | None = None
) -> dict[str, Any]:
    """Return predictions, probabilities, ids and notes of rows, as plain values for JSON.

    read: returns the rows.  level: of bounds in addition, as for `Model.predict_interval`.
    Raises: DataError or ShapeError for rows that the model does not take; TooManyRowsError.
    """
    with _notes() as notes:
        rows = read()
        if rows.n > max_rows:
            raise TooManyRowsError(
                f"A request may have {max_rows} rows. Received: {rows.n}. Send several requests."
            )
        if not rows.n:
            raise DataError("A request must have at least one row. Received: none.")
        result: dict[str, Any] = {"predictions": model.predict(rows.x).tolist()}
        if model.has_probabilities:
            names, p = class_names(model), model.predict_proba(rows.x).tolist()
            result["probabilities"] = [dict(zip(names, row, strict=True)) for row in p]
        if level is not None:
            result["intervals"] = _bounds(model, rows.x, level)
    texts = [note.removeprefix("x: ").removeprefix(f"{CSV_NAME}: ") for note in notes]
    result |= {"ids": dict(rows.ids), "notes": list(dict.fromkeys([*rows.notes, *texts]))}
    return result


def class_names(model: Model) -> list[str]:
    """Return the names of the probabilities: the labels, or probability_0, probability_1, ..."""
    if model.classes is not None:
        return [str(label) for label in model.classes]
    return [f"probability_{i}" for i in range(model.network.n_out)]


def to_json(value: Any) -> bytes:
    """Return a value as JSON; infinities and NaN become null."""
    return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False).encode(
        errors="backslashreplace"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bounds(model: Model, x: Any, level: float) -> Any:
    if model.preprocessing.intervals is None:
        raise ArgumentError(
            "interval needs a regression trained with --preset tabular. "
            "Received: another model. Leave interval out."
        )
    return model.predict_interval(x, level).tolist()


def _plain_rows(value: Any, n_features: int) -> Rows:
    """Return rows of numbers for a model without names of columns."""
    is_one = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    rows = [value] if is_one else value
    is_good = isinstance(rows, list) and all(
        isinstance(row, list) and all(type(cell) in (int, float) for cell in row) for row in rows
    )
    if not is_good or {len(row) for row in rows} - {n_features}:
        raise BodyError(
            f"The body must be a JSON list of {n_features} numbers, or a list of such lists: the "
            f"model stores no column names. Received: {_shown(value)}."
        )
    return Rows(rows, len(rows))


def _parsed(body: bytes) -> Any:
    """Return the value of a JSON text. Raise BodyError for anything else."""
    try:
        return json.loads(body, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    except RecursionError:
        problem = "too many nested lists"
    except ValueError as error:  # also of the encoding, and of numbers with too many digits
        problem = str(error)
    raise BodyError(f"The body must be JSON in UTF-8. Received: {problem}.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} twice in one object")
    return row


def _refuse(word: str) -> Any:
    raise ValueError(f"{word}, which is no JSON; write null for no value")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in total)" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


class _Collector(logging.Handler):
    """A handler that keeps the warnings on rows, which are those of nnbackend.data.

    Others are on the server, with names of its files: not for clients.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if Path(record.pathname).parent == READERS:
            # The command line adds a prefix.
            self.texts.append(record.getMessage().removeprefix("nnbackend: note: "))


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Collect the warnings that the library logs inside the context, which one thread enters."""
    logger, collector = logging.getLogger("nnbackend"), _Collector()
    logger.addHandler(collector)
    try:
        yield collector.texts
    finally:
        logger.removeHandler(collector)
