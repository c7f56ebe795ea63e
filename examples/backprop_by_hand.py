"""One step of backpropagation by hand, compared with the library.

A 2-2-1 network with sigmoid units, the cost C = 1/2 (y - a)^2, one sample and one update with
eta = 0.5. Plain Python computes every number as on paper; the exit code is 1 if the library
differs from any of them in ten decimals.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

import nnbackend as nn

# The sample, the learning rate and the initial weights; w2_21 leads from unit 1 to unit 2 of
# layer 2, as w^l_jk in the books: layer l, to unit j, from unit k.
X1, X2, Y, ETA = 0.05, 0.10, 0.90, 0.5
START = {
    "w2_11": 0.15, "w2_12": 0.20, "w2_21": 0.25, "w2_22": 0.30, "b2_1": 0.35, "b2_2": 0.35,
    "w3_11": 0.40, "w3_12": 0.45, "b3_1": 0.60,
}  # fmt: skip

Step = tuple[str, str, float]  # name, formula, value


def sigmoid(z: float) -> float:
    """Return 1 / (1 + e^-z)."""
    return 1.0 / (1.0 + math.exp(-z))


def by_hand(x1: float, x2: float, y: float, p: dict[str, float], eta: float) -> list[Step]:
    """Return every number of one step, in the order of the computation."""
    # 1. forward pass
    z2_1 = p["w2_11"] * x1 + p["w2_12"] * x2 + p["b2_1"]
    z2_2 = p["w2_21"] * x1 + p["w2_22"] * x2 + p["b2_2"]
    a2_1, a2_2 = sigmoid(z2_1), sigmoid(z2_2)
    z3_1 = p["w3_11"] * a2_1 + p["w3_12"] * a2_2 + p["b3_1"]
    a3_1 = sigmoid(z3_1)
    cost = 0.5 * (y - a3_1) ** 2
    # 2. the local gradient of the output; sigmoid'(z) = a (1 - a)
    delta3_1 = (a3_1 - y) * a3_1 * (1.0 - a3_1)
    # 3. backpropagate
    delta2_1 = p["w3_11"] * delta3_1 * a2_1 * (1.0 - a2_1)
    delta2_2 = p["w3_12"] * delta3_1 * a2_2 * (1.0 - a2_2)
    # 4. the partial derivatives: dC/dw_jk = delta_j a_k, dC/db_j = delta_j
    slopes = {
        "w2_11": delta2_1 * x1, "w2_12": delta2_1 * x2, "b2_1": delta2_1,
        "w2_21": delta2_2 * x1, "w2_22": delta2_2 * x2, "b2_2": delta2_2,
        "w3_11": delta3_1 * a2_1, "w3_12": delta3_1 * a2_2, "b3_1": delta3_1,
    }  # fmt: skip
    formulas = {
        "w2_11": "delta2_1 x1", "w2_12": "delta2_1 x2", "b2_1": "delta2_1",
        "w2_21": "delta2_2 x1", "w2_22": "delta2_2 x2", "b2_2": "delta2_2",
        "w3_11": "delta3_1 a2_1", "w3_12": "delta3_1 a2_2", "b3_1": "delta3_1",
    }  # fmt: skip
    return [
        ("z2_1", "w2_11 x1 + w2_12 x2 + b2_1", z2_1),
        ("z2_2", "w2_21 x1 + w2_22 x2 + b2_2", z2_2),
        ("a2_1", "sigmoid(z2_1)", a2_1),
        ("a2_2", "sigmoid(z2_2)", a2_2),
        ("z3_1", "w3_11 a2_1 + w3_12 a2_2 + b3_1", z3_1),
        ("a3_1", "sigmoid(z3_1)", a3_1),
        ("C", "1/2 (y - a3_1)^2", cost),
        ("delta3_1", "(a3_1 - y) a3_1 (1 - a3_1)", delta3_1),
        ("delta2_1", "w3_11 delta3_1 a2_1 (1 - a2_1)", delta2_1),
        ("delta2_2", "w3_12 delta3_1 a2_2 (1 - a2_2)", delta2_2),
        *((f"dC/d{name}", formulas[name], slope) for name, slope in slopes.items()),
        # 5. the update: w <- w - eta dC/dw
        *((f"new {n}", f"{n} - eta dC/d{n}", p[n] - eta * slope) for n, slope in slopes.items()),
    ]


def named(weights: list, biases: list) -> dict[str, float]:
    """Return the library's arrays by the names in this script.

    The library's weights[l] is (from, to), the transpose of the textbooks' w^l_jk; its l counts the
    trainable layers from 0, while the textbooks' layer 1 is the input.
    """
    values = {}
    for layer, (W, b) in enumerate(zip(weights, biases, strict=True), start=2):
        for j in range(W.shape[1]):
            values[f"b{layer}_{j + 1}"] = float(b[j])
            for k in range(W.shape[0]):
                values[f"w{layer}_{j + 1}{k + 1}"] = float(W[k, j])
    return values


def by_library(
    x1: float, x2: float, y: float, p: dict[str, float], eta: float, device: str
) -> dict[str, float]:
    """Return the same numbers from the library: a trace, a gradient, and one training step."""
    layers = [2, nn.Dense(2, "sigmoid"), nn.Dense(1, "sigmoid")]
    net = nn.Network(layers, loss="quadratic", device=device, dtype="float64")
    net.set_parameters(
        [
            [[p["w2_11"], p["w2_21"]], [p["w2_12"], p["w2_22"]]],  # (from, to)
            [[p["w3_11"]], [p["w3_12"]]],
        ],
        [[p["b2_1"], p["b2_2"]], [p["b3_1"]]],
    )
    x, target = [[x1, x2]], [[y]]
    host = net.backend.to_host
    trace, gradient = net.trace(x), net.backprop(x, target)
    values = {"C": gradient.loss}
    for symbol, arrays in (("z", trace.z), ("a", trace.a), ("delta", gradient.deltas)):
        for layer, array in enumerate(arrays, start=2):
            for j, value in enumerate(host(array)[0], start=1):
                values[f"{symbol}{layer}_{j}"] = float(value)
    slopes = named([host(W) for W in gradient.weights], [host(b) for b in gradient.biases])
    values.update({f"dC/d{name}": slope for name, slope in slopes.items()})

    nn.train(net, x, target, optimizer=nn.SGD(eta), epochs=1, batch_size=1)
    values.update({f"new {name}": value for name, value in named(*net.get_parameters()).items()})
    return values


def compare(steps: list[Step], library: dict[str, float]) -> bool:
    """Print both columns; return True if every pair agrees in all printed digits."""
    heads = {
        "z2_1": "feed forward", "delta3_1": "local gradients", "dC/dw2_11": "partial derivatives",
        "new w2_11": f"update, eta = {ETA}",
    }  # fmt: skip
    print(f"x = ({X1}, {X2}), y = {Y}")
    print(f"{'quantity':<10}  {'formula':<31}  {'by hand':>13}  {'library':>13}")
    n_equal = 0
    for name, formula, value in steps:
        if name in heads:
            print(f"- {heads[name]}")
        hand, theirs = f"{value:.10f}", f"{library[name]:.10f}"
        n_equal += hand == theirs
        mark = "" if hand == theirs else "  DIFFERENT"
        print(f"{name:<10}  {formula:<31}  {hand:>13}  {theirs:>13}{mark}")
    worst = max(abs(value - library[name]) for name, _, value in steps)
    print(f"{n_equal} of {len(steps)} numbers agree in 10 decimals; largest difference {worst:.1e}")
    return n_equal == len(steps)


def draw(path: Path, p: dict[str, float], steps: list[Step]) -> None:
    """Draw the network with the numbers of the step at its units and connections."""
    matplotlib.rcParams.update({"font.size": 10})
    v = {name: value for name, _, value in steps}
    figure = Figure(figsize=(11.5, 6.0), dpi=130, layout="constrained")
    axes = figure.subplots()
    place = {"x1": (0, 2), "x2": (0, 0), "2_1": (2, 2), "2_2": (2, 0), "3_1": (4, 1)}
    edges = [("x1", "2_1", "w2_11"), ("x2", "2_1", "w2_12"), ("x1", "2_2", "w2_21"),
             ("x2", "2_2", "w2_22"), ("2_1", "3_1", "w3_11"), ("2_2", "3_1", "w3_12")]  # fmt: skip
    for start, end, name in edges:
        (x0, y0), (x1, y1) = place[start], place[end]
        axes.annotate(
            "", (x1, y1), (x0, y0),
            arrowprops={
                "arrowstyle": "-|>", "color": "#9a9a9a", "lw": 1.4, "shrinkA": 34, "shrinkB": 34
            },
        )  # fmt: skip
        share = 0.5 if start[0] != "x" or y0 == y1 else 0.32
        text = (
            rf"$w^{name[1]}_{{{name[3:]}}}$: {p[name]:.2f} → {v['new ' + name]:.5f}" + "\n"
            rf"$\partial C/\partial w$ = {v['dC/d' + name]:+.5f}"
        )
        axes.text(
            x0 + share * (x1 - x0), y0 + share * (y1 - y0), text, ha="center", va="center",
            fontsize=10, color="#2f6db3", bbox={"fc": "white", "ec": "none", "pad": 1.5},
        )  # fmt: skip
    for name, (x, y) in place.items():
        is_input = name[0] == "x"
        face = "#eeeeee" if is_input else "#fbe0bf"
        label = rf"$x_{name[1]}$" if is_input else rf"$a^{name[0]}_{name[2]}$"
        value = {"x1": X1, "x2": X2}[name] if is_input else v[f"a{name}"]
        axes.scatter(x, y, s=3400, fc=face, ec="#444444", lw=1.4, zorder=3)
        axes.text(x, y, f"{label}\n{value:.4g}", ha="center", va="center", zorder=4, fontsize=11)
        if not is_input:
            bias = f"b{name}"
            side = 1 if y >= 1 else -1
            text = (
                rf"$z$ = {v['z' + name]:.5f}     $\delta$ = {v['delta' + name]:+.5f}" + "\n"
                rf"$b$: {p[bias]:.2f} → {v['new ' + bias]:.5f}"
            )
            axes.text(
                x, y + side * 0.36, text, ha="center", va="bottom" if side > 0 else "top",
                fontsize=10.5, color="#a0460b",
            )  # fmt: skip
    axes.text(
        4.0, 0.6, f"target $y$ = {Y:.2f}\n" rf"$C = \frac{{1}}{{2}}(y-a)^2$ = {v['C']:.5f}",
        ha="center", va="top", fontsize=10.5,
    )  # fmt: skip
    for x, title in ((0, "layer 1: input"), (2, "layer 2: hidden"), (4, "layer 3: output")):
        axes.text(x, 2.85, title, ha="center", fontsize=11.5, weight="bold", color="#333333")
    axes.set_title(
        rf"One sample, one update with $\eta$ = {ETA}: values before → after", fontsize=13, pad=10
    )
    axes.set(xlim=(-0.5, 4.75), ylim=(-0.7, 3.0))
    axes.axis("off")
    figure.savefig(path)
    print(f"picture: {path}")


def main() -> int:
    """Compute the step twice, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1 or a backend's name")
    parser.add_argument("--seed", type=int, default=0, help="unused: the weights are given")
    parser.add_argument("--out", type=Path, default=Path("runs/backprop_by_hand"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="unused: there is only one step")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    steps = by_hand(X1, X2, Y, START, ETA)
    agree = compare(steps, by_library(X1, X2, Y, START, ETA, args.device))
    draw(args.out / "backprop_by_hand.png", START, steps)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
