"""Step sizes and update rules of scikit-learn's solvers.

The optimizer state between calls of `partial_fit` is kept as host arrays, so that an estimator can
be copied and pickled without its device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend.errors import ArgumentError
from nnbackend.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, Vectors
from nnbackend.training.run import Run
from nnbackend.training.schedules import Numbers, Schedule, ScheduleContext

SMALLEST_RATE = 1e-6  # where "adaptive" stops


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
        own = rule_name(trainer.config.optimizer)
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
        self.rule = rule_name(trainer.config.optimizer)
        to_host = trainer.net.backend.to_host
        self.vectors = {name: to_host(v) for name, v in trainer.state.optimizer.items()}


def rule_name(rule: Optimizer) -> str:
    """Return the name of an update rule for messages."""
    kind = Adam if isinstance(rule, AdamEpsilonHat) else type(rule)
    return kind.__name__.lower()


def make_rule(estimator: Any) -> Optimizer:
    """Return the update rule that an estimator's parameters ask for."""
    solver, rate = estimator.solver, float(estimator.learning_rate_init)
    if isinstance(solver, Optimizer):
        given: Optimizer = solver
        return given
    if solver == "sgd":
        return SGD(rate, float(estimator.momentum), estimator.nesterovs_momentum)
    moments = {
        "beta1": float(estimator.beta_1),
        "beta2": float(estimator.beta_2),
        "eps": float(estimator.epsilon),
    }
    if solver == "adam":
        return AdamEpsilonHat(rate, **moments)
    if solver == "adamw":
        return AdamW(rate, **moments, weight_decay=0.0)
    rule: Optimizer = OPTIMIZERS[solver](learning_rate=rate)
    return rule
