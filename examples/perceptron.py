"""The perceptron learns only linearly separable data; a hidden layer removes this limit.

Three experiments: Rosenblatt's rule on two linearly separable clouds, the same rule on the
exclusive or, and a multilayer perceptron with backpropagation on the exclusive or.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import nnbackend as nn

BLUE, ORANGE, DARK = "#2f6db3", "#e08214", "#333333"
XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([0.0, 1.0, 1.0, 0.0])


def two_clouds(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n points of the square [-1, 1]^2, labeled by their side of a line."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (20 * n, 2))
    distance = 0.8 * x[:, 0] + 0.6 * x[:, 1] - 0.2
    far = np.abs(distance) > 0.04  # a gap, for faster convergence
    return x[far][:n], (distance[far][:n] > 0).astype(float)


def new_perceptron(device: str) -> nn.Network:
    """Return one unit with the step activation and all weights 0: y_hat = step(x w + b)."""
    unit = nn.Dense(1, "step", weights="zeros", biases="zeros")
    return nn.Network([2, unit], device=device, dtype="float64")


def rosenblatt_epoch(net: nn.Network, x: np.ndarray, y: np.ndarray, eta: float) -> int:
    """Run one epoch: correct the perceptron after each mistake; return the number of mistakes."""
    n_mistakes = 0
    for k in range(len(x)):
        y_hat = net.outputs(x[k : k + 1])[0, 0]
        error = y[k] - y_hat  # -1, 0 or 1
        if error != 0:
            [w], [b] = net.get_parameters()
            w = w + eta * error * x[k][:, None]  # w <- w + eta (y - y_hat) x
            b = b + eta * error  # the bias is the weight of a constant input 1
            net.set_parameters([w], [b])
            n_mistakes += 1
    return n_mistakes


def learn_clouds(x: np.ndarray, y: np.ndarray, device: str) -> nn.Network:
    """Train until an epoch without a mistake."""
    net = new_perceptron(device)
    print(f"Rosenblatt's rule, {len(x)} points that a line separates, eta = 0.1")
    print("epoch  mistakes")
    for epoch in range(1, 1001):
        n_mistakes = rosenblatt_epoch(net, x, y, eta=0.1)
        print(f"{epoch:5}  {n_mistakes:8}")
        if n_mistakes == 0:
            [w], [b] = net.get_parameters()
            w1, w2 = w[:, 0]
            print(f"converged after {epoch} epochs: w = ({w1:.3f}, {w2:.3f}), b = {b[0]:.3f}")
            return net
    raise SystemExit("not converged after 1000 epochs")


def fail_at_xor(device: str, epochs: int) -> nn.Network:
    """Apply the same rule to the exclusive or, and show why more epochs cannot help."""
    net = new_perceptron(device)
    print(f"\nRosenblatt's rule on the exclusive or, eta = 1, {epochs} epochs")
    print("epoch  mistakes  right at its end   w1   w2    b")
    most_right, seen, cycle = 0, {}, None
    for epoch in range(1, epochs + 1):
        n_mistakes = rosenblatt_epoch(net, XOR_X, XOR_Y, eta=1.0)
        n_right = int((net.outputs(XOR_X)[:, 0] == XOR_Y).sum())
        most_right = max(most_right, n_right)
        [w], [b] = net.get_parameters()
        state = (w[0, 0], w[1, 0], b[0])
        if epoch <= 5:
            w1, w2, bias = state
            print(f"{epoch:5}  {n_mistakes:8}  {n_right:11} of 4  {w1:4.0f} {w2:4.0f} {bias:4.0f}")
        if cycle is None and state in seen:
            cycle = (seen[state], epoch)
        seen.setdefault(state, epoch)
    print(f"most right at the end of any of {epochs} epochs: {most_right} of 4")
    if cycle is not None:
        print(
            f"w and b after epoch {cycle[1]} are those after epoch {cycle[0]}: "
            "from there the rule repeats itself forever"
        )
    print(
        "no w, b is a solution: b <= 0, w2 + b > 0, w1 + b > 0 give w1 + w2 + b > 0, "
        "but (1, 1) needs w1 + w2 + b <= 0"
    )
    return net


def solve_xor(device: str, seed: int, epochs: int) -> nn.Network:
    """Solve the exclusive or with a hidden layer of four units, by backpropagation."""
    layers = [2, nn.Dense(4, "tanh"), nn.Dense(1, "sigmoid")]
    net = nn.Network(layers, loss="quadratic", device=device, dtype="float64", seed=seed)
    history = nn.train(
        net,
        XOR_X,
        XOR_Y,
        optimizer=nn.SGD(1.0, momentum=0.9),
        epochs=epochs,
        batch_size=None,
        seed=seed,
    )
    a = net.outputs(XOR_X)[:, 0]
    print(f"\nmultilayer perceptron 2-4-1 on the exclusive or, {epochs} epochs of backpropagation")
    print(f"C = {history['train_loss'][0]:.4f} in the first epoch, {history['train_loss'][-1]:.6f}")
    print("x1  x2  y       a")
    for (x1, x2), y, output in zip(XOR_X, XOR_Y, a, strict=True):
        print(f"{x1:2.0f}  {x2:2.0f}  {y:1.0f}  {output:6.4f}")
    print(f"right: {int(((a > 0.5) == (XOR_Y > 0.5)).sum())} of 4")
    return net


def draw(path: Path, panels: list[tuple[str, nn.Network, np.ndarray, np.ndarray]]) -> None:
    """Draw each network's decision boundary under its data."""
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure = Figure(figsize=(13, 4.9), dpi=130, layout="constrained")
    colours = ListedColormap(["#c9dcf0", "#fbe0bf"])
    for axes, (title, net, x, y) in zip(figure.subplots(1, 3), panels, strict=True):
        low, high = x.min(axis=0) - 0.35, x.max(axis=0) + 0.35
        x1, x2 = np.meshgrid(*(np.linspace(low[i], high[i], 300) for i in (0, 1)))
        grid = net.backend.to_device(np.column_stack([x1.ravel(), x2.ravel()]))
        z = net.backend.to_host(net.trace(grid).z[-1]).reshape(x1.shape)
        axes.contourf(x1, x2, z, levels=[min(z.min(), -1.0), 0.0, max(z.max(), 1.0)], cmap=colours)
        if (
            z.min() < 0.0 < z.max()
        ):  # the boundary: step(z) and sigmoid(z) both change class at z = 0
            axes.contour(x1, x2, z, levels=[0.0], colors=DARK, linewidths=1.6)
        right = (net.outputs(x)[:, 0] > 0.5) == (y > 0.5)
        size = 130 if len(x) == 4 else 45
        for label, colour, marker in ((0, BLUE, "o"), (1, ORANGE, "s")):
            mine = x[y == label]
            axes.scatter(
                *mine.T,
                s=size,
                c=colour,
                marker=marker,
                ec="white",
                label=f"$y = {label}$",
                zorder=3,
            )
        if not right.all():
            axes.scatter(
                *x[~right].T, s=380, fc="none", ec="#c0202c", lw=2.2, label="wrong", zorder=4
            )
        axes.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
        ticks = [0.0, 0.5, 1.0] if len(x) == 4 else [-1.0, -0.5, 0.0, 0.5, 1.0]
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=ticks, yticks=ticks)
        columns = len(axes.get_legend_handles_labels()[0])
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, frameon=False,
            markerscale=0.6 if len(x) == 4 else 1.0,
        )  # fmt: skip
    figure.savefig(path)
    print(f"\npicture: {path}")


def main() -> None:
    """Run the three experiments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1 or a backend's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/perceptron"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="few points and epochs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    x, y = two_clouds(40 if args.quick else 120, args.seed)
    line = learn_clouds(x, y, args.device)
    stuck = fail_at_xor(args.device, epochs=50 if args.quick else 1000)
    mlp = solve_xor(args.device, args.seed, epochs=500 if args.quick else 1000)
    draw(
        args.out / "perceptron.png",
        [
            ("perceptron, separable data", line, x, y),
            ("perceptron, exclusive or", stuck, XOR_X, XOR_Y),
            ("multilayer 2-4-1, exclusive or", mlp, XOR_X, XOR_Y),
        ],
    )


if __name__ == "__main__":
    main()
