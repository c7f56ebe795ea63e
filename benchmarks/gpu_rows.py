"""The networks that are timed on a GPU, their data, and the measurement of a step's time.

Every contender trains the same network from the same weights: ReLU layers, a linear output,
C = 1/2 sum (y - a)^2 averaged over the batch, momentum 0.9; data and batch order on the device.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LEARNING_RATE, MOMENTUM = 1e-4, 0.9
UNROLLED = 16  # steps of one graph
LOSS_ROWS = 16_384  # rows whose loss is reported, at most
WIDE = 2048  # inputs; wider networks have little data and few steps per round
EACH = float(os.environ.get("NNBACKEND_GPU_EACH", "0.3"))  # seconds of a measurement
TABLE = (
    *("784-30-10:10", "784-100-10:128", "20-64-64-2:32", "20-64-64-2:256", "784-512-512-10:128"),
    *("784-512-512-10:1024", "784-2500-2000-1500-1000-500-10:100", "64-64-64-64-1:1024"),
    *("64-64-64-64-1:65536", "-".join(["4096"] * 9) + ":8192"),
)
TINY = ("8-6-3:16", "8-6-6-1:64")


@dataclass(frozen=True)
class Work:
    """One row of the table: the network, its initial weights, the data and the batches."""

    layers: list[int]
    batch: int
    x: np.ndarray  # (n, layers[0])
    y: np.ndarray  # (n, layers[-1])
    windows: np.ndarray  # (steps, batch), int64: the rows of each batch
    theta: list[tuple[np.ndarray, np.ndarray]]  # W (I, O) and b (O,) of each layer

    @property
    def multiplications(self) -> int:
        """Multiplications of the products of one step, without dx of layer 1."""
        pairs = list(pairwise(self.layers))
        return self.batch * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])

    @property
    def seen(self) -> np.ndarray:
        """Rows for the reported loss: the first training rows of a round."""
        rows: np.ndarray = self.windows.reshape(-1)[:LOSS_ROWS]
        return rows


@dataclass(frozen=True)
class Form:
    """A way to run steps: `run()` launches `steps` steps without synchronization."""

    name: str
    steps: int
    run: Callable[[], None]


def parse_row(row: str) -> tuple[list[int], int]:
    """Return layer widths and batch size of a row such as `784-100-10:128`."""
    widths, _, batch = row.partition(":")
    numbers = [*widths.split("-"), batch]
    if len(numbers) < 3 or not all(word.isdecimal() and int(word) > 0 for word in numbers):
        raise ValueError(f"A row must be widths and batch size, like 784-100-10:128. {row=}")
    return [int(word) for word in numbers[:-1]], int(batch)


def data_size(layers: list[int], batch: int, is_emulated: bool = False) -> int:
    """Return the number of rows of data: 400 batches, fewer for large batches."""
    if layers[0] >= WIDE:
        return 2 * batch
    return max(2 * batch, min(60_000, (8 if is_emulated else 400) * batch))


def make_work(row: str, is_emulated: bool = False) -> Work:
    """Return the row's work, the same for every contender, including the initial weights."""
    layers, batch = parse_row(row)
    n, rng = data_size(layers, batch, is_emulated), np.random.default_rng(0)
    x = rng.standard_normal((n, layers[0]), np.float32)
    y = rng.standard_normal((n, layers[-1]), np.float32)
    n_windows = n // batch
    windows = rng.permutation(n)[: n_windows * batch].reshape(n_windows, batch)
    unit = 4 if layers[0] >= WIDE else UNROLLED
    steps = unit * max(1, n_windows // unit)
    theta = [
        ((rng.random((n_in, n_out), np.float32) * 2 - 1) * np.float32(math.sqrt(3 / n_in)),
         np.zeros(n_out, np.float32))
        for n_in, n_out in pairwise(layers)
    ]  # fmt: skip
    return Work(layers, batch, x, y, windows[np.arange(steps) % n_windows], theta)


def measure(
    form: Form, wait: Callable[[], None], seconds: float, warm_up: float, rounds: int = 5
) -> tuple[list[float], int]:
    """Return the seconds per step of each measurement, and the steps of one measurement.

    Warm up for `warm_up` seconds; a measurement takes at least `seconds`, with one synchronization.
    """

    def timed(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            form.run()
        wait()
        return time.perf_counter() - begin

    calls, spent = 1, 0.0
    while True:
        took = timed(calls)
        spent += took
        if spent >= warm_up and took >= seconds / 5:
            break
        calls = max(1, min(8 * calls, math.ceil(seconds / 4 * calls / took)))
    calls = max(1, math.ceil(1.1 * seconds * calls / took))
    found: list[float] = []
    while len(found) < rounds:
        took = timed(calls)
        if took >= seconds:
            found.append(took / calls / form.steps)
        else:  # faster than in the warm-up
            calls, found = math.ceil(1.2 * calls * seconds / took), []
    return found, calls * form.steps
