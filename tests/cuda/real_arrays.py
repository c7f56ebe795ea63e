"""The CuPy backend on CuPy's own arrays, on a machine without a GPU.

The arrays are real `cupy.ndarray` objects over host memory, allocated through CuPy's allocator
hook. So CuPy itself checks shapes, dtypes, views, keywords and locked allocators. A call goes to
CuPy first; NumPy computes on the same memory what CuPy cannot compute without a device. Kernels
run in the emulator, on the bytes that CuPy would pass; streams, graphs and products are those of
the stand-in. A call without an equivalent in NumPy fails with CuPy's own error.

Source: CuPy 14.2 as it behaves without a device; cupy/cuda/function.pyx (how numbers are passed).
"""

from __future__ import annotations

import ctypes
import inspect
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import cupy
import emulator
import numpy as np
import pytest
import stand_in
from cupy._core._scalar import CScalar
from cupy.cuda import MemoryPointer, PinnedMemoryPointer, UnownedMemory
from cupy.cuda.memory import OutOfMemoryError
from cupy.cuda.runtime import CUDARuntimeError
from stand_in import STATE
from stand_in_blaslt import Model

from nnbackend.errors import BackendUnavailableError
from nnbackend.testing.standard import HOST_ANSWERS, VALUE_SHAPES

ALIGNMENT = 512  # of memory, as in CuPy's pool
# Kernels with a stride of rows as an argument; the others need contiguous arrays, since CuPy passes
# an array as the address of its first element.
TAKES_STRIDED_ROWS = "gather"
# Attributes of a kernel that CuPy queries from the driver.
ATTRIBUTES = (
    *("attributes", "binary_version", "cache_mode_ca", "const_size_bytes", "local_size_bytes"),
    *("max_dynamic_shared_size_bytes", "max_threads_per_block", "num_regs"),
    *("preferred_shared_memory_carveout", "ptx_version", "shared_size_bytes"),
)
PRODUCTS = ("matmul", "dot", "tensordot", "vdot", "inner")  # CuPy's own, which use cuBLAS
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_BITS = ("and", "or", "xor", "lshift", "rshift")
OPERATORS = (
    *(f"__{side}{word}__" for word in (*_BINARY, *_BITS, "matmul") for side in ("", "r")),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__neg__", "__pos__", "__abs__", "__invert__"),
)
METHODS = ("__getitem__", "copy", "reshape", "ravel", "sum", "mean", "max", "min", "take")
WRITERS = (*(f"__i{word}__" for word in (*_BINARY, *_BITS)), "__setitem__", "fill")
REAL_GET, REAL_SET = cupy.ndarray.get, cupy.ndarray.set


def _lacking() -> str | None:
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except CUDARuntimeError:
        n_devices = 0
    if n_devices:  # CuPy's kernels would run there, on addresses of the host
        return "there is a GPU: the row `cupy` runs on it"
    return emulator.LACKING


LACKING = _lacking()  # why the row cannot run here; None if it can


# ---- memory -------------------------------------------------------------------------------------


class _Face:
    """An object with the array interface for NumPy, which keeps the array alive."""

    def __init__(self, array: cupy.ndarray) -> None:
        self.array = array
        self.__array_interface__ = {
            "data": (array.data.ptr, False),
            "shape": array.shape,
            "strides": array.strides,
            "typestr": array.dtype.str,
            "version": 3,
        }


def host_view(array: cupy.ndarray) -> np.ndarray:
    """Return NumPy's view of an array's memory, with the same strides."""
    return np.asarray(_Face(array))


def allocate(n_bytes: int) -> MemoryPointer:
    """Return host memory as CuPy's allocators return it, full of NaN.

    Raises: CaptureError while the current stream captures.
    """
    STATE.refuse("allocation")
    if not STATE.has_room(n_bytes):
        raise OutOfMemoryError(n_bytes, STATE.used)
    whole = np.full(max(n_bytes, 1) + ALIGNMENT, 0xFF, np.uint8)
    begin = -whole.ctypes.data % ALIGNMENT
    memory = whole[begin : begin + max(n_bytes, 1)]
    STATE.memory[memory.ctypes.data] = memory  # until CuPy drops it, its owner
    return MemoryPointer(UnownedMemory(memory.ctypes.data, n_bytes, memory, device_id=0), 0)


def _allocate_pinned(n_bytes: int) -> PinnedMemoryPointer:
    memory = (ctypes.c_char * (-(-max(n_bytes, 1) // ALIGNMENT) * ALIGNMENT))()
    block = SimpleNamespace(ptr=ctypes.addressof(memory), size=len(memory), memory=memory)
    return PinnedMemoryPointer(block, 0)


# ---- functions of CuPy --------------------------------------------------------------------------


def _inside(value: Any) -> Any:
    """Return what NumPy may compute with. Raise TypeError for host arrays, as CuPy does."""
    if isinstance(value, cupy.ndarray):
        return host_view(value)
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (tuple, list)):
        return type(value)(map(_inside, value))
    return value


def _outside(value: Any) -> Any:
    """Return NumPy's result as arrays of CuPy."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_outside, value))
    value = np.asarray(value)
    array = cupy.empty(value.shape, value.dtype)  # fails if the allocator is locked
    host_view(array)[...] = value
    return array


def _write(target: np.ndarray, compute: Callable[[], Any]) -> None:
    with np.errstate(all="ignore"):  # a device does not warn
        np.copyto(target, compute(), casting="same_kind")  # CuPy's rule for `out`


def _on_host(host: Callable[..., Any], *args: Any, out: Any = None, **kwargs: Any) -> Any:
    """Compute a function by NumPy: now, or, with `out`, when the current graph is launched."""
    plain, options = _inside(args), {key: _inside(value) for key, value in kwargs.items()}
    if out is not None:
        STATE.do(partial(_write, host_view(out), lambda: host(*plain, **options)))
        return out
    with np.errstate(all="ignore"):
        return _outside(host(*plain, **options))


def _first_by_cupy(real: Callable[..., Any], host: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls CuPy, or NumPy if CuPy needs a device."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return real(*args, **kwargs)
        except CUDARuntimeError:
            return _on_host(host, *args, **kwargs)

    return call


def _product(host: Callable[..., Any]) -> Callable[..., Any]:
    """Return a product of NumPy that fails in a capture, as CuPy's products do."""

    def call(*args: Any, **kwargs: Any) -> Any:
        STATE.refuse("calling cuBLAS API")
        return _on_host(host, *args, **kwargs)

    return call


def _reads_values(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"cupy.{name} waits for the device: its shape depends on values")

    return call


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the functions that CuPy and NumPy share, by name."""
    for name, real in vars(cupy).items():
        host = getattr(np, name, None)
        is_function = callable(real) and callable(host) and not isinstance(real, type)
        if name.startswith("_") or not is_function or name in HOST_ANSWERS:
            continue
        if name in VALUE_SHAPES:
            yield name, _reads_values(name)
        else:
            yield name, _product(host) if name in PRODUCTS else _first_by_cupy(real, host)


# ---- methods of CuPy's arrays -------------------------------------------------------------------


def _writer(name: str) -> Callable[..., Any]:
    """Return a method that changes its array: now, or when the current graph is launched."""
    real, host = getattr(cupy.ndarray, name), getattr(np.ndarray, name)

    def call(self: cupy.ndarray, *args: Any) -> Any:
        try:
            return real(self, *args)
        except CUDARuntimeError:
            target, plain = host_view(self), _inside(args)

        def work() -> None:
            with np.errstate(all="ignore"):
                host(target, *plain)

        STATE.do(work)
        return self if name.startswith("__i") else None

    return call


def _astype(array: np.ndarray, dtype: Any, order: str = "K", *rest: Any, **options: Any) -> Any:
    return array.astype(dtype, order)  # CuPy's own calls pass None for the rest


def _set(self: cupy.ndarray, arr: np.ndarray, stream: Any = None) -> None:
    STATE.refuse("a copy from the host")
    try:
        REAL_SET(self, arr, stream)
    except CUDARuntimeError:  # after CuPy's checks
        host_view(self)[...] = arr


def _get(
    self: cupy.ndarray, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
) -> np.ndarray:
    STATE.refuse("a copy to the host")
    stream = STATE.stream if stream is None else stream  # CuPy looks it up before it checks `out`
    try:
        return REAL_GET(self, stream, order, out, blocking)
    except CUDARuntimeError:
        made: np.ndarray = np.empty(self.shape, self.dtype, order) if out is None else out
        made[...] = host_view(self)
        return made


def _methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in OPERATORS:
        if "matmul" in name:
            yield name, _product(getattr(np.ndarray, name))
        else:
            yield name, _first_by_cupy(getattr(cupy.ndarray, name), getattr(np.ndarray, name))
    for name in METHODS:
        yield name, _first_by_cupy(getattr(cupy.ndarray, name), getattr(np.ndarray, name))
    yield "astype", _first_by_cupy(cupy.ndarray.astype, _astype)
    for name in WRITERS:
        yield name, _writer(name)
    yield "get", _get
    yield "set", _set


# ---- kernels ------------------------------------------------------------------------------------


class RawKernel(cupy.RawKernel):
    """A kernel created by CuPy, with all its keywords, and launched by the emulator."""

    __slots__ = ("_emulated",)

    def __init__(self, code: str, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(code, name, *args, **kwargs)
        known = inspect.signature(stand_in.RawKernel).parameters
        rest = {key: value for key, value in kwargs.items() if key in known}
        self._emulated = stand_in.RawKernel(code, name, *args, **rest)

    @property
    def kernel(self) -> Any:
        """The launching object, with the parameters of a cupy.cuda.Function."""
        return self._launch

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        self._launch(
            grid, block, args, shared_mem,
            enable_cooperative_groups=self.enable_cooperative_groups,
        )  # fmt: skip

    def _launch(
        self, grid: Any, block: Any, args: Any, shared_mem: int = 0, stream: Any = None,
        enable_cooperative_groups: bool = False,
    ) -> None:  # fmt: skip
        for sizes in (grid, block):
            if type(sizes) is not tuple:
                raise TypeError(f"Expected tuple, got {type(sizes).__name__}")
        grid, block = (tuple(map(operator.index, sizes)) for sizes in (grid, block))
        passed = tuple(self._argument(i, value) for i, value in enumerate(args))
        self._emulated.kernel(grid, block, passed, shared_mem, stream, enable_cooperative_groups)

    def _argument(self, i: int, value: Any) -> Any:
        """Return the memory of an array, or the bytes that CuPy passes for a number.

        They have the dtype that CuPy passes: a Python int has 8 bytes, of which a kernel with
        an `int` would read 4. The emulator compares it with the kernel's parameter.
        Raises: TypeError for types it does not pass, OverflowError for an int beyond 64 bits.
        """
        if not isinstance(value, cupy.ndarray):
            number = CScalar(value)
            passed = ctypes.string_at(number.ptr, number.dtype.itemsize)
            return np.frombuffer(passed, number.dtype)[0]
        view = host_view(value)
        if not value.flags.c_contiguous and not (
            i == 0 and self.name.startswith(TAKES_STRIDED_ROWS) and value[0].flags.c_contiguous
        ):
            raise emulator.EmulationError(
                f"{self.name}: argument {i} must be contiguous: CuPy passes its first address, not "
                f"its strides. Received: strides {value.strides} for shape {value.shape}."
            )
        return view


def _of_the_stand_in(name: str) -> property:
    """Return an attribute that the stand-in's kernel must have."""
    return property(
        lambda self: getattr(self._emulated, name),
        lambda self, value: setattr(self._emulated, name, value),
    )


for _name in ATTRIBUTES:
    setattr(RawKernel, _name, _of_the_stand_in(_name))


# ---- products -----------------------------------------------------------------------------------


class Library:
    """The model of cuBLASLt, called with the C types that the backend declares.

    real: the library itself, if installed; it must return the model's status for every description
    of a product, which needs no device.
    """

    def __init__(self, model: Model, signatures: dict[str, list[Any]], real: Any = None) -> None:
        self._real = real
        self._handles: dict[int, ctypes.c_void_p] = {}  # the model's handle -> the library's
        self.n_compared = 0
        for name, types in signatures.items():
            function = getattr(model, f"cublasLt{name}")
            setattr(self, f"cublasLt{name}", partial(self._call, name, function, types))

    def _call(self, name: str, function: Callable[..., int], types: list[Any], *args: Any) -> int:
        for value, kind in zip(args, types, strict=True):
            kind.from_param(value)  # raises ctypes' errors
        status = function(*args)
        of_description = name.endswith(("Create", "SetAttribute", "Destroy"))
        is_description = of_description and name not in ("Create", "Destroy")
        if self._real is not None and is_description:
            wanted = self._describe(f"cublasLt{name}", *args)
            assert status == wanted, f"cublasLt{name} returns {wanted}, the model {status}"
            self.n_compared += 1
        return status

    def _describe(self, name: str, first: Any, *rest: Any) -> int:
        function = getattr(self._real, name)
        if not name.endswith("Create"):
            return int(function(self._handles[first.value], *rest))
        made = self._handles[first._obj.value] = ctypes.c_void_p()
        return int(function(ctypes.byref(made), *rest))


# ---- the row ------------------------------------------------------------------------------------


@contextmanager
def patched() -> Iterator[None]:
    """Patch CuPy to work on the host; restore it at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for name, function in [*_functions()]:
            patch.setattr(cupy, name, function)
        for name, method in [*_methods()]:
            patch.setattr(cupy.ndarray, name, method)
        patch.setattr(cupy, "RawKernel", RawKernel)
        for name in ("Device", "Stream", "Graph"):
            patch.setattr(cupy.cuda, name, getattr(stand_in, name))
        patch.setattr(cupy.cuda, "get_current_stream", lambda: STATE.stream)
        patch.setattr(cupy.cuda, "alloc_pinned_memory", _allocate_pinned)
        patch.setattr(cupy.cuda.runtime, "getDevice", lambda: 0)
        patch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (1 << 30, 2 << 30))
        pool = SimpleNamespace(free_all_blocks=lambda: None)
        patch.setattr(cupy, "get_default_memory_pool", lambda: pool)
        before = cupy.cuda.get_allocator()
        cupy.cuda.set_allocator(allocate)
        try:
            yield
        finally:
            cupy.cuda.set_allocator(before)


@cache
def modules() -> Any:
    """Return the backend's module, imported for this row only: its namespace caches functions."""
    real = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "cupy"}
    return stand_in.load_backend(real)


@cache
def real_library() -> Any:
    """Return the real cuBLASLt, or None if its wheel is not installed."""
    try:
        return modules().BlasLt.multiply.__globals__["load"]()
    except Exception:  # a missing library raises many kinds of errors
        return None


def new_row() -> Any:
    """Return a new backend on CuPy's arrays; needs `patched`. A failed recording is an error."""
    if LACKING is not None:
        raise BackendUnavailableError(LACKING)
    loaded, model, real = modules(), Model(), real_library()
    model.is_strict = model.is_choosy = True
    namespace = loaded.BlasLt.multiply.__globals__
    library = Library(model, namespace["SIGNATURES"], real)
    backend = loaded.CuPyBackend(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(namespace, "load", lambda: library)
        backend._blas._open()
    backend.name, backend.device = "cupy_real_arrays", "cupy_real_arrays:0"
    backend.model, backend.library = model, library

    def check(reason: str) -> None:
        raise AssertionError(reason)

    backend._not_recorded = check
    return backend


def new_row_of_defaults() -> Any:
    """Return a row whose CUDA kernels refuse every call: CuPy computes all but the products."""
    backend = new_row()
    backend._try = lambda *args, **kwargs: False
    backend.name, backend.device = "cupy_defaults", "cupy_defaults:0"
    return backend
