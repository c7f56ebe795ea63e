"""The members of an ensemble: the rows that each holds out, and the end of its fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from nnbackend.data.scalers import Scaler
from nnbackend.estimators.fitting import NetworkMLP
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.run import Run


def folds(
    n: int, labels: np.ndarray | None, share: float, random: np.random.RandomState
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training and the held-out rows of each member, for ever.

    share: the fraction of the n rows to hold out, about 1 / k.  labels: (n,), to stratify by.
    Rows of a class that would have no other row stay in the training part.
    """
    n_folds = max(2, round(1.0 / share))
    if labels is not None:
        n_folds = min(n_folds, int(np.unique(labels, return_counts=True)[1].max()))
    splitter = KFold if labels is None or n_folds < 2 else StratifiedKFold
    while True:
        split = splitter(min(max(2, n_folds), n), shuffle=True, random_state=random)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            parts = list(split.split(np.zeros(n), labels))
        for train, valid in parts:
            alone = np.zeros(len(valid), bool)
            if labels is not None:
                alone = ~np.isin(labels[valid], labels[train])
            yield np.concatenate([train, valid[alone]]), valid[~alone]


class MemberEnd(Callback):
    """Ends a member's fit after its last epoch, without a warning: its best epoch is kept.

    is_interrupted: whether Ctrl-C has ended it before.
    """

    is_interrupted = False

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        """Return True after the last epoch."""
        return trainer.state.epoch == trainer.config.epochs

    def on_train_end(self, trainer: Run) -> None:
        """Record an interrupt."""
        self.is_interrupted = trainer.interrupt.requested


def loss_of(member: NetworkMLP) -> float:
    """Return the loss for comparing members, each on its own held-out rows."""
    if member.early_stopping and member.validation_scores_:
        if member.monitor == "valid_loss":
            return float(member.best_validation_loss_)
        return -float(member.best_validation_score_)
    return float(member.loss_)


def scaled_targets(scaler: Scaler | None, y: Any) -> Any:
    """Return the targets of a member."""
    return y if scaler is None else scaler.transform(np.asarray(y), dtype=np.float64)
