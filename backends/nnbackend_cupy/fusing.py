"""Fuse consecutive calls of a captured step into fewer launches.

    begin_step      tick, gather_rows, gather_rows ...: the same bits
    output_layer    dense_forward, loss_and_delta, dense_backward of an output layer of few units,
                    and the slope of the layer below: the same up to rounding

Calls that a fused kernel does not support are made unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nnbackend.backend.formulas import Array
from nnbackend_cupy.kernels import Kernels
from nnbackend_cupy.losses import MAX_OUTPUTS
from nnbackend_cupy.recorder import Call
from nnbackend_cupy.streams import Streams
from nnbackend_cupy.tracing import Untraceable

MAX_GATHERS = 3  # x, y and weights


class FusedBackend(Protocol):
    """What fused calls use of a backend, besides the methods that are called."""

    _kernels: Kernels
    _streams: Streams

    def _weight_gradient(self, x: Array, delta: Array, dW: Array, db: Array, lane: int) -> None: ...

    def _gradients(
        self, x: Array, W: Array, delta: Array, dW: Array, db: Array, dx: Array | None
    ) -> None: ...


def fused(calls: Sequence[Call], backend: FusedBackend) -> Callable[[], None]:
    """Return a function that has the effect of the calls, in order."""
    works: list[Callable[[], None]] = []
    left = list(calls)
    while left:
        if n := _match_start(left):
            works.append(_begin(left[:n], backend))
        elif n := _match_output_layer(left):
            works.append(_output(left[:n], backend))
        else:
            works.append(_called(left[:1], backend))
        left = left[max(1, n) :]

    def step() -> None:
        for work in works:
            work()

    return step


def _called(calls: Sequence[Call], backend: FusedBackend) -> Callable[[], None]:
    bound = [(getattr(backend, call.name), call.args, call.kwargs) for call in calls]

    def work() -> None:
        for method, args, kwargs in bound:
            method(*args, **kwargs)

    return work


# ---- start of a step ----------------------------------------------------------------------------


def _match_start(calls: Sequence[Call]) -> int:
    """Return how many of the first calls start a step: a tick and gathers with its clock."""
    if calls[0].name != "tick":
        return 0
    clock, n = calls[0].arguments["clock"], 1
    first: dict[str, Any] | None = None
    while n < len(calls) and n <= MAX_GATHERS and calls[n].name == "gather_rows":
        gather = calls[n].arguments
        first = first or gather
        alike = all(gather[name] is first[name] for name in ("order", "clock"))
        if not alike or gather["clock"] is not clock or gather["out"].size == 0:
            break
        if gather["batch_size"] != first["batch_size"]:
            break
        if any(gather["data"] is call.arguments["out"] for call in calls[1:n]):
            break
        n += 1
    return n if n > 1 else 0


def _begin(calls: Sequence[Call], backend: FusedBackend) -> Callable[[], None]:
    tick, *gathers = (call.arguments for call in calls)
    separate = _called(calls, backend)
    arguments = (
        *(tick[name] for name in ("clock", "rates", "hyper")),
        *(gathers[0][name] for name in ("order", "batch_size")),
        [(gather["data"], gather["out"]) for gather in gathers],
    )

    def work() -> None:
        backend._streams.join()
        try:
            backend._kernels.begin_step(*arguments)
        except Untraceable:
            separate()

    return work


# ---- the output layer ---------------------------------------------------------------------------


def _match_output_layer(calls: Sequence[Call]) -> int:
    """Return how many calls compute an output layer, forward and backward.

    0: the calls are others; 3: the output layer; 4: with the layer below.
    """
    names = [call.name for call in calls[:3]]
    if names != ["dense_forward", "loss_and_delta", "dense_backward"]:
        return 0
    fwd, loss_call, bwd = (call.arguments for call in calls[:3])
    is_one = all(fwd[name] is bwd[name] for name in ("x", "W", "z", "a", "phi"))
    is_one = is_one and loss_call["out"] is fwd["a"] and loss_call["delta"] is bwd["delta"]
    if not is_one or loss_call["weight"] is not None or bwd["dx"] is None:
        return 0
    if fwd["W"].shape[1] > MAX_OUTPUTS:
        return 0
    if len(calls) > 3 and calls[3].name == "dense_backward":
        below = calls[3].arguments
        if below["delta"] is bwd["dx"] and below["a"] is fwd["x"]:
            return 4
    return 3


def _output(calls: Sequence[Call], backend: FusedBackend) -> Callable[[], None]:
    fwd, loss_call, bwd = (call.arguments for call in calls[:3])
    below = calls[3].arguments if len(calls) > 3 else None
    separate = _called(calls, backend)
    arrays = *(fwd[name] for name in ("x", "W", "b", "z", "a")), bwd["delta"]
    arguments = (
        *(loss_call["loss"], fwd["phi"], None if below is None else below["phi"], arrays),
        *(loss_call["y"], fwd["x"] if below is None else below["z"], bwd["dx"]),
        loss_call["totals"],
    )
    x, delta, dW, db = (bwd[name] for name in ("x", "delta", "dW", "db"))
    below_arrays = below and tuple(below[name] for name in ("x", "W", "delta", "dW", "db", "dx"))

    def work() -> None:
        backend._streams.join()
        try:
            backend._kernels.output_layer(*arguments)
        except Untraceable:
            separate()
            return
        with backend._streams.beside(x, delta, dW, db) as lane:
            backend._weight_gradient(x, delta, dW, db, lane)
        if below_arrays:
            backend._gradients(*below_arrays)

    return work
