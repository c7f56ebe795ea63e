"""Each equation of the course, by number, is on both pages, in the code, and true of its numbers.

The equations are numbered in the order of the slides. Each has its own check: plain loops over the
numbers of a network, read with the Python expressions of the page's table of symbols. So the table
is tested too, with layer 1 as the input and units from 1.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.network.activations import Activation, get_activation
from nnbackend.testing import ReferenceBackend
from nnbackend.training.batching import batch_sizes

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("backprop.md", "es/backprop.md")
SIZES = [3, 4, 3, 2]
L = len(SIZES)
LAYERS = range(2, L + 1)
ROWS = 3
ETA = 0.25
REFERENCE = ReferenceBackend()  # has the formulas of the page, without faster kernels
rng = np.random.default_rng(7)
X, Y = rng.normal(size=(ROWS, SIZES[0])), rng.random((ROWS, SIZES[-1]))


def make() -> nn.Network:
    kinds = ["tanh", "elu", "sigmoid"]
    layers = [nn.Dense(n, phi) for n, phi in zip(SIZES[1:], kinds, strict=True)]
    net = nn.Network([SIZES[0], *layers], "quadratic", dtype="float64", device=REFERENCE, seed=3)
    biases = [rng.normal(size=n) for n in SIZES[1:]]
    net.set_parameters(net.get_parameters()[0], biases)
    return net


NET = make()
PHI: dict[int, Activation] = {
    level: layer.activation for level, layer in zip(LAYERS, NET.layers, strict=True)
}  # type: ignore[union-attr, misc]


# ---- the symbols, as the page writes them in Python ----------------------------------------------


@cache
def symbols(page: str) -> dict[str, str]:
    """Return the Python expression of each symbol in the page's first table."""
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\$[^|]+\$)[^|]* \|[^|]+\| (.+) \|$", text, flags=re.MULTILINE)
    return {
        symbol: re.findall(r"`([^`]+)`", python)[-1] for symbol, python in rows if "`" in python
    }


class Slides:
    """The numbers of one sample, or of the mean of all, by the symbols of the slides."""

    def __init__(self, page: str, row: int | None) -> None:
        self.table = symbols(page)
        rows = slice(None) if row is None else slice(row, row + 1)
        self.x, self.y = X[rows], Y[rows]
        self.trace, self.gradient = NET.trace(self.x), NET.backprop(self.x, self.y)

    def read(self, symbol: str, **indices: int) -> float:
        """Return a number by the expression of the page."""
        names = {"net": NET, "trace": self.trace, "gradient": self.gradient, "y": self.y}
        return float(eval(self.table[symbol], {**names, **indices}))

    def w(self, level: int, j: int, k: int) -> float:
        return self.read("$w^l_{jk}$", l=level, j=j, k=k)

    def b(self, level: int, j: int) -> float:
        return self.read("$b^l_j$", l=level, j=j)

    def z(self, level: int, j: int) -> float:
        return self.read("$z^l_j$", l=level, j=j, row=0)

    def a(self, level: int, j: int) -> float:
        if level == 1:
            return self.read("$x$", j=j, row=0)
        return self.read("$a^l_j$", l=level, j=j, row=0)

    def delta(self, level: int, j: int) -> float:
        return self.read(r"$\delta^l_j$", l=level, j=j, row=0)

    def dw(self, level: int, j: int, k: int) -> float:
        return self.read(r"$\partial C / \partial w^l_{jk}$", l=level, j=j, k=k)

    def db(self, level: int, j: int) -> float:
        return self.read(r"$\partial C / \partial b^l_j$", l=level, j=j)

    def cost(self) -> float:
        return float(self.gradient.loss)

    def da(self, j: int) -> float:
        return self.a(L, j) - self.target(j)

    def target(self, j: int) -> float:
        return float(self.y[0, j - 1])


def units(level: int) -> range:
    return range(1, SIZES[level - 1] + 1)


def phi(level: int, z: float) -> float:
    return float(PHI[level].value(np.array([z]), np)[0])


def slope(level: int, z: float) -> float:
    """Return phi'(z) by central differences, independent of the derivative in the code."""
    h = 1e-6
    return (phi(level, z + h) - phi(level, z - h)) / (2 * h)


def near(value: float, expected: float) -> None:
    assert value == pytest.approx(expected, rel=1e-7, abs=1e-9)


# ---- the checks ----------------------------------------------------------------------------------


def regression_needs_many_columns(s: Slides) -> None:
    assert math.comb(100, 2) == len(list(itertools.combinations(range(100), 2))) == 4950


def weighted_sum(s: Slides) -> None:
    for level in LAYERS:
        for j in units(level):
            total = sum(s.w(level, j, k) * s.a(level - 1, k) for k in units(level - 1)) + s.b(
                level, j
            )
            near(s.z(level, j), total)


def activation(s: Slides) -> None:
    for level in LAYERS:
        for j in units(level):
            near(s.a(level, j), phi(level, s.z(level, j)))


def perceptron(s: Slides) -> None:
    weighted_sum(s)
    activation(s)


def formula(name: str, expected: Callable[[float], float]) -> Callable[[Slides], None]:
    def check(s: Slides) -> None:
        for z in (-2.5, -0.3, 0.4, 3.0):
            near(float(get_activation(name).value(np.array([z]), np)[0]), expected(z))

    return check


def maxout(s: Slides) -> None:
    net = nn.Network([3, nn.Maxout(1, 2)], "quadratic", dtype="float64", device=REFERENCE, seed=1)
    W, x = net.weights[0], X[:1]
    pieces = [sum(W[k, piece] * x[0, k] for k in range(3)) for piece in (0, 1)]
    near(float(net.feedforward(x)[0, 0]), max(pieces))


def cost(s: Slides) -> None:
    near(s.cost(), 0.5 * sum((s.target(k) - s.a(L, k)) ** 2 for k in units(L)))


def _nudged(s: Slides, array: Any, at: Any, h: float) -> float:
    before = array[at]
    array[at] = before + h
    loss = NET.backprop(s.x, s.y).loss
    array[at] = before
    return float(loss)


def derivative(s: Slides, array: Any, at: Any) -> float:
    """Return the derivative of the cost by central differences."""
    h = 1e-5
    return (_nudged(s, array, at, h) - _nudged(s, array, at, -h)) / (2 * h)


def cost_slope(s: Slides) -> None:
    for j in units(L):
        _, gradient = NET.loss.rows(s.trace.a[-1], s.y, np)
        near(float(gradient[0, j - 1]), s.da(j))


def chain_rule(s: Slides) -> None:
    """Check dC/dw = dC/dz dz/dw with a derivative of the cost by differences."""
    for level in LAYERS:
        dz = s.a(level - 1, 2)  # dz/dw
        found = derivative(s, NET.weights[level - 2], (1, 0))
        assert found == pytest.approx(s.delta(level, 1) * dz, rel=1e-5, abs=1e-9)


def local_gradient(s: Slides) -> None:
    """Check delta = dC/dz: a bias moves z alone, by the same amount."""
    for level in LAYERS:
        for j in units(level):
            found = derivative(s, NET.biases[level - 2], j - 1)
            assert found == pytest.approx(s.delta(level, j), rel=1e-5, abs=1e-9)


def output_delta(s: Slides) -> None:
    for j in units(L):
        near(s.delta(L, j), s.da(j) * slope(L, s.z(L, j)))


def hidden_delta(s: Slides) -> None:
    for level in LAYERS[:-1]:
        for j in units(level):
            total = sum(s.delta(level + 1, k) * s.w(level + 1, k, j) for k in units(level + 1))
            near(s.delta(level, j), slope(level, s.z(level, j)) * total)


def weight_slopes(s: Slides) -> None:
    for level in LAYERS:
        for j, k in itertools.product(units(level), units(level - 1)):
            near(s.dw(level, j, k), s.delta(level, j) * s.a(level - 1, k))


def bias_slopes(s: Slides) -> None:
    for level in LAYERS:
        for j in units(level):
            near(s.db(level, j), s.delta(level, j))


def summary(s: Slides) -> None:
    for check in (weight_slopes, bias_slopes, output_delta, hidden_delta):
        check(s)


def first_layer(s: Slides) -> None:
    assert [s.a(1, k) for k in units(1)] == list(s.x[0])


def mean_cost(s: Slides) -> None:
    page = next(page for page in PAGES if symbols(page) is s.table)
    every, each = Slides(page, None), [Slides(page, i) for i in range(ROWS)]
    near(every.cost(), sum(one.cost() for one in each) / ROWS)


def mean_slopes(s: Slides) -> None:
    page = next(page for page in PAGES if symbols(page) is s.table)
    every, each = Slides(page, None), [Slides(page, i) for i in range(ROWS)]
    for level in LAYERS:
        for j in units(level):
            near(every.db(level, j), sum(one.db(level, j) for one in each) / ROWS)
            for k in units(level - 1):
                near(every.dw(level, j, k), sum(one.dw(level, j, k) for one in each) / ROWS)


def update(s: Slides) -> None:
    global NET
    old = NET
    before = {
        (level, j): (s.b(level, j), [s.w(level, j, k) for k in units(level - 1)])
        for level in LAYERS
        for j in units(level)
    }
    try:
        NET = old.to(REFERENCE)
        nn.train(NET, s.x, s.y, optimizer=nn.SGD(ETA), epochs=1, batch_size=1)
        for (level, j), (b, weights) in before.items():
            near(s.b(level, j), b - ETA * s.db(level, j))
            for k, w in enumerate(weights, start=1):
                near(s.w(level, j, k), w - ETA * s.dw(level, j, k))
    finally:
        NET = old


def batches(s: Slides) -> None:
    """Check that an epoch is n / b updates: 1 for all rows, n for single rows."""
    for batch, expected in ((ROWS, 1), (2, 2), (1, ROWS)):
        assert sum(count for count, _ in batch_sizes(ROWS, batch)) == expected
    net, gradient = NET.to(REFERENCE), NET.backprop(X, Y)
    nn.train(net, X, Y, optimizer=nn.SGD(ETA), epochs=1, batch_size=None)
    np.testing.assert_allclose(net.theta, NET.theta - ETA * gradient.vector, rtol=1e-10)


EQUATIONS: dict[int, tuple[str, Callable[[Slides], None]]] = {
    1: ("columns of a regression with products of two inputs", regression_needs_many_columns),
    2: ("weighted sum of a perceptron", weighted_sum),
    3: ("activation of the weighted sum", activation),
    4: ("sigmoid", formula("sigmoid", lambda z: 1 / (1 + math.exp(-z)))),
    5: ("leaky ReLU", formula("leaky_relu", lambda z: max(0.1 * z, z))),
    6: ("tanh", formula("tanh", math.tanh)),
    7: ("maxout", maxout),
    8: ("ReLU", formula("relu", lambda z: max(0.0, z))),
    9: ("ELU", formula("elu", lambda z: z if z >= 0 else math.exp(z) - 1)),
    10: ("output of a perceptron", perceptron),
    11: ("outputs of a layer of perceptrons", perceptron),
    12: ("z of unit j of layer l", weighted_sum),
    13: ("a of unit j of layer l", activation),
    14: ("new weight from the old one", update),
    15: ("chain rule", chain_rule),
    16: ("cost as a function of the outputs", cost),
    17: ("derivative by a weight", weight_slopes),
    18: ("derivative by a bias", bias_slopes),
    19: ("definition of the local gradient", local_gradient),
    20: ("local gradient of the output layer", output_delta),
    21: ("least squares", cost),
    22: ("derivative of least squares", cost_slope),
    23: ("z of the next layer", weighted_sum),
    24: ("local gradient of a hidden layer", hidden_delta),
    25: ("all four together", summary),
    26: ("weighted sums as a matrix product", weighted_sum),
    27: ("activations as a vector", activation),
    28: ("local gradients of the output as a vector", output_delta),
    29: ("local gradients of a hidden layer as a vector", hidden_delta),
    30: ("step 1: the input", first_layer),
    31: ("cost of one sample", cost),
    32: ("mean cost", mean_cost),
    33: ("mean derivatives", mean_slopes),
    34: ("update of the weights", update),
    35: ("update of the biases", update),
    36: ("batch, mini-batch, stochastic", batches),
}

# The slides, by their number and title in docs/course/index.md, and the equations on each.
SLIDES: list[tuple[int, str, list[int]]] = [
    (2, "Limitantes en la Regresión", [1]),
    (9, "Cómo funciona", [2, 3]),
    (11, "Funciones de Activación", [4, 5, 6, 7, 8, 9]),
    (12, "Perceptrón", [10, 11]),
    (16, "Notación Matemática", [12, 13]),
    (19, "Idea general", [14, 15]),
    (20, "Idea general", [16]),
    (21, "Idea general", [17, 18, 19]),
    (22, "Gradiente local en la capa de salida", [20]),
    (23, "Gradiente local en la capa de salida", [21, 22]),
    (24, "Gradiente local en capa oculta", [23]),
    (25, "Gradiente local en capa oculta", [24]),
    (26, "Resumiendo", [25]),
    (27, "Pasando Todo a Matrices", [26]),
    (28, "Pasando Todo a Matrices", [27]),
    (29, "Pasando Todo a Matrices", [28]),
    (30, "Pasando Todo a Matrices", [29]),
    (32, "Algoritmo de Backpropagation resumido", [30]),
    (34, "2) Feed Forward", [31, 32]),
    (35, "3 y 4) Backpropagation", [33]),
    (36, "5) Determinar los nuevos pesos y bias", [34, 35]),
    (37, "Variantes", [36]),
]
FIRST = r"^\| (?:([\d, ]+)(?:; )?)?(?:(?:slide|diapositiva)s? ([\d, ]+))? \|"


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("number", EQUATIONS)
def test_an_equation_is_true_of_the_numbers_that_the_page_names(number: int, page: str) -> None:
    EQUATIONS[number][1](Slides(page, 1))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_has_every_equation_with_its_line_of_code(page: str) -> None:
    """Check the numbers of the rows; tests/test_docs.py checks that the code has the lines."""
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(
        FIRST + r"[^|]+\| (\$.+\$.*) \| `nnbackend/\S+` \| `.+` \|$", text, re.MULTILINE
    )
    found = [int(n) for numbers, _, _ in rows for n in re.findall(r"\d+", numbers)]
    assert sorted({1, *found}) == list(EQUATIONS)
    assert r"\binom{100}{2} = 4950" in text  # equation 1, which needs no code
    assert "a^0" not in text
    formulas = "\n".join(formula for _, _, formula in rows)
    for part in (
        r"a^1 = x", r"z^l_j = \sum_k w^l_{jk} a^{l-1}_k + b^l_j", r"a^l = \varphi(z^l)",
        r"\delta^l_j = \varphi'(z^l_j) \sum_k w^{l+1}_{kj} \delta^{l+1}_k",
        r"\frac{\partial C}{\partial w^l_{jk}} = \delta^l_j a^{l-1}_k",
        r"(w^{l+1})^T \delta^{l+1}", r"w^l \leftarrow w^l - \eta",
    ):  # fmt: skip
        assert part in formulas


@pytest.mark.parametrize("page", PAGES)
def test_each_equation_has_its_slide(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert [n for _, _, numbers in SLIDES for n in numbers] == list(EQUATIONS)
    slide_of = {n: slide for slide, _, numbers in SLIDES for n in numbers}
    rows = re.findall(FIRST + r".*`nnbackend/", text, re.MULTILINE)
    cards = [[list(map(int, re.findall(r"\d+", part))) for part in row] for row in rows]
    assert sum(bool(numbers) for numbers, _ in cards) >= 16
    for numbers, slides in cards:
        assert not numbers or slides == sorted({slide_of[n] for n in numbers}), numbers
    course = (DOCS / Path(page).parent / "course" / "index.md").read_text(encoding="utf-8")
    for slide, title, _ in SLIDES:
        assert re.search(rf"^\| {slide} \| {re.escape(title)}[ ,:|]", course, re.MULTILINE), slide


def test_both_pages_number_the_equations_alike() -> None:
    found = [
        re.findall(FIRST + r"[^|]+\|.+\| (`nnbackend/\S+` \| `.+`) \|$",
                   (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        for page in PAGES
    ]  # fmt: skip
    assert found[0] == found[1]
