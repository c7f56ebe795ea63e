"""The runner: contenders alternate, each measurement in its own process.

A round measures every row with every contender once, A B C A B C, so that other load on the machine
affects all of them. Ratios compare measurements of the same round.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnbackend.bench.base import AbstractContender
from nnbackend.bench.process import environment
from nnbackend.bench.rows import Row
from nnbackend.bench.worker import spread
from nnbackend.errors import ArgumentError
from nnbackend.machine import choose_coretype, machine_facts, usable_cpus

FORMAT = 2
PATIENCE = 300  # timeout of a worker in seconds
# A contender whose loss differs more from the median of its row trains another network. Of the rows
# published 3 % was the largest difference, after 10 steps of the largest network.
LOSS_TOLERANCE = 0.1
Answer = dict[str, Any]
Kind = type[AbstractContender]
Words = tuple[str, ...]  # a worker's
# Arguments: the worker's words, seconds, OpenBLAS kernels; raises WorkerError.
Launch = Callable[[Sequence[str], float, str], Answer]
Say = Callable[[str], None]


class WorkerError(RuntimeError):
    """A worker crashed, timed out or returned no result."""


@dataclass(frozen=True)
class Plan:
    """The rows, contenders and duration of a run.

    Raises: ArgumentError for invalid numbers.
    """

    rows: tuple[Row, ...]
    contenders: tuple[Kind, ...]
    rounds: int = 3
    seconds: float = 1.0
    threads: int = 0  # 0: the number of usable CPUs

    def __post_init__(self) -> None:
        for option, value in (("rounds", self.rounds), ("seconds", self.seconds)):
            if not value > 0:
                raise ArgumentError(f"--{option} must be above 0. Received: {value}.")
        if self.threads < 0:
            raise ArgumentError(
                f"--threads must be at least 1, or 0 for all. Received: {self.threads}."
            )


class Workers:
    """Starts the workers of a run; they share an initially empty cache of compiled code."""

    def __init__(self, threads: int, patience: float = PATIENCE) -> None:
        self.threads, self.patience = threads, patience
        self._folder = tempfile.TemporaryDirectory(prefix="nnbackend-bench-")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def __call__(self, words: Sequence[str], seconds: float, coretype: str = "") -> Answer:
        """Run one worker and return its result."""
        command = [sys.executable, "-m", "nnbackend.bench.worker", *words]
        try:
            done = subprocess.run(
                [*command, "--seconds", str(seconds)],
                env=environment(self.threads, coretype, self._folder.name),
                capture_output=True, text=True, check=False, timeout=self.patience,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise WorkerError(f"no answer after {self.patience:.0f} s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing on stderr"]
            raise WorkerError(f"exit code {done.returncode}: {said[-1][:300]}")
        try:
            answer: Answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise WorkerError(f"no JSON in its answer: {done.stdout[-200:]!r}") from None
        return answer


def run(plan: Plan, launch: Launch | None = None, say: Say | None = None) -> Answer:
    """Run the plan; return all measurements in a form for JSON."""
    say = say or to_stderr
    threads = plan.threads or len(usable_cpus())
    if launch is None:
        with Workers(threads) as workers:
            return run(plan, workers, say)
    begin = time.monotonic()
    names = [name for kind in plan.contenders for name in kind.distributions]
    machine = machine_facts(*dict.fromkeys(names))  # the load before the run, not of the run
    machine.update(launch(["facts"], 0.0, ""))
    coretype = choose_coretype(machine["flags"], openblas_core(machine["pools"]))
    absent = {kind: why for kind in plan.contenders if (why := kind.missing())}
    for kind, why in absent.items():
        say(f"left out: {kind.title} ({why})")
    kinds = [kind for kind in plan.contenders if kind not in absent]

    jobs: dict[Words, str] = {
        ("train", kind.path(), row.name): f"{kind.name} {row.name}"
        for row in plan.rows
        for kind in kinds
        if not kind.lacks(row)
    }
    took_turns = interleave(jobs, plan.rounds, plan.seconds, coretype, launch, say)
    ceilings = _ceilings(plan, coretype, launch, say)
    ceiling = max((c["gflops"] for c in ceilings if c["coretype"] == coretype), default=0.0)
    rows = []
    for row in plan.rows:
        answers = {kind: took_turns.get(("train", kind.path(), row.name), []) for kind in kinds}
        rows.append({**describe(row), "contenders": compare(row, answers, ceiling)})
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "settings": _settings(plan, threads, coretype, {k.name: why for k, why in absent.items()}),
        "ceilings": ceilings,
        "rows": rows,
        "minutes": round((time.monotonic() - begin) / 60, 1),
    }


def _settings(plan: Plan, threads: int, coretype: str, absent: dict[str, str]) -> Answer:
    return {
        "threads": threads,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "openblas_coretype": coretype,
        "left_out": absent,
    }


def interleave(
    jobs: Mapping[Words, str],
    rounds: int,
    seconds: float,
    coretype: str,
    launch: Launch,
    say: Say,
) -> dict[Words, list[Answer]]:
    """Run every job once a round; return each job's results. Failed jobs are not repeated.

    jobs: the words of a worker, and what to call the job in a line of progress.
    """
    answers: dict[Words, list[Answer]] = {job: [] for job in jobs}
    failed: set[Words] = set()
    for turn in range(rounds):
        for number, (job, title) in enumerate(jobs.items(), 1):
            if job in failed:
                continue
            where = f"round {turn + 1} of {rounds}, {number} of {len(jobs)}: {title}"
            try:
                answer = launch(job, seconds, coretype)
                say(f"{where}: {_short(answer)}")
            except WorkerError as error:
                answer = {"error": str(error)}
                failed.add(job)
                say(f"{where}: FAILED, {error}")
            answers[job].append({"round": turn + 1, **answer})
    return answers


def openblas_core(pools: Sequence[Answer]) -> str:
    """Return the kernels that OpenBLAS picked; the empty string if unknown."""
    cores = [p.get("architecture", "") for p in pools if p.get("internal_api") == "openblas"]
    return str(cores[0]) if cores else ""


def describe(row: Row) -> Answer:
    """Return the description of a row for the file."""
    return {
        "name": row.name,
        "title": row.title,
        "layers": list(row.layers),
        "batch": row.batch,
        "optimizer": row.optimizer,
        "steps_per_epoch": row.steps,
        "samples": row.n_samples,
        "flops_per_step": row.flops,
    }


def compare(row: Row, answers: dict[Kind, list[Answer]], ceiling: float) -> list[Answer]:
    """Return each contender's median and spread over the rounds, and its ratios.

    of_fastest_peer is its time divided by the fastest peer's in the same round; below 1 is faster.
    of_ceiling is the share of the machine's sgemm rate that its step reaches.
    lacks is the reason for which a contender has no figures on this row; error that of a failure,
    which includes a loss unlike that of the others.
    """
    good = {k: [a for a in given if "error" not in a] for k, given in answers.items()}
    strange = _strange_losses(good)
    for kind in strange:
        good[kind] = []
    peers: dict[int, float] = {}
    for kind, given in good.items():
        for a in [] if kind.is_ours else given:
            us = a["us_per_step"]["median"]
            peers[a["round"]] = min(us, peers.get(a["round"], us))
    found = []
    for kind, given in answers.items():
        entry: Answer = {"name": kind.name, "title": kind.title, "is_ours": kind.is_ours}
        entry["lacks"] = kind.lacks(row)
        failures = [a["error"] for a in given if "error" in a]
        entry["error"] = next(iter(failures), strange.get(kind, ""))
        if good[kind]:
            entry |= _figures(row, good[kind], peers, ceiling)
        found.append(entry)
    return found


def _strange_losses(good: dict[Kind, list[Answer]]) -> dict[Kind, str]:
    """Return the contenders that did not learn what the others did, each with the reason."""
    losses = {kind: given[-1]["loss"] for kind, given in good.items() if given}
    usual = statistics.median(losses.values()) if losses else 0.0
    return {
        kind: f"its loss is {loss:.4f}, the median of all {usual:.4f}"
        for kind, loss in losses.items()
        if not abs(loss - usual) <= LOSS_TOLERANCE * usual
    }


def _figures(row: Row, given: list[Answer], peers: dict[int, float], ceiling: float) -> Answer:
    times = [a["us_per_step"]["median"] for a in given]
    us = statistics.median(times)
    ratios = [a["us_per_step"]["median"] / peers[a["round"]] for a in given if a["round"] in peers]
    gflops = row.flops / us * 1e-3
    last = given[-1]
    return {
        "us_per_step": {**spread(times), "rounds": times},
        "us_per_resident_step": spread([a["us_per_resident_step"]["median"] for a in given]),
        "of_fastest_peer": spread(ratios) if ratios else None,
        "gflops": gflops,
        "of_ceiling": gflops / ceiling if ceiling else None,
        "loss_before": last["loss_before"],
        "loss": last["loss"],
        "steps_before_loss": last["steps_before_loss"],
        "import_s": statistics.median(a["import_s"] for a in given),
        # The first round begins with empty caches of compiled code.
        "first_step_s": [a["first_step_s"] for a in given],
        "peak_memory": max(a["peak_memory"] for a in given),
        "pools": last["pools"],
    }


def _ceilings(plan: Plan, coretype: str, launch: Launch, say: Say) -> list[Answer]:
    """Measure the sgemm rate with NumPy's choice of kernels, and with the requested ones."""
    found = []
    for choice in dict.fromkeys(["", coretype]):
        n, seconds = 1 if plan.rounds == 1 else 2, 2.0 * plan.seconds
        rounds = interleave({("sgemm",): "sgemm"}, n, seconds, choice, launch, say)
        good = [answer for answer in rounds["sgemm",] if "error" not in answer]
        if good:
            best = max(good, key=lambda answer: float(answer["gflops"]))
            found.append({**best, "coretype": choice, "core": openblas_core(best["pools"])})
    return found


def _short(answer: Answer) -> str:
    """Return the main figure of a result, for the progress line."""
    if "us_per_step" in answer:
        return f"{answer['us_per_step']['median']:.4g} us per step, loss {answer['loss']:.4f}"
    if "gflops" in answer:
        return f"{answer['gflops']:.0f} GFLOP/s"
    return f"{answer['seconds']:.2f} s" if "seconds" in answer else "done"


def to_stderr(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)
