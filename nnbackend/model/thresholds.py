"""The threshold of two classes: the probability above which the second one is the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnbackend.errors import ArgumentError, Fault
from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.options import ABOVE_0, check

EXPECTED = "a number between 0 and 1, accuracy, balanced_accuracy, f1, mcc, or cost:miss=10,alarm=1"


Values = NDArray[np.float64]


class Counts(NamedTuple):
    """The numbers of right and wrong answers at each threshold, (n_thresholds,) each.

    right: rows of the second class that get it.  alarms: rows of the first class that do not.
    misses: rows of the second class that do not.  calm: rows of the first class that get it.
    """

    right: Values
    alarms: Values
    misses: Values
    calm: Values


Rule = Callable[[Counts], Values]  # the values of the thresholds; larger is better


@dataclass(frozen=True)
class Cost:
    """A rule: the least cost of wrong answers.

    miss: of a row of the second class that is not found.  alarm: of one of the first class that is
    taken for the second.
    """

    miss: float = 1.0
    alarm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("miss", "alarm"):
            check(name, getattr(self, name), ABOVE_0.is_good, ABOVE_0.expected)

    def __call__(self, counts: Counts) -> Values:
        return -(self.miss * counts.misses + self.alarm * counts.alarms)


def _accuracy(counts: Counts) -> Values:
    return counts.right + counts.calm


def _balanced_accuracy(counts: Counts) -> Values:
    seconds, firsts = counts.right + counts.misses, counts.calm + counts.alarms
    return counts.right / np.maximum(seconds, 1) + counts.calm / np.maximum(firsts, 1)


def _f1(counts: Counts) -> Values:
    return counts.right / np.maximum(2 * counts.right + counts.misses + counts.alarms, 1)


def _mcc(counts: Counts) -> Values:
    right, alarms, misses, calm = counts
    sides = (right + alarms) * (right + misses) * (calm + alarms) * (calm + misses)
    return (right * calm - alarms * misses) / np.sqrt(np.maximum(sides, 1))


_METRICS: dict[str, Rule] = {
    "accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy, "f1": _f1, "mcc": _mcc,
}  # fmt: skip
FAMILIES["threshold"] = Family(
    {**{name: partial(lambda rule: rule, rule) for name, rule in _METRICS.items()}, "cost": Cost},
    EXPECTED,
)


def as_number(threshold: float | str) -> float | None:
    """Return a threshold that is a number, also one in a text; None for the name of a rule.

    Raises: ArgumentError for others.
    """
    try:
        number = float(threshold)
    except (TypeError, ValueError):
        make_named("threshold", threshold)
        return None
    if isinstance(threshold, bool) or not 0.0 < number < 1.0:
        raise ArgumentError(Fault("threshold", EXPECTED, threshold))
    return number


def choose_threshold(y: np.ndarray, p: np.ndarray, rule: float | str) -> float:
    """Return the threshold that is best by a rule for rows whose classes are known.

    y: class codes 0 and 1 (n,).  p: probabilities of class 1 (n,).
    rule: the name of a metric or cost:miss=10,alarm=1; a number is returned as it is.
    Of equally good thresholds it is the one farthest from the rows' probabilities.
    """
    number = as_number(rule)
    if number is not None:
        return number
    order = np.argsort(p, kind="stable")
    p, y = p[order].astype(np.float64), y[order]
    # Between two neighbours, below all, and above all.
    bounds = np.concatenate([[0.0], p, [1.0]])
    misses = np.concatenate([[0.0], np.cumsum(y == 1)])
    calm = np.concatenate([[0.0], np.cumsum(y == 0)])
    counts = Counts(misses[-1] - misses, calm[-1] - calm, misses, calm)
    gaps = np.diff(bounds)
    values = np.where(gaps > 0, make_named("threshold", rule)(counts), -np.inf)
    best = np.flatnonzero(values == values.max())
    at = int(best[gaps[best].argmax()])
    return float((bounds[at] + bounds[at + 1]) / 2)
