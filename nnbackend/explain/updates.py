"""The update of one weight or bias by a run's optimizer, in its first step.

In the first step the optimizer's vectors are 0, so a sample's numbers suffice. The new values are
those of the optimizer's own formula; the lines show how they come about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnbackend.explain.lines import Line, factor, number
from nnbackend.network.network import Network
from nnbackend.training.optimizers import SGD, Adam, Optimizer

UNKNOWN = "unknown"  # the rule of a model file without its run
FORMULAS = {
    "sgd": "w ← w - η g",
    "momentum": "v ← μ v - η g,   w ← w + v",
    "nesterov": "v ← μ v - η g,   w ← w + μ v - η g",
    "adagrad": "s ← s + g²,   w ← w - η g / (√s + ε)",
    "rmsprop": "s ← ρ s + (1 - ρ) g²,   w ← w - η g / (√s + ε)",
    "adadelta": "s ← ρ s + (1 - ρ) g²,   w ← w - η √(u + ε) / √(s + ε) g",
    "adam": "m ← β1 m + (1 - β1) g,   v ← β2 v + (1 - β2) g²,   "
    "w ← w - η (m / (1 - β1)) / (√(v / (1 - β2)) + ε)",
}


@dataclass(frozen=True, kw_only=True)
class Update:
    """How a run updates its weights.

    optimizer: the rule.  l1, l2: penalties.  decay: the decoupled weight decay.
    is_of_run: whether a run uses it, so that the explanation names it.
    other: the run's rule if it is none of these, or UNKNOWN; plain gradient descent is then shown.
    also: what else the run uses that is not shown, such as "clip_norm 1".
    """

    optimizer: Optimizer = field(default_factory=SGD)
    l1: float = 0.0
    l2: float = 0.0
    decay: float = 0.0
    is_of_run: bool = False
    other: str = ""
    also: tuple[str, ...] = ()

    @property
    def kernel(self) -> str:
        """The name of the optimizer's formula."""
        return str(self.optimizer.recurrence.__name__)

    @property
    def is_plain(self) -> bool:
        """Whether it is w - eta dC/dw."""
        return self.kernel == "sgd" and not (self.l1 or self.l2 or self.decay)

    # ---- texts ----------------------------------------------------------------------------------

    def title(self, eta: float, words: dict[str, str]) -> str:
        """Return the title of the step, with the formula."""
        if self.is_plain:
            return words["update"].format(eta=number(eta))
        formula = FORMULAS.get(self.kernel, "")
        penalty = (" + λ w" if self.l2 else "") + (" + λ1 sign(w)" if self.l1 else "")
        decay = "w ← (1 - η d) w,   " if self.decay else ""
        return words["update_by"].format(
            rule=self._name, eta=number(eta), formula=f"g = ∂C/∂w{penalty},   {decay}{formula}"
        )

    def notes(self, words: dict[str, str]) -> tuple[str, ...]:
        """Return which optimizer the run uses, and what is not shown."""
        if self.other == UNKNOWN:
            return (words["unknown_rule"],)
        if self.other:
            return (words["other_rule"].format(rule=self.other),)
        if not self.is_of_run:
            return ()
        names = ", ".join(self.optimizer.state)
        first = words["first_step"].format(names=names) if names else ""
        also = words["not_shown"].format(names=", ".join(self.also)) if self.also else ""
        return (" ".join(filter(None, [words["run_uses"].format(rule=self._rule), first, also])),)

    @property
    def _name(self) -> str:
        return type(self.optimizer).__name__.lower()

    @property
    def _rule(self) -> str:
        """The optimizer and its constants."""
        o: Any = self.optimizer
        constants = {
            "momentum": ("μ",), "nesterov": ("μ",), "rmsprop": ("ρ",), "adadelta": ("ρ",),
            "adam": ("β1", "β2"),
        }.get(self.kernel, ())  # fmt: skip
        fields = {"μ": "momentum", "ρ": "rho", "β1": "beta1", "β2": "beta2"}
        parts = [f"{symbol} = {getattr(o, fields[symbol]):g}" for symbol in constants]
        penalties = (("L2 λ", self.l2), ("L1 λ1", self.l1), ("weight decay d", self.decay))
        parts += [f"{name} = {value:g}" for name, value in penalties if value]
        nesterov = " (Nesterov)" if self.kernel == "nesterov" else ""
        return ", ".join([self._name + nesterov, *parts])

    # ---- numbers --------------------------------------------------------------------------------

    def moved(self, theta: Any, g: Any, eta: float, is_weight: bool) -> tuple[Any, tuple[Any, ...]]:
        """Return the new values of weights or biases, and the optimizer's vectors."""
        theta, g = np.asarray(theta, np.float64), np.asarray(g, np.float64)
        if is_weight:
            g = g + self.l2 * theta + self.l1 * np.sign(theta)
            theta = theta * (1.0 - eta * self.decay)
        rule: Any = self.optimizer
        c = rule.coefficients(eta, rule.momentum, 1)
        state = tuple(np.zeros_like(theta) for _ in rule.state)
        new, vectors = rule.recurrence(theta, g, state, c, rule.params, np)
        return new, vectors

    def cost_after(self, net: Network, x: Any, y: Any, eta: float) -> float:
        """Return the cost of the sample after the update, of a copy of the network."""
        other, gradient = net.to(net.backend), net.backprop(x, y)
        host = net.backend.to_host
        weights, biases = net.get_parameters()
        other.set_parameters(
            [self.moved(W, host(g), eta, True)[0]
             for W, g in zip(weights, gradient.weights, strict=True)],
            [self.moved(b, host(g), eta, False)[0]
             for b, g in zip(biases, gradient.biases, strict=True)],
        )  # fmt: skip
        return other.backprop(x, y).loss

    def lines(self, letter: str, unit: str, theta: float, g: float, eta: float) -> list[Line]:
        """Return the lines of one weight ("w") or bias ("b")."""
        is_weight = letter == "w"
        new, vectors = self.moved(theta, g, eta, is_weight)
        found, name = [], f"{letter}^{unit}"
        if is_weight and (self.l1 or self.l2):
            sums = [number(g)]
            symbols = [f"∂C/∂{name}"]
            if self.l2:
                sums.append(f"{number(self.l2)}·{factor(theta)}")
                symbols.append(f"λ {name}")
            if self.l1:
                sums.append(f"{number(self.l1)}·{factor(float(np.sign(theta)))}")
                symbols.append(f"λ1 sign({name})")
            g = g + self.l2 * theta + self.l1 * float(np.sign(theta))
            found.append(Line(f"g^{unit}", (" + ".join(symbols), " + ".join(sums)), g))
        old = number(theta)
        if is_weight and self.decay:
            old = f"(1 - {number(eta)}·{number(self.decay)})·{factor(theta)}"
        parts, step = self._step(unit, old, g, eta, [float(v) for v in vectors])
        return [*found, *parts, Line(name, (step,), float(new), sign="←")]

    def _step(
        self, unit: str, old: str, g: float, eta: float, vectors: list[float]
    ) -> tuple[list[Line], str]:
        """Return the lines of the optimizer's vectors, and the new value with its numbers."""
        o: Any = self.optimizer
        rate, slope, kernel = number(eta), factor(g), self.kernel
        if kernel in ("momentum", "nesterov"):
            mu, v = number(o.momentum), vectors[0]
            line = Line(f"v^{unit}", (f"{mu}·0 - {rate}·{slope}",), v)
            ahead = f"{mu}·{factor(v)} - {rate}·{slope}"
            return [line], f"{old} + {factor(v) if kernel == 'momentum' else ahead}"
        if kernel == "adam":
            return self._adam(o, unit, old, g, rate, vectors)
        if kernel in ("adagrad", "rmsprop", "adadelta"):
            s, eps = vectors[0], number(o.eps)
            share = "" if kernel == "adagrad" else f"{number(1.0 - o.rho)}·"
            line = Line(f"s^{unit}", (f"{share}{slope}²",), s)
            if kernel == "adadelta":
                return [line], f"{old} - {rate}·√({eps}) / √({number(s)} + {eps})·{slope}"
            return [line], f"{old} - {rate}·{slope} / (√({number(s)}) + {eps})"
        return [], f"{old} - {rate}·{slope}" if kernel == "sgd" else ""

    @staticmethod
    def _adam(
        o: Adam, unit: str, old: str, g: float, rate: str, vectors: list[float]
    ) -> tuple[list[Line], str]:
        m, v = vectors
        rest1, rest2 = number(1.0 - o.beta1), number(1.0 - o.beta2)
        lines = [
            Line(f"m^{unit}", (f"{rest1}·{factor(g)}",), m),
            Line(f"v^{unit}", (f"{rest2}·{factor(g)}²",), v),
        ]
        root = f"√({number(v)} / {rest2}) + {number(o.eps)}"
        return lines, f"{old} - {rate}·({factor(m)} / {rest1}) / ({root})"


def of_config(config: Any) -> Update:
    """Return the update of a run's `TrainConfig`."""
    also = []
    for name in ("schedule", "momentum_schedule", "clip_norm", "max_norm", "ema"):
        if (value := getattr(config, name)) is not None:
            also.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    if not isinstance(config.optimizer, Optimizer):  # L-BFGS
        return Update(other="lbfgs")
    return Update(
        optimizer=config.optimizer, l1=config.l1, l2=config.l2, decay=config.decay,
        is_of_run=True, also=tuple(also),
    )  # fmt: skip
