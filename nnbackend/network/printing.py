"""Layers and networks as text."""

from __future__ import annotations

from collections.abc import Sequence

from nnbackend.backend import Backend
from nnbackend.network.activations import Activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import Loss


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


def describe_device(dtype: str, backend: Backend) -> str:
    """Return where a network computes, and in which dtypes.

    >>> from nnbackend.devices import get_backend
    >>> describe_device("float64", get_backend("numpy"))
    'float64 on numpy:0'
    """
    precision = backend.precision if dtype == "float32" else "float32"
    products = "" if precision == "float32" else f", products in {precision}"
    return f"{dtype} on {backend.device}{products}"
