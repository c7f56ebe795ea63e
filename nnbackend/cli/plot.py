"""`nnbackend plot`: the curves of a run, drawn again from its history.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnbackend.cli.run_folder import CONFIG, CURVES, HISTORY, read_history
from nnbackend.cli.settings import read_config
from nnbackend.errors import ArgumentError
from nnbackend.plots import curves


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plot`."""
    parser.add_argument("run", metavar="RUN", help="a run folder, also of a run under way")
    parser.add_argument(
        "--out", metavar="FILE", help="the picture: .png, .svg or .pdf (default: RUN/curves.png)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw; give the exit code."""
    folder = Path(args.run)
    history = folder / HISTORY
    if not history.is_file():
        raise ArgumentError(
            f"RUN must be a run folder. Received: {args.run}, which holds no {HISTORY}."
        )
    config = folder / CONFIG
    monitor = read_config(config).get("monitor") if config.is_file() else None
    path = Path(args.out) if args.out else folder / CURVES
    curves(read_history(history), path, monitor=monitor)
    print(path)
    return 0
