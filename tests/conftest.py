"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from mpi_processes import MPIEXEC, lacking
from rows import ROWS, make_or_skip

from nnbackend.backend import Backend

# Set before anything imports matplotlib: no test may open a window.
os.environ["MPLBACKEND"] = "Agg"

pytest_plugins = ["nnbackend.testing.plugin"]  # prints the table of tests/test_conformance.py


@pytest.fixture(params=ROWS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return each backend of the matrix in turn; skip, with the reason, if it is not available."""
    return make_or_skip(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a host generator with a fixed seed, of the engine's kind."""
    return np.random.Generator(np.random.Philox(0))


@pytest.fixture
def mpiexec() -> str:
    """Return the path of mpiexec; skip, with the reason, if it starts no processes."""
    if reason := lacking():
        pytest.skip(reason)
    return str(MPIEXEC)


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    """Install Python's Ctrl-C handler, which processes in the background lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of tests/reliability")


def pytest_cmdline_main(config: pytest.Config) -> None:
    """With pytest-xdist, give each worker a run of files, then let idle ones take from others."""
    if getattr(config.option, "dist", None) == "load":  # the default of -n
        config.option.dist = "worksteal"
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of each worker
