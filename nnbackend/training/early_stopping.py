"""Early stopping: end a run when the monitored value no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nnbackend.options import AT_LEAST_0, AT_LEAST_1, Checked, Kind
from nnbackend.training.history import History


@dataclass(frozen=True)
class EarlyStopping(Checked):
    """Rule that stops when the monitored value has not improved for `patience` epochs.

    monitor: a column of the history, or valid_ and the name of a metric, as in valid_roc_auc, which
    is then measured; by default valid_loss, or train_loss without validation.
    min_delta: the smallest improvement that counts.  restore_best: end with the best weights.
    The decision depends on the history alone, so a resumed run makes the same decision.
    Source: Prechelt 1998, criterion UP.
    """

    patience: int = 5
    monitor: str | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    limits: ClassVar[Mapping[str, Kind]] = {"patience": AT_LEAST_1, "min_delta": AT_LEAST_0}

    def should_stop(self, history: History) -> bool:
        """Return True if the last `patience` epochs brought no improvement."""
        best, waited = float("inf"), 0
        for cost in history.costs:
            if cost < best - self.min_delta:
                best, waited = cost, 0
            else:
                waited += 1
        return waited >= self.patience
