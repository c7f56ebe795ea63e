"""Protocols of the formulas that kernels receive: activations, losses, scores, update rules.

Each formula is a small object whose functions use an array namespace `xp`. Backends depend on these
protocols only, and never import the packages that implement them. `kernel` is the name of a
built-in formula, for which a backend may have its own code; it is None for a custom formula, which
runs through the object's functions on every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

# An array of the backend's library. No useful static type covers them all.
Array: TypeAlias = Any
# The namespace of that library: the functions of the Python array API standard.
Namespace: TypeAlias = Any


class Activation(Protocol):
    """An activation function phi and its slope.

    f(z) or f(z, xp), df(z) or df(z, a, xp); `..._is_plain` is True for a function of z only.
    """

    @property
    def f(self) -> Callable[..., Array]: ...
    @property
    def df(self) -> Callable[..., Array]: ...
    @property
    def f_is_plain(self) -> bool: ...
    @property
    def df_is_plain(self) -> bool: ...
    @property
    def kernel(self) -> str | None: ...
    @property
    def params(self) -> tuple[float, ...]: ...

    def value(self, z: Array, xp: Namespace) -> Array:
        """Return a = phi(z)."""

    def delta(self, da: Array, z: Array, a: Array, xp: Namespace) -> Array:
        """Return dC/dz, computed from dC/da."""


class Loss(Protocol):
    """A per-sample loss and its gradient, from one expression."""

    @property
    def kernel(self) -> str | None: ...
    @property
    def params(self) -> tuple[float, ...]: ...
    @property
    def formula(self) -> Callable[..., tuple[Array, Array]]: ...

    def rows(self, out: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return ((B,) losses, (B, O) gradient at `out`), neither divided by B; y is (B, O)."""


class Score(Protocol):
    """A per-sample score."""

    @property
    def kernel(self) -> str | None: ...

    def rows(self, out: Array, y: Array, xp: Namespace) -> Array:
        """Return the (B,) scores in the dtype of `out`; y is (B, O)."""


# (theta, g, state, c, p, xp) -> (new theta, new state), element by element.
Recurrence: TypeAlias = Callable[..., tuple[Array, tuple[Array, ...]]]


class UpdateRule(Protocol):
    """One step of an optimizer, element by element."""

    @property
    def kernel(self) -> str | None: ...
    @property
    def params(self) -> tuple[float, ...]:
        """p, the rule's constants."""

    @property
    def recurrence(self) -> Recurrence: ...

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        """Return c, the coefficients of this step, from float64 scalars; step counts from 1."""
