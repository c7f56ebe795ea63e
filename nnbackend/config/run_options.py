"""The options of a run in Python: those of its updates, and those of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nnbackend.data.row_order import WINDOW
from nnbackend.named import name_of
from nnbackend.options import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    INSIDE_0_AND_1,
    SEED,
    YES_OR_NO,
    Kind,
    option,
    or_none,
)


def _is_stopping(value: Any) -> bool:
    return hasattr(value, "should_stop") and not isinstance(value, type)


def _shuffle(text: str) -> bool | str:
    name, colon, rows = text.partition(":")
    if name != WINDOW:
        return bool(YES_OR_NO.parse(text))
    if colon:
        AT_LEAST_1.parse(rows)
    return text


def _is_shuffle(value: Any) -> bool:
    is_window = isinstance(value, str) and isinstance(_shuffle(value), str)
    return is_window or callable(value) or (not isinstance(value, str) and value in (True, False))


def _norms(value: Any) -> bool:
    return ABOVE_0.is_good(value) or (hasattr(value, "__len__") and not isinstance(value, str))


@dataclass(kw_only=True, eq=False)  # estimators, which inherit it, are equal to themselves only
class UpdateOptions:
    """The options of the updates: for `train`, the command line and the estimators."""

    l1: float = option(
        0.0, AT_LEAST_0, "L1 penalty in the loss, l1 sum |w|", topic="regularisation", metavar="X"
    )
    weight_decay: float = option(
        0.0, AT_LEAST_0,
        "decoupled weight decay: each step also does w *= 1 - learning rate * weight_decay",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    max_norm: float | Sequence[float | None] | None = option(
        None,
        replace(
            or_none(ABOVE_0, "0"), accepts=_norms,
            expected="a number above 0, one number or None for each trainable layer, or None",
        ),
        "upper limit for the norm of each unit's incoming weights",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    clip_norm: float | None = option(
        None, or_none(ABOVE_0, "0"), "upper limit for the norm of the gradient",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    ema: float | None = option(
        None, or_none(INSIDE_0_AND_1, "0"),
        "decay of a running average of the weights, which is validated and kept instead of them",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    schedule: Any = option(
        None, or_none(name_of("schedule"), "constant"),
        "learning-rate schedule: {names}; step:every=10,gamma=0.5 sets parameters",
        topic="training", metavar="NAME",
    )  # fmt: skip


@dataclass(kw_only=True)
class TrainOptions(UpdateOptions):
    """The options of a training run, for `train` and the command line."""

    # Cures for likely keywords that are options of something else.
    ELSEWHERE: ClassVar[dict[str, str]] = {
        "learning_rate": "Use optimizer=nnbackend.Adam(learning_rate=...).",
        "lr": "Use optimizer=nnbackend.Adam(learning_rate=...).",
        "momentum": "Use optimizer=nnbackend.SGD(0.1, momentum=...).",
        "patience": "Use early_stopping=nnbackend.EarlyStopping(patience=...).",
    }

    optimizer: Any = option(
        "adam", name_of("optimizer"), "update rule: {names}", topic="training", metavar="NAME"
    )
    epochs: int = option(
        20, AT_LEAST_1, "maximum number of passes through the training rows",
        topic="training", metavar="N",
    )  # fmt: skip
    batch_size: int | None = option(
        128, or_none(AT_LEAST_1, "full"),
        "rows per step; 1 for stochastic gradient descent, {none} for all rows",
        topic="training", metavar="N|full",
    )  # fmt: skip
    shuffle: bool | str | Callable[[int], Any] = option(
        True,
        replace(
            YES_OR_NO, parse=_shuffle, accepts=_is_shuffle,
            in_text="yes, no, window or window:ROWS",
            expected="True, False, 'window', 'window:ROWS', or a function of the epoch that gives "
            "the order of the rows",
        ),
        "whether each epoch takes the rows in a new order; window reads large files in long runs "
        "and permutes ROWS rows at a time", topic="training", metavar="yes|no|window[:ROWS]",
    )  # fmt: skip
    momentum_schedule: Any = option(
        None, or_none(name_of("momentum_schedule"), "constant"),
        "schedule of the momentum of sgd, as ramp:start=0.5,end=0.99: {names}",
        topic="training", metavar="NAME",
    )  # fmt: skip
    l2: float = option(
        0.0, AT_LEAST_0, "L2 penalty in the loss, l2/2 sum w^2",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    early_stopping: Any = option(
        None,
        Kind("an nnbackend.EarlyStopping, or None", _is_stopping, str, none=""),
        "rule that ends the run when the monitored value no longer improves", topic="training",
    )  # fmt: skip
    seed: int = option(
        0, SEED, "seed of the weights, the splits, the row order and dropout",
        topic="machine", metavar="N",
    )  # fmt: skip
