"""The matrix: every suite of the conformance kit on every backend, in float32 and float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from rows import ROWS, TEST_ONLY, make, registered

from nnbackend.testing import conformance_classes


@pytest.fixture(scope="module", autouse=True)
def _register_test_backends() -> Iterator[None]:
    with registered(*TEST_ONLY):
        yield


for _row in ROWS:
    globals().update(conformance_classes(_row, partial(make, _row)))
