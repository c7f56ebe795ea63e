"""The options of a training run, validated once; they do not depend on the data."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

from nnbackend.config import TrainOptions
from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.network.layers import Dropout
from nnbackend.network.network import Network
from nnbackend.options import ABOVE_0, AT_LEAST_0, all_of, faults_of, option, raise_all
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.optimizers import SGD, Optimizer, get_optimizer
from nnbackend.training.schedules import AnySchedule, Ramp, get_schedule


@dataclass(kw_only=True)
class TrainConfig(TrainOptions):
    """The options of a run, as `train` documents them.

    l2_per_batch: an l2 that is divided by the rows of each mini-batch, as scikit-learn's alpha.
    """

    l2_per_batch: float = option(0.0, AT_LEAST_0, "L2 penalty, divided by the rows of a batch")

    @classmethod
    def of(cls, options: TrainOptions) -> TrainConfig:
        """Return the config of options that may have others beside those of training."""
        return cls(**{f.name: getattr(options, f.name) for f in fields(TrainOptions)})

    def checked(self, net: Network) -> TrainConfig:
        """Return the validated options, with names resolved to objects.

        Raises: ArgumentError, for all invalid options at once.
        """
        _, optimizer, schedule, momentum_schedule, max_norm = all_of(
            lambda: raise_all(faults_of(self)),
            lambda: self._optimizer(net),
            lambda: get_schedule(self.schedule),
            self._momenta,
            lambda: self.norm_limits(net),
        )
        return replace(
            self, optimizer=optimizer, schedule=schedule, momentum_schedule=momentum_schedule,
            max_norm=max_norm,
        )  # fmt: skip

    def _momenta(self) -> AnySchedule:
        momenta = get_schedule(self.momentum_schedule, "momentum_schedule")
        if isinstance(momenta, Ramp) and not (0 <= momenta.start < 1 and 0 <= momenta.end < 1):
            expected = "a schedule of numbers of at least 0 and below 1"
            raise ArgumentError(Fault("momentum_schedule", expected, momenta))
        return momenta

    def _optimizer(self, net: Network) -> Optimizer | LBFGS:
        """Return the optimizer, which must suit the other options."""
        optimizer = get_optimizer(self.optimizer)
        if isinstance(optimizer, LBFGS):
            self._check_lbfgs(net)
        elif self.momentum_schedule is not None:
            if not isinstance(optimizer, SGD):
                raise ArgumentError(
                    Mention("momentum_schedule"), " needs SGD, the only optimizer with a momentum. "
                    "Received: ", Mention("optimizer", type(optimizer).__name__.lower()), ". Use ",
                    Mention("optimizer", "sgd"), ".",
                )  # fmt: skip
            return replace(optimizer, is_scheduled=True)
        return optimizer

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
        given: Any = self.max_norm
        n = len(net.trainable_layers)
        limits: tuple[Any, ...] = tuple(given) if hasattr(given, "__len__") else (given,) * n
        if len(limits) != n or not all(v is None or ABOVE_0.is_good(v) for v in limits):
            expected = f"a number above 0, or one (or None) for each of the {n} trainable layers"
            raise ArgumentError(Fault("max_norm", expected, given))
        return limits

    def _check_lbfgs(self, net: Network) -> None:
        """Refuse options that change the function which L-BFGS minimises."""
        names = ("weight_decay", "max_norm", "clip_norm", "ema", "schedule", "momentum_schedule")
        refused: list[str | Mention] = [
            Mention(name, value)
            for name in names
            if (value := getattr(self, name)) is not None
            and not (isinstance(value, Real) and value == 0)
        ]
        refused += ["Dropout"] if any(isinstance(la, Dropout) for la in net.layers) else []
        if refused:
            listed = [part for item in refused for part in (", ", item)][1:]
            raise ArgumentError(
                "L-BFGS minimises one fixed function of all rows. Received: ", *listed, ". "
                "Use l1 or l2 against over-fitting, or another optimizer.",
            )  # fmt: skip
