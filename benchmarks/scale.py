"""Measure how time and memory grow with rows (memory-mapped from 1e3 on), width and depth.

    python -m benchmarks.scale                    # up to 1e6 rows, minutes
    python -m benchmarks.scale --largest 1e7      # a file of 2.6 GB in a temporary folder
    python -m benchmarks.scale --file-gb 10       # and an epoch over a file of that size

Each point is a separate process, which reports the time of its steps and its peak memory without
the pages of the file. It writes `scale-<model>-<date>.json` and `.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cpu_report import default_name
from nnbackend.bench.report import number
from nnbackend.machine import machine_facts

COLUMNS = 64
Point = dict[str, Any]


def write_rows(path: Path, n: int) -> None:
    """Write n rows of random numbers, in parts, as a .npy file."""
    import numpy as np

    x = np.lib.format.open_memmap(path, "w+", np.float32, (n, COLUMNS))
    block = np.random.default_rng(0).standard_normal((min(n, 100_000), COLUMNS), dtype=np.float32)
    for start in range(0, n, len(block)):
        x[start : start + len(block)] = block[: n - start]
    x.flush()


def own_memory() -> int:
    """Return the bytes of this process that are not backed by a file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measure(path: str, layers: list[int], epochs: int) -> Point:
    """Train on a mapped file; return microseconds per step, and peak memory."""
    import numpy as np

    import nnbackend as nn

    x = np.load(path, mmap_mode="r")
    y = np.random.default_rng(1).integers(0, 2, len(x))
    net = nn.Network(
        [COLUMNS, *layers, nn.Dense(2, "softmax")], "cross_entropy", device="cpu", seed=0
    )
    before, most = own_memory(), 0

    class Memory(nn.Callback):
        """A callback that measures the memory in every epoch, many times in a long one."""

        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            nonlocal most
            most = max(most, own_memory())

    begin = time.perf_counter()
    history = nn.train(net, x, y, epochs=epochs, batch_size=128, callbacks=[Memory()])
    steps = -(-len(x) // 128)
    return {
        "rows": len(x),
        "layers": layers,
        "us_per_step": min(history["seconds"][1:] or history["seconds"]) / steps * 1e6,
        "seconds": time.perf_counter() - begin,
        "memory_added": most - before,
        "device": net.backend.device,
    }


def run_point(path: Path, layers: list[int], epochs: int) -> Point:
    """Measure one point in a separate process."""
    words = [str(path), json.dumps(layers), str(epochs)]
    command = [sys.executable, "-m", "benchmarks.scale", "--point", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    point: Point = json.loads(done.stdout.splitlines()[-1])
    print(point, file=sys.stderr, flush=True)
    return point


def programme(largest: int, file_gb: float) -> dict[str, Any]:
    """Measure all points."""
    parts: dict[str, list[Point]] = {"rows": [], "width": [], "depth": [], "file": []}
    with tempfile.TemporaryDirectory(prefix="nnbackend-scale-") as folder:
        path = Path(folder) / "x.npy"
        n = 1000
        while n <= largest:
            write_rows(path, n)
            epochs = 3 if n > 50_000 else 20
            parts["rows"].append(run_point(path, [64], epochs))
            n *= 10
        write_rows(path, 12_800)
        for width in (16, 64, 256, 1024, 2048):
            parts["width"].append(run_point(path, [width, width], 3))
        for depth in (1, 2, 4, 8, 16):
            parts["depth"].append(run_point(path, [64] * depth, 5))
        if file_gb:
            write_rows(path, int(file_gb * 1e9 / (4 * COLUMNS)))
            parts["file"].append(run_point(path, [64], 2))
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"format": 1, "date": date, "machine": machine_facts(), **parts}


def table(result: dict[str, Any]) -> str:
    """Return the points as Markdown tables."""
    machine = result["machine"]
    lines = [
        "# How time and memory grow\n",
        f"{machine['cpu']}, {machine['usable_cpus']} CPUs; batches of 128 rows of {COLUMNS} "
        "numbers in a memory-mapped file; Adam. "
        "Memory: added by training, without the file's pages.",
    ]
    for what in ("rows", "width", "depth", "file"):
        if result[what]:
            lines += [f"\n## By {what}\n", "| rows | hidden layers | µs a step | memory, MB |"]
            lines.append("|---:|---|---:|---:|")
        for p in result[what]:
            layers, memory = "-".join(map(str, p["layers"])), p["memory_added"] / 1e6
            lines.append(
                f"| {p['rows']:,} | {layers} | {number(p['us_per_step'])} | {memory:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", allow_abbrev=False)
    parser.add_argument("--largest", type=float, default=1e6, help="maximum number of rows")
    parser.add_argument("--file-gb", type=float, default=0.0, help="also a file of this size")
    parser.add_argument("--out", default="benchmarks/results")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        path, layers, epochs = args.point
        print(json.dumps(measure(path, json.loads(layers), int(epochs))))
        return 0
    result = programme(int(args.largest), args.file_gb)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    name = f"scale{default_name(result).removeprefix('cpu')}"
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(table(result), encoding="utf-8")
    print(out / f"{name}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
