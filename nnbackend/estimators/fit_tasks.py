"""The callbacks of scikit-learn 1.9 (`sklearn.callback`), told of every epoch.

An older scikit-learn has no such thing; there the estimators have no `set_callbacks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.trainer import Trainer

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method as it is."""
        return method


class FitTasks(Callback):
    """Opens and closes scikit-learn's tasks: one for the fit, in it one for each epoch.

    known: the arguments that scikit-learn's hooks may ask for: X, y, metadata.
    """

    def __init__(self, estimator: Any, context: Any, known: dict[str, Any]) -> None:
        self.known, self.context = {"estimator": estimator, **known}, context
        self.epoch: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the fit and its first epoch."""
        self.context.call_on_fit_task_begin(**self.known)
        self._open()

    def on_epoch_end(self, trainer: Trainer, row: Row) -> bool | None:
        """Close the epoch, with the weights as they are; a callback may end training."""
        stop = self.epoch.call_on_fit_task_end(
            **self.known, reconstruction_attributes=lambda: _weights(trainer)
        )
        self.epoch = None
        if stop:
            return True
        if trainer.epoch < trainer.config.epochs and not trainer.history.stop_reason:
            self._open()
        return None

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the fit."""
        self.context.call_on_fit_task_end(
            **self.known, reconstruction_attributes=lambda: _weights(trainer)
        )

    def _open(self) -> None:
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.known)


def _weights(trainer: Trainer) -> dict[str, Any]:
    weights, biases = trainer.net.get_parameters()
    return {"coefs_": weights, "intercepts_": biases}


def fit_tasks(estimator: Any, X: Any, y: Any, sample_weight: Any) -> list[Callback]:
    """Return the callback that keeps scikit-learn's callbacks informed, where there are such."""
    if not hasattr(estimator, "_skl_callbacks"):
        return []
    context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    return [FitTasks(estimator, context, {"X": X, "y": y, "metadata": metadata})]
