"""`nnbackend train --cv K`: judge the settings on folds of the training rows before training."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.cli.evaluate import found_metrics, labels_of
from nnbackend.cli.parts import keys_of, training_positions
from nnbackend.cli.run_folder import write_text
from nnbackend.config import Settings
from nnbackend.data import Dataset
from nnbackend.data.splits import fold_rows
from nnbackend.model.model import Model

Fit = Callable[[Dataset], Model]  # training rows -> model
Row = dict[str, float]
SHOWN = ("loss", "accuracy", "roc_auc", "r2", "rmse")  # of a fold's progress
FIGURES = "cv.csv"


def cross_validate(
    data: Dataset, settings: Settings, fit: Fit, path: Path, *, is_quiet: bool
) -> dict[str, Any]:
    """Return the mean and deviation of each metric over the folds, which `fit` does not see.

    The features of a table are fitted again to the rows that train each fold.
    path: the CSV file of the folds' metrics, written after each of them.
    """
    assert settings.cv is not None
    labels = data.y if data.task == "classification" else None
    keys, found = keys_of(data, settings), list[Row]()
    for rest, held_out in fold_rows(data.n_samples, settings.cv, settings.seed, labels, keys):
        begin = time.perf_counter()
        training = rest[training_positions(data.rows(rest), replace(settings, test=0.0))]
        fitted = data.fitted_to(training)
        model, held = fit(fitted.rows(rest)), fitted.rows(held_out)
        assert held.y is not None
        row = {"rows": float(held.n_samples)} | model.evaluate(held.x, labels_of(model, held.y))
        row = found_metrics(model, held, model.predict(held.x), None) | row
        found.append(row)
        write_text(path, _csv(found))
        if not is_quiet:
            shown = "  ".join(f"{name} {row[name]:.4g}" for name in SHOWN if name in row)
            seconds = time.perf_counter() - begin
            print(
                f"fold {len(found)} of {settings.cv}  {held.n_samples:,} rows  {shown}  "
                f"{seconds:.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    if not is_quiet:
        print(file=sys.stderr)
    return _summary(found)


def _summary(rows: list[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {"cv": len(rows)}
    for name in rows[0]:
        if name != "rows":
            values = [row[name] for row in rows]
            found[f"cv_{name}"] = float(np.mean(values))
            found[f"cv_{name}_sd"] = float(np.std(values, ddof=1))
    return found


def _csv(rows: list[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["fold", *rows[0]], lineterminator="\n")
    writer.writeheader()
    for i, row in enumerate(rows, start=1):
        writer.writerow({"fold": i, **row, "rows": int(row["rows"])})
    return file.getvalue()
