"""Preprocessing: how raw rows become a network's inputs, and its outputs labels or values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnbackend.data.intervals import Intervals
from nnbackend.data.piecewise import PiecewiseEncoder
from nnbackend.data.scalers import Scaler


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What is fitted to the data besides the network.

    scaler: of the rows.  target_scaler: of a regression's targets.
    classes: the labels of the outputs 0, 1, ...
    columns: how a table's columns become features, the result of `ColumnCoding.to_dict`.
    encoder: how those features become the network's inputs.
    intervals: the errors to expect of a regression's predictions.
    threshold: the probability above which the second of two classes is the answer, if not 0.5.
    """

    scaler: Scaler | None = None
    target_scaler: Scaler | None = None
    classes: tuple[Any, ...] | None = None
    columns: Mapping[str, Any] | None = None
    encoder: PiecewiseEncoder | None = None
    intervals: Intervals | None = None
    threshold: float | None = None
