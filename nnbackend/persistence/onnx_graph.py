"""Conversion of a network to an ONNX graph with widely supported operators.

Operator set 17 of 2022: later operators, such as Gelu and Mish, are composed of older ones.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from nnbackend.backend.base import FAR
from nnbackend.data.coding import ColumnCoding
from nnbackend.data.piecewise import CLIP, PiecewiseEncoder
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError
from nnbackend.machine import versions
from nnbackend.network.activations import (
    ACTIVATIONS,
    GELU_CUBIC,
    GELU_SCALE,
    SELU_ALPHA,
    SELU_SCALE,
    Activation,
)
from nnbackend.network.layers import IDENTITY, Dense, Dropout, Maxout
from nnbackend.network.network import Network
from nnbackend.persistence.description import describe_layer

OPSET, IR_VERSION = 17, 8
LARGEST = 2**31 - 1  # bytes of one protobuf message
FLOAT, DOUBLE = 1, 11  # of onnx.TensorProto
# Largest allowed change of a scaled value by rounding raw values to float32.
MOST_ROUNDING = 1e-4


def producer() -> dict[str, Any]:
    """Return what a model says of its format and of the program that wrote it."""
    version = versions()["nnbackend"]
    return {
        "ir_version": IR_VERSION, "producer_name": "nnbackend", "producer_version": version,
    }  # fmt: skip


class Graph:
    """Nodes and constants of a graph under construction. prefix: begins their names."""

    def __init__(self, helper: Any, numpy_helper: Any, prefix: str = "") -> None:
        self.helper, self.numpy_helper, self.prefix = helper, numpy_helper, prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: str = "float32") -> str:
        """Add a constant and return its name."""
        name = f"{self.prefix}c{len(self.constants)}"
        array = np.ascontiguousarray(values, dtype).reshape(np.shape(values))
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{self.prefix}t{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, list(inputs), [name], **attributes))
        return name


def onnx_bytes(net: Network, known: Preprocessing) -> bytes:
    """Return a network and its preprocessing as a validated ONNX model.

    Raises: ArgumentError when onnx is not installed, or the network cannot be converted.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise ArgumentError(
            "ONNX files need the package onnx. Received: it is not installed. "
            'Install it with: pip install "nnbackend[onnx]"'
        ) from error
    helper = onnx.helper
    graph = Graph(helper, onnx.numpy_helper)
    _network(net, known, graph)
    size = sum(len(constant.raw_data) for constant in graph.constants)
    if size > LARGEST - 1_000_000:
        raise ArgumentError(
            f"An ONNX file holds at most 2 GB of weights. Received: {size / 1e9:.1f} GB. Use .npz."
        )
    graph.nodes[-1].output[0] = "y"
    n_in = net.n_in if known.encoder is None else known.encoder.n_columns
    made = helper.make_graph(
        graph.nodes, "nnbackend",
        [helper.make_tensor_value_info("x", _type(_has_wide_input(net, known)), ["n", n_in])],
        [helper.make_tensor_value_info("y", _type(_has_wide_output(net, known)), ["n", net.n_out])],
        graph.constants,
    )  # fmt: skip
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], **producer(),
    )  # fmt: skip
    if names := _metadata(known):
        helper.set_model_props(model, names)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _network(net: Network, known: Preprocessing, graph: Graph) -> None:
    """Add all nodes from raw rows to predictions, the output of the last node."""
    a, is_wide = "x", False  # is_wide: a is float64
    if known.encoder is not None:
        a = _encoded("x", known.encoder, graph)
    elif known.scaler is not None:
        a = _scaled("x", known.scaler, graph)
    else:
        is_wide = net.dtype == "float64"
    ends_wide = known.target_scaler is None and _has_wide_output(net, known)
    parameters = zip(*net.get_parameters(), strict=True)
    for place, layer in enumerate(net.layers, start=1):
        describe_layer(layer)  # raises for custom layers
        if isinstance(layer, Dropout):  # the identity outside training
            continue
        W, b = next(parameters)
        is_last = place == len(net.layers)
        if is_last and ends_wide and not is_wide:
            a, is_wide = graph.add("Cast", a, to=DOUBLE), True
        dtype = "float64" if is_wide else "float32"
        a = graph.add("Gemm", a, graph.constant(W, dtype), graph.constant(b, dtype))
        if is_wide and not (is_last and ends_wide):
            a, is_wide = graph.add("Cast", a, to=FLOAT), False
        if isinstance(layer, Dense):
            a = a if is_wide else activate(a, layer.activation, graph)  # identity where wide
        elif isinstance(layer, Maxout):
            shape = graph.constant([-1, layer.n_pieces, layer.n_out], "int64")
            a = graph.add("ReduceMax", graph.add("Reshape", a, shape), axes=[1], keepdims=0)
    if known.target_scaler is not None:
        _unscaled(a, known.target_scaler, net.n_out, graph)


def _metadata(known: Preprocessing) -> dict[str, str]:
    """Return the names of inputs and outputs as JSON lists."""
    names = {} if known.classes is None else {"classes": json.dumps(list(known.classes))}
    if known.columns is not None:
        features = ColumnCoding.from_dict(known.columns).feature_names
        names["feature_names"] = json.dumps(list(features))
    return names


def needs_float64(scaler: Scaler | PiecewiseEncoder | None) -> bool:
    """Return True if rounding raw values to float32 would change the scaled values noticeably."""
    if scaler is None:
        return False
    rounding = np.abs(scaler.shift) * scaler.factor * np.finfo(np.float32).epsneg
    return bool((rounding > MOST_ROUNDING).any())


def _has_wide_input(net: Network, known: Preprocessing) -> bool:
    """Return True if x is float64: unscaled rows of a float64 network may need all digits."""
    first = known.encoder or known.scaler
    return net.dtype == "float64" if first is None else needs_float64(first)


def _has_wide_output(net: Network, known: Preprocessing) -> bool:
    """Return True if y is float64: unscaled values of a float64 network may need all digits."""
    last = net.layers[-1]
    is_value = isinstance(last, Dense) and last.activation == IDENTITY
    is_unscaled = known.target_scaler is None and net.dtype == "float64"
    return (is_value and is_unscaled) or needs_float64(known.target_scaler)


def _type(is_wide: bool) -> int:
    return DOUBLE if is_wide else FLOAT


def _scaled(x: str, scaler: Scaler, graph: Graph) -> str:
    """Add t = (x - shift) * factor and the smooth clip; the result is float32."""
    is_wide = needs_float64(scaler)
    t = _shifted(x, scaler, graph)
    if scaler.clip is not None:
        t = _clipped(t, scaler.clip, is_wide, graph)
    return graph.add("Cast", t, to=FLOAT) if is_wide else t


def _encoded(x: str, encoder: PiecewiseEncoder, graph: Graph) -> str:
    """Add the features of the encoder; the result is float32."""
    is_wide = needs_float64(encoder)
    dtype = "float64" if is_wide else "float32"
    x = graph.add("Gather", x, graph.constant(encoder.column, "int64"), axis=1)
    t = _shifted(x, encoder, graph)
    first_bin, parts = encoder.n_features - encoder.n_bins, list[str]()
    bounds = (0, encoder.n_smooth, first_bin, encoder.n_features)
    for place, (start, stop) in enumerate(pairwise(bounds)):
        if start == stop:
            continue
        ends = (graph.constant([end], "int64") for end in (start, stop, 1))
        part = graph.add("Slice", t, *ends)
        if place == 0:
            part = _clipped(part, CLIP, is_wide, graph)
        elif place == 2:
            limits = (graph.constant(limit, dtype) for limit in (0.0, 1.0))
            part = graph.add("Clip", part, *limits)
            part = graph.add("Mul", part, graph.constant(encoder.size, dtype))
        parts.append(part)
    t = graph.add("Concat", *parts, axis=1)
    return graph.add("Cast", t, to=FLOAT) if is_wide else t


def _shifted(x: str, scaler: Scaler | PiecewiseEncoder, graph: Graph) -> str:
    """Add (x - shift) * factor. In float32 the shift is subtracted in two parts.

    Their sum has its full precision.
    """
    dtype = "float64" if needs_float64(scaler) else "float32"
    first = scaler.shift.astype(dtype)
    rest = (scaler.shift - first).astype(dtype)
    t = graph.add("Sub", x, graph.constant(first, dtype))
    if rest.any():
        t = graph.add("Sub", t, graph.constant(rest, dtype))
    factor = np.minimum(scaler.factor, np.finfo(dtype).max)
    return graph.add("Mul", t, graph.constant(factor, dtype))


def _clipped(t: str, clip: float, is_wide: bool, graph: Graph) -> str:
    """Add the smooth clip t / sqrt(1 + (t / clip)^2)."""

    def constant(value: float) -> str:
        return graph.constant(value, "float64" if is_wide else "float32")

    share = graph.add("Mul", t, constant(1.0 / clip))
    share = graph.add("Clip", share, constant(-FAR), constant(FAR))
    square = graph.add("Mul", share, share)
    root = graph.add("Sqrt", graph.add("Add", square, constant(1.0)))
    return graph.add("Mul", graph.add("Div", share, root), constant(clip))


def _unscaled(a: str, scaler: Scaler, n_out: int, graph: Graph) -> str:
    """Add the inverse scaling of outputs a, in float64 if float32 lacks the digits."""
    dtype = "float64" if needs_float64(scaler) else "float32"
    ones = np.ones((1, n_out))
    shift = scaler.inverse(0.0 * ones)
    if dtype == "float64":
        a = graph.add("Cast", a, to=DOUBLE)
    a = graph.add("Mul", a, graph.constant(scaler.inverse(ones) - shift, dtype))
    return graph.add("Add", a, graph.constant(shift, dtype))


def activate(z: str, phi: Activation, graph: Graph) -> str:
    """Add an activation of z and return the name of a.

    Raises: ArgumentError for a custom activation, which is Python code.
    """
    known = phi.name in ACTIVATIONS and ACTIVATIONS[phi.name](*phi.params) == phi
    if not known or phi.kernel is None:
        raise ArgumentError(
            "Only activations of nnbackend can be exported to ONNX. "
            f"Received: {phi!r}. Use one of {', '.join(OPERATORS)}."
        )
    return OPERATORS[phi.name](z, phi.params, graph)


def _plain(operator: str, *names: str, **fixed: float) -> Callable[..., str]:
    """Return a function that adds one operator, with the activation's parameters as attributes."""

    def add(z: str, params: tuple[float, ...], graph: Graph) -> str:
        return graph.add(operator, z, **dict(zip(names, map(float, params), strict=True)), **fixed)

    return add


def _identity(z: str, params: tuple[float, ...], graph: Graph) -> str:
    return graph.add("Identity", z)


def _step(z: str, params: tuple[float, ...], graph: Graph) -> str:
    above = graph.add("Greater", z, graph.constant(0.0))
    return graph.add("Cast", above, to=FLOAT)


def _silu(z: str, params: tuple[float, ...], graph: Graph) -> str:
    return graph.add("Mul", z, graph.add("Sigmoid", z))


def _mish(z: str, params: tuple[float, ...], graph: Graph) -> str:
    return graph.add("Mul", z, graph.add("Tanh", graph.add("Softplus", z)))


def _gelu(z: str, params: tuple[float, ...], graph: Graph) -> str:
    cube = graph.add("Mul", graph.add("Mul", z, z), z)
    inner = graph.add("Add", z, graph.add("Mul", cube, graph.constant(GELU_CUBIC)))
    t = graph.add("Tanh", graph.add("Mul", inner, graph.constant(GELU_SCALE)))
    half = graph.add("Mul", z, graph.constant(0.5))
    return graph.add("Mul", half, graph.add("Add", t, graph.constant(1.0)))


OPERATORS: dict[str, Callable[..., str]] = {
    "identity": _identity,
    "step": _step,
    "relu": _plain("Relu"),
    "leaky_relu": _plain("LeakyRelu", "alpha"),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "exponential": _plain("Exp"),
    "elu": _plain("Elu", "alpha"),
    "selu": _plain("Selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "softplus": _plain("Softplus"),
    "silu": _silu,
    "gelu": _gelu,
    "mish": _mish,
    "softmax": _plain("Softmax"),
}
