"""Comparison of two devices on the user's machine: gradients, short training runs, masks.

Same network, seed and data on both. Each vector is compared as a whole,
max|a - b| <= tolerance * max|b|, b from the second device. (The conformance kit compares
element-wise, which needs a reference.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnbackend.backend import Backend
from nnbackend.devices import get_backend
from nnbackend.network.layers import Dense, Dropout, Maxout
from nnbackend.network.network import Network
from nnbackend.training.api import train

# For one pass, and after a hundred steps.
TOLERANCES = {"float64": (1e-12, 1e-9), "float32": (1e-5, 1e-4)}
N_IN, N_OUT, ROWS, EPOCHS, BATCH = 20, 4, 100, 20, 20  # 5 steps an epoch: 100 in all


@dataclass(frozen=True)
class Difference:
    """One tensor on two devices: the largest difference, relative to the largest element."""

    what: str
    dtype: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Agreement:
    """The verdict of `compare_devices`, printable; true when every tensor agrees."""

    device: str
    against: str
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether every difference is within its tolerance."""
        return all(d.passed for d in self.differences)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        width = max(len(d.what) for d in self.differences)
        lines = [f"{'compared':<{width}}  {'dtype':<7}  {'difference':>10}  {'tolerance':>9}"]
        for d in self.differences:
            verdict = "" if d.passed else "  FAILED"
            lines.append(
                f"{d.what:<{width}}  {d.dtype:<7}  {d.error:>10.1e}  {d.tolerance:>9.0e}{verdict}"
            )
        bad = sum(not d.passed for d in self.differences)
        lines.append(
            f"{self.device} and {self.against} "
            + (f"DISAGREE in {bad} of {len(self.differences)}" if bad else "agree")
        )
        return "\n".join(lines)


def compare_devices(
    device: str | Backend, against: str | Backend = "numpy", seed: int = 0
) -> Agreement:
    """Compare two devices: initial weights, masks, gradients, and 100 steps of two optimizers.

    Raises: BackendError if either is not available.
    >>> bool(compare_devices("numpy", "numpy"))
    True
    """
    one, other = get_backend(device), get_backend(against)
    dtypes = [d for d in TOLERANCES if d in one.float_dtypes and d in other.float_dtypes]
    found = [
        difference
        for dtype in dtypes
        for difference in _differences(one, other, dtype, seed)
    ]  # fmt: skip
    return Agreement(one.device, other.device, tuple(found))


def _differences(one: Backend, other: Backend, dtype: str, seed: int) -> Iterator[Difference]:
    once, after_100 = TOLERANCES[dtype]
    rng = np.random.Generator(np.random.Philox(seed))
    x, y = rng.standard_normal((ROWS, N_IN)).astype(dtype), rng.integers(0, N_OUT, ROWS)

    def both(what: str, tolerance: float, values: list[np.ndarray]) -> Difference:
        a, b = (v.astype(np.float64) for v in values)
        scale = max(float(np.abs(b).max()), np.finfo(np.float64).tiny)
        return Difference(what, dtype, float(np.abs(a - b).max()) / scale, tolerance)

    nets = [_network(backend, dtype, seed) for backend in (one, other)]
    yield both("initial weights", 0.0, [n.backend.to_host(n.theta) for n in nets])
    yield both("dropout mask", 0.0, [_mask(backend, seed) for backend in (one, other)])
    gradients = [(n, n.backprop(n.backend.to_device(x), y)) for n in nets]
    yield both("gradient", once, [n.backend.to_host(g.vector) for n, g in gradients])
    for name in ("sgd", "adam"):
        nets = [_network(backend, dtype, seed) for backend in (one, other)]
        histories = [
            train(n, x, y, optimizer=name, epochs=EPOCHS, batch_size=BATCH, l2=1e-4, seed=seed)
            for n in nets
        ]
        losses = [np.array(h["train_loss"]) for h in histories]
        yield both(f"losses over 100 steps of {name}", after_100, losses)
        yield both(
            f"weights after 100 steps of {name}",
            after_100,
            [n.backend.to_host(n.theta) for n in nets],
        )


def _network(backend: Backend, dtype: str, seed: int) -> Network:
    return Network(
        [N_IN, Dense(32, "tanh"), Dropout(0.25), Maxout(16), Dense(N_OUT, "softmax")],
        device=backend,
        dtype=dtype,
        seed=seed,
    )


def _mask(backend: Backend, seed: int) -> np.ndarray:
    """Draw the dropout mask of step 3 for rows 5 to 11 of layer 1."""
    x, a = backend.zeros((7, 33), "float32"), backend.zeros((7, 33), "float32")
    mask = backend.empty((7, 33), "bool")
    clock = backend.to_device(np.array([3, 0], dtype=np.int64))
    backend.dropout_forward(x, 0.25, (seed, 1), clock, 5, a, mask)
    return backend.to_host(mask)
