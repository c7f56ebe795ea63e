"""Ciresan et al. 2010 (arXiv 1003.0358): large plain networks, new deformed digits every epoch.

- 1000-500 (0.49 % error) and 2500-2000-1500-1000-500 (0.35 %): a = 1.7159 tanh(0.6666 z), weights
  U(-0.05, 0.05), rate from 1e-3 down to 1e-6.
- Deformation sizes (elastic sigma 5.5 and strength 37, rotation 15 and half of it for 1 and 7,
  scaling 15 %) and online steps are quoted from memory of the paper.
- Differs: mini-batches of 20 with 20 times the rate, softmax and cross-entropy at the end, no
  validation rows, the last epoch's figure.
- 800 epochs are meant for a GPU. On one core of the processor below they would take 6 hours (26 s
  each), those of the larger network 38 hours (170 s each).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import Result, accuracy, epochs, finished, load, options, reproduce

import nnbackend as nn

NETS = {(1000, 500): 0.9951, (2500, 2000, 1500, 1000, 500): 0.9965}
BATCH, EPOCHS, SIDE = 20, 800, 28
SCALED_TANH = nn.Activation(
    "scaled_tanh",
    lambda z, xp: 1.7159 * xp.tanh(0.6666 * z),
    lambda z, a, xp: 0.6666 * (1.7159 - a * a / 1.7159),
)


def smooth(fields: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (n, SIDE, SIDE) by a Gaussian, as two products with one matrix."""
    places = np.arange(SIDE)
    kernel = np.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return kernel @ fields @ kernel.T


def deform(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return every digit rotated, scaled and elastically deformed, by bilinear interpolation."""
    result = np.empty_like(x)
    for start in range(0, len(x), 2000):
        part = slice(start, start + 2000)
        n = len(x[part])
        bend = smooth(rng.uniform(-1, 1, (2 * n, SIDE, SIDE)).astype(np.float32), 5.5) * 37
        limit = np.where(np.isin(y[part], (1, 7)), 7.5, 15.0)
        angle = np.radians(rng.uniform(-limit, limit))[:, None, None]
        tall, wide = 1 + rng.uniform(-0.15, 0.15, (2, n, 1, 1))
        v, u = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
        rows = tall * (np.cos(angle) * v - np.sin(angle) * u) + bend[:n] + (SIDE - 1) / 2
        columns = wide * (np.sin(angle) * v + np.cos(angle) * u) + bend[n:] + (SIDE - 1) / 2
        result[part] = sample(x[part].reshape(n, SIDE, SIDE), rows, columns).reshape(n, -1)
    return result


def sample(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return images sampled between their pixels; coordinates are clipped to the edge."""
    rows, columns = np.clip(rows, 0, SIDE - 1.001), np.clip(columns, 0, SIDE - 1.001)
    i, j = rows.astype(int), columns.astype(int)
    di, dj = rows - i, columns - j
    which = np.arange(len(images))[:, None, None]
    above = images[which, i, j] * (1 - dj) + images[which, i, j + 1] * dj
    below = images[which, i + 1, j] * (1 - dj) + images[which, i + 1, j + 1] * dj
    value: np.ndarray = above * (1 - di) + below * di
    return value


def save(folder: Path, net: nn.Network, epoch: int) -> None:
    """Save the network after an epoch, and delete the previous one."""
    folder.mkdir(parents=True, exist_ok=True)
    nn.Model(net).save(folder / f"{epoch:04}.safetensors")
    (folder / f"{epoch - 1:04}.safetensors").unlink(missing_ok=True)


def newest(folder: Path, net: nn.Network) -> tuple[nn.Network, int]:
    """Return the network that was saved last and its epoch, or the new one and 0."""
    kept = sorted(folder.glob("*.safetensors"))
    if not kept:
        return net, 0
    model = nn.load(kept[-1], net.backend, activations=[SCALED_TANH])
    return model.network, int(kept[-1].stem)


def main() -> None:
    """Run both networks, one seed each."""
    args = options("Large networks on deformed digits")
    data = load(args.data, args.quick)
    for hidden, published in NETS.items():

        def train(seed: int, folder: Path) -> tuple[float, int]:
            small, n_epochs = nn.initializers.uniform(0.05), epochs(args, EPOCHS)
            layers = [nn.Dense(n, SCALED_TANH, small) for n in hidden]
            net = nn.Network(
                [784, *layers, nn.Dense(10, "softmax", small)], device=args.device, seed=seed
            )
            x_test, rates = 2 * data.x_test - 1, np.geomspace(1e-3, 1e-6, n_epochs) * BATCH
            net, begun = newest(folder, net)
            for epoch in range(begun, n_epochs):  # plain SGD has no state between epochs
                bent = deform(data.x, data.y, np.random.default_rng([seed, epoch]))
                history = nn.train(
                    net, 2 * bent - 1, data.y, optimizer=nn.SGD(float(rates[epoch])),
                    batch_size=BATCH, epochs=1, seed=1_000_003 * seed + epoch,
                )  # fmt: skip
                finished(history)
                save(folder, net, epoch + 1)
                reached = accuracy(net, x_test, data.y_test)
                print(f"  epoch {epoch + 1:4}  test {reached:.4f}", flush=True)
            return accuracy(net, x_test, data.y_test), n_epochs

        name = f"Ciresan {'-'.join(map(str, hidden))}"
        reproduce(args, Result(name, published, "arXiv 1003.0358, Table 1", 1), train)


if __name__ == "__main__":
    main()
