"""The CPU comparison: `python -m benchmarks.cpu`, in under 15 minutes on 2 cores.

It writes `cpu-<model>-<date>.json`, `.md` and `.png` into benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnbackend.bench import report
from nnbackend.bench.cli import (
    add_measuring,
    make_plan,
    our_failures,
    parse_contenders,
    parse_rows,
)
from nnbackend.bench.contenders import CONTENDERS
from nnbackend.bench.rows import QUICK, ROWS
from nnbackend.bench.runner import run
from nnbackend.errors import NNBackendError


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
        plan = make_plan(rows, parse_contenders(args.contenders), args, extras=not args.quick)
        result = run(plan)
    except NNBackendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in report.write(result, Path(args.out)):
        print(path)
    for why in our_failures(result):
        print(f"failed: {why}", file=sys.stderr)
    return 1 if our_failures(result) else 0


if __name__ == "__main__":
    sys.exit(main())
