"""Common base of MLPClassifier and MLPRegressor: from parameters and data to a run of the Trainer.

A fitted estimator holds host arrays and plain records: `coefs_`, `intercepts_`, its hidden layers,
loss, output activation and dtype. A network on the device is built from them when needed. So an
estimator can be copied, pickled and sent to another process, users can set its weights, and a
parameter that is set later affects the next fit only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import sklearn.neural_network
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import TransformerTags, check_random_state
from sklearn.utils.validation import check_is_fitted

from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError, DivergedError, ShapeError
from nnbackend.estimators import fit_data
from nnbackend.estimators.building import (
    build_network,
    chosen_layers,
    draw_parameters,
    fitted_layers,
    hidden_layers,
)
from nnbackend.estimators.convergence import ConvergenceMonitor
from nnbackend.estimators.converting import as_models, from_theirs, to_theirs
from nnbackend.estimators.ensemble import fit_ensemble, mean_outputs
from nnbackend.estimators.fit_data import FitData, dtype_on_device
from nnbackend.estimators.fit_tasks import CallbackSupportMixin, fit_tasks
from nnbackend.estimators.hidden import hidden_activations
from nnbackend.estimators.lbfgs import fit_lbfgs
from nnbackend.estimators.parameters import CONSTRAINTS
from nnbackend.estimators.progress import ProgressBar
from nnbackend.estimators.steps import SolverState, make_rule
from nnbackend.model.model import Model
from nnbackend.network.layers import AbstractLayer, Dropout
from nnbackend.network.network import Network
from nnbackend.persistence.checkpoints import Checkpoints
from nnbackend.training.api import new_trainer
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.loop import Trainer
from nnbackend.training.optimizers import Optimizer

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)
AFTER_ENSEMBLE = (
    "Only a fit without preset can be continued. Received: an estimator fitted with a preset, "
    "whose weights belong to scaled rows. Set warm_start=False and call fit to start again."
)


class BaseMLP(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Base class of both estimators; subclasses define targets, output and loss."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS

    _is_member = False  # of an ensemble, whose members train for all epochs
    loss_curve_: list[float]
    validation_scores_: Any  # a list of numbers, or None; so the three below
    validation_loss_curve_: Any
    best_validation_score_: Any
    best_validation_loss_: Any

    # ---- the fit ----------------------------------------------------------------------------

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool = False
    ) -> Any:
        if incremental:
            self._validate_params()  # which scikit-learn leaves out after the first call
        hidden_layers(self.hidden_layer_sizes)
        X, y, sample_weight = (fit_data.on_host(self, part) for part in (X, y, sample_weight))
        if self.preset is not None:
            fit_ensemble(self, X, y, sample_weight, eval_set)
            return self
        first_pass = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        if not first_pass and hasattr(self, "estimators_"):
            raise ArgumentError(AFTER_ENSEMBLE)
        tasks = [] if self.solver == "lbfgs" else fit_tasks(self, X, y, sample_weight)
        X, y, classes_weight = self._validate_input(X, y, incremental, reset=first_pass)
        data = fit_data.fit_data(self, X, y, sample_weight, classes_weight, eval_set)
        self._random_state = check_random_state(self.random_state)
        self._forget_ensemble()
        net = self._build(data, first_pass)
        if first_pass:
            self._initialize(net)
        net.set_parameters(self.coefs_, self.intercepts_)
        if self.solver == "lbfgs":
            fit_lbfgs(self, net, data, self._train_config(net, data))
            self._keep_parameters(net)
        else:
            self._fit_stochastic(net, data, incremental, tasks)
        if not all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_)):
            raise ValueError(NOT_FINITE)
        return self

    def _forget_ensemble(self) -> None:
        """Delete the attributes of an earlier fit with a preset."""
        for name in ("estimators_", "scaler_", "target_scaler_", "best_member_"):
            self.__dict__.pop(name, None)

    def _target_scaler(self, y: np.ndarray) -> Scaler | None:
        """Return the target scaler for the members of an ensemble, or None."""
        return None

    def _build(self, data: FitData, first_pass: bool) -> Network:
        """Return the network to train. A continued fit keeps its layers, output and dtype."""
        loss, output = self._loss(), self._output()
        if not first_pass:
            self._know_layers()
        if first_pass:
            self.n_outputs_, self.out_activation_ = data.n_outputs, output
            self._hidden_layers = chosen_layers(self)
            self._dtype = str(self.dtype or data.dtype)
        elif data.n_outputs != self.n_outputs_:
            raise ShapeError(
                f"y must have {self.n_outputs_} column(s), as in the fit that is continued. "
                f"Received: {data.n_outputs}. Set warm_start=False and call fit to start again."
            )
        elif output != self.out_activation_:
            raise ArgumentError(
                f"A continued fit keeps its output activation, {self.out_activation_!r}. "
                f"Received: a loss that needs {output!r}. Keep the loss, or set warm_start=False "
                "and call fit to start again."
            )
        self._fitted_loss = loss
        return self._new_network(self.n_features_in_, self._hidden_layers, self.dropout)

    def _initialize(self, net: Network) -> None:
        """Draw the weights, and clear the curves if the solver has any."""
        self.n_iter_ = self.t_ = 0
        self.coefs_, self.intercepts_ = draw_parameters(self, net, self._random_state)
        self.n_layers_ = len(self.coefs_) + 1
        if self.solver != "lbfgs":
            self._begin_curves()

    def _begin_curves(self) -> None:
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_ = self.best_validation_score_ = None
        self.validation_loss_curve_ = self.best_validation_loss_ = None
        parts = [*self.coefs_, *self.intercepts_]
        self._best_theta = np.concatenate([part.ravel() for part in parts])

    def _fit_stochastic(
        self, net: Network, data: FitData, incremental: bool, tasks: list[Callback]
    ) -> None:
        is_new = not incremental or not hasattr(self, "_optimizer")
        if is_new:
            self._optimizer = self._new_state()
        if not hasattr(self, "loss_curve_"):  # the previous fit used lbfgs
            self._begin_curves()
        if self.early_stopping and incremental and data.validation is None:
            raise ValueError(
                "partial_fit does not support early_stopping=True without an eval_set."
            )
        if self.ema and incremental:
            raise ValueError("partial_fit does not support ema, an average over one whole fit.")
        data = fit_data.split_off(self, data) if self.early_stopping else data
        self._begin_validation(data)
        held = data.validation
        score = None if held is None else partial(self._validation_score, net, held)
        watch = ConvergenceMonitor(self, score, self._loss_share(), one_epoch=incremental)
        trainer = new_trainer(
            net, data.X, data.y, self._train_config(net, data),
            sample_weight=data.weight,
            validation=None if held is None else held.for_trainer,
            callbacks=[watch, *tasks, *self._own_callbacks()],
        )  # fmt: skip
        self._optimizer.resume(trainer)
        self.n_iter_ = 0
        self._run(trainer)
        self._optimizer.keep(trainer)
        self.converged_ = watch.has_converged
        if self.early_stopping and (self.converged_ or not incremental):
            best = self._best_theta.astype(net.dtype, copy=False)
            net.backend.to_device(best, out=net.theta)
        self._keep_parameters(net)

    def _run(self, trainer: Trainer) -> None:
        """Run the trainer, and warn if it was interrupted or did not converge."""
        self._stop_reason = "diverged"
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                self._stop_reason = reason = trainer.run().stop_reason
        except DivergedError as error:
            if not self.early_stopping:
                raise ValueError(NOT_FINITE) from error
            self.validation_scores_.append(np.nan)
            warnings.warn(f"{error} {NOT_FINITE}", ConvergenceWarning, stacklevel=5)
            return
        if reason == "interrupted":
            warnings.warn("Training interrupted by user.", stacklevel=5)
        elif reason == "epochs" and not self._is_member:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _own_callbacks(self) -> list[Callback]:
        given: Any = () if self.callbacks is None else self.callbacks
        own = list(given) if isinstance(given, (list, tuple)) else [given]
        if not all(isinstance(c, Callback) and not isinstance(c, Checkpoints) for c in own):
            raise ArgumentError(
                "callbacks must be nnbackend.Callback objects. Only nn.train takes Checkpoints. "
                f"Received: callbacks={self.callbacks!r}. "
                "To stop early, set early_stopping=True."
            )
        return [*own, ProgressBar()] if self.verbose == "bar" else own

    def _new_state(self) -> SolverState:
        solver = self.solver
        base = solver.learning_rate if isinstance(solver, Optimizer) else self.learning_rate_init
        mode = self.learning_rate if self.solver == "sgd" else "constant"
        return SolverState(float(base), mode, float(self.power_t))

    def _begin_validation(self, data: FitData) -> None:
        if data.validation is not None and self.validation_scores_ is None:
            self.validation_scores_, self.validation_loss_curve_ = [], []
            self.best_validation_score_ = -np.inf
            self.best_validation_loss_ = np.inf

    def _train_config(self, net: Network, data: FitData) -> TrainConfig:
        """Return the options of the run."""
        n, shuffles = data.n, self.shuffle
        order = [np.arange(n)]

        def next_order(epoch: int) -> np.ndarray:
            # Each epoch shuffles the order of the last one; the numbers are those of
            # sklearn.utils.shuffle, whose checks take longer than a step of a small network.
            if shuffles:
                moves = np.arange(n)
                self._random_state.shuffle(moves)
                order[0] = order[0][moves]
            return order[0]

        mean = 1.0 if data.weight is None else float(np.mean(data.weight, dtype=np.float64))
        return TrainConfig(
            optimizer=LBFGS() if self.solver == "lbfgs" else make_rule(self),
            epochs=self.max_iter,
            batch_size=self._rows_per_batch(n),
            shuffle=next_order,
            l1=float(self.l1),
            weight_decay=float(self.weight_decay),
            max_norm=self.max_norm,
            clip_norm=self.clip_norm,
            ema=self.ema,
            schedule=self._schedule(),
            seed=self._mask_seed(net),
            # With weights scikit-learn divides by a batch's own sum of weights; this is its mean.
            l2_per_batch=float(self.alpha) / mean if self.alpha else 0.0,
        )

    def _schedule(self) -> Any:
        if self.schedule is not None or self.solver == "lbfgs":
            return self.schedule
        return self._optimizer

    def _mask_seed(self, net: Network) -> int:
        """Return the seed of the dropout masks, drawn in the solver's first run."""
        if self.solver == "lbfgs" or not any(isinstance(la, Dropout) for la in net.layers):
            return 0
        if self._optimizer.seed is None:
            self._optimizer.seed = int(self._random_state.randint(np.iinfo(np.int32).max))
        return int(self._optimizer.seed)

    def _rows_per_batch(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=6,
            )
        return min(int(self.batch_size), n)

    def _keep_parameters(self, net: Network) -> None:
        self.coefs_, self.intercepts_ = net.get_parameters()
        self._built = self._key(), net

    # ---- after the fit ----------------------------------------------------------------------

    def set_params(self, **params: Any) -> Any:
        """Set parameters for the next fit; a new `device` moves a fitted estimator as well."""
        super().set_params(**params)
        for member in getattr(self, "estimators_", ()) if "device" in params else ():
            member.set_params(device=params["device"])
        return self

    def _new_network(
        self, n_in: int, hidden: Sequence[AbstractLayer], dropout: Any = 0.0
    ) -> Network:
        return build_network(
            n_in, hidden, (self.n_outputs_, self.out_activation_), self._fitted_loss,
            device=self.device, dtype=dtype_on_device(self), dropout=dropout,
        )  # fmt: skip

    def _know_layers(self) -> None:
        """Derive the layers of weights that were set without a fit from the parameters."""
        if not hasattr(self, "_hidden_layers"):
            self._hidden_layers, self._fitted_loss = chosen_layers(self), self._loss()
            self._dtype = str(self.dtype or self.coefs_[0].dtype)

    def _key(self) -> tuple[Any, ...]:
        """Return the cache key of the network; a different key means a new network."""
        return self.device, self.out_activation_, *(W.shape for W in self.coefs_)

    def _network(self) -> Network:
        """Return a network with the fitted weights, built once; the weights are set each time.

        So changes of `coefs_` take effect. Of the parameters only `device` is read.
        """
        check_is_fitted(self)
        self._know_layers()
        key, net = getattr(self, "_built", (None, None))
        if net is None or key != self._key():
            hidden = fitted_layers(self._hidden_layers, self.coefs_[:-1])
            net = self._new_network(self.coefs_[0].shape[0], hidden)
            self._built = self._key(), net
        net.set_parameters(self.coefs_, self.intercepts_)
        return net

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the output activations (n, n_outputs) of rows X."""
        if hasattr(self, "estimators_"):
            return mean_outputs(self, X)
        net = self._network()
        return net.outputs(fit_data.prediction_rows(self, X))

    @property
    def _n_features_out(self) -> int:
        return int(self.coefs_[-1].shape[0])

    def transform(self, X: Any, layer: int = -1) -> np.ndarray:
        """Return the activations of a hidden layer for rows X: (n, units), by default the last's.

        layer counts the hidden layers that learn, from 0.
        """
        found: np.ndarray = hidden_activations(self, X, layer)
        return found

    def _score_of(self, net: Network, rows: Any, metric: Any) -> float:
        """Return a metric on validation rows, NaN if the network's outputs are not finite."""
        out = net.outputs(rows.X)
        if not np.isfinite(out).all():
            return float("nan")
        return float(metric(rows.truth, self._decoded(out), sample_weight=rows.weight))

    def _set(self, arguments: dict[str, Any]) -> None:
        """Store the constructor's arguments as attributes, unchecked, as scikit-learn requires.

        scikit-learn and editors read the parameters from each class's own constructor. So both
        classes list all of them, and a test compares the two lists.
        """
        for name, value in arguments.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    @classmethod
    def from_sklearn(cls, model: Any) -> Any:
        """Return an estimator with the parameters and the fit of a scikit-learn estimator.

        A later partial_fit starts with a new optimizer state.
        """
        return from_theirs(cls, model)

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with this fit, for programs that require its class.

        Raises: ArgumentError for activations, layers or a loss that scikit-learn lacks.
        """
        check_is_fitted(self)
        self._know_layers()
        return to_theirs(getattr(sklearn.neural_network, type(self).__name__), self)

    def to_models(self) -> list[Model]:
        """Return the fit as models, which take raw rows: one, or an ensemble's members.

        Their mean output is `predict_proba` of a classifier, (n, n_classes), and `predict` of a
        regressor. `nnbackend.export` writes them as one ONNX model.
        Raises: ArgumentError for a classifier fitted to one class.
        """
        check_is_fitted(self)
        self._know_layers()
        return as_models(self)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_built", None)  # it holds a device
        return state

    def __sklearn_is_fitted__(self) -> bool:
        """Return True if there are weights; a failed fit may leave other attributes."""
        return hasattr(self, "coefs_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        return tags
