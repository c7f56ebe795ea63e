"""One step of gradient descent: from a mini-batch to updated weights."""

from __future__ import annotations

from collections.abc import Callable

from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource
from nnbackend.training.batching import BatchLoader
from nnbackend.training.config import TrainConfig
from nnbackend.training.micro_batches import new_divided_pass
from nnbackend.training.ranks import Ranks, new_shared_pass
from nnbackend.training.state import TrainState

Step = Callable[[], None]


class StepBuilder:
    """Builds the steps of a run, one for each number of rows, on shared arrays.

    grad (P,): the gradient.  hyper (3,): learning rate, momentum and count of the current step.
    rates (2, steps): learning rate and momentum of each step of the epoch.
    """

    def __init__(
        self, net: Network, loader: BatchLoader, config: TrainConfig, state: TrainState,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.ranks = ranks
        self.net, self.loader, self.config, backend = net, loader, config, net.backend
        # Not the state itself: that of L-BFGS refers back to this object.
        self.clock, self.totals = state.clock, state.sums.totals
        self.vectors, self.ema_weights = list(state.optimizer.values()), state.ema_weights
        self.grad = backend.zeros((net.layout.size,), net.dtype)
        self.hyper = backend.zeros((3,), backend.sum_dtype)
        self.rates = backend.zeros((2, state.steps_per_epoch), backend.sum_dtype)

    def new_step(self, rows: int, at_once: int) -> Step:
        """Return one step of gradient descent on `rows` rows, in parts of at most `at_once`."""
        net, config, backend, totals = self.net, self.config, self.net.backend, self.totals
        theta, grad, clock, rates, hyper = net.theta, self.grad, self.clock, self.rates, self.hyper
        vectors, ema_weights, ema = self.vectors, self.ema_weights, config.ema
        n_weights = net.layout.n_weights
        (l1, l2), decay = config.penalty(rows), config.decay
        limits = [(W, c) for W, c in zip(net.weights, config.norm_limits(net), strict=True) if c]
        compute_gradient = self.new_pass(rows, at_once, DropoutSource(config.seed, clock))

        def step() -> None:
            backend.tick(clock, rates, hyper)  # count the step, look up its learning rate
            compute_gradient()  # feed forward and backpropagate the rows of this mini-batch
            if l1 or l2:
                backend.add_penalty(theta[:n_weights], grad[:n_weights], l1, l2, rows, totals)
            if config.clip_norm:
                backend.clip_norm(grad, config.clip_norm)
            backend.optimizer_step(config.optimizer, theta, grad, vectors, hyper, decay, n_weights)
            for W, limit in limits:
                backend.max_norm(W, limit)
            if ema_weights is not None and ema is not None:
                backend.average(theta, ema_weights, ema, hyper)

        return step

    def new_pass(self, rows: int, at_once: int, dropout: DropoutSource | None) -> Step:
        """Return the computation of the gradient of `rows` rows, in parts of at most `at_once`."""
        net, loader, backend = self.net, self.loader, self.net.backend
        grad, clock, totals = self.grad, self.clock, self.totals
        if self.ranks is not None:
            return new_shared_pass(
                net, loader, rows, self.ranks,
                grad=grad, clock=clock, totals=totals, dropout=dropout,
            )  # fmt: skip
        if at_once < rows:
            return new_divided_pass(
                net, loader, rows, at_once, grad=grad, clock=clock, totals=totals, dropout=dropout
            )
        batch = loader.new_batch(rows)
        layers, loss = net.for_training()
        space = net.workspace(batch.x, layers, grad=grad, dropout=dropout)

        def compute_gradient() -> None:
            loader.load(batch, clock)  # the rows of this mini-batch
            out = space.forward()  # feed forward
            backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, totals)
            space.backward()  # backpropagate

        return compute_gradient
