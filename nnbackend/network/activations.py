"""Activation functions phi and their slopes, ordered by rising complexity.

A formula uses an array namespace `xp`, so the same code runs on every backend. The slope receives
z and a = phi(z) and may use whichever is cheaper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nnbackend.backend.formulas import Array, Namespace
from nnbackend.errors import ArgumentError
from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.network.factories import shared
from nnbackend.options import check


@dataclass(frozen=True)
class Activation:
    """An activation function and its derivative, element by element.

        a = f(z);  phi'(z) = df(z)

    f(z) or f(z, xp), df(z) or df(z, a, xp): with `xp` a formula uses the library of the device
    that runs it; without it, NumPy's functions work on NumPy and CuPy arrays. A network tests
    them on a small array and refuses formulas that do not work element by element.
    The weights "auto" are Glorot's for any custom activation; for one similar to relu use
    Dense(100, phi, weights="he_normal").
    A model file stores the name of a custom activation; loading the file requires the object.
    >>> import numpy as np
    >>> Activation("cube", lambda z: z**3, lambda z: 3 * z**2).value(np.array([2.0]), np)
    array([8.])
    """

    name: str
    f: Callable[..., Array] = field(repr=False, compare=False)
    df: Callable[..., Array] = field(repr=False, compare=False)
    params: tuple[float, ...] = ()
    kernel: str | None = field(default=None, repr=False)
    slope_from_output: bool = field(default=False, repr=False)

    f_is_plain: bool = field(init=False, repr=False)  # f takes z alone
    df_is_plain: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for role, function, full in (("f", self.f, 2), ("df", self.df, 3)):
            n = _n_arguments(function) if callable(function) else 0
            if n not in (1, full):
                raise ArgumentError(
                    f"{role} of activation {self.name!r} must be a function of "
                    f"{'z, or of z and xp' if role == 'f' else 'z, or of z, a and xp'}. "
                    f"Received: {role}={function!r}."
                )
            # Counted once, because kernels read it at every step.
            object.__setattr__(self, f"{role}_is_plain", n == 1)

    def value(self, z: Array, xp: Namespace) -> Array:
        """Return a = phi(z)."""
        return self.f(z) if self.f_is_plain else self.f(z, xp)

    def slope(self, z: Array, a: Array, xp: Namespace) -> Array:
        """Return phi'(z)."""
        return self.df(z) if self.df_is_plain else self.df(z, a, xp)

    def delta(self, da: Array, z: Array, a: Array, xp: Namespace) -> Array:
        """Return dC/dz = dC/da * phi'(z)."""
        return da * self.slope(z, a, xp)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.kernel is not None:  # the built-in formulas are closures, which cannot be pickled
            return get_activation, (self.name, *self.params)
        return type(self), (self.name, self.f, self.df, self.params)


class Softmax(Activation):
    """Softmax over a row: the only activation whose units depend on each other."""

    def delta(self, da: Array, z: Array, a: Array, xp: Namespace) -> Array:
        """Return dC/dz = a * (da - sum(da * a)), the product with softmax's Jacobian."""
        return a * (da - xp.sum(da * a, axis=1, keepdims=True))


def _n_arguments(function: Callable[..., Any]) -> int:
    """Return the number of required arguments; 1 (z) for a NumPy ufunc without a signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def _built_in(
    name: str,
    f: Callable[..., Array],
    df: Callable[..., Array],
    params: tuple[float, ...] = (),
    slope_from_output: bool = False,
    kind: type[Activation] = Activation,
) -> Activation:
    return kind(name, f, df, params, kernel=name, slope_from_output=slope_from_output)


def identity() -> Activation:
    """Return the identity, a = z."""
    return _built_in("identity", lambda z, xp: z, lambda z, a, xp: xp.ones_like(a), (), True)


def step() -> Activation:
    """Return the step of the perceptron, a = 1 where z > 0, else 0.

    Its slope is 0, so gradient descent does not train the layers up to it. Source: Rosenblatt 1957.
    """
    return _built_in(
        "step",
        lambda z, xp: xp.where(z > 0, xp.ones_like(z), 0.0),
        lambda z, a, xp: xp.zeros_like(a),
        slope_from_output=True,
    )


def relu() -> Activation:
    """Return ReLU, a = max(z, 0); the slope at 0 is 0."""
    return _built_in(
        "relu",
        lambda z, xp: xp.where(z <= 0, 0.0, z),  # so asked, NaN stays NaN
        lambda z, a, xp: xp.where(a > 0, xp.ones_like(a), 0.0),
        slope_from_output=True,
    )


def leaky_relu(alpha: float = 0.1) -> Activation:
    """Return leaky ReLU, a = z where z > 0, else alpha z; alpha is at least 0."""
    check("alpha", alpha, lambda v: v >= 0, "at least 0", "leaky_relu")
    return _built_in(
        "leaky_relu",
        lambda z, xp: xp.where(z > 0, z, alpha * z),
        lambda z, a, xp: xp.where(a > 0, xp.ones_like(a), alpha),
        (alpha,),
        slope_from_output=True,
    )


def tanh() -> Activation:
    """Return the hyperbolic tangent, a = tanh z;  phi' = 1 - a^2."""
    return _built_in(
        "tanh",
        lambda z, xp: xp.tanh(z),
        lambda z, a, xp: 1.0 - a * a,
        slope_from_output=True,
    )


def _sigmoid(z: Array, xp: Namespace) -> Array:
    """Return 1 / (1 + e^-z), computed from e^-|z|, which cannot overflow."""
    e = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, xp.ones_like(e), e) / (1.0 + e)


def sigmoid() -> Activation:
    """Return the sigmoid, a = 1 / (1 + e^-z);  phi' = a (1 - a)."""
    return _built_in("sigmoid", _sigmoid, lambda z, a, xp: a * (1.0 - a), slope_from_output=True)


def exponential() -> Activation:
    """Return the exponential, a = e^z;  phi' = a: the output of a Poisson regression."""
    return _built_in(
        "exponential", lambda z, xp: xp.exp(z), lambda z, a, xp: a, slope_from_output=True
    )


def elu(alpha: float = 1.0) -> Activation:
    """Return ELU, a = z where z > 0, else alpha (e^z - 1).

    Source: Clevert et al. 2015, equation 15.
    """
    return _built_in(
        "elu",
        lambda z, xp: xp.where(z > 0, z, alpha * xp.expm1(xp.where(z > 0, 0.0, z))),
        lambda z, a, xp: xp.where(z > 0, xp.ones_like(z), alpha * xp.exp(xp.where(z > 0, 0.0, z))),
        (alpha,),
    )


SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


def selu() -> Activation:
    """Return SELU, a = scale * elu(z, alpha), whose units keep mean 0 and variance 1.

    Source: Klambauer et al. 2017, equation 2, constants from its appendix.
    """
    below = SELU_SCALE * SELU_ALPHA
    return _built_in(
        "selu",
        lambda z, xp: xp.where(z > 0, SELU_SCALE * z, below * xp.expm1(xp.where(z > 0, 0.0, z))),
        lambda z, a, xp: xp.where(z > 0, SELU_SCALE, below * xp.exp(xp.where(z > 0, 0.0, z))),
    )


def _softplus(z: Array, xp: Namespace) -> Array:
    """Return log(1 + e^z), computed from e^-|z|, which cannot overflow."""
    return xp.where(z > 0, z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))


def softplus() -> Activation:
    """Return softplus, a = log(1 + e^z);  phi' = sigmoid(z)."""
    return _built_in("softplus", _softplus, lambda z, a, xp: _sigmoid(z, xp))


def silu() -> Activation:
    """Return SiLU, a = z sigmoid(z), also called swish. Source: Elfwing et al. 2017."""

    def slope(z: Array, a: Array, xp: Namespace) -> Array:
        s = _sigmoid(z, xp)
        return s + a * (1.0 - s)

    return _built_in("silu", lambda z, xp: z * _sigmoid(z, xp), slope)


GELU_SCALE = 0.7978845608028654  # sqrt(2 / pi)
GELU_CUBIC = 0.044715


def gelu() -> Activation:
    """Return GELU, a = z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))).

    Source: Hendrycks and Gimpel 2016, section 2: the tanh form, because the array standard has no
    error function. It is at most 5e-4 from the exact z * P(Z <= z).
    """

    def value(z: Array, xp: Namespace) -> Array:
        return 0.5 * z * (1.0 + xp.tanh(GELU_SCALE * (z + GELU_CUBIC * z * z * z)))

    def slope(z: Array, a: Array, xp: Namespace) -> Array:
        t = xp.tanh(GELU_SCALE * (z + GELU_CUBIC * z * z * z))
        inner = GELU_SCALE * (1.0 + (3.0 * GELU_CUBIC) * z * z)
        return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * inner

    return _built_in("gelu", value, slope)


def mish() -> Activation:
    """Return Mish, a = z tanh(softplus(z)). Source: Misra 2019."""

    def slope(z: Array, a: Array, xp: Namespace) -> Array:
        t = xp.tanh(_softplus(z, xp))
        return t + z * (1.0 - t * t) * _sigmoid(z, xp)

    return _built_in("mish", lambda z, xp: z * xp.tanh(_softplus(z, xp)), slope)


def softmax() -> Activation:
    """Return softmax, a_k = e^{z_k} / sum_j e^{z_j}, the class probabilities."""

    def value(z: Array, xp: Namespace) -> Array:
        e = xp.exp(z - xp.max(z, axis=1, keepdims=True))
        return e / xp.sum(e, axis=1, keepdims=True)

    return _built_in("softmax", value, lambda z, a, xp: a * (1.0 - a), (), True, Softmax)


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    make.__name__: shared(make)
    for make in (
        *(identity, step, relu, leaky_relu, tanh, sigmoid, exponential, elu, selu, softplus),
        *(silu, gelu, mish, softmax),
    )
}


FAMILIES["activation"] = Family(ACTIVATIONS, "a name or an nnbackend.Activation")


def get_activation(choice: str | Activation, *params: float) -> Activation:
    """Return the activation of a name such as "leaky_relu:0.2"; return an Activation unchanged.

    Raises: ArgumentError for an unknown name, with the closest known name.
    >>> get_activation("leaky_relu", 0.2)
    Activation(name='leaky_relu', params=(0.2,))
    """
    if isinstance(choice, Activation):
        return choice
    made: Activation = make_named("activation", choice, *params)
    return made
