"""`nnbackend devices`: list the devices, why others cannot be used, and what auto selects."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from nnbackend.backend import BackendRow
from nnbackend.cli.run_folder import to_json
from nnbackend.devices import backends, get_backend
from nnbackend.devices.registry import VARIABLE
from nnbackend.errors import NNBackendError
from nnbackend.machine import blas_lines, cpu_name, usable_cpus
from nnbackend.network.network import Network
from nnbackend.testing.gradient_check import check_gradients

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `devices`."""
    parser.add_argument("--json", action="store_true", help="end stdout with one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Print each backend with its devices; return 1 if the self-test of a usable one fails."""
    blas = blas_lines()  # before a self-test loads the BLAS of another library
    rows = backends()
    tests = {device: self_test(device) for row in rows for device in row.devices}
    try:
        auto = get_backend("auto").device
    except NNBackendError as error:
        auto = f"none ({error})"
    for row in rows:
        print("\n".join(_lines(row, tests)))
    print(f"auto selects {auto}")
    if word := os.environ.get(VARIABLE):
        print(f"{VARIABLE} is {word!r}: the default of --device and device=")
    print(f"processor: {cpu_name()}; cores that can be used: {len(usable_cpus())}")
    for line in blas:
        print(f"BLAS of NumPy: {line}")
    failed = [device for device, result in tests.items() if result != "passed"]
    if failed:
        print(f"the self-test of {', '.join(failed)} FAILED: do not use these devices")
    if args.json:
        facts = [
            {**asdict(row), "self_test": _worst([tests[device] for device in row.devices])}
            for row in rows
        ]
        print(to_json({"backends": facts, "auto": auto, "blas": blas}))
    return 1 if failed else 0


def self_test(device: str) -> str:
    """Return "passed", or the wrong result of a device: a matrix product, a gradient."""
    try:
        backend = get_backend(device)
        dtype = "float64" if "float64" in backend.float_dtypes else "float32"
        net = Network([3, 4, 2], activation="tanh", device=backend, dtype=dtype)
        x = np.linspace(-1.0, 1.0, 15).reshape(5, 3).astype(dtype)
        z = backend.to_host(net.trace(backend.to_device(x)).z[0])
        weights, biases = net.get_parameters()
        error = float(np.abs(z - (x @ weights[0] + biases[0])).max())
        if not error < TOLERANCE[dtype]:
            return f"FAILED: a matrix product is off by {error:.1e}"
        check = check_gradients(net, x, np.linspace(0.0, 1.0, 10).reshape(5, 2))
        if not check:
            return f"FAILED: a gradient is off by {check.max_error:.1e}"
    except Exception as error:  # a broken device must not hide the others
        return f"FAILED: {type(error).__name__}: {error}"
    return "passed"


def _worst(results: list[str]) -> str | None:
    """Return the first failure of a backend's devices, else "passed"; None without devices."""
    return next((r for r in results if r != "passed"), "passed" if results else None)


def _lines(row: BackendRow, tests: dict[str, str]) -> Iterator[str]:
    """Yield a line for the backend, then one for each device, fact, cause and cure."""
    usable = "usable" if row.usable else "not usable"
    yield f"{row.name:<8}{row.kind:<5}{usable:<12}{row.version}".rstrip()
    for device, kind in zip(row.devices, row.kinds, strict=True):
        more = ""
        if tests[device] == "passed":
            backend = get_backend(device)
            if len(backend.precisions) > 1:
                more = f"  precision {' or '.join(backend.precisions)}"
            more += f"  at most {backend.threads} threads" if backend.threads > 1 else ""
        yield from _wrapped(f"{device}  {kind}  self-test {tests[device]}{more}")
    for name, value in row.details:
        yield f"    {name}: {value}"
    for cause in filter(None, row.reason.split("; ")):
        yield from _wrapped(f"why: {cause}")
    for cure in filter(None, row.cure.split(", then ")):
        yield f"    cure: {cure}"  # a command, never broken into lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False
    )
