"""The update rules of gradient descent, sorted by rising complexity.

A rule knows one parameter vector, one gradient and its own state, element by element; no network,
no schedule, no stopping. Its recurrence is written once and runs on every backend.
`coefficients` are the few numbers of a step, worked out in float64 from the learning rate, the
momentum and the step count (from 1); the recurrence uses them in the dtype of theta.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nnbackend.backend.formulas import Array, Namespace
from nnbackend.errors import ArgumentError, suggest

State = tuple[Array, ...]


@dataclass(frozen=True)
class Optimizer(ABC):
    """One rule of gradient descent; `state` names its vectors, each (P,) and at first 0."""

    learning_rate: float
    state: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")

    @property
    def kernel(self) -> str | None:
        """The built-in recurrence, under which a backend may have code of its own."""
        return type(self).__name__.lower()

    @property
    def params(self) -> tuple[float, ...]:
        """The rule's own constants."""
        return ()

    @property
    def initial_momentum(self) -> float:
        """The momentum that a momentum schedule replaces."""
        return 0.0

    @property
    def decay(self) -> float:
        """The decoupled weight decay that belongs to the rule."""
        return 0.0

    @abstractmethod
    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        """Give the numbers of this step."""

    @abstractmethod
    def recurrence(
        self, theta: Array, g: Array, state: State, c: tuple[Array, ...], xp: Namespace
    ) -> tuple[Array, State]:
        """Give the new theta and the new state."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum and Nesterov's look-ahead where asked.

        v = mu v - eta g
        theta += v                      plain momentum
        theta += mu v - eta g           Nesterov

    The velocity includes the learning rate, as in scikit-learn.
    Source: Rumelhart et al. 1986; Sutskever et al. 2013, equations 1 and 3.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    # A schedule moves the momentum, so that a velocity is needed whatever its first value.
    is_scheduled: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and below 1")

    @property
    def state(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("velocity",) if self.kernel != "sgd" else ()

    @property
    def kernel(self) -> str | None:
        if not self.momentum and not self.is_scheduled:
            return "sgd"
        return "nesterov" if self.nesterov else "momentum"

    @property
    def initial_momentum(self) -> float:
        return self.momentum

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        return (lr,) if self.kernel == "sgd" else (lr, momentum)

    def recurrence(
        self, theta: Array, g: Array, state: State, c: tuple[Array, ...], xp: Namespace
    ) -> tuple[Array, State]:
        if self.kernel == "sgd":
            return theta - c[0] * g, ()
        lr, mu = c
        v = mu * state[0] - lr * g
        return theta + (mu * v - lr * g if self.nesterov else v), (v,)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """Steps divided by the root of all squared gradients so far.

        s += g^2;  theta -= eta g / (sqrt(s) + eps)

    Source: Duchi et al. 2011, section 1.3.
    """

    learning_rate: float = 0.01
    eps: float = 1e-10
    state: ClassVar[tuple[str, ...]] = ("s",)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("eps", self.eps, self.eps > 0, "above 0")

    @property
    def params(self) -> tuple[float, ...]:
        return (self.eps,)

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        return (lr,)

    def recurrence(
        self, theta: Array, g: Array, state: State, c: tuple[Array, ...], xp: Namespace
    ) -> tuple[Array, State]:
        s = state[0] + g * g
        return theta - c[0] * g / (xp.sqrt(s) + self.eps), (s,)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """Steps divided by the root of a running mean of squared gradients.

        s = rho s + (1 - rho) g^2;  theta -= eta g / (sqrt(s) + eps)

    Source: Tieleman and Hinton 2012, lecture 6e.
    """

    learning_rate: float = 1e-3
    rho: float = 0.9
    eps: float = 1e-7
    state: ClassVar[tuple[str, ...]] = ("s",)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("rho", self.rho, 0 <= self.rho < 1, "at least 0 and below 1")
        _check("eps", self.eps, self.eps > 0, "above 0")

    @property
    def params(self) -> tuple[float, ...]:
        return (self.rho, self.eps)

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        return (lr,)

    def recurrence(
        self, theta: Array, g: Array, state: State, c: tuple[Array, ...], xp: Namespace
    ) -> tuple[Array, State]:
        s = self.rho * state[0] + (1.0 - self.rho) * g * g
        return theta - c[0] * g / (xp.sqrt(s) + self.eps), (s,)


@dataclass(frozen=True)
class AdaDelta(Optimizer):
    """Steps in the units of the parameters, which need no learning rate of their own.

        s = rho s + (1 - rho) g^2
        d = sqrt(u + eps) / sqrt(s + eps) g
        u = rho u + (1 - rho) d^2;  theta -= eta d

    Source: Zeiler 2012, algorithm 1, where eta is 1.
    """

    learning_rate: float = 1.0
    rho: float = 0.95
    eps: float = 1e-6
    state: ClassVar[tuple[str, ...]] = ("s", "u")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("rho", self.rho, 0 <= self.rho < 1, "at least 0 and below 1")
        _check("eps", self.eps, self.eps > 0, "above 0")

    @property
    def params(self) -> tuple[float, ...]:
        return (self.rho, self.eps)

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        return (lr,)

    def recurrence(
        self, theta: Array, g: Array, state: State, c: tuple[Array, ...], xp: Namespace
    ) -> tuple[Array, State]:
        s = self.rho * state[0] + (1.0 - self.rho) * g * g
        d = xp.sqrt(state[1] + self.eps) / xp.sqrt(s + self.eps) * g
        u = self.rho * state[1] + (1.0 - self.rho) * d * d
        return theta - c[0] * d, (s, u)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Running means of the gradient and its square, corrected for their start at 0.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        theta -= eta (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Source: Kingma and Ba 2014, algorithm 1 (eps outside the corrected root, as in PyTorch).
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    state: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            _check(
                name, getattr(self, name), 0 <= getattr(self, name) < 1, "at least 0 and below 1"
            )
        _check("eps", self.eps, self.eps > 0, "above 0")

    @property
    def kernel(self) -> str | None:
        return "adam"

    @property
    def params(self) -> tuple[float, ...]:
        return (self.beta1, self.beta2, self.eps)

    def coefficients(self, lr: Array, momentum: Array, step: Array) -> tuple[Array, ...]:
        return lr / (1.0 - self.beta1**step), 1.0 / (1.0 - self.beta2**step)

    def recurrence(
        self, theta: Array, g: Array, state: State, c: tuple[Array, ...], xp: Namespace
    ) -> tuple[Array, State]:
        rate, v_correction = c
        m = state[0] + (1.0 - self.beta1) * (g - state[0])
        v = state[1] + (1.0 - self.beta2) * (g * g - state[1])
        return theta - rate * m / (xp.sqrt(v * v_correction) + self.eps), (m, v)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: first w *= 1 - eta weight_decay, on weights only.

    Source: Loshchilov and Hutter 2017, algorithm 2.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")

    @property
    def decay(self) -> float:
        return self.weight_decay


def _check(name: str, value: float, good: bool, expected: str) -> None:
    if not good:
        raise ArgumentError(f"{name} must be {expected}. Received: {name}={value}.")


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    kind.__name__.lower(): kind for kind in (SGD, AdaGrad, RMSProp, AdaDelta, Adam, AdamW)
}


def get_optimizer(choice: Any, **options: Any) -> Any:
    """Give the optimizer that a name means; an optimizer is given back as it is.

    Raises: ArgumentError for an unknown name, with the nearest one.
    >>> get_optimizer("sgd", learning_rate=0.5)
    SGD(learning_rate=0.5, momentum=0.0, nesterov=False)
    """
    from nnbackend.training.lbfgs import LBFGS

    known: dict[str, Callable[..., Any]] = {**OPTIMIZERS, "lbfgs": LBFGS}
    if isinstance(choice, (Optimizer, LBFGS)):
        return choice
    if not isinstance(choice, str) or choice not in known:
        raise ArgumentError(
            f"optimizer must be a name or an optimizer. Received: {choice!r}. "
            f"{suggest(str(choice), known)}"
        )
    return known[choice](**options)
