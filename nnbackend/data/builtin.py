"""Data sets that need no file: five from scikit-learn, and two synthetic ones.

Nothing is downloaded. The synthetic ones are classical problems that a single perceptron cannot
separate: the exclusive or, and two interleaved spirals.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nnbackend.data.dataset import Dataset
from nnbackend.errors import DataError
from nnbackend.options import AT_LEAST_0, all_of, check


def xor(n_samples: int = 400, noise: float = 0.1, seed: int = 0) -> Dataset:
    """Return the exclusive or: class 1 where exactly one of two inputs is 1.

    The samples are the corners of the unit square in turn, plus Gaussian noise; `n_samples=4,
    noise=0` is the truth table.

    Raises: ArgumentError when n_samples < 4 or noise < 0.
    """
    check_toy("xor", n_samples, noise, least=4)
    rng = np.random.Generator(np.random.Philox(seed))
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    which = np.arange(n_samples) % 4
    x = corners[which] + noise * rng.standard_normal((n_samples, 2))
    y = np.array([0, 1, 1, 0], dtype=np.int64)[which]
    return Dataset(x, y, "xor", "classification", (0, 1), ("x1", "x2"))


def spirals(
    n_samples: int = 400, noise: float = 0.02, seed: int = 0, *, turns: float = 1.5
) -> Dataset:
    """Return two interleaved spirals of `turns` turns inside the unit circle, one for each class.

    Point of class c at radius r in [0.1, 1]: r * (cos, sin)(2 pi turns r + pi c), plus noise.

    Raises: ArgumentError when n_samples < 2 or noise < 0.
    """
    check_toy("spirals", n_samples, noise, least=2)
    rng = np.random.Generator(np.random.Philox(seed))
    y = np.arange(n_samples, dtype=np.int64) % 2
    radius = 0.1 + 0.9 * rng.random(n_samples)
    angle = 2.0 * np.pi * turns * radius + np.pi * y
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x += noise * rng.standard_normal((n_samples, 2))
    return Dataset(x, y, "spirals", "classification", (0, 1), ("x1", "x2"))


def check_toy(name: str, n_samples: int, noise: float, least: int) -> None:
    """Raise ArgumentError for fewer than `least` samples or a negative noise."""
    all_of(
        lambda: check("n_samples", n_samples, lambda v: v >= least, f"at least {least}", name),
        lambda: check("noise", noise, AT_LEAST_0.is_good, "a standard deviation, at least 0", name),
    )


def _from_sklearn(name: str, seed: int = 0) -> Dataset:
    """Return one of the data sets of scikit-learn; the seed has no effect."""
    try:
        sets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError(
            f"The built-in set {name!r} is part of scikit-learn, which must be importable. "
            f"Received: {error}. Install it with: pip install scikit-learn"
        ) from error
    bunch = getattr(sets, f"load_{name}")()
    x = np.ascontiguousarray(bunch.data, dtype=np.float64)
    feature_names = tuple(str(feature) for feature in bunch.feature_names)
    if name == "diabetes":
        y = np.asarray(bunch.target, dtype=np.float64)
        return Dataset(x, y, name, "regression", None, feature_names)
    classes = tuple(
        int(label) if isinstance(label, np.integer) else str(label) for label in bunch.target_names
    )
    y = np.asarray(bunch.target, dtype=np.int64)
    return Dataset(x, y, name, "classification", classes, feature_names)


BUILTIN: dict[str, Callable[..., Dataset]] = {
    "digits": partial(_from_sklearn, "digits"),
    "iris": partial(_from_sklearn, "iris"),
    "wine": partial(_from_sklearn, "wine"),
    "breast_cancer": partial(_from_sklearn, "breast_cancer"),
    "diabetes": partial(_from_sklearn, "diabetes"),
    "xor": xor,
    "spirals": spirals,
}
"""The built-in sets by name; each value accepts `seed=`."""
