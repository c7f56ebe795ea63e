"""All kernels of the built-in formulas."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.network.evaluation.scores import ACCURACY, BINARY_ACCURACY, SQUARED_ERROR, Score
from nnbackend.network.losses import LOSSES, Loss, get_loss
from nnbackend.training.optimizers import OPTIMIZERS, SGD, Adam, Optimizer
from nnbackend_cupy import batches, layers, losses, narrow_source, updates
from nnbackend_cupy.narrow import Device, choose_grid
from nnbackend_cupy.narrow_source import Layer, Net
from nnbackend_cupy.records import Kernel, variant
from nnbackend_cupy.sources import OfRow, Source, loss_lines, score_lines, update_filling

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
# The kernels without formulas whose only type is T.
PLAIN_KERNELS = [
    kernel
    for module in (layers, losses, updates)
    for kernel in vars(module).values()
    if isinstance(kernel, Kernel) and kernel.filling is None
]
DATA = ("bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "float32", "float64")


def source_of(kernel: Kernel, types: str, *formulas: Any) -> Source:
    """Return a kernel's text. types: dtypes by name, as "T=float32 Y=int32"."""
    bound = dict(pair.split("=") for pair in types.split())
    try:
        return kernel.source(bound, *formulas)
    except OfRow:
        if kernel.of_row is None:
            raise
        return kernel.of_row.source(bound, *formulas)


def loss_source(formula: Loss, dtype: str, label: str = "", is_weighted: bool = False) -> Source:
    """Return the kernel of a loss. label: the dtype of class labels."""
    flags = {"HAS_LABELS": bool(label), "IS_WEIGHTED": is_weighted}
    return source_of(variant("loss", loss_lines, **flags), _types(dtype, label), formula)


def score_source(formula: Score, dtype: str, label: str = "", is_weighted: bool = False) -> Source:
    """Return the kernel of a score. label: the dtype of class labels."""
    flags = {"HAS_LABELS": bool(label), "IS_WEIGHTED": is_weighted}
    return source_of(variant("score", score_lines, **flags), _types(dtype, label), formula)


def update_source(rule: Any, dtype: str, n: int) -> Source:
    """Return the kernel of an update rule with n state vectors."""
    return source_of(variant("update", update_filling, n), f"T={dtype}", rule)


def _types(dtype: str, label: str) -> str:
    return f"T={dtype} Y={label}" if label else f"T={dtype}"


def begin_source(*pairs: tuple[str, str]) -> Source:
    """Return the kernel that starts a step. pairs: dtypes of the data and of the batch."""
    types = " ".join(f"In{k}={data} Out{k}={out}" for k, (data, out) in enumerate(pairs))
    return source_of(variant("begin", n=len(pairs)), types)


def all_sources() -> Iterator[Source]:
    """Return every built-in kernel in both dtypes."""
    for dtype in ("float32", "float64"):
        for phi in map(get_activation, ACTIVATIONS):
            yield source_of(layers.BIAS_ACTIVATION, f"T={dtype}", phi)
            yield source_of(layers.SLOPE, f"T={dtype}", phi)
        for label in ("", "int32"):
            for is_weighted in (False, True):
                for loss in ALL_LOSSES:
                    yield loss_source(loss, dtype, label, is_weighted)
                for score in SCORES:
                    yield score_source(score, dtype, label, is_weighted)
        for phi, below in (("identity", "relu"), ("tanh", None), ("identity", "silu")):
            above, under = get_activation(phi), below and get_activation(below)
            for loss, label in ((ALL_LOSSES[0], ""), (get_loss("cross_entropy").fused(), "int32")):
                for n_out, warps in ((10, 4), (1, 1)):
                    flags = {"HAS_LABELS": bool(label), "O": n_out, "WARPS": warps}
                    kernel = variant("output", losses.output_filling, **flags)
                    yield source_of(kernel, _types(dtype, label), loss, above, under)
        for rule in RULES:
            yield update_source(rule, dtype, len(rule.state))
        for kernel in PLAIN_KERNELS:
            yield source_of(kernel, f"T={dtype}")
        for n_few in (1, 4, 5, 10, 16):
            for is_delta_few in (False, True):
                kernel = variant("thin_gradient", FEW=n_few, IS_DELTA_FEW=is_delta_few)
                yield source_of(kernel, f"T={dtype}")
        for data in DATA:
            yield source_of(batches.GATHER, f"In={data} Out={dtype}")
            yield source_of(batches.SCALE, f"In={data} T={dtype}")
    yield source_of(batches.GATHER, "In=int32 Out=int32")
    yield source_of(batches.GATHER, "In=int64 Out=int64")
    yield source_of(batches.TICK, "")
    yield begin_source(("float32", "float32"), ("int32", "int32"))
    yield begin_source(("uint8", "float32"), ("float32", "float32"), ("float64", "float64"))


def distinct_sources() -> list[Source]:
    """Return the distinct kernels: some losses have the same text."""
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
        network = narrow_net(*net)
        kernel, _ = narrow_source.kernel(network, grid, rows)
        label = network.targets if network.targets.startswith("int") else ""
        made.append(source_of(kernel, f"X={network.data} {_types('float32', label)}", network.loss))
    return made
