"""`nnbackend devices`: which devices there are, why others cannot be used, what auto takes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np

from nnbackend.backend import BackendRow, backends, get_backend
from nnbackend.bench.machine import blas_lines
from nnbackend.cli.run_folder import to_json
from nnbackend.errors import NNBackendError
from nnbackend.network.network import Network
from nnbackend.testing.gradient_check import check_gradients


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `devices`."""
    parser.add_argument("--json", action="store_true", help="end stdout with one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Print a line for each backend; the exit code is always good."""
    blas = blas_lines()  # before a self-test loads another library's
    rows = backends()
    tests = {row.name: self_test(row) for row in rows if row.usable}
    try:
        auto = get_backend("auto").device
    except NNBackendError as error:
        auto = f"none ({error})"
    widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, rows), strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(_cells(row), widths, strict=True)]
        print("  ".join([*cells, _last_cell(row, tests)]))
        for name, value in row.details:
            print(f"    {name}: {value}")
    print(f"auto would take {auto}")
    for line in blas:
        print(f"BLAS of NumPy: {line}")
    if args.json:
        facts = [{**asdict(row), "self_test": tests.get(row.name)} for row in rows]
        print(to_json({"backends": facts, "auto": auto, "blas": blas}))
    return 0


def self_test(row: BackendRow) -> str:
    """Multiply two small matrices and check a gradient on a backend; say how it went."""
    try:
        backend = get_backend(row.devices[0])
        net = Network([3, 4, 2], activation="tanh", device=backend, dtype="float64")
        x = np.linspace(-1.0, 1.0, 15).reshape(5, 3)
        z = backend.to_host(net.trace(backend.to_device(x)).z[0])
        weights, biases = net.get_parameters()
        error = float(np.abs(z - (x @ weights[0] + biases[0])).max())
        if not error < 1e-12:
            return f"FAILED: a product of matrices is off by {error:.1e}"
        check = check_gradients(net, x, np.linspace(0.0, 1.0, 10).reshape(5, 2))
        if not check:
            return f"FAILED: a gradient is off by {check.max_error:.1e}"
    except Exception as error:  # a broken device must not hide the others
        return f"FAILED: {type(error).__name__}: {error}"
    return "passed"


def _cells(row: BackendRow) -> tuple[Any, ...]:
    return row.name, row.kind, "usable" if row.usable else "not usable", row.version


def _last_cell(row: BackendRow, tests: dict[str, str]) -> str:
    if row.usable:
        return f"{', '.join(row.devices)}; self-test {tests[row.name]}"
    return f"{row.reason} -> {row.cure}" if row.cure else row.reason
