"""Keras's example mnist_mlp: 512-512 ReLU, dropout 0.2, RMSprop: 98.40 % after 20 epochs.

RMSprop 1e-3 with rho 0.9, batches of 128, Glorot's uniform weights, pixels from 0 to 1, all 60,000
rows. The figure is the last epoch's on the test rows. Source: the docstring of that example.
"""

from __future__ import annotations

from pathlib import Path

from common import Result, TestAccuracy, epochs, finished, load, options, reproduce

import nnbackend as nn


def main() -> None:
    """Run three seeds."""
    args = options("Keras's mnist_mlp")
    data = load(args.data, args.quick)

    def train(seed: int, _folder: Path) -> tuple[float, int]:
        def hidden() -> list[nn.Dense | nn.Dropout]:
            return [nn.Dense(512, "relu", "glorot_uniform"), nn.Dropout(0.2)]

        net = nn.Network(
            [784, *hidden(), *hidden(), 10], "cross_entropy", device=args.device, seed=seed
        )
        test = TestAccuracy(data)
        history = nn.train(
            net, data.x, data.y, optimizer=nn.RMSProp(1e-3, rho=0.9), batch_size=128,
            epochs=epochs(args, 20), callbacks=[test], seed=seed,
        )  # fmt: skip
        finished(history)
        return test.values[-1], len(test.values)

    reproduce(args, Result("Keras 512-512 dropout", 0.984, "Keras examples, mnist_mlp", 3), train)


if __name__ == "__main__":
    main()
