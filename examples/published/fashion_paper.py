"""Xiao et al. 2017 (arXiv 1708.07747), Table 3: the eight MLP rows. Run it once for each data set.

- Their script standardises the pixels and shuffles the rows five times.
- scikit-learn's defaults of 2017: Adam 1e-3, batches of 200, alpha 1e-4 (l2 = alpha / 200), at most
  200 epochs, stop after three epochs in which the training loss falls by less than 1e-4, Glorot
  uniform weights (biases 0 here).
- The figure is the last epoch's on the test rows.
"""

from __future__ import annotations

from pathlib import Path

from common import Result, TestAccuracy, epochs, finished, load, options, reproduce

import nnbackend as nn

# activation, hidden: Fashion-MNIST, MNIST
ROWS = {
    ("relu", (100,)): (0.871, 0.972),
    ("relu", (100, 10)): (0.870, 0.972),
    ("tanh", (100,)): (0.868, 0.962),
    ("tanh", (100, 10)): (0.863, 0.957),
    ("relu", (10, 10)): (0.850, 0.936),
    ("relu", (10,)): (0.848, 0.933),
    ("tanh", (10, 10)): (0.841, 0.921),
    ("tanh", (10,)): (0.840, 0.921),
}


def main() -> None:
    """Run the eight rows on the data set of the folder, identified by its name."""
    args = options(__doc__ or "")
    data, is_fashion = load(args.data, args.quick), "fashion" in str(args.data).lower()
    for (activation, hidden), figures in ROWS.items():

        def train(seed: int, _folder: Path) -> tuple[float, int]:
            layers = [nn.Dense(n, activation, "glorot_uniform") for n in hidden]
            net = nn.Network([784, *layers, 10], "cross_entropy", device=args.device, seed=seed)
            test = TestAccuracy(data)
            patience = nn.EarlyStopping(3, "train_loss", 1e-4, restore_best=False)
            history = nn.Model(net, scale="standard").fit(
                data.x, data.y, optimizer=nn.Adam(1e-3), batch_size=200, l2=1e-4 / 200,
                early_stopping=patience, epochs=epochs(args, 200), callbacks=[test], seed=seed,
            )  # fmt: skip
            finished(history)
            return test.values[-1], len(test.values)

        where = "Fashion-MNIST" if is_fashion else "MNIST"
        name = f"{where} paper {activation} {'-'.join(map(str, hidden))}"
        source = "arXiv 1708.07747, Table 3"
        reproduce(args, Result(name, figures[0 if is_fashion else 1], source, 5), train)


if __name__ == "__main__":
    main()
