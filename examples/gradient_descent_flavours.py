"""Batch, mini-batch and stochastic gradient descent, and fixed against adaptive learning rates.

All runs have the same network, initial weights and data; only the number of samples per update
differs, and then, for mini-batches of 32, the update rule.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import nnbackend as nn

LAYERS = [64, nn.Dense(30, "sigmoid"), nn.Dense(10, "softmax")]


class Run(NamedTuple):
    """One variant of gradient descent."""

    name: str
    batch_size: int | None  # None: all rows
    rule: object
    schedule: object = None


# A comparison with one common eta would be misleading. Each is the one of 0.01, 0.03, 0.1, 0.3, 1,
# 3 (a tenth of these for Adam) with the lowest loss after 30 epochs, except for "too small".
FLAVOURS = [
    Run("batch (all rows)", None, nn.SGD(3.0)),
    Run("mini-batch (32)", 32, nn.SGD(3.0)),
    Run("stochastic (1)", 1, nn.SGD(0.3)),
]
RULES = [
    Run("fixed, too small", 32, nn.SGD(0.1)),
    Run("fixed", 32, nn.SGD(3.0)),
    Run("decaying", 32, nn.SGD(3.0), nn.schedules.Cosine()),
    Run("momentum 0.9", 32, nn.SGD(1.0, momentum=0.9)),
    Run("Adam", 32, nn.Adam(0.03)),
]
COLOURS = ["#2f6db3", "#e08214", "#3a9a5b", "#b5403f", "#7a5aa6"]


def descend(run: Run, data: nn.data.Dataset, epochs: int, device: str, seed: int) -> dict:
    """Train a new network; return its losses on all rows and the seconds, from epoch 0 on."""
    net = nn.Network(LAYERS, loss="cross_entropy", device=device, seed=seed)
    x = data.x / 16.0
    start = net.evaluate(x, data.y)["loss"]
    history = nn.train(
        net,
        x,
        data.y,
        optimizer=run.rule,
        schedule=run.schedule,
        batch_size=run.batch_size,
        epochs=epochs,
        validation=(x, data.y),  # the same rows: their loss at the end of each epoch
        seed=seed,
    )
    return {
        "loss": np.array([start, *history["valid_loss"]]),
        "seconds": np.concatenate([[0.0], np.cumsum(history["seconds"])]),
        "updates": -(-data.n_samples // history.batch_size),
    }


def print_table(runs: list[Run], results: list[dict], goal: float) -> None:
    """Print one row for each run."""
    print(
        f"{'':<16}  {'':>5}  {'updates':>9}  {'':>10}  {'seconds':>9}  "
        f"{'epochs to':>9}  {'seconds':>9}"
    )
    print(
        f"{'':<16}  {'eta':>5}  {'per epoch':>9}  {'final loss':>10}  {'per epoch':>9}  "
        f"{f'loss {goal}':>9}  {'to it':>9}"
    )
    for run, result in zip(runs, results, strict=True):
        loss, seconds = result["loss"], result["seconds"]
        reached = np.flatnonzero(loss <= goal)
        there = ("never", "-")
        if len(reached):
            there = (str(reached[0]), f"{seconds[reached[0]]:.3f}")
        print(
            f"{run.name:<16}  {run.rule.learning_rate:5g}  {result['updates']:9}  "
            f"{loss[-1]:10.5f}  {seconds[-1] / (len(loss) - 1):9.4f}  {there[0]:>9}  {there[1]:>9}"
        )


def draw(path: Path, flavours: list[dict], rules: list[dict]) -> None:
    """Draw the losses of the flavours against epochs and time, and those of the rules."""
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure = Figure(figsize=(14.5, 5.6), dpi=130, layout="constrained")
    by_epoch, by_time, by_rule = figure.subplots(1, 3, sharey=True)
    for run, result, colour in zip(FLAVOURS, flavours, COLOURS, strict=False):
        label = f"{run.name}, $\\eta$ = {run.rule.learning_rate:g}"
        by_epoch.plot(result["loss"], color=colour, lw=2, label=label)
        by_time.plot(result["seconds"][1:], result["loss"][1:], color=colour, lw=2, label=label)
    for run, result, colour in zip(RULES, rules, COLOURS, strict=True):
        label = f"{run.name}, $\\eta$ = {run.rule.learning_rate:g}"
        by_rule.plot(result["loss"], color=colour, lw=2, label=label)
    by_epoch.set(title="three flavours, by epochs", xlabel="epoch", ylabel="loss on all rows")
    by_time.set(title="the same, by time", xlabel="seconds of training", xscale="log")
    by_rule.set(title="mini-batches of 32, five rules", xlabel="epoch")
    for axes in (by_epoch, by_time, by_rule):
        axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            frameon=False, fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.13),
            ncols=1 if axes is not by_rule else 2,
        )  # fmt: skip
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1 or a backend's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gradient_descent_flavours"), metavar="FOLDER"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows and epochs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    data, epochs = nn.data.load("digits"), 30
    if args.quick:
        data, epochs = data.rows(slice(0, 300)), 6
    print(f"network 64-30-10 on {data.n_samples} handwritten digits, {epochs} epochs")
    # A warm-up, so that compilation and loading do not affect the comparison.
    for run in FLAVOURS + RULES:
        descend(run, data.rows(slice(0, 64)), 1, args.device, args.seed)

    goal = 0.5 if args.quick else 0.1
    flavours = [descend(run, data, epochs, args.device, args.seed) for run in FLAVOURS]
    print_table(FLAVOURS, flavours, goal)
    print(f"\nmini-batches of 32, {epochs} epochs")
    rules = [descend(run, data, epochs, args.device, args.seed) for run in RULES]
    print_table(RULES, rules, goal)
    draw(args.out / "gradient_descent_flavours.png", flavours, rules)


if __name__ == "__main__":
    main()
