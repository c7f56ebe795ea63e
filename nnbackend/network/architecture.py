"""Conversion of a list such as [784, 100, 10] into layers, and of layers into text."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from nnbackend.backend import Backend
from nnbackend.errors import ArgumentError, check
from nnbackend.network.activations import Activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout, check_size
from nnbackend.network.losses import OUTPUT_ACTIVATIONS, Loss, get_loss


def build_layers(
    layers: Sequence[int | AbstractLayer], loss: Loss | None, activation: str | Activation
) -> tuple[int, tuple[AbstractLayer, ...]]:
    """Return n_in and the layers; a number becomes a Dense layer."""
    items = list(layers) if isinstance(layers, (list, tuple)) else []
    if len(items) < 2:
        raise ArgumentError(
            "layers must be a list of n_in and at least one layer, as [784, 100, 10]. "
            f"Received: layers={layers!r}."
        )
    output = OUTPUT_ACTIVATIONS.get(loss.name, "identity") if loss else "identity"
    built: list[AbstractLayer] = []
    for place, item in enumerate(items[1:], start=1):
        if not isinstance(item, AbstractLayer):
            is_last = place == len(items) - 1
            item = Dense(check_size("n_out", item), output if is_last else activation)
        built.append(item)
    if isinstance(built[-1], Dropout):
        raise ArgumentError(
            "the last layer must compute the output. Received: a Dropout at the end. "
            "Put it before the last Dense."
        )
    if any(isinstance(la, Dense) and la.activation.name == "softmax" for la in built[:-1]):
        raise ArgumentError("softmax must be on the last layer. Received: on a hidden layer.")
    last = built[-1]
    if isinstance(last, Dense) and last.n_out == 1 and last.activation.name == "softmax":
        raise ArgumentError(
            "softmax needs at least 2 units: of 1 unit it is always 1. Received: 1. Use 2 units, "
            "or Dense(1, 'sigmoid') with loss='binary_cross_entropy'."
        )
    return check_size("n_in", items[0]), tuple(built)


def default_loss(last: AbstractLayer) -> Loss:
    """Return the default loss of an output layer: cross-entropy after softmax, else quadratic."""
    is_softmax = isinstance(last, Dense) and last.activation.name == "softmax"
    return get_loss("cross_entropy" if is_softmax else "quadratic")


def describe(layer: AbstractLayer) -> str:
    """Return a short description of a layer, such as "dense 10 relu"."""
    if isinstance(layer, Dense):
        return f"dense {layer.n_out} {describe_formula(layer.activation)}"
    if isinstance(layer, Maxout):
        return f"maxout {layer.n_out} of {layer.n_pieces} pieces"
    return f"dropout {layer.drop_rate:g}" if isinstance(layer, Dropout) else repr(layer)


def describe_formula(formula: Activation | Loss) -> str:
    """Return a formula's name with its parameters, such as "leaky_relu(0.1)"."""
    numbers = ", ".join(f"{p:g}" for p in formula.params if p)
    return f"{formula.name}({numbers})" if numbers else formula.name


def summary(n_in: int, layers: Sequence[AbstractLayer]) -> str:
    """Return a table of layers, units and parameters."""
    rows, total, width = [("layer", "units", "parameters"), ("input", str(n_in), "")], 0, n_in
    for layer in layers:
        shapes = layer.parameter_shapes(width)
        count = shapes[0][0] * shapes[0][1] + shapes[1] if shapes else 0
        total, width = total + count, layer.n_outputs(width)
        rows.append((describe(layer), str(width), f"{count:,}" if shapes else ""))
    rows.append(("total", "", f"{total:,}"))
    first, second, third = (max(len(row[i]) for row in rows) for i in range(3))
    lines = [f"{a:<{first}}  {b:>{second}}  {c:>{third}}".rstrip() for a, b, c in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def check_dtype(dtype: Any, backend: Backend) -> str:
    """Return the name of a dtype; raise ArgumentError unless the backend supports it."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    if name not in backend.float_dtypes:
        raise ArgumentError(
            f"dtype must be one of {', '.join(backend.float_dtypes)} on {backend.device}. "
            f"Received: dtype={name!r}. {_other_dtype(name, backend)}"
        )
    return str(name)


def _other_dtype(name: str, backend: Backend) -> str:
    if name == "float64":
        return f"{backend.device} has no float64. Use dtype='float32', or device='cpu'."
    return "Data in other dtypes is converted batch by batch."


def check_seed(seed: Any) -> int:
    """Return a seed as an int; raise ArgumentError unless it fits in 64 bits."""
    check(
        "seed",
        seed,
        lambda v: not isinstance(v, bool) and 0 <= operator.index(v) < 1 << 64,
        "a whole number from 0 to 2^64 - 1",
    )
    return operator.index(seed)
