"""Factories of built-in formulas: one object for the same parameters, as formulas do not change.

Backends keep what they compile or trace for a formula; a new object each time would be new to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Return a factory that gives the object it made before for the same parameters."""
    known = lru_cache(maxsize=64, typed=True)(make)  # 1 and 1.0 are parameters of their own

    @wraps(make)
    def factory(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hash((*args, *kwargs.values()))
        except TypeError:  # such as a list, which the factory refuses in its own words
            return make(*args, **kwargs)
        return known(*args, **kwargs)  # type: ignore[arg-type]

    return factory
