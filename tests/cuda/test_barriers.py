"""Each barrier is needed: without any one of them, the row `cupy_emulated` fails the kit.

These tests call the kit's tests that must fail as the row runs them: on the stand-in, with its
model of cuBLASLt, each launch in two orders of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from emulator import LACKING, EmulationError
from narrow_runs import ShortRun, differences
from output_layers import on_a_small_gpu
from stand_in_backend import new_row

from nnbackend.backend import philox
from nnbackend.testing.layer_checks import LayerChecks
from nnbackend.testing.loss_checks import LossChecks
from nnbackend.testing.update_checks import UpdateChecks
from nnbackend_cupy import sources
from nnbackend_cupy.narrow_source import CLUSTER, GRID, Grid

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))

BARRIER = "__syncthreads();"
Check = Callable[[Any], None]

DEEP = (20, (33, "tanh"), (35, "elu"), (3, "softmax"))
SQUARED = (20, (33, "tanh"), (3, "sigmoid"))
WIDE = (200, (30, "sigmoid"), (5, "softmax"))


def narrow(
    row: Any,
    grid: Grid,
    widths: Any = DEEP,
    rows: int = 211,
    loss: str = "cross_entropy",
    parts: Sequence[int] = (1, 1, 2),
) -> None:
    """Check steps of a narrow network, in launches of one step and of more."""
    row.narrow_grid = grid
    options = {"rows": rows, "n": sum(parts) * rows, "l2": 0.01, "weighted": True}
    mine = ShortRun(row, widths, loss, **options)
    wanted = ShortRun("numpy", widths, loss, dtype="float64", **options)
    for run in (mine, wanted):
        run.steps(run.captured(), *parts)
    assert row.narrow_reason is None
    assert all(d < 2e-5 for d in differences(mine.state(), wanted.state()).values())


def tall(row: Any, *sizes: int) -> None:
    """Check a weight gradient whose blocks have many stages of rows."""
    rows, n_in, n_out = sizes
    row._kernels._multiprocessors = 2
    rng = np.random.default_rng(rows)
    x, delta = (rng.standard_normal((rows, n)).astype(np.float32) for n in (n_in, n_out))
    dW, db = row.zeros((n_in, n_out), "float32"), row.zeros((n_out,), "float32")
    for _ in range(3):
        row._kernels.weight_gradient(row.to_device(x), row.to_device(delta), dW, db)
        np.testing.assert_allclose(row.to_host(dW), x.T @ delta, atol=5e-4)
        np.testing.assert_allclose(row.to_host(db), delta.sum(axis=0), atol=5e-4)


# The index of a barrier in a file, and the test that must fail without it.
NOTICED: dict[tuple[str, int], Check] = {
    ("common.cu", 0): lambda row: UpdateChecks().test_max_norm(row, "float64"),
    ("common.cu", 1): lambda row: UpdateChecks().test_max_norm(row, "float64"),
    ("common.cu", 2): lambda row: LayerChecks().test_dense_backward_of_many_rows(row, "float64"),
    ("common.cu", 3): lambda row: UpdateChecks().test_add_penalty(row, "float64", 0.02, 0.3),
    ("dropout.cu", 0): lambda row: LayerChecks().test_dropout_forward(row, "float64", 40, 0.3),
    ("loss.cu", 0): lambda row: LossChecks().test_loss_and_delta(row, "float64", "quadratic", True),
    **{("narrow.cu", i): lambda row: narrow(row, Grid(GRID, 3, 64)) for i in range(9)},
    ("narrow.cu", 9): lambda row: narrow(row, Grid(GRID, 3, 64), WIDE, 20),
    ("narrow.cu", 10): lambda row: narrow(row, Grid(GRID, 3, 64)),
    ("narrow.cu", 11): lambda row: narrow(row, Grid(GRID, 3, 64), SQUARED, 20, "quadratic"),
    **{("narrow.cu", i): lambda row: narrow(row, Grid(GRID, 3, 64)) for i in (12, 13)},
    **{("output.cu", i): on_a_small_gpu for i in range(2)},
    **{("thin_gradient.cu", i): lambda row: tall(row, 300, 40, 7) for i in range(2)},
    ("update.cu", 0): lambda row: UpdateChecks().test_optimizer_step(row, "float64", "adam", 0.1),
    **{("weight_gradient.cu", i): lambda row: tall(row, 1200, 60, 64) for i in range(3)},
}


def without(text: str, i: int) -> str:
    """Return a text without one of its barriers."""
    parts = text.split(BARRIER)
    return BARRIER.join(parts[: i + 1]) + BARRIER.join(["", *parts[i + 1 :]])[len(BARRIER) :]


@pytest.mark.parametrize(("file", "i"), NOTICED)
def test_kernels_are_correct_with_all_barriers(file: str, i: int) -> None:
    NOTICED[file, i](new_row())


@pytest.mark.parametrize(("file", "i"), NOTICED)
def test_a_missing_barrier_is_detected(monkeypatch: pytest.MonkeyPatch, file: str, i: int) -> None:
    whole = sources.file_text
    monkeypatch.setattr(
        sources, "file_text", lambda name: without(whole(name), i) if name == file else whole(name)
    )
    with pytest.raises((EmulationError, AssertionError)):
        NOTICED[file, i](new_row())


# Among blocks: which of the barriers of a step, and on which grids.
@pytest.mark.parametrize("grid", [Grid(CLUSTER, 8, 64), Grid(GRID, 3, 64)], ids=str)
@pytest.mark.parametrize("i", range(4))
def test_a_missing_barrier_among_blocks_is_detected(
    monkeypatch: pytest.MonkeyPatch, i: int, grid: Grid
) -> None:
    whole = sources.file_text

    def lacking(name: str) -> str:
        text = whole(name)
        for call, instead in (
            ("KERNEL_arrive(counter);", "0; __syncthreads();"),
            ("KERNEL_wait(counter, all);", BARRIER),
        ):
            parts = text.split(call)
            if name == "narrow.cu":
                assert len(parts) == 5
                text = call.join(parts[: i + 1]) + instead + call.join(parts[i + 1 :])
        return text

    monkeypatch.setattr(sources, "file_text", lacking)
    with pytest.raises((EmulationError, AssertionError)):
        narrow(new_row(), grid, WIDE if i == 1 else DEEP, 20)


@pytest.mark.parametrize("what", ["s % 2 * CAPACITY", "s % 2 * gridDim.x"])
def test_double_buffers_are_needed(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    whole = sources.file_text
    text = whole("narrow.cu")
    assert text.count(what) == 1
    monkeypatch.setattr(
        sources,
        "file_text",
        lambda name: text.replace(what, "0") if "narrow" in name else whole(name),
    )
    with pytest.raises((EmulationError, AssertionError)):
        narrow(new_row(), Grid(GRID, 3, 64), DEEP, 20, parts=(4, 4, 4))


def test_every_barrier_is_tested() -> None:
    there = {
        (path.name, i)
        for path in sources.FOLDER.glob("*.cu")
        for i in range(path.read_text(encoding="utf-8").count(BARRIER))
    }
    assert there == set(NOTICED)
    assert without(f"a{BARRIER}b{BARRIER}c", 1) == f"a{BARRIER}bc"
    assert philox.UNITS_PER_BLOCK == 16  # as in dropout.cu
