"""The run of L-BFGS: one iteration on all rows is one epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nnbackend.backend.base import LOSS, PENALTY, WEIGHT
from nnbackend.network.network import Network
from nnbackend.training.batching import BatchLoader
from nnbackend.training.config import TrainConfig
from nnbackend.training.lbfgs import LBFGSSteps
from nnbackend.training.micro_batches import halving, log_divided
from nnbackend.training.ranks import Ranks
from nnbackend.training.state import TrainState
from nnbackend.training.step import Step, StepBuilder


class LBFGSRunner:
    """Runs one iteration of L-BFGS an epoch; an interrupt takes effect after it."""

    learning_rate = 1.0  # the line search finds the step lengths
    first_step_end = 0.0

    def __init__(
        self, net: Network, loader: BatchLoader, config: TrainConfig, state: TrainState,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.state, builder = state, StepBuilder(net, loader, config, state, ranks)
        self.steps = state.lbfgs = LBFGSSteps(
            config.optimizer, net.backend, net.theta, builder.grad, new_objective(builder)
        )

    def run_epoch(self) -> Iterator[None]:
        """Run the iteration of this epoch, unless a resumed run has completed it."""
        if not self.state.step_in_epoch:
            with np.errstate(over="ignore", invalid="ignore"):  # a trial step may be too long
                self.steps.iterate()
            self.state.step_in_epoch = 1
        yield from ()

    def can_free_memory(self) -> bool:
        """Return False: no steps are prepared."""
        return False

    def free_memory(self) -> None:
        """Do nothing."""


def new_objective(builder: StepBuilder) -> Callable[[], float]:
    """Return the function that L-BFGS minimises: mean loss and penalty, and their gradient.

    The returned function writes the gradient into builder.grad.
    """
    net, loader, backend, totals = (
        builder.net, builder.loader, builder.net.backend, builder.totals
    )  # fmt: skip
    n = at_once = loader.n
    weights, slopes = (vector[: net.layout.n_weights] for vector in (net.theta, builder.grad))
    l1, l2 = builder.config.penalty(n)
    passes: dict[int, Step] = {}

    def attempt(most: int) -> None:
        if most not in passes:
            passes.clear()  # releases the memory of larger parts
            passes[most] = builder.new_pass(n, most, dropout=None)
        backend.fill(totals, 0.0)
        passes[most]()

    def objective() -> float:
        nonlocal at_once
        before = at_once
        _, at_once = halving(backend, before, attempt)
        if at_once < before:
            log_divided(backend, n, at_once)
        if l1 or l2:
            backend.add_penalty(weights, slopes, l1, l2, n, totals)
        sums = backend.to_host(totals)
        return float(sums[LOSS] / sums[WEIGHT] + sums[PENALTY] / n)

    return objective
