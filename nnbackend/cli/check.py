"""`nnbackend check`: check backpropagation against finite differences on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from nnbackend.backend import Backend
from nnbackend.devices import get_backend
from nnbackend.network.layers import Dense, Dropout, Maxout
from nnbackend.network.losses import OUTPUT_ACTIVATIONS
from nnbackend.network.network import Network
from nnbackend.testing.agreement import compare_devices
from nnbackend.testing.gradient_check import check_gradients

N_IN, HIDDEN, N_OUT, ROWS = 5, 6, 3, 8
SMOOTH = ("identity", "tanh", "sigmoid", "elu", "selu", "softplus", "silu", "gelu", "mish")
KINKED = ("relu", "leaky_relu")
LOSSES = ("quadratic", "absolute", "huber", "quantile", "poisson", "binary_cross_entropy")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `check`."""
    parser.add_argument("--device", metavar="DEVICE", help="as for train (default: auto)")
    parser.add_argument(
        "--against",
        metavar="DEVICE",
        help="compare the device with this one instead: initial weights, dropout masks, "
        "gradients, short trainings",
    )


def run(args: argparse.Namespace) -> int:
    """Check each network and return the exit code, 1 if any fails."""
    backend = get_backend(args.device)
    if args.against is not None:
        agreement = compare_devices(backend, args.against)
        print(agreement)
        return 0 if agreement else 1
    print(f"{'network':<44}{'slopes':>7}{'largest error':>15}")
    total = failed = 0
    dtype = "float64" if "float64" in backend.float_dtypes else "float32"
    for name, net, y in networks(backend, dtype):
        x = np.random.Generator(np.random.Philox(1)).standard_normal((ROWS, N_IN))
        result = check_gradients(net, x, y, seed=1)
        verdict = "passed" if result else "FAILED"
        total, failed = total + 1, failed + (not result)
        print(f"{name:<44}{len(result.comparisons):>7}{result.max_error:>15.1e}  {verdict}")
    print(f"{total - failed} of {total} passed, in {dtype} on {backend.device}")
    return 1 if failed else 0


def networks(device: Backend, dtype: str) -> Iterator[tuple[str, Network, np.ndarray]]:
    """Yield small networks with targets: every activation, layer and loss."""
    rng = np.random.Generator(np.random.Philox(2))
    values = rng.standard_normal((ROWS, N_OUT))
    shares = rng.uniform(0.1, 0.9, (ROWS, N_OUT))
    labels = rng.integers(0, N_OUT, ROWS)

    def network(*layers: Dense | Maxout | Dropout, loss: str) -> Network:
        return Network([N_IN, *layers], loss, device=device, dtype=dtype, seed=3)

    for phi in (*SMOOTH, *KINKED):
        net = network(Dense(HIDDEN, phi), Dense(N_OUT, "softmax"), loss="cross_entropy")
        yield f"dense {phi}, softmax, cross_entropy", net, labels
    net = network(Maxout(HIDDEN, 3), Dense(N_OUT, "softmax"), loss="cross_entropy")
    yield "maxout of 3, softmax, cross_entropy", net, labels
    net = network(
        Dense(HIDDEN, "tanh"), Dropout(0.5), Dense(HIDDEN, "relu"), Maxout(N_OUT, 2),
        loss="quadratic",
    )  # fmt: skip
    yield "dense, dropout, dense, maxout, quadratic", net, values
    for name in LOSSES:
        output = OUTPUT_ACTIVATIONS.get(name, "identity")
        net = network(Dense(HIDDEN, "tanh"), Dense(N_OUT, output), loss=name)
        y = np.exp(values) if name == "poisson" else shares if output == "sigmoid" else values
        yield f"dense tanh, {output}, {name}", net, y
    # Pairs that are not fused: the chain rule multiplies the slopes of loss and activation.
    for output, name, y in (
        ("sigmoid", "quadratic", shares),
        ("softmax", "quadratic", shares),
        ("softplus", "poisson", np.exp(values)),
    ):
        net = network(Dense(HIDDEN, "tanh"), Dense(N_OUT, output), loss=name)
        yield f"dense tanh, {output}, {name}", net, y
