"""The learning-rate finder: a short trial with a rate that grows at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.base import COUNT, MOMENTUM, RATE
from nnbackend.data import doors
from nnbackend.errors import ArgumentError, check
from nnbackend.network.network import Network
from nnbackend.training.batching import epoch_order
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.optimizers import get_optimizer

SMOOTH = 0.9  # each loss counts for a tenth in the running mean
STOP_AT = 4.0  # times the least loss so far: the trial has diverged


@dataclass(frozen=True)
class RateTrial:
    """What a trial found: rates (n,), smoothed losses (n,), and a rate to begin with."""

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

    x: raw rows, scaled as net.scaler says. Dropout is left out.
    Raises: ArgumentError for limits that enclose nothing, or a rule without a rate.
    Source: Smith 2017, section 3.3; the tenth is common practice, not in the paper.
    """
    rule = get_optimizer(optimizer)
    if isinstance(rule, LBFGS):
        raise ArgumentError("optimizer must have a learning rate. Received: lbfgs. Use 'sgd'.")
    check("low", low, lambda v: 0 < v < high < math.inf, f"above 0 and below high={high:g}")
    check("steps", steps, lambda v: v == int(v) and v >= 10, "a whole number, at least 10")
    trial, backend = net.to(net.backend), net.backend
    rows = doors.finite_rows(x, net.n_in, net.dtype, backend)
    rows = backend.to_host(rows) if backend.owns(rows) else rows
    if net.scaler is None:
        rows = np.ascontiguousarray(rows, net.dtype)
    else:
        rows = net.scaler.transform(rows, net.dtype)
    targets = net.host_targets(y, len(rows))
    batches = _batches(len(rows), min(batch_size, len(rows)), steps, seed)
    rates = np.geomspace(low, high, steps)
    state = [backend.zeros((net.layout.size,), net.dtype) for _ in rule.state]
    hyper, mean = np.zeros(3, backend.sum_dtype), 0.0
    losses: list[float] = []
    with np.errstate(over="ignore", invalid="ignore"):  # the largest rates are meant to fail
        for t, (rate, batch) in enumerate(zip(rates, batches, strict=True), start=1):
            gradient = trial.backprop(backend.to_device(rows[batch]), targets[batch])
            mean = SMOOTH * mean + (1 - SMOOTH) * gradient.loss
            loss = mean / (1 - SMOOTH**t)  # the running mean began at 0
            if not math.isfinite(loss) or (losses and loss > STOP_AT * min(losses)):
                break
            losses.append(loss)
            hyper[RATE], hyper[MOMENTUM], hyper[COUNT] = rate, rule.momentum, t
            backend.optimizer_step(
                rule, trial.theta, gradient.vector, state, backend.to_device(hyper), 0.0,
                net.layout.n_weights,
            )  # fmt: skip
    if not losses:
        raise ArgumentError("the first loss must be finite. Received: none. Scale the inputs.")
    best = rates[int(np.argmin(losses))]
    return RateTrial(rates[: len(losses)], np.array(losses), max(float(best) / 10.0, low))


def _batches(n: int, size: int, steps: int, seed: int) -> list[np.ndarray]:
    """Give the rows of each step: whole epochs in their order, one after another."""
    epochs = -(-steps * size // n) + 1
    order = np.concatenate([epoch_order(n, seed, e, True) for e in range(epochs)])
    return [order[t * size : (t + 1) * size] for t in range(steps)]
