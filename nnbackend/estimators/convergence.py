"""scikit-learn's end of an epoch: curves, best epoch, convergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnbackend.backend.base import PENALTY
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run


class ConvergenceMonitor(Callback):
    """Updates the attributes of an estimator after each epoch, and decides when it has converged.

    score: returns the validation score; None without validation rows. loss_share: factor from
    our loss to scikit-learn's, which averages over outputs. one_epoch: stop after one epoch, as
    partial_fit does.
    """

    def __init__(
        self, estimator: Any, score: Callable[[], float] | None, loss_share: float, one_epoch: bool
    ) -> None:
        self.estimator, self.score = estimator, score
        self.loss_share, self.one_epoch = loss_share, one_epoch
        self.speaks = bool(estimator.verbose) and estimator.verbose != "bar"
        self.has_converged = False

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Record the epoch; return True to stop training."""
        e = self.estimator
        e.n_iter_ += 1
        n = len(trainer.data.rows)
        e.t_ += n
        penalty = float(trainer.net.backend.to_host(trainer.state.sums.totals)[PENALTY]) / n
        e.loss_ = self.loss_share * row["train_loss"] + penalty
        e.loss_curve_.append(e.loss_)
        if "valid_loss" in row:
            e.validation_loss_curve_.append(self.loss_share * row["valid_loss"])
        if self.speaks:
            print(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
        if self.score is not None:
            with evaluation_weights(trainer):
                e.validation_scores_.append(self.score())
            if self.speaks:
                print(f"Validation score: {e.validation_scores_[-1]:f}")
        self._count(trainer)
        e._optimizer.end_epoch(e.t_)
        self.has_converged = self._is_enough()
        return self.has_converged or self.one_epoch

    def _count(self, trainer: Run) -> None:
        """Count the epochs without improvement, and keep the weights of the best one."""
        e = self.estimator
        if not e.early_stopping:
            best = (
                np.inf if e.best_loss_ is None else e.best_loss_
            )  # None: an earlier fit used early stopping
            e._no_improvement_count = self._waited(-e.loss_, -best)
            e.best_loss_ = min(best, e.loss_)
            return
        if e.monitor == "valid_loss":
            value, best = -e.validation_loss_curve_[-1], -e.best_validation_loss_
        else:
            value, best = e.validation_scores_[-1], e.best_validation_score_
        e._no_improvement_count = self._waited(value, best)
        if value > best:
            e._best_theta = trainer.net.backend.to_host(trainer.state.weights)
        if not e.validation_scores_[-1] <= e.best_validation_score_:
            e.best_validation_score_ = e.validation_scores_[-1]
        e.best_validation_loss_ = min(e.best_validation_loss_, e.validation_loss_curve_[-1])

    def _waited(self, value: float, best: float) -> int:
        """Return the count of epochs without improvement; a larger value is better."""
        e = self.estimator
        return int(e._no_improvement_count + 1) if value < best + e.tol else 0

    def _is_enough(self) -> bool:
        """Return True to stop; an adaptive learning rate is reduced first."""
        e = self.estimator
        if e._no_improvement_count <= e.n_iter_no_change:
            return False
        what = "Validation score" if e.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={e.tol:f} for {e.n_iter_no_change} "
            "consecutive epochs."
        )
        goes_on = e._optimizer.slow_down()
        if goes_on:
            e._no_improvement_count = 0
            end = f"Setting learning rate to {e._optimizer.learning_rate:f}"
        elif e._optimizer.mode == "adaptive":
            end = "Learning rate too small. Stopping."
        else:
            end = "Stopping."
        if self.speaks:
            print(message, end)
        return not goes_on


@contextmanager
def evaluation_weights(trainer: Run) -> Iterator[None]:
    """Load the averaged weights, if there are any, into the network inside the context."""
    if trainer.state.ema_weights is None:
        yield
        return
    backend, theta = trainer.net.backend, trainer.net.theta
    kept = backend.to_host(theta)
    backend.copy(trainer.state.ema_weights, theta)
    try:
        yield
    finally:
        backend.to_device(kept, out=theta)
