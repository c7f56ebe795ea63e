"""Metrics of a model's predictions, computed by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nnbackend.errors import ArgumentError, Fault
from nnbackend.suggestions import suggest

PINBALL = "pinball"
HARDLY = 0.1  # of the way to accuracy 1
Needs = Literal["labels", "probabilities", "scores", "values"]


@dataclass(frozen=True)
class Metric:
    """A metric by name: what it compares the targets with, and whether more is better.

    needs: "labels", "probabilities" (n, classes), "scores" (of the second class; where there are
    more classes, all probabilities) or "values" of a regression.
    compute: takes the targets, what is needed, and the number of classes.
    """

    name: str
    needs: Needs
    more_is_better: bool
    compute: Callable[[Any, Any, int], float]
    only_two: bool = False  # classes


def _of_sklearn(name: str, **options: Any) -> Callable[[Any, Any, int], float]:
    """Return a function of sklearn.metrics, which is imported at the first call."""

    def compute(y: Any, found: Any, n_classes: int) -> float:
        from sklearn import metrics

        return float(getattr(metrics, name)(y, found, **options))

    return compute


def _f1(y: Any, labels: Any, n_classes: int) -> float:
    from sklearn.metrics import f1_score

    average = "binary" if n_classes == 2 else "macro"
    return float(f1_score(y, labels, average=average, zero_division=0.0))


def _roc_auc(y: Any, scores: Any, n_classes: int) -> float:
    from sklearn.metrics import roc_auc_score

    known = np.unique(y)
    if len(known) < 2:
        return float("nan")
    if n_classes == 2:
        return float(roc_auc_score(y, scores))
    # Of each class against the rest, where both have rows.
    return float(np.mean([roc_auc_score(y == code, scores[:, code]) for code in known]))


def _average_precision(y: Any, scores: Any, n_classes: int) -> float:
    from sklearn.metrics import average_precision_score

    if n_classes == 2:
        return float(average_precision_score(y, scores)) if (y == 1).any() else float("nan")
    of = [average_precision_score(y == code, scores[:, code]) for code in np.unique(y)]
    return float(np.mean(of))


def _log_loss(y: Any, probabilities: Any, n_classes: int) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(y, probabilities, labels=np.arange(n_classes)))


def _brier(y: Any, probabilities: Any, n_classes: int) -> float:
    """Return the mean square of the errors of the probabilities; for two classes, of the second."""
    errors = probabilities - (np.arange(n_classes) == np.asarray(y)[:, None])
    squares = errors[:, 1] ** 2 if n_classes == 2 else (errors**2).sum(axis=1)
    return float(squares.mean())


def _balanced_accuracy(y: Any, labels: Any, n_classes: int) -> float:
    """Return the mean recall of the classes that have rows."""
    hits = np.asarray(y) == labels
    return float(np.mean([hits[y == code].mean() for code in np.unique(y)]))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "labels", True, _of_sklearn("accuracy_score")),
        Metric("balanced_accuracy", "labels", True, _balanced_accuracy),
        Metric("f1", "labels", True, _f1),
        Metric("mcc", "labels", True, _of_sklearn("matthews_corrcoef")),
        Metric("roc_auc", "scores", True, _roc_auc),
        Metric("average_precision", "scores", True, _average_precision),
        Metric("log_loss", "probabilities", False, _log_loss),
        Metric("brier", "probabilities", False, _brier),
        Metric("r2", "values", True, _of_sklearn("r2_score")),
        Metric("rmse", "values", False, _of_sklearn("root_mean_squared_error")),
        Metric("mae", "values", False, _of_sklearn("mean_absolute_error")),
    )
}


def metrics_of(
    y: np.ndarray,
    outputs: np.ndarray,
    n_classes: int,
    names: Sequence[str] | None = None,
    *,
    threshold: float | None = None,
) -> dict[str, float]:
    """Return metrics by name; by default all that suit the outputs.

    n_classes: 0 for a regression.  outputs: its values, or probabilities.
    threshold: the probability above which the second of two classes is the answer.
    Shapes: y (n,) codes, or values like outputs; outputs (n, classes) or (n,).
    Raises: ArgumentError for names that are unknown or do not suit the outputs.
    """
    suitable = suitable_names(n_classes)
    chosen = [_find(name, suitable) for name in (suitable if names is None else names)]
    given: dict[str, Any] = {"values": outputs}
    if n_classes:
        outputs = outputs.astype(np.float64)
        outputs /= outputs.sum(axis=1, keepdims=True)  # exactly 1, as in float32 it is not
        labels = outputs.argmax(axis=1)
        if threshold is not None:
            labels = (outputs[:, 1] > threshold).astype(np.int64)
        scores = outputs[:, 1] if n_classes == 2 else outputs
        given |= {"labels": labels, "probabilities": outputs, "scores": scores}
    with warnings.catch_warnings():  # of classes without rows: such metrics are NaN
        warnings.simplefilter("ignore")
        return {m.name: m.compute(y, given[m.needs], n_classes) for m in chosen}


def suitable_names(n_classes: int) -> list[str]:
    """Return the names of the metrics of a number of classes, 0 for a regression."""
    return [m.name for m in METRICS.values() if (m.needs == "values") == (n_classes == 0)]


def is_pinball(name: str) -> bool:
    """Return True if a name is that of the loss of a quantile, as pinball:0.9."""
    return name.startswith(PINBALL)


def _pinball(name: str) -> Metric:
    """Return the metric pinball:Q, the mean loss of values that estimate the quantile Q."""
    try:
        quantile = float(name.partition(":")[2] or 0.5)
    except ValueError:
        quantile = 0.0
    if not 0.0 < quantile < 1.0:
        raise ArgumentError(Fault("metric", "pinball:Q with Q between 0 and 1", name))
    return Metric(name, "values", False, _of_sklearn("mean_pinball_loss", alpha=quantile))


def _find(name: str, suitable: Sequence[str]) -> Metric:
    if name.startswith(PINBALL) and "r2" in suitable:
        return _pinball(name)
    if name not in suitable:
        expected = "a name, or names with commas, of metrics that suit the model"
        raise ArgumentError(Fault("metric", expected, name, (suggest(name, suitable),)))
    return METRICS[name]


def advice(y: np.ndarray, accuracy: float, classes: Sequence[Any]) -> str:
    """Return a note if an accuracy is hardly above that of always answering one class, else "".

    Shapes: y (n,) codes.
    """
    counts = np.bincount(y)
    share = float(counts.max() / len(y))
    if accuracy - share >= HARDLY * (1.0 - share):
        return ""
    how = "below" if accuracy < share else "hardly above"
    return (
        f"accuracy {accuracy:.4f} is {how} {share:.4f}, that of always answering "
        f"{classes[int(counts.argmax())]!r}; roc_auc and balanced_accuracy show what was learned"
    )
