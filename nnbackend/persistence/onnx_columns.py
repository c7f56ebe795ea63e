"""ONNX models that take the raw, named columns of a table and return labels.

The nodes here stand in front of the graph of features and behind it. Cells of text, such as levels,
are looked up by their exact text, as ONNX has no functions of text: blanks around them, other
spellings of gaps and free text are the client's part, and are described in the metadata.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nnbackend.data.coding import ColumnCoding
from nnbackend.data.columns import (
    YES_OR_NO,
    CategoryColumn,
    CodedColumn,
    DateColumn,
    FilledColumn,
    NumberColumn,
    YesNoColumn,
    places_of,
)
from nnbackend.data.dates import DAYS_OF_YEAR
from nnbackend.data.many_levels import ManyLevelsColumn
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.tables import MISSING, NA, unique_names
from nnbackend.errors import ArgumentError
from nnbackend.machine import versions
from nnbackend.network.layers import Dense
from nnbackend.network.network import Network
from nnbackend.persistence.onnx_graph import DOUBLE, FLOAT, OPSET, Graph, onnx_bytes, producer

ML, ML_OPSET = "ai.onnx.ml", 3  # operators of classical models: lookup of text
INT64, STRING = 7, 8  # of onnx.TensorProto
INNER = "nnbackend/"  # begins the names inside the graph, which differ from those of columns
NEITHER = -1.0  # a cell that is neither yes nor no
DAYS = "days since 1970-01-01, with fractions for times"
INFO = {
    "number": ("a number; NaN: no value", ""),
    "date": (f"{DAYS}; NaN: no value", DAYS),
}
TEXT = "text without blanks around it, whole numbers without a decimal point; empty: no value"


def raw_onnx_bytes(net: Network, known: Preprocessing) -> bytes:
    """Return a model fitted to a table as a validated ONNX model with an input for each column.

    Inputs (n, 1): numbers; dates as days since 1970-01-01; text for categories, yes and no.
    Outputs: "label" (n,) and "probabilities" (n, n_classes) of a classifier, else "value"
    (n, n_out). The metadata `columns`, `outputs`, `classes` and `versions` are JSON.

    Raises: ArgumentError for a model that was not fitted to a table, columns of free text, and as
    `onnx_bytes`.
    """
    coding = _coding(known)
    content = onnx_bytes(net, known)
    onnx: Any = importlib.import_module("onnx")
    features = onnx.ModelProto.FromString(content)
    inner, is_wide = features.graph, features.graph.input[0].type.tensor_type.elem_type == DOUBLE
    _rename(inner)
    front = Graph(onnx.helper, onnx.numpy_helper, f"{INNER}columns/")
    parts = [_features(column, front, DOUBLE if is_wide else FLOAT) for column in coding.used]
    front.nodes.append(onnx.helper.make_node("Concat", parts, [f"{INNER}x"], axis=1))
    back = Graph(onnx.helper, onnx.numpy_helper, f"{INNER}answer/")
    outputs = _answers(net, known, back, inner.output[0].type.tensor_type.elem_type)
    names = unique_names([*(column.name for column in coding.used), *outputs])[len(coding.used) :]
    for name, (source, _, _) in zip(names, outputs.values(), strict=True):
        back.nodes.append(onnx.helper.make_node("Identity", [source], [name]))
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [*front.nodes, *inner.node, *back.nodes], "nnbackend",
        [info(c.name, _type(c, is_wide), ["n", 1], _meaning(c)) for c in coding.used],
        [info(name, kind, shape) for name, (_, kind, shape) in
         zip(names, outputs.values(), strict=True)],
        [*front.constants, *inner.initializer, *back.constants],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(ML, ML_OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, **producer())
    facts = {
        "columns": [_description(column, is_wide) for column in coding.used],
        "outputs": dict(zip(outputs, names, strict=True)),
        "target": coding.target,
        "versions": {k: v for k, v in versions("onnx").items() if k in ("nnbackend", "onnx")},
        **({} if known.classes is None else {"classes": list(known.classes)}),
    }
    onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _coding(known: Preprocessing) -> ColumnCoding:
    """Return the columns of a model. Raise ArgumentError if there are none or ONNX lacks one."""
    if known.columns is None:
        raise ArgumentError(
            "raw needs a model that was fitted to a table with named columns. Received: a model "
            "that was fitted to an array. Export it without raw; its input is x."
        )
    coding = ColumnCoding.from_dict(known.columns)
    wrong = [c.name for c in coding.used if not isinstance(c, FilledColumn | CategoryColumn)]
    if wrong:
        raise ArgumentError(
            "raw needs columns of numbers, categories, dates, or yes and no: ONNX cannot hash "
            f"text. Received: columns of text {', '.join(map(repr, wrong))}. Export without raw, "
            "or train with --ignore."
        )
    return coding


def _rename(graph: Any) -> None:
    """Add the prefix to all names in a graph."""
    for node in graph.node:
        node.input[:] = [INNER + name if name else name for name in node.input]
        node.output[:] = [INNER + name for name in node.output]
    for constant in graph.initializer:
        constant.name = INNER + constant.name


# ---- columns ------------------------------------------------------------------------------------


def _type(column: CodedColumn, is_wide: bool) -> int:
    """Return the type of a column's input. Dates are double: float has steps of minutes."""
    if isinstance(column, NumberColumn):
        return DOUBLE if is_wide else FLOAT
    return DOUBLE if isinstance(column, DateColumn) else STRING


def _meaning(column: CodedColumn) -> str:
    """Return the documentation of a column's input."""
    return f"{column.kind}: {INFO.get(column.kind, (TEXT, ''))[0]}"


def _description(column: CodedColumn, is_wide: bool) -> dict[str, Any]:
    """Return what a client must know of a column."""
    kinds = {FLOAT: "float", DOUBLE: "double", STRING: "string"}
    facts = {
        "name": column.name, "kind": column.kind, "type": kinds[_type(column, is_wide)],
        "meaning": _meaning(column),
    }  # fmt: skip
    if isinstance(column, ManyLevelsColumn):
        return {**facts, "n_levels": len(column.known)}
    return {**facts, "levels": column.levels} if isinstance(column, CategoryColumn) else facts


def _features(column: CodedColumn, graph: Graph, kind: int) -> str:
    """Add the features of a column (n, n_features), and return their name."""
    if isinstance(column, CategoryColumn):
        parts = _category(column, graph, kind)
    elif isinstance(column, DateColumn):
        parts = _date(column, graph)
    else:
        assert isinstance(column, NumberColumn | YesNoColumn)
        parts = _value(column, graph, kind)
    same = [graph.add("Cast", part, to=kind) for part in parts]
    return same[0] if len(same) == 1 else graph.add("Concat", *same, axis=1)


def _value(column: NumberColumn | YesNoColumn, graph: Graph, kind: int) -> list[str]:
    """Add a number, or yes as 1 and no as 0, and the mark of a gap."""
    x, dtype = column.name, "float64" if kind == DOUBLE else "float32"
    if isinstance(column, YesNoColumn):
        dtype = "float32"
        words = {spelled: v for word, v in YES_OR_NO.items() for spelled in _spellings(word)}
        x = _lookup(column.name, words, NEITHER, graph)
        unknown = graph.add("Less", x, graph.constant(0.0))
    else:
        unknown = graph.add("IsNaN", x)
    filled = graph.add("Where", unknown, graph.constant([[column.fill]], dtype), x)
    return [filled, *[unknown] * column.has_gaps]


def _date(column: DateColumn, graph: Graph) -> list[str]:
    """Add the days since the latest training date, cyclic features and the mark of a gap."""

    def constant(value: float) -> str:
        return graph.constant([[value]], "float64")

    unknown = graph.add("IsNaN", column.name)
    days = graph.add("Where", unknown, constant(column.fill), column.name)
    parts = [graph.add("Sub", days, constant(column.last))]
    for period in (DAYS_OF_YEAR, 7.0, 1.0)[: 2 + column.has_time]:
        cycles = graph.add("Div", days, constant(period))
        share = graph.add("Sub", cycles, graph.add("Floor", cycles))
        angle = graph.add("Cast", graph.add("Mul", share, constant(2.0 * np.pi)), to=FLOAT)
        for function in ("Sin", "Cos"):
            zero = graph.constant([[0.0]])
            parts.append(graph.add("Where", unknown, zero, graph.add(function, angle)))
    return [*parts, *[unknown] * column.has_gaps]


def _category(column: CategoryColumn, graph: Graph, kind: int) -> list[str]:
    """Add a feature for each level, and the mean targets of many levels."""
    n, width = len(column.levels), len(column.levels) + column.has_other + column.has_gaps
    other = n if column.has_other else width  # codes of this size: none of the features
    gap = n + column.has_other if column.has_gaps else width
    gaps = dict.fromkeys(_gaps(column), gap)
    places = gaps | places_of(column.levels)
    parts = []
    if width:
        codes = _lookup(column.name, places, other, graph)
        every = graph.constant(np.arange(width)[None], "int64")
        parts.append(graph.add("Equal", codes, every))
    if isinstance(column, ManyLevelsColumn):
        means = np.array([*column.means, *column.prior]).reshape(-1, len(column.prior))
        codes = _lookup(column.name, places_of(column.known), len(column.known), graph)
        flat = graph.add("Reshape", codes, graph.constant([-1], "int64"))
        table = graph.constant(means, "float64" if kind == DOUBLE else "float32")
        parts.append(graph.add("Gather", table, flat))
    return parts


def _gaps(column: CategoryColumn) -> Iterable[str]:
    """Return the texts that mean no value, of which levels of the column are none."""
    spelled = {s for marker in MISSING for s in (*_spellings(marker), "NaN")}
    return sorted(spelled - ({NA} if column.knows(NA) else set()))


def _spellings(word: str) -> tuple[str, ...]:
    return word, word.upper(), word.capitalize()


def _lookup(x: str, places: dict[str, Any], default: float, graph: Graph) -> str:
    """Add the lookup of text in a table: whole numbers or float32, as the default is."""
    kind = "float" if isinstance(default, float) else "int64"
    if not places:  # a table must have an entry
        places = {"": default}
    values = {f"values_{kind}s": list(places.values()), f"default_{kind}": default}
    return graph.add("LabelEncoder", x, domain=ML, keys_strings=list(places), **values)


# ---- outputs ------------------------------------------------------------------------------------

Outputs = dict[str, tuple[str, int, list[Any]]]  # name -> (value in the graph, type, shape)


def _answers(net: Network, known: Preprocessing, graph: Graph, kind: int) -> Outputs:
    """Add labels and probabilities for the outputs of the network; values of a regression."""
    y, n_out = f"{INNER}y", net.n_out
    is_yes_or_no = net.loss.name == "binary_cross_entropy"
    is_classifier = net.loss.name == "cross_entropy" or known.classes is not None
    if not is_classifier and not is_yes_or_no:
        return {"value": (y, kind, ["n", n_out])}
    last = net.layers[-1]
    has_shares = isinstance(last, Dense) and last.activation.name in ("softmax", "sigmoid")
    dtype = "float64" if kind == DOUBLE else "float32"
    if n_out > 1 and is_yes_or_no:
        above = graph.add("Greater", y, graph.constant(0.5, dtype))
        codes, shape = graph.add("Cast", above, to=INT64), ["n", n_out]
        return {"label": (codes, INT64, shape), "probabilities": (y, kind, shape)}
    if n_out == 1:  # the share of the second class
        y = graph.add("Concat", graph.add("Sub", graph.constant(1.0, dtype), y), y, axis=1)
    if known.threshold is None:
        code = graph.add("ArgMax", y, axis=1, keepdims=0)
    else:
        second = graph.add("Gather", y, graph.constant(1, "int64"), axis=1)
        above = graph.add("Greater", second, graph.constant(known.threshold, dtype))
        code = graph.add("Cast", above, to=INT64)
    label, label_kind = _labels(code, known.classes, graph)
    name = "probabilities" if has_shares else "scores"
    return {"label": (label, label_kind, ["n"]), name: (y, kind, ["n", max(n_out, 2)])}


def _labels(code: str, classes: Sequence[Any] | None, graph: Graph) -> tuple[str, int]:
    """Add the labels of class codes: numbers, or text for other labels."""
    if classes is None:
        return code, INT64
    types = {type(label) for label in classes}
    if types == {int}:
        table, kind = graph.constant(classes, "int64"), INT64
    elif types == {float}:
        table, kind = graph.constant(classes, "float64"), DOUBLE
    else:
        table, kind = f"{INNER}classes", STRING
        texts = [str(label).encode() for label in classes]
        graph.constants.append(graph.helper.make_tensor(table, STRING, [len(texts)], texts))
    return graph.add("Gather", table, code), kind
