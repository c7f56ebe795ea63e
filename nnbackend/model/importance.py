"""Permutation importance: how much a metric loses when a column's cells are shuffled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.metrics import METRICS, metrics_of
from nnbackend.model.columns import columns_of
from nnbackend.model.model import Model

MOST_COLUMNS = 100  # more take too long to compare for a default
SOME_ROWS, SOME_REPEATS = 1_000, 2


def permutation_importance(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    metric: str | None = None,
    repeats: int = 5,
    seed: int = 0,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return the losses of a metric by column, largest mean first: {name: (repeats,)}.

    All features of a table's column are shuffled together. Above 0: the model uses the column.
    x: the model's features (n, n_features).  y: class codes, or values (n,).
    metric: by default roc_auc for two classes, accuracy for more, r2 for values.
    names: of the columns of an array.  columns: the names of those to shuffle; by default all.
    Source: Breiman 2001; Fisher, Rudin and Dominici 2019.
    """
    groups = feature_groups(model, names)
    n_classes = len(model.classes or ())
    metric = metric or default_metric(model)
    sign = 1.0 if metric in METRICS and METRICS[metric].more_is_better else -1.0

    def score(rows: np.ndarray) -> float:
        out = model.predict_proba(rows) if n_classes else model.predict(rows)
        return sign * metrics_of(y, out, n_classes, [metric])[metric]

    if y.ndim != 1 or (n_classes and not model.has_probabilities):
        raise ArgumentError(
            "The importance needs class probabilities or one value per row. "
            f"Received: {model!r}, targets of shape {y.shape}."
        )
    rng, best = np.random.default_rng(seed), score(x)
    found = {}
    for name in groups if columns is None else columns:
        features, losses = groups[name], np.empty(repeats)
        for i in range(repeats):
            shuffled = x.copy()
            shuffled[:, features] = x[rng.permutation(len(x))][:, features]
            losses[i] = best - score(shuffled)
        found[name] = losses
    return dict(sorted(found.items(), key=lambda item: -float(item[1].mean())))


def default_metric(model: Model) -> str:
    """Return the metric by which columns are compared, unless another one is chosen."""
    return {0: "r2", 2: "roc_auc"}.get(len(model.classes or ()), "accuracy")


def feature_groups(model: Model, names: Sequence[str] | None = None) -> Mapping[str, list[int]]:
    """Return the positions of the features of each column."""
    columns = columns_of(model, names).values()
    return {c.name: list(range(c.at.start, c.at.stop)) for c in columns}


def most_important(
    model: Model,
    x: np.ndarray,
    y: np.ndarray | None,
    n: int,
    among: Sequence[str],
    names: Sequence[str] | None = None,
) -> tuple[list[str], str]:
    """Return the n most important columns among some, and a note where they are only the first.

    They are compared on at most 1,000 rows with two repetitions, if there are at most 100.
    Shapes and names: as `permutation_importance`.
    """
    if len(among) <= n:
        return list(among), ""
    why = _reason_against(model, y, len(among))
    if why or y is None:
        return list(among[:n]), f"the first {n} of {len(among)} columns are drawn: {why}"
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:SOME_ROWS])
    losses = permutation_importance(
        model, np.asarray(x[rows]), y[rows], repeats=SOME_REPEATS, names=names, columns=among
    )
    return list(losses)[:n], ""


def _reason_against(model: Model, y: np.ndarray | None, n_columns: int) -> str:
    """Return why columns cannot be compared, else an empty text."""
    if y is None:
        return "without targets none can be called important"
    if y.ndim != 1 or (model.is_classifier and not (model.classes and model.has_probabilities)):
        return "importance needs class probabilities or one value per row"
    if len(np.unique(y)) < 2:
        return "all rows have the same target"
    if n_columns > MOST_COLUMNS:
        return f"more than {MOST_COLUMNS} take long to compare"
    return ""
