"""Pictures of how good predictions are: ROC, precision and recall, calibration, residuals."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.plots.figures import FAINT, INK, PALETTE, TRAIN, VALID, bare, new_figure, save

Path = str | os.PathLike[str]
BINS = 10  # of predicted probabilities


def roc_curve(y: np.ndarray, p: np.ndarray, classes: Sequence[Any], path: Path) -> None:
    """Draw the true positive rate over the false positive rate, a line for each class.

    With two classes only the second one's line is drawn.
    Shapes: y (n,) codes; p (n, n_classes) probabilities.
    Raises: ArgumentError for more classes than colours, and for rows of one class.
    """
    from sklearn import metrics

    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="chance")
    for code, label, color in _lines(y, classes):
        false, true, _ = metrics.roc_curve(y == code, p[:, code])
        area = metrics.auc(false, true)
        axes.plot(false, true, color=color, label=f"{label}: area {area:.3f}")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    _finish(axes, f"ROC curve, {len(y):,} rows", "lower right")
    save(figure, path)


def precision_recall_curve(
    y: np.ndarray, p: np.ndarray, classes: Sequence[Any], path: Path
) -> None:
    """Draw the precision over the recall, a line for each class, and each class's share.

    Shapes and errors: as `roc_curve`.
    """
    from sklearn import metrics

    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    for code, label, color in _lines(y, classes):
        precision, recall, _ = metrics.precision_recall_curve(y == code, p[:, code])
        mean = metrics.average_precision_score(y == code, p[:, code])
        axes.step(recall, precision, where="post", color=color, label=f"{label}: mean {mean:.3f}")
        axes.axhline(float(np.mean(y == code)), color=color, linestyle=":", linewidth=1.0)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_ylim(0.0, 1.02)
    _finish(axes, f"Precision and recall, {len(y):,} rows (dotted: share of the class)", "best")
    save(figure, path)


def calibration_curve(y: np.ndarray, p: np.ndarray, classes: Sequence[Any], path: Path) -> None:
    """Draw the observed share over the predicted probability, and how many rows have which.

    With two classes of the second, else of the predicted class of each row. Points are the means
    of ten groups of equally many rows.
    Shapes: y (n,) codes; p (n, n_classes) probabilities.
    """
    hit, given = _top(y, p) if len(classes) > 2 else (y == 1, p[:, 1])
    figure = new_figure(5.2, 6.0)
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1])
    shares = np.array(
        [(given[rows].mean(), hit[rows].mean()) for rows in _groups(given) if len(rows)]
    )
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="perfect")
    upper.plot(shares[:, 0], shares[:, 1], color=TRAIN, marker="o", markersize=4, label="model")
    end = min(1.0, max(0.05, 1.15 * float(shares.max())))  # of rare classes all points are near 0
    upper.set_xlim(-0.02 * end, 1.02 * end)
    upper.set_ylim(-0.02 * end, 1.02 * end)
    upper.set_xlabel("mean predicted probability of a tenth of the rows")
    what = f"share of {classes[1]!r}" if len(classes) == 2 else "share of correct answers"
    upper.set_ylabel(f"observed {what}")
    error = expected_calibration_error(y, p)
    _finish(upper, f"Calibration, expected error {error:.4f}, {len(y):,} rows", "upper left")
    lower.hist(given, bins=20, range=(0.0, 1.0), color=TRAIN, alpha=0.6)
    lower.set_yscale("log")
    lower.set_xlabel("predicted probability")
    lower.set_ylabel("rows")
    bare(lower)
    save(figure, path)


def expected_calibration_error(y: np.ndarray, p: np.ndarray) -> float:
    """Return the mean distance of observed shares from predicted probabilities.

    Of the second of two classes, else of the predicted class; over ten groups of equally many rows.
    Shapes: y (n,) codes; p (n, n_classes).
    Source: Naeini, Cooper and Hauskrecht 2015; groups of equal size as in Nixon et al. 2019.
    """
    hit, given = _top(y, p) if p.shape[1] > 2 else (y == 1, p[:, 1])
    groups = [rows for rows in _groups(given) if len(rows)]
    gaps = [abs(hit[rows].mean() - given[rows].mean()) * len(rows) for rows in groups]
    return float(np.sum(gaps) / len(given))


def residual_plot(true: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """Draw true - predicted over the predicted value, and its distribution. Shapes: (n,) both."""
    error = true - predicted
    figure = new_figure(7.2, 4.2)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    size = 14.0 if len(error) < 1_000 else 4.0
    left.scatter(predicted, error, s=size, color=TRAIN, alpha=0.45, edgecolors="none")
    left.axhline(0.0, color=INK, linewidth=0.8)
    left.set_xlabel("predicted value")
    left.set_ylabel("true - predicted value")
    r2 = 1.0 - float(np.sum(error**2) / np.sum((true - true.mean()) ** 2))
    rmse = float(np.sqrt(np.mean(error**2)))
    shown = f"{rmse:,.0f}" if rmse >= 10_000 else f"{rmse:.4g}"
    left.set_title(f"Residuals of {len(error):,} rows: RMSE {shown}, R2 {r2:.4f}", fontsize=11)
    right.hist(error, bins=40, orientation="horizontal", color=TRAIN, alpha=0.6)
    right.axhline(float(np.median(error)), color=VALID, linewidth=1.0, label="median")
    right.set_xlabel("rows")
    right.legend(frameon=False, fontsize=8)
    bare(left)
    bare(right)
    save(figure, path)


def _lines(y: np.ndarray, classes: Sequence[Any]) -> list[tuple[int, Any, str]]:
    """Return code, label and colour of each line; classes without rows have none."""
    codes = (
        [1] if len(classes) == 2 else [code for code in range(len(classes)) if (y == code).any()]
    )
    if len(np.unique(y)) < 2:
        raise ArgumentError("The curve needs rows of two classes at least. Received: one class.")
    if len(codes) > len(PALETTE):
        raise ArgumentError(
            f"The curve has colours for {len(PALETTE)} classes. Received: {len(codes)}. Draw a "
            "confusion matrix instead (--kind confusion)."
        )
    return [(code, classes[code], PALETTE[i]) for i, code in enumerate(codes)]


def _top(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the predicted class is right, and its probability: (n,) both."""
    best = p.argmax(axis=1)
    return best == y, p[np.arange(len(p)), best]


def _groups(given: np.ndarray) -> list[np.ndarray]:
    """Return the rows of groups of equal size, by increasing probability."""
    return np.array_split(np.argsort(given, kind="stable"), BINS)


def _finish(axes: Any, title: str, place: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc=place)
    bare(axes)
