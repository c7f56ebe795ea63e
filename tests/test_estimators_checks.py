"""scikit-learn's contract: its check_estimator and its MLP tests, on our classes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn_checks
from rows import make_or_skip
from sklearn_checks import ARRAY_API, ESTIMATORS, SKIPS, named

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("backend", ["numpy", "numba", "cupy_emulated"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_check_estimator(name: str, backend: str) -> None:
    pytest.importorskip("pandas")
    make_or_skip(backend)
    found = sklearn_checks.checked_on(backend, name)
    assert not named(found, "failed")
    assert not any(r["expected_to_fail"] for r in found)
    assert named(found, "skipped").keys() == (
        SKIPS.keys() if name == "MLPClassifier" else {ARRAY_API}
    )
    assert len(found) > 50


def _output(script: str, backend: str) -> str:
    """Run a script of this folder on a backend; return its output."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / script), backend],
        env={k: v for k, v in os.environ.items() if k != "NNBACKEND_DEVICE"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_script_runs_the_array_api_check_and_explains_skips() -> None:
    said = _output("sklearn_checks.py", "ghost")
    assert said.count("passed, 0 failed") == len(ESTIMATORS)
    skipped = [line for line in said.splitlines() if "skipped" in line]
    assert len(skipped) == 1, said
    assert skipped[0].endswith(f"({SKIPS[skipped[0].split()[1].rstrip(':')]})")


def test_scikit_learns_own_tests_pass() -> None:
    said = _output("sklearn_suite.py", "numpy")
    counted = re.search(r"^numpy: (\d+) passed, 0 failed$", said, re.MULTILINE)
    assert counted, said
    assert int(counted[1]) > 50
    assert "numpy: skipped" not in said
