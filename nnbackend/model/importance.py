"""Permutation importance: how much a metric loses when a column's cells are shuffled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnbackend.data.coding import ColumnCoding
from nnbackend.errors import ArgumentError
from nnbackend.metrics import METRICS, metrics_of
from nnbackend.model.model import Model


def permutation_importance(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    metric: str | None = None,
    repeats: int = 5,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return the losses of a metric by column, largest mean first: {name: (repeats,)}.

    All features of a table's column are shuffled together. Above 0: the model uses the column.
    x: the model's features (n, n_features).  y: class codes, or values (n,).
    metric: by default roc_auc for two classes, accuracy for more, r2 for values.
    names: of the columns of an array.
    Source: Breiman 2001; Fisher, Rudin and Dominici 2019.
    """
    columns = feature_groups(model, names)
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
    for name, features in columns.items():
        losses = np.empty(repeats)
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
    known = model.preprocessing.columns
    if known is None:
        n = model.n_features
        return {name: [i] for i, name in enumerate(names or [f"x{i}" for i in range(n)])}
    groups: dict[str, list[int]] = {}
    start = 0
    for column in ColumnCoding.from_dict(known).used:
        n = len(column.feature_names)
        groups[column.name] = list(range(start, start + n))
        start += n
    return groups
