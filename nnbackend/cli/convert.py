"""`nnbackend convert`: a table of numbers as a folder of shards, which need not fit in memory."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.data.converting import convert, find_tables, table_parts
from nnbackend.errors import ArgumentError, Fault
from nnbackend.options import AT_LEAST_1
from nnbackend.persistence.atomic_file import atomic_write, sweep

FACTS = "shards.json"  # what the shards were made of, to continue


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `convert`."""
    parser.add_argument(
        "data", metavar="DATA", help="a .csv or .parquet table of numbers, a folder of them, or "
        "a pattern in quotes: 'data/*.csv'",
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", help="folder of the shards, which is made")
    parser.add_argument(
        "--target", metavar="COLUMN",
        help="column of the targets (default: the last one, or a first one called label, target, "
        "class or y)",
    )  # fmt: skip
    parser.add_argument("--rows", metavar="N", default="100000", help="rows of a shard "
                        "(default: 100000)")  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("float32", "float64", "uint8"), default="float32",
        help="number type of the features (default: float32)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print no progress to stderr")
    parser.epilog = (
        f"{parser.epilog}\n\nThe same command continues an interrupted conversion. "
        "Train on the folder: nnbackend train FOLDER"
    )


def run(args: argparse.Namespace) -> int:
    """Convert and return the exit code."""
    try:
        n_rows = AT_LEAST_1.parse(args.rows)
    except ValueError:
        raise ArgumentError(Fault("rows", AT_LEAST_1.expected, args.rows)) from None
    sources, folder = find_tables(args.data), Path(args.folder)
    parts = table_parts(sources, args.target, n_rows)
    done = _done(folder, _facts(sources, args, n_rows))
    begin = time.perf_counter()

    def write(name: str, array: Any) -> None:
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        atomic_write(folder / name, content.getvalue())

    def show(shards: int, rows: int) -> None:
        if not args.quiet:
            known = " (existed)" if shards <= done else ""
            seconds = time.perf_counter() - begin
            print(f"shard {shards}: {rows:,} rows, {seconds:.1f} s{known}", file=sys.stderr)

    n = convert(parts, write, done, args.dtype, show)
    print(f"{n:,} rows in {folder}")
    return 0


def _facts(sources: Sequence[Path], args: argparse.Namespace, n_rows: int) -> dict[str, Any]:
    """Return what a conversion depends on."""
    status = [source.stat() for source in sources]
    return {
        "source": str(Path(args.data).resolve()), "files": len(sources),
        "bytes": sum(s.st_size for s in status), "changed": max(s.st_mtime_ns for s in status),
        "target": args.target, "rows": n_rows, "dtype": args.dtype,
    }  # fmt: skip


def _done(folder: Path, facts: dict[str, Any]) -> int:
    """Return the number of shards that an earlier conversion has completed; make the folder.

    Raises: ArgumentError for a folder with anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, "*")
    known = folder / FACTS
    if known.is_file() and json.loads(known.read_text(encoding="utf-8")) == facts:
        return len(list(folder.glob("y-*.npy")))
    if any(folder.iterdir()):
        raise ArgumentError(
            f"FOLDER must be new, empty, or that of the same conversion. Received: {folder}, which "
            "has other files. Choose another one."
        )
    atomic_write(known, json.dumps(facts).encode())
    return 0
