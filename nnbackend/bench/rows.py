"""The rows of the comparison: networks, synthetic data, and the work of a step.

A row is written `784-100-10:128`: layer sizes and batch size. Options follow, in any order:

    momentum        SGD with momentum; without it Adam (adam)
    quadratic       regression: linear outputs, C = 1/2 sum (a - y)^2; without it classes
    maxout2         hidden layers of maxout units with 2 pieces; without it ReLU
    dropout0.5      dropout with this rate after each hidden layer
    50              steps of an epoch
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnbackend.errors import ArgumentError

if TYPE_CHECKING:  # imported late: a contender's import time is measured
    from numpy import float32, int64
    from numpy.typing import NDArray

    Floats = NDArray[float32]
    Targets = NDArray[int64] | NDArray[float32]  # labels (n,), or numbers (n, O)
    Parameters = tuple[list[Floats], list[Floats]]  # weights (I, K * O), biases (K * O,)

OPTIMIZERS = {"adam": 1e-3, "momentum": 0.01}  # name -> learning rate
MOMENTUM = 0.9
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
# Data larger than a core's caches; epochs of about a second at most.
MOST_ROWS, MOST_BYTES, MOST_FLOPS = 60_000, 40e6, 4e10
FEWEST_STEPS = 4


@dataclass(frozen=True)
class Row:
    """One training task, in batches of `batch` rows.

    n_pieces: of each hidden unit; 1 is ReLU, more are maxout.  drop_rate: after each hidden layer.
    """

    layers: tuple[int, ...]
    batch: int
    optimizer: str = "adam"
    steps_given: int = 0
    is_regression: bool = False
    n_pieces: int = 1
    drop_rate: float = 0.0

    @property
    def options(self) -> tuple[str, ...]:
        """What differs from a ReLU classifier trained with Adam, in the words of the text form."""
        words = {
            "quadratic": self.is_regression,
            f"maxout{self.n_pieces}": self.n_pieces > 1,
            f"dropout{self.drop_rate}": self.drop_rate > 0.0,
            self.optimizer: self.optimizer != "adam",
        }
        return tuple(word for word, is_given in words.items() if is_given)

    @property
    def name(self) -> str:
        """The row in its text form."""
        sizes, steps = "-".join(map(str, self.layers)), [str(self.steps_given)]
        return ":".join([sizes, str(self.batch), *self.options, *(steps * bool(self.steps_given))])

    @property
    def title(self) -> str:
        """The row's title in a table.

        >>> Row((784, 100, 10), 128, "momentum", drop_rate=0.5).title
        '784-100-10 b128, dropout 0.5, momentum'
        """
        words = [re.sub(r"(?<=[a-z])(?=\d)", " ", word) for word in self.options]
        return ", ".join([f"{'-'.join(map(str, self.layers))} b{self.batch}", *words])

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each layer's weights; maxout layers have n_pieces columns for each unit."""
        widths = [*(self.n_pieces * n for n in self.layers[1:-1]), self.layers[-1]]
        return tuple(zip(self.layers, widths, strict=False))

    @property
    def flops(self) -> int:
        """Floating-point operations of a step's matrix products.

            2 B sum(P) forward + 2 B sum(P) for dW + 2 B sum(P of all layers but the first) for dx

        >>> Row((3, 4, 2), 5).flops
        480
        """
        counts = [n_in * width for n_in, width in self.shapes]
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
    """Return the row of a text `sizes:batch`, with options after further colons.

    Raises: ArgumentError for anything else.
    >>> parse_row("784-256-10:128:momentum:maxout2").options
    ('maxout2', 'momentum')
    """
    sizes, *words = text.split(":")
    try:
        layers = tuple(int(size) for size in sizes.split("-"))
        batch = int(words.pop(0))
        if len(layers) < 2 or min(*layers, batch) < 1:
            raise ValueError
    except (ValueError, IndexError):
        raise ArgumentError(
            "A row must be layer sizes and a batch size, all of them at least 1. "
            f"Received: {text!r}. Use for instance 784-100-10:128 or 784-100-10:128:momentum."
        ) from None
    options = dict(_option(word) for word in words)
    if len(options) < len(words):
        raise ArgumentError(f"A row must give each option once. Received: {text!r}.")
    row = Row(layers, batch, **options)
    if len(layers) == 2 and (row.n_pieces > 1 or row.drop_rate):
        raise ArgumentError(f"maxout and dropout need a hidden layer. Received: {text!r}.")
    if layers[-1] < 2 and not row.is_regression:
        raise ArgumentError(
            f"A row must end in at least 2 classes. Received: {text!r}. For regression "
            f"write {text}:quadratic."
        )
    return row


def _option(word: str) -> tuple[str, Any]:
    """Return the field of Row that an option sets, and its value."""
    if word in OPTIMIZERS:
        return "optimizer", word
    if word == "quadratic":
        return "is_regression", True
    if word.isdecimal() and int(word) > 0:
        return "steps_given", int(word)
    if (found := re.fullmatch(r"maxout(\d+)", word)) and int(found[1]) > 1:
        return "n_pieces", int(found[1])
    if (found := re.fullmatch(r"dropout(0?\.\d+)", word)) and float(found[1]) > 0.0:
        return "drop_rate", float(found[1])
    raise ArgumentError(
        f"An option of a row must be {', '.join(OPTIMIZERS)}, quadratic, maxout2 (or more pieces), "
        f"dropout0.5 (or another rate below 1) or the steps of an epoch. Received: {word!r}."
    )


QUICK = tuple(parse_row(t) for t in ("784-100-10:128", "20-64-64-2:32", "784-512-512-10:128"))


def parse_rows(text: str) -> tuple[Row, ...]:
    """Return the rows of a list with commas."""
    return tuple(parse_row(word) for word in text.split(",") if word)


def make_data(row: Row, seed: int = 0) -> tuple[Floats, Targets]:
    """Return inputs (n, I) and targets that a network can learn, but not perfectly.

    A fixed linear teacher makes them: labels are drawn by its softmax, and the first ones are 0, 1,
    2, ..., so that every class occurs in the first rows. Numbers are its outputs with noise.
    """
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed))
    n_in, n_out = row.layers[0], row.layers[-1]
    x = rng.standard_normal((row.n_samples, n_in), dtype=np.float32)
    teacher = rng.standard_normal((n_in, n_out)) * (3.0 / math.sqrt(n_in))
    outputs = x @ teacher.astype(np.float32)
    if row.is_regression:
        y = outputs + rng.standard_normal(outputs.shape, dtype=np.float32)
        return x, y / np.float32(math.sqrt(10.0))  # with a variance of about 1
    y = np.argmax(outputs + rng.gumbel(size=outputs.shape), axis=1)
    y[:n_out] = np.arange(n_out)[: len(y)]
    return x, y


def make_parameters(row: Row, seed: int = 0) -> Parameters:
    """Return the initial weights and biases of all contenders.

    Source: He et al. 2015, equation 10, drawn uniformly.
    """
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed + 1))
    weights = []
    for shape in row.shapes:
        limit = math.sqrt(6.0 / shape[0])
        weights.append(rng.uniform(-limit, limit, shape).astype(np.float32))
    return weights, [np.zeros(W.shape[1], np.float32) for W in weights]


def mean_loss(row: Row, parameters: Parameters, x: Floats, y: Targets) -> float:
    """Return the mean loss of a network with these parameters, without dropout, by plain NumPy."""
    import numpy as np

    a, (weights, biases) = x, parameters
    for W, b in zip(weights[:-1], biases[:-1], strict=True):
        z = a @ W + b
        pieces = z.reshape(len(z), row.n_pieces, -1)
        a = pieces.max(axis=1) if row.n_pieces > 1 else np.maximum(z, 0.0)
    z = (a @ weights[-1] + biases[-1]).astype(np.float64)
    if row.is_regression:
        return float(0.5 * ((z - y) ** 2).sum(axis=1).mean())
    z -= z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), y]
    return float(losses.mean())
