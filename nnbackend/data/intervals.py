"""Prediction intervals from the errors of rows that were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.scalers import Floats
from nnbackend.errors import ArgumentError, DataError, Fault

LEAST_ERRORS = 200  # in a group of predictions
MOST_GROUPS = 10
LEVELS = np.linspace(0.0, 1.0, 201)


@dataclass(frozen=True, eq=False)
class Intervals:
    """The errors to expect of predictions: quantiles for each of some groups of predictions.

    edges: predictions that separate the groups, increasing.  quantiles: of true - predicted value,
    a row for each group, at 0, 0.005, ..., 1.  n: the number of errors in each group.
    Shapes: edges (n_groups - 1,); quantiles (n_groups, 201); n (n_groups,).
    Source: split conformal prediction (Lei et al. 2018), by groups of predictions (Mondrian, Vovk
    et al. 2005); differs in that the errors are those of several models' held-out rows.
    """

    edges: Floats
    quantiles: Floats
    n: NDArray[np.int64]

    def bounds(self, predicted: NDArray[Any], level: float) -> Floats:
        """Return the lower and upper bounds (n, 2) that hold a share `level` of the true values."""
        if not 0.0 < level < 1.0:
            raise ArgumentError(Fault("level", "a number between 0 and 1", level))
        group = np.searchsorted(self.edges, predicted, side="right")
        outside = 0.5 * (1.0 - level)
        result = np.empty((len(predicted), 2))
        for k, errors in enumerate(self.quantiles):
            rows = group == k
            # Of n + 1 errors, the new one included, as many as the level asks for.
            share = max(0.0, outside - (1.0 - outside) / self.n[k])
            low, high = np.interp([share, 1.0 - share], LEVELS, errors)
            result[rows] = predicted[rows, None] + [low, high]
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists for JSON; `from_dict` restores them bit for bit."""
        return {
            "edges": self.edges.tolist(),
            "quantiles": self.quantiles.tolist(),
            "n": self.n.tolist(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Intervals:
        """Restore intervals. Raises: DataError for invalid entries: the file may be untrusted."""
        try:
            edges = np.array(stored["edges"], np.float64).reshape(-1)
            quantiles = np.array(stored["quantiles"], np.float64).reshape(-1, len(LEVELS))
            n = np.array(stored["n"], np.int64).reshape(-1)
            is_good = (
                len(quantiles) == len(edges) + 1 == len(n)
                and np.isfinite(edges).all()
                and np.isfinite(quantiles).all()
                and (np.diff(quantiles, axis=1) >= 0.0).all()
                and (np.diff(edges) > 0.0).all()
                and (n > 0).all()
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                "Stored intervals must have the entries that to_dict() writes. "
                f"Received: {type(error).__name__}: {error}"
            ) from error
        if not is_good:
            raise DataError(
                "Stored intervals must have increasing finite numbers. Received: others."
            )
        return cls(edges, quantiles, n)


def fit_intervals(predicted: NDArray[Any], true: NDArray[Any]) -> Intervals:
    """Return the intervals of predictions and true values (n,) of rows not trained on."""
    predicted, errors = np.asarray(predicted, np.float64), true - predicted
    n_groups = max(1, min(MOST_GROUPS, len(predicted) // LEAST_ERRORS))
    shares = np.linspace(0.0, 1.0, n_groups + 1)[1:-1]
    edges = np.unique(np.quantile(predicted, shares)) if n_groups > 1 else np.empty(0)
    group = np.searchsorted(edges, predicted, side="right")
    n = np.bincount(group, minlength=len(edges) + 1)
    if n.min() == 0:  # predictions that nearly all agree
        edges, group, n = np.empty(0), np.zeros_like(group), np.array([len(predicted)])
    quantiles = [np.quantile(errors[group == k], LEVELS) for k in range(len(n))]
    return Intervals(edges, np.stack(quantiles), n.astype(np.int64))
