"""The history of a training run, one row per epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from nnbackend.errors import ArgumentError
from nnbackend.metrics import METRICS
from nnbackend.suggestions import suggest

Row = dict[str, float]

# For these values larger is better; for all others smaller is better.
LARGER_IS_BETTER = tuple(metric.name for metric in METRICS.values() if metric.more_is_better)


@dataclass
class History:
    """The metrics of each epoch: epoch, train_loss, valid_loss, valid_accuracy, learning_rate, ...

    history["valid_loss"] returns one column. monitor: the column that determines the best epoch.
    stop_reason: why training ended: "epochs", "early stopping", "converged", "callback" or
    "interrupted".
    >>> h = History("loss", [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    >>> h["loss"], h.best["epoch"]
    ([2.0, 1.0], 2)
    """

    monitor: str
    rows: list[Row] = field(default_factory=list)
    stop_reason: str = ""
    batch_size: int = 0
    seed: int = 0
    _costs: list[float] = field(default_factory=list, repr=False, compare=False)

    def __getitem__(self, column: str) -> list[float]:
        if self.rows and column not in self.rows[0]:
            raise ArgumentError(
                f"history has no column {column!r}. {suggest(str(column), self.rows[0])}"
            )
        return [row[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def costs(self) -> list[float]:
        """The monitored column, negated if larger is better; each row is read once."""
        sign = -1.0 if self.monitor.endswith(LARGER_IS_BETTER) else 1.0
        del self._costs[len(self.rows) :]
        self._costs += [sign * row[self.monitor] for row in self.rows[len(self._costs) :]]
        return self._costs

    @property
    def best_index(self) -> int:
        """The index of the best epoch: the first of equals; NaN and infinity count as worst."""
        costs = [c if math.isfinite(c) else math.inf for c in self.costs]
        return costs.index(min(costs))

    @property
    def best(self) -> Row:
        """The row of the best epoch."""
        if not self.rows:
            raise ArgumentError("history is empty: no epoch has ended yet.")
        return self.rows[self.best_index]

    def columns(self) -> list[str]:
        """Return the names of the columns; none before the first epoch has ended."""
        return list(self.rows[0]) if self.rows else []

    def table(self) -> list[list[float]]:
        """Return all rows as a table (epochs, columns)."""
        return [[row[name] for name in self.columns()] for row in self.rows]

    def load(self, columns: list[str], table: list[list[float]]) -> None:
        """Set the rows from the results of `columns` and `table`.

        Raises: ValueError for tables of another form, TypeError for other objects.
        """
        if len(set(columns)) != len(columns) or any(len(row) != len(columns) for row in table):
            raise ValueError(f"a history of columns {columns}")
        if table and self.monitor not in columns:
            raise ValueError(f"a history without {self.monitor!r}: {columns}")
        rows = [dict(zip(columns, row, strict=True)) for row in table]
        self.rows[:] = [row | {"epoch": int(row["epoch"])} for row in rows]

    def write_csv(self, file: TextIO) -> None:
        """Write all rows as CSV."""
        writer: csv.DictWriter[Any] = csv.DictWriter(
            file, list(self.rows[0]) if self.rows else ["epoch"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(self.rows)
