"""Estimators for tables, with good defaults: ensembles of networks on encoded rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from nnbackend.data.intervals import Intervals, fit_intervals
from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.errors import ArgumentError
from nnbackend.estimators.base import SHARE, Data, parameter
from nnbackend.estimators.classifier import Classification, MLPClassifier
from nnbackend.estimators.ensemble import LEAST_CALIBRATED, EnsembleMLP
from nnbackend.estimators.fitting import NetworkMLP, Rows
from nnbackend.estimators.meanings import with_meanings
from nnbackend.estimators.regressor import MLPRegressor, Regression
from nnbackend.model.calibration import temperature
from nnbackend.model.thresholds import as_number, choose_threshold


@with_meanings
@dataclass(eq=False, repr=False, kw_only=True)
class TabularMLPClassifier(EnsembleMLP, Classification):
    """An ensemble of multilayer perceptrons for tables with classes.

    Columns of numbers are scaled and divided into bins; AdamW with a cosine schedule trains
    n_members networks; each keeps its best epoch by another fold of the rows. These folds also
    calibrate the probabilities: see docs/estimators.md.
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = TabularMLPClassifier(max_iter=10, n_members=2, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)
    """

    label_smoothing: float = 0.1
    bin_scale: float = 0.3
    threshold: Any = parameter(None, None, str, SHARE)

    _member = MLPClassifier

    def _check_targets(self) -> None:
        """Raise ArgumentError for a threshold of other than two classes."""
        if self.threshold is None:
            return
        as_number(self.threshold)
        if len(self.classes_) != 2 or self._label_binarizer.y_type_ != "binary":
            raise ArgumentError(
                f"threshold is for two classes. Received: {len(self.classes_)} classes. Omit it."
            )

    def _fitted_threshold(
        self, members: list[NetworkMLP], held: list[tuple[Any, ...]]
    ) -> float | None:
        """Return the threshold that is best for the rows that the members held out, or None."""
        if self.threshold is None or (number := as_number(self.threshold)) is not None:
            return None if self.threshold is None else number
        if not all(held):
            raise ArgumentError(
                f"threshold={self.threshold!r} needs rows that the members hold out. Received: "
                "none. Use a number, or early_stopping=True with more rows."
            )
        parts = zip(members, held, strict=True)
        p = np.concatenate([member.predict_proba(X)[:, 1] for member, (X, *_) in parts])
        y = np.concatenate([y for _, y, *_ in held])
        return choose_threshold(np.searchsorted(self.classes_, y), p, self.threshold)

    def _decoded(self, out: np.ndarray) -> np.ndarray:
        if self.threshold_ is None:
            return super()._decoded(out)
        labels: np.ndarray = self.classes_[(out.ravel() > self.threshold_).astype(np.int64)]
        return labels

    def _validation_weights(self, data: Rows) -> np.ndarray | None:
        if self.class_weight is None:
            return data.weight
        by_class: np.ndarray = compute_sample_weight(self.class_weight, data.Y)
        return by_class if data.weight is None else by_class * data.weight

    def _calibrated(self, members: list[NetworkMLP], held: list[tuple[Any, ...]]) -> float:
        """Scale the members' last pre-activations by 1 / T; return T."""
        if not all(held) or any(len(part[1]) < LEAST_CALIBRATED for part in held):
            return 1.0
        parts = zip(members, held, strict=True)
        log_p, codes = zip(
            *(self._log_probabilities(m, X, y) for m, (X, y, *_) in parts), strict=True
        )
        weights = [
            np.ones(len(c)) if len(p) < 3 else np.repeat(p[2], len(c) // len(p[2]))
            for p, c in zip(held, codes, strict=True)
        ]
        found = temperature(*map(np.concatenate, (log_p, codes, weights)))
        for member in members:
            member.coefs_[-1] = (member.coefs_[-1] / found).astype(member.coefs_[-1].dtype)
            b = member.intercepts_[-1]
            member.intercepts_[-1] = (b / found).astype(b.dtype)
        return found

    def _log_probabilities(
        self, member: NetworkMLP, X: Any, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log probabilities (n, n_classes) and the classes' codes (n,).

        Each of several labels counts as a row with two classes.
        """
        p = np.asarray(member.predict_proba(X))
        if y.ndim == 2:
            p, codes = np.stack([1.0 - p.ravel(), p.ravel()], axis=1), y.ravel()
        else:
            codes = np.searchsorted(self.classes_, y)
        return np.log(np.maximum(p, np.finfo(np.float32).eps)), codes.astype(np.int64)


@with_meanings
@dataclass(eq=False, repr=False)
class TabularMLPRegressor(EnsembleMLP, Regression):
    """An ensemble of multilayer perceptrons for tables with values.

    As TabularMLPClassifier; targets are scaled too, except with loss="poisson".
    >>> model = TabularMLPRegressor(max_iter=2, n_members=2, random_state=0)
    >>> len(model.fit([[0.0], [1.0], [2.0]], [0.0, 2.0, 4.0]).estimators_)
    2
    """

    _member = MLPRegressor

    def _target_scaler(self, y: np.ndarray) -> Scaler | None:
        return None if self._output() == "exp" else fit_scaler("standard", y)

    def predict_interval(self, X: Data, level: float = 0.9) -> np.ndarray:
        """Return the lower and upper bounds of the values of rows X: (n, 2).

        A share `level` of the true values lies between them, in rows like those of the fit.
        Raises: ArgumentError for several outputs, and where too few rows were held out.
        """
        check_is_fitted(self)
        if self.intervals_ is None:
            raise ArgumentError(
                f"predict_interval needs one output and {LEAST_CALIBRATED} held-out rows of each "
                f"member. Received: {self.n_outputs_} outputs, "
                f"early_stopping={self.early_stopping}."
            )
        return self.intervals_.bounds(self._decoded(self._outputs(X)), level)

    def _fitted_intervals(
        self, members: list[NetworkMLP], held: list[tuple[Any, ...]], scaler: Scaler | None
    ) -> Intervals | None:
        if not all(held) or any(len(y) < LEAST_CALIBRATED or y.ndim > 1 for _, y, *_ in held):
            return None
        predicted = np.concatenate(
            [member.predict(X) for member, (X, *_) in zip(members, held, strict=True)]
        )
        true = np.concatenate([y for _, y, *_ in held])
        if scaler is not None:
            predicted, true = scaler.inverse(predicted), scaler.inverse(true)
        return fit_intervals(predicted, true)
