"""The fit of one network: from parameters and data to a specification, and to its solver."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, validation

from nnbackend.config import UpdateOptions
from nnbackend.data.sparse import SparseRows
from nnbackend.errors import ArgumentError, DivergedError, ShapeError
from nnbackend.estimators import base, callbacks, solvers
from nnbackend.estimators.base import Data, EvalSet, Weight
from nnbackend.estimators.networks import FittedMLP, draw_parameters, listed_units
from nnbackend.network.layers import Dropout
from nnbackend.network.network import Network
from nnbackend.options import table
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.loop import Trainer
from nnbackend.training.optimizers import OPTIMIZERS, SGD, AdamW, Optimizer

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)


@dataclass(frozen=True)
class Rows:
    """Checked rows X (n, n_features), coded targets Y (n, n_outputs), weights (n,) or None."""

    X: np.ndarray | SparseRows
    Y: np.ndarray
    weight: np.ndarray | None

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows at some indices."""
        X = self.X.take(index) if isinstance(self.X, SparseRows) else self.X[index]
        return Rows(X, self.Y[index], None if self.weight is None else self.weight[index])


def has_partial_fit(estimator: NetworkMLP) -> bool:
    """Return True if the solver trains in epochs; scikit-learn shows the error as the cause."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "solver='lbfgs' takes all rows at once. Use fit, or another solver, such as 'adam'."
        )
    return True


class NetworkMLP(callbacks.CallbackSupportMixin, FittedMLP):
    """The fit of one network, with scikit-learn's numbers. MLPClassifier and MLPRegressor."""

    _metric: ClassVar[Callable[..., float]]  # scikit-learn's, for the score of held-out rows

    @callbacks.with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Data, y: Data, sample_weight: Weight = None, eval_set: EvalSet = None) -> Self:
        """Fit to rows X (n, n_features) with targets y.

        y: labels (n,), or (n, n_labels) of 0 and 1; values (n,) or (n, n_outputs).
        eval_set: (X, y) or (X, y, sample_weight) for validation and early stopping.
        """
        return self._fit(X, y, sample_weight, eval_set)

    def _fit(
        self, X: Data, y: Data, weight: Weight, eval_set: EvalSet, incremental: bool = False
    ) -> Self:
        if incremental:
            self._validate_params()  # which scikit-learn leaves out after the first call
        listed_units(self.hidden_layer_sizes)
        X, y, weight = map(self._on_host, (X, y, weight))
        continues = self.warm_start or incremental
        is_first = not (continues and hasattr(self, "coefs_"))
        called = self._callbacks(X, y, weight)
        data = self._training_rows(X, y, weight, continues)
        held = None if eval_set is None else self._validation_rows(eval_set, data.Y.shape[1])
        self._random_state = check_random_state(self.random_state)
        net = self._start(data, is_first)
        if self.solver == "lbfgs":
            self._fit_lbfgs(net, data, held)
        else:
            self._fit_stochastic(net, data, held, is_first, incremental, called)
        self.coefs_, self.intercepts_ = net.get_parameters()
        self._built = self._key(), net
        if not all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_)):
            raise ValueError(NOT_FINITE)
        return self

    # ---- data -------------------------------------------------------------------------------

    def _training_rows(self, X: Any, y: Any, weight: Any, continues: bool) -> Rows:
        X, y = self._fit_data(X, y, continues)
        by_class, Y = self._class_weights(y), self._coded(y)
        if weight is not None:
            weight = validation._check_sample_weight(weight, X, dtype=X.dtype)
        if by_class is not None:
            by_class = by_class.astype(X.dtype)
            weight = by_class if weight is None else weight * by_class
        return Rows(base.engine_rows(X), Y.reshape(-1, 1) if Y.ndim == 1 else Y, weight)

    def _class_weights(self, y: np.ndarray) -> np.ndarray | None:
        """Return the weights (n,) of the labels' classes, or None."""
        return None

    def _validation_rows(self, eval_set: Any, n_outputs: int) -> Rows:
        """Return the checked eval_set; it must have as many outputs as the training rows."""
        base.check_eval_set(eval_set)
        X = self._new_rows(eval_set[0])
        y, *weight = (self._on_host(part) for part in eval_set[1:])
        y = validation.check_array(y, ensure_2d=False, dtype=None, input_name="y of eval_set")
        validation.check_consistent_length(X, y)
        Y = self._eval_targets(validation.column_or_1d(y) if y.ndim == 2 and y.shape[1] == 1 else y)
        Y = Y.reshape(-1, 1) if Y.ndim == 1 else Y
        base.check_outputs(y, Y.shape[1], n_outputs)
        w = validation._check_sample_weight(weight[0], X) if weight else None
        return Rows(base.engine_rows(X), Y, w)

    def _split(self, data: Rows) -> tuple[Rows, Rows]:
        """Hold out the rows that scikit-learn holds out for the same random_state."""
        train, held = train_test_split(
            np.arange(len(data.Y)), test_size=self.validation_fraction,
            stratify=data.Y if self._has_labels and data.Y.shape[1] == 1 else None,
            random_state=self._random_state,
        )  # fmt: skip
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return data.take(train), data.take(held)

    # ---- the network ------------------------------------------------------------------------

    def _start(self, data: Rows, is_first: bool) -> Network:
        """Return the network to train. A continued fit keeps its layers, output and dtype."""
        n_outputs, output, loss = data.Y.shape[1], self._output(), self._loss()
        if is_first:
            dtype = "float32" if data.X.dtype == np.float32 else "float64"
            self._fitted_architecture = self._chosen(dtype)
            self.n_outputs_, self.out_activation_ = n_outputs, output
        elif n_outputs != self.n_outputs_:
            raise ShapeError(
                f"y must have {self.n_outputs_} column(s), as in the fit that is continued. "
                f"Received: {n_outputs}. Set warm_start=False and call fit to start again."
            )
        elif output != self.out_activation_:
            raise ArgumentError(
                f"A continued fit keeps its output activation, {self.out_activation_!r}. "
                f"Received: a loss that needs {output!r}. Keep the loss, or set warm_start=False "
                "and call fit to start again."
            )
        self._fitted_architecture = replace(self._architecture(), loss=loss)
        net = self._fitted_architecture.network(
            self.n_features_in_, (n_outputs, output), self, with_dropout=True
        )
        if is_first:
            self.n_iter_ = self.t_ = 0
            self.coefs_, self.intercepts_ = draw_parameters(
                net, self.hidden_layer_sizes, self.activation, self._random_state
            )
            self.n_layers_ = len(self.coefs_) + 1
        net.set_parameters(self.coefs_, self.intercepts_)
        return net

    # ---- the solvers ------------------------------------------------------------------------

    def _spec(
        self, net: Network, data: Rows, held: Rows | None, incremental: bool = False
    ) -> solvers.FitSpec:
        valid, score = None, None
        if held is not None:
            valid = held.X, self._engine_targets(held.Y), held.weight
            score = partial(self._score_of, self._truth(held.Y), held.weight)
        return solvers.FitSpec(
            data.X, self._engine_targets(data.Y), data.weight, valid, score,
            config=self._train_config(net, data), loss_share=self._loss_share(),
            is_one_epoch=incremental, early_stopping=self.early_stopping, monitor=self.monitor,
            tol=self.tol, n_iter_no_change=self.n_iter_no_change, max_fun=self.max_fun,
            verbose=bool(self.verbose) and (self.verbose != "bar" or self.solver == "lbfgs"),
        )  # fmt: skip

    def _loss_share(self) -> float:
        """Return the factor to scikit-learn's loss, which averages over a regression's outputs."""
        return 1.0

    def _score_of(self, truth: np.ndarray, weight: np.ndarray | None, out: np.ndarray) -> float:
        """Return scikit-learn's metric of outputs, NaN if they are not finite."""
        if not np.isfinite(out).all():
            return np.nan
        return self._metric(truth, self._decoded(out), sample_weight=weight)

    def _callbacks(self, X: Any, y: Any, weight: Any) -> list[Callback]:
        """Return the callbacks of a fit: scikit-learn's, and those of the parameters."""
        if self.solver == "lbfgs":
            return []
        own = callbacks.own_callbacks(self.callbacks, self.verbose)
        if not hasattr(self, "_skl_callbacks"):
            return own
        context = self._init_callback_context(max_subtasks=self.max_iter)
        metadata = None if weight is None else {"sample_weight": weight}
        known = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        return [callbacks.FitTasks(context, known), *own]

    def _fit_lbfgs(self, net: Network, data: Rows, held: Rows | None) -> None:
        given = ["callbacks"] if self.callbacks else []
        given += ["eval_set"] if held is not None else []
        if given:
            raise ArgumentError(
                "callbacks and eval_set need a solver with epochs, such as 'adam'. "
                f"Received: solver='lbfgs' with {' and '.join(given)}. Remove one of them."
            )
        best = solvers.minimise(net, self._spec(net, data, None))
        self.n_iter_, self.loss_ = best.n_iter, best.loss

    def _fit_stochastic(
        self, net: Network, data: Rows, held: Rows | None, is_first: bool, incremental: bool,
        called: list[Callback],
    ) -> None:  # fmt: skip
        if incremental and self.early_stopping and held is None:
            raise ValueError(
                "partial_fit does not support early_stopping=True without an eval_set."
            )
        if incremental and self.ema:
            raise ValueError("partial_fit does not support ema, an average over one whole fit.")
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = self._new_state()
        if self.early_stopping and held is None:
            data, held = self._split(data)
        spec = self._spec(net, data, held, incremental)
        is_new = is_first or not hasattr(self, "loss_curve_")  # the earlier fit may be lbfgs's
        theta = np.concatenate([part.ravel() for part in (*self.coefs_, *self.intercepts_)])
        curves = solvers.Curves.of({} if is_new else self.__dict__, theta)
        watch = solvers.ConvergenceMonitor(spec, curves, self._optimizer)
        trainer = spec.trainer(net, [watch, *called])
        self._optimizer.resume(trainer)
        try:
            self._run(trainer, curves)
        finally:
            self.__dict__.update(curves.attributes())
        self._optimizer.keep(trainer)
        if self.early_stopping and (self.converged_ or not incremental):
            best = self._best_theta.astype(net.dtype, copy=False)
            net.backend.to_device(best, out=net.theta)

    def _run(self, trainer: Trainer, curves: solvers.Curves) -> None:
        """Run the trainer, and warn if it was interrupted or did not converge."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                reason = trainer.run().stop_reason
        except DivergedError as error:
            if not self.early_stopping:
                raise ValueError(NOT_FINITE) from error
            curves.validation_scores_.append(np.nan)
            warnings.warn(f"{error} {NOT_FINITE}", ConvergenceWarning, stacklevel=5)
            return
        if reason == "interrupted":
            warnings.warn("Training interrupted by user.", stacklevel=5)
        elif reason == "epochs":
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=5,
            )

    # ---- options of the run -----------------------------------------------------------------

    def _train_config(self, net: Network, data: Rows) -> TrainConfig:
        n, weight = len(data.Y), data.weight
        mean = 1.0 if weight is None else float(np.mean(weight, dtype=np.float64))
        is_full = self.solver == "lbfgs"
        own: dict[str, Any] = {name: getattr(self, name) for name in table(UpdateOptions)}
        if not is_full and self.schedule is None:
            own["schedule"] = self._optimizer
        return TrainConfig(
            **own,
            optimizer=LBFGS() if is_full else self._rule(),
            epochs=self.max_iter,
            batch_size=self._rows_per_batch(n),
            shuffle=partial(self._next_order, np.arange(n)),
            seed=0 if is_full else self._mask_seed(net),
            # With weights scikit-learn divides by a batch's own sum of weights; this is its mean.
            l2_per_batch=float(self.alpha) / mean if self.alpha else 0.0,
        )

    def _next_order(self, order: np.ndarray, epoch: int) -> np.ndarray:
        """Return the order of the rows; each epoch shuffles that of the last one, in place.

        The numbers are those of sklearn.utils.shuffle, whose checks take longer than a step of a
        small network.
        """
        if self.shuffle:
            moves = np.arange(len(order))
            self._random_state.shuffle(moves)
            order[:] = order[moves]
        return order.copy()

    def _rows_per_batch(self, n: int) -> int:
        if not isinstance(self.batch_size, str) and self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=7,
            )
        return min(200 if isinstance(self.batch_size, str) else int(self.batch_size), n)

    def _mask_seed(self, net: Network) -> int:
        """Return the seed of the dropout masks, drawn in the solver's first run."""
        if not any(isinstance(layer, Dropout) for layer in net.layers):
            return 0
        if self._optimizer.seed is None:
            self._optimizer.seed = int(self._random_state.randint(np.iinfo(np.int32).max))
        return self._optimizer.seed

    def _new_state(self) -> solvers.SolverState:
        solver = self.solver
        rate = solver.learning_rate if isinstance(solver, Optimizer) else self.learning_rate_init
        mode = self.learning_rate if solver == "sgd" else "constant"
        return solvers.SolverState(float(rate), mode, float(self.power_t))

    def _rule(self) -> Optimizer:
        """Return the update rule that the parameters ask for."""
        solver, rate = self.solver, float(self.learning_rate_init)
        if isinstance(solver, Optimizer):
            return solver
        if solver == "sgd":
            return SGD(rate, float(self.momentum), self.nesterovs_momentum)
        betas = {"beta1": float(self.beta_1), "beta2": float(self.beta_2)}
        if solver == "adam":
            return solvers.AdamEpsilonHat(rate, **betas, eps=float(self.epsilon))
        if solver == "adamw":
            return AdamW(rate, **betas, eps=float(self.epsilon), weight_decay=0.0)
        return OPTIMIZERS[solver](learning_rate=rate)
