"""Fixtures of the fault tests: short and long forms, figures for the report, scripts.

`pytest tests/reliability` runs the short forms, `pytest tests/reliability --long` the long ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends"), str(HERE)]),
    "OPENBLAS_NUM_THREADS": "1",
}
FIGURES: list[str] = []

collect_ignore = [] if os.name == "posix" else [path.name for path in HERE.glob("test_*.py")]

Script = Callable[..., dict[str, Any]]


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Return a function that selects the short or the long number."""
    is_long = request.config.getoption("--long")
    return lambda short, long: long if is_long else short


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that adds a line of figures to the report."""
    return lambda text: FIGURES.append(f"{request.node.name}: {text}")


def command(name: str) -> str:
    """Return the path of a program, or skip the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture
def script() -> Script:
    """Return a function that runs a script of this folder and parses its last line as JSON."""

    def run(name: str, *words: object, under: Sequence[str] = (), **more: str) -> dict[str, Any]:
        done = subprocess.run(
            [*under, sys.executable, str(HERE / name), *map(str, words)],
            env={**ENVIRONMENT, **more}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return result | {"code": done.returncode, "stderr": done.stderr}

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("reliability")
        for line in FIGURES:
            terminalreporter.write_line(line)
