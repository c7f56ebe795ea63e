"""Measure training steps of PyTorch and JAX on a GPU, to compare with ours.

`python -m benchmarks.gpu_peers CONTENDER ROW [ROW ...]` runs one contender over all rows in one
process and prints one line `ANSWER {json}` per row. Float32 products are exact, then TF32. Data and
batch indices are on the device; no shuffling and no transfer is in the measured time.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu_peer_libraries import COMPILE_MODES, Jax, LeftOut, Torch
from benchmarks.gpu_rows import EACH, Form, make_work, measure

PRECISIONS = ("float32", "tf32")
LONG_STEP = 1e-3  # seconds; for longer steps, several steps in one graph are not faster
Answer = dict[str, Any]
_is_warm: list[bool] = []


CONTENDERS: dict[str, tuple[str, Callable[..., Any]]] = {
    **dict.fromkeys(("torch", "torch-graphs", *COMPILE_MODES), ("torch", Torch)),
    "jax": ("jax", Jax),
}


def fastest_form(peer: Any, seconds: float, warm_up: float) -> tuple[Form, dict[str, float]]:
    """Return the fastest form after short trials, and the microseconds of each one tried."""
    tried: dict[str, float] = {}
    best: tuple[float, Form] | None = None
    for form in peer.forms():
        form.run()  # compiles
        peer.wait()
        found, _ = measure(form, peer.wait, min(seconds, 0.005), 0.0, rounds=3)
        if min(found) < LONG_STEP:
            found, _ = measure(form, peer.wait, seconds / 6, warm_up / 4, rounds=3)
        took = statistics.median(found)
        tried[form.name] = 1e6 * took
        if best is None or took < best[0]:
            best = took, form
        if took >= LONG_STEP:
            break
    assert best is not None
    return best[1], tried


def product_error(peer: Any) -> float:
    """Return the relative error of one product: 1e-7 if exact, about 3e-4 with TF32."""
    a, b = np.random.default_rng(1).standard_normal((2, 256, 256))
    a, b = (v.astype(np.float32).astype(np.float64) for v in (a, b))
    exact = a @ b
    got = peer.multiply(a.astype(np.float32), b.astype(np.float32))
    return float(np.linalg.norm(got - exact) / np.linalg.norm(exact))


def measure_precision(
    peer: Any, precision: str, seconds: float, warm_up: float, answer: Answer
) -> None:
    """Measure one precision and enter it into the answer."""
    form, tried = fastest_form(peer, seconds, warm_up)
    peer.reset()
    first, round_of = peer.loss(), len(peer.work.windows)
    for _ in range(round_of // form.steps):
        form.run()
    after = peer.loss()
    found, steps = measure(form, peer.wait, seconds, warm_up)
    last = peer.loss()
    if not (first > after and first > last):  # NaN too
        raise ArithmeticError(f"the loss did not fall: {first} {after} {last}, {precision}")
    figures = {
        "us_per_step": 1e6 * statistics.median(found),
        "spread": {"min": 1e6 * min(found), "max": 1e6 * max(found)},
        "form": form.name,
        "forms_us": tried,
        "loss": {"first": first, f"after_{round_of}_steps": after, "last": last},
        "product_error": product_error(peer),
    }
    for name, value in figures.items():
        answer.setdefault(name, {})[precision] = value
    answer["steps"] = min(steps, answer.get("steps", steps))
    answer["version"] = peer.version


def prepare(peer: Any, precision: str, answer: Answer) -> None:
    """Compile a contender's steps for the disk cache, and enter the time."""
    begin = time.perf_counter()
    for form in peer.forms():
        form.run()
        peer.wait()
    answer.setdefault("prepared", {})[precision] = time.perf_counter() - begin


def answer_row(
    contender: str, row: str, is_emulated: bool, seconds: float, only_prepares: bool = False
) -> Answer:
    """Return the row's answer; an exception becomes its `error`."""
    library, make = CONTENDERS[contender]
    head: Answer = {"row": row, "contender": contender}
    if importlib.util.find_spec(library) is None:
        return {**head, "left_out": f"{library} is not installed"}
    # The clocks of an idle GPU are low: one second of load before a process's first measurement.
    warm_up = seconds if is_emulated or _is_warm else 1.0
    found: Answer = {}
    gc.collect()  # frees memory of an earlier row with an error
    try:
        work = make_work(row, is_emulated)
        for precision in PRECISIONS:
            peer = make(contender, work, precision, is_emulated)
            if only_prepares:
                prepare(peer, precision, found)
                continue
            measure_precision(peer, precision, seconds, warm_up, found)
            _is_warm.append(True)
            warm_up = seconds
            del peer
            gc.collect()  # frees its device memory before the next one
    except LeftOut as reason:
        return {**head, "left_out": str(reason)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        measured = {"measured": found} if found else {}
        return {**head, "error": f"{said} ({where.filename}:{where.lineno})", **measured}
    return {**head, **found}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the rows one after another; print each answer at once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_peers", allow_abbrev=False)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("rows", nargs="+", metavar="ROW", help="such as 784-100-10:128")
    parser.add_argument("--emulated", action="store_true", help="little data, on the CPU")
    parser.add_argument("--seconds", type=float, help="of a measurement; 0.3, emulated 0.01")
    parser.add_argument("--prepare", action="store_true", help="compile only, for the cache")
    args = parser.parse_args(argv)
    seconds = args.seconds or (0.01 if args.emulated else EACH)
    for row in args.rows:
        answer = answer_row(args.contender, row, args.emulated, seconds, args.prepare)
        print("ANSWER " + json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
