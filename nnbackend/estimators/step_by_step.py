"""`partial_fit`: who has it, and what those who have not say.

scikit-learn's own `available_if` would hide the reason behind a plain AttributeError.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any


class OnlyStepByStep:
    """A method that an estimator has where its parameters let it learn step by step."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method

    def __get__(self, estimator: Any, owner: type) -> Callable[..., Any]:
        if estimator is None:
            return self.method
        if reason := _why_not(estimator):
            raise AttributeError(
                f"This {owner.__name__!r} has no attribute {self.method.__name__!r}: {reason}"
            )
        return MethodType(self.method, estimator)


def _why_not(estimator: Any) -> str:
    """Say why an estimator cannot learn step by step; nothing where it can."""
    if estimator.preset is not None:
        return (
            f"preset={estimator.preset!r} takes its scale and the rows it holds out from all the "
            "data. Use fit, or preset=None with rows that are scaled already."
        )
    if isinstance(estimator.solver, str) and estimator.solver == "lbfgs":
        return "solver='lbfgs' takes all rows at once. Use fit, or another solver, as 'adam'."
    return ""
