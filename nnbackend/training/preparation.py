"""Taking in the data of a run: checked, the validation part split off, the scalers fitted."""

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
    """What a run learns from: all rows as they came, and which of them to train on."""

    x: Array
    y: np.ndarray
    weight: np.ndarray | None
    rows: np.ndarray
    validation: Part | None


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
    """Check the data of a run; fit net.scaler and net.target_scaler on the rows to train on."""
    x = finite_rows(x, net.n_in, net.dtype, net.backend)
    n = int(x.shape[0])
    weight = net.host_weights(sample_weight, n)
    if scale_targets:
        bounded = ("poisson", "binary_cross_entropy", "cross_entropy")
        check("scale_targets", True, lambda v: net.loss.name not in bounded,
              f"False for {net.loss.name}, whose targets have a scale of their own")  # fmt: skip
        net.target_scaler = None  # it is fitted anew
    target = net.host_targets(y, n)
    if target.ndim == 1 and net.classes is None and net.n_out > 1:
        net.classes = tuple(range(net.n_out))

    rows, held = np.arange(n, dtype=np.int64), None
    if isinstance(validation, Real) and validation is not True:
        labels = target if target.ndim == 1 else None
        rows, held = split_rows(n, float(validation), seed, labels)
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
                "columns before, as scikit-learn's MaxAbsScaler does, or give x.toarray()."
            )
        fitted_on = x if held is None else some_rows(x, rows, net.backend)
        net.scaler = fit_scaler(scale, host_array(fitted_on, "x", net.backend))
    if scale_targets and not net.is_classifier:
        values = host_array(y, "y", net.backend).reshape(n, -1)
        net.target_scaler = fit_scaler("standard", values[rows])
        target = net.host_targets(y, n)

    if held is None:
        part = _validation_part(net, validation)
        _check_monitor(net, part, monitor)
        return TrainingData(x, target, weight, rows, part)
    held_weight = None if weight is None else weight[held]
    if weight is not None:
        check_some_weight(weight[rows], "all rows to train on")
        check_some_weight(weight[held], "all rows held out")
    part = (some_rows(x, held, net.backend), target[held], held_weight)
    _check_monitor(net, part, monitor)
    return TrainingData(x, target, weight, rows, part)


def _validation_part(net: Network, validation: Any) -> Part | None:
    """Check a validation set that was given."""
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise ArgumentError(
            "validation must be (x, y), (x, y, sample_weight) or a fraction to split off. "
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
        cure = "" if validation is not None else " Give validation= for valid_ values."
        raise ArgumentError(
            f"monitor must be a column of the history. Received: {monitor!r}. "
            f"{suggest(monitor, columns)}{cure}"
        )
