"""The options of a training run, validated once; they do not depend on the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from nnbackend.errors import ArgumentError, check
from nnbackend.network.layers import Dropout
from nnbackend.network.network import Network
from nnbackend.training.batching import Shuffle
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.optimizers import SGD, Optimizer, get_optimizer
from nnbackend.training.schedules import AnySchedule, get_schedule
from nnbackend.validation import check_seed, check_size


@dataclass(frozen=True)
class TrainConfig:
    """The options of `train`, which documents them.

    shuffle may be a function epoch -> order of the rows. l2_per_batch is an l2 that is divided by
    the rows of each mini-batch, as scikit-learn's alpha.
    """

    optimizer: Any = "adam"
    epochs: int = 20
    batch_size: int | None = 128
    shuffle: Shuffle = True
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    max_norm: float | Sequence[float | None] | None = None
    clip_norm: float | None = None
    ema: float | None = None
    schedule: str | AnySchedule | None = None
    momentum_schedule: str | AnySchedule | None = None
    early_stopping: EarlyStopping | None = None
    seed: int = 0
    l2_per_batch: float = 0.0

    def checked(self, net: Network) -> TrainConfig:
        """Return the validated options, with names resolved to objects.

        Raises: ArgumentError for an invalid option.
        """
        check_size("epochs", self.epochs)
        check_seed(self.seed)
        if self.batch_size is not None:
            check_size("batch_size", self.batch_size)
        for name in ("l1", "l2", "weight_decay", "l2_per_batch"):
            check(name, getattr(self, name), lambda v: 0 <= v < math.inf, "a number, at least 0")
        check(
            "shuffle",
            self.shuffle,
            lambda v: callable(v) or v in (True, False),
            "True, False, or a function of the epoch that gives the order of the rows",
        )
        check("clip_norm", self.clip_norm, lambda v: v is None or v > 0, "a number above 0")
        check("ema", self.ema, lambda v: v is None or 0 < v < 1, "a number between 0 and 1")
        check(
            "early_stopping",
            self.early_stopping,
            lambda v: v is None or isinstance(v, EarlyStopping),
            "an nnbackend.EarlyStopping",
        )
        optimizer = get_optimizer(self.optimizer)
        if isinstance(optimizer, LBFGS):
            self._check_lbfgs(net)
        elif self.momentum_schedule is not None:
            if not isinstance(optimizer, SGD):
                raise ArgumentError(
                    "momentum_schedule needs SGD, the only optimizer with a momentum. "
                    f"Received: optimizer={optimizer}."
                )
            optimizer = replace(optimizer, is_scheduled=True)
        return replace(
            self,
            optimizer=optimizer,
            schedule=get_schedule(self.schedule),
            momentum_schedule=get_schedule(self.momentum_schedule, "momentum_schedule"),
            max_norm=self.norm_limits(net),
        )

    def batch_rows(self, n: int) -> int:
        """Return the number of rows of a full batch of n training rows."""
        return n if isinstance(self.optimizer, LBFGS) else min(self.batch_size or n, n)

    def penalty(self, rows: int) -> tuple[float, float]:
        """Return l1 and l2 for a mini-batch of `rows` rows."""
        return self.l1, self.l2 + self.l2_per_batch / rows

    @property
    def decay(self) -> float:
        """The decoupled weight decay: the optimizer's plus the option `weight_decay`."""
        default = self.optimizer.weight_decay if isinstance(self.optimizer, Optimizer) else 0.0
        return float(self.weight_decay + default)

    def norm_limits(self, net: Network) -> tuple[float | None, ...]:
        """Return the max-norm of each trainable layer."""
        n = len(net.trainable_layers)
        max_norm: Any = self.max_norm
        is_one = max_norm is None or isinstance(max_norm, Real)
        limits = (max_norm,) * n if is_one else tuple(max_norm)
        check(
            "max_norm",
            limits,
            lambda v: len(v) == n and all(limit is None or limit > 0 for limit in v),
            f"a number above 0, or one (or None) for each of the {n} trainable layers",
        )
        return limits

    def _check_lbfgs(self, net: Network) -> None:
        """Refuse options that change the function which L-BFGS minimises."""
        options: dict[str, Any] = {
            "weight_decay": self.weight_decay,
            "max_norm": self.max_norm,
            "clip_norm": self.clip_norm,
            "ema": self.ema,
            "schedule": self.schedule,
            "momentum_schedule": self.momentum_schedule,
        }
        refused = [
            name
            for name, value in options.items()
            if value is not None and not (isinstance(value, Real) and value == 0)
        ]
        refused += ["Dropout"] if any(isinstance(la, Dropout) for la in net.layers) else []
        if refused:
            raise ArgumentError(
                f"L-BFGS minimises one fixed function of all rows. Received: {', '.join(refused)}. "
                "Use l1 or l2 against over-fitting, or another optimizer."
            )
