"""The curve of a run, kept short: when it has too many points, every second one is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np

Row = dict[str, float]
MOST = 600


class Curve:
    """Rows of metrics, one for each epoch or for every `stride` epochs."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.stride = 1

    def add(self, row: Row) -> None:
        """Append an epoch's row, which has "epoch" and "step"."""
        if int(row["epoch"]) % self.stride:
            return
        self.rows.append(row)
        if len(self.rows) > MOST:
            self.stride *= 2
            self.rows = [r for r in self.rows if int(r["epoch"]) % self.stride == 0]

    def cut(self, step: int) -> None:
        """Forget the rows after a step."""
        while self.rows and self.rows[-1]["step"] > step:
            self.rows.pop()

    def array(self, names: list[str]) -> np.ndarray[Any, Any]:
        """Return the rows as float32: (names, rows); NaN where a row has no such value."""
        table = [[row.get(name, np.nan) for row in self.rows] for name in names]
        return np.array(table, np.float32).reshape(len(names), len(self.rows))
