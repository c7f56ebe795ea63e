"""Short runs of small dense networks, controlled step by step by a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.training.api import new_trainer
from nnbackend.training.batching import epoch_order
from nnbackend.training.config import TrainConfig
from nnbackend.training.step_runner import StepRunner

Widths = tuple[int, *tuple[tuple[int, str], ...]]
CLASSES: Widths = (6, (9, "tanh"), (3, "softmax"))


class ShortRun:
    """A training run; `steps` makes steps on its full batches.

    Both dtypes start from the same float32 weights.
    """

    def __init__(
        self,
        device: Any,
        widths: Widths = CLASSES,
        loss: str = "cross_entropy",
        *,
        dtype: str = "float32",
        data: str = "float32",
        n: int = 48,
        rows: int = 10,
        weighted: bool = False,
        scale: str | None = None,
        **config: Any,
    ) -> None:
        layers = [nn.Dense(*layer) for layer in widths[1:]]
        self.net = nn.Network([widths[0], *layers], loss, device=device, dtype=dtype, seed=4)
        drawn = nn.Network([widths[0], *layers], loss, device="numpy", dtype="float32", seed=4)
        backend = self.backend = self.net.backend
        theta = drawn.backend.to_host(drawn.theta)
        backend.to_device(theta.astype(dtype), out=self.net.theta)
        rng = np.random.default_rng(0)
        drawn_x = rng.standard_normal((n, widths[0]))
        x = drawn_x.astype(np.float32) if data == "float32" else (drawn_x > 0).astype(data)
        y = _targets(rng, x, widths[-1][0], loss)
        config = {"epochs": 3, "batch_size": rows, "seed": 6, **config}
        weight = rng.random(n).astype(np.float32) if weighted else None
        self.trainer = new_trainer(
            self.net, x, y, TrainConfig(**config), sample_weight=weight, scale=scale
        )
        self.n, self.rows, self.made = n, rows, 0
        assert isinstance(self.trainer.runner, StepRunner)
        self.runner, self.builder = self.trainer.runner, self.trainer.runner.builder

    def steps(self, run: Callable[[int], None], *parts: int) -> None:
        """Run steps in launches of the given numbers of steps, each within an epoch."""
        for n in parts:
            epoch, batch = divmod(self.made, self.n // self.rows)
            if not batch:
                self.begin_epoch(epoch)
            run(n)
            self.made += n

    def begin_epoch(self, epoch: int) -> None:
        """Set the order of the rows, the rates, and the clock before the first batch."""
        backend = self.backend
        backend.to_device(self.runner.new_rates(), out=self.builder.rates)
        backend.to_device(np.array([self.made, -1]), out=self.trainer.state.clock)
        self.runner.loader.begin_epoch(epoch_order(self.n, 6, epoch, True))

    def step(self, rows: int | None = None) -> Callable[[], None]:
        """Return a step on a full batch, or on `rows` rows."""
        rows = rows or self.rows
        return self.builder.new_step(rows, rows)

    def captured(self, rows: int | None = None) -> Callable[[int], None]:
        """Return the same step, captured."""
        return self.backend.capture(self.step(rows))

    def state(self) -> dict[str, np.ndarray]:
        """Return all arrays that a step changes."""
        state = self.trainer.state
        arrays = {"theta": self.net.theta, "clock": state.clock, "hyper": self.builder.hyper}
        arrays |= state.optimizer | {"totals": state.sums.totals}
        return {name: self.backend.to_host(array) for name, array in arrays.items()}


def _targets(rng: np.random.Generator, x: np.ndarray, n_out: int, loss: str) -> np.ndarray:
    drawn = x.astype(np.float64) @ rng.standard_normal((x.shape[1], n_out))
    if loss == "cross_entropy":
        return np.asarray(drawn.argmax(axis=1))
    if loss == "binary_cross_entropy":
        return np.asarray(drawn > 0).astype(np.float32)
    return np.asarray(np.tanh(drawn)).astype(np.float32)


def differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the differences of two states, each array relative to its largest number."""
    return {
        name: float(np.abs(a[name] - b[name]).max() / max(np.abs(b[name]).max(), 1e-300))
        for name in b
        if a[name].tobytes() != b[name].tobytes()
    }
