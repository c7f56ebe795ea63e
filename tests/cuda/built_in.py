"""All kernels of the built-in formulas: what a model of the engine's own parts can ever launch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.network.losses import LOSSES, Loss, get_loss
from nnbackend.network.scores import ACCURACY, BINARY_ACCURACY, SQUARED_ERROR
from nnbackend.training.optimizers import OPTIMIZERS, SGD, Optimizer
from nnbackend_cupy import sources
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
    """Give every built-in kernel in both dtypes."""
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
        for rule in RULES:
            yield sources.update(rule, dtype, len(rule.state))
        yield sources.bias_gradient(dtype)
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
    """Give them once each: softmax's slope is one kernel with the bias and without."""
    return list({source.name: source for source in all_sources()}.values())
