"""Our microseconds per step, on every row, with and without each optimization."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, how_it_ran, measured, new_backend
from benchmarks.gpu_rows import LEARNING_RATE, MOMENTUM, TABLE, TINY, Form, Work, make_work

MOST_TICKS = 64  # in a row without a new round
NARROW, LARGE = TABLE[:4] + TABLE[7:8], TABLE[5:7] + TABLE[8:9]
# Precision, switches and rows of each contender.
CONTENDERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "ours": ("float32", {}, TABLE),
    "ours-tf32": ("tf32", {}, TABLE),
    "ours-general": ("float32", {"narrow": False}, NARROW),
    "ours-untall": ("float32", {"tall": False}, TABLE[8:9]),
    "ours-tf32-untall": ("tf32", {"tall": False}, TABLE[8:9]),
    "ours-unfused": ("float32", {"narrow": False, "fused": False}, TABLE[:9]),
    "ours-unforked": ("float32", {"forks": False}, TABLE[4:5] + LARGE),
    # The kernel for narrow networks with each kind of grid: one block, a cluster, many blocks.
    "ours-block": ("float32", {"grid": "0:1:512"}, NARROW),
    "ours-cluster": ("float32", {"grid": "1:8:512"}, NARROW),
    "ours-cluster-256": ("float32", {"grid": "1:8:256"}, NARROW),
    "ours-grid-32": ("float32", {"grid": "2:32:256"}, NARROW),
    "ours-grid-64": ("float32", {"grid": "2:64:256"}, NARROW),
}


def pairs(is_emulated: bool) -> list[str]:
    """Return the names `ROW CONTENDER` of all measurements: the table, then the comparisons."""
    rows = TINY if is_emulated else TABLE
    found = [f"{row} {contender}" for row in rows for contender in ("ours", "ours-tf32")]
    for contender, (_, switches, own) in CONTENDERS.items():
        if is_emulated and "grid" in switches:
            continue  # hundreds of emulated threads
        found += [f"{row} {contender}" for row in rows if is_emulated or row in own]
    return list(dict.fromkeys(found))


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Yield a task for each `ROW CONTENDER` in words, or for all."""
    for pair in words or pairs(is_emulated):
        row, contender = pair.split()
        yield pair, lambda r=row, c=contender: speed(is_emulated, r, c)


class Training:
    """A training run whose rounds can be repeated: the clock is reset before each."""

    def __init__(self, backend: Any, row: str, is_emulated: bool) -> None:
        import nnbackend as nn
        from nnbackend.training.api import new_trainer
        from nnbackend.training.config import TrainConfig
        from nnbackend.training.step_runner import StepRunner

        work = _work(row, is_emulated)
        net = nn.Network(
            list(work.layers), "quadratic", activation="relu", device=backend, dtype="float32"
        )
        net.set_parameters(*map(list, zip(*work.theta, strict=True)))
        rule = nn.SGD(LEARNING_RATE, momentum=MOMENTUM)
        config = TrainConfig(optimizer=rule, epochs=1, batch_size=work.batch)
        trainer = new_trainer(net, work.x, work.y, config)
        # The order of all contenders; a round may pass over the data several times.
        self.steps = len(work.windows)
        assert isinstance(trainer.runner, StepRunner)
        runner = trainer.runner
        runner.loader.order = backend.to_device(work.windows.reshape(-1))
        n_rates = max(self.steps, MOST_TICKS)
        rates = np.repeat([[LEARNING_RATE], [MOMENTUM]], n_rates, axis=1)
        runner.builder.rates = backend.to_device(rates)
        self.backend, self._clock, self._net = backend, trainer.state.clock, net
        self._runner, self._rows = runner, work.batch
        self._seen = work.x[work.seen], work.y[work.seen]

    def run(self, n: int) -> None:
        """Run the first n steps of a round."""
        self.reset()
        self._runner.run_steps(self._rows, n)

    def reset(self) -> None:
        """Set the clock to the start of a round."""
        self.backend.to_device(np.array([0, -1]), out=self._clock)

    def form(self) -> Form:
        """Return a round as a form to time."""
        return Form("round", self.steps, lambda: self.run(self.steps))

    def loss(self) -> float:
        """Return the loss of the rows seen first."""
        return self._net.evaluate(*self._seen)["loss"]


@lru_cache(maxsize=1)
def _work(row: str, is_emulated: bool) -> Work:
    return make_work(row, is_emulated)


def speed(is_emulated: bool, row: str, contender: str) -> Answer:
    """Time one contender on one row; its loss must fall, and every step must be captured."""
    precision, switches, _ = CONTENDERS[contender]
    backend = new_backend(is_emulated, precision, **switches)
    training = Training(backend, row, is_emulated)
    loss = {"first": training.loss()}
    training.run(training.steps)
    loss[f"after_{training.steps}_steps"] = after = training.loss()
    found, steps = measured(training.form(), backend, is_emulated)
    loss["last"], ran = training.loss(), how_it_ran(backend)
    has_learnt = loss["first"] > after and loss["first"] > loss["last"]
    wrong = [*ran["wrong"], *([] if has_learnt else ["the loss does not fall"])]
    return {**found, **ran, "steps": steps, "wrong": wrong, "ok": not wrong, "loss": loss}
