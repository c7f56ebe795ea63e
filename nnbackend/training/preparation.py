"""Preparation of a run's data, once: validation, held-out rows, scalers, encoded targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from nnbackend import validation
from nnbackend.backend.formulas import Array
from nnbackend.backend.ranks import Exchange
from nnbackend.data.file_rows import selected
from nnbackend.data.host_rows import HostRows, narrow
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.data.sparse import SparseRows
from nnbackend.data.splits import split_rows
from nnbackend.data.stream import Stream
from nnbackend.errors import ArgumentError, Fault, Mention, ShapeError
from nnbackend.metrics import is_pinball, metrics_of, suitable_names
from nnbackend.network.evaluation.scores import ACCURACY, BINARY_ACCURACY, Score
from nnbackend.network.layers import Dense
from nnbackend.network.network import Network
from nnbackend.options import check
from nnbackend.suggestions import suggest

Validation = tuple[Any, Any] | tuple[Any, Any, Any] | float | None
Part = tuple[Array, np.ndarray, np.ndarray | None]  # raw rows, encoded targets, weights
# Of data larger than memory: at most so many rows, and numbers, to which a scaler is fitted.
FITTED_ROWS, FITTED_NUMBERS = 100_000, 1 << 24
FIXED_SCALE = ("poisson", "binary_cross_entropy", "cross_entropy")  # losses of such targets


@dataclass(frozen=True)
class TrainingData:
    """The validated data of a run.

    x: all raw rows.  y: encoded targets.  rows: the indices of the rows to train on.
    stream: where the rows come from instead; x, y and weight are its first batch.
    validation: the held-out or given rows.  validation_share: the fraction that is held out.
    score: what validation measures besides the loss.
    metrics: names of further metrics that it measures.
    """

    x: Array
    y: np.ndarray
    weight: np.ndarray | None
    rows: np.ndarray | range
    score: Score
    preprocessing: Preprocessing
    validation: Part | None = None
    validation_share: float | None = None
    metrics: tuple[str, ...] = ()
    stream: Stream | None = None

    def measured(
        self, net: Network, theta: Array | None = None, metrics: Sequence[str] | None = None,
        ranks: Exchange | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Return metrics of the validation rows, each row counted once; by default its metrics.

        theta (P,): other parameters than the network's.  ranks: share the rows.
        """
        names = self.metrics if metrics is None else metrics
        if not names or self.validation is None:
            return {}
        x, y, _ = self.validation
        known = self.preprocessing
        if ranks is None:
            out = net.outputs(x, known.scaler, theta=theta)
        else:
            parts = [selected(x, rows) for rows in ranks.parts(len(y)) if rows.start < rows.stop]
            outs = [net.outputs(part, known.scaler, theta=theta) for part in parts]
            out = np.concatenate([one for of_rank in ranks.share(outs) for one in of_rank])
        n_classes = classes_measured(net, y, known)
        if n_classes:
            codes = y if y.ndim == 1 else y[:, 0] if net.n_out == 1 else y.argmax(axis=1)
            out = np.concatenate([1.0 - out, out], axis=1) if net.n_out == 1 else out
            return metrics_of(codes.astype(np.int64), out, n_classes, names)
        if known.target_scaler is not None:
            y, out = known.target_scaler.inverse(y), known.target_scaler.inverse(out)
        return metrics_of(y.reshape(out.shape), out, 0, names)


def prepare_data(
    net: Network,
    x: Any,
    y: Any,
    sample_weight: Any,
    validation_set: Any,
    *,
    preprocessing: Preprocessing | None = None,
    scale: str | Scaler | None = None,
    scale_targets: bool = False,
    seed: int = 0,
    monitor: str | None = None,
) -> TrainingData:
    """Check the data of a run, hold out rows, and fit the scalers to the others.

    preprocessing: fitted before, to which scalers are added.
    scale, scale_targets: the scalers to fit, of the rows and of a regression's targets.
    """
    known = preprocessing or Preprocessing()
    check_scale_targets(net, scale_targets)
    x, y_codes, weight = check_part(net, x, y, sample_weight, known)
    n, share = len(y_codes), None
    rows, held_out = np.arange(n, dtype=np.int64), None
    if isinstance(validation_set, Real) and validation_set is not True:
        share = float(validation_set)
        check("validation", share, lambda v: 0.0 < v < 1.0, "a fraction between 0 and 1, or rows")
        rows, held_out = hold_out(y_codes, share, seed)
        rows = narrow(rows) if isinstance(x, HostRows) else rows
    known = replace(known, scaler=fit_rows_scaler(net, x, rows, scale) or known.scaler)
    if scale_targets and known.classes is None and y_codes.ndim == 2:
        values = validation.host_array(y, "y", net.backend).reshape(n, -1)
        known = replace(known, target_scaler=fit_scaler("standard", values[rows]))
        y_codes = encode_targets(net, y, n, known)
    part = None
    if held_out is not None:
        if weight is not None:
            validation.check_some_weight(weight[rows], "all training rows")
            validation.check_some_weight(weight[held_out], "all held-out rows")
        held_weight = None if weight is None else weight[held_out]
        part = (validation.some_rows(x, held_out, net.backend), y_codes[held_out], held_weight)
    elif validation_set is not None:
        part = check_validation(net, validation_set, known)
    score = score_for(net, y_codes, known)
    metrics = check_monitor(score, part, monitor, classes_measured(net, y_codes, known))
    return TrainingData(x, y_codes, weight, rows, score, known, part, share, metrics)


def hold_out(targets: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the training rows and of the held-out rows of encoded targets.

    The split of class labels (n,) is stratified.
    """
    return split_rows(len(targets), share, seed, targets if targets.ndim == 1 else None)


def training_rows(
    net: Network, y: Any, known: Preprocessing, validation_set: Any, seed: Any
) -> np.ndarray | None:
    """Return the positions of the rows that `prepare_data` would train on; None for all.

    Invalid options count as none: `prepare_data` refuses them.
    """
    share = float(validation_set) if isinstance(validation_set, Real) else 0.0
    n = len(y)
    if not 0.0 < share < 1.0 or not isinstance(seed, int) or n < 2:
        return None
    return hold_out(encode_targets(net, y, n, known), share, seed)[0]


def encode_targets(net: Network, y: Any, n_rows: int, known: Preprocessing) -> np.ndarray:
    """Return validated targets as the loss expects them: (n,) labels, or (n, n_out), scaled."""
    form, scaler = net.target_form, known.target_scaler
    if scaler is None:
        return validation.targets(y, n_rows, form, net.backend)
    wide = replace(form, dtype="float64")
    target = validation.targets(y, n_rows, wide, net.backend)
    return target if target.ndim == 1 else scaler.transform(target, net.dtype)


def score_for(net: Network, y: np.ndarray, known: Preprocessing) -> Score:
    """Return the score of encoded targets; outputs with labels are scored by accuracy."""
    if known.classes is None:
        return net.score_for(y)
    is_binary = net.loss.name == "binary_cross_entropy" or net.n_out == 1
    return BINARY_ACCURACY if is_binary else ACCURACY


def check_part(
    net: Network, x: Any, y: Any, weight: Any, known: Preprocessing, what: str = "x",
    is_part: bool = False,
) -> Part:  # fmt: skip
    """Return checked rows, encoded targets and weights.

    is_part: whether these are not all rows, so that all weights may be 0.
    """
    x = validation.finite_rows(x, net.n_in, net.dtype, net.backend, what)
    n = int(x.shape[0])
    target = encode_targets(net, y, n, known)
    return x, target, validation.sample_weights(weight, n, net.dtype, net.backend, is_part)


def check_scale_targets(net: Network, scale_targets: Any) -> None:
    """Raise ArgumentError for targets that must not be scaled."""
    check("scale_targets", scale_targets, lambda v: v in (True, False), "True or False")
    if scale_targets:
        check("scale_targets", True, lambda v: net.loss.name not in FIXED_SCALE,
              f"False for {net.loss.name}, whose targets have a fixed scale")  # fmt: skip


def fit_rows_scaler(
    net: Network, x: Array, rows: np.ndarray, scale: str | Scaler | None
) -> Scaler | None:
    """Return the scaler of the rows, fitted to those at the indices `rows`."""
    if isinstance(scale, Scaler):
        if scale.shift.shape != (net.n_in,):
            raise ShapeError(
                f"scale must be fitted to the {net.n_in} columns of x. "
                f"Received: a scaler of {scale.shift.shape[0]} columns."
            )
        return scale
    if scale is None:
        return None
    if isinstance(x, SparseRows):
        cure = "Scale its columns before, as scikit-learn's MaxAbsScaler does, or pass x.toarray()."
        raise ArgumentError(Fault("scale", "None for a sparse matrix", scale, (cure,)))
    if isinstance(x, HostRows):
        return fit_scaler(scale, x[rows[:: -(-len(rows) // fitted_rows(net.n_in))]])
    fitted_on = x if len(rows) == int(x.shape[0]) else validation.some_rows(x, rows, net.backend)
    return fit_scaler(scale, validation.host_array(fitted_on, "x", net.backend))


def fitted_rows(n_columns: int) -> int:
    """Return the number of rows to which a scaler of data larger than memory is fitted."""
    return min(FITTED_ROWS, max(1, FITTED_NUMBERS // n_columns))


def check_validation(net: Network, validation_set: Any, known: Preprocessing) -> Part:
    """Return the checked validation set."""
    if not isinstance(validation_set, (tuple, list)) or len(validation_set) not in (2, 3):
        raise ArgumentError(
            Mention("validation"), " must be (x, y), (x, y, sample_weight) or a fraction to hold "
            f"out. Received: {_form(validation_set)}.",
        )  # fmt: skip
    x, y, *weight = validation_set
    return check_part(net, x, y, weight[0] if weight else None, known, "validation x")


def _form(value: Any) -> str:
    name = type(value).__name__
    return f"{name} of {len(value)}" if isinstance(value, (tuple, list)) else name


def classes_measured(net: Network, y: np.ndarray, known: Preprocessing) -> int | None:
    """Return the number of classes for metrics of encoded targets: 0 for values, None for neither.

    Metrics of classes need probabilities; several yes-or-no targets have none.
    """
    if score_for(net, y, known).name == "r2":
        return 0
    last = net.layers[-1]
    if not isinstance(last, Dense) or last.activation.name not in ("softmax", "sigmoid"):
        return None
    if net.n_out == 1:
        return 2
    is_one_class = y.ndim == 1 or net.loss.name == "cross_entropy" or known.classes is not None
    return net.n_out if is_one_class else None


def check_monitor(
    score: Score, validation_set: Part | None, monitor: str | None, n_classes: int | None
) -> tuple[str, ...]:
    """Return the metrics that validation must measure for the monitor; refuse other columns."""
    columns = ["train_loss"]
    if validation_set is not None:
        columns += ["valid_loss", f"valid_{score.name}"]
    if monitor is None or monitor in columns:
        return ()
    if validation_set is not None and n_classes is not None:
        suitable = [f"valid_{name}" for name in suitable_names(n_classes)]
        is_quantile = n_classes == 0 and is_pinball(monitor.removeprefix("valid_"))
        if monitor in suitable or (is_quantile and monitor.startswith("valid_")):
            return (monitor.removeprefix("valid_"),)
        columns += [name for name in suitable if name not in columns]
    has_part = monitor.startswith(("valid_", "train_"))
    cure: tuple[str | Mention, ...] = (
        suggest(monitor if has_part else f"valid_{monitor}", columns),
    )
    if validation_set is None:
        cure += " Pass ", Mention("validation"), " for valid_ values."
    raise ArgumentError(Fault("monitor", "a column of the history", monitor, cure))
