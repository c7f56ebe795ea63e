"""Times the kernel for narrow networks on a GPU, on every grid, beside the separate kernels.

PYTHONPATH=.:backends:tests/cuda python -m narrow_times [--quick]

A line for each network and grid: microseconds a step (median of 5), and how far theta is from that
of the separate kernels after 10 steps. `--emulated` runs a few steps on the emulator instead, which
checks this program.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from narrow_runs import ShortRun, Widths

from nnbackend_cupy.narrow_source import BLOCK, CLUSTER, GRID, Grid

ROWS: tuple[tuple[Widths, str, str, int], ...] = (
    ((784, (30, "sigmoid"), (10, "softmax")), "cross_entropy", "uint8", 10),
    ((784, (100, "relu"), (10, "softmax")), "cross_entropy", "uint8", 128),
    ((20, (64, "relu"), (64, "relu"), (2, "softmax")), "cross_entropy", "float32", 32),
    ((20, (64, "relu"), (64, "relu"), (2, "softmax")), "cross_entropy", "float32", 256),
    ((64, (64, "tanh"), (64, "tanh"), (64, "tanh"), (1, "identity")), "quadratic", "float32", 256),
    ((64, (64, "tanh"), (64, "tanh"), (64, "tanh"), (1, "identity")), "quadratic", "float32", 1024),
)
NAMES = {BLOCK: "block", CLUSTER: "cluster", GRID: "grid"}
STEPS = 200  # of an epoch


def grids(multiprocessors: int, is_quick: bool) -> Iterator[Grid | None]:
    """Give the grids to try: first the separate kernels (None)."""
    yield None
    for threads in (256,) if is_quick else (256, 512):
        for loads in (16,) if is_quick else (8, 16):
            yield Grid(BLOCK, 1, threads, loads)
            yield Grid(CLUSTER, 8, threads, loads)
            for blocks in (16, 32, 64, multiprocessors):
                yield Grid(GRID, min(blocks, multiprocessors), threads, loads)


def seconds(run: ShortRun, captured: Callable[[int], None], n: int, at_least: float) -> float:
    """Give the seconds of a step: whole epochs, for so long, the median of 5."""
    measured = []
    for _ in range(5):
        epochs, begin, now = 0, time.perf_counter(), 0.0
        while not epochs or now < at_least:
            run.begin_epoch(0)
            captured(n)
            run.backend.synchronize()
            epochs, now = epochs + 1, time.perf_counter() - begin
        measured.append(now / epochs / n)
    return statistics.median(measured)


def lines(new_backend: Callable[[], Any], is_emulated: bool, is_quick: bool) -> Iterator[str]:
    """Give the table, line by line."""
    steps, at_least = (4, 0.0) if is_emulated else (STEPS, 0.1)
    for widths, loss, data, rows in ROWS[: 1 if is_emulated else None]:
        name = "-".join([str(widths[0]), *(str(layer[0]) for layer in widths[1:])])
        wanted: np.ndarray | None = None
        backend = new_backend()
        sizes = [3] if is_emulated else [backend._narrow._device.multiprocessors]
        for grid in grids(sizes[0], is_quick):
            backend.uses_narrow, backend.narrow_grid = grid is not None, grid
            what = "separate" if grid is None else f"{NAMES[grid.barrier]} {grid.blocks:3}"
            what += "" if grid is None else f" x {grid.threads}, {grid.loads:2} loads"
            try:
                run = ShortRun(backend, widths, loss, data=data, n=steps * rows, rows=rows)
                captured = run.captured()
                run.steps(captured, min(10, steps))
                theta = backend.to_host(run.net.theta)
                wanted = theta if wanted is None else wanted
                apart = np.abs(theta - wanted).max() / np.abs(wanted).max()
                us = 1e6 * seconds(run, captured, steps, at_least)
                reason = backend.narrow_reason if grid is not None else None
                text = f"{us:9.2f} us {apart:9.1e} {reason or ''}"
            except Exception as error:  # one grid must not end the table
                text = f"{type(error).__name__}: {error}"
            yield f"{name:16} {rows:5} {what:26} {text}"


def main(arguments: list[str]) -> None:
    """Print the table."""
    is_emulated = "--emulated" in arguments
    if is_emulated:
        from stand_in_backend import new_backend
    else:
        from nnbackend_cupy.backend import CuPyBackend as new_backend
    for line in lines(new_backend, is_emulated, "--quick" in arguments or is_emulated):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
