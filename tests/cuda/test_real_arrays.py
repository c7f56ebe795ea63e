"""The core of the conformance kit on CuPy's own arrays, and the faults that this row detects."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stand_in
from emulator import EmulationError
from stand_in import CaptureError
from stand_in_blaslt import Model

from nnbackend.testing import conformance_classes

cupy: Any = pytest.importorskip(
    "cupy", reason="CuPy is not installed (extra test-cupy)", exc_type=ImportError
)
from real_arrays import (  # noqa: E402 - which needs CuPy
    ATTRIBUTES,
    LACKING,
    Library,
    RawKernel,
    host_view,
    new_row,
    new_row_of_defaults,
    patched,
    real_library,
)

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
ROOT = Path(__file__).resolve().parents[2]
SOURCE = """
extern "C" __global__ void fill(float* x, int n, float value) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = value;
}
extern "C" __global__ void gather_column(float* x, long long stride, float* out, long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) out[i] = x[i * stride];
}
"""


# Everything below uses it, including the kit: the tests of this module are the row.
@pytest.fixture(scope="module", autouse=True)
def _cupy_on_the_host() -> Iterator[None]:
    with patched():
        yield


for _name, _suite in conformance_classes("cupy_real_arrays", new_row).items():
    if _name.endswith(("Backend", "Gradient", "Capture")):  # training repeats the same calls
        globals()[_name] = _suite
# CuPy computes what the kernels refuse, so its functions must accept the same calls.
_defaults = conformance_classes("cupy_defaults", new_row_of_defaults)
TestCupyDefaultsBackend = _defaults["TestCupyDefaultsBackend"]


@pytest.fixture
def capturing() -> Iterator[Any]:
    """Yield a kernel and a stream that captures; end the capture after the test."""
    kernel, stream = cupy.RawKernel(SOURCE, "fill"), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        yield kernel, stream
        if stream.is_capturing():
            stream.end_capture()


def ones(*shape: int, dtype: str = "float32") -> Any:
    array = cupy.empty(shape, dtype)
    array.fill(1)
    return array


def fill(*args: Any, **options: Any) -> None:
    cupy.RawKernel(SOURCE, "fill", **options)((1,), (32,), args)


# ---- arguments of kernels -----------------------------------------------------------------------


def test_a_launch_writes_to_the_array() -> None:
    x = ones(3, 4)
    fill(x[1:], np.int32(8), np.float32(2.5))
    assert x.get().tolist() == [[1.0] * 4, [2.5] * 4, [2.5] * 4]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((2**32 + 3, np.float32(2)), "argument 1 must be 'i'. Received: 'q'"),
        ((3, np.float32(2)), "argument 1 must be 'i'. Received: 'q'"),  # right by chance on a GPU
        ((2**63, np.float32(2)), "argument 1 must be 'i'. Received: 'Q'"),
        ((np.int32(3), 2.0), "argument 2 must be 'f'. Received: 'd'"),
        ((np.int32(3), np.float64(2)), "argument 2 must be 'f'. Received: 'd'"),
        ((np.int32(3),), "takes 3 arguments, got 2"),
    ],
)
def test_a_number_of_another_size_fails(numbers: tuple[Any, ...], message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        fill(ones(3), *numbers)


def test_an_int_that_cupy_cannot_pass_fails() -> None:
    with pytest.raises(OverflowError):
        fill(ones(3), 2**64, np.float32(2))


@pytest.mark.parametrize("value", [np.ones(3, np.float32), "x", [1]])
def test_an_argument_that_cupy_does_not_pass_fails(value: Any) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        fill(value, np.int32(3), np.float32(2))


@pytest.mark.parametrize(
    "view", [lambda x: x[:, ::2], lambda x: x.T, lambda x: x[::-1], lambda x: x[:, 1:]]
)
def test_a_strided_view_fails(view: Callable[[Any], Any]) -> None:
    with pytest.raises(EmulationError, match="argument 0 must be contiguous"):
        fill(view(ones(4, 6)), np.int32(3), np.float32(2))


def test_cupy_computes_with_a_strided_view() -> None:
    backend, whole = new_row(), ones(4, 6)
    x, shift, factor = whole[:, ::2], ones(3), ones(3)
    x[1] = 4.0
    backend.scale_rows(x, shift, factor, None, x)
    assert whole.get()[1].tolist() == [3.0, 1.0, 3.0, 1.0, 3.0, 1.0]
    assert "strides" in backend._fallbacks["scale_rows"]


def test_only_the_data_of_gather_may_have_a_stride_between_rows() -> None:
    kernel = cupy.RawKernel(SOURCE, "gather_column")
    x, out = ones(6, 4), cupy.empty((3,), "float32")
    x[::2] = 3.0
    kernel((1,), (32,), (x[::2], np.int64(8), out, np.int64(3)))
    assert out.get().tolist() == [3.0] * 3
    for data, result in ((x.T, out), (x[:, ::2], out), (x, ones(6)[::2])):
        with pytest.raises(EmulationError, match="must be contiguous"):
            kernel((1,), (32,), (data, np.int64(8), result, np.int64(3)))


@pytest.mark.parametrize(("grid", "block"), [([1], (32,)), ((1,), [32]), ((1.0,), (32,))])
def test_a_launch_takes_tuples_of_ints(grid: Any, block: Any) -> None:
    with pytest.raises(TypeError):
        cupy.RawKernel(SOURCE, "fill")(grid, block, (ones(3), np.int32(3), np.float32(2)))


def test_a_kernel_has_the_keywords_of_cupy() -> None:
    x = ones(2)
    fill(x, np.int32(2), np.float32(5), options=("-DA=1",), enable_cooperative_groups=True)
    assert x.get().tolist() == [5.0, 5.0]
    kernel = RawKernel(SOURCE, "fill", backend="nvrtc", enable_cooperative_groups=True)
    assert kernel.enable_cooperative_groups
    with pytest.raises(TypeError, match="cooperative"):
        fill(x, np.int32(2), np.float32(5), cooperative=True)
    with pytest.raises(TypeError, match="options"):
        fill(x, np.int32(2), np.float32(5), options=["-DA=1"])
    with pytest.raises(AttributeError):
        kernel.max_shared = 1


def test_the_stand_in_has_the_driver_attributes_of_a_kernel() -> None:
    kernel = RawKernel(SOURCE, "fill")
    assert set(ATTRIBUTES) <= set(dir(RawKernel.__base__))
    with pytest.raises(AttributeError, match="'RawKernel' object has no attribute"):
        _ = kernel.ptx_version
    kernel._emulated.ptx_version = 90
    assert kernel.ptx_version == 90


# ---- captures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda x: cupy.empty((3,), "float32"),
        lambda x: x + x,
        lambda x: cupy.exp(x),
        lambda x: x.astype("float64"),
        lambda x: x.T.reshape(4),
        lambda x: x[cupy.ndarray((2,), "int64", memptr=x.data)],
        lambda x: cupy.matmul(x, x, out=x),
        lambda x: x @ x,
        lambda x: x.get(),
        lambda x: x.set(np.ones((2, 2), np.float32)),
    ],
)
def test_a_capture_refuses(call: Callable[[Any], Any], outside: Any, capturing: Any) -> None:
    with pytest.raises(CaptureError):
        call(outside)


@pytest.fixture
def outside() -> Any:
    """Return an array allocated before the capture, on any stream."""
    with cupy.cuda.Stream(null=True):
        return ones(2, 2)


def test_a_recorded_step_that_allocates_fails() -> None:
    backend = new_row()
    x = ones(3)
    run = backend.capture(lambda: x.__setitem__(..., x * 2.0))
    with pytest.raises(AssertionError, match="recording failed"):
        run(2)


def test_cupy_calls_the_locked_allocator() -> None:
    def refuse(n_bytes: int) -> Any:
        raise RuntimeError(f"{n_bytes} bytes")

    with cupy.cuda.using_allocator(refuse), pytest.raises(RuntimeError, match=r"^12 bytes"):
        cupy.empty((3,), "float32")
    assert cupy.empty((3,), "float32").shape == (3,)


def test_work_is_recorded_and_runs_at_each_launch(outside: Any, capturing: Any) -> None:
    x, (kernel, stream) = outside, capturing
    cupy.add(x, x, out=x)
    x += 1.0
    x[0] = x[1]
    x[1, 0] = 7.0
    kernel((1,), (32,), (x[1, 1:], np.int32(1), np.float32(9)))
    graph = stream.end_capture()
    assert host_view(x).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    graph.launch()
    assert x.get().tolist() == [[3.0, 3.0], [7.0, 9.0]]
    graph.launch()
    assert x.get().tolist() == [[15.0, 19.0], [7.0, 9.0]]


# ---- what CuPy refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x + np.ones(3, np.float32), TypeError),
        (lambda x: cupy.add(x, np.ones(3, np.float32)), TypeError),
        (lambda x: cupy.add(x, x, out=ones(3, dtype="int32")), TypeError),  # no unsafe cast
        (lambda x: cupy.sum(x, axes=0), TypeError),
        (lambda x: cupy.nonzero(x), NotImplementedError),
        (lambda x: cupy.no_such_function, AttributeError),
        (lambda x: x.set(np.ones(3)), TypeError),  # another dtype
        (lambda x: x.set(np.ones(4, np.float32)), ValueError),
        (lambda x: x[::2].set(np.ones(2, np.float32)), RuntimeError),
        (lambda x: x.get(out=np.ones(3)), TypeError),
        (lambda x: x.get(out=np.ones(4, np.float32)), ValueError),
        (lambda x: np.asarray(x), TypeError),
        (lambda x: x.no_such_method(), AttributeError),
    ],
)
def test_a_wrong_call_fails(call: Callable[[Any], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        call(ones(3))


def test_views_and_results_are_arrays_of_cupy() -> None:
    x = ones(2, 3)
    x[0, 1] = 4.0
    view = x.T[1:, ::-1]
    assert type(view) is type(x) is cupy.ndarray
    assert view.get().tolist() == [[1.0, 4.0], [1.0, 1.0]]
    view[0, 0] = 5.0
    assert x.get().tolist() == [[1.0, 4.0, 1.0], [1.0, 5.0, 1.0]]
    assert (x * 2.0).dtype == np.float32
    assert (2.0 - x)[0].get().tolist() == [1.0, -2.0, 1.0]
    assert (-x > -2.0).get().tolist() == [[True, False, True], [True, False, True]]
    assert (x @ x.T).get().tolist() == [[18.0, 22.0], [22.0, 27.0]]
    assert (x.sum(axis=0) - 1.0).get().tolist() == [1.0, 8.0, 1.0]
    assert x[ones(2, dtype="int64")].get().tolist() == [[1.0, 5.0, 1.0]] * 2


def test_the_host_does_not_warn_about_computations_of_the_device() -> None:
    x = ones(2)
    x *= 1e30
    assert np.isinf(cupy.exp(x).get()).all()
    assert np.isinf(cupy.multiply(x, x, out=x).get()).all()
    x -= x
    assert np.isnan(x.get()).all()


def test_new_memory_holds_nan() -> None:
    assert np.isnan(cupy.empty((3,), "float32").get()).all()
    assert cupy.zeros((3,), "float32").get().tolist() == [0.0] * 3


def test_memory_is_freed() -> None:
    x = ones(3)
    address, view = x.data.ptr, x[1:]
    del x
    assert address in stand_in.STATE.memory
    del view
    assert address not in stand_in.STATE.memory


# ---- products -----------------------------------------------------------------------------------


LAYOUT = {"MatrixLayoutCreate": [ctypes.c_void_p, *[ctypes.c_int] * 4]}


def test_a_product_with_wrong_c_types_fails() -> None:
    create, layout = Library(Model(), LAYOUT).cublasLtMatrixLayoutCreate, ctypes.c_void_p()
    assert create(ctypes.byref(layout), 0, 5, 3, 5) == 0
    with pytest.raises(TypeError):
        create(ctypes.byref(layout), 0, 5.0, 3, 5)
    with pytest.raises(ValueError, match="zip"):
        create(ctypes.byref(layout), 0, 5, 3)


def test_a_status_that_differs_from_the_librarys_fails() -> None:
    real, layout = SimpleNamespace(cublasLtMatrixLayoutCreate=lambda *args: 7), ctypes.c_void_p()
    create = Library(Model(), LAYOUT, real).cublasLtMatrixLayoutCreate
    with pytest.raises(AssertionError, match="MatrixLayoutCreate returns 7, the model 0"):
        create(ctypes.byref(layout), 0, 5, 3, 5)


def test_the_library_and_the_model_return_the_same_statuses() -> None:
    backend = new_row()
    x, W, z = ones(4, 2), ones(2, 6), cupy.empty((4, 6), "float32")
    assert not backend._blas.multiply(x, W, z)
    assert z.get().tolist() == [[2.0] * 6] * 4
    if real_library() is None:
        pytest.skip("cuBLASLt is not installed: only the model receives the descriptions")
    assert (
        backend.library.n_compared == 13
    )  # 1 description, 3 + 5 attributes, 3 layouts, 1 preference


# ---- the row itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Device", "Stream", "Graph"])
def test_the_stand_in_has_only_methods_of_cupy(name: str) -> None:
    module = {"Device": "device", "Stream": "stream", "Graph": "graph"}[name]
    real = getattr(getattr(cupy.cuda, module), name)
    ours = getattr(stand_in, name)
    assert real is not ours
    assert {n for n in vars(ours) if not n.startswith("_")} <= set(dir(real)) | {"work"}


def test_cupy_is_restored() -> None:
    code = """if True:
        import cupy
        def state():
            parts = [(n, id(v)) for m in (cupy, cupy.cuda, cupy.cuda.runtime, cupy.ndarray)
                     for n, v in sorted(vars(m).items())]
            return parts, cupy.cuda.get_allocator(), cupy.empty
        from real_arrays import new_row, patched
        import nnbackend_cupy, sys
        before = state()
        with patched():
            assert state() != before
            backend = new_row()
            backend.to_device(backend.to_host(backend.zeros((2, 3), "float32")))
        assert state() == before
        assert "nnbackend_cupy.backend" not in sys.modules
    """
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "backends", "tests/cuda"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
