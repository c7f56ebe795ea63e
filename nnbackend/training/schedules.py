"""Schedules of the learning rate or the momentum.

A schedule is a function of the step. A `Schedule` computes the values of all steps of an epoch
before the epoch begins, so that a step on a device only looks one up. A plain function
step -> value is accepted too; steps count from 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nnbackend.errors import ArgumentError, Fault
from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.options import ABOVE_0, INSIDE_0_AND_1, WHOLE, Checked, Kind

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ScheduleContext:
    """The positions of steps in a training run.

    step: (n,) number of updates before each step.  steps_per_epoch, epochs: the length of the run.
    values: the monitored value of each epoch that has ended, for plateau.
    """

    step: Numbers
    steps_per_epoch: int
    epochs: int
    values: Sequence[float] = ()

    @property
    def epoch(self) -> Numbers:
        """Completed epochs, as a fraction."""
        return self.step / self.steps_per_epoch

    @property
    def share(self) -> Numbers:
        """The completed share of the run, from 0 to 1."""
        return np.minimum(self.step / (self.steps_per_epoch * self.epochs), 1.0)


class Schedule(Checked, ABC):
    """Base class of schedules: a factor on the base value for each step."""

    limits: ClassVar[Mapping[str, Kind]] = {
        **dict.fromkeys(("every", "gamma", "power", "growth", "patience"), ABOVE_0),
        "epochs": replace(ABOVE_0, none=""),
        "restarts": WHOLE,
        "warm": INSIDE_0_AND_1,
    }

    @abstractmethod
    def factor(self, context: ScheduleContext) -> Numbers:
        """Return the factor of each step."""

    def __call__(self, base: float, context: ScheduleContext) -> Numbers:
        """Return the value of each step."""
        return base * self.factor(context)


@dataclass(frozen=True)
class Constant(Schedule):
    """A constant schedule: always the base value."""

    def factor(self, context: ScheduleContext) -> Numbers:
        return np.ones_like(context.step)


@dataclass(frozen=True)
class Step(Schedule):
    """A step decay: multiply by `gamma` after every `every` epochs."""

    every: int = 10
    gamma: float = 0.1

    def factor(self, context: ScheduleContext) -> Numbers:
        factor: Numbers = self.gamma ** np.floor(context.epoch / self.every)
        return factor


@dataclass(frozen=True)
class Exponential(Schedule):
    """An exponential decay: multiply by `gamma` at every step, down to `floor` times the base."""

    gamma: float = 0.9999
    floor: float = 0.0

    def factor(self, context: ScheduleContext) -> Numbers:
        return np.maximum(self.gamma**context.step, self.floor)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """Division by (step + 1)^power, as scikit-learn's "invscaling"."""

    power: float = 0.5

    def factor(self, context: ScheduleContext) -> Numbers:
        factor: Numbers = (context.step + 1.0) ** -self.power
        return factor


@dataclass(frozen=True)
class Polynomial(Schedule):
    """A decay from 1 to `end` over the run (or its first `epochs`), as (1 - share)^power."""

    power: float = 1.0
    end: float = 0.0
    epochs: float | None = None

    def factor(self, context: ScheduleContext) -> Numbers:
        share = (
            context.share if self.epochs is None else np.minimum(context.epoch / self.epochs, 1.0)
        )
        return self.end + (1.0 - self.end) * (1.0 - share) ** self.power


@dataclass(frozen=True)
class Cosine(Schedule):
    """A half cosine from 1 to `end`, with `restarts` warm restarts.

    Each cycle is `growth` times as long as the previous one.
    Source: Loshchilov and Hutter 2016, equation 5.
    """

    restarts: int = 0
    growth: float = 1.0
    end: float = 0.0

    def factor(self, context: ScheduleContext) -> Numbers:
        lengths = self.growth ** np.arange(self.restarts + 1.0)
        starts = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
        cycle = np.clip(np.searchsorted(starts, context.share, side="right") - 1, 0, self.restarts)
        within = (context.share - starts[cycle]) / (starts[cycle + 1] - starts[cycle])
        return _half_cosine(1.0, self.end, within)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """A rise from `start` to 1 over the first `warm` share of the run, then a fall to `end`.

    Source: Smith and Topin 2017, with half cosines for the straight lines.
    """

    warm: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def factor(self, context: ScheduleContext) -> Numbers:
        up = _half_cosine(self.start, 1.0, context.share / self.warm)
        down = _half_cosine(1.0, self.end, (context.share - self.warm) / (1.0 - self.warm))
        return np.where(context.share < self.warm, up, down)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A linear rise from 0 to 1 over the first `epochs`, times the factor of `then`."""

    epochs: float = 1.0
    then: str | Schedule = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        then = get_schedule(self.then)
        if not isinstance(then, Schedule):
            raise ArgumentError(Fault("then", "a schedule or its name", then))
        object.__setattr__(self, "_then", then)

    def factor(self, context: ScheduleContext) -> Numbers:
        line = (context.step + 1.0) / (self.epochs * context.steps_per_epoch)
        factor: Numbers = self._then.factor(context)  # type: ignore[attr-defined]
        return np.minimum(line, 1.0) * factor


@dataclass(frozen=True)
class Plateau(Schedule):
    """A decay by `gamma` whenever the monitored value has not fallen for `patience` epochs.

    The monitored value is that of the history, by default the validation loss if there is one.
    A fall counts if it is larger than min_delta. The factor depends on the history alone, so a
    resumed run needs no other state.
    """

    gamma: float = 0.1
    patience: int = 10
    min_delta: float = 0.0
    end: float = 0.0

    def factor(self, context: ScheduleContext) -> Numbers:
        factor, best, waited = 1.0, math.inf, 0
        for value in context.values:
            if value < best - self.min_delta:
                best, waited = value, 0
            else:
                waited += 1
            if waited >= self.patience:
                factor, waited = max(factor * self.gamma, self.end), 0
        return np.full_like(context.step, factor)


@dataclass(frozen=True)
class Ramp(Schedule):
    """A straight line from `start` to `end` over `epochs`, then constant: for the momentum.

    It returns the values themselves, not factors.
    """

    start: float = 0.5
    end: float = 0.99
    epochs: float = 10.0

    def factor(self, context: ScheduleContext) -> Numbers:
        share = np.minimum(context.epoch / self.epochs, 1.0)
        return self.start + (self.end - self.start) * share

    def __call__(self, base: float, context: ScheduleContext) -> Numbers:
        return self.factor(context)


AnySchedule = Schedule | Callable[[int], float]

SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "inverse_scaling": InverseScaling,
    "polynomial": Polynomial,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "warm_up": WarmUp,
    "plateau": Plateau,
    "ramp": Ramp,
}


# The default ramp is one of momenta, no learning rates.
EXPECTED = "a name, a schedule or a function of the step"
RATES = {name: kind for name, kind in SCHEDULES.items() if kind is not Ramp}
FAMILIES["schedule"] = Family(RATES, EXPECTED)
FAMILIES["momentum_schedule"] = Family(SCHEDULES, EXPECTED)


def get_schedule(choice: str | AnySchedule | None, option: str = "schedule") -> AnySchedule:
    """Return the schedule of a name such as "step:every=5,gamma=0.5"; None means constant.

    A schedule and a function of the step are returned unchanged.
    Raises: ArgumentError for an unknown name, with the closest known name.
    """
    if choice is None:
        return Constant()
    if isinstance(choice, Schedule) or (not isinstance(choice, str) and callable(choice)):
        return choice
    made: Schedule = make_named(option, choice)
    return made


def values_of(schedule: AnySchedule, base: float, context: ScheduleContext) -> Numbers:
    """Return the value of each step; call a plain function once for each step."""
    if isinstance(schedule, Schedule):
        return schedule(base, context)
    try:
        return np.array([float(schedule(int(s) + 1)) for s in context.step])
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"a schedule must return one number for a step. Received: {schedule!r} ({error})."
        ) from error


def _half_cosine(start: float, end: float, share: Numbers) -> Numbers:
    """Return the half cosine from start to end for share from 0 to 1, constant outside."""
    fall: Numbers = 0.5 * (1.0 + np.cos(np.pi * np.clip(share, 0.0, 1.0)))
    return end + (start - end) * fall
