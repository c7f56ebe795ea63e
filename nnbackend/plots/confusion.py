"""The confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.plots.figures import INK, new_figure, save

LABELS_UP_TO, NUMBERS_UP_TO = 50, 20  # classes


def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    classes: Sequence[Any] | None,
    path: str | os.PathLike[str],
) -> None:
    """Draw the confusion matrix, true classes as rows and predicted ones as columns, into a file.

    classes: all labels, in order; by default those that occur.
    Raises: ArgumentError for labels that are not in `classes`, or for unequal lengths.
    """
    counts, labels = count_confusions(y_true, y_pred, classes)
    n = len(labels)
    side = min(max(3.6, 1.6 + 0.42 * n), 12.0)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if n <= NUMBERS_UP_TO:
        for i, j in np.argwhere(counts > 0):
            ink = "white" if shares[i, j] > 0.5 else INK
            size = 9 if n <= 10 else 7
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=ink, fontsize=size)
    if n <= LABELS_UP_TO:
        is_long = max(len(label) for label in labels) > 3
        axes.set_xticks(
            range(n), labels, rotation=45 if is_long else 0, ha="right" if is_long else "center"
        )
        axes.set_yticks(range(n), labels)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{right:.2%} of {counts.sum():,} rows are correct", fontsize=11)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    save(figure, path)


def count_confusions(
    y_true: Any, y_pred: Any, classes: Sequence[Any] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Count predictions j for class i: (n_classes, n_classes), and return the labels too.

    >>> count_confusions([0, 0, 1], [0, 1, 1])[0].tolist()
    [[1, 1], [0, 1]]
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ArgumentError(
            "y_true and y_pred must be labels (n,) of equal length. "
            f"Received: y_true.shape={true.shape}, y_pred.shape={predicted.shape}."
        )
    labels = list(np.unique(np.concatenate([true, predicted]))) if classes is None else [*classes]
    place = {str(label): code for code, label in enumerate(labels)}
    try:
        rows = [place[str(label)] for label in true.tolist()]
        columns = [place[str(label)] for label in predicted.tolist()]
    except KeyError as error:
        raise ArgumentError(
            f"Labels must be among the classes {list(place)}. Received: {error.args[0]!r}."
        ) from None
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts, list(place)
