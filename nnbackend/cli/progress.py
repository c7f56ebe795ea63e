"""Progress of training: a row per epoch, a bar on terminals, and the files written during a run."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TextIO

from nnbackend.cli.run_folder import HISTORY, MODEL
from nnbackend.persistence import write_model_file
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run

BAR = 28  # characters
REDRAW_SECONDS = 0.2
SAVE_SECONDS = 10.0  # minimum time between two saves of the best model
SAVE_SHARE = 20  # after a save of s seconds, the next one waits at least SAVE_SHARE * s seconds

logger = logging.getLogger("nnbackend")


class EpochTable(Callback):
    """The printed table of epochs; a star marks the best one so far."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_live = stream.isatty()
        self._is_drawn = False
        self._drawn_at = 0.0
        # (time, share of the epoch) at which timing starts: in the first epoch the end of the
        # first step, because that step includes the set-up of the device.
        self._timed_from: tuple[float, float] | None = None
        self._steps_done_at = self._second_began = 0.0

    def on_train_begin(self, trainer: Run) -> None:
        self._timed_from = None
        self._first = trainer.state.epoch  # not 0 for a resumed run
        titles = ["epoch", "train loss"]
        if trainer.data.validation is not None:
            titles += [f"valid {name}" for name in measured(trainer)]
        titles += ["learning rate", "samples/s", "time left"]
        self._widths = [max(len(title), 10) for title in titles]
        self._widths[0] = max(5, len(str(trainer.config.epochs)))
        self._print(titles)

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        now, share = time.perf_counter(), step / n_steps
        self._steps_done_at = now
        if self._timed_from is None:
            self._timed_from = now, share
        began, first = self._timed_from
        if not self.is_live or share == first or now - max(self._drawn_at, began) < REDRAW_SECONDS:
            return
        full = int(BAR * share)
        whole = (now - began) / (share - first)  # seconds
        rate, left = len(trainer.data.rows) / whole, (1.0 - share) * whole
        self.stream.write(
            f"\r{trainer.state.epoch + 1:>{self._widths[0]}}  [{'=' * full}{' ' * (BAR - full)}] "
            f"{share:4.0%}  {rate:,.0f} samples/s  {duration(left)} \x1b[K"
        )
        self.stream.flush()
        self._is_drawn, self._drawn_at = True, now

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        seconds_left = self._seconds_left(trainer)
        cells = [f"{row['epoch']:.0f}", loss_text(row["train_loss"])]
        cells += [
            loss_text(value) if name == "valid_loss" else self._cell(trainer, name, value)
            for name, value in row.items()
            if name.startswith("valid_")
        ]
        cells.append(f"{row['learning_rate']:.3g}")
        cells.append(f"{len(trainer.data.rows) / row['seconds']:,.0f}" if row["seconds"] else "")
        cells.append("" if seconds_left is None else duration(seconds_left))
        is_best = trainer.state.history.best_index == len(trainer.state.history) - 1
        self._print(cells, " *" if is_best else "")

    @staticmethod
    def _cell(trainer: Run, name: str, value: float) -> str:
        """Return a score as text; one row has no r2."""
        validation = trainer.data.validation
        is_defined = name != "valid_r2" or validation is None or len(validation[1]) > 1
        return f"{value:.4f}" if is_defined else "-"

    def _seconds_left(self, trainer: Run) -> float | None:
        """Return the estimated time of the remaining epochs; None if there is no estimate yet.

        After the first epoch the estimate uses its steps after the first one, to exclude the
        set-up. Later it uses the mean time of the epochs after the first, validation included.
        """
        now = time.perf_counter()
        began, first = self._timed_from or (now, 1.0)
        self._timed_from = now, 0.0
        done, left = trainer.state.epoch - self._first, trainer.config.epochs - trainer.state.epoch
        if done > 1:
            return (now - self._second_began) / (done - 1) * left
        self._second_began = now
        return None if first == 1.0 else (self._steps_done_at - began) / (1.0 - first) * left

    def on_train_end(self, trainer: Run) -> None:
        self._clear_bar()

    def _print(self, cells: list[str], mark: str = "") -> None:
        self._clear_bar()
        aligned = [f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=True)]
        self.stream.write("  ".join(aligned) + mark + "\n")
        self.stream.flush()

    def _clear_bar(self) -> None:
        if self._is_drawn:
            self.stream.write("\r\x1b[K")
            self._is_drawn = False


class RunWriter(Callback):
    """Callback that writes history.csv after each epoch, and the best model at intervals.

    If a write fails, it logs a warning and training continues. The next write that succeeds
    completes the history.
    """

    def __init__(self, folder: Path) -> None:
        self.history_path = folder / HISTORY
        self.model_path = folder / MODEL
        self._next_save = 0.0
        self._saved_epoch = 0.0
        self._is_behind = self._has_warned = False

    def on_train_begin(self, trainer: Run) -> None:
        self._write_history(trainer)

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        try:
            if self._is_behind:
                self._write_history(trainer)
            else:
                self._is_behind = True  # until the whole line is written
                self._append(_csv_line(row))
            self._is_behind = False
            self._save_if_due(trainer)
            self._has_warned = False
        except OSError as error:
            if not self._has_warned:
                logger.warning("the run folder is not up to date, training continues (%s)", error)
            self._has_warned = True

    def on_train_end(self, trainer: Run) -> None:
        if self._is_behind:  # retry: the disk may have space again
            self.on_epoch_end(trainer, trainer.state.history.rows[-1])

    def _write_history(self, trainer: Run) -> None:
        """Rewrite the file with all epochs so far."""
        names = ["epoch", "train_loss"]
        if trainer.data.validation is not None:
            names += [f"valid_{name}" for name in measured(trainer)]
        self._append(",".join([*names, "learning_rate", "seconds"]), "w")
        for row in trainer.state.history:  # not empty for a resumed run
            self._append(_csv_line(row))

    def _save_if_due(self, trainer: Run) -> None:
        best = trainer.state.history.best["epoch"]
        now = time.perf_counter()
        if best == self._saved_epoch or now < self._next_save:
            return
        save_best(trainer, self.model_path)
        cost = time.perf_counter() - now
        self._saved_epoch = best
        self._next_save = now + cost + max(SAVE_SECONDS, SAVE_SHARE * cost)

    def _append(self, line: str, mode: str = "a") -> None:
        with open(self.history_path, mode, encoding="utf-8") as file:
            file.write(line + "\n")


def _csv_line(row: Row) -> str:
    return ",".join(f"{v:.0f}" if k == "epoch" else repr(v) for k, v in row.items())


def measured(trainer: Run) -> list[str]:
    """Return what validation measures: loss, accuracy or r2, and the metric of the monitor."""
    return ["loss", trainer.data.score.name, *trainer.data.metrics]


def save_best(trainer: Run, path: Path) -> None:
    """Write the model with the best weights; the network keeps its current weights."""
    net = trainer.net
    current = net.backend.empty(tuple(net.theta.shape), net.dtype)
    net.backend.copy(net.theta, current)
    trainer.state.restore_best()
    try:
        write_model_file(net, trainer.data.preprocessing, path)
    finally:
        net.backend.copy(current, net.theta)


def loss_text(loss: float) -> str:
    """Return a loss as short text.

    >>> loss_text(0.12345), loss_text(0.00012345), loss_text(123456.0)
    ('0.1235', '1.23e-04', '1.23e+05')
    """
    return f"{loss:.4f}" if loss == 0.0 or 1e-3 <= abs(loss) < 1e5 else f"{loss:.2e}"


def duration(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours if needed.

    >>> duration(7.2), duration(75), duration(3725)
    ('0:07', '1:15', '1:02:05')
    """
    total = max(0, round(seconds))
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
