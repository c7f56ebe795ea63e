"""Measure steps on several ranks beside one process, and predict those of other machines.

    python -m benchmarks.ranks                 # needs the extra mpi; minutes; a quiet machine
    python -m benchmarks.ranks --network       # checks the prediction on two hosts; needs root

Each figure is the median over several processes, started in turn. Predictions use the measured time
of one rank's rows, and a network's latency and bandwidth, which are assumed: they are no results.
It writes `ranks-<model>-<date>.json` and `.md`, and the picture of `docs/ranks.md`.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
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
PICTURE = Path(__file__).parent.parent / "docs" / "ranks.svg"
MACHINES = (1, 2, 4, 8, 16)
# 8 GPUs by NCCL: an all-reduce of 0.5, 1, 2 and 4 MiB on 6 H100 with NVLink takes 23, 25, 43 and
# 53 us (github.com/vllm-project/vllm/pull/24111, column pynccl, TP=6): about NVLINK[0] + bytes /
# NVLINK[1]. H200: steps of 1024 and 128 rows of gpu-nvidia-h200-2026-11-28.md.
NVLINK = 20e-6, 128e9
H200 = {"784-512-512-10, 1024": (142.0, 54.3)}
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
EAGER = 65_536  # bytes that Open MPI sends by TCP without a request
TURNS = 1.6  # fitted to measurements with --network
SECONDS = 1.5  # of the timed part of a process
REPEATS = 5


def step_time(
    layers: list[int], batch: int, reduction: str, wanted: float = SECONDS
) -> dict[str, Any]:
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
    epochs = max(1, round(wanted / one))
    if ranks is not None:
        epochs = ranks.maximum([epochs])[0]
    seconds = train(epochs)
    is_first = ranks is None or ranks.rank == 0
    return {"us": seconds / epochs / 20 * 1e6} if is_first else {}


def exchange_time(size: int, reduction: str, repeats: int = 300, inner: int = 1) -> dict[str, Any]:
    """Return the microseconds of an exchange of `size` numbers between the ranks.

    inner: the exchanges between two barriers, one after another.
    """
    import numpy as np

    import nnbackend as nn

    ranks = nn.distributed.world(reduction)
    mine = np.zeros(size, np.float32)
    every = np.empty((ranks.size, 4 * size), np.uint8)
    times = []
    for _ in range(repeats):
        ranks.maximum([0])
        begin = time.perf_counter()
        for _ in range(inner):
            if reduction == "fast":
                ranks.add(mine)
            else:
                ranks.gather(mine.view(np.uint8), every)
        times.append((time.perf_counter() - begin) / inner)
    return {"us": statistics.median(times) * 1e6} if ranks.rank == 0 else {}


def mpiexec() -> str:
    """Return the path of mpiexec, preferably beside this Python."""
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found is not None, "the extra mpi has mpiexec"
    return found


def run(n_ranks: int, threads: int, task: list[Any], start: Sequence[str] = ()) -> float:
    """Return the microseconds that a process, or the ranks of one, report.

    start: the words that start ranks; without, mpiexec.
    """
    command = [sys.executable, "-m", "benchmarks.ranks", "--task", json.dumps(task)]
    if n_ranks:
        command = [*(start or (mpiexec(), "-n", str(n_ranks))), *command]
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
    half, sixteenth = (  # the rows of one of 2 and of 16 ranks
        {
            row: run(0, 1, ["step", layers, max(1, batch // n), ""])
            for row, (layers, batch) in ROWS.items()
        }
        for n in (2, 16)
    )
    exchanges = {
        reduction: {
            size: run(2, 1, ["exchange", size, reduction, 300 if size < 1_000_000 else 40])
            for size in SIZES
        }
        for reduction in ("fast", "fixed")
    }
    return {"steps": steps, "half": half, "sixteenth": sixteenth, "exchanges": exchanges}


def n_parameters(layers: list[int]) -> int:
    """Return the number of weights and biases."""
    return sum(a * b + b for a, b in itertools.pairwise(layers))


def exchange_us(
    n: int, ranks: int, latency: float, bandwidth: float, reduction: str = "fast"
) -> float:
    """Return the predicted microseconds of an exchange of n numbers of 4 bytes.

    fast: a ring all-reduce, 2 (R - 1) messages of n / R numbers, one after another; up to 4096
    bytes recursive doubling, log2(R) messages of n numbers
    fixed: a ring all-gather, R - 1 messages of n numbers
    message: latency + bytes / bandwidth; above EAGER bytes 2 latencies more, for a request and its
    answer, and TURNS times the bytes if R = 2: the directions of one connection then take turns
    """
    if reduction == "fixed":
        messages, size = ranks - 1.0, 4.0 * n
    elif 4 * n <= 4096:
        messages, size = math.log2(ranks), 4.0 * n
    else:
        messages, size = 2.0 * (ranks - 1), 4 * n / ranks
    is_large = size > EAGER
    trips, turns = 3 if is_large else 1, TURNS if is_large and ranks == 2 else 1.0
    return messages * (trips * latency + turns * size / bandwidth) * 1e6


def predicted(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the predicted speed-up of each row on each network, over one process and thread."""
    result: dict[str, dict[str, float]] = {}
    for row, (layers, _) in ROWS.items():
        n = n_parameters(layers)
        one = statistics.median(found["steps"][row]["1 process, 1 thread"])
        result[row] = {}
        for name, (ranks, latency, bandwidth) in NETWORKS.items():
            exchange = exchange_us(n, ranks, latency, bandwidth)
            result[row][name] = one / (found["sixteenth"][row] + exchange)
    return result


def speed_ups(found: dict[str, Any], row: str, latency: float, bandwidth: float) -> list[float]:
    """Return the predicted speed-ups of 1, 2, ... 16 machines.

    The time of a part of the rows lies on the line through those of all and of a sixteenth.
    """
    layers, _ = ROWS[row]
    one = statistics.median(found["steps"][row]["1 process, 1 thread"])
    slope = (one - found["sixteenth"][row]) / (1 - 1 / 16)
    result = []
    for n in MACHINES:
        step = one - slope * (1 - 1 / n)
        if n > 1:
            step += exchange_us(n_parameters(layers), n, latency, bandwidth)
        result.append(one / step)
    return result


def picture(found: dict[str, Any], path: Path) -> None:
    """Draw the predicted speed-ups by the number of machines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(8.4, 4.0), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(NETWORKS), sharey=True)
    for axes, (name, (_, latency, bandwidth)) in zip(panels, NETWORKS.items(), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.plot(MACHINES, MACHINES, color="0.6", linestyle="--", label="ideal")
        for row in ROWS:
            axes.plot(MACHINES, speed_ups(found, row, latency, bandwidth), marker="o", label=row)
        axes.set_title(name.partition(", ")[2], loc="left")
        for axis, ticks in (
            (axes.xaxis, MACHINES),
            (axes.yaxis, (1 / 64, 1 / 16, 1 / 4, 1, 4, 16)),
        ):
            axis.set_ticks(ticks, [f"{tick:.2g}" for tick in ticks])
            axis.set_minor_locator(NullLocator())
        axes.set_ylim(1 / 64, 20)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("machines, a rank with one thread on each", fontsize="medium")
    panels[0].set_ylabel("speed-up over one thread")
    figure.suptitle("Prediction, not measured: the same batch on more machines")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def gpu_lines() -> list[str]:
    """Return the prediction for 8 GPUs as Markdown."""
    latency, bandwidth = NVLINK
    lines = [
        "", "**A prediction, no measurement**: 8 H200 in one machine, from measured steps of one "
        "H200 (SGD with momentum, other rows have no measured eighth) and an all-reduce by NCCL of "
        f"{latency * 1e6:.0f} µs + bytes / {bandwidth / 1e9:.0f} GB/s, from published times of 6 "
        "H100:", "",
        "| network, rows | 1 GPU, µs | 8 GPUs, µs | speed-up |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    for row, (one, eighth) in H200.items():
        eight = eighth + (latency + 4 * n_parameters(ROWS[row][0]) / bandwidth) * 1e6
        lines.append(f"| {row} | {one:.0f} | {eight:.0f} | {one / eight:.1f} |")
    return lines


def _weak(found: dict[str, Any], row: str, two: float) -> str:
    return f"{found['half'][row] / two:.2f}" if "half" in found else "not measured"


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
    lines += [
        "", "Strong scaling: the same rows on 2 ranks, time of 1 thread / time of 2 ranks, best 2. "
        "Weak scaling: twice the rows on 2 ranks, time of half of the rows on 1 thread / time of 2 "
        "ranks, best 1. Reduction fast:", "", "| network, rows | strong | weak |",
        "|---|---:|---:|",
    ]  # fmt: skip
    for row, ways in found["steps"].items():
        one, two = (
            statistics.median(ways[way]) for way in ("1 process, 1 thread", "2 ranks, fast")
        )
        lines.append(f"| {row} | {one / two:.2f} | {_weak(found, row, two)} |")
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
    return "\n".join([*lines, *gpu_lines()]) + "\n"


def main() -> int:
    """Measure, predict and write the report; or run a task as one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--network", action="store_true", help="check the prediction by TCP")
    parser.add_argument("--out", default="benchmarks/results", help="folder of the results")
    args = parser.parse_args()
    if args.task:
        kind, *words = json.loads(args.task)
        figures = step_time(*words) if kind == "step" else exchange_time(*words)
        if figures:
            print(json.dumps(figures), flush=True)
        return 0
    if args.network:
        from benchmarks import ranks_network  # which imports this module

        return ranks_network.main(Path(args.out))
    found = measured()
    found |= {"date": str(datetime.date.today()), "machine": machine_facts()}
    found["predicted"] = predicted(found)
    name = default_name(found).replace("cpu-", "ranks-", 1)
    path = Path(args.out) / name
    path.with_name(f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{name}.md").write_text(report(found), encoding="utf-8")
    picture(found, PICTURE)
    print(path.with_name(f"{name}.md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
