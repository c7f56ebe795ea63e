"""A training run as callbacks see it."""

from __future__ import annotations

from nnbackend.network.network import Network
from nnbackend.training.config import TrainConfig
from nnbackend.training.interrupt import InterruptGuard
from nnbackend.training.preparation import TrainingData
from nnbackend.training.state import TrainState


class Run:
    """The parts of a training run.

    data: its prepared data.  state: all that its next steps depend on.
    interrupt: set `interrupt.requested` to stop the run after the current steps.
    """

    def __init__(
        self, net: Network, data: TrainingData, config: TrainConfig, state: TrainState
    ) -> None:
        self.net, self.data, self.config, self.state = net, data, config, state
        self.interrupt = InterruptGuard()
