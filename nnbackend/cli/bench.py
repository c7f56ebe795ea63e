"""`nnbackend bench`: time per training step on this machine, also beside scikit-learn's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from nnbackend.bench import report
from nnbackend.bench.contenders import OURS, ScikitLearn
from nnbackend.bench.rows import QUICK, parse_rows
from nnbackend.bench.runner import Kind, Plan
from nnbackend.bench.runner import run as carry_out
from nnbackend.errors import ArgumentError
from nnbackend.suggestions import suggest

PEERS: dict[str, Kind] = {ScikitLearn.name: ScikitLearn}  # installed with this library


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    usual = ",".join(row.name for row in QUICK)
    parser.add_argument(
        "--compare", metavar="LIST", default="",
        help=f"peers to measure too: {','.join(PEERS)} "
        "(PyTorch and JAX: python -m benchmarks.cpu, in the source tree)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", metavar="LIST", default=usual,
        help="what to train, sizes:batch or sizes:batch:momentum; further options are quadratic, "
        "maxout2, dropout0.5 (default: %(default)s)",
    )  # fmt: skip
    add_measuring(parser, seconds=0.5)
    parser.add_argument(
        "--threads", type=int, metavar="N", default=0,
        help="for every contender (default: as many as there are CPUs)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")


def add_measuring(parser: argparse.ArgumentParser, *, seconds: float) -> None:
    """Add the options for the duration of measurements."""
    parser.add_argument(
        "--rounds", type=int, metavar="N", default=3,
        help="measurements of each row and contender (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, metavar="S", default=seconds,
        help="duration of each measurement (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure and print the table; return 1 if one of our contenders failed."""
    kinds = (*OURS, *chosen(args.compare, PEERS))
    result = carry_out(Plan(parse_rows(args.rows), kinds, args.rounds, args.seconds, args.threads))
    print(report.facts(result), end="\n\n")
    print(report.times_table(result))
    if args.json:
        print(json.dumps(result))
    return 1 if our_failures(result) else 0


def chosen(text: str, known: Mapping[str, Kind]) -> tuple[Kind, ...]:
    """Return the contenders of a list with commas.

    Raises: ArgumentError for an unknown name.
    """
    names = tuple(dict.fromkeys(word for word in text.split(",") if word))
    for name in names:
        if name not in known:
            raise ArgumentError(f"unknown contender {name!r}. {suggest(name, known)}")
    return tuple(known[name] for name in names)


def our_failures(result: dict[str, Any]) -> list[str]:
    """Return the reasons for which our contenders failed."""
    return [
        c["error"] for r in result["rows"] for c in r["contenders"] if c["is_ours"] and c["error"]
    ]
