"""Taking in the data of a run: checked, the validation part split off, the scalers fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend.data import doors
from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.data.splits import split_rows
from nnbackend.errors import ArgumentError, ShapeError, suggest
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


def take_in(
    net: Network,
    x: Any,
    y: Any,
    sample_weight: Any,
    validation: Validation,
    *,
    scale: str | Scaler | None,
    scale_targets: bool,
    seed: int,
    monitor: str | None,
) -> TrainingData:
    """Check the data of a run; fit net.scaler and net.target_scaler on the rows to train on.

    Data that is refused leaves the network as it was.
    """
    before = net.scaler, net.target_scaler, net.classes
    try:
        data = _take_in(
            net, x, y, sample_weight, validation,
            scale=scale, scale_targets=scale_targets, seed=seed,
        )  # fmt: skip
        _check_monitor(net, data.validation, monitor)
        return data
    except Exception:
        net.scaler, net.target_scaler, net.classes = before
        raise


def _take_in(
    net: Network,
    x: Any,
    y: Any,
    sample_weight: Any,
    validation: Validation,
    *,
    scale: str | Scaler | None,
    scale_targets: bool,
    seed: int,
) -> TrainingData:
    x = doors.finite_rows(x, net.n_in, net.dtype, net.backend)
    n = int(x.shape[0])
    weight = net.host_weights(sample_weight, n)
    if scale_targets:
        net.target_scaler = None  # it is fitted anew
    target = net.host_targets(y, n)
    if target.ndim == 1 and net.classes is None and net.n_out > 1:
        net.classes = tuple(range(net.n_out))

    rows, held = np.arange(n, dtype=np.int64), None
    if isinstance(validation, (int, float)) and not isinstance(validation, bool):
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
        part = x if held is None else x[rows]
        net.scaler = fit_scaler(scale, doors.host_array(part, "x", net.backend))
    if scale_targets and not net.is_classifier:
        values = doors.host_array(y, "y", net.backend).reshape(n, -1)
        net.target_scaler = fit_scaler("standard", values[rows])
        target = net.host_targets(y, n)

    if held is None:
        return TrainingData(x, target, weight, rows, _validation_part(net, validation))
    held_weight = None if weight is None else weight[held]
    return TrainingData(x, target, weight, rows, (x[held], target[held], held_weight))


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
    x = doors.finite_rows(x, net.n_in, net.dtype, net.backend, "validation x")
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
