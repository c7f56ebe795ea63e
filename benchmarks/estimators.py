"""Compare the estimators with scikit-learn's, with the same settings on ten data sets.

    python -m benchmarks.estimators                  # some minutes
    python -m benchmarks.estimators --quick          # three sets, one round: a trial
    python -m benchmarks.estimators --docs RESULT.json   # copy its table to docs/estimators.md

Each set is measured in rounds. In a round both libraries run in separate processes, which separates
their peak memory, and load on the machine affects both. It writes `estimators-<model>-<date>.json`
and `.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cpu_report import default_name
from nnbackend.bench.process import environment
from nnbackend.machine import machine_facts, usable_cpus

CLASSES, NUMBERS = "MLPClassifier", "MLPRegressor"
PREDICTIONS = 5  # of the test rows after each fit; the median counts
DOCS = Path("docs/estimators.md")
BEGIN, END = "<!-- benchmarks.estimators -->\n", "<!-- /benchmarks.estimators -->\n"
Answer = dict[str, Any]


def _made(name: str, n: int, **options: Any) -> Callable[[], Any]:
    def load() -> Any:
        from sklearn import datasets

        return getattr(datasets, f"make_{name}")(n, random_state=0, **options)

    return load


def _stored(name: str) -> Callable[[], Any]:
    def load() -> Any:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)

    return load


FOUR = {"n_features": 20, "n_informative": 10, "n_classes": 4}
SETS: list[tuple[str, str, Callable[[], Any]]] = [
    ("digits", CLASSES, _stored("digits")),
    ("iris", CLASSES, _stored("iris")),
    ("wine", CLASSES, _stored("wine")),
    ("breast cancer", CLASSES, _stored("breast_cancer")),
    ("moons, 2000 rows", CLASSES, _made("moons", 2000, noise=0.3)),
    ("20 features, 4 classes, 5000 rows", CLASSES, _made("classification", 5000, **FOUR)),
    ("diabetes", NUMBERS, _stored("diabetes")),
    ("Friedman 1, 2000 rows", NUMBERS, _made("friedman1", 2000)),
    ("Friedman 2, 2000 rows", NUMBERS, _made("friedman2", 2000)),
    ("linear, 50 features, 5000 rows", NUMBERS,
     _made("regression", 5000, n_features=50, noise=10.0)),
]  # fmt: skip
QUICK = [1, 4, 6]
WHOSE = ("scikit-learn", "nnbackend")


def measure(index: int, whose: str, seeds: int) -> Answer:
    """Fit and score one estimator on one set with some seeds."""
    import numpy as np

    if whose == "scikit-learn":
        import sklearn.neural_network as library
    else:
        import nnbackend as library
    _, kind, load = SETS[index]
    X, y = load()
    y = (y - y.mean()) / y.std() if kind == NUMBERS else y
    scores, fits, predictions = [], [], []
    for seed in (0, *range(seeds)):  # the first warms up and is not counted
        train, test = _parts(X, y, seed)
        model = getattr(library, kind)(max_iter=60, random_state=seed)
        times = [_seconds(model.fit, *train)]
        times += [_seconds(model.predict, test[0]) for _ in range(PREDICTIONS)]
        fits.append(times[0])
        predictions.append(statistics.median(times[1:]))
        scores.append(float(model.score(*test)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "scores": scores[1:], "fit_s": fits[1:], "predict_s": predictions[1:], "peak_mib": peak,
        "shape": np.shape(X),
    }  # fmt: skip


def _parts(X: Any, y: Any, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return standardized rows and targets: three quarters for training, the rest for the test."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    X1, X2, y1, y2 = train_test_split(X, y, test_size=0.25, random_state=seed)
    scaler = StandardScaler().fit(X1)
    return (scaler.transform(X1), y1), (scaler.transform(X2), y2)


def _seconds(call: Callable[..., Any], *args: Any) -> float:
    begin = time.perf_counter()
    call(*args)
    return time.perf_counter() - begin


def programme(sets: Sequence[int], seeds: int, rounds: int) -> Answer:
    """Measure all sets, and report progress on standard error."""
    machine, begin = machine_facts(), time.perf_counter()
    threads = len(usable_cpus())
    measured = []
    for index in sets:
        found: dict[str, list[Answer]] = {whose: [] for whose in WHOSE}
        for turn in range(rounds):
            for whose in WHOSE[:: 1 if turn % 2 == 0 else -1]:
                command = [sys.executable, "-m", "benchmarks.estimators", "--one",
                           json.dumps([index, whose, seeds])]  # fmt: skip
                done = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=environment(threads)
                )
                found[whose].append(json.loads(done.stdout.splitlines()[-1]))
                print(
                    f"{SETS[index][0]}, {whose}, round {turn + 1} of {rounds}: "
                    f"{time.perf_counter() - begin:.0f} s",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
        measured.append({"name": SETS[index][0], "rounds": found})
    return {
        "format": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "settings": {"threads": threads, "seeds": seeds, "rounds": rounds},
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "sets": measured,
    }


def table(result: Answer) -> str:
    """Return the settings and a table with a row for each set."""
    machine, settings = result["machine"], result["settings"]
    names = ("python", "scikit-learn", "numpy", "numba")
    lines = [
        f"Made by `python -m benchmarks.estimators` on {machine['cpu']}, {settings['threads']} "
        f"CPUs, on {result['date'][:10]}, load before {machine['load_average']}; "
        + ", ".join(f"{k} {machine['versions'][k]}" for k in names if k in machine["versions"])
        + f". {settings['seeds']} seeds, {settings['rounds']} rounds.",
        "",
        "| data set | score, theirs | ours | fit, s, theirs | ours | predict, ms, theirs | ours "
        "| memory, MiB, theirs | ours |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in result["sets"]:
        both = [one["rounds"][whose] for whose in WHOSE]
        cells = [_score(rounds[0]["scores"]) for rounds in both]
        cells += [f"{_median(rounds, 'fit_s'):.3f}" for rounds in both]
        cells += [f"{1e3 * _median(rounds, 'predict_s'):.2f}" for rounds in both]
        cells += [f"{max(r['peak_mib'] for r in rounds):.0f}" for rounds in both]
        lines.append(f"| {one['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _score(scores: list[float]) -> str:
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.mean(scores):.3f} ± {spread:.3f}"


def _median(rounds: list[Answer], what: str) -> float:
    return statistics.median(value for one in rounds for value in one[what])


def write(result: Answer, folder: Path) -> list[Path]:
    """Write a result as .json and .md; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    base = f"estimators{default_name(result).removeprefix('cpu')}"
    paths = [folder / f"{base}{suffix}" for suffix in (".json", ".md")]
    paths[0].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    title = "# The estimators beside scikit-learn's own\n\n"
    paths[1].write_text(title + table(result), encoding="utf-8")
    return paths


def insert(text: str, page: Path, begin: str, end: str) -> None:
    """Replace what is between two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    old, _, after = rest.partition(end)
    if not old:
        raise SystemExit(f"{page} must hold a table between {begin.strip()} and {end.strip()}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the results, or copy a result into the docs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="three sets, one round")
    parser.add_argument("--sets", metavar="LIST", default="", help="numbers, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--docs", metavar="RESULT", type=Path, help="only write its table")
    parser.add_argument("--page", metavar="FILE", type=Path, default=DOCS, help=f"else {DOCS}")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(*json.loads(args.one))))
    elif args.docs:
        result = json.loads(args.docs.read_text(encoding="utf-8"))
        insert(table(result), args.page, BEGIN, END)
    else:
        every = QUICK if args.quick else list(range(len(SETS)))
        sets = [int(number) for number in args.sets.split(",") if number] or every
        for path in write(programme(sets, args.seeds, 1 if args.quick else args.rounds), args.out):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
