"""Initial weights, drawn on the host so that a seed gives the same network on every device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.options import check

Draw = Callable[[np.random.Generator, tuple[int, ...], int, int], np.ndarray]


@dataclass(frozen=True)
class Initializer:
    """A distribution of weights: draw(rng, shape, fan_in, fan_out) -> float64 array."""

    name: str
    draw: Draw = field(repr=False, compare=False)
    params: tuple[float, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.name in INITIALIZERS:
            return get_initializer, (self.name, *self.params)
        return super().__reduce__()  # type: ignore[return-value]


def zeros() -> Initializer:
    """Return all zeros; as weights they keep all units of a layer identical."""
    return Initializer("zeros", lambda rng, shape, fan_in, fan_out: np.zeros(shape))


def constant(value: float = 0.0) -> Initializer:
    """Return an array filled with `value`."""
    return Initializer(
        "constant", lambda rng, shape, fan_in, fan_out: np.full(shape, float(value)), (value,)
    )


def normal(std: float = 1.0, mean: float = 0.0) -> Initializer:
    """Draw from a normal distribution with standard deviation `std`; by default N(0, 1)."""
    check("std", std, lambda v: v >= 0, "at least 0", "normal")
    return Initializer(
        "normal",
        lambda rng, shape, fan_in, fan_out: rng.normal(mean, std, shape),
        (std, mean),
    )


def uniform(limit: float = 0.05) -> Initializer:
    """Draw uniformly between -limit and limit."""
    check("limit", limit, lambda v: v >= 0, "at least 0", "uniform")
    return Initializer(
        "uniform", lambda rng, shape, fan_in, fan_out: rng.uniform(-limit, limit, shape), (limit,)
    )


def _by_variance(
    name: str, variance: Callable[[int, int], float], distribution: str
) -> Callable[[], Initializer]:
    """Return a factory of an initializer whose variance depends on fan-in and fan-out."""

    def draw(
        rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> np.ndarray:
        std = math.sqrt(variance(fan_in, fan_out))
        if distribution == "normal":
            return rng.normal(0.0, std, shape)
        limit = math.sqrt(3.0) * std  # a uniform on (-limit, limit) has variance limit^2 / 3
        return rng.uniform(-limit, limit, shape)

    return lambda: Initializer(f"{name}_{distribution}", draw)


_VARIANCES: dict[str, Callable[[int, int], float]] = {
    # Glorot and Bengio 2010, equation 12: keeps the variances of activations and gradients.
    "glorot": lambda fan_in, fan_out: 2.0 / (fan_in + fan_out),
    # He et al. 2015, equation 10: for units that are 0 half of the time.
    "he": lambda fan_in, fan_out: 2.0 / fan_in,
    # LeCun et al. 1998, section 4.6; also Nielsen's 1/sqrt(n) and SELU's.
    "lecun": lambda fan_in, fan_out: 1.0 / fan_in,
}

INITIALIZERS: dict[str, Callable[..., Initializer]] = {
    "zeros": zeros,
    "constant": constant,
    "normal": normal,
    "uniform": uniform,
    **{
        f"{name}_{distribution}": _by_variance(name, variance, distribution)
        for name, variance in _VARIANCES.items()
        for distribution in ("normal", "uniform")
    },
}

FAMILIES["initializer"] = Family(INITIALIZERS, "a name, a number or an Initializer")

_DEFAULTS = {"relu": "he_normal", "leaky_relu": "he_normal", "elu": "he_normal",
             "selu": "lecun_normal", "gelu": "he_normal", "silu": "he_normal",
             "mish": "he_normal", "softplus": "he_normal"}  # fmt: skip


def default_initializer(activation: str) -> Initializer:
    """Return the initializer for "auto": He for the ReLU family, LeCun for SELU, else Glorot."""
    return get_initializer(_DEFAULTS.get(activation, "glorot_uniform"))


def get_initializer(choice: str | float | Initializer, *params: float) -> Initializer:
    """Return the initializer of a name; a number means that constant.

    Raises: ArgumentError for an unknown name, with the closest known name.
    >>> get_initializer("normal", 0.01)
    Initializer(name='normal', params=(0.01, 0.0))
    """
    if isinstance(choice, Initializer):
        return choice
    if isinstance(choice, (int, float, np.number)) and not isinstance(choice, bool):
        return constant(float(choice))
    made: Initializer = make_named("initializer", choice, *params)
    return made
