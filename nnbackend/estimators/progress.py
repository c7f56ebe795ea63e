"""A progress bar for verbose="bar": one line of a terminal, or one output of a notebook.

Programs without a console (`pythonw`, PyInstaller) have no error stream; they show nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run

WIDTH = 30
PAUSE = 0.1  # seconds between updates


class ProgressBar(Callback):
    """Shows the completed fraction of max_iter, the last epoch's losses and the elapsed time."""

    def __init__(self) -> None:
        self._begin = self._drawn = 0.0
        self._losses = ""
        self._show: Callable[[str, bool], None] = _show_nothing

    def on_train_begin(self, trainer: Run) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()
        self._show = _display()

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        """Update the bar, at most every few tenths of a second."""
        if time.perf_counter() - self._drawn > PAUSE:
            self._draw(trainer, trainer.state.epoch + step / n_steps)

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        """Store the losses of the epoch."""
        losses = {k: row[k] for k in ("train_loss", "valid_loss") if k in row}
        self._losses = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())

    def on_train_end(self, trainer: Run) -> None:
        """Draw the final bar."""
        self._draw(trainer, float(trainer.state.epoch), is_last=True)

    def _draw(self, trainer: Run, done: float, is_last: bool = False) -> None:
        self._drawn = time.perf_counter()
        filled = round(WIDTH * min(done / trainer.config.epochs, 1.0))
        bar = "#" * filled + "-" * (WIDTH - filled)
        self._show(
            f"[{bar}] epoch {int(done)}/{trainer.config.epochs}  {self._losses}  "
            f"{self._drawn - self._begin:.1f} s",
            is_last,
        )


def _display() -> Callable[[str, bool], None]:
    """Return the function that replaces the previous bar by a new one."""
    stream = sys.stderr
    if stream is None:
        return _show_nothing
    display = _notebook_display()
    return _in_notebook(display) if display else _on_stream(stream)


def _show_nothing(bar: str, is_last: bool) -> None:
    pass


def _on_stream(stream: Any) -> Callable[[str, bool], None]:
    """Return a function that overwrites one line; write errors do not end a fit."""
    width = 0

    def show(bar: str, is_last: bool) -> None:
        nonlocal width
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            stream.write(f"\r{bar:<{width}}" + ("\n" if is_last else ""))
            stream.flush()
        width = len(bar)

    return show


def _notebook_display() -> Any:
    """Return IPython's `display` in a notebook's kernel, else None.

    A kernel has IPython imported already; elsewhere it is not imported.
    """
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_shell() if get_shell else None
    if getattr(shell, "kernel", None) is None:  # IPython in a terminal has none
        return None
    return getattr(sys.modules.get("IPython.display"), "display", None)


def _in_notebook(display: Any) -> Callable[[str, bool], None]:
    """Return a function that updates one output of the cell."""
    handle: Any = None

    def show(bar: str, is_last: bool) -> None:
        nonlocal handle
        content = {"text/plain": bar}
        if handle is None:
            handle = display(content, raw=True, display_id=True)
        else:
            handle.update(content, raw=True)

    return show
