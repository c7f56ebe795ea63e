"""Preparation of a run's data: validation, split into training and held-out rows, scaling."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.data.sparse import SparseRows
from nnbackend.data.splits import split_rows
from nnbackend.data.validation import check_some_weight, finite_rows, host_array, some_rows
from nnbackend.errors import ArgumentError, ShapeError, check, suggest
from nnbackend.network.network import Network

Validation = tuple[Any, Any] | tuple[Any, Any, Any] | float | None
Part = tuple[Array, np.ndarray, np.ndarray | None]  # rows, prepared targets, weights


@dataclass(frozen=True)
class TrainingData:
    """The data of a run: all rows, the indices of those to train on, and the validation set.

    validation_share: the fraction of the rows that are held out, or None.
    """

    x: Array
    y: np.ndarray
    weight: np.ndarray | None
    rows: np.ndarray
    validation: Part | None
    validation_share: float | None = None


def prepare_data(
    net: Network,
    x: Any,
    y: Any,
    sample_weight: Any,
    validation: Any,
    *,
    scale: str | Scaler | None,
    scale_targets: bool,
    seed: int,
    monitor: str | None,
) -> TrainingData:
    """Check the data of a run; fit net.scaler and net.target_scaler on the training rows."""
    check("scale_targets", scale_targets, lambda v: v in (True, False), "True or False")
    x = finite_rows(x, net.n_in, net.dtype, net.backend)
    n = int(x.shape[0])
    weight = net.host_weights(sample_weight, n)
    if scale_targets:
        bounded = ("poisson", "binary_cross_entropy", "cross_entropy")
        check("scale_targets", True, lambda v: net.loss.name not in bounded,
              f"False for {net.loss.name}, whose targets have a fixed scale")  # fmt: skip
        net.target_scaler = None  # fitted again below
    target = net.host_targets(y, n)
    if target.ndim == 1 and net.classes is None and net.n_out > 1:
        net.classes = tuple(range(net.n_out))

    rows, held_out = np.arange(n, dtype=np.int64), None
    if isinstance(validation, Real) and validation is not True:
        labels = target if target.ndim == 1 else None
        rows, held_out = split_rows(n, float(validation), seed, labels)
    if isinstance(scale, Scaler):
        if scale.shift.shape != (net.n_in,):
            raise ShapeError(
                f"scale must be fitted to the {net.n_in} columns of x. "
                f"Received: a scaler of {scale.shift.shape[0]} columns."
            )
        net.scaler = scale
    elif scale is not None:
        if isinstance(x, SparseRows):
            raise ArgumentError(
                f"scale must be None for a sparse matrix. Received: scale={scale!r}. Scale its "
                "columns before, as scikit-learn's MaxAbsScaler does, or pass x.toarray()."
            )
        fitted_on = x if held_out is None else some_rows(x, rows, net.backend)
        net.scaler = fit_scaler(scale, host_array(fitted_on, "x", net.backend))
    if scale_targets and not net.is_classifier:
        values = host_array(y, "y", net.backend).reshape(n, -1)
        net.target_scaler = fit_scaler("standard", values[rows])
        target = net.host_targets(y, n)

    if held_out is None:
        part = _check_validation(net, validation)
        _check_monitor(net, part, monitor)
        return TrainingData(x, target, weight, rows, part)
    held_out_weight = None if weight is None else weight[held_out]
    if weight is not None:
        check_some_weight(weight[rows], "all training rows")
        check_some_weight(weight[held_out], "all held-out rows")
    part = (some_rows(x, held_out, net.backend), target[held_out], held_out_weight)
    _check_monitor(net, part, monitor)
    return TrainingData(x, target, weight, rows, part, float(validation))


def _check_validation(net: Network, validation: Any) -> Part | None:
    """Return the checked validation set, or None if there is none."""
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise ArgumentError(
            "validation must be (x, y), (x, y, sample_weight) or a fraction to hold out. "
            f"Received: {type(validation).__name__}."
        )
    x, y, *weight = validation
    x = finite_rows(x, net.n_in, net.dtype, net.backend, "validation x")
    n = int(x.shape[0])
    return x, net.host_targets(y, n), net.host_weights(weight[0] if weight else None, n)


def _check_monitor(net: Network, validation: Part | None, monitor: str | None) -> None:
    columns = ["train_loss"]
    if validation is not None:
        columns += ["valid_loss", f"valid_{net.score_for(validation[1]).name}"]
    if monitor is not None and monitor not in columns:
        cure = "" if validation is not None else " Pass validation= for valid_ values."
        raise ArgumentError(
            f"monitor must be a column of the history. Received: {monitor!r}. "
            f"{suggest(monitor, columns)}{cure}"
        )
