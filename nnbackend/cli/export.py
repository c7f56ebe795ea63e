"""`nnbackend export`: export a trained network as ONNX or NPZ."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnbackend.cli.run_folder import open_run
from nnbackend.model.exporting import export


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a model file")
    parser.add_argument(
        "--out", metavar="FILE",
        help=".onnx or .npz file to write (default: model.onnx beside the model)",
    )  # fmt: skip
    parser.add_argument(
        "--raw", action="store_true",
        help="ONNX with an input for each column of the table, gaps and new categories included, "
        "and outputs label and probabilities, or value",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export and return the exit code."""
    found = open_run(args.run)
    path = Path(args.out) if args.out else found.model.with_suffix(".onnx")
    export(found.load("cpu"), path, raw=args.raw)
    print(path)
    return 0
