"""One measurement in a separate process: `python -m nnbackend.bench.worker WORDS`.

    CONTENDER ROW       train, and time it        predict CONTENDER   1 row and many rows
    import NAME         how long an import takes  sgemm               the CPU's ceiling
    facts               the BLAS of NumPy

Prints one line of JSON, the last of stdout. Nothing is imported before it is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from nnbackend.bench.base import AbstractContender
from nnbackend.bench.contenders import get_contender
from nnbackend.bench.machine import peak_memory, thread_pools, usable_cpus
from nnbackend.bench.rows import Row, make_data, make_parameters, mean_loss, parse_row

WARM_UP_EPOCHS = 2  # steps before the loss is recorded
SAMPLES, FEWEST_SAMPLES = 5, 3
PREDICT_ROW, MANY_ROWS = "784-100-10:128:adam:1", 100_000
# Square products, and the largest of the rows' own.
GEMMS = ((512,) * 3, (1024,) * 3, (2048,) * 3, (128, 784, 512), (1024, 784, 512), (128, 2500, 2000))
# The first import of a user of each library.
IMPORTS = {
    "numpy": "import numpy",
    "nnbackend": "import nnbackend",
    "nnbackend, ready to train": "from nnbackend import Network, train",
    "scikit-learn's MLPClassifier": "from sklearn.neural_network import MLPClassifier",
    "PyTorch": "import torch",
    "JAX": "import jax.numpy",
}
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

    n grows until a call takes long enough to be timed.
    """

    def took(n: int) -> float:
        return clock(lambda: work(n))

    share, n = seconds / SAMPLES, 1
    while (once := took(n)) < share / 4:
        n *= 4
    each = once / n
    n = max(1, round(share / each))
    count = min(SAMPLES, max(FEWEST_SAMPLES, math.floor(seconds / (n * each))))
    return [took(n) / n for _ in range(count)]


def train(name: str, row_text: str, seconds: float) -> Answer:
    """Train one contender on one row; return step time, loss and preparation time."""
    kind, row = get_contender(name), parse_row(row_text)
    import_s = clock(kind.load)
    x, y = make_data(row)
    start = make_parameters(row)
    begin = time.perf_counter()
    contender = kind(row, x, y, start)
    contender.steps(1)
    first_step_s = time.perf_counter() - begin
    contender.reset()
    begin = time.perf_counter()
    contender.epochs(1)
    first_epoch_s = time.perf_counter() - begin
    contender.reset()
    contender.epochs(WARM_UP_EPOCHS)
    loss = mean_loss(contender.parameters(), x, y)
    memory = peak_memory()
    epoch_s = sample(contender.epochs, seconds)
    step_s = sample(contender.steps, seconds / 4)
    usual = statistics.median(epoch_s)
    return {
        "contender": name,
        "row": row.name,
        "us_per_step": spread([s / row.steps * 1e6 for s in epoch_s]),
        "us_per_resident_step": spread([s * 1e6 for s in step_s]),
        "loss_before": mean_loss(start, x, y),
        "loss": loss,
        "steps_before_loss": WARM_UP_EPOCHS * row.steps,
        "import_s": import_s,
        "first_step_s": first_step_s,
        "startup_s": max(0.0, first_step_s + first_epoch_s - usual),
        "peak_memory": memory,
        **_surroundings(),
    }


def predict(name: str, seconds: float) -> Answer:
    """Time the labels of 1 row and of many rows, from and to host arrays."""
    import numpy as np

    kind, row = get_contender(name), parse_row(PREDICT_ROW)
    contender = _ready(kind, row)
    few = np.random.default_rng(0).standard_normal((1000, row.layers[0]), dtype=np.float32)
    many = np.tile(few, (MANY_ROWS // 1000, 1))
    one = many[:1].copy()

    def times(rows: Any) -> list[float]:
        contender.predict(rows)  # compiling and scratch arrays come first
        return sample(lambda n: [contender.predict(rows) for _ in range(n)], seconds / 2)

    return {
        "contender": name,
        "one_us": spread([s * 1e6 for s in times(one)]),
        "many_ms": spread([s * 1e3 for s in times(many)]),
        "many": MANY_ROWS,
    }


def _ready(kind: type[AbstractContender], row: Row) -> AbstractContender:
    kind.load()
    contender = kind(row, *make_data(row), make_parameters(row))
    contender.steps(1)
    return contender


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


def time_import(name: str) -> Answer:
    """Time the first import of a library in a fresh interpreter."""
    code = f"import time; t = time.perf_counter(); {IMPORTS[name]}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"import": name, "seconds": float(done.stdout)}


def facts() -> Answer:
    """Return NumPy's BLAS and the kernels it picked."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {"blas": f"{blas.get('name')} {blas.get('version')}", **_surroundings()}


def _surroundings() -> Answer:
    return {"pools": thread_pools(), "threads_set": os.environ.get("OMP_NUM_THREADS", "")}


def answer(words: Sequence[str], seconds: float) -> Answer:
    """Run the measurement named by the words."""
    what, *rest = words
    jobs: dict[str, Callable[..., Answer]] = {
        "predict": lambda name: predict(name, seconds),
        "sgemm": lambda: sgemm(seconds),
        "import": time_import,
        "facts": facts,
    }
    return jobs[what](*rest) if what in jobs else train(what, " ".join(rest), seconds)


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
    parser.add_argument("words", nargs="+", metavar="WORD", help="CONTENDER ROW, sgemm, ...")
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of the measurement")
    options = parser.parse_args(argv)
    _keep_to_own_cpus()
    print(json.dumps(answer(options.words, options.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
