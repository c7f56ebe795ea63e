"""The recorded course of a run, for its replay: weights at some steps, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST, MOST_BYTES = 120, 16_000_000


@dataclass(frozen=True)
class Moment:
    """The weights after a step: theta (P,), and the metrics of the epoch."""

    epoch: int
    step: int
    theta: np.ndarray
    row: dict[str, float]


class Recorder:
    """Moments of a run, oldest first; when there are too many, every second one is dropped."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.stride = 1  # epochs

    def add(self, epoch: int, step: int, state: Any, row: dict[str, float]) -> None:
        """Record the weights after an epoch, if it is due."""
        if epoch % self.stride or (self.moments and self.moments[-1].step == step):
            return
        theta = state.backend.to_host(state.weights)
        self.moments.append(Moment(epoch, step, theta, row))
        if len(self.moments) > MOST or len(self.moments) * theta.nbytes > MOST_BYTES:
            self.stride *= 2
            self.moments = [m for m in self.moments if m.epoch % self.stride == 0]

    def cut(self, step: int) -> None:
        """Forget what is after a step."""
        self.moments = [m for m in self.moments if m.step <= step]
