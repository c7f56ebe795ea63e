"""The cells of a data set that was read from a table, to code its rows again.

The kinds of the columns are decided once, from all rows. What a coding learns from the cells
(medians, categories, shares, mean targets) comes from the training rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.coding import ColumnCoding, encode, encode_training
from nnbackend.data.deciding import Decision, fit_columns
from nnbackend.data.many_levels import TargetValues
from nnbackend.data.tables import Numbers, Table


@dataclass(frozen=True, eq=False)
class RawTable:
    """The columns of a table besides its target, and the decisions on their kinds.

    rows: the positions in the table of the data set's rows; None: all, in order.
    """

    table: Table
    decisions: tuple[Decision, ...]
    rows: NDArray[np.int64] | None = None

    def take(self, indices: NDArray[np.generic] | slice) -> RawTable:
        """Return some of the rows, by an index array, mask or slice."""
        rows = np.arange(self.table.n_rows) if self.rows is None else self.rows
        return replace(self, rows=rows[indices])

    def fit(
        self, coding: ColumnCoding, training: NDArray[np.bool_], target: TargetValues | None
    ) -> tuple[ColumnCoding, Numbers]:
        """Return a coding fitted to the training rows, and the features of all rows.

        Shapes: training (n_rows,); target.values (n_rows, n_targets); result (n_rows, n_features).
        """
        table = self.table if self.rows is None else self.table.take(self.rows)
        part = table if training.all() else table.keep(training)
        known = None if target is None else target.keep(training)
        decimal = coding.decimal
        coding = replace(coding, columns=fit_columns(part, self.decisions, decimal, known))
        if part is table:
            return coding, encode_training(part, coding, known)
        x = encode(table, coding, is_silent=True)
        if coding.is_of_target.any():
            x[training] = encode_training(part, coding, known)
        return coding, x
