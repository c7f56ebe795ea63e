"""The stand-in for CuPy refuses what CUDA and CuPy refuse; a launch runs the recorded work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in import STATE, CaptureError, Stream, make_cupy, ndarray
from stand_in_backend import new_backend

from nnbackend.testing.ghost import GhostError

cupy: Any = make_cupy()["cupy"]


def numbers() -> ndarray:
    array: ndarray = cupy.zeros((2, 3), "float32")
    array[...] = 2.0
    return array


@pytest.mark.parametrize("read", [float, bool, np.asarray, list, str])
def test_no_read_by_the_host(read: Callable[[Any], Any]) -> None:
    with pytest.raises(GhostError):
        read(numbers()[0, :1])


def test_a_host_array_is_foreign() -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        numbers() + np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x + x,
        lambda x: cupy.exp(x),
        lambda x: cupy.sum(x),
        lambda x: cupy.empty((3,)),
        lambda x: cupy.matmul(x, x.T, out=cupy.zeros((2, 2), "float32")),
        lambda x: x @ x.T,
        lambda x: x.get(),
        lambda x: x.set(np.zeros((2, 3), np.float32)),
        lambda x: cupy.cuda.Device(0).synchronize(),
        lambda x: STATE.stream.synchronize(),
    ],
)
def test_a_capture_refuses(refused: Callable[[Any], Any]) -> None:
    x, stream = numbers(), Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            with pytest.raises(CaptureError):
                refused(x)
        finally:
            stream.end_capture()


def test_cublas_of_cupy_is_refused_even_with_allocated_memory() -> None:
    x, out, stream = numbers(), cupy.zeros((2, 2), "float32"), Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(CaptureError, match="cuBLAS"):
            cupy.matmul(x, x.T, out=out)
        stream.end_capture()


def test_recorded_work_runs_at_each_launch_and_not_before() -> None:
    x, stream = numbers(), Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        cupy.add(x, x, out=x)
        graph = stream.end_capture()
    assert x.get().tolist() == [[2.0] * 3] * 2
    graph.launch()
    graph.launch()
    assert x.get().tolist() == [[8.0] * 3] * 2


def test_the_default_stream_cannot_capture() -> None:
    with pytest.raises(RuntimeError, match="legacy"):
        Stream.null.begin_capture()


@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_a_real_cupy_is_not_changed() -> None:
    import sys

    before = {name: m for name, m in sys.modules.items() if name.startswith(("cupy", "nnbackend_"))}
    new_backend()
    assert all(sys.modules[name] is module for name, module in before.items())
    assert not isinstance(sys.modules.get("cupy"), type(cupy))
