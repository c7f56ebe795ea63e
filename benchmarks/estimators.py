"""The estimators beside scikit-learn's own: `python -m benchmarks.estimators --out FILE.md`.

The same settings on ten data sets. Each run is a process of its own, so that its peak memory is
its own. `--sets 0,1` takes some of the sets, for a machine that must not be busy for long; the
rows are appended to the file.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

CLASSES, NUMBERS = "MLPClassifier", "MLPRegressor"


def _blobs(n: int, features: int, classes: int) -> Any:
    return datasets.make_classification(
        n, features, n_informative=features // 2, n_classes=classes, random_state=0
    )


SETS: list[tuple[str, str, Callable[[], Any]]] = [
    ("digits", CLASSES, lambda: datasets.load_digits(return_X_y=True)),
    ("iris", CLASSES, lambda: datasets.load_iris(return_X_y=True)),
    ("wine", CLASSES, lambda: datasets.load_wine(return_X_y=True)),
    ("breast cancer", CLASSES, lambda: datasets.load_breast_cancer(return_X_y=True)),
    ("moons, 2000 rows", CLASSES, lambda: datasets.make_moons(2000, noise=0.3, random_state=0)),
    ("20 features, 4 classes, 5000 rows", CLASSES, lambda: _blobs(5000, 20, 4)),
    ("diabetes", NUMBERS, lambda: datasets.load_diabetes(return_X_y=True)),
    ("Friedman 1, 2000 rows", NUMBERS, lambda: datasets.make_friedman1(2000, random_state=0)),
    ("Friedman 2, 2000 rows", NUMBERS, lambda: datasets.make_friedman2(2000, random_state=0)),
    ("linear, 50 features, 5000 rows", NUMBERS,
     lambda: datasets.make_regression(5000, 50, noise=10.0, random_state=0)),
]  # fmt: skip
WHOSE = ("scikit-learn", "nnbackend")
HEAD = (
    "| data set | whose | score | fit, s | predict, ms | peak memory, MB |\n"
    "|---|---|---|---:|---:|---:|\n"
)


def _estimator(kind: str, whose: str, seed: int) -> Any:
    if whose == "scikit-learn":
        import sklearn.neural_network as library
    else:
        import nnbackend as library
    return getattr(library, kind)(max_iter=60, random_state=seed)


def measure(index: int, whose: str, seeds: int) -> dict[str, Any]:
    """Fit and score one estimator on one set with some seeds."""
    _, kind, load = SETS[index]
    X, y = load()
    y = (y - y.mean()) / y.std() if kind == NUMBERS else y
    scores, fits, predictions = [], [], []
    for seed in range(-1, seeds):  # the first, with seed 0 too, warms up and is not counted
        parts = train_test_split(X, y, test_size=0.25, random_state=max(seed, 0))
        scaler = StandardScaler().fit(parts[0])
        train, test = scaler.transform(parts[0]), scaler.transform(parts[1])
        model = _estimator(kind, whose, max(seed, 0))
        begin = time.perf_counter()
        model.fit(train, parts[2])
        fitted = time.perf_counter()
        model.predict(test)
        done = time.perf_counter()
        if seed >= 0:
            scores.append(model.score(test, parts[3]))
            fits.append(fitted - begin)
            predictions.append(done - fitted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"scores": scores, "fit": fits, "predict": predictions, "peak": peak}


def _row(index: int, whose: str, found: dict[str, Any]) -> str:
    scores = found["scores"]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return (
        f"| {SETS[index][0]} | {whose} | {np.mean(scores):.3f} ± {spread:.3f} | "
        f"{statistics.median(found['fit']):.2f} | {1e3 * statistics.median(found['predict']):.2f}"
        f" | {found['peak']:.0f} |\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators")
    parser.add_argument("--sets", default=",".join(map(str, range(len(SETS)))))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        warnings.simplefilter("ignore")
        index, whose, seeds = json.loads(args.one)
        print(json.dumps(measure(index, whose, seeds)))
        return 0
    if args.out is not None and not args.out.exists():
        args.out.write_text(HEAD, encoding="utf-8")
    for index in map(int, args.sets.split(",")):
        for whose in WHOSE:
            command = [sys.executable, "-m", "benchmarks.estimators", "--one",
                       json.dumps([index, whose, args.seeds])]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = _row(index, whose, json.loads(done.stdout.splitlines()[-1]))
            print(row, end="", flush=True)
            if args.out is not None:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
