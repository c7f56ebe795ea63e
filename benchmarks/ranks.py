"""Measure steps on several ranks beside one process, and predict those of other machines.

    python -m benchmarks.ranks                 # needs the extra mpi; minutes; a quiet machine

Each figure is the median over several processes, started in turn. Predictions use the measured time
of one rank's rows, and a network's latency and bandwidth, which are assumed: they are no results.
It writes `ranks-<model>-<date>.json` and `.md`.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cpu_report import default_name
from nnbackend.machine import machine_facts

ROWS = {
    "784-30-10, 10": ([784, 30, 10], 10),
    "784-100-10, 128": ([784, 100, 10], 128),
    "784-100-10, 512": ([784, 100, 10], 512),
    "784-512-512-10, 128": ([784, 512, 512, 10], 128),
    "784-512-512-10, 1024": ([784, 512, 512, 10], 1024),
}
WAYS = {  # ranks, threads of each, reduction
    "1 process, 1 thread": (0, 1, ""),
    "1 process, 2 threads": (0, 2, ""),
    "2 ranks, fast": (2, 1, "fast"),
    "2 ranks, fixed": (2, 1, "fixed"),
}
SIZES = (1_000, 10_000, 100_000, 1_000_000)  # of the exchanged vector
# Latency in seconds and bandwidth in bytes a second, by the number of machines or GPUs.
NETWORKS = {
    "16 machines, 10 Gbit/s": (16, 30e-6, 1.25e9),
    "16 machines, 100 Gbit/s": (16, 5e-6, 12.5e9),
}
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
SECONDS = 1.5  # of the timed part of a process
REPEATS = 5


def step_time(layers: list[int], batch: int, reduction: str) -> dict[str, Any]:
    """Return the microseconds of a step in this process, or on the ranks of which it is one."""
    import numpy as np

    import nnbackend as nn

    ranks = nn.distributed.world(reduction) if reduction else None
    rng = np.random.default_rng(0)
    n = batch * 20
    x = rng.standard_normal((n, layers[0]), dtype=np.float32)
    y = rng.integers(0, layers[-1], n)
    net = nn.Network(layers, "cross_entropy", device="cpu", seed=0)

    def train(epochs: int) -> float:
        history = nn.train(net, x, y, epochs=epochs, batch_size=batch, communicator=ranks)
        return float(sum(history["seconds"]))

    train(2)  # compiles
    one = max(train(2) / 2, 1e-5)
    epochs = max(1, round(SECONDS / one))
    if ranks is not None:
        epochs = ranks.maximum([epochs])[0]
    seconds = train(epochs)
    is_first = ranks is None or ranks.rank == 0
    return {"us": seconds / epochs / 20 * 1e6} if is_first else {}


def exchange_time(size: int, reduction: str) -> dict[str, Any]:
    """Return the microseconds of an exchange of `size` numbers between the ranks."""
    import numpy as np

    import nnbackend as nn

    ranks = nn.distributed.world(reduction)
    mine = np.ones(size, np.float32)
    every = np.empty((ranks.size, 4 * size), np.uint8)
    times = []
    for _ in range(300 if size < 1_000_000 else 40):
        ranks.maximum([0])
        begin = time.perf_counter()
        if reduction == "fast":
            ranks.add(mine)
        else:
            ranks.gather(mine.view(np.uint8), every)
        times.append(time.perf_counter() - begin)
    return {"us": statistics.median(times) * 1e6} if ranks.rank == 0 else {}


def run(n_ranks: int, threads: int, task: list[Any]) -> float:
    """Return the microseconds that a process, or the ranks of one, report."""
    command = [sys.executable, "-m", "benchmarks.ranks", "--task", json.dumps(task)]
    if n_ranks:
        found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert found is not None, "the extra mpi has mpiexec"
        command = [found, "-n", str(n_ranks), *command]
    environment = {**os.environ, **OPEN_MPI, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return float(json.loads(lines[-1])["us"])


def measured() -> dict[str, Any]:
    """Return the figures of all rows and sizes on this machine."""
    steps: dict[str, dict[str, list[float]]] = {}
    for row, (layers, batch) in ROWS.items():
        steps[row] = {way: [] for way in WAYS}
        for _ in range(REPEATS):
            for way, (n_ranks, threads, reduction) in WAYS.items():
                task = ["step", layers, batch, reduction]
                steps[row][way].append(run(n_ranks, threads, task))
        shown = {way: round(statistics.median(times)) for way, times in steps[row].items()}
        print(row, shown, file=sys.stderr, flush=True)
    half = {  # the rows of one of 16 ranks
        row: run(0, 1, ["step", layers, max(1, batch // 16), ""])
        for row, (layers, batch) in ROWS.items()
    }
    exchanges = {
        reduction: {size: run(2, 1, ["exchange", size, reduction]) for size in SIZES}
        for reduction in ("fast", "fixed")
    }
    return {"steps": steps, "sixteenth": half, "exchanges": exchanges}


def predicted(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the predicted speed-up of each row on each network, over one process and thread.

    A ring all-reduce of P numbers on R machines takes 2 (R - 1) (latency + 4 P / R / bandwidth).
    """
    result: dict[str, dict[str, float]] = {}
    for row, (layers, _) in ROWS.items():
        n = sum(a * b + b for a, b in itertools.pairwise(layers))
        one = statistics.median(found["steps"][row]["1 process, 1 thread"])
        result[row] = {}
        for name, (ranks, latency, bandwidth) in NETWORKS.items():
            exchange = 2 * (ranks - 1) * (latency + 4 * n / ranks / bandwidth) * 1e6
            result[row][name] = one / (found["sixteenth"][row] + exchange)
    return result


def report(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "# Ranks", "",
        f"Measured {found['date']} on {found['machine']['cpu']}, Adam, float32. µs of a step: "
        f"median of {REPEATS} processes, with least and largest; a rank has one thread.", "",
        "| network, rows | " + " | ".join(WAYS) + " | 2 ranks / 2 threads |",
        "|---|" + "---:|" * (len(WAYS) + 1),
    ]  # fmt: skip
    for row, ways in found["steps"].items():
        cells = [
            f"{statistics.median(times):,.0f} ({min(times):,.0f} to {max(times):,.0f})"
            for times in ways.values()
        ]
        ratio = statistics.median(ways["2 ranks, fast"]) / statistics.median(
            ways["1 process, 2 threads"]
        )
        lines.append(f"| {row} | {' | '.join(cells)} | {ratio:.2f} |")
    lines += ["", "µs of an exchange between two ranks on this machine:", ""]
    lines += ["| reduction | " + " | ".join(f"{size:,} numbers" for size in SIZES) + " |"]
    lines += ["|---|" + "---:|" * len(SIZES)]
    for reduction, times in found["exchanges"].items():
        lines.append(f"| {reduction} | " + " | ".join(f"{t:,.0f}" for t in times.values()) + " |")
    lines += [
        "", "**A prediction, no measurement**: the speed-up over one process with one thread, from "
        "the measured time of a sixteenth of the rows and a ring all-reduce with the latency "
        "(30 or 5 µs) and bandwidth of the network, without overlap:", "",
        "| network, rows | " + " | ".join(NETWORKS) + " |", "|---|" + "---:|" * len(NETWORKS),
    ]  # fmt: skip
    for row, speeds in found["predicted"].items():
        lines.append(f"| {row} | " + " | ".join(f"{s:.1f}" for s in speeds.values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, predict and write the report; or run a task as one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="benchmarks/results", help="folder of the results")
    args = parser.parse_args()
    if args.task:
        kind, *words = json.loads(args.task)
        figures = step_time(*words) if kind == "step" else exchange_time(*words)
        if figures:
            print(json.dumps(figures), flush=True)
        return 0
    found = measured()
    found |= {"date": str(datetime.date.today()), "machine": machine_facts()}
    found["predicted"] = predicted(found)
    name = default_name(found).replace("cpu-", "ranks-", 1)
    path = Path(args.out) / name
    path.with_name(f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{name}.md").write_text(report(found), encoding="utf-8")
    print(path.with_name(f"{name}.md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
