"""Factories of built-in formulas: one shared, immutable object for each set of parameters.

Backends cache compiled code by formula object; a new object each time would be compiled again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Return a factory that returns the same object for the same parameters."""
    cached = lru_cache(maxsize=64, typed=True)(make)  # 1 and 1.0 are different parameters

    @wraps(make)
    def factory(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hash((*args, *kwargs.values()))
        except TypeError:  # such as a list, which the factory refuses with its own message
            return make(*args, **kwargs)
        return cached(*args, **kwargs)  # type: ignore[arg-type]

    return factory
