"""A log of each epoch's metrics in a text file, which spreadsheets and trackers read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from nnbackend.errors import ArgumentError
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run


class MetricsLog(Callback):
    """A callback that writes a line after each epoch, to a file that ends in .csv or .jsonl.

    path: the file, which a new run replaces; a resumed run begins with the epochs before it.
    JSON has no infinity and no NaN, so these are null.
    Raises: ArgumentError for another suffix; OSError for a file that cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix not in _LINES:
            raise ArgumentError(
                f"path must end in .csv or .jsonl. Received: path={os.fspath(path)!r}. "
                "Use for instance metrics.csv."
            )
        self._is_empty = True

    def on_train_begin(self, trainer: Run) -> None:
        """Write the epochs before a resumed run, or an empty file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("", encoding="utf-8")
        self._is_empty = True
        for row in trainer.state.history:
            self.on_epoch_end(trainer, row)

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        """Append the epoch's line; a program that reads the file sees whole lines only."""
        lines = [",".join(row)] if self._is_empty and self.path.suffix == ".csv" else []
        lines.append(_LINES[self.path.suffix](row))
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))
        self._is_empty = False


def _csv_line(row: Row) -> str:
    return ",".join(map(repr, row.values()))


def _json_line(row: Row) -> str:
    finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(finite, allow_nan=False)


_LINES: dict[str, Callable[[Row], str]] = {".csv": _csv_line, ".jsonl": _json_line}
