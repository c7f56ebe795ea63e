"""A network as an ONNX graph, in the operators that every runtime has.

Operator set 17 of 2022: what came later, as Gelu and Mish, is put together from older operators.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import (
    ACTIVATIONS,
    GELU_CUBIC,
    GELU_SCALE,
    SELU_ALPHA,
    SELU_SCALE,
    Activation,
)
from nnbackend.network.layers import Dense, Dropout, Maxout
from nnbackend.network.network import Network
from nnbackend.persistence.description import describe_layer

OPSET, IR_VERSION = 17, 8
LARGEST = 2**31 - 1  # bytes of one message of protobuf


class Graph:
    """Nodes and constants of a graph under way."""

    def __init__(self, helper: Any, numpy_helper: Any) -> None:
        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: str = "float32") -> str:
        """Enter a constant; give its name."""
        name = f"c{len(self.constants)}"
        array = np.ascontiguousarray(values, dtype).reshape(np.shape(values))
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Enter a node; give the name of its output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, list(inputs), [name], **attributes))
        return name


def onnx_bytes(net: Network) -> bytes:
    """Give a network as an ONNX model, checked.

    Raises: ArgumentError when onnx is not installed, or the network has no such form.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise ArgumentError(
            "ONNX files need the package onnx. Received: it is not installed. "
            'Install it with: pip install "nnbackend[onnx]"'
        ) from error
    size = 4 * net.n_parameters
    if size > LARGEST - 1_000_000:
        raise ArgumentError(
            f"An ONNX file holds at most 2 GB of weights. Received: {size / 1e9:.1f} GB. Use .npz."
        )
    helper = onnx.helper
    graph = Graph(helper, onnx.numpy_helper)
    _network(net, graph)
    graph.nodes[-1].output[0] = "y"
    float32 = onnx.TensorProto.FLOAT
    made = helper.make_graph(
        graph.nodes, "nnbackend",
        [helper.make_tensor_value_info("x", float32, ["n", net.n_in])],
        [helper.make_tensor_value_info("y", float32, ["n", net.n_out])],
        graph.constants,
    )  # fmt: skip
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="nnbackend",
    )  # fmt: skip
    if net.classes is not None:
        helper.set_model_props(model, {"classes": json.dumps(list(net.classes))})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _network(net: Network, graph: Graph) -> None:
    """Enter everything from raw rows to predicted values, which the last node gives."""
    a = "x" if net.scaler is None else _scaled("x", net.scaler, graph)
    parameters = zip(*net.get_parameters(), strict=True)
    for layer in net.layers:
        describe_layer(layer)  # refuses what is not ours
        if isinstance(layer, Dropout):  # is nothing outside training
            continue
        W, b = next(parameters)
        a = graph.add("Gemm", a, graph.constant(W), graph.constant(b))
        if isinstance(layer, Dense):
            a = activate(a, layer.activation, graph)
        elif isinstance(layer, Maxout):
            shape = graph.constant([-1, layer.n_pieces, layer.n_out], "int64")
            a = graph.add("ReduceMax", graph.add("Reshape", a, shape), axes=[1], keepdims=0)
    if net.target_scaler is not None:
        ones = np.ones((1, net.n_out))
        shift = net.target_scaler.inverse(0.0 * ones)
        a = graph.add("Mul", a, graph.constant(net.target_scaler.inverse(ones) - shift))
        a = graph.add("Add", a, graph.constant(shift))


def _scaled(x: str, scaler: Scaler, graph: Graph) -> str:
    factor = np.minimum(scaler.factor, np.finfo("float32").max)
    t = graph.add("Mul", graph.add("Sub", x, graph.constant(scaler.shift)), graph.constant(factor))
    if scaler.clip is None:
        return t
    share = graph.add("Mul", t, graph.constant(1.0 / scaler.clip))
    square = graph.add("Mul", share, share)
    root = graph.add("Sqrt", graph.add("Add", square, graph.constant(1.0)))
    return graph.add("Div", t, root)


def activate(z: str, phi: Activation, graph: Graph) -> str:
    """Enter an activation of z; give the name of a.

    Raises: ArgumentError for one of the user's own, which is code.
    """
    known = phi.name in ACTIVATIONS and ACTIVATIONS[phi.name](*phi.params) == phi
    if not known or phi.kernel is None:
        raise ArgumentError(
            "Only activations of nnbackend can be written as ONNX. "
            f"Received: {phi!r}. Use one of {', '.join(OPERATORS)}."
        )
    return OPERATORS[phi.name](z, phi.params, graph)


def _plain(operator: str, *names: str, **fixed: float) -> Callable[..., str]:
    """Give a function that enters one operator, whose attributes are the activation's numbers."""

    def enter(z: str, params: tuple[float, ...], graph: Graph) -> str:
        return graph.add(operator, z, **dict(zip(names, map(float, params), strict=True)), **fixed)

    return enter


def _identity(z: str, params: tuple[float, ...], graph: Graph) -> str:
    return graph.add("Identity", z)


def _step(z: str, params: tuple[float, ...], graph: Graph) -> str:
    above = graph.add("Greater", z, graph.constant(0.0))
    return graph.add("Cast", above, to=1)  # to float32


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
