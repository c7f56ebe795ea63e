"""scikit-learn's check_estimator on both classes: `python tests/sklearn_checks.py [BACKEND ...]`.

Prints the count for each backend, and each check that was skipped with the reason.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ESTIMATORS = ("MLPClassifier", "MLPRegressor")
BACKENDS = ("numpy", "numba", "ghost", "cupy_emulated")

# All checks run on every backend, on slow ones with small networks: with the default parameters
# the emulated kernels need 2 minutes for an estimator, with these 10 seconds. They are the
# smallest that pass check_classifiers_train and check_regressors_train.
SLOW = ("ghost", "cupy_emulated")
SMALL: dict[str, dict[str, Any]] = {
    "MLPClassifier": {"hidden_layer_sizes": 4, "max_iter": 6, "learning_rate_init": 0.1},
    "MLPRegressor": {
        "hidden_layer_sizes": 4, "max_iter": 6, "learning_rate_init": 0.1, "batch_size": 40,
    },
}  # fmt: skip

# The checks that scikit-learn skips, and why that is correct.
ARRAY_API = "check_array_api_input"
SKIPS = {
    ARRAY_API: "SciPy needs SCIPY_ARRAY_API=1 before it is imported; this script sets it",
    "check_classifiers_multilabel_output_format_decision_function": "scikit-learn's MLP has no "
    "decision_function either",
}


def checked(model: Any, expected: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Run all checks on an estimator; return scikit-learn's result of each."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[dict[str, Any]] = check_estimator(
            model, expected_failed_checks=dict(expected or {}), on_fail=None, on_skip=None
        )
    return found


def named(found: list[dict[str, Any]], status: str) -> dict[str, str]:
    """Return the checks with a status (passed, failed, skipped, xfail), each with its message."""
    return {r["check_name"]: str(r["exception"]) for r in found if r["status"] == status}


def checked_on(backend: str, name: str) -> list[dict[str, Any]]:
    """Run all checks on one of the classes, on a backend."""
    from rows import TEST_ONLY, registered

    import nnbackend

    with registered(*TEST_ONLY.keys() & {backend}), asked_for(backend):
        return checked(getattr(nnbackend, name)(**(SMALL[name] if backend in SLOW else {})))


@contextmanager
def asked_for(backend: str) -> Iterator[None]:
    """Set NNBACKEND_DEVICE to a backend inside the context."""
    before = os.environ.get("NNBACKEND_DEVICE")
    try:
        os.environ["NNBACKEND_DEVICE"] = backend
        yield
    finally:
        os.environ.pop("NNBACKEND_DEVICE")
        if before is not None:
            os.environ["NNBACKEND_DEVICE"] = before


def main() -> int:
    os.environ["SCIPY_ARRAY_API"] = "1"  # scikit-learn is not imported yet
    failures = 0
    for backend in sys.argv[1:] or BACKENDS:
        for name in ESTIMATORS:
            found = checked_on(backend, name)
            failed, skipped = named(found, "failed"), named(found, "skipped")
            passed = len([r for r in found if r["status"] == "passed"])
            print(f"{backend}, {name}: {passed} passed, {len(failed)} failed", flush=True)
            for check, said in failed.items():
                print(f"  failed {check}: {said}")
            for check, said in skipped.items():
                why = SKIPS.get(check, "NOT EXPLAINED")
                print(f"  skipped {check}: {said} ({why})")
            failures += len(failed) + len(skipped.keys() - SKIPS.keys()) + (passed == 0)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / part) for part in (".", "backends", "tests/cuda")]
    sys.exit(main())
