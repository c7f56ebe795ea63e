"""The networks that are timed on a GPU, their data, and how a step's time is taken.

Every contender trains the same: ReLU layers, a linear output, C = 1/2 sum (y - a)^2 averaged over
the batch, momentum 0.9, all data on the device, batches drawn from an order that is there already.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATE, MOMENTUM = 1e-4, 0.9
WARM_UP, REPEATS = 1.0, 5  # seconds of load before a process's first measurement; measurements
WIDE = 2048  # from this width on, two batches of data are enough: they take seconds to draw


@dataclass(frozen=True)
class Row:
    """A row of the table: the widths of the layers, and the rows of a batch."""

    widths: tuple[int, ...]
    batch: int

    @classmethod
    def parse(cls, text: str) -> Row:
        """Return the row that `784-100-10:128` names. Raises: ValueError for anything else."""
        widths, _, batch = text.partition(":")
        row = cls(tuple(int(width) for width in widths.split("-")), int(batch))
        if len(row.widths) < 2 or min(*row.widths, row.batch) < 1:
            raise ValueError(f"a row is WIDTHS:BATCH, as 784-100-10:128. Received: {text!r}")
        return row

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.widths))}:{self.batch}"

    @property
    def n_rows(self) -> int:
        """How many rows of data it is trained on."""
        most = 0 if max(self.widths) >= WIDE else min(60_000, 400 * self.batch)
        return max(2 * self.batch, most // self.batch * self.batch)

    @property
    def multiplications(self) -> int:
        """The multiplications of the products of one step."""
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        forward = sum(n_in * n_out for n_in, n_out in pairs)
        return self.batch * (3 * forward - pairs[0][0] * pairs[0][1])

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x (n, I) and y (n, O), standard normal float32."""
        rng = np.random.default_rng(0)
        return tuple(
            rng.standard_normal((self.n_rows, width), np.float32)
            for width in (self.widths[0], self.widths[-1])
        )  # type: ignore[return-value]


TABLE = (
    *("784-30-10:10", "784-100-10:128", "20-64-64-2:32", "20-64-64-2:256", "784-512-512-10:128"),
    *("784-512-512-10:1024", "784-2500-2000-1500-1000-500-10:100", "64-64-64-64-1:1024"),
    *("64-64-64-64-1:65536", "-".join(["4096"] * 9) + ":8192"),
)
TINY = ("8-6-3:16", "8-6-6-1:64")


_is_warm: list[bool] = []


def microseconds(
    run: Callable[[int], None], wait: Callable[[], None], seconds: float = 0.3
) -> dict[str, float]:
    """Return the microseconds of one step: the median of five measurements, least and most.

    run(n) starts n steps, wait() returns when they are done. The clocks of a GPU that has rested
    are slow, so it is kept busy for a second before the first measurement of a process, and for
    `seconds` before each other.
    """
    n, begin = 1, time.perf_counter()
    per_step, load = 0.0, seconds if _is_warm else seconds * WARM_UP / 0.3
    while time.perf_counter() - begin < load:
        start = time.perf_counter()
        run(n)
        wait()
        per_step = (time.perf_counter() - start) / n
        n = min(2 * n, max(1, int(seconds / max(per_step, 1e-9))))
    _is_warm.append(True)
    n, times = max(1, round(seconds / max(per_step, 1e-9))), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(n)
        wait()
        times.append(1e6 * (time.perf_counter() - start) / n)
    return {"us": statistics.median(times), "least": min(times), "most": max(times), "steps": n}
