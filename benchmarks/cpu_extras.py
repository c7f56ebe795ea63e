"""What the CPU comparison measures besides steps: peak rate, predictions, a user's first import.

The functions `time_import` and `predict` run in workers of `nnbackend.bench`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.bench.rows import make_data, make_parameters, parse_row
from nnbackend.bench.runner import Answer, Kind, Launch, Say, Words, interleave
from nnbackend.bench.worker import imported, sample, spread

ROUNDS = 2
PREDICT_ROW, MANY_ROWS = "784-100-10:128:adam:1", 100_000


def predict(path: str, seconds: float) -> Answer:
    """Time the labels of 1 row and of many rows, from and to host arrays."""
    kind, row = imported(path), parse_row(PREDICT_ROW)
    kind.load()
    contender = kind(row, *make_data(row), make_parameters(row))
    contender.steps(1)
    few = np.random.default_rng(0).standard_normal((1000, row.layers[0]), dtype=np.float32)
    many = np.tile(few, (MANY_ROWS // 1000, 1))
    one = many[:1].copy()

    def times(rows: Any) -> list[float]:
        contender.predict(rows)  # compiling and scratch arrays come first
        return sample(lambda n: [contender.predict(rows) for _ in range(n)], seconds / 2)

    return {
        "one_us": spread([s * 1e6 for s in times(one)]),
        "many_ms": spread([s * 1e3 for s in times(many)]),
        "many": MANY_ROWS,
    }


def time_import(statement: str, _seconds: float) -> Answer:
    """Time the first import of a library in a fresh interpreter."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"seconds": float(done.stdout)}


def per_run(
    kinds: Sequence[Kind], seconds: float, coretype: str, launch: Launch, say: Say
) -> Answer:
    """Measure the cores' peak rate, and predictions of one contender per library."""
    one_each = {kind.modules: kind for kind in reversed(kinds)}.values()
    asked = {kind: (f"{__name__}:predict", kind.path()) for kind in kinds if kind in one_each}
    peak = ("benchmarks.fma:peak",)
    jobs = {peak: "peak of the cores"} | {job: f"predict {k.name}" for k, job in asked.items()}
    good = _measure(jobs, seconds, coretype, launch, say)
    return {
        "peak": max(good[peak], key=lambda a: float(a["gflops"]), default=None),
        "predictions": [
            {
                "name": kind.name,
                "title": kind.title,
                "one_us": spread([a["one_us"]["median"] for a in good[job]]),
                "many_ms": spread([a["many_ms"]["median"] for a in good[job]]),
                "many": good[job][0]["many"],
            }
            for kind, job in asked.items()
            if good[job]
        ],
    }


def imports(kinds: Sequence[Kind], coretype: str, launch: Launch, say: Say) -> list[Answer]:
    """Measure a user's first import of each library."""
    statements = {what: code for kind in kinds for what, code in kind.imports.items()}
    asked = {what: (f"{__name__}:time_import", code) for what, code in statements.items()}
    jobs = {job: f"import {what}" for what, job in asked.items()}
    good = _measure(jobs, 0.0, coretype, launch, say)
    return [
        {"what": what, "seconds": spread([a["seconds"] for a in good[job]])}
        for what, job in asked.items()
        if good[job]
    ]


def _measure(
    jobs: dict[Words, str], seconds: float, coretype: str, launch: Launch, say: Say
) -> dict[Words, list[Answer]]:
    """Return the answers of the jobs that did not fail."""
    answers = interleave(jobs, ROUNDS, seconds / 2, coretype, launch, say)
    return {job: [a for a in given if "error" not in a] for job, given in answers.items()}
