"""Common base of the estimators: their parameters, the checks of data, and predictions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import TransformerTags
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.config import UpdateOptions
from nnbackend.data.sparse import SparseRows
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, ShapeError
from nnbackend.network.activations import ACTIVATIONS, Activation
from nnbackend.network.layers import AbstractLayer
from nnbackend.network.losses import Loss
from nnbackend.options import Kind
from nnbackend.training.callbacks import Callback
from nnbackend.training.optimizers import OPTIMIZERS, Optimizer


class Shaped(Protocol):
    """A table, a sparse matrix or an array of a device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows first."""


Data = ArrayLike | Shaped
Weight = Data | None
EvalSet = Sequence[Data] | None
Units = int | AbstractLayer | Sequence[int | AbstractLayer]
Activations = str | Activation | Sequence[str | Activation]

SPARSE, FLOATS = ["csr", "csc"], (np.float64, np.float32)
SHARE = Interval(Real, 0, 1, closed="left")
AT_LEAST_0 = Interval(Real, 0, None, closed="left")
ABOVE_0 = Interval(Real, 0, None, closed="neither")
AT_LEAST_1 = Interval(Integral, 1, None, closed="left")


def parameter(default: Any, *constraints: Any) -> Any:
    """Return the field of a parameter: its default, and the values that scikit-learn accepts.

    A subclass that gives the field another default keeps the constraints.
    """
    return field(default=default, metadata={"constraints": list(constraints)})


class Accepted(Options):
    """The values of an option's kind, as a constraint of scikit-learn."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(object, set())
        self.kind = kind

    def is_satisfied_by(self, val: Any) -> bool:
        """Return True if the option accepts a value."""
        return self.kind.is_good(val)

    def __str__(self) -> str:
        return self.kind.expected


@cache
def _constraints(kind: type) -> dict[str, list[Any]]:
    known: dict[str, list[Any]] = {}
    for base in reversed(kind.__mro__):
        for name, each in getattr(base, "__dataclass_fields__", {}).items():
            if "constraints" in each.metadata:
                known[name] = each.metadata["constraints"]
            elif "option" in each.metadata:
                known[name] = [Accepted(each.metadata["option"].kind)]
    return {each.name: known[each.name] for each in fields(kind) if each.init}


@dataclass(eq=False, repr=False)
class Parameters:
    """The parameters of all estimators but the options of the updates: scikit-learn's, and ours."""

    hidden_layer_sizes: Units = parameter((100,), "array-like", AT_LEAST_1, AbstractLayer)
    activation: Activations = parameter(
        "relu", StrOptions({"logistic", *ACTIVATIONS} - {"softmax"}), Activation, list, tuple
    )
    _: KW_ONLY
    solver: str | Optimizer = parameter("adam", StrOptions(set(OPTIMIZERS)), Optimizer)
    alpha: float = parameter(0.0001, AT_LEAST_0)
    batch_size: int | str = parameter("auto", StrOptions({"auto"}), AT_LEAST_1)
    learning_rate: str = parameter("constant", StrOptions({"constant", "invscaling", "adaptive"}))
    learning_rate_init: float = parameter(0.001, ABOVE_0)
    power_t: float = parameter(0.5, AT_LEAST_0)
    max_iter: int = parameter(200, AT_LEAST_1)
    shuffle: bool = parameter(True, "boolean")
    random_state: int | np.random.RandomState | None = parameter(None, "random_state")
    tol: float = parameter(1e-4, AT_LEAST_0)
    verbose: bool | int | str = parameter(False, "verbose", StrOptions({"bar"}))
    warm_start: bool = parameter(False, "boolean")
    momentum: float = parameter(0.9, SHARE)
    nesterovs_momentum: bool = parameter(True, "boolean")
    early_stopping: bool = parameter(False, "boolean")
    validation_fraction: float = parameter(0.1, SHARE)
    beta_1: float = parameter(0.9, SHARE)
    beta_2: float = parameter(0.999, SHARE)
    epsilon: float = parameter(1e-8, ABOVE_0)
    n_iter_no_change: float = parameter(10, AT_LEAST_1, Options(Real, {np.inf}))
    max_fun: int = parameter(15000, AT_LEAST_1)
    device: str | Backend | None = parameter(None, None, str, Backend)
    dtype: str | None = parameter(None, None, StrOptions({"float32", "float64"}))
    dropout: float | Sequence[float] = parameter(0.0, SHARE, "array-like")
    monitor: str | None = parameter(None, None, StrOptions({"score", "valid_loss"}))
    callbacks: Callback | Sequence[Callback] | None = parameter(
        None, None, "array-like", HasMethods(["on_epoch_end"])
    )


class BaseMLP(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, UpdateOptions, Parameters
):
    """Base class of all estimators; the fields of its last base class come first.

    Subclasses define targets, output and loss (Classification, Regression), and what is fitted
    (NetworkMLP, EnsembleMLP).
    """

    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    n_features_in_: int
    n_outputs_: int
    out_activation_: str
    _has_labels = False  # targets are labels; held-out rows then have all classes

    @property
    def _parameter_constraints(self) -> dict[str, list[Any]]:
        """What scikit-learn's parameter validation reads."""
        kind: type = type(self)
        return _constraints(kind)

    @abstractmethod
    def _coded(self, y: np.ndarray) -> np.ndarray:
        """Return checked targets as numbers, or as booleans (n, n_outputs)."""

    def _eval_targets(self, y: np.ndarray) -> np.ndarray:
        """Return the coded targets of a validation set; raise an error for unknown ones."""
        return self._coded(y)

    def _engine_targets(self, Y: np.ndarray) -> np.ndarray:
        """Return coded targets as the Trainer takes them."""
        return Y

    def _truth(self, Y: np.ndarray) -> np.ndarray:
        """Return the labels or values that coded targets mean."""
        return Y

    @abstractmethod
    def _decoded(self, out: np.ndarray) -> np.ndarray:
        """Return the labels or values that output activations mean."""

    @abstractmethod
    def _output(self) -> str:
        """Return the output activation, by scikit-learn's name."""

    @abstractmethod
    def _loss(self) -> Loss:
        """Return the loss that the parameters describe."""

    @abstractmethod
    def _outputs(self, X: Data) -> np.ndarray:
        """Return the output activations (n, n_outputs) of rows X."""

    @abstractmethod
    def _hidden(self, X: Data, layer: int) -> np.ndarray:
        """Return the activations (n, units) of a hidden layer."""

    # ---- data -------------------------------------------------------------------------------

    def _on_host(self, array: Any) -> Any:
        """Copy an array of the estimator's device to the host; return anything else unchanged.

        Raises: ArgumentError for an array of another GPU or GPU library.
        """
        if isinstance(array, np.ndarray) or not hasattr(array, "dtype"):
            return array
        backend = get_backend(self.device)
        if backend.owns(array):
            return backend.to_host(array)
        if hasattr(array, "__cuda_array_interface__"):
            raise ArgumentError(
                f"Arrays must be on the host or on the estimator's device, {backend.device}. "
                f"Received: {type(array).__name__} on a GPU. Pass a host array (CuPy: x.get(), "
                "torch: x.cpu()), or a CuPy array with device='gpu'."
            )
        return array

    def _like(self, X: Data, out: np.ndarray) -> Array:
        """Return a result on the device of X. Labels that are not numbers stay on the host."""
        if self._on_host(X) is X or out.dtype.kind not in "fiub":
            return out
        backend = get_backend(self.device)
        return backend.to_device(backend.narrowed(out))

    def _fit_data(self, X: Any, y: Any, continues: bool) -> tuple[Any, np.ndarray]:
        """Return checked rows and targets; a new fit learns columns and classes from them."""
        is_first = not (continues and hasattr(self, "coefs_"))
        X, y = validate_data(
            self, X, y, accept_sparse=SPARSE, multi_output=True, y_numeric=not self._has_labels,
            dtype=FLOATS, reset=is_first,
        )  # fmt: skip
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _new_rows(self, X: Data, **options: Any) -> Any:
        """Return checked rows after the fit: to predict for, or to validate with."""
        return validate_data(self, self._on_host(X), accept_sparse=SPARSE, reset=False, **options)

    # ---- after the fit ----------------------------------------------------------------------

    def predict(self, X: Data) -> Array:
        """Return the labels or values of rows X (n, n_features)."""
        return self._like(X, self._decoded(self._outputs(X)))

    def transform(self, X: Data, layer: int = -1) -> Array:
        """Return the activations of a hidden layer for rows X: (n, units), by default the last's.

        layer counts the hidden layers that learn, from 0. An ensemble's are its best member's.
        """
        check_is_fitted(self)
        # scikit-learn builds tables from host arrays.
        in_table = _get_output_config("transform", self)["dense"] != "default"
        found = self._hidden(X, _layer_index(layer, len(self.coefs_) - 1, in_table))
        return found if in_table else self._like(X, found)

    @property
    def _n_features_out(self) -> int:
        return int(self.coefs_[-1].shape[0])

    def __sklearn_is_fitted__(self) -> bool:
        """Return True if there are weights; a failed fit may leave other attributes."""
        return hasattr(self, "coefs_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        return tags


def _layer_index(layer: int, n: int, in_table: bool) -> int:
    """Return the index of a layer among the n hidden layers."""
    if n == 0:
        raise ArgumentError(
            "transform needs a hidden layer. Received: a network fitted without one. "
            "predict_proba and predict give the outputs."
        )
    if not -n <= layer < n:
        raise ArgumentError(
            f"layer must name one of the {n} hidden layers, from 0. Received: layer={layer}."
        )
    if in_table and layer % n != n - 1:
        raise ArgumentError(
            "set_output names the units of the last hidden layer only. Received: "
            f"layer={layer}. Call set_output(transform='default') before."
        )
    return layer % n


def engine_rows(X: Any) -> np.ndarray | SparseRows:
    """Return checked rows in the form that the Trainer takes."""
    return SparseRows(X) if issparse(X) else X


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
