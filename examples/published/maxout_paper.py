"""Goodfellow et al. 2013: maxout 2 x 240 units of 5 pieces on MNIST: 0.94 % error.

- pylearn2's mnist_pi.yaml: weights U(-0.005, 0.005), max column norm 1.9365, batches of 100, rate
  0.1 divided by 1.000004 each update down to 1e-6, momentum 0.5 -> 0.7 over 250 epochs, dropout 0.2
  and 0.5.
- pylearn2 does not scale the inputs that remain after dropout. Ours are scaled by 1 / 0.8, so the
  training rows are multiplied by 0.8; validation and test rows are not.
- Part 1: 50,000 rows, until the validation error has not improved for 100 epochs. Part 2: all
  60,000 rows from the best weights, until the loss on the last 10,000 falls to the training loss of
  those weights, without dropout.
- Part 2 restarts with velocity 0, and with the rate and momentum of the first update.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Result, TestAccuracy, accuracy, epochs, load, options, reproduce, train_or_resume

import nnbackend as nn

DROPPED = 0.2  # of the inputs


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
            [784, nn.Dropout(DROPPED), nn.Maxout(240, 5, small), nn.Dropout(0.5),
             nn.Maxout(240, 5, small), nn.Dropout(0.5), nn.Dense(10, "softmax", small)],
            device=args.device, seed=seed,
        )  # fmt: skip
        x, held = data.x * np.float32(1 - DROPPED), (data.x[n:], data.y[n:])
        common: dict[str, Any] = {
            "optimizer": nn.SGD(0.1, momentum=0.5), "batch_size": 100, "max_norm": 1.9365,
            "schedule": nn.schedules.Exponential(1 / 1.000004, floor=1e-5),
            "momentum_schedule": nn.schedules.Ramp(0.5, 0.7, 250.0),
            "validation": held, "seed": seed,
        }  # fmt: skip
        net, first = train_or_resume(
            folder / "50000-rows", net, x[:n], data.y[:n], epochs=epochs(args, 3000),
            early_stopping=nn.EarlyStopping(100, "valid_accuracy"),
            callbacks=[TestAccuracy(data)], **common,
        )  # fmt: skip
        until = Until(float(net.evaluate(data.x[:n], data.y[:n])["loss"]))
        net, second = train_or_resume(
            folder / "60000-rows", net, x, data.y, epochs=epochs(args, 1000),
            callbacks=[TestAccuracy(data), until], **common,
        )  # fmt: skip
        return accuracy(net, data.x_test, data.y_test), len(first) + len(second)

    source = "Goodfellow et al. 2013; pylearn2 mnist_pi.yaml"
    reproduce(args, Result("Maxout paper 2x240x5", 0.9906, source, 1), train)


if __name__ == "__main__":
    main()
