"""The classifier, and what it shares with the ensemble of classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight, multiclass
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from nnbackend.backend.formulas import Array
from nnbackend.errors import DataError
from nnbackend.estimators.base import SHARE, BaseMLP, Data, EvalSet, Weight, parameter
from nnbackend.estimators.callbacks import with_callbacks
from nnbackend.estimators.fitting import NetworkMLP, has_partial_fit
from nnbackend.estimators.meanings import with_meanings
from nnbackend.network.losses import Loss, get_loss
from nnbackend.options import check


@dataclass(eq=False, repr=False, kw_only=True)
class Classification(ClassifierMixin, BaseMLP):
    """Labels as targets: their coding, and the probabilities of the classes."""

    label_smoothing: float = parameter(0.0, SHARE)
    class_weight: dict[Any, float] | list[dict[Any, float]] | str | None = parameter(
        None, None, dict, list, StrOptions({"balanced"})
    )

    _has_labels = True
    loss = "log_loss"

    # ---- targets ----------------------------------------------------------------------------

    def _fit_data(self, X: Any, y: Any, continues: bool) -> tuple[Any, np.ndarray]:
        X, y = super()._fit_data(X, y, continues)
        _check_labels(y)
        if continues and hasattr(self, "classes_"):
            self._check_classes(multiclass.unique_labels(y))
        else:
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        return X, y

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
        if y.ndim == 1 and len(self.classes_) > 1:  # faster: the binarizer checks y four times
            codes = np.searchsorted(self.classes_, y)
            if self._output() == "logistic":
                return np.equal(codes, 1).reshape(-1, 1)
            return np.equal.outer(codes, np.arange(len(self.classes_)))
        return self._label_binarizer.transform(y).astype(bool)

    def _eval_targets(self, y: np.ndarray) -> np.ndarray:
        _check_labels(y)
        unknown = np.setdiff1d(multiclass.unique_labels(y), self.classes_)
        if len(unknown):
            raise DataError(
                f"eval_set must have labels of the training rows only, {self.classes_}. "
                f"Received: {unknown} too. Remove those rows."
            )
        return self._coded(y)

    def _engine_targets(self, Y: np.ndarray) -> np.ndarray:
        """Return class codes (n,) for exclusive classes, else numbers 0 and 1."""
        is_coded = self._output() == "softmax"
        return Y.argmax(axis=1).astype(np.int32) if is_coded else Y.astype(np.float32)

    def _truth(self, Y: np.ndarray) -> np.ndarray:
        return self._label_binarizer.inverse_transform(Y)

    # ---- the network ------------------------------------------------------------------------

    def _output(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _loss(self) -> Loss:
        name = "cross_entropy" if self._output() == "softmax" else "binary_cross_entropy"
        return get_loss(name, float(self.label_smoothing))

    def _decoded(self, out: np.ndarray) -> np.ndarray:
        return self._label_binarizer.inverse_transform(out.ravel() if self.n_outputs_ == 1 else out)

    # ---- the methods ------------------------------------------------------------------------

    def score(self, X: Data, y: Data, sample_weight: Weight = None) -> float:
        """Return the accuracy on rows X with labels y."""
        return float(super().score(*map(self._on_host, (X, y, sample_weight))))

    def predict_proba(self, X: Data) -> Array:
        """Return the probability of every class, (n, n_classes), in the order of `classes_`."""
        return self._like(X, self._probabilities(X))

    def predict_log_proba(self, X: Data) -> Array:
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return self._like(X, np.log(self._probabilities(X)))

    def _probabilities(self, X: Data) -> np.ndarray:
        out = self._outputs(X)
        return np.hstack([1.0 - out, out]) if self.n_outputs_ == 1 else out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@with_meanings
@dataclass(eq=False, repr=False)
class MLPClassifier(NetworkMLP, Classification):
    """A multilayer perceptron classifier with scikit-learn's interface.

    It has the parameters, attributes and methods of scikit-learn's MLPClassifier, on any device,
    and further ones: see docs/estimators.md.
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(20, learning_rate_init=0.02, max_iter=500, random_state=0).fit(X, y)
    >>> model.predict(X[:3])
    array([0, 0, 0])
    """

    _metric = staticmethod(accuracy_score)

    def _class_weights(self, y: np.ndarray) -> np.ndarray | None:
        """Return the weights (n,) of labels, by stricter rules than scikit-learn's, or None."""
        given = self.class_weight
        if isinstance(given, list):
            check(
                "class_weight", given,
                lambda v: y.ndim == 2 and [type(w) for w in v] == [dict] * y.shape[1],
                "a dict or 'balanced', or a list with a dict for each of several labels",
            )  # fmt: skip
        if given not in (None, "balanced"):
            check(
                "class_weight", given,
                lambda v: all(map(_are_weights, v if isinstance(v, list) else [v])),
                "numbers, at least 0 and not all 0",
            )  # fmt: skip
        return None if given is None else compute_sample_weight(given, y)

    @available_if(has_partial_fit)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Data, y: Data, sample_weight: Weight = None, classes: Data | None = None,
        eval_set: EvalSet = None,
    ) -> Self:  # fmt: skip
        """Train for one more epoch; the first call needs all classes."""
        y, classes = self._on_host(y), self._on_host(classes)
        if multiclass._check_partial_fit_first_call(self, classes):
            is_multilabel = multiclass.type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, eval_set, incremental=True)


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


def _are_weights(table: dict[Any, float]) -> bool:
    return all(0 <= w < math.inf for w in table.values()) and any(table.values())
