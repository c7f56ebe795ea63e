"""Encoding of numeric columns for networks: robust scaling, and bins between quantiles.

A network learns smooth functions of its inputs. Pieces let it learn a function of one column that
bends at each edge, as trees do. The encoding is fitted on the host and stored in the model file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnbackend.data.scalers import CHUNK_ELEMENTS, Floats, fit_scaler
from nnbackend.errors import DataError, ShapeError

MOST_FEATURES = 1024  # of all bins together
LEAST_BINS = 4  # of a column
CLIP = 3.0
ROUNDS = 4  # of limiting the counts of frequent values
SAMPLE = 100_000  # rows for the edges


@dataclass(frozen=True, eq=False)
class PiecewiseEncoder:
    """A fitted encoding of n_columns raw columns as n_features features.

    t = (x[column] - shift) * factor                of each feature
    t / sqrt(1 + (t / 3)^2)                         first n_smooth features: scaled columns
    t                                               then columns of two values, as 0 and 1
    size * min(max(t, 0), 1)                        last n_bins features: bins

    Shapes: column, shift, factor (n_features,).
    Source: Gorishniy, Rubachev and Babenko 2022, piecewise linear encoding; differs in `size`, and
    in edges that frequent values do not use up. Scaling: Holzmueller et al. 2024.
    """

    n_columns: int
    column: NDArray[np.int64]
    shift: Floats
    factor: Floats
    n_smooth: int
    n_bins: int
    size: float

    @property
    def n_features(self) -> int:
        """The number of features of a row."""
        return len(self.column)

    def transform(self, x: NDArray[Any], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the features of rows x (n, n_columns): (n, n_features).

        Raises: ShapeError when x has another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != self.n_columns:
            raise ShapeError(
                f"x must have {self.n_columns} columns, as when the encoder was fitted. "
                f"Received: x.shape={x.shape}."
            )
        result = np.empty((len(x), self.n_features), dtype)
        n_rows = max(1, CHUNK_ELEMENTS // max(1, self.n_features))
        first_bin = self.n_features - self.n_bins
        for start in range(0, len(x), n_rows):
            t = x[start : start + n_rows].astype(np.float64)[:, self.column]
            t -= self.shift
            t *= self.factor
            smooth, bins = t[:, : self.n_smooth], t[:, first_bin:]
            smooth /= np.hypot(1.0, smooth / CLIP)
            np.clip(bins, 0.0, 1.0, out=bins)
            bins *= self.size
            result[start : start + n_rows] = t
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers for JSON; `from_dict` restores them bit for bit."""
        return {
            "n_columns": self.n_columns,
            "column": self.column.tolist(),
            "shift": self.shift.tolist(),
            "factor": self.factor.tolist(),
            "n_smooth": self.n_smooth,
            "n_bins": self.n_bins,
            "size": self.size,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> PiecewiseEncoder:
        """Restore an encoder from the result of `to_dict`.

        Raises: DataError for missing or invalid entries: the file may be untrusted.
        """
        try:
            column = np.array(stored["column"], np.int64).reshape(-1)
            shift, factor = (
                np.array(stored[k], np.float64).reshape(-1) for k in ("shift", "factor")
            )
            counts = [int(stored[k]) for k in ("n_columns", "n_smooth", "n_bins")]
            size = float(stored["size"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                "A stored encoder must have the entries that to_dict() writes. "
                f"Received: {type(error).__name__}: {error}"
            ) from error
        n = len(column)
        if (
            len(shift) != n
            or len(factor) != n
            or not np.isfinite([*shift, *factor, size]).all()
            or not 0 <= counts[1] + counts[2] <= n
            or min(counts) < 0
            or (n and not 0 <= column.min() <= column.max() < counts[0])
        ):
            raise DataError(
                "A stored encoder must have finite numbers for each feature. Received: "
                f"{n} columns, {len(shift)} and {len(factor)} numbers, counts {counts}."
            )
        return cls(counts[0], column, shift, factor, counts[1], counts[2], size)


def fit_piecewise(x: NDArray[Any], bins: int, size: float) -> PiecewiseEncoder:
    """Fit an encoder to rows x (n, n_columns).

    bins: the most bins of a column; fewer if all columns together have more than 1024.
    size: the largest value of a bin. A smaller one makes the network smoother.
    Raises: DataError for values that are not finite.
    """
    scaler = fit_scaler("robust", x)
    assert scaler is not None
    if len(x) > SAMPLE:
        x = x[np.linspace(0, len(x) - 1, SAMPLE).astype(np.int64)]
    values = [np.unique(x[:, i].astype(np.float64), return_counts=True) for i in range(x.shape[1])]
    is_number = np.array([len(distinct) != 2 for distinct, _ in values], bool)
    numbers = np.flatnonzero(is_number)
    flags = [i for i, (distinct, _) in enumerate(values) if len(distinct) == 2]
    most = max(LEAST_BINS, MOST_FEATURES // max(1, len(numbers)))
    edges = [bin_edges(*values[i], min(bins, most)) for i in numbers]
    lower = [each[:-1] for each in edges]
    width = [np.diff(each) for each in edges]
    parts = [
        (numbers, scaler.shift[numbers], scaler.factor[numbers]),
        (flags, [values[i][0][0] for i in flags], [1.0 / np.diff(values[i][0])[0] for i in flags]),
        (
            np.repeat(numbers, [len(each) for each in lower]),
            np.concatenate([np.empty(0), *lower]),
            1.0 / np.concatenate([np.empty(0), *width]),
        ),
    ]
    column, shift, factor = (np.concatenate(each) for each in zip(*parts, strict=True))
    return PiecewiseEncoder(
        x.shape[1], column.astype(np.int64), shift.astype(np.float64), factor.astype(np.float64),
        len(numbers), sum(map(len, lower)), float(size),
    )  # fmt: skip


def bin_edges(values: Floats, counts: NDArray[np.int64], bins: int) -> Floats:
    """Return increasing edges of at most `bins` bins of a column's sorted distinct values.

    Each bin has about as many rows, but a value counts as one bin's rows at most: so a column
    of mostly zeros keeps its edges for the other values.
    """
    if len(values) <= bins + 1:
        return _separate(values)
    weights = counts.astype(np.float64)
    for _ in range(ROUNDS):
        weights = np.minimum(weights, weights.sum() / bins)
    middle = np.cumsum(weights) - 0.5 * weights
    inner = np.interp(np.linspace(0.0, middle[-1], bins + 1)[1:-1], middle, values)
    return _separate(np.unique(np.concatenate([values[:1], inner, values[-1:]])))


def _separate(edges: Floats) -> Floats:
    """Return the edges without those so close that 1 / width would be too large for float32."""
    least = max(np.ptp(edges) * 1e-9, np.finfo(np.float32).tiny)
    kept = [edges[0]]
    for edge in edges[1:]:
        if edge - kept[-1] > least:
            kept.append(edge)
    return np.array(kept)
