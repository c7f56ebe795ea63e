"""Pictures of a run: the curves of training, and which class is taken for which.

Drawn through matplotlib's objects, without its global state and without a window; matplotlib is
imported when the first picture is drawn. A picture's format follows its file's suffix.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.persistence.whole_file import write_whole
from nnbackend.training.history import History, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, VALID, INK, FAINT = "#3b6fb6", "#d1603d", "#333333", "#d9d9d9"
LOG_FROM = 20.0  # a loss that falls by this factor is drawn on a logarithmic scale
LABELS_UP_TO, NUMBERS_UP_TO = 50, 20  # classes
NAMES = {"accuracy": "accuracy", "r2": "R²"}


def curves(
    history: Sequence[Row] | History, path: str | os.PathLike[str], *, monitor: str | None = None
) -> None:
    """Draw losses and score over the epochs, with the best epoch marked, into a file.

    monitor: the column that says which epoch is best; by default valid_loss, or train_loss.
    Raises: ArgumentError for an empty history or a suffix that is no picture's.
    """
    rows = list(history)
    if not rows:
        raise ArgumentError("The history must have a row to be drawn. Received: none.")
    if monitor is None:
        monitor = "valid_loss" if "valid_loss" in rows[0] else "train_loss"
    past = History(monitor, rows)
    _ = past[monitor]  # an unknown column is refused by name
    score = next((n for n in rows[0] if n.startswith("valid_") and n != "valid_loss"), None)

    figure = _new_figure(9.6 if score else 5.6, 4.0)
    axes = figure.subplots(1, 2 if score else 1, squeeze=False)[0]
    loss_names = [name for name in rows[0] if name in ("train_loss", "valid_loss")]
    _draw_lines(axes[0], past, loss_names, "loss")
    losses = np.array([past[name] for name in loss_names])
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() / losses.min() >= LOG_FROM:
        axes[0].set_yscale("log")
    if score:
        _draw_lines(axes[1], past, [score], NAMES.get(score.removeprefix("valid_"), score))
    _save(figure, path)


def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    classes: Sequence[Any] | None,
    path: str | os.PathLike[str],
) -> None:
    """Draw how often each class (a row) was taken for which (a column), into a file.

    classes: all labels, in order; by default those that occur.
    Raises: ArgumentError for labels that are not among the classes, or of unequal number.
    """
    counts, labels = count_confusions(y_true, y_pred, classes)
    n = len(labels)
    side = min(max(3.6, 1.6 + 0.42 * n), 12.0)
    figure = _new_figure(side + 0.6, side)
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
    axes.set_title(f"{right:.2%} of {counts.sum():,} rows are right", fontsize=11)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    _save(figure, path)


def count_confusions(
    y_true: Any, y_pred: Any, classes: Sequence[Any] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Count how often class i was taken for class j: (n_classes, n_classes), and the labels.

    >>> count_confusions([0, 0, 1], [0, 1, 1])[0].tolist()
    [[1, 1], [0, 1]]
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ArgumentError(
            "y_true and y_pred must be labels (n,), as many of one as of the other. "
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


def _draw_lines(axes: Any, past: History, names: list[str], title: str) -> None:
    """Draw columns of the history over the epochs, and a mark at the best epoch."""
    epochs, best = past["epoch"], past.best
    dot = "o" if len(past) == 1 else None
    for name in names:
        color = TRAIN if name.startswith("train") else VALID
        axes.plot(epochs, past[name], color=color, linewidth=1.8, label=_part_of(name), marker=dot)
    axes.axvline(best["epoch"], color=INK, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
    for name in names:
        color = TRAIN if name.startswith("train") else VALID
        axes.plot(
            best["epoch"], best[name], marker="o", markersize=6, color=color,
            markeredgecolor="white", zorder=4,
        )  # fmt: skip
    part = _part_of(names[-1])
    axes.set_title(
        f"{part} {title} {best[names[-1]]:.4g} at the best epoch, {best['epoch']:.0f}",
        fontsize=11,
        loc="left",
        pad=10,
    )
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(names) > 1:
        axes.legend(frameon=False)


def _part_of(column: str) -> str:
    return "training" if column.startswith("train") else "validation"


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    target = Path(path)
    kind = target.suffix.lower().lstrip(".")
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ArgumentError(
            f"The suffix of a picture's file must be one of {', '.join(sorted(known))}. "
            f"Received: {str(target)!r}. Use .png."
        )
    content = io.BytesIO()
    figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.12)
    write_whole(target, content.getvalue())
