"""The matrix: every suite of the conformance kit on every backend, in float32 and float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from rows import ROWS, TEST_ONLY, make, registered

from nnbackend.testing import conformance_classes


@pytest.fixture(scope="module", autouse=True)
def _in_the_registry() -> Iterator[None]:
    with registered(*TEST_ONLY):
        yield


# Faults of the engine that only these rows see; each must fail until it is mended.
KNOWN: dict[str, dict[str, str]] = {
    "ghost": {"test_a_device_split": "rows on the device are split with an index of the host"},
    "strict": {
        "test_a_device_split": "rows on the device are split with an index of the host",
        "test_rows_already_on_the_device": "x[i:j] of a matrix, where the standard has x[i:j, ...]",
    },
}

for _row in ROWS:
    globals().update(
        conformance_classes(_row, partial(make, _row), expected_failures=KNOWN.get(_row))
    )
