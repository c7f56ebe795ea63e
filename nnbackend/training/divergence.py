"""The error of a run whose weights or loss are no longer finite."""

from __future__ import annotations

from nnbackend.errors import DivergedError
from nnbackend.network.network import Network
from nnbackend.training.config import TrainConfig
from nnbackend.training.state import TrainState


def diverged(net: Network, config: TrainConfig, state: TrainState, what: str) -> DivergedError:
    """Restore the best weights; return the error, with advice and the history."""
    state.restore_best()
    rule, history = config.optimizer, state.history
    lr = getattr(rule, "learning_rate", None)
    advice = f"a smaller learning rate than {lr:g}, " if lr else ""
    if net.scaler is None:
        advice += "scaled inputs (scale='standard'), "
    advice += "clip_norm=1.0, or fewer layers"
    restored = f"epoch {history.best['epoch']}" if history.rows else "the beginning"
    error = DivergedError(
        f"training diverged in epoch {state.epoch + 1}: {what}. The network has the weights of "
        f"{restored} again. Try {advice}."
    )
    error.add_note(f"optimizer: {rule}")
    error.history = history
    return error
