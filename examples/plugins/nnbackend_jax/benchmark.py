"""Time of a training step: this backend against JAX used directly.

    PYTHONPATH=.:backends python examples/plugins/nnbackend_jax/benchmark.py

Run it in the checkout, with the plug-in installed. Every contender trains the same network on the
same data in one process. They take turns for several rounds, and the table shows the best round of
each, because other programs can only make a round slower. An epoch draws a new order of the rows,
gathers each batch, and steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.peers import JAX
from nnbackend.bench.base import AbstractContender, library
from nnbackend.bench.contenders import OursOnNumPy
from nnbackend.bench.rows import Row, make_data, make_parameters, parse_rows

ROWS = "784-100-10:128,20-64-64-2:32,784-512-512-10:128,784-30-10:10"


class OursOnJax(OursOnNumPy):
    """The engine's ordinary training loop, as `nn.train(device="jax")` runs it."""

    name, title, device = "nnbackend-jax", 'nnbackend, device="jax"', "jax"


class JitHostBatches(JAX):
    """A loop in Python over one jitted step; NumPy gathers the next batch."""

    name, title = "jit-host", "jax.jit, batches from NumPy"

    def epochs(self, n: int) -> None:
        for _ in range(n):
            losses = [
                self._run(rows)
                for rows in self.rng.permutation(len(self.x)).reshape(-1, self.row.batch)
            ]
            sum(library("jax").device_get(losses))

    def _run(self, rows: Any) -> Any:
        self.state, loss = self._step(self.state, self.x[rows], self.y[rows])
        return loss


class JitDeviceBatches(JitHostBatches):
    """The same, but the step itself gathers the batch, from rows that stay on the device."""

    name, title = "jit-device", "jax.jit, batches gathered in the step"

    def prepare(self) -> None:
        super().prepare()
        self._gathered = library("jax").jit(
            lambda state, x, y, rows: self._update(state, x[rows], y[rows]), donate_argnums=0
        )

    def _run(self, rows: Any) -> Any:
        self.state, loss = self._gathered(self.state, self.rows, self.targets, rows)
        return loss


class JaxScan(JAX):
    """JAX at its best: an epoch is one compiled scan."""

    title = "jax.jit, an epoch as one scan"


CONTENDERS: tuple[type[AbstractContender], ...] = (
    OursOnJax, JitHostBatches, JitDeviceBatches, JaxScan,
)  # fmt: skip


def measure(row: Row, rounds: int) -> list[tuple[str, float, float, float]]:
    """Return each contender's title, seconds of its first epoch, and microseconds of a step.

    These are the least of all rounds: elapsed time, and processor time of all threads.
    """
    x, y = make_data(row)
    start = make_parameters(row)
    contenders = [contender(row, x, y, start) for contender in CONTENDERS]
    first = [_epoch(contender)[0] for contender in contenders]
    times: list[list[tuple[float, float]]] = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, found in zip(contenders, times, strict=True):
            found.append(_epoch(contender))
    results = []
    for contender, seconds, found in zip(contenders, first, times, strict=True):
        elapsed, processor = (1e6 * min(kind) / row.steps for kind in zip(*found, strict=True))
        results.append((contender.title, seconds, elapsed, processor))
    return results


def _epoch(contender: AbstractContender) -> tuple[float, float]:
    """Train for an epoch; return its elapsed time and its processor time in seconds."""
    elapsed, processor = time.perf_counter(), time.process_time()
    contender.epochs(1)
    return time.perf_counter() - elapsed, time.process_time() - processor


def main() -> None:
    """Print a table for each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=ROWS, help=f"default: {ROWS}")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    for row in parse_rows(options.rows):
        print(f"\n{row.title}, epochs of {row.steps} steps")
        print("| | first epoch, s | step, us | its processor time, us |\n|---|---|---|---|")
        for title, seconds, elapsed, processor in measure(row, options.rounds):
            print(f"| {title} | {seconds:.1f} | {elapsed:.0f} | {processor:.0f} |", flush=True)


if __name__ == "__main__":
    main()
