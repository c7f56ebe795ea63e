"""The error of a run whose weights or loss are no longer finite."""

from __future__ import annotations

import math

from nnbackend.errors import DivergedError, Mention
from nnbackend.training.run import Run


def diverged(run: Run, what: str) -> DivergedError:
    """Restore the best weights; return the error, with advice and the history."""
    state, rule, history = run.state, run.config.optimizer, run.state.history
    state.restore_best()
    lr = getattr(rule, "learning_rate", None)
    advice = f"a smaller learning rate than {lr:g}, " if lr else ""
    if run.data.preprocessing.scaler is None:
        advice += "scaled inputs (nnbackend.Model(net, scale='standard')), "
    restored = f"epoch {history.best['epoch']}" if history.rows else "the beginning"
    error = DivergedError(
        f"training diverged in epoch {state.epoch + 1}: {what}. The network has the weights of "
        f"{restored} again. Try {advice}", Mention("clip_norm", 1.0), ", or fewer layers.",
    )  # fmt: skip
    error.add_note(f"optimizer: {rule}")
    error.history = history
    return error


def mean_loss(run: Run) -> float:
    """Return the mean loss of the epoch so far; raise DivergedError if it is not finite."""
    if not math.isfinite(loss := run.state.mean_loss()):
        raise diverged(run, f"the training loss became {loss}")
    return loss


def check_weights(run: Run) -> None:
    """Raise DivergedError if a weight is not finite."""
    if not run.state.is_finite():
        raise diverged(run, "weights became infinite or not a number")
