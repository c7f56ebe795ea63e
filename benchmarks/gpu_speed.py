"""Our microseconds by the step, on every row, with and without each way of making it faster."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, how_it_ran, new_backend
from benchmarks.gpu_rows import MOMENTUM, RATE, TABLE, TINY, Row, microseconds

NARROW, LARGE = TABLE[:4] + TABLE[7:8], TABLE[5:7] + TABLE[9:]
# Precision, switches and rows of each contender.
CONTENDERS: dict[str, tuple[str, dict[str, bool], tuple[str, ...]]] = {
    "ours": ("float32", {}, TABLE),
    "ours-tf32": ("tf32", {}, TABLE),
    "ours-bf16": ("bf16", {}, LARGE),
    "ours-tuned": ("float32", {"tuned": True}, TABLE[1:2] + TABLE[4:]),
    "ours-tf32-tuned": ("tf32", {"tuned": True}, LARGE),
    "ours-unforked": ("float32", {"forks": False}, TABLE[1:2] + TABLE[4:9]),
    "ours-general": ("float32", {"narrow": False}, NARROW),
}


def pairs(is_emulated: bool) -> list[str]:
    """Return what there is to time, as `ROW CONTENDER`, row by row."""
    rows = TINY if is_emulated else TABLE
    return [
        f"{row} {contender}"
        for row in rows
        for contender, (_, _, own) in CONTENDERS.items()
        if is_emulated or row in own
    ]


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Give a task for each `ROW CONTENDER`; words name some, else all."""
    for pair in words or pairs(is_emulated):
        row, contender = pair.split()
        yield pair, lambda r=row, c=contender: speed(is_emulated, r, c)


@lru_cache(maxsize=1)
def _data(row: Row) -> tuple[np.ndarray, np.ndarray]:
    return row.data()


class Training:
    """A training run whose steps can be made at will: the clock goes back before each epoch."""

    def __init__(self, backend: Any, row: Row) -> None:
        import nnbackend as nn
        from nnbackend.training.micro_batches import new_run
        from nnbackend.training.recipe import Recipe
        from nnbackend.training.trainer import Trainer

        x, y = _data(row)
        net = nn.Network(
            list(row.widths), "quadratic", activation="relu", device=backend, dtype="float32"
        )
        recipe = Recipe(nn.SGD(RATE, momentum=MOMENTUM), 1, row.batch)
        self.trainer = trainer = Trainer(net, x, y, recipe)
        self.backend, self.steps = backend, trainer.steps_per_epoch
        backend.to_device(trainer._epoch_rates(), out=trainer.rates)
        trainer.feed.begin_epoch(np.random.default_rng(0).permutation(len(x)))
        self._run = new_run(trainer, row.batch)

    def run(self, n: int) -> None:
        """Make n steps."""
        while n:
            some = min(n, self.steps)
            self.backend.to_device(np.array([0, -1]), out=self.trainer.clock)
            self._run(some)
            n -= some

    def loss(self) -> float:
        """Return the mean loss since the last call."""
        sums = self.backend.to_host(self.trainer.totals)
        self.backend.fill(self.trainer.totals, 0.0)
        return float(sums[0] / sums[1])


def speed(is_emulated: bool, row: str, contender: str) -> Answer:
    """Time one contender on one row; its loss must fall, and every step must be recorded."""
    precision, switches, _ = CONTENDERS[contender]
    backend = new_backend(is_emulated, precision, **switches)
    training = Training(backend, Row.parse(row))
    training.run(training.steps)
    first = training.loss()
    found = microseconds(training.run, backend.synchronize, 0.02 if is_emulated else 0.3)
    training.loss()
    training.run(training.steps)
    last, ran = training.loss(), how_it_ran(backend)
    wrong = [*ran["wrong"], *(["the loss does not fall"] if not last < first else [])]
    return {**found, **ran, "wrong": wrong, "ok": not wrong, "loss": [first, last]}
