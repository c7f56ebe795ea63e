"""Five small synthetic sets whose rows can be drawn: four of classes in a plane, one curve.

`xor` and `spirals` are also built-in sets of the command line; the live page offers all five.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnbackend.data.builtin import check_toy, spirals, xor
from nnbackend.data.dataset import Dataset

RINGS = (0.35, 0.85)  # radii of the circles
CENTRES = ((-0.55, -0.35), (0.55, -0.35), (0.0, 0.6))  # of the blobs


def circles(n_samples: int = 400, noise: float = 0.06, seed: int = 0) -> Dataset:
    """Return two circles around one centre, one for each class.

    Raises: ArgumentError when n_samples < 2 or noise < 0.
    """
    check_toy("circles", n_samples, noise, least=2)
    rng = np.random.Generator(np.random.Philox(seed))
    y = np.arange(n_samples, dtype=np.int64) % 2
    angle = 2.0 * np.pi * rng.random(n_samples)
    x = np.array(RINGS)[y][:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x += noise * rng.standard_normal((n_samples, 2))
    return Dataset(x, y, "circles", "classification", (0, 1), ("x1", "x2"))


def blobs(n_samples: int = 400, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Return three Gaussian clouds, one for each class; `noise` is their standard deviation.

    Raises: ArgumentError when n_samples < 3 or noise < 0.
    """
    check_toy("blobs", n_samples, noise, least=3)
    rng = np.random.Generator(np.random.Philox(seed))
    y = np.arange(n_samples, dtype=np.int64) % 3
    x = np.array(CENTRES)[y] + noise * rng.standard_normal((n_samples, 2))
    return Dataset(x, y, "blobs", "classification", (0, 1, 2), ("x1", "x2"))


def wave(n_samples: int = 400, noise: float = 0.1, seed: int = 0) -> Dataset:
    """Return a regression with one input: y = sin(2 pi x) on [-1, 1], plus Gaussian noise.

    Raises: ArgumentError when n_samples < 2 or noise < 0.
    """
    check_toy("wave", n_samples, noise, least=2)
    rng = np.random.Generator(np.random.Philox(seed))
    x = rng.uniform(-1.0, 1.0, (n_samples, 1))
    y = np.sin(2.0 * np.pi * x[:, 0]) + noise * rng.standard_normal(n_samples)
    return Dataset(x, y, "wave", "regression", None, ("x1",))


TOYS: dict[str, Callable[..., Dataset]] = {
    "spirals": spirals,
    "circles": circles,
    "xor": xor,
    "blobs": blobs,
    "wave": wave,
}
"""The sets by name; each value accepts `n_samples`, `noise` and `seed`."""
