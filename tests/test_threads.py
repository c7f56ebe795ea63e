"""BLAS uses one thread for small products; afterwards its number of threads is restored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend_numpy.threads import ONE_THREAD_BELOW, threads_for

threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl sets BLAS's threads")


def blas_threads() -> set[int]:
    """Return the numbers of threads of NumPy's BLAS, without those of SciPy's."""
    found = [b for b in threadpoolctl.threadpool_info() if b["user_api"] == "blas"]
    own = [b for b in found if "numpy" in b["filepath"]]
    return {library["num_threads"] for library in own or found}


def test_small_products_use_one_thread_and_large_ones_all() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with threads_for(ONE_THREAD_BELOW - 1):
            assert blas_threads() == {1}
            with threads_for(10):
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        with threads_for(ONE_THREAD_BELOW):
            assert blas_threads() == {2}


def test_overlapping_runs_restore_the_number_of_threads() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        first, second = threads_for(1), threads_for(1)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {2}


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize(("batch", "threads"), [(8, 1), (1 << 16, 2)])
def test_the_largest_product_of_a_run_decides(device: str, batch: int, threads: int) -> None:
    seen: list[set[int]] = []

    class Look(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            seen.append(blas_threads())

    x = np.zeros((batch, 64), np.float32)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        net = nn.Network([64, 1], device=device)
        nn.train(net, x, x[:, 0], epochs=1, batch_size=batch, callbacks=[Look()])
        assert blas_threads() == {2}
    assert seen == [{threads}]
