"""Callbacks of a fit: those of scikit-learn 1.9 (`sklearn.callback`), and the progress bar.

With an older scikit-learn the estimators have no `set_callbacks`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.persistence.checkpoints import Checkpoints
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

    known: the arguments that scikit-learn's hooks may request: estimator, X, y, metadata.
    """

    def __init__(self, context: Any, known: dict[str, Any]) -> None:
        self.known, self.context = known, context
        self.epoch: Any = None

    def on_train_begin(self, trainer: Run) -> None:
        """Open the fit and its first epoch."""
        self.context.call_on_fit_task_begin(**self.known)
        self._open()

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Close the epoch with the current weights; return True if a callback stops training."""
        if self._close(self.epoch, trainer):
            return True
        if trainer.state.epoch < trainer.config.epochs and not trainer.state.history.stop_reason:
            self._open()
        return None

    def on_train_end(self, trainer: Run) -> None:
        """Close the fit."""
        self._close(self.context, trainer)

    def _open(self) -> None:
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.known)

    def _close(self, task: Any, trainer: Run) -> bool:
        def weights() -> dict[str, Any]:
            return dict(zip(("coefs_", "intercepts_"), trainer.net.get_parameters(), strict=True))

        return bool(task.call_on_fit_task_end(**self.known, reconstruction_attributes=weights))


class ProgressBar(Callback):
    """Shows the epochs, their losses and the time left, by tqdm, in terminals and notebooks.

    Programs without a console (`pythonw`, PyInstaller) have no error stream; they show nothing.
    Raises: ArgumentError if tqdm is not installed.
    """

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ArgumentError(
                'verbose="bar" needs the package tqdm. Received: it is not installed. '
                'Install it with: pip install "nnbackend[progress]"'
            ) from error
        self.tqdm = tqdm
        self.bar: Any = None

    def on_train_begin(self, trainer: Run) -> None:
        """Show an empty bar."""
        self.bar = self.tqdm(
            total=trainer.config.epochs, disable=sys.stderr is None,
            bar_format="{l_bar}{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        """Move on within a long epoch."""
        self.bar.update(trainer.state.epoch + step / n_steps - self.bar.n)

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        """Show the losses of the epoch."""
        losses = {k: f"{row[k]:.4f}" for k in ("train_loss", "valid_loss") if k in row}
        self.bar.set_postfix(losses, refresh=False)
        self.bar.update(trainer.state.epoch - self.bar.n)

    def on_train_end(self, trainer: Run) -> None:
        """Draw the final bar."""
        self.bar.close()


def own_callbacks(given: Any, verbose: bool | int | str) -> list[Callback]:
    """Return an estimator's parameter `callbacks` as a list, with the progress bar if asked for.

    Raises: ArgumentError for anything but nnbackend's callbacks.
    """
    own = list(given) if isinstance(given, (list, tuple)) else [given]
    own = [] if given is None else own
    if not all(isinstance(c, Callback) and not isinstance(c, Checkpoints) for c in own):
        raise ArgumentError(
            "callbacks must be nnbackend.Callback objects. Only nn.train takes Checkpoints. "
            f"Received: callbacks={given!r}. To stop early, set early_stopping=True."
        )
    return [*own, ProgressBar()] if verbose == "bar" else own
