"""Merging of an ensemble into one ONNX model, whose output is the mean of its members."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.persistence.onnx_graph import LARGEST


def mean_bytes(members: Sequence[bytes]) -> bytes:
    """Return an ONNX model that computes the mean of several models with the same inputs.

    Raises: ArgumentError when they are too large for one file.
    """
    size = sum(map(len, members))
    if size > LARGEST:
        raise ArgumentError(
            f"An ONNX file holds at most 2 GB. Received: {len(members)} members of "
            f"{size / 1e9:.1f} GB in total. Export each member: for member in model.to_models()."
        )
    onnx: Any = importlib.import_module("onnx")
    first, *others = [onnx.ModelProto.FromString(member) for member in members]
    graph, inputs = first.graph, {entry.name for entry in first.graph.input}
    output = graph.output[0].name
    for index, model in enumerate((first, *others)):
        _rename(model.graph, inputs, f"member{index}.")
    for model in others:
        graph.node.extend(model.graph.node)
        graph.initializer.extend(model.graph.initializer)
    outputs = [f"member{index}.{output}" for index in range(len(members))]
    # Not "Mean", which onnxruntime has in float32 alone.
    kind = graph.output[0].type.tensor_type.elem_type
    count = onnx.helper.make_tensor("count", kind, [], [len(members)])
    graph.initializer.append(count)
    graph.node.append(onnx.helper.make_node("Sum", outputs, ["sum"]))
    graph.node.append(onnx.helper.make_node("Div", ["sum", "count"], [output]))
    onnx.checker.check_model(first, full_check=True)
    content: bytes = first.SerializeToString(deterministic=True)
    return content


def _rename(graph: Any, inputs: set[str], prefix: str) -> None:
    """Add a prefix to all names in a graph except its inputs."""
    for node in graph.node:
        node.input[:] = [n if n in inputs or not n else prefix + n for n in node.input]
        node.output[:] = [prefix + name for name in node.output]
        node.name = prefix + node.name if node.name else ""
    for constant in graph.initializer:
        constant.name = prefix + constant.name
    del graph.value_info[:]  # shapes by the old names; the checker infers them again
