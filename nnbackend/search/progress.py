"""The printed table of trials: value, best so far, time left, settings."""

from __future__ import annotations

import time
from typing import TextIO

from nnbackend.search.objective import COMPLETE, Problem
from nnbackend.search.rows import ERROR, STATE, VALUE, Row, is_better, settings_text, values_of

ERROR_SHOWN = 90  # characters


class TrialTable:
    """The table of trials, a line for each as it ends; a star marks the best so far.

    n_trials, deadline, workers: of the search, for the time left.  best: known before.
    """

    def __init__(
        self, stream: TextIO, problem: Problem, n_left: int, deadline: float | None, workers: int,
        best: float | None = None,
    ) -> None:  # fmt: skip
        self.stream, self.is_maximised = stream, problem.is_maximised
        self.n_left, self.deadline, self.workers = n_left, deadline, workers
        self.best, self.n_done, self.began = best, 0, time.time()
        self.metric = f"valid {problem.metric}"
        self._has_titles = False

    def add(self, row: Row) -> None:
        """Print a trial."""
        if not self._has_titles:
            self._print("trial", "state", self.metric, "best", "epochs", "time left", "settings")
            self._has_titles = True
        self.n_done += 1
        value, mark = row[VALUE], ""
        if row[STATE] == COMPLETE and is_better(value, self.best, self.is_maximised):
            self.best, mark = value, " *"
        text = settings_text(values_of(row))
        if row[ERROR]:
            text += f"  ({row[ERROR].splitlines()[0]:.{ERROR_SHOWN}})"
        self._print(
            str(row["trial"]), row[STATE], "" if value is None else f"{value:.6g}",
            "" if self.best is None else f"{self.best:.6g}", str(row["n_epochs"] or ""),
            self._time_left(), f"{text}{mark}",
        )  # fmt: skip

    def _print(self, *cells: str) -> None:
        *short, last = cells
        widths = (5, 11, max(12, len(self.metric)), 10, 6, 9)
        aligned = [f"{cell:>{width}}" for cell, width in zip(short, widths, strict=True)]
        self.stream.write("  ".join([*aligned, last]) + "\n")
        self.stream.flush()

    def _time_left(self) -> str:
        now = time.time()
        seconds = (now - self.began) / self.n_done * max(0, self.n_left - self.n_done)
        if self.deadline is not None:
            seconds = min(seconds, max(0.0, self.deadline - now))
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
