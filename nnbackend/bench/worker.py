"""One measurement in a separate process: `python -m nnbackend.bench.worker WORDS`.

    train CONTENDER ROW   train, and time it; CONTENDER is an import path, module:class
    sgemm                 the CPU's ceiling
    facts                 the BLAS of NumPy
    module:function ...   another measurement, called with the words after it and the seconds

Prints one line of JSON, the last of stdout. No library is imported before it is timed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from nnbackend.bench.base import AbstractContender
from nnbackend.bench.process import peak_memory
from nnbackend.bench.rows import make_data, make_parameters, mean_loss, parse_row
from nnbackend.machine import thread_pools, usable_cpus

WARM_UP_EPOCHS = 2  # steps before the loss is recorded
SAMPLES, FEWEST_SAMPLES = 5, 3
# Square products, and the largest of the rows' own.
GEMMS = ((512,) * 3, (1024,) * 3, (2048,) * 3, (128, 784, 512), (1024, 784, 512), (128, 2500, 2000))
Answer = dict[str, Any]


def clock(work: Callable[[], object]) -> float:
    """Return the duration of some work in seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Return the median, minimum and maximum.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples)}


def sample(work: Callable[[int], object], seconds: float) -> list[float]:
    """Call work(n) repeatedly for about `seconds`; return the seconds per unit of each call.

    n grows until a call takes long enough to be timed. That call is a sample too if n stays the
    same: an epoch of a large network takes longer than its share of the seconds.
    """

    def took(n: int) -> float:
        return clock(lambda: work(n))

    share, n = seconds / SAMPLES, 1
    while (once := took(n)) < share / 4:
        n *= 4
    each = once / n
    chosen = max(1, round(share / each))
    count = min(SAMPLES, max(FEWEST_SAMPLES, math.floor(seconds / (chosen * each))))
    samples = [each] if chosen == n else []
    return samples + [took(chosen) / chosen for _ in range(count - len(samples))]


def train(path: str, row_text: str, seconds: float) -> Answer:
    """Train one contender on one row; return step time, loss and preparation time."""
    kind, row = imported(path), parse_row(row_text)
    import_s = clock(kind.load)
    x, y = make_data(row)
    start = make_parameters(row)
    begin = time.perf_counter()
    contender: AbstractContender = kind(row, x, y, start)
    contender.steps(1)
    first_step_s = time.perf_counter() - begin
    contender.reset()
    contender.epochs(WARM_UP_EPOCHS)
    loss = mean_loss(row, contender.parameters(), x, y)
    memory = peak_memory()
    epoch_s = sample(contender.epochs, seconds)
    step_s = sample(contender.steps, seconds / 4)
    return {
        "contender": kind.name,
        "row": row.name,
        "us_per_step": spread([s / row.steps * 1e6 for s in epoch_s]),
        "us_per_resident_step": spread([s * 1e6 for s in step_s]),
        "loss_before": mean_loss(row, start, x, y),
        "loss": loss,
        "steps_before_loss": WARM_UP_EPOCHS * row.steps,
        "import_s": import_s,
        "first_step_s": first_step_s,
        "peak_memory": memory,
        **_surroundings(),
    }


def sgemm(seconds: float) -> Answer:
    """Return the rates of NumPy's matrix product in float32, in GFLOP/s: a ceiling for all."""
    import numpy as np

    rates = {}
    for m, k, n in GEMMS:
        a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
        out = np.empty((m, n), np.float32)

        def work(times: int, a: Any = a, b: Any = b, out: Any = out) -> None:
            for _ in range(times):
                np.matmul(a, b, out=out)

        work(1)
        rates[f"{m}x{k}x{n}"] = 2e-9 * m * k * n / min(sample(work, seconds / len(GEMMS)))
    return {"gflops": max(rates.values()), "rates": rates, **_surroundings()}


def facts(_seconds: float) -> Answer:
    """Return NumPy's BLAS and the kernels it picked."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {"blas": f"{blas.get('name')} {blas.get('version')}", **_surroundings()}


def _surroundings() -> Answer:
    return {
        "pools": thread_pools(),
        "threads_set": os.environ.get("OMP_NUM_THREADS", ""),
        "cpus": len(usable_cpus()),
    }


JOBS: dict[str, Callable[..., Answer]] = {"train": train, "sgemm": sgemm, "facts": facts}


def imported(path: str) -> Any:
    """Return what an import path, module:name, names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def answer(words: Sequence[str], seconds: float) -> Answer:
    """Run the measurement named by the words."""
    what, *rest = words
    job = JOBS[what] if what in JOBS else imported(what)
    found: Answer = job(*rest, seconds)
    return found


def _keep_to_own_cpus() -> None:
    """Restrict this process to as many CPUs as threads.

    JAX starts a thread for each CPU, whatever the environment variables.
    """
    threads, cpus = int(os.environ.get("OMP_NUM_THREADS", "0")), usable_cpus()
    if hasattr(os, "sched_setaffinity") and 0 < threads < len(cpus):
        os.sched_setaffinity(0, cpus[:threads])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the answer."""
    parser = argparse.ArgumentParser(prog="python -m nnbackend.bench.worker", allow_abbrev=False)
    parser.add_argument("words", nargs="+", metavar="WORD", help="train CONTENDER ROW, sgemm, ...")
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of the measurement")
    options = parser.parse_args(argv)
    _keep_to_own_cpus()
    print(json.dumps(answer(options.words, options.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
