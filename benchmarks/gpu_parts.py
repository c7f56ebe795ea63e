"""Common code of the parts of `benchmarks.gpu_check`, and the command that runs one.

    python -m benchmarks.gpu_parts first|speed|profile|train|ranks [WORD ...] [--emulated]

A part is a generator of tasks; each answer is printed at once.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.gpu_process import Answer, say
from benchmarks.gpu_rows import EACH, Form, measure

PARTS = {
    name: f"benchmarks.gpu_{name}"
    for name in ("first", "capture", "speed", "profile", "train", "ranks")
}
Task = tuple[str, Callable[[], Answer]]


def new_backend(is_emulated: bool, precision: str = "float32", **switches: Any) -> Any:
    """Return a new CuPy backend, of a real device or over the stand-in.

    switches: `forks`, `fused`, `narrow` and `tall` turn optimizations of a step on or off; `grid`
    is BARRIER:BLOCKS:THREADS of the kernel for narrow networks.
    """
    if is_emulated:
        backend = importlib.import_module("stand_in_backend").new_backend(precision)
    else:
        from nnbackend.devices import get_backend

        backend = type(get_backend("cupy"))(0, precision)  # get_backend reports what is missing
    for name, value in switches.items():
        SWITCHES[name](backend, value)
    return backend


def _set_forks(backend: Any, value: bool) -> None:
    backend._streams.is_forking = value


def _set_narrow(backend: Any, value: bool) -> None:
    backend.uses_narrow = value


def _set_fused(backend: Any, value: bool) -> None:
    backend.uses_fused = value


def _set_tall(backend: Any, value: bool) -> None:
    backend.uses_tall = value


def _set_grid(backend: Any, value: str) -> None:
    from nnbackend_cupy.narrow_source import Grid

    backend.narrow_grid = Grid(*map(int, value.split(":")))


SWITCHES: dict[str, Callable[[Any, Any], None]] = {
    "forks": _set_forks,
    "fused": _set_fused,
    "narrow": _set_narrow,
    "tall": _set_tall,
    "grid": _set_grid,
}


_is_warm: list[bool] = []


def measured(
    form: Form, backend: Any, is_emulated: bool, seconds: float = EACH
) -> tuple[Answer, int]:
    """Return the microseconds of a step: median, minimum and maximum of five measurements.

    The clocks of an idle GPU are slow: the first measurement of a process follows a second of load,
    the others a load as long as the measurement. Times on the stand-in mean nothing: two short
    measurements.
    """
    if is_emulated:
        found, steps = measure(form, backend.synchronize, 0.001, 0.0, rounds=2)
    else:
        warm_up = seconds if _is_warm else 1.0
        found, steps = measure(form, backend.synchronize, seconds, warm_up)
    _is_warm.append(True)
    us = [1e6 * value for value in found]
    return {"us": statistics.median(us), "least": min(us), "most": max(us)}, steps


def how_it_ran(backend: Any) -> Answer:
    """Return what was captured and refused, and unexpected events under "wrong"."""
    report = backend.report()
    refused = sorted(
        {f"{p['epilogue']} m{p['m']} n{p['n']} k{p['k']}" for p in report["products"]
         if "refused" in p}
    )  # fmt: skip
    taken = Counter(p["epilogue"] for p in report["products"] if "refused" not in p)
    wrong = [f"not recorded: {reason}" for reason in report["not_recorded"]]
    wrong += [f"{kernel} fell back on CuPy: {why}" for kernel, why in report["fallbacks"].items()]
    if not report["recorded"] and not report.get("narrow"):
        wrong.append("no step was recorded")
    wrong += [f"product refused: {product}" for product in refused]
    return {
        "ok": not wrong,
        "wrong": wrong,
        "recorded": report["recorded"],
        "epilogues": dict(taken),
        **({"narrow": report["narrow"]} if "narrow" in report else {}),
    }


def main() -> int:
    """Run a part; an exception in a task becomes its answer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_parts")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--emulated", action="store_true")
    args = parser.parse_args()
    part = importlib.import_module(PARTS[args.part])
    tasks: Iterator[Task] = part.tasks(args.emulated, args.words)
    for name, task in tasks:
        try:
            answer = task()
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        say({"name": name, **answer})
    return 0


if __name__ == "__main__":
    sys.exit(main())
