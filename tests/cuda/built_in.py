"""All kernels of the built-in formulas."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.network.evaluation.scores import ACCURACY, BINARY_ACCURACY, SQUARED_ERROR
from nnbackend.network.losses import LOSSES, Loss, get_loss
from nnbackend.training.optimizers import OPTIMIZERS, SGD, Adam, Optimizer
from nnbackend_cupy import narrow_source, sources
from nnbackend_cupy.narrow import Device, choose_grid
from nnbackend_cupy.narrow_source import Layer, Net
from nnbackend_cupy.sources import Source

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
PLAIN = [*map(get_loss, LOSSES), get_loss("cross_entropy", 0.1)]
PLAIN.append(get_loss("binary_cross_entropy", 0.1))
ALL_LOSSES: list[Loss] = [*PLAIN, *(loss.fused() for loss in PLAIN if loss.on_logits is not None)]
SCORES = (ACCURACY, BINARY_ACCURACY, SQUARED_ERROR)
RULES: list[Optimizer] = [
    *(rule for make in OPTIMIZERS.values() if isinstance(rule := make(), Optimizer)),
    SGD(momentum=0.9),
    SGD(momentum=0.9, nesterov=True),
]
DATA = ("bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "float32", "float64")


def all_sources() -> Iterator[Source]:
    """Return every built-in kernel in both dtypes."""
    for dtype in DTYPES:
        for phi in map(get_activation, ACTIVATIONS):
            yield sources.activation(phi, dtype)
            for with_bias in (False, True):
                yield sources.slope(phi, dtype, with_bias)
        for target in (dtype.name, "int32"):
            for is_weighted in (False, True):
                for loss in ALL_LOSSES:
                    yield sources.loss(loss, dtype, target, is_weighted)
                for score in SCORES:
                    yield sources.score(score, dtype, target, is_weighted)
        for phi, below in (("identity", "relu"), ("tanh", None), ("identity", "silu")):
            above, under = get_activation(phi), below and get_activation(below)
            for loss, target in (
                (ALL_LOSSES[0], dtype.name),
                (get_loss("cross_entropy").fused(), "int32"),
            ):
                for n_out, warps in ((10, 4), (1, 1)):
                    yield sources.output(above, loss, under or None, dtype, target, n_out, warps)
        for rule in RULES:
            yield sources.update(rule, dtype, len(rule.state))
        yield sources.bias_gradient(dtype)
        yield sources.weight_gradient(dtype)
        for n_few in (1, 4, 5, 10, 16):
            for is_delta_few in (False, True):
                yield sources.thin_gradient(dtype, n_few, is_delta_few)
        yield sources.layers(dtype)
        yield sources.vectors(dtype)
        for data in DATA:
            yield sources.gather(data, dtype.name)
    yield sources.gather("int32", "int32")
    yield sources.gather("int64", "int64")
    yield sources.tick()
    yield sources.begin([("float32", "float32"), ("int32", "int32")])
    yield sources.begin([("uint8", "float32"), ("float32", "float32"), ("float64", "float64")])


def distinct_sources() -> list[Source]:
    """Return the distinct kernels: softmax's slope is the same with and without bias."""
    return list({source.name: source for source in all_sources()}.values())


# Networks whose steps run in one kernel: widths, activations, loss, dtype of the data, rows.
NARROW = (
    ((784, 30, 10), "sigmoid", "cross_entropy", "uint8", 10),
    ((784, 100, 10), "relu", "cross_entropy", "float32", 128),
    ((20, 64, 64, 2), "relu", "cross_entropy", "float32", 32),
    ((20, 64, 64, 2), "gelu", "cross_entropy", "float32", 256),
    ((64, 64, 64, 64, 1), "tanh", "quadratic", "float32", 1024),
    ((128, 128, 128, 128, 10), "relu", "cross_entropy", "float32", 1024),
    ((2, 8, 1), "tanh", "quadratic", "float32", 4),
)


def narrow_net(widths: tuple[int, ...], phi: str, loss: str, data: str) -> Net:
    """Return a network with every extra, whose last layer is the identity."""
    layers, W = [], 0
    b = sum(n * m for n, m in pairwise(widths))
    for k, (n_in, n_out) in enumerate(pairwise(widths)):
        activation = get_activation(phi if k + 2 < len(widths) else "identity")
        layers.append(Layer(n_in, n_out, W, b, activation, not activation.slope_from_output))
        W, b = W + n_in * n_out, b + n_out
    is_fused = loss == "cross_entropy"
    formula = get_loss(loss).fused() if is_fused else get_loss(loss)
    extras = {"is_scaled": True, "is_weighted": True, "has_penalty": True}
    targets = "int32" if is_fused else "float32"
    return Net(tuple(layers), formula, Adam(), 2, data, targets, True, **extras)


def narrow_sources(device: Device) -> list[Source]:
    """Return the kernels of `NARROW` on the grids that are chosen for a device."""
    made = []
    for *net, rows in NARROW:
        work = rows * sum(n * m for n, m in pairwise(net[0]))
        grid = choose_grid(work, device)
        made.append(narrow_source.source(narrow_net(*net), grid, rows)[0])
    return made
