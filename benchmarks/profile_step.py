"""Profile a CPU step: every operation of the recorded step, timed separately.

    python -m benchmarks.profile_step 784-100-10:128

All workers repeat each operation alone, so only the last lines include the cost of data transfers
between cores from one operation to the next: the whole step, compared with the sum of its parts.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nnbackend.bench.contenders import OursOnNumba
from nnbackend.bench.rows import Row, make_data, make_parameters, parse_row

BEST_OF, SECONDS = 7, 0.02
Lines = np.ndarray


def seconds_of(work: Callable[[int], None]) -> float:
    """Return the minimum seconds of one step of n, with n large enough to be timed."""
    n, times = 3, [0.0]
    while n * times[0] < SECONDS:  # starting threads must not count
        n, times = 4 * n, []
        begin = time.perf_counter()
        work(n)
        times.append((time.perf_counter() - begin) / n)
    for _ in range(BEST_OF):
        begin = time.perf_counter()
        work(n)
        times.append((time.perf_counter() - begin) / n)
    return min(times)


class Profile:
    """The program of a row, and the times of its lines."""

    def __init__(self, row: Row) -> None:
        from nnbackend_numba.program import Program

        programs: list[Program] = []
        original = Program.__init__

        def recording(program: Program, *arguments: Any) -> None:
            original(program, *arguments)
            programs.append(program)

        Program.__init__ = recording  # type: ignore[method-assign]
        OursOnNumba.load()
        self.contender = OursOnNumba(row, *make_data(row), make_parameters(row))
        del programs[:]  # the first was a step on a resident batch
        self.contender.epochs(1)
        Program.__init__ = original  # type: ignore[method-assign]
        self.steps, self.program = row.steps, programs[0]
        self.table: Lines = self.program._step.table
        operations = [item for item in self.program._step.references if hasattr(item, "address")]
        self.names = {item.address: item.native_name for item in operations}

    def name(self, line: Lines) -> str:
        """Return a line's operation by name."""
        if line[0] == 0:
            return "barrier"
        found = re.search(r"\d([a-z][a-z_]*\d?)_[0-9a-f]{12}", self.names[line[0]])
        assert found
        return found[1].replace("_", " ")

    def seconds(self, lines: Lines, workers: int) -> float:
        """Return the seconds of one execution of some lines by the given number of workers."""
        from nnbackend_numba.assembly import STEPS_AT_ONCE
        from nnbackend_numba.intrinsics import yield_address
        from nnbackend_numba.workers import make_steps

        clock, most = self.contender.trainer.state.clock, STEPS_AT_ONCE
        if any(line[0] and self.name(line) in ("tick", "gather") for line in lines):
            most = self.steps - 1  # the clock must stay within the epoch

        def work(n: int) -> None:
            barrier = np.zeros(16, np.int64)

            def run_worker(worker: int, n: int) -> None:
                make_steps(
                    lines, lines, 0, n, worker, workers, barrier.ctypes.data, yield_address()
                )

            while n > 0:
                clock[1] = -1
                part, n = min(n, most), n - min(n, most)
                others = [
                    threading.Thread(target=run_worker, args=(w, part)) for w in range(1, workers)
                ]
                for thread in others:
                    thread.start()
                run_worker(0, part)
                for thread in others:
                    thread.join()

        return seconds_of(work)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", allow_abbrev=False)
    parser.add_argument("row", type=parse_row, nargs="?", default=parse_row("784-100-10:128"))
    row = parser.parse_args().row
    profile = Profile(row)
    workers, total = profile.program.workers, 0.0
    print(f"{row.title}: {workers} worker(s)\n\n| operation | µs |\n|---|---:|")
    for line in profile.table[2:]:  # without the clock and its barrier
        us = 0.1 if line[0] == 0 and workers == 1 else profile.seconds(line[None], workers) * 1e6
        total += us
        print(f"| {profile.name(line)} | {us:.1f} |")
    whole = profile.seconds(profile.table, workers) * 1e6
    alone = profile.seconds(profile.table, 1) * 1e6
    for what, us in (("sum", total), ("the whole step", whole), ("by one worker", alone)):
        print(f"| **{what}** | {us:.0f} ({row.flops / us / 1e3:.0f} GFLOP/s) |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
