"""Rows of a request, and the answer to them.

A request is untrusted: it is parsed by the readers of files, which raise errors with a cure.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from nnbackend.data import ColumnCoding, load
from nnbackend.errors import DataError
from nnbackend.model.model import Model

logger = logging.getLogger("nnbackend")


class TooManyRowsError(Exception):
    """A request has more rows than the service accepts."""


@dataclass(frozen=True)
class Rows:
    """The rows of a request. x: what a model takes.  ids: columns to repeat in the answer."""

    x: Any
    n: int
    ids: Mapping[str, Sequence[Any]]


def rows_of_json(content: bytes, model: Model, most: int) -> Rows:
    """Return the rows of a JSON text: an object, a list of objects, or lists of numbers.

    Raises: DataError for anything else; TooManyRowsError for more than `most` rows.
    """
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The request must be JSON. Received: {error}.") from error
    rows = [given] if isinstance(given, dict) else given
    if not isinstance(rows, list) or not rows:
        raise DataError(
            "The request must be an object, or a list of objects, one for each row. Received: "
            f"{type(given).__name__}{' of 0' if rows == [] else ''}."
        )
    if len(rows) > most:
        raise TooManyRowsError(len(rows))
    if model.preprocessing.columns is None:
        return Rows(_numbers(rows, model), len(rows), {})
    if not all(isinstance(row, dict) for row in rows):
        raise DataError("Each row must be an object {column: value}. Received: other values.")
    coding = ColumnCoding.from_dict(model.preprocessing.columns)
    ids = {n: [row.get(n) for row in rows] for n in coding.ids if any(n in row for row in rows)}
    known = {column.name for column in coding.used}
    table = {n: [row.get(n) for row in rows] for n in sorted(known) if any(n in r for r in rows)}
    return Rows(table, len(rows), ids)


def _numbers(rows: list[Any], model: Model) -> np.ndarray:
    """Return rows of an array's columns. Raises: DataError."""
    try:
        array = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Each row must be a list of {model.n_features} numbers, because the model was fitted "
            f"to an array. Received: {error}."
        ) from error
    return array


def rows_of_csv(content: bytes, model: Model, most: int) -> Rows:
    """Return the rows of a CSV text. Raises: as `rows_of_json`."""
    if model.preprocessing.columns is None:
        raise DataError(
            "CSV needs a model that was trained on a table. Received: one of an array. Send JSON."
        )
    coding = ColumnCoding.from_dict(model.preprocessing.columns)
    if content.count(b"\n") > most + 2:
        raise TooManyRowsError(content.count(b"\n"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.csv"
        path.write_bytes(content)
        data = load(path, coding=coding, missing="fill")
    if data.n_samples > most:
        raise TooManyRowsError(data.n_samples)
    return Rows(data.x, data.n_samples, data.ids)


class Predictor:
    """A model that answers one request after another. Its requests may come from any thread."""

    def __init__(self, model: Model) -> None:
        self.model, self._lock = model, Lock()

    def answer(self, rows: Rows) -> dict[str, Any]:
        """Return the answer as data for JSON."""
        with self._lock, Notes() as notes:
            return {**self._predicted(rows), "notes": notes.texts}

    def _predicted(self, rows: Rows) -> dict[str, Any]:
        model, found = self.model, dict[str, Any]()
        predicted = model.predict(rows.x)
        found["predictions"] = predicted.tolist()
        if model.has_probabilities:
            p = model.predict_proba(rows.x)
            labels = [str(c) for c in model.classes or range(p.shape[1])]
            found["probabilities"] = [dict(zip(labels, row, strict=True)) for row in p.tolist()]
        if model.preprocessing.intervals is not None:
            found["intervals_90"] = model.predict_interval(rows.x, 0.9).tolist()
        if rows.ids:
            found["ids"] = {name: list(cells) for name, cells in rows.ids.items()}
        return found


class Notes(logging.Handler):
    """The library's notes on unusual cells, logged inside the context."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a note."""
        self.texts.append(record.getMessage())

    def __enter__(self) -> Notes:
        logger.addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        logger.removeHandler(self)
