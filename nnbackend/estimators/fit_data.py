"""The data of a fit: checked by scikit-learn's rules, and encoded for the Trainer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from nnbackend.data.sparse import SparseRows
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, ShapeError


@dataclass(frozen=True)
class Validation:
    """Validation rows, encoded for the Trainer, with `truth` for the score."""

    X: Any
    y: np.ndarray
    weight: np.ndarray | None
    truth: np.ndarray

    @property
    def for_trainer(self) -> tuple[Any, Any, Any]:
        """The `validation` argument of `Trainer`."""
        return self.X, self.y, self.weight


@dataclass(frozen=True)
class FitData:
    """X: rows (n, n_features), dense or sparse. Y: targets (n, n_outputs), classes as 0 and 1.

    y: the same encoded for the Trainer.
    """

    X: Any
    Y: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    validation: Validation | None

    @property
    def n(self) -> int:
        """The number of rows."""
        return int(self.X.shape[0])

    @property
    def n_outputs(self) -> int:
        """The number of output units."""
        return int(self.Y.shape[1])

    @property
    def dtype(self) -> str:
        """The default dtype of the fit, if the device supports it."""
        return "float32" if self.X.dtype == np.float32 else "float64"


def rows(X: Any) -> Any:
    """Return checked rows in the form that the Trainer takes."""
    return SparseRows(X) if issparse(X) else X


def on_host(estimator: Any, array: Any) -> Any:
    """Copy an array of the estimator's device to the host; return anything else unchanged.

    Raises: ArgumentError for an array of another GPU or GPU library.
    """
    if isinstance(array, np.ndarray) or not hasattr(array, "dtype"):
        return array
    backend = get_backend(estimator.device)
    if backend.owns(array):
        return backend.to_host(array)
    if hasattr(array, "__cuda_array_interface__"):
        raise ArgumentError(
            f"Arrays must be on the host or on the estimator's device, {backend.device}. "
            f"Received: {type(array).__name__} on a GPU. Pass a host array (CuPy: x.get(), "
            "torch: x.cpu()), or a CuPy array with device='gpu'."
        )
    return array


def like(estimator: Any, X: Any, out: np.ndarray) -> Any:
    """Return a result on the device of X. Labels that are not numbers stay on the host."""
    if on_host(estimator, X) is X or out.dtype.kind not in "fiub":
        return out
    backend = get_backend(estimator.device)
    return backend.to_device(backend.narrowed(out))


def dtype_on_device(estimator: Any) -> str:
    """Return the dtype of a fit: float32 if the device has no float64, unless one is given."""
    dtype, has = str(estimator._dtype), get_backend(estimator.device).float_dtypes
    return has[0] if estimator.dtype is None and dtype not in has else dtype


def some_rows(X: Any, index: np.ndarray) -> Any:
    """Return the rows at some indices."""
    return X.take(index) if isinstance(X, SparseRows) else X[index]


def prediction_rows(estimator: Any, X: Any) -> Any:
    """Check the rows to predict for."""
    X = on_host(estimator, X)
    return rows(validate_data(estimator, X, accept_sparse=["csr", "csc"], reset=False))


def fit_data(
    estimator: Any, X: Any, Y: Any, sample_weight: Any, classes_weight: Any, eval_set: Any
) -> FitData:
    """Return the data of a fit from validated X and Y."""
    Y = Y.reshape(-1, 1) if Y.ndim == 1 else Y
    weight = None
    if sample_weight is not None:
        weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
    if classes_weight is not None:
        weight = classes_weight if weight is None else weight * classes_weight
    validation = None if eval_set is None else _eval_set(estimator, eval_set, Y.shape[1])
    return FitData(rows(X), Y, estimator._engine_targets(Y), weight, validation)


def check_eval_set(eval_set: Any) -> None:
    """Raise ArgumentError unless eval_set is (X, y) or (X, y, sample_weight)."""
    if not isinstance(eval_set, (tuple, list)):
        received = type(eval_set).__name__
    elif len(eval_set) in (2, 3):
        return
    else:
        received = f"{type(eval_set).__name__} of {len(eval_set)}"
    raise ArgumentError(
        f"eval_set must be (X, y) or (X, y, sample_weight), one set. Received: {received}."
    )


def check_outputs(y: np.ndarray, n: int, n_outputs: int) -> None:
    """Raise ShapeError if a validation set's y does not have n outputs."""
    if n != n_outputs:
        raise ShapeError(
            f"y of eval_set must have {n_outputs} column(s), as y has. Received: y.shape={y.shape}."
        )


def _eval_set(estimator: Any, eval_set: Any, n_outputs: int) -> Validation:
    """Return the validated eval_set; it must have as many outputs as the training rows."""
    check_eval_set(eval_set)
    X, y, *weight = (on_host(estimator, part) for part in eval_set)
    X = validate_data(estimator, X, accept_sparse=["csr", "csc"], reset=False)
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y of eval_set")
    check_consistent_length(X, y)
    Y = estimator._eval_targets(column_or_1d(y) if y.ndim == 2 and y.shape[1] == 1 else y)
    Y = Y.reshape(-1, 1) if Y.ndim == 1 else Y
    check_outputs(y, Y.shape[1], n_outputs)
    w = _check_sample_weight(weight[0], X) if weight else None
    return Validation(rows(X), estimator._engine_targets(Y), w, estimator._truth(Y))


def split_off(estimator: Any, data: FitData) -> FitData:
    """Hold out rows for early stopping, unless there is a validation set.

    They are the rows that scikit-learn holds out for the same random_state.
    """
    if data.validation is not None:
        return data
    stratify = data.Y if estimator._stratifies and data.n_outputs == 1 else None
    train, held = train_test_split(
        np.arange(data.n),
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=stratify,
    )
    if len(held) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    weight = data.weight
    validation = Validation(
        some_rows(data.X, held),
        data.y[held],
        None if weight is None else weight[held],
        estimator._truth(data.Y[held]),
    )
    return replace(
        data,
        X=some_rows(data.X, train),
        Y=data.Y[train],
        y=data.y[train],
        weight=None if weight is None else weight[train],
        validation=validation,
    )
