"""Estimators for tables: ensembles on scaled rows, with good defaults.

The members have different seeds, and their outputs are averaged. They are trained one after
another. Training them as one batch would need batched kernels for the product and for each
activation, loss and update, in every backend.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.estimators import base
from nnbackend.estimators.base import Activations, Data, EvalSet, Units, Weight, parameter
from nnbackend.estimators.callbacks import own_callbacks
from nnbackend.estimators.classifier import Classification, MLPClassifier
from nnbackend.estimators.fitting import NetworkMLP
from nnbackend.estimators.networks import columns_of
from nnbackend.estimators.regressor import MLPRegressor, Regression
from nnbackend.model.model import Model
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.interrupt import InterruptGuard
from nnbackend.training.optimizers import OPTIMIZERS, Optimizer
from nnbackend.training.run import Run
from nnbackend.training.schedules import AnySchedule

LEAST_ROWS, MOST_ROWS, STEPS = 32, 256, 8


@dataclass(eq=False, repr=False)
class EnsembleMLP(base.BaseMLP):
    """An ensemble of networks; its fields have other defaults than one network's.

    Parameters that need one network (init=False) keep the default and are none of this class.
    """

    hidden_layer_sizes: Units = (128, 128)
    activation: Activations = "silu"
    _: KW_ONLY
    solver: str | Optimizer = parameter("adamw", StrOptions(set(OPTIMIZERS) - {"lbfgs"}), Optimizer)
    alpha: float = 0.0
    learning_rate: str = field(default="constant", init=False)
    learning_rate_init: float = 0.003
    power_t: float = field(default=0.5, init=False)
    warm_start: bool = field(default=False, init=False)
    early_stopping: bool = True
    validation_fraction: float = 0.2
    beta_2: float = 0.95
    n_iter_no_change: float = math.inf
    max_fun: int = field(default=15000, init=False)
    dropout: float | Sequence[float] = 0.1
    weight_decay: float = 0.02
    schedule: str | AnySchedule | None = "cosine"
    monitor: str | None = "valid_loss"
    n_members: int = parameter(4, base.AT_LEAST_1)

    _member: ClassVar[type[NetworkMLP]]

    @abstractmethod
    def _member_outputs(self, member: NetworkMLP, rows: Any) -> np.ndarray:
        """Return a member's output activations (n, n_outputs) of scaled rows."""

    def _target_scaler(self, y: np.ndarray) -> Scaler | None:
        """Return the scaler of the targets, or None."""
        return None

    # ---- the fit ----------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Data, y: Data, sample_weight: Weight = None, eval_set: EvalSet = None) -> Self:
        """Fit the scalers and the members to rows X (n, n_features) with targets y.

        The members hold out different rows, as their seeds are different; eval_set, (X, y) or
        (X, y, sample_weight), replaces these. Ctrl-C ends the fit and keeps the members that have
        completed an epoch.
        Raises: KeyboardInterrupt if no member has completed an epoch.
        """
        X, y, sample_weight = map(self._on_host, (X, y, sample_weight))
        rows, targets = self._fit_data(X, y, continues=False)
        targets = self._truth(self._coded(targets))  # labels: each member encodes them itself
        scaler = None if issparse(rows) else fit_scaler("robust", rows)
        scalers = scaler, self._target_scaler(targets)
        options = self._options(rows.shape[0])
        if eval_set is not None:
            eval_set = self._scaled_set(eval_set, *scalers)
        elif not self._can_hold_out(targets):
            options["early_stopping"] = False
        rows, targets = _scaled(scaler, rows), _scaled_targets(scalers[1], targets)
        members = self._fitted_members(options, rows, targets, sample_weight, eval_set)
        best = min(members, key=_loss_of)
        # All at once at the end: a failed fit keeps the members and scalers of the previous fit.
        fitted = {k: v for k, v in vars(best).items() if k.endswith("_") and k[0] != "_"}
        self.__dict__.update(fitted)
        self.estimators_, self.best_member_ = members, members.index(best)
        self.scaler_, self.target_scaler_ = scalers
        return self

    def _options(self, n: int) -> dict[str, Any]:
        """Return the parameters of the members; "auto" is a batch of an eighth of the rows.

        So an epoch of a small table has several steps.
        """
        options = {each.name: getattr(self, each.name) for each in fields(self._member)}
        if self.batch_size == "auto":
            options["batch_size"] = min(n, max(LEAST_ROWS, min(MOST_ROWS, n // STEPS)))
        return options

    def _fitted_members(
        self, options: dict[str, Any], X: Any, y: Any, weight: Any, eval_set: Any
    ) -> list[NetworkMLP]:
        own = own_callbacks(self.callbacks, verbose=False)  # a member adds its own bar
        random, members = check_random_state(self.random_state), list[NetworkMLP]()
        with InterruptGuard() as guard:  # between the members; a member's own covers its steps
            while len(members) < self.n_members and not guard.requested:
                end = MemberEnd()
                options["random_state"] = int(random.randint(np.iinfo(np.int32).max))
                member = self._member(**{**options, "callbacks": [*own, end]})
                member.fit(X, y, sample_weight=weight, eval_set=eval_set)
                member.set_params(callbacks=self.callbacks)
                guard.requested = guard.requested or end.is_interrupted
                if member.n_iter_ or not guard.requested:
                    members.append(member)
        if not members:
            raise KeyboardInterrupt
        return members

    def _can_hold_out(self, y: np.ndarray) -> bool:
        """Return True if at least two rows, and a row of each class, can be held out."""
        n, counts = y.shape[0], [y.shape[0]]
        held = math.ceil(self.validation_fraction * n)
        if self._has_labels and self._output() != "softmax" and y.ndim == 1:
            counts = np.unique(y, return_counts=True)[1].tolist()
        return held >= max(2, len(counts)) and n - held >= len(counts) and min(counts) >= 2

    def _scaled_set(
        self, eval_set: Any, scaler: Scaler | None, target_scaler: Scaler | None
    ) -> tuple[Any, ...]:
        base.check_eval_set(eval_set)
        X = self._new_rows(eval_set[0], dtype=base.FLOATS)
        y, *weight = (self._on_host(part) for part in eval_set[1:])
        if target_scaler is not None:
            y = self._eval_targets(np.asarray(y))
            base.check_outputs(y, math.prod(y.shape[1:]), len(target_scaler.shift))
        return (_scaled(scaler, X), _scaled_targets(target_scaler, y), *weight)

    # ---- after the fit ----------------------------------------------------------------------

    def _outputs(self, X: Data) -> np.ndarray:
        """Return the mean of the members' outputs (n, n_outputs) of rows X, unscaled."""
        rows = self._scaled_rows(X)
        outputs = [self._member_outputs(member, rows) for member in self.estimators_]
        mean: np.ndarray = np.mean(outputs, axis=0)
        if self.target_scaler_ is not None:
            mean = self.target_scaler_.inverse(mean)  # float64: float32 may have too few digits
        return mean

    def _hidden(self, X: Data, layer: int) -> np.ndarray:
        return self.estimators_[self.best_member_].transform(self._scaled_rows(X), layer)

    def _scaled_rows(self, X: Data) -> Any:
        """Check the rows to predict for, and scale them."""
        check_is_fitted(self)
        return _scaled(self.scaler_, self._new_rows(X, dtype=base.FLOATS))

    def to_models(self) -> list[Model]:
        """Return the members as models, which take raw rows.

        Their mean output is `predict_proba` of a classifier, (n, n_classes), and `predict` of a
        regressor. `nnbackend.export` writes them as one ONNX model.
        Raises: ArgumentError for a classifier fitted to one class.
        """
        check_is_fitted(self)
        scales: dict[str, Any] = {"scaler": self.scaler_, "target_scaler": self.target_scaler_}
        return [
            Model.from_parts(
                model.network, replace(model.preprocessing, **scales, columns=columns_of(self))
            )
            for member in self.estimators_
            for model in member.to_models()
        ]

    def set_params(self, **params: Any) -> Self:
        """Set parameters for the next fit; a new `device` moves a fitted ensemble as well."""
        super().set_params(**params)
        for member in getattr(self, "estimators_", ()) if "device" in params else ():
            member.set_params(device=params["device"])
        return self


class MemberEnd(Callback):
    """Ends a member's fit after its last epoch, without a warning: its best epoch is kept.

    is_interrupted: whether Ctrl-C has ended it before.
    """

    is_interrupted = False

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Return True after the last epoch."""
        return trainer.state.epoch == trainer.config.epochs

    def on_train_end(self, trainer: Run) -> None:
        """Record an interrupt."""
        self.is_interrupted = trainer.interrupt.requested


@dataclass(eq=False, repr=False, kw_only=True)
class TabularMLPClassifier(EnsembleMLP, Classification):
    """An ensemble of multilayer perceptrons for tables with classes.

    Rows are scaled; AdamW with a cosine schedule trains n_members networks, each keeps its best
    epoch, and their probabilities are averaged: see docs/estimators.md.
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = TabularMLPClassifier(max_iter=10, n_members=2, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)
    """

    label_smoothing: float = 0.1

    _member = MLPClassifier

    def _member_outputs(self, member: NetworkMLP, rows: Any) -> np.ndarray:
        out = member.predict_proba(rows)
        return out[:, 1:] if self.n_outputs_ == 1 else out


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

    def _member_outputs(self, member: NetworkMLP, rows: Any) -> np.ndarray:
        return member.predict(rows).reshape(-1, self.n_outputs_)


def _scaled(scaler: Scaler | None, X: Any) -> Any:
    """Scale rows. With a scaler fitted to dense rows, sparse rows become dense."""
    if scaler is None:
        return X
    X = X.toarray() if issparse(X) else X
    return scaler.transform(X, dtype=X.dtype)


def _scaled_targets(scaler: Scaler | None, y: Any) -> Any:
    return y if scaler is None else scaler.transform(np.asarray(y), dtype=np.float64)


def _loss_of(member: NetworkMLP) -> float:
    """Return the loss for comparing members, each on its own held-out rows."""
    if member.early_stopping and member.validation_scores_:
        if member.monitor == "valid_loss":
            return float(member.best_validation_loss_)
        return -float(member.best_validation_score_)
    return float(member.loss_)
