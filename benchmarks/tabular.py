"""Compare the scores of TabularMLP* with scikit-learn's MLP and gradient boosting.

    python -m benchmarks.tabular --seeds 3 --out FILE.md

A seed determines the split into training and test rows (three to one), and the weights. Times are
not measured, so the machine may be busy. scikit-learn's MLP gets standardized rows, and for
regression standardized targets; all other options have their defaults.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets, ensemble, neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nnbackend as nn

CLASSES, NUMBERS = "classes", "numbers"


def _made(n: int, features: int, classes: int, flip: float) -> Any:
    return datasets.make_classification(
        n, features, n_informative=features // 2, n_classes=classes, flip_y=flip, random_state=0
    )


SETS: list[tuple[str, str, Callable[[], Any]]] = [
    ("iris", CLASSES, lambda: datasets.load_iris(return_X_y=True)),
    ("wine", CLASSES, lambda: datasets.load_wine(return_X_y=True)),
    ("breast cancer", CLASSES, lambda: datasets.load_breast_cancer(return_X_y=True)),
    ("digits", CLASSES, lambda: datasets.load_digits(return_X_y=True)),
    ("moons with noise", CLASSES,
     lambda: datasets.make_moons(1000, noise=0.3, random_state=0)),
    ("20 features, 4 classes", CLASSES, lambda: _made(2000, 20, 4, 0.01)),
    ("20 features, 2 classes, a fifth of labels random", CLASSES,
     lambda: _made(2000, 20, 2, 0.2)),
    ("diabetes", NUMBERS, lambda: datasets.load_diabetes(return_X_y=True)),
    ("Friedman 1", NUMBERS,
     lambda: datasets.make_friedman1(1000, noise=1.0, random_state=0)),
    ("Friedman 2", NUMBERS,
     lambda: datasets.make_friedman2(1000, noise=50.0, random_state=0)),
    ("Friedman 3", NUMBERS,
     lambda: datasets.make_friedman3(1000, noise=0.1, random_state=0)),
    ("linear, 20 features", NUMBERS,
     lambda: datasets.make_regression(1000, 20, noise=20.0, random_state=0)),
]  # fmt: skip
HEAD = "| data set | TabularMLP* | scikit-learn's MLP | gradient boosting |\n|---|---|---|---|\n"


def contenders(kind: str, seed: int) -> list[Any]:
    """Return the three estimators, in the order of the table."""
    if kind == CLASSES:
        mlp: Any = neural_network.MLPClassifier(random_state=seed)
        ours: Any = nn.TabularMLPClassifier(random_state=seed)
        boosting: Any = ensemble.HistGradientBoostingClassifier(random_state=seed)
        return [ours, make_pipeline(StandardScaler(), mlp), boosting]
    mlp = make_pipeline(StandardScaler(), neural_network.MLPRegressor(random_state=seed))
    theirs = TransformedTargetRegressor(mlp, transformer=StandardScaler())
    ours = nn.TabularMLPRegressor(random_state=seed)
    return [ours, theirs, ensemble.HistGradientBoostingRegressor(random_state=seed)]


def scores(index: int, first_seed: int, seeds: int) -> np.ndarray:
    """Return the test scores, (seeds, contenders): accuracy, or R2 for numbers."""
    _, kind, load = SETS[index]
    X, y = load()
    found = []
    for seed in range(first_seed, first_seed + seeds):
        X1, X2, y1, y2 = train_test_split(
            X, y, test_size=0.25, random_state=seed, stratify=y if kind == CLASSES else None
        )
        found.append([model.fit(X1, y1).score(X2, y2) for model in contenders(kind, seed)])
    return np.array(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular")
    parser.add_argument("--sets", default=",".join(map(str, range(len(SETS)))))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [HEAD]
    print(HEAD, end="")
    for index in map(int, args.sets.split(",")):
        found = scores(index, args.first_seed, args.seeds)
        spread = found.std(axis=0, ddof=1) if args.seeds > 1 else np.zeros(found.shape[1])
        cells = (f"{m:.3f} ± {s:.3f}" for m, s in zip(found.mean(axis=0), spread, strict=True))
        lines.append(f"| {SETS[index][0]} | {' | '.join(cells)} |\n")
        print(lines[-1], end="", flush=True)
    if args.out is not None:
        args.out.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
