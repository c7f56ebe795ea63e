"""Event files for TensorBoard, written by tensorboardX."""

from __future__ import annotations

import importlib
import os
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run


class TensorBoard(Callback):
    """A callback that writes the history to event files in a folder, for TensorBoard.

    histograms: whether to write those of each layer's weights and biases, too.
    Scalars are loss/train, loss/valid, accuracy/valid and so on, learning_rate and seconds.
    Look at them with `tensorboard --logdir FOLDER`. It needs an extra: pip install
    "nnbackend[tensorboard]".
    """

    def __init__(self, folder: str | os.PathLike[str], *, histograms: bool = False) -> None:
        self.folder, self.histograms = os.fspath(folder), histograms
        self._writer: Any = None

    def on_train_begin(self, trainer: Run) -> None:
        """Open an event file. Raises: ArgumentError if tensorboardX is not installed."""
        try:
            library: Any = importlib.import_module("tensorboardX")
        except ImportError as error:
            raise ArgumentError(
                f"TensorBoard needs tensorboardX. Received: {error}. Install it with: pip install "
                '"nnbackend[tensorboard]"'
            ) from error
        # A resumed run replaces the epochs after its checkpoint.
        self._writer = library.SummaryWriter(self.folder, purge_step=trainer.state.epoch + 1)

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        """Write the figures of an epoch, and make them readable at once."""
        epoch = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(_tag(name), value, epoch)
        if self.histograms:
            weights, biases = trainer.net.get_parameters()
            for layer, (W, b) in enumerate(zip(weights, biases, strict=True), start=2):
                self._writer.add_histogram(f"weights/layer_{layer}", W, epoch)
                self._writer.add_histogram(f"biases/layer_{layer}", b, epoch)
        self._writer.flush()

    def on_train_end(self, trainer: Run) -> None:
        """Close the file."""
        self._writer.close()


def _tag(name: str) -> str:
    """Return loss/train for train_loss, so that TensorBoard shows both losses together."""
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in ("train", "valid") else name
