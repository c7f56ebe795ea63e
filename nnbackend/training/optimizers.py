"""The update rules of gradient descent, ordered by rising complexity.

A rule depends on the parameter vector, the gradient and its own state, element by element; not on
the network, the schedule or early stopping. Above each rule is its recurrence, for every backend:

    recurrence(theta, g, state, c, p, xp) -> (new theta, new state)

p: the rule's constants, such as 1 - rho and 1 - beta, computed in float64: from a rho in float32
they would lose half of their digits. c: the coefficients of a step, computed in float64 from the
learning rate, the momentum and the step count (from 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nnbackend.backend.formulas import Array, Namespace, Recurrence
from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.options import ABOVE_0, AT_LEAST_0, BELOW_1, YES_OR_NO, Checked, Kind
from nnbackend.training.lbfgs import LBFGS

Vectors = tuple[Array, ...]
Numbers = tuple[Any, ...]
Moved = tuple[Array, Vectors]  # the new theta and the new state


@dataclass(frozen=True)
class Optimizer(Checked, ABC):
    """Base class of the update rules.

    state: names of its vectors, each (P,) and initially 0.
    Raises: ArgumentError for a constant outside its limits.
    """

    learning_rate: float
    state: ClassVar[tuple[str, ...]] = ()
    momentum: ClassVar[float] = 0.0
    weight_decay: ClassVar[float] = 0.0
    limits: ClassVar[Mapping[str, Kind]] = {
        **dict.fromkeys(("learning_rate", "eps"), ABOVE_0),
        **dict.fromkeys(("momentum", "rho", "beta1", "beta2"), BELOW_1),
        "weight_decay": AT_LEAST_0,
        "nesterov": YES_OR_NO,
    }

    @property
    @abstractmethod
    def recurrence(self) -> Recurrence:
        """The function that computes the new theta and state."""

    @property
    def kernel(self) -> str | None:
        """The name of a built-in recurrence, for which a backend may have its own kernel."""
        name = self.recurrence.__name__
        return name if self.recurrence is globals().get(name) else None

    @property
    def params(self) -> tuple[float, ...]:
        """p, the rule's constants."""
        return ()

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> Vectors:
        """Return c, the coefficients of this step."""
        return (lr,)


def sgd(theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace) -> Moved:
    """theta -= eta g."""
    return theta - c[0] * g, ()


def momentum(
    theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace
) -> Moved:
    """v = mu v - eta g;  theta += v."""
    v = c[1] * state[0] - c[0] * g
    return theta + v, (v,)


def nesterov(
    theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace
) -> Moved:
    """v = mu v - eta g;  theta += mu v - eta g."""
    v = c[1] * state[0] - c[0] * g
    return theta + c[1] * v - c[0] * g, (v,)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, optionally with momentum and Nesterov's look-ahead.

    The velocity includes the learning rate, as in scikit-learn.
    Source: Rumelhart et al. 1986; Sutskever et al. 2013, equations 1 and 3.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0  # type: ignore[misc]
    nesterov: bool = False
    # With a momentum schedule the velocity is needed even if the momentum starts at 0.
    is_scheduled: bool = field(default=False, repr=False)

    @property
    def recurrence(self) -> Recurrence:
        if not self.momentum and not self.is_scheduled:
            return sgd
        return nesterov if self.nesterov else momentum

    @property
    def state(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.recurrence is sgd else ("velocity",)

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> Vectors:
        return lr, momentum


def adagrad(theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace) -> Moved:
    """s += g^2;  theta -= eta g / (sqrt(s) + eps)."""
    s = state[0] + g * g
    return theta - c[0] * g / (xp.sqrt(s) + p[0]), (s,)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """Gradient descent with steps divided by the root of the sum of squared gradients.

    Source: Duchi et al. 2011, section 1.3.
    """

    learning_rate: float = 0.01
    eps: float = 1e-10
    state = ("s",)
    recurrence = staticmethod(adagrad)

    @property
    def params(self) -> tuple[float, ...]:
        return (self.eps,)


def rmsprop(theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace) -> Moved:
    """s = rho s + (1 - rho) g^2;  theta -= eta g / (sqrt(s) + eps)."""
    rho, rest, eps = p
    s = rho * state[0] + rest * g * g
    return theta - c[0] * g / (xp.sqrt(s) + eps), (s,)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """Gradient descent with steps divided by the root of a running mean of squared gradients.

    Source: Tieleman and Hinton 2012, lecture 6e.
    """

    learning_rate: float = 1e-3
    rho: float = 0.9
    eps: float = 1e-7
    state = ("s",)
    recurrence = staticmethod(rmsprop)

    @property
    def params(self) -> tuple[float, ...]:
        return self.rho, 1.0 - self.rho, self.eps


def adadelta(
    theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace
) -> Moved:
    """s = rho s + (1 - rho) g^2;  d = sqrt(u + eps) / sqrt(s + eps) g.

    Then u = rho u + (1 - rho) d^2;  theta -= eta d.
    """
    rho, rest, eps = p
    s = rho * state[0] + rest * g * g
    d = xp.sqrt(state[1] + eps) / xp.sqrt(s + eps) * g
    u = rho * state[1] + rest * d * d
    return theta - c[0] * d, (s, u)


@dataclass(frozen=True)
class AdaDelta(Optimizer):
    """Gradient descent with steps in the units of the parameters, without a tuned learning rate.

    Source: Zeiler 2012, algorithm 1, where eta is 1.
    """

    learning_rate: float = 1.0
    rho: float = 0.95
    eps: float = 1e-6
    state = ("s", "u")
    recurrence = staticmethod(adadelta)

    @property
    def params(self) -> tuple[float, ...]:
        return self.rho, 1.0 - self.rho, self.eps


def adam(theta: Array, g: Array, state: Vectors, c: Numbers, p: Numbers, xp: Namespace) -> Moved:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2.

    Then theta -= eta (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
    """
    rest1, rest2, eps = p  # 1 - beta1, 1 - beta2
    m = state[0] + rest1 * (g - state[0])
    v = state[1] + rest2 * (g * g - state[1])
    return theta - c[0] * m / (xp.sqrt(v * c[1]) + eps), (m, v)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Gradient descent by running means of the gradient and its square, with bias correction.

    Source: Kingma and Ba 2014, algorithm 1 (eps outside the corrected root, as in PyTorch).
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    state = ("m", "v")
    recurrence = staticmethod(adam)

    @property
    def params(self) -> tuple[float, ...]:
        return 1.0 - self.beta1, 1.0 - self.beta2, self.eps

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> Vectors:
        return lr / (1.0 - self.beta1**step), 1.0 / (1.0 - self.beta2**step)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: first w *= 1 - eta weight_decay, on weights only.

    Source: Loshchilov and Hutter 2017, algorithm 2.
    """

    weight_decay: float = 0.01  # type: ignore[misc]


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    kind.__name__.lower(): kind for kind in (SGD, AdaGrad, RMSProp, AdaDelta, Adam, AdamW, LBFGS)
}


FAMILIES["optimizer"] = Family(OPTIMIZERS, "a name or an optimizer")


def get_optimizer(choice: str | Optimizer | LBFGS, **options: Any) -> Optimizer | LBFGS:
    """Return the optimizer of a name such as "sgd:momentum=0.9"; return an optimizer unchanged.

    Raises: ArgumentError for an unknown name, with the closest known name.
    >>> get_optimizer("sgd", learning_rate=0.5)
    SGD(learning_rate=0.5, momentum=0.0, nesterov=False)
    """
    if isinstance(choice, (Optimizer, LBFGS)):
        return choice
    made: Optimizer | LBFGS = make_named("optimizer", choice, **options)
    return made
