"""The limits of polynomial regression: 100 features have 4950 pairs, and each needs a weight.

This script counts the terms, then compares linear regression, quadratic regression with all squares
and pairs, and a small multilayer perceptron on synthetic data. The target is a soft "and": it is
high where two linear combinations, u x and v x, are both high,

    y = sigmoid(4 u x + 2) sigmoid(4 v x + 2) + noise,

so that every pair of features interacts, but only two directions matter: a case for a hidden
layer. If y were quadratic, quadratic regression would be better, given more rows than terms.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import nnbackend as nn

N_HIDDEN = 10
COLOURS = {
    "linear": "#7f7f7f",
    "quadratic, least squares": "#b5403f",
    "quadratic, ridge": "#e08214",
    "multilayer perceptron": "#2f6db3",
}
Rows = tuple[np.ndarray, np.ndarray]


class Result(NamedTuple):
    """The result of one method with one number of rows."""

    method: str
    rows: int
    parameters: int
    seconds: float
    test_error: float


def print_term_counts() -> None:
    """Print how many terms a polynomial of d features has, beside a network's parameters."""
    print("features  pairs x_i x_j  all terms, degree 2  all terms, degree 3  MLP d-20-1")
    for d in (2, 10, 100, 1000):
        pairs, mlp = math.comb(d, 2), 20 * d + 20 + 20 + 1
        degree_2, degree_3 = math.comb(d + 2, 2), math.comb(d + 3, 3)
        print(f"{d:8,}  {pairs:13,}  {degree_2:19,}  {degree_3:19,}  {mlp:10,}")


def make_data(n: int, directions: np.ndarray, rng: np.random.Generator) -> Rows:
    """Return n rows of independent normal features and their noisy targets."""
    x = rng.standard_normal((n, directions.shape[0]))
    z = 4.0 * x @ directions + 2.0
    y = (1.0 / (1.0 + np.exp(-z))).prod(axis=1)
    return x, y + 0.03 * rng.standard_normal(n)


def quadratic_terms(x: np.ndarray) -> np.ndarray:
    """Return all features, squares and pairs."""
    i, j = np.triu_indices(x.shape[1])
    return np.hstack([x, x[:, i] * x[:, j]])


def ridge(terms: np.ndarray, y: np.ndarray, penalties: list[float]) -> list[np.ndarray]:
    """Return for each penalty the weights w that minimise |terms w - y|^2 + penalty |w|^2.

    With fewer rows than terms, it solves the smaller system with one unknown per row.
    """
    n, p = terms.shape
    gram = terms @ terms.T if n < p else terms.T @ terms
    right = y if n < p else terms.T @ y
    solutions = []
    for penalty in penalties:
        system = gram.copy()
        system[np.diag_indices_from(system)] += penalty
        solution = np.linalg.solve(system, right)
        solutions.append(terms.T @ solution if n < p else solution)
    return solutions


def fit_polynomial(method: str, terms: object, train: Rows, valid: Rows, test: Rows) -> Result:
    """Fit by least squares, or by ridge with the penalty that is best on the validation rows."""
    begin = time.perf_counter()
    x, (y, y_valid, y_test) = terms(train[0]), (train[1], valid[1], test[1])
    mean, middle = x.mean(axis=0), y.mean()
    x -= mean
    # Least squares is ridge with a tiny penalty, which keeps the system solvable.
    penalties = [100.0, 1000.0, 10000.0] if method.endswith("ridge") else [1e-6 * len(y)]
    candidates = ridge(x, y - middle, penalties)
    x_valid = terms(valid[0]) - mean
    w = min(candidates, key=lambda w: np.mean((x_valid @ w + middle - y_valid) ** 2))
    seconds = time.perf_counter() - begin
    y_hat = (terms(test[0]) - mean) @ w + middle
    return Result(method, len(y), x.shape[1] + 1, seconds, relative_error(y_hat, y_test))


def fit_network(
    train: Rows, valid: Rows, test: Rows, epochs: int, device: str, seed: int
) -> Result:
    """Fit networks with three penalties; return the best one on the validation rows."""
    begin = time.perf_counter()
    d, best = train[0].shape[1], (math.inf, None)
    for l2 in (0.003, 0.03, 0.1):
        layers = [d, nn.Dense(N_HIDDEN, "tanh"), nn.Dense(1, "identity")]
        net = nn.Network(layers, loss="quadratic", device=device, seed=seed)
        model = nn.Model(net, scale_targets=True)
        history = model.fit(
            *train,
            optimizer=nn.Adam(5e-3),
            epochs=epochs,
            batch_size=64,
            validation=valid,
            l2=l2,
            early_stopping=nn.EarlyStopping(patience=40),
            seed=seed,
        )
        best = min(best, (history.best["valid_loss"], model), key=lambda pair: pair[0])
    model = best[1]
    seconds = time.perf_counter() - begin
    error = relative_error(model.predict(test[0]), test[1])
    n_parameters = model.network.n_parameters
    return Result("multilayer perceptron", len(train[1]), n_parameters, seconds, error)


def relative_error(y_hat: np.ndarray, y: np.ndarray) -> float:
    """Return the mean squared error divided by the variance; 1 is predicting the mean."""
    return float(np.mean((y_hat - y) ** 2) / np.var(y))


def compare(d: int, sizes: list[int], epochs: int, device: str, seed: int) -> list[Result]:
    """Fit every method on every number of rows; print one line each."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((d, 2)))[0]  # u and v, at right angles
    test = make_data(2000, directions, rng)
    print(f"\n{d} features, test error as a share of the variance (noise alone: ", end="")
    print(f"{0.03**2 / np.var(test[1]):.3f})")
    print(f"{'rows':>5}  {'method':<24}  {'parameters':>10}  {'seconds':>8}  {'test error':>10}")
    results = []
    for n in sizes:
        train, valid = make_data(n, directions, rng), make_data(n // 4, directions, rng)
        found = [fit_polynomial("linear", np.array, train, valid, test)]
        for method in ("quadratic, least squares", "quadratic, ridge"):
            found.append(fit_polynomial(method, quadratic_terms, train, valid, test))
        found.append(fit_network(train, valid, test, epochs, device, seed))
        for r in found:
            print(
                f"{r.rows:5}  {r.method:<24}  {r.parameters:10,}  {r.seconds:8.2f}  "
                f"{r.test_error:10.3f}",
                flush=True,
            )
        results += found
    return results


def draw(path: Path, d: int, results: list[Result]) -> None:
    """Draw the explosion of terms beside the test errors."""
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure = Figure(figsize=(13, 5.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.35])

    features = np.unique(np.geomspace(2, 1000, 60).astype(int))
    for degree, colour in ((3, "#8c2d2c"), (2, "#e08214")):
        counts = [math.comb(k + degree, degree) for k in features]
        left.plot(features, counts, color=colour, lw=2, label=f"polynomial of degree {degree}")
    left.plot(features, 20 * features + 41, color="#2f6db3", lw=2, label="network d-20-1")
    left.scatter(100, 4950, s=45, color="#333333", zorder=3)
    left.annotate(
        "100 features:\n4950 pairs",
        (100, 4950),
        (130, 90),
        arrowprops={"arrowstyle": "-", "lw": 0.8},
    )
    left.set(
        title="parameters to be found", xlabel="number of features d", xscale="log", yscale="log"
    )

    sizes = sorted({r.rows for r in results})
    for method, colour in COLOURS.items():
        own = [r for r in results if r.method == method]
        right.plot(
            [r.rows for r in own], [r.test_error for r in own], "o-", color=colour, lw=2, ms=6,
            label=f"{method} ({own[0].parameters:,})",
        )  # fmt: skip
    n_terms = next(r.parameters for r in results if r.method == "quadratic, ridge")
    right.axvline(n_terms, color="#999999", lw=1, ls="--")
    right.axhline(1.0, color="#999999", lw=1, ls=":")
    right.set(
        title=f"{d} features: test error (parameters in brackets)", xlabel="training rows",
        ylabel="squared error / variance", xscale="log", yscale="log",
    )  # fmt: skip
    right.set_xticks(sizes, [str(n) for n in sizes])
    right.minorticks_off()
    low, high = right.get_ylim()
    right.text(n_terms, high * 0.9, "rows = terms ", ha="right", va="top", fontsize=9.5)
    right.text(sizes[0], 1.05, "guessing the mean", va="bottom", fontsize=9.5, color="#666666")
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low < t < high]
    right.set_yticks(ticks, [f"{t:g}" for t in ticks])
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=10)
    right.legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    """Count, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1 or a backend's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/limits_of_regression"), metavar="FOLDER"
    )
    parser.add_argument("--quick", action="store_true", help="20 features instead of 100")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    print_term_counts()
    # One size is the number of terms, where least squares is at its worst.
    d, sizes, epochs = 100, [500, 1000, 2000, 4000, 5151, 8000], 300
    if args.quick:
        d, sizes, epochs = 20, [100, 231, 800], 100
    results = compare(d, sizes, epochs, args.device, args.seed)
    draw(args.out / "limits_of_regression.png", d, results)


if __name__ == "__main__":
    main()
