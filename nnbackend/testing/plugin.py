"""The kit's pytest plug-in: which installed backend to test, and the table of results.

NNBACKEND_TEST=mine pytest -p nnbackend.testing.plugin --pyargs nnbackend.testing
pytest -p nnbackend.testing.plugin --pyargs nnbackend.testing --nnb-backend mine
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

from nnbackend.testing import register_assert_rewrite

register_assert_rewrite()

CHOICE = "NNBACKEND_TEST"
PROPERTY = "nnbackend"  # as in `kit`, which is imported only after pytest has set up rewriting

_asked_for: list[str] = []
_results: dict[str, dict[str, Counter[str]]] = {}
_reasons: dict[str, Counter[str]] = {}


def chosen() -> list[str]:
    """Return the backends that the command line or NNBACKEND_TEST names."""
    names = ",".join(_asked_for) or os.environ.get(CHOICE, "")
    return [name.strip() for name in names.split(",") if name.strip()]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a backend."""
    parser.addoption(
        "--nnb-backend",
        action="append",
        default=[],
        metavar="NAME",
        help=f"test this installed backend of nnbackend (else what {CHOICE} names)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Store the option's names before the tests are collected."""
    _asked_for[:] = config.getoption("--nnb-backend")
    _results.clear()
    _reasons.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count a result under its backend and suite."""
    properties: dict[str, Any] = dict(report.user_properties)
    place = properties.get(PROPERTY)
    is_result = report.when == "call" or report.outcome != "passed"
    if place is None or not is_result:
        return
    row, column = place
    outcome = report.outcome
    reason = ""
    if isinstance(report.longrepr, tuple):
        file, _, reason = report.longrepr
        report.longrepr = (file, None, reason)  # type: ignore[assignment]  # one line a file
    if hasattr(report, "wasxfail"):
        outcome, reason = "xfailed", str(report.wasxfail)  # type: ignore[assignment]
    _results.setdefault(row, {}).setdefault(column, Counter())[outcome] += 1
    if reason:
        _reasons.setdefault(row, Counter())[" ".join(reason.removeprefix("Skipped: ").split())] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, backend by suite, and why tests were skipped or expected to fail."""
    if _results:
        terminalreporter.section("conformance")
        for line in table():
            terminalreporter.line(line)


def table() -> list[str]:
    """Return the lines of the table of results so far."""
    columns = list(dict.fromkeys(c for row in _results.values() for c in row))
    cells = [["backend", *columns]]
    for row, results in _results.items():
        cells.append([row, *(_cell(results.get(column, Counter())) for column in columns)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns) + 1)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    for row, reasons in _reasons.items():
        lines += [f"{row}: {count} x {reason}" for reason, count in reasons.items()]
    return lines


def _cell(counts: Counter[str]) -> str:
    order = ("passed", "failed", "skipped", "xfailed")
    return ", ".join(f"{counts[o]} {o}" for o in order if counts[o]) or "-"
