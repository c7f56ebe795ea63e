"""Availability of `partial_fit`, and its error messages.

scikit-learn's `available_if` would replace the reason by a plain AttributeError.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any


class OnlyStepByStep:
    """A method that exists only if the estimator's parameters allow incremental training."""

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
    """Return why an estimator cannot be trained incrementally, or the empty string."""
    if estimator.preset is not None:
        return (
            f"preset={estimator.preset!r} computes its scale and held-out rows from all "
            "data. Use fit, or preset=None with rows that are scaled already."
        )
    if isinstance(estimator.solver, str) and estimator.solver == "lbfgs":
        return "solver='lbfgs' takes all rows at once. Use fit, or another solver, such as 'adam'."
    return ""
