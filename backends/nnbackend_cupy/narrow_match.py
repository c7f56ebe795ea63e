"""Select the steps that the kernel for narrow networks can run, by their calls.

Such a step reads a batch, runs dense layers of at most 128 units forward, a loss and the backward
pass, and updates all parameters. `match` refuses every other step with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnbackend.backend.formulas import Array
from nnbackend_cupy.narrow_source import DTYPE, MAX_ROWS, MAX_UNITS, Layer, Net, NotNarrow
from nnbackend_cupy.recorder import Call
from nnbackend_cupy.records import LABELS

Arguments = dict[str, Any]  # of a call, by name
# The calls of a step in their order.
ORDER = (
    "tick", "gather_rows", "scale_rows", "dense_forward", "loss_and_delta", "dense_backward",
    "add_penalty", "optimizer_step",
)  # fmt: skip
ONCE = ("tick", "loss_and_delta", "optimizer_step")


@dataclass(frozen=True)
class Step:
    """A supported step: the network, and the kernel's operands by name.

    operands: None for an array that the kernel does not read. Those that a run adds are missing.
    """

    net: Net
    operands: dict[str, Any]

    @property
    def rows(self) -> int:
        """The rows of the batch."""
        return int(self.operands["rows"])

    @property
    def work(self) -> int:
        """Multiplications of a forward pass."""
        return self.rows * sum(layer.n_in * layer.n_out for layer in self.net.layers)


def match(calls: Sequence[Call]) -> Step:
    """Return the step that calls describe. Raise NotNarrow with the reason if it is unsupported."""
    names = [call.name for call in calls]
    others = sorted(set(names) - set(ORDER))
    _require(not others, f"calls of {', '.join(others)}")
    parts: dict[str, list[Arguments]] = {name: [] for name in ORDER}
    for call in calls:
        parts[call.name].append(call.arguments)
    in_order = names == sorted(names, key=ORDER.index)
    _require(in_order and all(len(parts[name]) == 1 for name in ONCE), "another order of calls")
    forward, backward = parts["dense_forward"], parts["dense_backward"][::-1]
    _require(len(forward) == len(backward) > 0, "layers without a backward pass")
    (tick,), (loss_call,), (update,) = (parts[name] for name in ONCE)
    _check_chain(forward, loss_call, backward)
    _check_vectors(tick, update)
    layers = tuple(map(_layer, forward, backward, [update] * len(forward)))
    n_parameters = sum((layer.n_in + 1) * layer.n_out for layer in layers)
    _require(n_parameters == update["theta"].size, "parameters outside of the layers")
    rows = int(forward[0]["x"].shape[0])
    _require(0 < rows <= MAX_ROWS, f"{rows} rows, at most {MAX_ROWS}")
    operands = {
        **_batch(parts, loss_call, forward[0]["x"]),
        **_penalty(parts["add_penalty"], update, loss_call["totals"]),
        **{name: update[name] for name in ("theta", "gradient")},
        **{f"s{k}": vector for k, vector in enumerate(update["state"])},
        **{name: tick[name] for name in ("clock", "rates", "hyper")},
        "totals": loss_call["totals"],
        "decay": update["weight_decay"],
        "rows": rows,
    }
    net = _net(layers, loss_call["loss"], update, operands, bool(parts["add_penalty"]))
    return Step(net, operands)


def _net(
    layers: tuple[Layer, ...], loss: Any, update: Arguments, operands: Arguments, has_penalty: bool
) -> Net:
    return Net(
        layers,
        loss,
        update["rule"],
        len(update["state"]),
        data=operands["data"].dtype.name,
        targets=operands["targets"].dtype.name,
        has_order=operands["order"] is not None,
        is_scaled=operands["shift"] is not None,
        is_weighted=operands["weights"] is not None,
        has_penalty=has_penalty,
    )


def _check_chain(
    forward: Sequence[Arguments], loss_call: Arguments, backward: Sequence[Arguments]
) -> None:
    """Check that each layer reads what its neighbors write."""
    for k, (fwd, bwd) in enumerate(zip(forward, backward, strict=True)):
        n_out = fwd["W"].shape[1]
        _require(n_out <= MAX_UNITS, f"a layer of {n_out} units, at most {MAX_UNITS}")
        shared = all(_is_same(fwd[name], bwd[name]) for name in ("x", "W", "z", "a"))
        _require(shared and fwd["phi"] is bwd["phi"], "layers that change in the backward pass")
        if k:
            linked = _is_same(fwd["x"], forward[k - 1]["a"])
            linked = linked and _is_same(bwd["dx"], backward[k - 1]["delta"])
            _require(linked, "layers that do not follow each other")
    _require(backward[0]["dx"] is None, "a gradient at the inputs")
    linked = _is_same(loss_call["out"], forward[-1]["a"])
    linked = linked and _is_same(loss_call["delta"], backward[-1]["delta"])
    _require(linked, "a loss of another array than the output")


def _check_vectors(tick: Arguments, update: Arguments) -> None:
    vectors = (update["theta"], update["gradient"], *update["state"])
    dtype = vectors[0].dtype
    _require(all(v.dtype == DTYPE for v in vectors), f"parameters in {dtype}, not {DTYPE}")
    _require(all(v.flags.c_contiguous for v in vectors), "strided parameters")
    _require(_is_same(update["hyper"], tick["hyper"]), "two arrays of rates")


def _layer(fwd: Arguments, bwd: Arguments, update: Arguments) -> Layer:
    """Return a layer. Its parameters and gradients must be views of the optimizer's vectors."""
    W, b = _offset(fwd["W"], update["theta"]), _offset(fwd["b"], update["theta"])
    dW, db = _offset(bwd["dW"], update["gradient"]), _offset(bwd["db"], update["gradient"])
    (n_in, n_out), n_weights = fwd["W"].shape, update["n_weights"]
    same_shapes = bwd["dW"].shape == (n_in, n_out) and bwd["db"].shape == fwd["b"].shape == (n_out,)
    _require(
        same_shapes and (W, b) == (dW, db), "gradients with another layout than the parameters"
    )
    _require(W + n_in * n_out <= n_weights <= b, "biases among the weights")
    keeps_z = not _is_same(fwd["z"], fwd["a"])
    return Layer(int(n_in), int(n_out), W, b, fwd["phi"], keeps_z)


def _offset(mine: Array, vector: Array) -> int:
    """Return the offset of a view in a vector, in elements."""
    place = int(mine.data.ptr - vector.data.ptr) // int(vector.itemsize)
    is_inside = place >= 0 and place + mine.size <= vector.size and mine.flags.c_contiguous
    _require(is_inside, "parameters outside of the optimizer's vector")
    return place


def _batch(parts: dict[str, list[Arguments]], loss_call: Arguments, x: Array) -> Arguments:
    """Return the operands of the rows: whole arrays and the row indices, or the batch itself."""
    y, weight = loss_call["y"], loss_call["weight"]
    is_known = y.dtype == DTYPE if y.ndim == 2 else y.dtype.name in LABELS
    _require(is_known, f"targets of {y.dtype}")
    gathers, scales = parts["gather_rows"], parts["scale_rows"]
    scale = _scale(scales, x)
    raw = scales[0]["rows"] if scales else x
    wanted = [raw, y, *([] if weight is None else [weight])]
    if not gathers:
        is_plain = all(array.flags.c_contiguous for array in wanted)
        _require(is_plain and not scales, "a batch that the step modifies in place")
        rows = {"data": x, "targets": y, "weights": weight, "order": None, "batch_size": 0}
        return rows | scale
    outs = [gather["out"] for gather in gathers]
    is_whole = len(outs) == len(wanted) and all(map(_is_same, outs, wanted))
    _require(is_whole, "gathered rows that are not the batch")
    of_x, *rest = gathers
    same = all(gather["data"].dtype == gather["out"].dtype for gather in rest)
    same = same and (raw is x or of_x["data"].dtype == raw.dtype)
    _require(same and of_x["data"].ndim == x.ndim, "rows that are converted")
    shared = all(
        _is_same(gather[name], of_x[name]) for gather in rest for name in ("order", "clock")
    )
    sizes = {int(gather["batch_size"]) for gather in gathers}
    is_one = shared and len(sizes) == 1 and _is_same(of_x["clock"], parts["tick"][0]["clock"])
    _require(is_one and of_x["data"].shape[0] < 2**31, "rows in several orders")
    arrays = [gather["data"] for gather in gathers] + [None]
    rows = dict(zip(("data", "targets", "weights"), arrays, strict=False))
    return {**rows, "order": of_x["order"], "batch_size": sizes.pop(), **scale}


def _scale(scales: Sequence[Arguments], x: Array) -> Arguments:
    if not scales:
        return {"shift": None, "factor": None, "clip": 0.0}
    (scale, *more) = scales
    known = not more and _is_same(scale["out"], x)
    known = known and all(scale[name].dtype == "float64" for name in ("shift", "factor"))
    _require(known, "another scaling of the inputs")
    return {"shift": scale["shift"], "factor": scale["factor"], "clip": scale["clip"] or 0.0}


def _penalty(penalties: Sequence[Arguments], update: Arguments, totals: Array) -> Arguments:
    if not penalties:
        return {"l1": 0.0, "l2": 0.0, "penalty_rows": 0.0}
    (penalty, *more) = penalties
    n_weights = update["n_weights"]
    known = not more and penalty["weights"].size == penalty["gradient"].size == n_weights
    known = known and _offset(penalty["weights"], update["theta"]) == 0
    known = known and _offset(penalty["gradient"], update["gradient"]) == 0
    _require(known and _is_same(penalty["totals"], totals), "a penalty on other weights")
    return {"l1": penalty["l1"], "l2": penalty["l2"], "penalty_rows": penalty["rows"]}


def _is_same(a: Any, b: Any) -> bool:
    """Return True if two arrays have the same address, shape and dtype."""
    if a is None or b is None:
        return a is b
    return bool(a.data.ptr == b.data.ptr and a.shape == b.shape and a.dtype == b.dtype)


def _require(is_good: Any, otherwise: str) -> None:
    if not is_good:
        raise NotNarrow(f"the step has {otherwise}")
