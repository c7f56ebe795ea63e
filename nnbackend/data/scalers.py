"""Scaling of features and targets, with parameters that are stored in the model file.

A scaler is one shift and one factor for each column, fitted on the host. Fitting reads the data
in chunks, so a memory map larger than memory can be fitted; it refuses data that is not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnbackend.errors import ArgumentError, DataError, Fault, ShapeError
from nnbackend.suggestions import suggest

ScalerKind = Literal["standard", "robust", "unit"]
Floats = NDArray[np.float64]
KINDS = ("standard", "robust", "unit")
CHUNK_ELEMENTS = 1 << 20
QUANTILE_ROWS = 100_000
QUANTILE_SEED = 0


@dataclass(frozen=True, eq=False)
class Scaler:
    """A fitted scaler.

    t = (x - shift) * factor
    t = t / sqrt(1 + (t / clip)^2)      only with a clip: smooth, so that |t| < clip

    Shapes: shift, factor (n_features,).
    Raises: ArgumentError for invalid values.
    """

    kind: ScalerKind
    shift: Floats
    factor: Floats
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(
                f"A scaler must be of a known kind. Received: kind={self.kind!r}. "
                + suggest(str(self.kind), KINDS)
            )
        if self.shift.ndim != 1 or self.shift.shape != self.factor.shape:
            raise ArgumentError(
                "shift and factor must be vectors of equal length. "
                f"Received: shift.shape={self.shift.shape}, factor.shape={self.factor.shape}."
            )
        if not (np.isfinite(self.shift).all() and np.isfinite(self.factor).all()):
            raise ArgumentError("shift and factor must be finite. Received: infinity or NaN.")
        if self.clip is not None and not 0.0 < self.clip < np.inf:
            raise ArgumentError(Fault("clip", "a number above 0, or None", self.clip))

    def transform(self, x: NDArray[Any], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the scaled copy of x; the arithmetic is always float64.

        Shapes: x (n, n_features), or (n,) for one feature; result as x.
        Raises: ShapeError when x has another number of columns.
        """
        columns = self._columns(x)
        result = np.empty(columns.shape, dtype=dtype)
        for start, chunk in _chunks(columns):
            chunk -= self.shift
            chunk *= self.factor
            if self.clip is not None:
                # hypot neither overflows nor underflows where the square would.
                chunk /= np.hypot(1.0, chunk / self.clip)
            result[start : start + len(chunk)] = chunk
        return result.reshape(x.shape)

    def inverse(self, t: NDArray[Any]) -> Floats:
        """Return the values that `transform` maps to t; a factor of 0 yields the shift.

        Raises: ArgumentError with a clip, which maps distant values to the same float32 number;
        ShapeError when t has another number of columns.
        """
        if self.clip is not None:
            raise ArgumentError(
                "Only a scaler without clip can be inverted. "
                f"Received: kind={self.kind!r}, clip={self.clip}. Use kind='standard'."
            )
        usable = self.factor != 0.0
        back = np.where(usable, 1.0 / np.where(usable, self.factor, 1.0), 0.0)
        values: Floats = self._columns(t).astype(np.float64)
        values *= back
        values += self.shift
        return values.reshape(t.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers for JSON; `from_dict` restores them bit for bit."""
        return {
            "kind": self.kind,
            "shift": self.shift.tolist(),
            "factor": self.factor.tolist(),
            "clip": self.clip,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Scaler:
        """Restore a scaler from the result of `to_dict`.

        Raises: DataError when an entry is missing or not a number.
        """
        try:
            shift = np.array(stored["shift"], dtype=np.float64)
            factor = np.array(stored["factor"], dtype=np.float64)
            clip = None if stored["clip"] is None else float(stored["clip"])
            return cls(stored["kind"], shift, factor, clip)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "A stored scaler must have kind, shift, factor and clip, as to_dict() writes them. "
                f"Received: {type(error).__name__}: {error}"
            ) from error

    def _columns(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return x with two dimensions; a vector becomes one column."""
        columns = x.reshape(-1, 1) if x.ndim == 1 else x
        if columns.ndim != 2 or columns.shape[1] != len(self.shift):
            raise ShapeError(
                f"x must have {len(self.shift)} columns, as when the scaler was fitted. "
                f"Received: x.shape={x.shape}."
            )
        return columns


def default_scaler_kind(x: NDArray[Any]) -> ScalerKind:
    """Return "unit" for bytes, which are nearly always images, else "standard"."""
    return "unit" if x.dtype == np.uint8 else "standard"


def fit_scaler(kind: str, x: NDArray[Any]) -> Scaler | None:
    """Fit a scaler to the columns of x.

    standard: (x - mean) / std                        a constant column is only shifted
    robust:   (x - median) / (q75 - q25), clip 3      else 2 / (max - min), else 0
    unit:     (x - min) / (max - min)                 bytes: always x / 255
    none:     None

    Shapes: x (n, n_features), or (n,) for one feature.
    Raises: ArgumentError for another kind; ShapeError and DataError when x cannot be scaled.
    Source: robust is Holzmueller et al. 2024 (RealMLP), robust scaling and smooth clipping;
    differs in that the quantiles are those of at most 100 000 rows, drawn with a fixed seed.
    """
    if kind not in (*KINDS, "none"):
        raise ArgumentError(
            f"A scaler must be of a known kind. Received: kind={kind!r}. "
            + suggest(str(kind), (*KINDS, "none"))
        )
    if kind == "none":
        return None
    columns = _as_columns(x)
    if kind == "unit" and columns.dtype == np.uint8:
        d = columns.shape[1]
        return Scaler("unit", np.zeros(d), np.full(d, 1.0 / 255.0))
    lowest, highest = _extremes(columns)
    if kind == "unit":
        return Scaler("unit", lowest, _reciprocal(highest - lowest, otherwise=1.0))
    if kind == "standard":
        return _fit_standard(columns, lowest, highest)
    return _fit_robust(columns, lowest, highest)


def _fit_standard(x: NDArray[Any], lowest: Floats, highest: Floats) -> Scaler:
    """Fit mean and standard deviation by merging chunks (Chan, Golub and LeVeque 1979).

    Works on u = (x - min) / (max - min): subtracting the minimum keeps the digits of a small
    spread around a large offset, and the squares of u cannot overflow.
    """
    # A constant column has spread 0. Its factor is 1, not 1/0: later values in that column are only
    # shifted, and a rounding error in the mean is not amplified to noise of size 1.
    spread = highest - lowest
    per_spread = _reciprocal(spread, otherwise=0.0)
    count = 0
    mean = np.zeros_like(lowest)
    squares = np.zeros_like(lowest)
    for _, chunk in _chunks(x):
        chunk -= lowest
        chunk *= per_spread
        n = len(chunk)
        chunk_mean = chunk.mean(axis=0)
        chunk -= chunk_mean
        step = chunk_mean - mean
        mean += step * (n / (count + n))
        squares += np.einsum("ij,ij->j", chunk, chunk) + step**2 * (count * n / (count + n))
        count += n
    std = spread * np.sqrt(squares / count)
    return Scaler("standard", lowest + spread * mean, _reciprocal(std, otherwise=1.0))


def _fit_robust(x: NDArray[Any], lowest: Floats, highest: Floats) -> Scaler:
    if len(x) > QUANTILE_ROWS:
        rng = np.random.Generator(np.random.Philox(QUANTILE_SEED))
        x = x[np.sort(rng.choice(len(x), QUANTILE_ROWS, replace=False))]
    quartiles = np.empty((3, x.shape[1]))
    for column in range(x.shape[1]):  # one by one: np.quantile copies its argument
        quartiles[:, column] = np.quantile(x[:, column].astype(np.float64), [0.25, 0.5, 0.75])
    by_range = 2.0 * _reciprocal(highest - lowest, otherwise=0.0)
    by_quartiles = _reciprocal(quartiles[2] - quartiles[0], otherwise=0.0)
    factor = np.where(by_quartiles > 0.0, by_quartiles, by_range)
    return Scaler("robust", quartiles[1].copy(), factor, clip=3.0)


def _as_columns(x: NDArray[Any]) -> NDArray[Any]:
    columns = x.reshape(-1, 1) if x.ndim == 1 else x
    if columns.ndim != 2 or columns.dtype.kind not in "biuf":
        raise ShapeError(
            "x must be an array of numbers with rows and columns. "
            f"Received: x.shape={x.shape}, x.dtype={x.dtype}."
        )
    if len(columns) == 0:
        raise DataError(f"A scaler needs at least one row to fit. Received: x.shape={x.shape}.")
    return columns


def _chunks(x: NDArray[Any]) -> Iterator[tuple[int, Floats]]:
    """Yield (first row, float64 copy of some rows), about 8 MB at a time."""
    n_rows = max(1, CHUNK_ELEMENTS // max(1, x.shape[1]))
    for start in range(0, len(x), n_rows):
        yield start, np.array(x[start : start + n_rows], dtype=np.float64)


def _extremes(x: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the smallest and largest value of each column; raise DataError if not finite."""
    lowest = np.full(x.shape[1], np.inf)
    highest = np.full(x.shape[1], -np.inf)
    for _, chunk in _chunks(x):
        np.minimum(lowest, chunk.min(axis=0), out=lowest)  # NaN passes through both
        np.maximum(highest, chunk.max(axis=0), out=highest)
    finite = np.isfinite(lowest) & np.isfinite(highest)
    if not finite.all():
        column = int(np.argmin(finite))
        raise DataError(
            "x must be finite to fit a scaler. "
            f"Received: infinity or NaN in column {column} (from 0). Remove or replace it."
        )
    too_wide = highest / 2.0 - lowest / 2.0 > np.finfo(np.float64).max / 4.0
    if too_wide.any():
        column = int(np.argmax(too_wide))
        raise DataError(
            "The values of a column must not span more than float64 can hold. Received: "
            f"{lowest[column]:g} to {highest[column]:g} in column {column} (from 0)."
        )
    return lowest, highest


def _reciprocal(values: Floats, otherwise: float) -> Floats:
    """Return 1 / values, and `otherwise` where that is not finite (0, or a subnormal number)."""
    usable = values >= np.finfo(np.float64).tiny
    return np.where(usable, 1.0 / np.where(usable, values, 1.0), otherwise)
