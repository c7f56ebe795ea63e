"""A progress bar on one line of the terminal, for verbose="bar"."""

from __future__ import annotations

import sys
import time

from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.trainer import Trainer

WIDTH = 30
PAUSE = 0.1  # seconds between two drawings


class ProgressBar(Callback):
    """Shows the done share of max_iter, the losses of the last epoch and the time taken."""

    def __init__(self) -> None:
        self._begin = self._drawn = 0.0
        self._losses = ""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_progress(self, trainer: Trainer, step: int, n_steps: int) -> None:
        """Draw the bar anew, not too often."""
        if time.perf_counter() - self._drawn > PAUSE:
            self._draw(trainer, trainer.epoch + step / n_steps)

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Remember the losses of the epoch."""
        losses = {k: row[k] for k in ("train_loss", "valid_loss") if k in row}
        self._losses = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())

    def on_train_end(self, trainer: Trainer) -> None:
        """Leave the finished line standing."""
        self._draw(trainer, float(trainer.epoch))
        sys.stderr.write("\n")

    def _draw(self, trainer: Trainer, done: float) -> None:
        self._drawn = time.perf_counter()
        filled = round(WIDTH * min(done / trainer.recipe.epochs, 1.0))
        bar = "#" * filled + "-" * (WIDTH - filled)
        sys.stderr.write(
            f"\r[{bar}] epoch {int(done)}/{trainer.recipe.epochs}  {self._losses}  "
            f"{self._drawn - self._begin:.1f} s"
        )
        sys.stderr.flush()
