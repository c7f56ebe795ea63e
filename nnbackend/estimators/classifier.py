"""The classifier."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)
from sklearn.utils.validation import column_or_1d, validate_data

from nnbackend.errors import DataError
from nnbackend.estimators.base import BaseMLP
from nnbackend.estimators.fit_data import like, on_host
from nnbackend.estimators.fit_tasks import with_callbacks
from nnbackend.estimators.step_by_step import OnlyStepByStep
from nnbackend.network.losses import Loss, get_loss
from nnbackend.network.network import Network
from nnbackend.options import check


def _check_labels(y: np.ndarray) -> None:
    """Raise an error for labels that cannot be sorted, such as None among numbers."""
    try:
        if y.dtype == object:
            np.unique(y)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in y.ravel()})
        raise DataError(
            "labels must be of one kind, such as numbers or text. "
            f"Received: {' and '.join(kinds)}. Replace missing labels, or remove those rows."
        ) from error


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron classifier with scikit-learn's interface.

    It has the parameters, attributes and methods of scikit-learn's MLPClassifier, on any device,
    and further ones: see docs/estimators.md.
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(20, learning_rate_init=0.02, max_iter=500, random_state=0).fit(X, y)
    >>> model.predict(X[:3])
    array([0, 0, 0])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [None, dict, list, StrOptions({"balanced"})],
    }
    _stratifies = True
    loss = "log_loss"

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = None,
        dtype: str | None = None,
        dropout: Any = 0.0,
        l1: float = 0.0,
        weight_decay: float = 0.0,
        max_norm: Any = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        schedule: Any = None,
        monitor: str | None = None,
        callbacks: Any = None,
        preset: str | None = None,
        n_members: int = 4,
        label_smoothing: float = 0.0,
        class_weight: Any = None,
    ) -> None:
        self._set(locals())

    # ---- targets ----------------------------------------------------------------------------

    def _validate_input(
        self, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Check X and y; encode y as columns of False and True."""
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True,
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        _check_labels(y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(unique_labels(y))
        weight = None
        if self.class_weight is not None:
            self._check_class_weight(y)
            weight = compute_sample_weight(self.class_weight, y).astype(X.dtype)
        return X, self._coded(y), weight

    def _check_class_weight(self, y: np.ndarray) -> None:
        """Check the class weights more strictly than scikit-learn does."""
        if isinstance(self.class_weight, list):
            check(
                "class_weight",
                self.class_weight,
                lambda v: y.ndim == 2 and [type(w) for w in v] == [dict] * y.shape[1],
                "a dict or 'balanced', or a list with a dict for each of several labels",
            )
        if self.class_weight != "balanced":
            check(
                "class_weight",
                self.class_weight,
                lambda v: all(
                    all(0 <= w < math.inf for w in weights.values()) and any(weights.values())
                    for weights in (v if isinstance(v, list) else [v])
                ),
                "numbers, at least 0 and not all 0",
            )

    def _check_classes(self, classes: np.ndarray) -> None:
        """Raise ValueError if new data has classes that an earlier fit did not see."""
        if self.warm_start and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _coded(self, y: np.ndarray) -> np.ndarray:
        """Return known labels as columns of False and True, as the binarizer does."""
        if y.ndim == 1 and len(self.classes_) > 1:  # faster: the binarizer checks y four times
            codes = np.searchsorted(self.classes_, y)
            if self._output() == "logistic":
                return np.equal(codes, 1).reshape(-1, 1)
            columns: np.ndarray = np.equal.outer(codes, np.arange(len(self.classes_)))
            return columns
        coded: np.ndarray = self._label_binarizer.transform(y).astype(bool)
        return coded

    def _eval_targets(self, y: np.ndarray) -> np.ndarray:
        """Encode the labels of a validation set; raise an error for unknown ones."""
        _check_labels(y)
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise DataError(
                f"eval_set must have labels of the training rows only, {self.classes_}. "
                f"Received: {unknown} too. Remove those rows."
            )
        return self._coded(y)

    def _engine_targets(self, Y: np.ndarray) -> np.ndarray:
        """Return class codes (n,) for exclusive classes, else numbers 0 and 1."""
        if self._output() == "softmax":
            codes: np.ndarray = Y.argmax(axis=1).astype(np.int32)
            return codes
        return Y.astype(np.float32)

    def _truth(self, Y: np.ndarray) -> np.ndarray:
        truth: np.ndarray = self._label_binarizer.inverse_transform(Y)
        return truth

    # ---- the network ------------------------------------------------------------------------

    def _output(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _loss(self) -> Loss:
        name = "cross_entropy" if self._output() == "softmax" else "binary_cross_entropy"
        return get_loss(name, float(self.label_smoothing))

    def _loss_share(self) -> float:
        return 1.0

    def _decoded(self, out: np.ndarray) -> np.ndarray:
        """Return the labels that output activations mean."""
        out = out.ravel() if self.n_outputs_ == 1 else out
        labels: np.ndarray = self._label_binarizer.inverse_transform(out)
        return labels

    def _validation_score(self, net: Network, rows: Any) -> float:
        return self._score_of(net, rows, accuracy_score)

    # ---- the methods ------------------------------------------------------------------------

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Any:
        """Fit to rows X (n, n_features) with labels y (n,), or (n, n_labels) of 0 and 1.

        eval_set: (X, y) or (X, y, sample_weight) for validation and early stopping.
        """
        return self._fit(X, y, sample_weight, eval_set)

    @OnlyStepByStep
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, eval_set: Any = None
    ) -> Any:
        """Train for one more epoch; the first call needs all classes."""
        y, classes = on_host(self, y), on_host(self, classes)
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, eval_set, incremental=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels of rows X (n, n_features)."""
        labels: np.ndarray = like(self, X, self._decoded(self._outputs(X)))
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on rows X with labels y."""
        X, y, sample_weight = (on_host(self, part) for part in (X, y, sample_weight))
        return float(super().score(X, y, sample_weight))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class, (n, n_classes), in the order of `classes_`."""
        probabilities: np.ndarray = like(self, X, self._probabilities(X))
        return probabilities

    def _probabilities(self, X: Any) -> np.ndarray:
        out = self._outputs(X)
        return np.hstack([1.0 - out, out]) if self.n_outputs_ == 1 else out

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            logarithms: np.ndarray = like(self, X, np.log(self._probabilities(X)))
        return logarithms

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
