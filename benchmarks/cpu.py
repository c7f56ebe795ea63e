"""The CPU comparison: `python -m benchmarks.cpu`, in about 20 minutes on 2 cores.

It writes `cpu-<model>-<date>.json`, `.md` and a picture into benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import cpu_extras, cpu_report
from benchmarks.peers import CONTENDERS
from nnbackend.bench.rows import QUICK, parse_row, parse_rows
from nnbackend.bench.runner import Answer, Launch, Plan, Say, Workers, run, to_stderr
from nnbackend.cli.bench import add_measuring, chosen, our_failures
from nnbackend.errors import ArgumentError, NNBackendError
from nnbackend.machine import usable_cpus

ROWS = tuple(
    parse_row(text)
    for text in (
        "784-100-10:128",
        "784-30-10:10",
        "20-64-64-2:32",
        "20-64-64-2:256",
        "784-512-512-10:128",
        "784-512-512-10:1024",
        "784-2500-2000-1500-1000-500-10:128",
        "784-100-10:128:momentum",
        "784-512-512-10:128:momentum",
        "20-64-64-2:32:momentum",
        "32-256-256-1:256:quadratic",
        "784-512-512-10:128:dropout0.5",
        "784-256-10:128:maxout2",
    )
)


def measure(
    plans: Sequence[Plan],
    is_quick: bool = False,
    workers: Callable[[int], AbstractContextManager[Launch]] = Workers,
    say: Say = to_stderr,
) -> Answer:
    """Run the plans, one for each number of threads; unless quick, measure the rest too."""
    begin = time.monotonic()
    runs, imports = [], []
    for plan in plans:
        with workers(plan.threads or len(usable_cpus())) as launch:
            result = run(plan, launch, say)
            settings = result["settings"]
            kinds = [kind for kind in plan.contenders if kind.name not in settings["left_out"]]
            coretype = settings["openblas_coretype"]
            if not is_quick:
                result |= cpu_extras.per_run(kinds, plan.seconds, coretype, launch, say)
            if not is_quick and plan is plans[-1]:
                imports = cpu_extras.imports(kinds, coretype, launch, say)
        runs.append(result)
    return {"runs": runs, "imports": imports, "minutes": round((time.monotonic() - begin) / 60, 1)}


def thread_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a list with commas; 0, the number of CPUs, for an empty one.

    Raises: ArgumentError for anything else.
    """
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",") if word)) or (0,)
    except ValueError:
        raise ArgumentError(
            f"--threads must be numbers separated by commas, such as 1,2. Received: {text!r}."
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the results; exit 1 if a contender of ours failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="three rows, one short round")
    parser.add_argument("--rows", metavar="LIST", default="", help="rows, separated by commas")
    parser.add_argument("--contenders", metavar="LIST", default=",".join(CONTENDERS))
    add_measuring(parser, seconds=0.5)
    parser.add_argument(
        "--threads", metavar="LIST", default="",
        help="for every contender, such as 1,2: all rows for each (default: the number of CPUs)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", default="benchmarks/results")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.seconds = 1, min(args.seconds, 0.2)
    try:
        rows = parse_rows(args.rows) or (QUICK if args.quick else ROWS)
        kinds = chosen(args.contenders, CONTENDERS)
        plans = [
            Plan(rows, kinds, args.rounds, args.seconds, threads)
            for threads in thread_counts(args.threads)
        ]
        result = measure(plans, args.quick)
    except NNBackendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in cpu_report.write(result, Path(args.out)):
        print(path)
    failures = [why for run in result["runs"] for why in our_failures(run)]
    for why in failures:
        print(f"failed: {why}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
