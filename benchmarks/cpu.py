"""The CPU comparison: `python -m benchmarks.cpu`, in under 15 minutes on 2 cores.

It writes `cpu-<model>-<date>.json`, `.md` and `.png` into benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cpu_report
from benchmarks.cpu_extras import extras
from benchmarks.peers import CONTENDERS
from nnbackend.bench.rows import QUICK, parse_row, parse_rows
from nnbackend.bench.runner import Answer, Launch, Plan, Say, Workers, run, to_stderr
from nnbackend.cli.bench import add_measuring, chosen, our_failures
from nnbackend.errors import NNBackendError
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
    )
)


def measure(plan: Plan, launch: Launch, say: Say = to_stderr) -> Answer:
    """Run the plan, then measure imports and predictions."""
    begin = time.monotonic()
    result = run(plan, launch, say)
    settings = result["settings"]
    kinds = [kind for kind in plan.contenders if kind.name not in settings["left_out"]]
    result |= extras(kinds, plan.seconds, settings["openblas_coretype"], launch, say)
    result["minutes"] = round((time.monotonic() - begin) / 60, 1)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the results; exit 1 if a contender of ours failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="three rows, one short round")
    parser.add_argument("--rows", metavar="LIST", default="", help="rows, separated by commas")
    parser.add_argument("--contenders", metavar="LIST", default=",".join(CONTENDERS))
    add_measuring(parser, seconds=0.5)
    parser.add_argument("--out", metavar="DIR", default="benchmarks/results")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.seconds = 1, min(args.seconds, 0.2)
    try:
        rows = parse_rows(args.rows) or (QUICK if args.quick else ROWS)
        kinds = chosen(args.contenders, CONTENDERS)
        plan = Plan(rows, kinds, args.rounds, args.seconds, args.threads)
        with Workers(plan.threads or len(usable_cpus())) as workers:
            result = run(plan, workers) if args.quick else measure(plan, workers)
    except NNBackendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in cpu_report.write(result, Path(args.out)):
        print(path)
    for why in our_failures(result):
        print(f"failed: {why}", file=sys.stderr)
    return 1 if our_failures(result) else 0


if __name__ == "__main__":
    sys.exit(main())
