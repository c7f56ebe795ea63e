"""Goodfellow et al. 2013: maxout 2 x 240 units of 5 pieces on MNIST: 0.94 % error.

- pylearn2's mnist_pi.yaml: weights U(-0.005, 0.005), max column norm 1.9365, batches of 100, rate
  0.1 divided by 1.000004 each update down to 1e-6, momentum 0.5 -> 0.7 over 250 epochs, dropout 0.2
  and 0.5.
- Part 1: 50,000 rows, until the validation error has not improved for 100 epochs. Part 2: all
  60,000 rows from the best weights, until the loss on the last 10,000 falls to part 1's training
  loss in its best epoch.
- Differs: dropped-out inputs are scaled by 1 / 0.8 only here; part 2 restarts with velocity 0 and
  with the rate and momentum of the first update.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Result, TestAccuracy, accuracy, epochs, load, options, reproduce, train_or_resume

import nnbackend as nn


class Until(nn.Callback):
    """A callback that ends training when the validation loss reaches a value."""

    def __init__(self, loss: float) -> None:
        self.loss = loss

    def on_epoch_end(self, trainer: Any, row: Any) -> bool:
        return bool(row["valid_loss"] <= self.loss)


def main() -> None:
    """Run one seed."""
    args = options("Maxout with dropout")
    data = load(args.data, args.quick)
    n = len(data.x) * 5 // 6  # 50,000 of 60,000

    def train(seed: int, folder: Path) -> tuple[float, int]:
        small = nn.initializers.uniform(0.005)
        net = nn.Network(
            [784, nn.Dropout(0.2), nn.Maxout(240, 5, small), nn.Dropout(0.5),
             nn.Maxout(240, 5, small), nn.Dropout(0.5), nn.Dense(10, "softmax", small)],
            device=args.device, seed=seed,
        )  # fmt: skip
        held = data.x[n:], data.y[n:]
        common: dict[str, Any] = {
            "optimizer": nn.SGD(0.1, momentum=0.5), "batch_size": 100, "max_norm": 1.9365,
            "schedule": nn.schedules.Exponential(1 / 1.000004, floor=1e-5),
            "momentum_schedule": nn.schedules.Ramp(0.5, 0.7, 250.0),
            "validation": held, "seed": seed,
        }  # fmt: skip
        net, first = train_or_resume(
            folder / "50000-rows", net, data.x[:n], data.y[:n], epochs=epochs(args, 3000),
            early_stopping=nn.EarlyStopping(100, "valid_accuracy"),
            callbacks=[TestAccuracy(data)], **common,
        )  # fmt: skip
        until = Until(float(first.best["train_loss"]))
        net, second = train_or_resume(
            folder / "60000-rows", net, data.x, data.y, epochs=epochs(args, 1000),
            callbacks=[TestAccuracy(data), until], **common,
        )  # fmt: skip
        return accuracy(net, data.x_test, data.y_test), len(first) + len(second)

    source = "Goodfellow et al. 2013; pylearn2 mnist_pi.yaml"
    reproduce(args, Result("Maxout paper 2x240x5", 0.9906, source, 1), train)


if __name__ == "__main__":
    main()
