"""Steps of narrow networks in one kernel: which steps these are, and how it is launched.

A step that reads a batch, feeds it through dense layers of at most 128 units, and updates all
parameters is made by kernels/narrow.cu, n times in one launch. Every other step is refused, with
the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_cupy import sources
from nnbackend_cupy.launching import LABELS, Launch, _row_stride
from nnbackend_cupy.narrow_source import (
    BLOCK,
    CLUSTER,
    DTYPE,
    GRID,
    MOST_ROWS,
    MOST_UNITS,
    Grid,
    Layer,
    Net,
    NotNarrow,
    source,
)
from nnbackend_cupy.recorder import Call
from nnbackend_cupy.tracing import Untraceable

CLUSTER_BLOCKS = 8  # as many as every device with clusters grants
CLUSTERS_FROM = 90  # compute capability
# Multiplications of a forward pass up to which fewer blocks wait for each other less than they
# have to compute: by calculation, until a GPU has been asked.
MOST_FOR_BLOCK, MOST_FOR_CLUSTER = 16 << 10, 512 << 10


@dataclass(frozen=True)
class Device:
    """What the choice of a grid depends on."""

    multiprocessors: int
    capability: int  # as 90


def choose_grid(work: int, device: Device) -> Grid:
    """Return the grid for a step of so many multiplications forward."""
    if work <= MOST_FOR_BLOCK:
        return Grid(BLOCK, 1)
    if work <= MOST_FOR_CLUSTER and device.capability >= CLUSTERS_FROM:
        return Grid(CLUSTER, CLUSTER_BLOCKS)
    return Grid(GRID, device.multiprocessors)


@dataclass(frozen=True)
class Step:
    """A step that matches: the network, its rows, and the arrays it works on."""

    net: Net
    rows: int
    theta: Array
    gradient: Array
    state: tuple[Array, ...]
    data: Array
    targets: Array
    order: Array | None
    clock: Array
    rates: Array
    hyper: Array
    totals: Array
    decay: float
    batch_size: int

    @property
    def work(self) -> int:
        """Multiplications forward."""
        return self.rows * sum(layer.n_in * layer.n_out for layer in self.net.layers)


class NarrowSteps:
    """The launches of one device.

    compile(text, name, is_cooperative) gives a kernel, zeros(shape, dtype) an array of zeros.
    """

    def __init__(
        self,
        compile: Callable[[str, str, bool], Launch],
        zeros: Callable[[tuple[int, ...], str], Array],
        device: Device,
    ) -> None:
        self._compile, self._zeros, self._device = compile, zeros, device
        self._launches: dict[str, Launch] = {}

    def plan(self, calls: Sequence[Call], grid: Grid | None = None) -> Callable[[int], None]:
        """Return a function that makes n of the steps that were recorded.

        grid: instead of the one that `choose_grid` gives.
        Raises: NotNarrow with the reason where the kernel does not make such steps.
        """
        try:
            step = match(calls)
            grid = grid or choose_grid(step.work, self._device)
            text, size = source(step.net, grid, step.rows)
        except Untraceable as error:
            raise NotNarrow(str(error)) from error
        if text.name not in self._launches:
            self._launches[text.name] = self._compile(
                sources.program([text]), text.name, grid.barrier == GRID
            )
        return self._run(step, grid, self._launches[text.name], size)

    def _run(self, step: Step, grid: Grid, launch: Launch, size: int) -> Callable[[int], None]:
        scratch, counter = self._zeros((size,), DTYPE.name), self._zeros((1,), "uint64")
        order = step.clock if step.order is None else step.order
        strides = (_row_stride(step.data), _row_stride(step.targets))
        arguments = (
            *(step.theta, step.gradient, *step.state, scratch, counter),
            *(step.data, step.targets, order, step.clock, step.rates, step.hyper, step.totals),
            np.float64(step.decay),
            *map(np.int64, (*strides, step.batch_size, step.rates.shape[1])),
            np.int32(step.rows),
        )

        def run(n: int) -> None:
            if n:
                launch((grid.blocks,), (grid.threads,), (*arguments, np.int32(n)))

        return run


# ---- matching -----------------------------------------------------------------------------------


def match(calls: Sequence[Call]) -> Step:
    """Return what the calls of a step compute. Raises: NotNarrow with the reason."""
    names = [call.name for call in calls]
    n, n_gathers = names.count("dense_forward"), names.count("gather_rows")
    backward = ["loss_and_delta", *["dense_backward"] * n, "optimizer_step"]
    wanted = ["tick", *["gather_rows"] * n_gathers, *["dense_forward"] * n, *backward]
    if names != wanted or n == 0 or n_gathers not in (0, 2):
        others = sorted(set(names) - set(wanted)) or ["another order of calls"]
        raise NotNarrow(f"the step has {', '.join(others)}")
    arguments = [call.arguments for call in calls]
    tick, gathers, rest = arguments[0], arguments[1 : 1 + n_gathers], arguments[1 + n_gathers :]
    forward, compared, backward_ = rest[:n], rest[n], rest[n + 1 : -1][::-1]
    return _step(tick, gathers, forward, compared, backward_, rest[-1])


def _step(
    tick: Any, gathers: Sequence[Any], forward: Sequence[Any], compared: Any,
    backward: Sequence[Any], update: Any,
) -> Step:  # fmt: skip
    theta, gradient = update["theta"], update["gradient"]
    _check_chain(forward, compared, backward)
    layers = tuple(
        _layer(ahead, back, update) for ahead, back in zip(forward, backward, strict=True)
    )
    if sum((layer.n_in + 1) * layer.n_out for layer in layers) != theta.size:
        raise NotNarrow("the layers do not have all parameters")
    _require(_is_same(update["hyper"], tick["hyper"]), "two arrays of rates")
    _require(theta.dtype == DTYPE, f"float32 only, not {theta.dtype}")
    vectors = (theta, gradient, *update["state"])
    _require(all(v.flags.c_contiguous and v.dtype == DTYPE for v in vectors), "strided parameters")
    x, y, order, batch_size = _batch(tick, gathers, forward[0]["x"], compared["y"])
    rows = int(forward[0]["x"].shape[0])
    _require(0 < rows <= MOST_ROWS, f"{rows} rows, at most {MOST_ROWS}")
    net = Net(
        layers, compared["loss"], update["rule"], len(update["state"]),
        x.dtype.name, y.dtype.name, order is not None,
    )  # fmt: skip
    return Step(
        net, rows, theta, gradient, tuple(update["state"]), x, y, order, tick["clock"],
        tick["rates"], tick["hyper"], compared["totals"], update["weight_decay"], batch_size,
    )  # fmt: skip


def _check_chain(forward: Sequence[Any], compared: Any, backward: Sequence[Any]) -> None:
    """Check that each layer works on what its neighbours leave."""
    for k, (ahead, back) in enumerate(zip(forward, backward, strict=True)):
        n_out = ahead["W"].shape[1]
        _require(n_out <= MOST_UNITS, f"a layer of {n_out} units, at most {MOST_UNITS}")
        shared = all(_is_same(ahead[name], back[name]) for name in ("x", "W", "z", "a"))
        _require(shared and ahead["phi"] is back["phi"], "layers that change on the way back")
        if k:
            linked = _is_same(ahead["x"], forward[k - 1]["a"])
            linked = linked and _is_same(back["dx"], backward[k - 1]["delta"])
            _require(linked, "layers that do not follow each other")
    _require(backward[0]["dx"] is None, "the gradient at the inputs")
    linked = _is_same(compared["out"], forward[-1]["a"])
    linked = linked and _is_same(compared["delta"], backward[-1]["delta"])
    _require(linked, "a loss of something else than the output")
    _require(compared["weight"] is None, "sample weights")


def _layer(ahead: Any, back: Any, update: Any) -> Layer:
    """Return a layer, whose parameters and gradients must lie in the optimizer's vectors."""
    places = []
    for mine, vector in (
        (ahead["W"], update["theta"]), (ahead["b"], update["theta"]),
        (back["dW"], update["gradient"]), (back["db"], update["gradient"]),
    ):  # fmt: skip
        places.append((mine.data.ptr - vector.data.ptr) // vector.itemsize)
        is_inside = 0 <= places[-1] and places[-1] + mine.size <= vector.size
        _require(is_inside and mine.flags.c_contiguous, "parameters outside of theta")
    W, b = places[:2]
    _require(places[2:] == [W, b], "gradients laid out unlike the parameters")
    (n_in, n_out), n_weights = ahead["W"].shape, update["n_weights"]
    _require(W + n_in * n_out <= n_weights <= b, "biases among the weights")
    keeps_z = not _is_same(ahead["z"], ahead["a"])
    return Layer(int(n_in), int(n_out), int(W), int(b), ahead["phi"], keeps_z)


def _batch(
    tick: Any, gathers: Sequence[Any], x: Array, y: Array
) -> tuple[Array, Array, Array | None, int]:
    """Return where the rows come from: inputs, targets, their order, the batch size."""
    _require(y.ndim == 2 or y.dtype.name in LABELS, f"labels of {y.dtype}")
    _require(y.ndim == 1 or y.dtype == DTYPE, f"targets of {y.dtype}")
    if not gathers:
        _require(x.flags.c_contiguous and y.flags.c_contiguous, "strided batches")
        return x, y, None, 0
    of_x, of_y = gathers
    is_whole = _is_same(of_x["out"], x) and _is_same(of_y["out"], y)
    _require(is_whole, "rows that are not gathered as inputs and targets")
    _require(of_y["data"].dtype == y.dtype, "targets that are converted")
    shared = all(_is_same(of_x[name], of_y[name]) for name in ("order", "clock"))
    shared = shared and _is_same(of_x["clock"], tick["clock"])
    _require(shared and of_x["batch_size"] == of_y["batch_size"], "rows in two orders")
    _require(of_x["data"].ndim == x.ndim and of_x["data"].shape[0] < 2**31, "inputs of many axes")
    return of_x["data"], of_y["data"], of_x["order"], int(of_x["batch_size"])


def _is_same(a: Any, b: Any) -> bool:
    """Whether two arrays are one: the same place, shape and dtype."""
    if a is None or b is None:
        return a is b
    return bool(a.data.ptr == b.data.ptr and a.shape == b.shape and a.dtype == b.dtype)


def _require(is_good: Any, otherwise: str) -> None:
    if not is_good:
        raise NotNarrow(f"the step has {otherwise}")
