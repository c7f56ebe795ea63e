"""`nnbackend predict`: predictions for new rows, as CSV on stdout or in a file."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from nnbackend.cli.console import utf8_stdout
from nnbackend.cli.evaluate import PARTS, add_run_and_data, choose_part, load_model, read_for
from nnbackend.cli.run_folder import open_run
from nnbackend.data import Dataset
from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.model import Model
from nnbackend.persistence.atomic_file import atomic_write


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    add_run_and_data(parser)
    parser.add_argument(
        "--proba", action="store_true", help="write probabilities of all classes, not labels"
    )
    parser.add_argument(
        "--out", metavar="FILE", help=".csv or .npy file to write (default: CSV on stdout)"
    )
    parser.add_argument(
        "--interval", metavar="LEVEL", type=float,
        help="also write the bounds that hold a share LEVEL of the true values, such as 0.9, of a "
        "regression trained with --preset tabular",
    )  # fmt: skip
    parser.add_argument(
        "--id", metavar="COLUMN", help="column to repeat beside the predictions (default: those "
        "that identify rows)",
    )  # fmt: skip
    parser.add_argument(
        "--part", choices=PARTS, default="all", help="rows to predict (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Predict and return the exit code."""
    suffix = Path(args.out).suffix.lower() if args.out else ".csv"
    if suffix not in (".csv", ".npy"):
        raise ArgumentError(f"--out must be a .csv or .npy file. Received: {args.out}.")
    found = open_run(args.run)
    model = load_model(found, args)
    # The fingerprint that identifies a part includes the targets; predicting all rows needs none.
    data = read_for(found, model, args.data, args.missing, args.part != "all", args.encoding)
    _, data = choose_part(found, data, args.part)
    kept = data.kept
    if kept is not None:
        _check_missing(data.n_dropped, len(kept), suffix)
    values, names = _values(model, data.x, args.proba, args.interval)
    ids = _ids(data, args.id)
    if args.out is None:
        with utf8_stdout() as stream:
            _write_csv(stream, values, names, kept, ids)
        return 0
    if suffix == ".npy":
        content = io.BytesIO()
        np.save(content, values, allow_pickle=False)
        atomic_write(Path(args.out), content.getvalue())
    else:
        text = io.StringIO()
        _write_csv(text, values, names, kept, ids)
        atomic_write(Path(args.out), text.getvalue().encode())
    return 0


def _values(model: Model, x: Any, proba: bool, level: float | None) -> tuple[np.ndarray, list[str]]:
    """Return what to write of each row, and the names of its columns."""
    if proba and not model.has_probabilities:
        raise ArgumentError(
            "--proba needs a classifier with probabilities (softmax or sigmoid). Received: "
            f"{'another classifier' if model.is_classifier else 'a regression'}. Leave --proba out."
        )
    if proba and level is not None:
        raise ArgumentError("--proba is for classes, --interval for values. Received: both.")
    if proba:
        return _probabilities(model, x)
    if level is not None and not 0.0 < level < 1.0:
        near = (f"Did you mean {level / 100:g}?",) if 1.0 < level < 100.0 else ()
        raise ArgumentError(Fault("interval", "a number between 0 and 1, as 0.9", level, near))
    if level is not None and model.preprocessing.intervals is None:
        raise ArgumentError(
            "--interval needs a regression of train --preset tabular. Received: "
            f"{'a classifier' if model.is_classifier else 'another regression'}. Leave it out."
        )
    values = model.predict(x)
    if level is not None:
        bounds = model.predict_interval(x, level)
        return np.column_stack([values, bounds]), ["prediction", "lower", "upper"]
    many = values.ndim == 2
    return values, [f"prediction_{i}" for i in range(values.shape[1])] if many else ["prediction"]


def _ids(data: Dataset, asked: str | None) -> dict[str, Any]:
    """Return the columns to repeat beside the predictions, by name."""
    if asked is None or asked in data.ids:
        return dict(data.ids) if asked is None else {asked: data.ids[asked]}
    known = ", ".join(map(repr, data.ids)) or "none"
    raise ArgumentError(
        f"--id must be a column that identifies rows. Received: {asked!r}. Such columns here: "
        f"{known}. Train with --column {asked}=id."
    )


def _probabilities(model: Model, x: Any) -> tuple[np.ndarray, list[str]]:
    """Return the probabilities, a column for each class, and the columns' names."""
    values = model.predict_proba(x)
    if model.classes is None:
        return values, [f"probability_{i}" for i in range(values.shape[1])]
    return values, [str(label) for label in model.classes]


def _check_missing(n_dropped: int, n: int, suffix: str) -> None:
    """Print a note on rows with missing values, whose cells are empty; refuse a .npy file."""
    if suffix == ".npy":
        raise ArgumentError(
            "--out must be a .csv file if rows have missing values: their predictions are empty. "
            f"Received: .npy, and {n_dropped} of {n} rows with missing values. "
            "Fill the missing values, or write a .csv file."
        )
    print(
        f"nnbackend: note: {n_dropped} of {n} rows have missing values; their predictions are "
        "empty",
        file=sys.stderr,
    )


def _write_csv(
    file: TextIO,
    values: np.ndarray,
    names: list[str],
    kept: np.ndarray | None,
    ids: Mapping[str, Any],
) -> None:
    """Write a line for each row of the data; empty cells for a row that was dropped."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*ids, *names])
    table = values.reshape(len(values), -1)
    kept = np.ones(len(table), bool) if kept is None else kept
    columns = [["" if cell is None else cell for cell in cells] for cells in ids.values()]
    before = zip(*columns, strict=True) if ids else iter(lambda: (), None)
    predictions, empty = iter(table), [""] * (len(ids) + len(names))
    # str() of a NumPy number has as many digits as its dtype needs to be read back exactly.
    writer.writerows(
        [*next(before), *map(str, next(predictions))] if is_kept else empty for is_kept in kept
    )
