"""Overfitting and its cures, on few noisy rows.

A network that is much too large memorizes its training rows, including the wrong labels. Cures:
fewer layers, a penalty on the weights (L2), dropout and early stopping.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import nnbackend as nn

BLUE, ORANGE, DARK = "#2f6db3", "#e08214", "#333333"
LARGE = [2, nn.Dense(100, "relu"), nn.Dense(100, "relu"), nn.Dense(1, "sigmoid")]
SMALL = [2, nn.Dense(4, "tanh"), nn.Dense(1, "sigmoid")]
DROPPED = [
    2,
    nn.Dense(100, "relu"),
    nn.Dropout(0.5),
    nn.Dense(100, "relu"),
    nn.Dropout(0.5),
    nn.Dense(1, "sigmoid"),
]
Rows = tuple[np.ndarray, np.ndarray]


class Cure(NamedTuple):
    """A network, and a cure for overfitting in its training."""

    name: str
    layers: list
    l2: float = 0.0
    patience: int | None = None


CURES = [
    Cure("no cure", LARGE),
    Cure("fewer layers", SMALL),
    Cure("L2 penalty", LARGE, l2=0.01),
    Cure("dropout", DROPPED),
    Cure("early stopping", LARGE, patience=40),
]


class LossRecorder(nn.Callback):
    """A callback that records the losses of training and test rows after every epoch.

    Training must not use the test rows. The training loss is that of the complete network: the one
    in the history is a mean over the epoch, with the penalty and with units dropped.
    """

    def __init__(self, train: Rows, test: Rows) -> None:
        self.rows = {"train": train, "test": test}
        self.losses: dict[str, list[float]] = {"train": [], "test": []}

    def on_epoch_end(self, trainer: object, row: dict[str, float]) -> None:
        for part, (x, y) in self.rows.items():
            self.losses[part].append(trainer.net.evaluate(x, y)["loss"])


def two_moons(n: int, rng: np.random.Generator) -> Rows:
    """Return two noisy half circles, one for each class; a tenth of the labels are wrong."""
    y = np.arange(n) % 2
    angle = np.pi * rng.random(n)
    x = np.column_stack([np.cos(angle), np.sin(angle)])
    x = np.where(y[:, None] == 0, x, [1.0, 0.5] - x)
    x += 0.3 * rng.standard_normal((n, 2))
    wrong = rng.random(n) < 0.1
    return x, np.where(wrong, 1 - y, y).astype(float)


def cure(
    how: Cure, train: Rows, test: Rows, epochs: int, device: str, seed: int
) -> tuple[nn.Network, LossRecorder, int]:
    """Train one network; return it, its curves, and the epoch whose weights it ends with."""
    net = nn.Network(how.layers, loss="binary_cross_entropy", device=device, seed=seed)
    recorder = LossRecorder(train, test)
    stopping = None if how.patience is None else nn.EarlyStopping(patience=how.patience)
    history = nn.train(
        net,
        *train,
        optimizer=nn.Adam(3e-3),
        epochs=epochs,
        batch_size=16,
        l2=how.l2,
        validation=None if stopping is None else 0.25,  # the cost: a quarter fewer training rows
        early_stopping=stopping,
        callbacks=[recorder],
        seed=seed,
    )
    return net, recorder, int(history.best["epoch"]) if stopping else len(history)


def draw(
    path: Path, train: Rows, results: list[tuple[Cure, nn.Network, LossRecorder, int, float]]
) -> None:
    """Draw the learned function of each cure above its losses on training and test rows."""
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure = Figure(figsize=(16, 6.4), dpi=120, layout="constrained")
    maps, curves = figure.subplots(2, len(results), sharex="row", sharey="row")
    low, high = train[0].min(axis=0) - 0.4, train[0].max(axis=0) + 0.4
    x1, x2 = np.meshgrid(*(np.linspace(low[i], high[i], 200) for i in (0, 1)))
    grid = np.column_stack([x1.ravel(), x2.ravel()])
    shades = ListedColormap(["#c9dcf0", "#fbe0bf"])
    for upper, lower, (how, net, recorder, last, accuracy) in zip(
        maps, curves, results, strict=True
    ):
        a = net.outputs(grid)[:, 0].reshape(x1.shape)
        upper.contourf(x1, x2, a, levels=[-0.001, 0.5, 1.001], cmap=shades)
        upper.contour(x1, x2, a, levels=[0.5], colors=DARK, linewidths=1.4)
        for label, colour, marker in ((0, BLUE, "o"), (1, ORANGE, "s")):
            mine = train[0][train[1] == label]
            upper.scatter(
                *mine.T, s=30, c=colour, marker=marker, ec="white", lw=0.7, label=f"$y = {label}$"
            )
        upper.set(title=f"{how.name}\ntest accuracy {accuracy:.1%}", xlabel="$x_1$")
        upper.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))

        epochs = np.arange(1, len(recorder.losses["train"]) + 1)
        lower.plot(epochs, recorder.losses["train"], color=BLUE, lw=1.6, label="training")
        lower.plot(epochs, recorder.losses["test"], color=ORANGE, lw=1.6, label="test")
        if last < len(epochs):
            lower.axvline(last, color="#777777", lw=1, ls="--", label="best validation")
        lower.set(xlabel="epoch", ylim=(0.0, 1.5))
        lower.grid(alpha=0.25)
        lower.spines[["top", "right"]].set_visible(False)
    maps[0].set_ylabel("$x_2$")
    maps[0].legend(loc="lower left", fontsize=9, framealpha=0.9, handletextpad=0.2)
    curves[0].set_ylabel("loss")
    curves[0].legend(frameon=False, fontsize=9.5, loc="upper left")
    curves[-1].legend(frameon=False, fontsize=9.5, loc="upper right")
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    """Try every cure on the same rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1 or a backend's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/overfitting"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(args.seed)
    train, test = two_moons(100, rng), two_moons(2000, rng)
    epochs = 80 if args.quick else 400
    print(f"{len(train[1])} rows to train on, {len(test[1])} to test, at most {epochs} epochs")
    print(f"{'':<14}  {'':>10}  {'':>6}  {'training':^17}  {'test':^17}")
    print(
        f"{'':<14}  {'parameters':>10}  {'epochs':>6}  {'loss':>7}  {'accuracy':>8}  "
        f"{'loss':>7}  {'accuracy':>8}"
    )
    results = []
    for how in CURES:
        net, recorder, last = cure(how, train, test, epochs, args.device, args.seed)
        seen, unseen = net.evaluate(*train), net.evaluate(*test)
        print(
            f"{how.name:<14}  {net.n_parameters:10,}  {last:6}  {seen['loss']:7.4f}  "
            f"{seen['accuracy']:8.3f}  {unseen['loss']:7.4f}  {unseen['accuracy']:8.3f}",
            flush=True,
        )
        results.append((how, net, recorder, last, unseen["accuracy"]))
    draw(args.out / "overfitting.png", train, results)


if __name__ == "__main__":
    main()
