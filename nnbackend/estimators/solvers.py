"""scikit-learn's solvers on the engine: update rules, step sizes, convergence, and SciPy's L-BFGS.

They take the specification of a fit, not the estimator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from nnbackend.backend.base import PENALTY
from nnbackend.backend.formulas import Array
from nnbackend.data.sparse import SparseRows
from nnbackend.errors import ArgumentError
from nnbackend.network.evaluation.passes import ROWS_AT_ONCE
from nnbackend.network.network import Network
from nnbackend.training.api import new_trainer
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.history import Row
from nnbackend.training.loop import Trainer
from nnbackend.training.optimizers import Adam, Optimizer, Vectors
from nnbackend.training.run import Run
from nnbackend.training.schedules import Numbers, Schedule, ScheduleContext

SMALLEST_RATE = 1e-6  # where "adaptive" stops
Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class FitSpec:
    """One fit of a network: what is trained, on what, and when it ends.

    x, y, weight: rows, targets and weights as the Trainer takes them.  validation: the same of the
    held-out rows.  score: returns scikit-learn's score of outputs for these.
    loss_share: factor from our loss to scikit-learn's, which averages over outputs.
    is_one_epoch: as partial_fit asks for.  The others are the estimator's parameters.
    """

    x: np.ndarray | SparseRows
    y: np.ndarray
    weight: np.ndarray | None
    validation: tuple[np.ndarray | SparseRows, np.ndarray, np.ndarray | None] | None
    score: Callable[[np.ndarray], float] | None
    config: TrainConfig
    loss_share: float
    is_one_epoch: bool
    early_stopping: bool
    monitor: str | None
    tol: float
    n_iter_no_change: float
    max_fun: int
    verbose: bool

    def trainer(self, net: Network, callbacks: list[Callback]) -> Trainer:
        """Return the trainer of the fit."""
        return new_trainer(
            net, self.x, self.y, self.config,
            sample_weight=self.weight, validation=self.validation, callbacks=callbacks,
        )  # fmt: skip


# ---- stochastic solvers -------------------------------------------------------------------------


@dataclass(frozen=True)
class AdamEpsilonHat(Adam):
    """Adam with epsilon added to the uncorrected root, as in scikit-learn and Keras.

        theta -= eta sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)

    Source: Kingma and Ba 2014, the remark before section 2.1.
    """

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> Vectors:
        correction = (1.0 - self.beta2**step) ** 0.5 / (1.0 - self.beta1**step)
        return lr * correction, 1.0 + 0.0 * step


@dataclass
class SolverState(Schedule):
    """The state of a solver: its learning rate, and the optimizer state between runs.

    The state is host arrays, so that an estimator can be copied and pickled without its device.
    As a schedule it returns the learning rate of the epoch, set by `end_epoch` and `slow_down`.
    seed: of the dropout masks, drawn once, so that later calls continue the sequence.
    rule: the name of the update rule of these vectors.
    """

    base: float
    mode: str = "constant"
    power: float = 0.5
    learning_rate: float = 0.0
    steps: int = 0
    seed: int | None = None
    rule: str = ""
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.learning_rate = float(self.base)

    def factor(self, when: ScheduleContext) -> Numbers:
        return np.full_like(when.step, self.learning_rate / self.base)

    def end_epoch(self, rows_seen: int) -> None:
        """Set the rate of the next epoch after t rows in total."""
        if self.mode == "invscaling":
            with np.errstate(over="ignore"):  # a very large power makes the rate 0
                falling = np.float64(rows_seen + 1) ** self.power
            self.learning_rate = float(self.base / falling)

    def slow_down(self) -> bool:
        """Divide an adaptive rate by 5; return False if it is at its minimum."""
        if self.mode != "adaptive" or self.learning_rate <= SMALLEST_RATE:
            return False
        self.learning_rate /= 5.0
        return True

    def resume(self, trainer: Run) -> None:
        """Load an earlier run's state into a new trainer.

        Raises: ArgumentError for another update rule.
        """
        own = _rule_name(trainer.config.optimizer)
        if self.rule not in ("", own):
            raise ArgumentError(
                f"partial_fit must keep the solver of the first call, {self.rule}. "
                f"Received: {own}. Call fit to start again (warm_start=True keeps the weights)."
            )
        state, net = trainer.state, trainer.net
        state.first_step = self.steps
        for name in self.vectors.keys() & state.optimizer.keys():  # SGD's depends on its momentum
            vector = self.vectors[name].astype(net.dtype, copy=False)
            net.backend.to_device(vector, out=state.optimizer[name])

    def keep(self, trainer: Run) -> None:
        """Store the state of a trainer after its run."""
        self.steps = trainer.state.steps_done
        self.rule = _rule_name(trainer.config.optimizer)
        to_host = trainer.net.backend.to_host
        self.vectors = {name: to_host(v) for name, v in trainer.state.optimizer.items()}


def _rule_name(rule: Optimizer) -> str:
    """Return the name of an update rule for messages."""
    kind = Adam if isinstance(rule, AdamEpsilonHat) else type(rule)
    return kind.__name__.lower()


@dataclass
class Curves:
    """What a fit keeps of its epochs; the names are those of the estimator's attributes."""

    _best_theta: np.ndarray
    n_iter_: int = 0
    t_: int = 0
    loss_: float = math.nan
    loss_curve_: list[float] = field(default_factory=list)
    best_loss_: float = math.inf
    validation_scores_: list[float] = field(default_factory=list)
    validation_loss_curve_: list[float] = field(default_factory=list)
    best_validation_score_: float = -math.inf
    best_validation_loss_: float = math.inf
    converged_: bool = False
    _no_improvement_count: int = 0

    @classmethod
    def of(cls, earlier: dict[str, Any], theta: np.ndarray) -> Curves:
        """Return the curves to continue. earlier: attributes; None counts as absent."""
        names = {each.name for each in fields(cls)} - {"n_iter_", "converged_"}
        kept = {k: v for k, v in earlier.items() if k in names and v is not None}
        return cls(**{"_best_theta": theta, **kept})

    def attributes(self) -> dict[str, Any]:
        """Return the attributes: None without validation rows, or without a best training loss."""
        unset = set() if self.validation_scores_ else {n for n in vars(self) if "validation" in n}
        unset |= {"best_loss_"} if self.best_loss_ == math.inf else set()
        return {**vars(self), **dict.fromkeys(unset)}


class ConvergenceMonitor(Callback):
    """Adds each epoch to the curves, and decides when the fit has converged."""

    def __init__(self, spec: FitSpec, curves: Curves, solver: SolverState) -> None:
        self.spec, self.curves, self.solver = spec, curves, solver

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Record the epoch; return True to stop training."""
        c, spec, n = self.curves, self.spec, len(trainer.data.rows)
        c.n_iter_ += 1
        c.t_ += n
        penalty = float(trainer.net.backend.to_host(trainer.state.sums.totals)[PENALTY]) / n
        c.loss_ = spec.loss_share * row["train_loss"] + penalty
        c.loss_curve_.append(c.loss_)
        self._print(f"Iteration {c.n_iter_}, loss = {c.loss_:.8f}")
        if spec.validation is not None and spec.score is not None:
            out = trainer.net.outputs(spec.validation[0], theta=trainer.state.ema_weights)
            self._add_validation(trainer, spec.score(out), spec.loss_share * row["valid_loss"])
        if not spec.early_stopping:
            self._count(-c.loss_, -c.best_loss_)
            c.best_loss_ = min(c.best_loss_, c.loss_)
        self.solver.end_epoch(c.t_)
        c.converged_ = self._is_enough()
        return c.converged_ or spec.is_one_epoch

    def _add_validation(self, trainer: Run, score: float, loss: float) -> None:
        """Record a validation; with early stopping keep the weights of the best epoch."""
        c = self.curves
        c.validation_scores_.append(score)
        c.validation_loss_curve_.append(loss)
        self._print(f"Validation score: {score:f}")
        if not self.spec.early_stopping:
            return
        by_loss = self.spec.monitor == "valid_loss"
        best = -c.best_validation_loss_ if by_loss else c.best_validation_score_
        value = -loss if by_loss else score
        self._count(value, best)
        if value > best:
            c._best_theta = trainer.net.backend.to_host(trainer.state.weights)
        if not score <= c.best_validation_score_:
            c.best_validation_score_ = score
        c.best_validation_loss_ = min(c.best_validation_loss_, loss)

    def _count(self, value: float, best: float) -> None:
        """Count the epochs without improvement; a larger value is better."""
        waits = value < best + self.spec.tol
        self.curves._no_improvement_count = self.curves._no_improvement_count + 1 if waits else 0

    def _is_enough(self) -> bool:
        """Return True to stop; an adaptive learning rate is reduced first."""
        spec, solver = self.spec, self.solver
        if self.curves._no_improvement_count <= spec.n_iter_no_change:
            return False
        what = "Validation score" if spec.early_stopping else "Training loss"
        goes_on = solver.slow_down()
        if goes_on:
            self.curves._no_improvement_count = 0
            end = f"Setting learning rate to {solver.learning_rate:f}"
        elif solver.mode == "adaptive":
            end = "Learning rate too small. Stopping."
        else:
            end = "Stopping."
        self._print(
            f"{what} did not improve more than tol={spec.tol:f} for {spec.n_iter_no_change} "
            f"consecutive epochs. {end}"
        )
        return not goes_on

    def _print(self, text: str) -> None:
        if self.spec.verbose:
            print(text)


# ---- lbfgs --------------------------------------------------------------------------------------


@dataclass
class Minimum:
    """The result of L-BFGS: its last completed iteration."""

    theta: np.ndarray
    n_iter: int = 0
    loss: float = math.nan


def minimise(net: Network, spec: FitSpec) -> Minimum:
    """Minimise the loss of all rows with SciPy's L-BFGS-B; leave the result in the network.

    SciPy's, not nnbackend's LBFGS, because users of scikit-learn expect its limits (max_fun) and
    its iterates. Its few vectors are on the host; the passes over the data run on the device.
    Ctrl-C ends it with the weights of the last completed iteration.
    """
    objective = (_by_parts if isinstance(spec.x, SparseRows) else _at_once)(net, spec)
    best = Minimum(net.backend.to_host(net.theta).astype(np.float64))

    def keep(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        # The argument's name makes SciPy pass the loss too. It reuses the vector.
        best.theta, best.loss = np.array(intermediate_result.x), float(intermediate_result.fun)
        best.n_iter += 1
        if spec.verbose:
            print(f"Iteration {best.n_iter}, loss = {best.loss:.8f}")

    limits = {"maxfun": spec.max_fun, "maxiter": spec.config.epochs, "gtol": spec.tol}
    largest = max(W * n for (W, n), _ in net.layout.shapes) * len(spec.y)
    with net.backend.active(largest), np.errstate(over="ignore", invalid="ignore"):
        try:
            result = scipy.optimize.minimize(
                objective, best.theta, method="L-BFGS-B", jac=True, callback=keep, options=limits
            )
            n_iter = _check_optimize_result("lbfgs", result, spec.config.epochs)
            best = Minimum(result.x, n_iter, float(result.fun))
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        finally:
            _place(net, best.theta)
    return best


def _place(net: Network, theta: np.ndarray) -> None:
    net.backend.to_device(theta.astype(net.dtype), out=net.theta)


def _at_once(net: Network, spec: FitSpec) -> Objective:
    """Return the loss and its gradient, from all rows in one pass."""
    trainer = spec.trainer(net, [])
    assert trainer.state.lbfgs is not None
    evaluate, gradient = trainer.state.lbfgs.evaluate, trainer.state.lbfgs.grad

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        _place(net, theta)
        loss = evaluate()
        return loss, net.backend.to_host(gradient).astype(np.float64)

    return objective


def _by_parts(net: Network, spec: FitSpec) -> Objective:
    """Return the same from sparse rows, made dense part by part."""
    n = len(spec.y)
    weight = np.ones(n) if spec.weight is None else spec.weight
    l1, l2 = spec.config.penalty(n)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        _place(net, theta)
        loss, gradient = 0.0, np.zeros_like(theta)
        for start in range(0, n, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            share = float(weight[part].sum() / weight.sum())
            if share:
                rows = net.backend.to_device(net.backend.narrowed(spec.x[part]))
                found = net.backprop(rows, spec.y[part], weight[part])
                loss += share * found.loss
                gradient += share * net.backend.to_host(found.vector)
        w = theta[: net.layout.n_weights]
        gradient[: net.layout.n_weights] += l2 * w + l1 * np.sign(w)
        return loss + l1 * float(np.abs(w).sum()) + 0.5 * l2 * float(w @ w), gradient

    return objective
