"""The five steps of the algorithm for one sample, each number written out as on paper.

All numbers come from `trace` and `backprop`; every line is one unit, weight or bias. Of a large
layer only the units, terms and weights that matter most are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.explain.arrays import Numbers, SampleArrays, arrays_of
from nnbackend.explain.lines import Line, factor, grouped, number
from nnbackend.explain.updates import Update
from nnbackend.explain.words import words_of
from nnbackend.network.layers import Dropout
from nnbackend.network.network import Network
from nnbackend.network.printing import describe_formula

TERMS = 5  # of a sum written out
ALL_UNITS, UNITS = 10, 5  # a layer of at most ALL_UNITS is shown whole, a larger one UNITS of it
ALL_WEIGHTS, WEIGHTS = 16, 8
LARGE_Z = 30.0  # from which the sum of a softmax is not written out
SLOPES = {
    "identity": "1",
    "step": "0",
    "relu": "1 (z > 0), 0 (z ≤ 0)",
    "leaky_relu": "1 (z > 0), {0:g} (z ≤ 0)",
    "tanh": "1 - a²",
    "sigmoid": "a (1 - a)",
    "exponential": "a",
    "elu": "1 (z > 0), {0:g} exp(z) (z ≤ 0)",
}
COSTS = {
    "quadratic": "C = ½ Σ_k (a^{L}_k - y_k)²",
    "absolute": "C = Σ_k |a^{L}_k - y_k|",
    "cross_entropy": "C = -Σ_k y_k ln a^{L}_k",
    "binary_cross_entropy": "C = -Σ_k (y_k ln a^{L}_k + (1 - y_k) ln(1 - a^{L}_k))",
}


@dataclass(frozen=True)
class Block:
    """The lines of one layer, with a title and notes."""

    title: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One of the steps: number, title with its formula, notes, blocks.

    part: "a" or "b" of a step with two titles.
    """

    number: int
    title: str
    notes: tuple[str, ...]
    blocks: tuple[Block, ...]
    part: str = ""

    @property
    def label(self) -> str:
        """The number with its part, such as 5a."""
        return f"{self.number}{self.part}"


@dataclass(frozen=True)
class Explanation:
    """All steps of one sample; the fifth in two parts, the derivatives and the update.

    conclusion: the cost before and after the update.
    """

    title: str
    lang: str
    notes: tuple[str, ...]
    steps: tuple[Step, ...]
    conclusion: str

    @property
    def lines(self) -> list[Line]:
        """All lines, in the order of the computation."""
        return [line for step in self.steps for block in step.blocks for line in block.lines]


def explain(
    net: Network,
    x: Any,
    y: Any,
    *,
    learning_rate: float | None = None,
    update: Update | None = None,
    lang: str = "en",
) -> Explanation:
    """Return one step of gradient descent on one sample, with all its numbers.

    x: (1, n_in) as the first layer sees it.  y: its target, as for `Network.backprop`.
    learning_rate: eta of the update, which is shown and not applied; by default that of the update.
    update: the optimizer and the penalties; by default gradient descent with a rate of 0.1.
    lang: "en" or "es".
    Layer 1 is the input, and units count from 1.
    """
    update = update or Update()
    eta = update.optimizer.learning_rate if learning_rate is None else learning_rate
    return _Writer(net, arrays_of(net, x, y), eta, update, words_of(lang)).write(
        lang, update.cost_after(net, x, y, eta)
    )


class _Writer:
    """Writes the lines of the numbers of one sample."""

    def __init__(
        self, net: Network, n: SampleArrays, eta: float, update: Update, words: dict[str, str]
    ) -> None:
        self.net, self.n, self.eta, self.update, self.words = net, n, eta, update, words
        self.last = n.n_layers
        self.shown = {level: self._choose(level) for level in n.a}

    def write(self, lang: str, cost_after: float) -> Explanation:
        n, words, last = self.n, self.words, self.last
        notes = [words["notation"].format(L=last), words["python"]]
        if any(isinstance(layer, Dropout) for layer in self.net.layers):
            notes.append(words["dropout"])
        hidden = n.layers[:-1]
        steps = (
            Step(1, words["input"], (), (self._input(),)),
            Step(2, words["forward"], (), (*(self._forward(v) for v in n.layers), self._cost())),
            Step(3, words["output"].format(L=last), self._output_notes(), (self._output(),)),
            Step(4, words["backward"], () if hidden else (words["no_hidden"],),
                 tuple(self._hidden(v) for v in reversed(hidden))),
            Step(5, words["partial"], (), tuple(self._partial(v) for v in reversed(n.layers)), "a"),
            Step(5, self.update.title(self.eta, words), self.update.notes(words),
                 tuple(self._update(v) for v in reversed(n.layers)), "b"),
        )  # fmt: skip
        shape = "-".join(str(len(n.a[level])) for level in n.a)
        after = words["after"].format(new=number(cost_after), old=number(n.cost))
        return Explanation(words["title"].format(shape=shape), lang, tuple(notes), steps, after)

    # ---- the choice of units and weights --------------------------------------------------------

    def _choose(self, level: int) -> list[int]:
        """Return the units of a layer to show, from 0: all, or those that C depends most on."""
        n = self.n
        if len(n.a[level]) <= ALL_UNITS:
            return list(range(len(n.a[level])))
        if level == self.last:
            size = np.abs(n.delta[level])
        else:
            size = np.abs(n.a[level] * (n.w[level + 1].T @ n.delta[level + 1]))
        return _largest(size, UNITS)

    def _left_out(self, level: int) -> tuple[str, ...]:
        n, shown = len(self.n.a[level]), len(self.shown[level])
        key = "outputs" if level == self.last else "units"
        return (self._count(key, shown, n),) if shown < n else ()

    def _count(self, key: str, shown: int, n: int) -> str:
        return self.words[key].format(shown=shown, n=n, left=n - shown)

    def _weights(self, level: int) -> list[tuple[int, int]]:
        """Return the weights (j, k) of a layer to show, from 0."""
        dw = self.n.dw[level]
        size = dw.size if dw.size <= ALL_WEIGHTS else WEIGHTS
        chosen = _largest(np.abs(dw).ravel(), size)
        return [(int(i) // dw.shape[1], int(i) % dw.shape[1]) for i in chosen]

    def _sum(self, names: Sequence[tuple[str, str]], u: Numbers, v: Numbers) -> tuple[str, str]:
        """Return a sum of products in symbols and in numbers, with its largest terms."""
        products = u * v
        chosen = _largest(np.abs(products), TERMS)
        symbols = [f"{names[i][0]} {names[i][1]}" for i in chosen]
        numbers = [f"{factor(u[i])}·{factor(v[i])}" for i in chosen]
        if left := len(u) - len(chosen):
            symbols.append(f"({self.words['terms'].format(left=left)})")
            numbers.append(factor(products.sum() - products[chosen].sum()))
        return " + ".join(symbols), " + ".join(numbers)

    # ---- the steps ------------------------------------------------------------------------------

    def _title(self, level: int) -> str:
        return self.words["layer"].format(l=level, name=self.n.names[level])

    def _input(self) -> Block:
        lines = [Line(f"a^1_{k + 1}", (f"x_{k + 1}",), self.n.a[1][k]) for k in self.shown[1]]
        return Block(self.words["input_layer"], tuple(lines), self._left_out(1))

    def _forward(self, level: int) -> Block:
        n, lines = self.n, []
        phi = describe_formula(n.phi[level])
        for j in self.shown[level]:
            z, a, unit = n.z[level][j], n.a[level][j], f"{level}_{j + 1}"
            names = [
                (f"w^{unit},{k + 1}", f"a^{level - 1}_{k + 1}") for k in range(len(n.a[level - 1]))
            ]
            symbols, numbers = self._sum(names, n.w[level][j], n.a[level - 1])
            parts = f"{symbols} + b^{unit}", f"{numbers} + {factor(n.b[level][j])}"
            won = n.piece.get(level)
            wins = "" if won is None else self.words["wins"].format(piece=won[j])
            lines.append(Line(f"z^{unit}", parts, z, wins))
            if won is not None:
                formula, shown = f"z^{unit}", ""
            elif n.slope[level] is None:
                formula = f"exp(z^{unit}) / Σ_k exp(z^{level}_k)"
                shown = self._softmax_numbers(level, j)
            else:
                formula, shown = f"φ(z^{unit})", f"{phi}({number(z)})"
            lines.append(Line(f"a^{unit}", (formula, shown), a))
        notes = (self.words["maxout"],) if level in n.piece else ()
        return Block(self._title(level), tuple(lines), notes + self._left_out(level))

    def _softmax_numbers(self, level: int, j: int) -> str:
        z = self.n.z[level]
        total = np.exp(z).sum() if np.abs(z).max() < LARGE_Z else np.inf
        return f"exp({number(z[j])}) / {number(total)}" if np.isfinite(total) else ""

    def _cost(self) -> Block:
        loss = self.net.loss
        formula = COSTS.get(loss.name, f"C = {describe_formula(loss)}(a^{{L}}, y)")
        shown = self.shown[self.last]
        lines = [
            *(Line(f"y_{k + 1}", (self.words["target"],), self.n.y[k]) for k in shown),
            Line("C", (self._cost_sum(),), self.n.cost),
        ]
        title = self.words["cost"].format(formula=formula.replace("{L}", str(self.last)))
        return Block(title, tuple(lines), self._left_out(self.last))

    def _cost_sum(self) -> str:
        """Return the quadratic cost with its numbers, of few outputs."""
        a, y = self.n.a[self.last], self.n.y
        if self.net.loss.kernel != "quadratic" or len(a) > TERMS:
            return ""
        squares = [f"({number(u)} - {factor(v)})²" for u, v in zip(a, y, strict=True)]
        return f"½ ({' + '.join(squares)})" if len(a) > 1 else f"½ {squares[0]}"

    def _output_notes(self) -> tuple[str, ...]:
        n, last = self.n, self.last
        if n.is_fused:
            phi, loss = describe_formula(n.phi[last]), describe_formula(self.net.loss)
            return (self.words["fused"].format(phi=phi, loss=loss, L=last),)
        if n.slope[last] is None:
            return (self.words["softmax"].format(L=last),)
        return ()

    def _output(self) -> Block:
        n, last, lines = self.n, self.last, []
        da, slope = n.da[last], n.slope[last]
        for j in self.shown[last]:
            unit, delta = f"{last}_{j + 1}", n.delta[last][j]
            a, y = n.a[last][j], n.y[j]
            if da is None:
                parts = f"a^{unit} - y_{j + 1}", f"{number(a)} - {factor(y)}"
                lines.append(Line(f"δ^{unit}", parts, delta))
                continue
            if self.net.loss.kernel == "quadratic":
                parts = f"a^{unit} - y_{j + 1}", f"{number(a)} - {factor(y)}"
            else:
                parts = "", ""
            lines.append(Line(f"∂C/∂a^{unit}", parts, da[j]))
            lines += self._delta_lines(last, j, f"∂C/∂a^{unit}", number(da[j]))
        notes = () if slope is None or da is None else self._slope_note(last)
        return Block(self._title(last), tuple(lines), notes + self._left_out(last))

    def _hidden(self, level: int) -> Block:
        n, lines = self.n, []
        for j in self.shown[level]:
            above = n.delta[level + 1]
            names = [
                (f"w^{level + 1}_{k + 1},{j + 1}", f"δ^{level + 1}_{k + 1}")
                for k in range(len(above))
            ]
            symbols, numbers = self._sum(names, n.w[level + 1][:, j], above)
            lines += self._delta_lines(level, j, f"({symbols})", f"({numbers})")
        notes = self._slope_note(level)
        return Block(self._title(level), tuple(lines), notes + self._left_out(level))

    def _delta_lines(self, level: int, j: int, symbols: str, numbers: str) -> list[Line]:
        """Return the lines of phi' and delta of a unit, from dC/da in symbols and numbers."""
        n, unit, slope = self.n, f"{level}_{j + 1}", self.n.slope[level]
        delta = Line(f"δ^{unit}", (), n.delta[level][j])
        da = n.da[level]
        if slope is None:
            assert da is not None
            total, a = float(da @ n.a[level]), number(n.a[level][j])
            inner = f"{numbers} - {factor(total)}"
            parts = f"a^{unit} ({symbols} - Σ_k ∂C/∂a^{level}_k a^{level}_k)", f"{a}·({inner})"
            return [Line(delta.name, parts, delta.value)]
        parts = f"φ'(z^{unit}) · {symbols}", f"{factor(slope[j])}·{grouped(numbers)}"
        return [
            Line(f"φ'(z^{unit})", (self._slope_numbers(level, j),), slope[j]),
            Line(delta.name, parts, delta.value),
        ]

    def _slope_numbers(self, level: int, j: int) -> str:
        """Return the slope of the sigmoid and of tanh with its numbers."""
        a = number(self.n.a[level][j])
        kernel = self.n.phi[level].kernel
        if kernel == "sigmoid":
            return f"{a}·(1 - {a})"
        return f"1 - {factor(self.n.a[level][j])}²" if kernel == "tanh" else ""

    def _slope_note(self, level: int) -> tuple[str, ...]:
        phi = self.n.phi[level]
        if level in self.n.piece or phi.kernel not in SLOPES:
            return ()
        return (self.words["slope"].format(slope=SLOPES[phi.kernel].format(*phi.params)),)

    def _partial(self, level: int) -> Block:
        n, lines = self.n, []
        weights, units = self._weights(level), self.shown[level]
        for j, k in weights:
            a, d = n.a[level - 1][k], n.delta[level][j]
            parts = f"a^{level - 1}_{k + 1} δ^{level}_{j + 1}", f"{factor(a)}·{factor(d)}"
            lines.append(Line(f"∂C/∂w^{level}_{j + 1},{k + 1}", parts, n.dw[level][j, k]))
        for j in units:
            lines.append(Line(f"∂C/∂b^{level}_{j + 1}", (f"δ^{level}_{j + 1}",), n.delta[level][j]))
        return Block(self._title(level), tuple(lines), self._notes_of_weights(level))

    def _update(self, level: int) -> Block:
        n, lines, rule = self.n, [], self.update
        for j, k in self._weights(level):
            unit = f"{level}_{j + 1},{k + 1}"
            lines += rule.lines("w", unit, n.w[level][j, k], n.dw[level][j, k], self.eta)
        for j in self.shown[level]:
            lines += rule.lines("b", f"{level}_{j + 1}", n.b[level][j], n.delta[level][j], self.eta)
        return Block(self._title(level), tuple(lines), self._notes_of_weights(level))

    def _notes_of_weights(self, level: int) -> tuple[str, ...]:
        shown, size = len(self._weights(level)), self.n.dw[level].size
        units, width = len(self.shown[level]), len(self.n.a[level])
        return (
            *((self._count("weights", shown, size),) if shown < size else ()),
            *((self._count("biases", units, width),) if units < width else ()),
        )


def _largest(sizes: Numbers, n: int) -> list[int]:
    """Return the positions of the n largest values, in their order."""
    return sorted(int(i) for i in np.argsort(-sizes, kind="stable")[:n])
