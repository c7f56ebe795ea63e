"""The learning-rate finder: a short trial run in which the rate grows at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnbackend import validation
from nnbackend.backend.base import COUNT, MOMENTUM, RATE
from nnbackend.backend.formulas import Array
from nnbackend.errors import ArgumentError
from nnbackend.network.network import Network
from nnbackend.options import check
from nnbackend.training.batching import epoch_order
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.micro_batches import halving
from nnbackend.training.optimizers import Optimizer, get_optimizer

SMOOTH = 0.9  # decay of the running mean of the losses
STOP_AT = 4.0  # the trial has diverged when the loss exceeds the least so far times this


@dataclass(frozen=True)
class RateTrial:
    """The result of a trial: rates (n,), smoothed losses (n,) and the suggested rate."""

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float


def find_learning_rate(
    net: Network,
    x: Any,
    y: Any,
    *,
    optimizer: Any = "adam",
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 150,
    batch_size: int = 32,
    seed: int = 0,
) -> RateTrial:
    """Try rates from low to high, one mini-batch each, on a copy of the network.

        rate_t = low (high / low)^(t / (steps - 1));  suggestion = (rate of the least loss) / 10

    x, y: as for `nnbackend.train`. Dropout is off.
    Raises: ArgumentError unless low < high, and for an optimizer without a learning rate.
    Source: Smith 2017, section 3.3; the factor 1/10 is common practice, not in the paper.
    """
    rule = get_optimizer(optimizer)
    if isinstance(rule, LBFGS):
        raise ArgumentError("optimizer must have a learning rate. Received: lbfgs. Use 'sgd'.")
    check("low", low, lambda v: 0 < v < high < math.inf, f"above 0 and below high={high:g}")
    check("steps", steps, lambda v: v == int(v) and v >= 10, "a whole number, at least 10")
    trial, backend = net.to(net.backend), net.backend
    x = validation.finite_rows(x, net.n_in, net.dtype, backend)
    rows = backend.to_host(x) if backend.owns(x) else x
    n = int(rows.shape[0])
    targets = validation.targets(y, n, net.target_form, backend)
    batches = _batches(n, min(batch_size, n), steps, seed)
    rates = np.geomspace(low, high, steps)
    losses = _losses(trial, rule, rows, targets, batches, rates)
    if not losses:
        raise ArgumentError("the first loss must be finite. Received: none. Scale the inputs.")
    best = rates[int(np.argmin(losses))]
    return RateTrial(rates[: len(losses)], np.array(losses), max(float(best) / 10.0, low))


def _losses(
    net: Network,
    rule: Optimizer,
    rows: Any,
    targets: np.ndarray,
    batches: list[np.ndarray],
    rates: np.ndarray,
) -> list[float]:
    """Return the smoothed loss before each step, until the trial diverges."""
    backend, n_weights = net.backend, net.layout.n_weights
    state = [backend.zeros((net.layout.size,), net.dtype) for _ in rule.state]
    hyper, mean, at_once = np.zeros(3, backend.sum_dtype), 0.0, batches[0].size
    losses: list[float] = []
    with np.errstate(over="ignore", invalid="ignore"):  # the largest rates are expected to diverge
        for t, (rate, batch) in enumerate(zip(rates, batches, strict=True), start=1):
            part = np.ascontiguousarray(rows[batch], net.dtype)
            attempt = partial(_gradient, net, part, targets[batch])
            (of_batch, vector), at_once = halving(backend, at_once, attempt)
            mean = SMOOTH * mean + (1 - SMOOTH) * of_batch
            loss = mean / (1 - SMOOTH**t)  # corrects for the running mean's start at 0
            if not math.isfinite(loss) or (losses and loss > STOP_AT * min(losses)):
                break
            losses.append(loss)
            hyper[RATE], hyper[MOMENTUM], hyper[COUNT] = rate, rule.momentum, t
            on_device = backend.to_device(hyper)
            backend.optimizer_step(rule, net.theta, vector, state, on_device, 0.0, n_weights)
    return losses


def _gradient(net: Network, x: np.ndarray, y: np.ndarray, most: int) -> tuple[float, Array]:
    """Return the loss and the gradient (P,) of rows x, in parts of at most `most` rows."""
    loss, vector = 0.0, net.backend.zeros((net.layout.size,), net.dtype)
    for start in range(0, len(x), most):
        part = slice(start, start + most)
        share = len(x[part]) / len(x)
        gradient = net.backprop(net.backend.to_device(x[part]), y[part])
        loss += share * gradient.loss
        with net.backend.active():
            vector[...] = vector + share * gradient.vector
    return loss, vector


def _batches(n: int, size: int, steps: int, seed: int) -> list[np.ndarray]:
    """Return the row indices of each step, from consecutive shuffled epochs."""
    epochs = -(-steps * size // n) + 1
    order = np.concatenate([epoch_order(n, seed, e, True) for e in range(epochs)])
    return [order[t * size : (t + 1) * size] for t in range(steps)]
