"""The verb `bench`: training speed on this machine, beside other libraries."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nnbackend.bench import report
from nnbackend.bench.contenders import CONTENDERS, get_contender
from nnbackend.bench.rows import QUICK, Row, parse_row
from nnbackend.bench.runner import Plan
from nnbackend.bench.runner import run as carry_out
from nnbackend.errors import ArgumentError

OURS = tuple(name for name, kind in CONTENDERS.items() if kind.is_ours)
PEERS = tuple(name for name in CONTENDERS if name not in OURS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    usual = ",".join(row.name for row in QUICK)
    parser.add_argument(
        "--compare", metavar="LIST", default="", help=f"peers to measure too: {','.join(PEERS)}"
    )
    parser.add_argument(
        "--rows", metavar="LIST", default=usual,
        help="what to train, sizes:batch or sizes:batch:momentum (default: %(default)s)",
    )  # fmt: skip
    add_measuring(parser, seconds=0.5)
    parser.add_argument("--out", metavar="DIR", help="write the report and its picture there")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")


def add_measuring(parser: argparse.ArgumentParser, *, seconds: float) -> None:
    """Add the options for the duration of measurements."""
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        default=3,
        help="measurements of each row and contender (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", default=seconds,
        help="duration of each measurement (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, metavar="N", default=0,
        help="for every contender (default: as many as there are CPUs)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure and print the table; return 1 if one of our contenders failed."""
    plan = make_plan(
        parse_rows(args.rows), (*OURS, *parse_contenders(args.compare)), args, extras=False
    )
    result = carry_out(plan)
    print(report.facts(result), end="\n\n")
    print(report.times_table(result))
    if args.out:
        for path in report.write(result, Path(args.out)):
            print(f"wrote {path}", file=sys.stderr)
    if args.json:
        print(json.dumps(result))
    return 1 if our_failures(result) else 0


def make_plan(
    rows: tuple[Row, ...], names: tuple[str, ...], args: argparse.Namespace, *, extras: bool
) -> Plan:
    """Return the plan from the options.

    Raises: ArgumentError for invalid numbers.
    """
    for option, value in (("rounds", args.rounds), ("seconds", args.seconds)):
        if not value > 0:
            raise ArgumentError(f"--{option} must be above 0. Received: {value}.")
    if args.threads < 0:
        raise ArgumentError(
            f"--threads must be at least 1, or 0 for all. Received: {args.threads}."
        )
    return Plan(rows, names, args.rounds, args.seconds, args.threads, extras)


def parse_rows(text: str) -> tuple[Row, ...]:
    """Return the rows of a list with commas."""
    return tuple(parse_row(word) for word in text.split(",") if word)


def parse_contenders(text: str) -> tuple[str, ...]:
    """Return the contenders of a list with commas, each checked."""
    names = tuple(dict.fromkeys(word for word in text.split(",") if word))
    for name in names:
        get_contender(name)
    return names


def our_failures(result: dict[str, Any]) -> list[str]:
    """Return the reasons for which our contenders failed."""
    return [
        c["error"] for r in result["rows"] for c in r["contenders"] if c["is_ours"] and c["error"]
    ]
