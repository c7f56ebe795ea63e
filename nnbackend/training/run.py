"""A training run as callbacks see it."""

from __future__ import annotations

from nnbackend.distributed import Communicator
from nnbackend.network.network import Network
from nnbackend.training.batching import batch_sizes
from nnbackend.training.config import TrainConfig
from nnbackend.training.history import History, Row
from nnbackend.training.interrupt import InterruptGuard
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.preparation import TrainingData
from nnbackend.training.ranks import Ranks
from nnbackend.training.state import TrainState


class Run:
    """The parts of a training run.

    data: its prepared data.  config: its checked options.
    state: all that its next steps depend on.
    interrupt: set `interrupt.requested` to stop the run after the current steps.
    ranks: the processes of the run if there are several, of which the first calls the callbacks.
    """

    def __init__(
        self,
        net: Network,
        data: TrainingData,
        config: TrainConfig,
        communicator: Communicator | None = None,
    ) -> None:
        self.net, self.data, self.config = net, data, config
        self.interrupt = InterruptGuard()
        self.ranks = None if communicator is None else Ranks(communicator, self.interrupt)
        if self.ranks is not None:
            self.ranks.check_start(net, data, config)
        n, rule, stopping = len(data.rows), config.optimizer, config.early_stopping
        batch_size = config.batch_rows(n)
        monitor = "train_loss" if data.validation is None else "valid_loss"
        if stopping is not None:
            monitor = stopping.monitor or monitor
        self.state = TrainState(
            net,
            () if isinstance(rule, LBFGS) else rule.state,
            History(monitor, batch_size=batch_size, seed=config.seed),
            sum(count for count, _ in batch_sizes(n, batch_size)),
            has_ema=config.ema is not None,
        )

    def agreed(self, row: Row) -> Row:
        """Return the row of an epoch; on several ranks that of the first, if all agree."""
        if self.ranks is None:
            return row
        self.ranks.check(self.state.theta, self.net.backend)
        self.ranks.agree(0)
        return self.ranks.agreed(row)

    def abort(self) -> None:
        """End the run after an interrupt within a step; on ranks, where others wait, raise it."""
        if self.ranks is not None:
            raise
        self.interrupt.requested = True

    def agree_on_stop(self) -> None:
        """End the run on all ranks if a callback of the first one has ended it."""
        if self.ranks is not None:
            self.state.history.stop_reason = self.ranks.agreed(self.state.history.stop_reason)
