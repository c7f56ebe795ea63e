"""Each barrier is needed: with any one of them taken out, the row `cupy_emulated` fails the kit.

The tests of the kit that must fail are called here as the row runs them: on the stand-in, with its
choosy model of cuBLASLt, each launch in two orders of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from emulator import LACKING, EmulationError
from stand_in_backend import new_row

from nnbackend.backend import philox
from nnbackend.testing.layer_checks import LayerChecks
from nnbackend.testing.loss_checks import LossChecks
from nnbackend.testing.update_checks import UpdateChecks
from nnbackend_cupy import sources

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))

BARRIER = "__syncthreads();"
Check = Callable[[Any], None]

# Which barrier of a file, and the test that must notice that it is gone.
NOTICED: dict[tuple[str, int], Check] = {
    ("common.cu", 0): lambda row: UpdateChecks().test_max_norm(row, "float64"),
    ("common.cu", 1): lambda row: UpdateChecks().test_max_norm(row, "float64"),
    ("common.cu", 2): lambda row: LayerChecks().test_dense_backward_of_many_rows(row, "float64"),
    ("common.cu", 3): lambda row: UpdateChecks().test_add_penalty(row, "float64", 0.02, 0.3),
    ("layers.cu", 0): lambda row: LayerChecks().test_dropout_forward(row, "float64", 40, 0.3),
    ("loss.cu", 0): lambda row: LossChecks().test_loss_and_delta(row, "float64", "quadratic", True),
    ("update.cu", 0): lambda row: UpdateChecks().test_optimizer_step(row, "float64", "adam", 0.1),
}


def without(text: str, i: int) -> str:
    """Take out one barrier."""
    parts = text.split(BARRIER)
    return BARRIER.join(parts[: i + 1]) + BARRIER.join(["", *parts[i + 1 :]])[len(BARRIER) :]


@pytest.mark.parametrize(("file", "i"), NOTICED)
def test_all_is_right_with_all_barriers(file: str, i: int) -> None:
    NOTICED[file, i](new_row())


@pytest.mark.parametrize(("file", "i"), NOTICED)
def test_a_barrier_less_shows(monkeypatch: pytest.MonkeyPatch, file: str, i: int) -> None:
    whole = sources._file
    monkeypatch.setattr(
        sources, "_file", lambda name: without(whole(name), i) if name == file else whole(name)
    )
    with pytest.raises((EmulationError, AssertionError)):
        NOTICED[file, i](new_row())


def test_no_barrier_is_left_out() -> None:
    there = {
        (path.name, i)
        for path in sources.FOLDER.glob("*.cu")
        for i in range(path.read_text(encoding="utf-8").count(BARRIER))
    }
    assert there == set(NOTICED)
    assert without(f"a{BARRIER}b{BARRIER}c", 1) == f"a{BARRIER}bc"
    assert philox.UNITS_PER_BLOCK == 16  # as layers.cu has it
