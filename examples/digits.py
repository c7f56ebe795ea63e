"""Handwritten digits: train, stop early, test, save and load.

scikit-learn's 1797 digits of 8 x 8 pixels in three parts: training, validation for early stopping,
and test, which is used once, at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import nnbackend as nn

BLUE, ORANGE, DARK = "#2f6db3", "#e08214", "#333333"


def print_epochs(history: nn.History) -> None:
    """Print the history and mark the best epoch."""
    print("epoch  train loss  valid loss  valid accuracy")
    best = history.best["epoch"]
    for row in history:
        mark = "  <- best" if row["epoch"] == best else ""
        print(
            f"{row['epoch']:5}  {row['train_loss']:10.4f}  {row['valid_loss']:10.4f}  "
            f"{row['valid_accuracy']:14.4f}{mark}"
        )
    print(f"ended by: {history.stop_reason}; the weights are those of epoch {best}")


def confusion_matrix(y: np.ndarray, y_hat: np.ndarray, n_classes: int) -> np.ndarray:
    """Return how often each digit (row) was classified as each digit (column)."""
    counts = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(counts, (y, y_hat), 1)
    return counts


def draw(path: Path, history: nn.History, confusion: np.ndarray, accuracy: float) -> None:
    """Draw the learning curves beside the confusion matrix."""
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure = Figure(figsize=(12.5, 5.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1.0])

    left.plot(history["epoch"], history["train_loss"], color=BLUE, lw=2, label="training")
    left.plot(history["epoch"], history["valid_loss"], color=ORANGE, lw=2, label="validation")
    best = history.best
    left.axvline(best["epoch"], color="#999999", lw=1, ls="--")
    left.scatter(
        best["epoch"], best["valid_loss"], s=60, color=ORANGE, ec="white", zorder=3,
        label=f"best epoch, {best['epoch']}",
    )  # fmt: skip
    left.set(title="learning curves", xlabel="epoch", ylabel="cross-entropy loss", yscale="log")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.grid(alpha=0.25, which="both")
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)

    right.imshow(np.log1p(confusion), cmap="Blues")  # log, so that single mistakes are visible
    middle = np.log1p(confusion).max() / 2
    for i, j in np.argwhere(confusion):
        right.text(
            j, i, confusion[i, j], ha="center", va="center",
            color="white" if np.log1p(confusion[i, j]) > middle else DARK,
            weight="normal" if i == j else "bold",
        )  # fmt: skip
    digits = range(len(confusion))
    right.set(
        title=f"test rows, accuracy {accuracy:.1%}", xlabel="predicted digit", ylabel="true digit",
        xticks=digits, yticks=digits,
    )  # fmt: skip
    figure.savefig(path)
    print(f"picture: {path}")


def main() -> None:
    """Train, test, save, load and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1 or a backend's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="few epochs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    data = nn.data.load("digits")
    rest, test = data.split(0.2, seed=args.seed)
    training, validation = rest.split(0.2, seed=args.seed + 1)
    print(
        f"{training.n_samples} rows to train on, {validation.n_samples} to validate, "
        f"{test.n_samples} to test"
    )

    layers = [64, nn.Dense(100, "relu"), nn.Dense(10, "softmax")]
    net = nn.Network(layers, loss="cross_entropy", device=args.device, seed=args.seed)
    print(net.summary())
    model = nn.Model(net, scale="unit")
    history = model.fit(
        training.x,
        training.y,
        optimizer=nn.Adam(2e-3),
        epochs=12 if args.quick else 100,
        batch_size=32,
        validation=(validation.x, validation.y),
        early_stopping=nn.EarlyStopping(patience=8),
        seed=args.seed,
    )
    print_epochs(history)

    result = model.evaluate(test.x, test.y)
    print(f"test loss {result['loss']:.4f}, test accuracy {result['accuracy']:.4f}")

    path = args.out / "model.safetensors"
    model.save(path)
    again = nn.load(path, device=args.device)
    same = np.array_equal(again.outputs(test.x), model.outputs(test.x))
    print(f"saved to {path} and loaded: {'the same' if same else 'DIFFERENT'} outputs")

    confusion = confusion_matrix(test.y, model.predict(test.x), data.n_classes)
    draw(args.out / "digits.png", history, confusion, result["accuracy"])


if __name__ == "__main__":
    main()
