"""The rows of the comparison: networks, synthetic data, and the work of a step.

A row is written `784-100-10:128`: layer sizes and batch size; then optionally the optimizer and the
steps of an epoch: `784-100-10:128:momentum:50`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnbackend.errors import ArgumentError
from nnbackend.suggestions import suggest

if TYPE_CHECKING:  # imported late: a contender's import time is measured
    from numpy import float32, int64
    from numpy.typing import NDArray

    Floats = NDArray[float32]
    Labels = NDArray[int64]
    Parameters = tuple[list[Floats], list[Floats]]  # weights (I, O), biases (O,)

OPTIMIZERS = {"adam": 1e-3, "momentum": 0.01}  # name -> learning rate
MOMENTUM = 0.9
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
# Data larger than a core's caches; epochs of about a second at most.
MOST_ROWS, MOST_BYTES, MOST_FLOPS = 60_000, 40e6, 4e10
FEWEST_STEPS = 4


@dataclass(frozen=True)
class Row:
    """One training task: ReLU layers, softmax, cross-entropy, batches of `batch` rows."""

    layers: tuple[int, ...]
    batch: int
    optimizer: str = "adam"
    steps_given: int = 0

    @property
    def name(self) -> str:
        """The row in its text form."""
        words = ["-".join(map(str, self.layers)), str(self.batch)]
        if self.optimizer != "adam" or self.steps_given:
            words.append(self.optimizer)
        return ":".join(words + [str(self.steps_given)] * bool(self.steps_given))

    @property
    def title(self) -> str:
        """The row's title in a table.

        >>> Row((784, 100, 10), 128, "momentum").title
        '784-100-10 b128, momentum'
        """
        usual = self.optimizer == "adam"
        sizes = "-".join(map(str, self.layers))
        return f"{sizes} b{self.batch}" + ("" if usual else f", {self.optimizer}")

    @property
    def weight_counts(self) -> tuple[int, ...]:
        """The number of weights of each layer."""
        return tuple(i * o for i, o in zip(self.layers, self.layers[1:], strict=False))

    @property
    def flops(self) -> int:
        """Floating-point operations of a step's matrix products.

            2 B sum(P) forward + 2 B sum(P) for dW + 2 B sum(P of all layers but the first) for dx

        >>> Row((3, 4, 2), 5).flops
        480
        """
        counts = self.weight_counts
        return 2 * self.batch * (2 * sum(counts) + sum(counts[1:]))

    @property
    def steps(self) -> int:
        """Steps of an epoch, all of them on full batches."""
        if self.steps_given:
            return self.steps_given
        n = min(MOST_ROWS, int(MOST_BYTES) // (4 * self.layers[0]))
        return max(FEWEST_STEPS, min(n // self.batch, round(MOST_FLOPS / self.flops)))

    @property
    def n_samples(self) -> int:
        """Rows of the data."""
        return self.batch * self.steps


def parse_row(text: str) -> Row:
    """Return the row of a text `sizes:batch[:optimizer[:steps]]`.

    Raises: ArgumentError for anything else.
    >>> parse_row("784-30-10:10").layers
    (784, 30, 10)
    """
    sizes, *rest = text.split(":")
    try:
        layers = tuple(int(size) for size in sizes.split("-"))
        batch = int(rest[0])
        steps = int(rest[2]) if len(rest) == 3 else 0
        if len(rest) > 3 or len(layers) < 2 or min(*layers, batch) < 1 or steps < 0:
            raise ValueError
    except (ValueError, IndexError):
        raise ArgumentError(
            "A row must be sizes:batch, or sizes:batch:optimizer:steps, all of them at least 1. "
            f"Received: {text!r}. Use for instance 784-100-10:128 or 784-100-10:128:momentum."
        ) from None
    optimizer = rest[1] if len(rest) > 1 else "adam"
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(f"unknown optimizer {optimizer!r}. {suggest(optimizer, OPTIMIZERS)}")
    if layers[-1] < 2:
        raise ArgumentError(f"A row must end in at least 2 classes. Received: {text!r}.")
    return Row(layers, batch, optimizer, steps)


QUICK = tuple(parse_row(t) for t in ("784-100-10:128", "20-64-64-2:32", "784-512-512-10:128"))


def parse_rows(text: str) -> tuple[Row, ...]:
    """Return the rows of a list with commas."""
    return tuple(parse_row(word) for word in text.split(",") if word)


def make_data(row: Row, seed: int = 0) -> tuple[Floats, Labels]:
    """Return inputs (n, I) and labels (n,) that a network can learn, but not perfectly.

    Labels are drawn by the softmax of a fixed linear teacher; the first ones are 0, 1, 2, ..., so
    that every class occurs in the first rows.
    """
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed))
    n_in, n_out = row.layers[0], row.layers[-1]
    x = rng.standard_normal((row.n_samples, n_in), dtype=np.float32)
    teacher = rng.standard_normal((n_in, n_out)) * (3.0 / math.sqrt(n_in))
    y = np.argmax(x @ teacher.astype(np.float32) + rng.gumbel(size=(len(x), n_out)), axis=1)
    y[:n_out] = np.arange(n_out)[: len(y)]
    return x, y


def make_parameters(row: Row, seed: int = 0) -> Parameters:
    """Return the initial weights and biases of all contenders.

    Source: He et al. 2015, equation 10, drawn uniformly.
    """
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed + 1))
    weights = []
    for n_in, n_out in zip(row.layers, row.layers[1:], strict=False):
        limit = math.sqrt(6.0 / n_in)
        weights.append(rng.uniform(-limit, limit, (n_in, n_out)).astype(np.float32))
    return weights, [np.zeros(W.shape[1], np.float32) for W in weights]


def mean_loss(parameters: Parameters, x: Floats, y: Labels) -> float:
    """Return the mean cross-entropy of a network with these parameters, by plain NumPy."""
    import numpy as np

    a, (weights, biases) = x, parameters
    for W, b in zip(weights[:-1], biases[:-1], strict=True):
        a = np.maximum(a @ W + b, 0.0)
    z = (a @ weights[-1] + biases[-1]).astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), y]
    return float(losses.mean())
