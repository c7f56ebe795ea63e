"""Ensembles of networks on encoded rows: their fit, and their answers as one network.

The members have different seeds and hold out different folds. They are trained one after another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from itertools import repeat
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from nnbackend.data.intervals import Intervals
from nnbackend.data.piecewise import PiecewiseEncoder, fit_piecewise
from nnbackend.data.scalers import Scaler
from nnbackend.estimators import base
from nnbackend.estimators.base import Activations, Data, EvalSet, Units, Weight, parameter
from nnbackend.estimators.callbacks import own_callbacks
from nnbackend.estimators.fitting import NetworkMLP, Rows
from nnbackend.estimators.members import MemberEnd, folds, loss_of, scaled_targets
from nnbackend.estimators.networks import columns_of
from nnbackend.model.model import ROWS_AT_ONCE, Model, with_labels
from nnbackend.model.packing import pack
from nnbackend.model.tables import coded_rows, training_features
from nnbackend.network.network import Network
from nnbackend.training.callbacks import Callback
from nnbackend.training.interrupt import InterruptGuard
from nnbackend.training.optimizers import OPTIMIZERS, Optimizer
from nnbackend.training.schedules import AnySchedule

LEAST_ROWS, MOST_ROWS, STEPS = 32, 256, 8
# Epochs and learning rate / learning_rate_init that max_iter="auto" tries on the first fold, in
# turn, until the held-out loss no longer improves.
SCHEDULES = ((10, 0.4), (40, 0.7), (160, 1.0))
UNTRIED = 1  # of SCHEDULES, if no rows are held out
LEAST_SPLIT, LEAST_HELD = 10, 2  # rows to hold some out, and held-out rows
LEAST_CALIBRATED = 20  # held-out rows of each member, else probabilities stay as they are


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
    learning_rate_init: float = 0.005
    power_t: float = field(default=0.5, init=False)
    max_iter: Any = parameter("auto", StrOptions({"auto"}), base.AT_LEAST_1)
    tol: float = 0.0
    warm_start: bool = field(default=False, init=False)
    early_stopping: bool = True
    validation_fraction: float = 0.2
    beta_2: float = 0.95
    n_iter_no_change: float = 40
    max_fun: int = field(default=15000, init=False)
    dropout: float | Sequence[float] = 0.1
    weight_decay: float = 0.02
    schedule: str | AnySchedule | None = "cosine"
    monitor: str | None = "valid_loss"
    n_members: int = parameter(4, base.AT_LEAST_1)
    n_bins: int = parameter(24, base.AT_LEAST_1)
    bin_scale: float = parameter(1.0, base.ABOVE_0)

    _member: ClassVar[type[NetworkMLP]]

    def _target_scaler(self, y: np.ndarray) -> Scaler | None:
        """Return the scaler of the targets, or None."""
        return None

    # ---- the fit ----------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Data, y: Data, sample_weight: Weight = None, eval_set: EvalSet = None) -> Self:
        """Fit the encoder and the members to rows X (n, n_features) with targets y.

        X: an array, a sparse matrix, or a table, which may have text, dates and gaps.
        Each member holds out another fold of the rows; eval_set, (X, y) or (X, y, sample_weight),
        replaces these. Ctrl-C ends the fit and keeps the members that have completed an epoch.
        Raises: KeyboardInterrupt if no member has completed an epoch.
        """
        X, y, sample_weight = map(self._on_host, (X, y, sample_weight))
        features, coding = training_features(X, y, self._has_labels)
        rows, targets = self._fit_data(features, y, continues=False)
        targets = self._truth(self._coded(targets))  # labels: each member encodes them itself
        encoder = None if issparse(rows) else fit_piecewise(rows, self.n_bins, self.bin_scale)
        target_scaler = self._target_scaler(targets)
        self._inputs_dtype = str(self.dtype or "float32")
        if eval_set is not None:
            eval_set = self._encoded_set(eval_set, coding, encoder, target_scaler)
        data = Rows(
            self._encoded(encoder, rows), scaled_targets(target_scaler, targets),
            None if sample_weight is None
            else _check_sample_weight(sample_weight, rows, dtype=rows.dtype),
        )  # fmt: skip
        self._check_targets()
        members, held = self._fitted_members(data, eval_set)
        intervals = self._fitted_intervals(members, held, target_scaler)
        temperature = self._calibrated(members, held)
        threshold = self._fitted_threshold(members, held)
        best = min(members, key=loss_of)
        # All at once at the end: a failed fit keeps the members of the previous fit.
        fitted = {k: v for k, v in vars(best).items() if k.endswith("_") and k[0] != "_"}
        fitted |= {
            k: vars(self)[k] for k in ("n_features_in_", "feature_names_in_") if k in vars(self)
        }
        self.__dict__.pop("_packed", None)
        self.__dict__.update(fitted)
        self.estimators_, self.best_member_ = members, members.index(best)
        self.encoder_, self.target_scaler_ = encoder, target_scaler
        self.columns_, self.temperature_, self.intervals_ = coding, temperature, intervals
        self.threshold_ = threshold
        self._network()
        return self

    def rows_per_batch(self, n: int) -> int:
        """Return the rows of a batch of n training rows; "auto" is an eighth, from 32 to 256.

        So an epoch of a small table has several steps.
        """
        if self.batch_size == "auto":
            return min(n, max(LEAST_ROWS, min(MOST_ROWS, n // STEPS)))
        return int(self.batch_size)

    def _options(self, n: int) -> dict[str, Any]:
        """Return the parameters of the members."""
        options = {each.name: getattr(self, each.name) for each in fields(self._member)}
        return {**options, "batch_size": self.rows_per_batch(n)}

    def _fitted_members(
        self, data: Rows, eval_set: Any
    ) -> tuple[list[NetworkMLP], list[tuple[Any, ...]]]:
        """Return the members and the rows that each held out."""
        own = own_callbacks(self.callbacks, verbose=False)  # a member adds its own bar
        options, random = self._options(len(data.Y)), check_random_state(self.random_state)
        members, held = list[NetworkMLP](), list[tuple[Any, ...]]()
        parts = self._parts(data, eval_set, random)
        with InterruptGuard() as guard:  # between the members; a member's own covers its steps
            while len(members) < self.n_members and not guard.requested:
                options["random_state"] = int(random.randint(np.iinfo(np.int32).max))
                train, valid = next(parts)
                end = MemberEnd()
                if options["max_iter"] == "auto":
                    member = self._scheduled(options, train, valid, [*own, end])
                    options |= {k: getattr(member, k) for k in ("max_iter", "learning_rate_init")}
                else:
                    member = self._new_member(options, train, valid, [*own, end])
                guard.requested = guard.requested or end.is_interrupted
                if member.n_iter_ or not guard.requested:
                    members.append(member)
                    held.append(valid or ())
        if not members:
            raise KeyboardInterrupt
        return members, held

    def _scheduled(
        self, options: dict[str, Any], train: Rows, valid: Any, called: list[Callback]
    ) -> NetworkMLP:
        """Return the first member, with the number of epochs that suits the rows."""
        best = None
        for n_epochs, share in SCHEDULES if valid is not None else SCHEDULES[UNTRIED:][:1]:
            rate = share * self.learning_rate_init
            own = {**options, "max_iter": n_epochs, "learning_rate_init": rate}
            member = self._new_member(own, train, valid, called)
            if best is not None and not loss_of(member) < loss_of(best):
                break
            best = member
            if any(isinstance(each, MemberEnd) and each.is_interrupted for each in called):
                break
        assert best is not None
        return best

    def _new_member(
        self, options: dict[str, Any], train: Rows, valid: Any, called: list[Callback]
    ) -> NetworkMLP:
        member = self._member(**{**options, "callbacks": called})
        if valid is None:
            member.set_params(early_stopping=False)
        member.fit(train.X, train.Y, sample_weight=train.weight, eval_set=valid)
        member.set_params(callbacks=self.callbacks, early_stopping=self.early_stopping)
        return member

    def _parts(
        self, data: Rows, eval_set: Any, random: np.random.RandomState
    ) -> Iterator[tuple[Rows, tuple[Any, ...] | None]]:
        """Yield the training rows and the held-out set of each member, for ever."""
        n = len(data.Y)
        if eval_set is not None or not self.early_stopping or n < LEAST_SPLIT:
            yield from repeat((data, eval_set))
        weight = self._validation_weights(data)
        labels = data.Y if self._has_labels and data.Y.ndim == 1 else None
        for train, valid in folds(n, labels, self.validation_fraction, random):
            if len(valid) < LEAST_HELD:
                yield data, None
                continue
            held = data.take(valid)
            given = (held.X, held.Y) if weight is None else (held.X, held.Y, weight[valid])
            yield data.take(train), given

    def _validation_weights(self, data: Rows) -> np.ndarray | None:
        """Return the weights (n,) of the rows where they are held out, or None."""
        return data.weight

    def _fitted_intervals(
        self, members: list[NetworkMLP], held: list[tuple[Any, ...]], scaler: Scaler | None
    ) -> Intervals | None:
        """Return the intervals of values by the held-out rows, or None."""
        return None

    def _check_targets(self) -> None:
        """Raise ArgumentError for targets that the parameters do not suit."""

    def _fitted_threshold(
        self, members: list[NetworkMLP], held: list[tuple[Any, ...]]
    ) -> float | None:
        """Return the threshold of two classes, or None."""
        return None

    def _calibrated(self, members: list[NetworkMLP], held: list[tuple[Any, ...]]) -> float:
        """Calibrate the members' probabilities by held-out rows; return the temperature."""
        return 1.0

    def _encoded_set(
        self, eval_set: Any, coding: Any, encoder: Any, target_scaler: Scaler | None
    ) -> tuple[Any, ...]:
        base.check_eval_set(eval_set)
        X = self._new_rows(coded_rows(eval_set[0], coding), dtype=base.FLOATS)
        y, *weight = (self._on_host(part) for part in eval_set[1:])
        if target_scaler is not None:
            y = self._eval_targets(np.asarray(y))
            base.check_outputs(y, math.prod(y.shape[1:]), len(target_scaler.shift))
        return (self._encoded(encoder, X), scaled_targets(target_scaler, y), *weight)

    # ---- after the fit ----------------------------------------------------------------------

    def _network(self) -> Network:
        """Return the members as one network, built once."""
        key, net = getattr(self, "_packed", (None, None))
        if net is None or key != self.device:
            net = pack([member._network() for member in self.estimators_])
            self._packed = self.device, net
        return net

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_packed", None)  # it holds a device
        return state

    def _outputs(self, X: Data) -> np.ndarray:
        """Return the outputs (n, n_outputs) of rows X, in the targets' units."""
        rows, parts = self._checked_rows(X), []
        for start in range(0, max(1, rows.shape[0]), ROWS_AT_ONCE):
            part = self._encoded(self.encoder_, rows[start : start + ROWS_AT_ONCE])
            parts.append(self._network().outputs(base.engine_rows(part)))
        out: np.ndarray = np.concatenate(parts)
        return out if self.target_scaler_ is None else self.target_scaler_.inverse(out)

    @property
    def n_inputs_(self) -> int:
        """The number of inputs of the members: the features of the encoder."""
        check_is_fitted(self)
        return int(self.coefs_[0].shape[0])

    def _hidden(self, X: Data, layer: int) -> np.ndarray:
        rows = self._checked_rows(X)
        member = self.estimators_[self.best_member_]
        hidden: np.ndarray = member.transform(self._encoded(self.encoder_, rows), layer)
        return hidden.astype(rows.dtype)

    def _checked_rows(self, X: Data) -> Any:
        """Return the checked rows to predict for, as numbers."""
        check_is_fitted(self)
        rows = self._new_rows(coded_rows(self._on_host(X), self.columns_), dtype=base.FLOATS)
        return rows.toarray() if issparse(rows) and self.encoder_ is not None else rows

    def _encoded(self, encoder: PiecewiseEncoder | None, rows: Any) -> Any:
        """Return the members' inputs: sparse rows as they are, else in the dtype of the fit."""
        if encoder is None:
            return rows
        rows = rows.toarray() if issparse(rows) else rows
        return encoder.transform(rows, self._inputs_dtype)

    def to_model(self) -> Model:
        """Return the ensemble as one model, which takes raw rows.

        Its outputs are `predict_proba` of a classifier, (n, n_classes), and `predict` of a
        regressor. Save it with `save`, export it with `nnbackend.export`.
        Raises: ArgumentError for a classifier fitted to one class.
        """
        check_is_fitted(self)
        models = [model for member in self.estimators_ for model in member.to_models()]
        columns = columns_of(self) if self.columns_ is None else self.columns_
        known = replace(
            models[0].preprocessing, encoder=self.encoder_, target_scaler=self.target_scaler_,
            columns=with_labels(columns, models[0].classes), intervals=self.intervals_,
            threshold=self.threshold_,
        )  # fmt: skip
        # Calibration undoes label smoothing, so the model is evaluated without.
        networks = [model.network for model in models]
        loss = networks[0].loss.name if self._has_labels else None
        return Model.from_parts(pack(networks, loss), known)

    def to_models(self) -> list[Model]:
        """Return the list of `to_model` alone, for `nnbackend.export`."""
        return [self.to_model()]

    def set_params(self, **params: Any) -> Self:
        """Set parameters for the next fit; a new `device` moves a fitted ensemble as well."""
        super().set_params(**params)
        for member in getattr(self, "estimators_", ()) if "device" in params else ():
            member.set_params(device=params["device"])
        return self
