"""Profile a step: each of its launches, captured many times in a row and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.gpu_parts import Answer, Task, measured, new_backend
from benchmarks.gpu_rows import TABLE, TINY, Form
from benchmarks.gpu_speed import Training

REPEATS = 32  # of a launch in its graph
ROWS = (*TABLE[1:2], *TABLE[4:9])


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Yield a task for each row named in words, or for the default rows."""
    for row in words or (TINY if is_emulated else ROWS):
        yield row, lambda row=row: profile(is_emulated, row)


def profile(is_emulated: bool, row: str) -> Answer:
    """Return the microseconds of each launch of one step, in order, and of the step itself."""
    backend = new_backend(is_emulated, narrow=False)
    launches: list[tuple[str, Callable[[], Any]]] = []
    _record_launches(backend, launches)
    training = Training(backend, row, is_emulated)
    training.run(1)  # called, not captured: compiles, allocates, chooses algorithms
    step, n_calls = list(launches), len(launches)
    whole, _ = measured(training.form(), backend, is_emulated, 0.1)
    named = []
    for name, launch in step:
        # Launches that advance the clock must stay within the round.
        moves = name.startswith(("tick", "begin"))
        n = min(REPEATS, training.steps) if moves else REPEATS
        replay = backend.capture(lambda launch=launch, n=n: [launch() for _ in range(n)])
        before = training.reset if moves else lambda: None
        form = Form(name, n, lambda replay=replay, before=before: (before(), replay(1))[1])
        training.run(1)  # a valid clock: within the order and the rates
        form.run()  # the call before the capture
        took, _ = measured(form, backend, is_emulated, 0.02)
        training.run(1)
        named.append([name, round(took["us"], 3)])
    return {**whole, "launches": n_calls, "sum": sum(t for _, t in named), "parts": named,
            "nodes": backend.report()["recorded"][:1]}  # fmt: skip


def _record_launches(backend: Any, launches: list[tuple[str, Callable[[], Any]]]) -> None:
    """Append every launch of the backend's CUDA kernels and products to a list."""
    cache = backend._kernels._cache
    compile_, matmul = cache._compile, backend._blas._matmul

    def compiled(text: str, name: str) -> Callable[..., Any]:
        kernel = compile_(text, name)

        def launch(*args: Any, **kwargs: Any) -> Any:
            launches.append((name, lambda: kernel(*args, **kwargs)))
            return kernel(*args, **kwargs)

        return launch

    def multiplied(plan: Any, a: Any, b: Any, out: Any, lane: int) -> None:
        label = f"product {a.shape[0]} x {a.shape[1]} x {b.shape[1]}"
        launches.append((label, lambda: matmul(plan, a, b, out, lane)))
        matmul(plan, a, b, out, lane)

    cache._compile, backend._blas._matmul = compiled, multiplied
