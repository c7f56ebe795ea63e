"""scikit-learn's tests of its MLP, run on our classes: `python tests/sklearn_suite.py`.

The test module is the installed one, unchanged, with our two classes. Prints the count for each
backend, and each test that cannot apply with the reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sklearn_checks import ESTIMATORS, asked_for

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("numpy", "numba")
MODULE = "sklearn.neural_network.tests.test_mlp"

# Tests of internals that only scikit-learn's code has.
NOT_APPLICABLE = {
    "test_gradient": "calls the private _loss_grad_lbfgs with scikit-learn's buffers; "
    "our gradients are checked by tests/test_gradients.py",
}


@dataclass(eq=False)
class Count:
    """A pytest plug-in that counts outcomes and deselects tests that cannot apply."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        left_out = [i for i in items if i.originalname in NOT_APPLICABLE]
        items[:] = [i for i in items if i.originalname not in NOT_APPLICABLE]
        config.hook.pytest_deselected(items=left_out)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid.rpartition("::")[2])
        elif report.skipped:
            self.skipped.append(report.nodeid.rpartition("::")[2])
        elif report.when == "call":
            self.passed += 1


@contextmanager
def replaced_classes(backend: str) -> Iterator[None]:
    """Replace sklearn.neural_network's classes by ours, on a backend, inside the context."""
    import sklearn.neural_network as theirs

    import nnbackend

    saved = {name: getattr(theirs, name) for name in ESTIMATORS}
    try:
        for name in ESTIMATORS:
            setattr(theirs, name, getattr(nnbackend, name))
        sys.modules.pop(MODULE, None)
        with asked_for(backend):
            yield
    finally:
        for name, value in saved.items():
            setattr(theirs, name, value)
        sys.modules.pop(MODULE, None)


def run(backend: str) -> Count:
    """Run the suite on a backend."""
    count = Count()
    with replaced_classes(backend):
        pytest.main(
            ["--pyargs", MODULE, "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
             "-c", os.devnull],
            plugins=[count],
        )  # fmt: skip
    return count


def main() -> int:
    failures = 0
    for backend in sys.argv[1:] or BACKENDS:
        count = run(backend)
        print(f"{backend}: {count.passed} passed, {len(count.failed)} failed", *count.failed)
        for name in count.skipped:
            print(f"{backend}: skipped {name}")
        failures += len(count.failed) + (count.passed == 0)
    for name, reason in NOT_APPLICABLE.items():
        print(f"cannot apply: {name}: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    # pytest loads the conftest.py here, which needs all of these.
    sys.path[:0] = [str(ROOT / part) for part in (".", "backends", "tests/cuda")]
    sys.exit(main())
