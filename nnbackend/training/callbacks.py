"""Callbacks: custom code between steps and epochs."""

from __future__ import annotations

from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.training.history import Row
from nnbackend.training.run import Run


class Callback:
    """Base class of callbacks: override any of its methods; the defaults do nothing."""

    def on_train_begin(self, trainer: Run) -> None:
        """Run before the first epoch."""

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        """Run several times in a long epoch, after `step` of its `n_steps` steps."""

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Run after an epoch, whose metrics are in `row`; return True to end training."""
        return None

    def on_pause(self, trainer: Run) -> None:
        """Run after the last step, before the averaged or best weights replace the last ones.

        It also runs when training was interrupted, unless a second Ctrl-C has aborted a step.
        """

    def on_train_end(self, trainer: Run) -> None:
        """Run after the last epoch, also when training was stopped or interrupted."""


def check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple; raise ArgumentError for anything else in the list."""
    if not isinstance(callbacks, (list, tuple)) or not all(
        isinstance(callback, Callback) for callback in callbacks
    ):
        raise ArgumentError(
            f"callbacks must be a list of nnbackend.Callback objects. Received: {callbacks!r}."
        )
    return tuple(callbacks)
