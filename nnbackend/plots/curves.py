"""The curves of training: losses and score over the epochs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.plots.figures import FAINT, INK, TRAIN, VALID, new_figure, save
from nnbackend.training.history import History, Row

LOG_FROM = 20.0  # a loss that falls by this factor is drawn on a logarithmic scale
NAMES = {"r2": "R²", "roc_auc": "ROC-AUC", "f1": "F1", "mcc": "MCC", "rmse": "RMSE", "mae": "MAE"}


def curves(
    history: Sequence[Row] | History, path: str | os.PathLike[str], *, monitor: str | None = None
) -> None:
    """Draw losses and score over the epochs, with the best epoch marked, into a file.

    monitor: the column that decides which epoch is best; by default valid_loss, or train_loss.
    Raises: ArgumentError for an empty history or an unknown suffix.
    """
    rows = list(history)
    if not rows:
        raise ArgumentError("The history must have at least one row. Received: none.")
    if monitor is None:
        monitor = "valid_loss" if "valid_loss" in rows[0] else "train_loss"
    past = History(monitor, rows)
    _ = past[monitor]  # raises an error that names an unknown column
    scores = [name for name in rows[0] if name.startswith("valid_") and name != "valid_loss"]
    score = monitor if monitor in scores else next(iter(scores), None)

    figure = new_figure(9.6 if score else 5.6, 4.0)
    axes = figure.subplots(1, 2 if score else 1, squeeze=False)[0]
    loss_names = [name for name in rows[0] if name in ("train_loss", "valid_loss")]
    _draw_lines(axes[0], past, loss_names, "loss")
    losses = np.array([past[name] for name in loss_names])
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() / losses.min() >= LOG_FROM:
        _make_logarithmic(axes[0], losses.max() / losses.min())
    if score:
        _draw_lines(axes[1], past, [score], _title(score))
    save(figure, path)


def _make_logarithmic(axes: Any, ratio: float) -> None:
    """Scale by powers of ten, with plain numbers at the marks: 0.02, not 2 × 10^-2."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 1e3 else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


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


def _title(score: str) -> str:
    name = score.removeprefix("valid_")
    return NAMES.get(name, name.replace("_", " "))


def _part_of(column: str) -> str:
    return "training" if column.startswith("train") else "validation"
