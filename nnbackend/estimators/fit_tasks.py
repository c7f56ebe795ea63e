"""Support for the callbacks of scikit-learn 1.9 (`sklearn.callback`), called after every epoch.

With an older scikit-learn the estimators have no `set_callbacks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Placeholder for scikit-learn before 1.9."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


class FitTasks(Callback):
    """Opens and closes scikit-learn's tasks: one for the fit, with one for each epoch inside.

    known: the arguments that scikit-learn's hooks may request: X, y, metadata.
    """

    def __init__(self, estimator: Any, context: Any, known: dict[str, Any]) -> None:
        self.known, self.context = {"estimator": estimator, **known}, context
        self.epoch: Any = None

    def on_train_begin(self, trainer: Run) -> None:
        """Open the fit and its first epoch."""
        self.context.call_on_fit_task_begin(**self.known)
        self._open()

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Close the epoch with the current weights; return True if a callback stops training."""
        stop = self.epoch.call_on_fit_task_end(
            **self.known, reconstruction_attributes=lambda: _weights(trainer)
        )
        self.epoch = None
        if stop:
            return True
        if trainer.state.epoch < trainer.config.epochs and not trainer.state.history.stop_reason:
            self._open()
        return None

    def on_train_end(self, trainer: Run) -> None:
        """Close the fit."""
        self.context.call_on_fit_task_end(
            **self.known, reconstruction_attributes=lambda: _weights(trainer)
        )

    def _open(self) -> None:
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.known)


def _weights(trainer: Run) -> dict[str, Any]:
    weights, biases = trainer.net.get_parameters()
    return {"coefs_": weights, "intercepts_": biases}


def fit_tasks(estimator: Any, X: Any, y: Any, sample_weight: Any) -> list[Callback]:
    """Return the callback that calls scikit-learn's callbacks, or [] if there are none."""
    if not hasattr(estimator, "_skl_callbacks"):
        return []
    context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    return [FitTasks(estimator, context, {"X": X, "y": y, "metadata": metadata})]
