"""Captured steps with fewer launches: neighbouring calls that one kernel makes together.

    tick, gather_rows, gather_rows ...      begin_step

The results have the same bits. What a fused kernel refuses is called as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nnbackend_cupy.recorder import Call
from nnbackend_cupy.tracing import Untraceable

if TYPE_CHECKING:
    from nnbackend_cupy.backend import CuPyBackend

MOST_GATHERS = 3  # x, y and weights


def fused(calls: Sequence[Call], backend: CuPyBackend) -> Callable[[], None]:
    """Return a function that does what the calls do, in their order."""
    works: list[Callable[[], None]] = []
    left = list(calls)
    while left:
        n = _beginning(left)
        works.append(_begin(left[:n], backend) if n else _called(left[:1], backend))
        left = left[max(1, n) :]

    def step() -> None:
        for work in works:
            work()

    return step


def _called(calls: Sequence[Call], backend: CuPyBackend) -> Callable[[], None]:
    bound = [(getattr(backend, call.name), call.args, call.kwargs) for call in calls]

    def work() -> None:
        for method, args, kwargs in bound:
            method(*args, **kwargs)

    return work


# ---- the beginning of a step --------------------------------------------------------------------


def _beginning(calls: Sequence[Call]) -> int:
    """Return how many calls, from the first on, begin a step: a tick and gathers by its clock."""
    if calls[0].name != "tick":
        return 0
    clock, n = calls[0].arguments["clock"], 1
    first: dict[str, Any] | None = None
    while n < len(calls) and n <= MOST_GATHERS and calls[n].name == "gather_rows":
        gather = calls[n].arguments
        first = first or gather
        alike = all(gather[name] is first[name] for name in ("order", "clock"))
        if not alike or gather["clock"] is not clock or gather["out"].size == 0:
            break
        if gather["batch_size"] != first["batch_size"]:
            break
        n += 1
    return n if n > 1 else 0


def _begin(calls: Sequence[Call], backend: CuPyBackend) -> Callable[[], None]:
    tick, *gathers = (call.arguments for call in calls)
    apart = _called(calls, backend)
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
            apart()

    return work
