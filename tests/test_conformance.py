"""The matrix: every suite of the conformance kit on every backend, in float32 and float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from rows import ROWS, SHIPPED, TEST_ONLY, make, make_or_skip, registered

from nnbackend.errors import BackendUnavailableError
from nnbackend.testing import conformance_classes


@pytest.fixture(scope="module", autouse=True)
def _register_test_backends() -> Iterator[None]:
    with registered(*TEST_ONLY):
        yield


def is_available(row: str) -> bool:
    try:
        make(row)
    except BackendUnavailableError:
        return False
    return True


def is_absent(row: str) -> Callable[[], None]:
    """Return a test that skips in place of a row's suites, or fails where the row is required."""
    return lambda: make_or_skip(row)


for _row in ROWS:
    # A shipped backend without its device is one skip with its reason, not one for each test.
    if _row in SHIPPED and not is_available(_row):
        globals()[f"test_{_row}_is_available"] = is_absent(_row)
    else:
        globals().update(conformance_classes(_row, partial(make, _row)))
