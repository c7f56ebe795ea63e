"""What a kernel may ask of a formula, whoever wrote it.

The engine's activations, losses, scores and update rules are small objects that hold one formula
each, written over an array namespace `xp`. The kernels take them as arguments. These protocols
are all that a backend knows about them, so that a backend never imports the mathematics above it.
`kernel` names a built-in formula that a backend may have its own code for; it is None for a
user's own, which runs through the object's formula on every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

# An array of whichever library the backend speaks. No useful static type spans them all.
Array: TypeAlias = Any
# The namespace of that library: the functions of the Python array API standard.
Namespace: TypeAlias = Any


class Activation(Protocol):
    """phi and its slope.

    f(z) or f(z, xp), df(z) or df(z, a, xp): plain says that a formula takes z alone.
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
        """a = phi(z)."""

    def delta(self, da: Array, z: Array, a: Array, xp: Namespace) -> Array:
        """dC/dz from dC/da."""


class Loss(Protocol):
    """The loss of each row and its gradient, from one expression."""

    @property
    def kernel(self) -> str | None: ...
    @property
    def params(self) -> tuple[float, ...]: ...
    @property
    def formula(self) -> Callable[..., tuple[Array, Array]]: ...

    def rows(self, out: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        """((B,) losses, (B, O) gradient at `out`), neither divided by B; y is (B, O)."""


class Score(Protocol):
    """A figure of merit of each row."""

    @property
    def kernel(self) -> str | None: ...

    def rows(self, out: Array, y: Array, xp: Namespace) -> Array:
        """(B,) figures in the dtype of `out`; y is (B, O)."""


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
        """c, the numbers of this step, from float64 scalars; step counts from 1."""
