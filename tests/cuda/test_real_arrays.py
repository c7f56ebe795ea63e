"""The core of the conformance kit on CuPy's own arrays, and the faults that this row must show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nnbackend.testing import conformance_classes

pytest.importorskip("cupy", reason="CuPy is not installed (the extra test-cupy)")

from real_arrays import LACKING, new_row, patched

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


@pytest.fixture(scope="module", autouse=True)
def _cupy_on_the_host() -> Iterator[None]:
    with patched():
        yield


for _name, _suite in conformance_classes("cupy_real_arrays", new_row).items():
    if _name.endswith(("Backend", "Gradient", "Capture")):  # training: only more of the same calls
        globals()[_name] = _suite
