"""Matrix products by cuBLASLt, called through ctypes in the library that CuPy loads.

CuPy's own products cannot be captured and have no epilogues. The first use of a product chooses
its algorithm and workspace; later uses allocate nothing. cuBLASLt is column-major: a row-major
out = a b is a column-major out^T = b^T a^T in the same memory.
Source: the cuBLASLt API reference of CUDA 13, sections 3.3 and 3.4.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from ctypes import c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any, NamedTuple

import cupy

from nnbackend.backend.formulas import Array
from nnbackend.errors import ArgumentError
from nnbackend_cupy.failures import AllocationFailed

LOG = logging.getLogger("nnbackend.cupy")
WORKSPACE = 32 << 20  # bytes, as NVIDIA recommends for Hopper
TYPES = {"float32": 0, "float64": 1}  # cudaDataType_t
COMPUTE = {"float32": 68, "tf32": 77, "bf16": 75}  # cublasComputeType_t; float64: always 70
COMPUTE_64F = 70
TRANSA, TRANSB, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
MAX_WORKSPACE, MIN_ALIGNMENTS = 1, (5, 6, 7, 8)  # cublasLtMatmulPreferenceAttributes_t
DEFAULT, BIAS, RELU_BIAS, BGRADA = 1, 4, 6, 256  # cublasLtEpilogue_t
EPILOGUES = {DEFAULT: "plain", BIAS: "bias", RELU_BIAS: "bias+relu", BGRADA: "bias gradient"}
ALLOC_FAILED = 3  # cublasStatus_t
MAX_PLANS = 1024  # a deep network has a few dozen; the least recently used is dropped


class Refused(Exception):
    """A product that cuBLASLt does not support, or that failed."""


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = [("data", c_uint64 * 8)]


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algorithm", Algorithm),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


SIGNATURES: dict[str, list[Any]] = {
    "Create": [c_void_p],
    "Destroy": [c_void_p],
    "MatmulDescCreate": [c_void_p, c_int, c_int],
    "MatmulDescDestroy": [c_void_p],
    "MatmulDescSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "MatrixLayoutCreate": [c_void_p, c_int, c_uint64, c_uint64, c_int64],
    "MatrixLayoutDestroy": [c_void_p],
    "MatmulPreferenceCreate": [c_void_p],
    "MatmulPreferenceDestroy": [c_void_p],
    "MatmulPreferenceSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "MatmulAlgoGetHeuristic": [*[c_void_p] * 7, c_int, c_void_p, c_void_p],
    "Matmul": [*[c_void_p] * 14, c_size_t, c_void_p],
}


def load() -> Any:
    """Load the library and declare its functions. Raise an error if it is missing."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    for name, arguments in SIGNATURES.items():
        getattr(library, f"cublasLt{name}").argtypes = arguments
    return library


@dataclass(eq=False)
class Plan:
    """The descriptors, the chosen algorithm and the two scalars of a product.

    A captured product no longer needs its plan: the graph holds the launches.
    """

    description: c_void_p
    layouts: tuple[c_void_p, c_void_p, c_void_p]  # of the library's A, B and result
    algorithm: Algorithm
    one: Any
    zero: Any


@dataclass(frozen=True)
class Operand:
    """A column-major matrix with leading dimension `ld`, optionally transposed."""

    rows: int  # as stored
    columns: int
    ld: int
    is_transposed: bool
    alignment: int


class Key(NamedTuple):
    """The key of a plan: column-major operands, dtype, epilogue, alignment."""

    first: Operand
    second: Operand
    result: Operand
    dtype: str
    epilogue: int
    vector_alignment: int


class Workspaces(threading.local):
    """The library's workspaces: one for each thread and lane (a stream of its launches)."""

    def __init__(self) -> None:
        self.arrays: dict[int, Array] = {}

    def address(self, lane: int) -> int:
        """Return the address of a lane's workspace, allocated at its first use."""
        if lane not in self.arrays:
            self.arrays[lane] = cupy.empty((WORKSPACE,), "uint8")
        return int(self.arrays[lane].data.ptr)


class BlasLt:
    """The matrix products of one device.

    Threads may share one object: each has separate workspaces. Products of one thread that may run
    concurrently, on two streams, need different lanes.

    A plan uses the first algorithm that the library proposes. Timing the first eight and using the
    fastest changed a step by -2 % to +2 % on an H200, and two processes would no longer give the
    same bits.

    precision: "float32", "tf32" or "bf16", of float32 products; float64 is always exact.
    """

    def __init__(self, precision: str = "float32") -> None:
        if precision not in COMPUTE:
            choices = ", ".join(map(repr, COMPUTE))
            raise ArgumentError(f"precision must be one of {choices}. Received: {precision!r}.")
        self._compute = COMPUTE[precision]
        self._plans: dict[Key, Plan | Refused] = {}  # the least recently used first
        self._library: Any = None
        self._unavailable = ""  # why the library cannot be used
        self._handle = c_void_p()
        self._workspaces = Workspaces()
        # Setting a plan's bias pointer and launching it must be atomic.
        self._lock = threading.RLock()

    def multiply(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        bias: Array | None = None,
        relu: bool = False,
        bias_gradient: Array | None = None,
        lane: int = 0,
    ) -> bool:
        """Compute out = a b; return True if the product included the requested epilogue.

        bias (columns of b,) is added to each row; relu=True then clips at 0. bias_gradient
        receives the sum of b's rows. If the library has no algorithm with the epilogue, the
        product is computed without it.
        Raises: Refused if the product is not computed; AllocationFailed without memory.
        """
        epilogue, vector = DEFAULT, None
        if bias is not None:
            epilogue, vector = (RELU_BIAS if relu else BIAS), bias
        elif bias_gradient is not None:
            epilogue, vector = BGRADA, bias_gradient
        if vector is not None:
            try:
                self._launch(a, b, out, epilogue, vector, lane)
                return True
            except Refused as error:
                LOG.debug("product without epilogue %d: %s", epilogue, error)
        self._launch(a, b, out, DEFAULT, None, lane)
        return False

    @property
    def workspaces(self) -> dict[int, Array]:
        """The workspaces of this thread, which a captured step needs as long as it is replayed."""
        return self._workspaces.arrays

    def report(self) -> list[dict[str, Any]]:
        """Return the sizes and the epilogue of each product so far, and why it was refused."""
        with self._lock:
            plans = list(self._plans.items())
        return [
            {
                "m": key.result.rows,
                "n": key.result.columns,
                "k": key.first.rows if key.first.is_transposed else key.first.columns,
                "epilogue": EPILOGUES[key.epilogue],
                **({"refused": plan.args[0]} if isinstance(plan, Refused) else {}),
            }
            for key, plan in plans
        ]

    def _launch(
        self, a: Array, b: Array, out: Array, epilogue: int, vector: Array | None, lane: int
    ) -> None:
        first, second, result = _operand(b), _operand(a), _operand(out)
        if result.is_transposed or not a.dtype == b.dtype == out.dtype:
            raise Refused("the product's result must have contiguous rows, and all one dtype")
        if vector is not None and (vector.dtype != out.dtype or not vector.flags.c_contiguous):
            raise Refused("a bias must be contiguous and of the product's dtype")
        below = 256 if vector is None else _align(vector)
        key = Key(first, second, result, out.dtype.name, epilogue, below)
        with self._lock:
            plan = self._plan_for(key, vector)
            if vector is not None:
                self._set(plan.description, BIAS_POINTER, c_void_p(vector.data.ptr))
            self._matmul(plan, a, b, out, lane)

    def _matmul(self, plan: Plan, a: Array, b: Array, out: Array, lane: int) -> None:
        A, B, C = plan.layouts
        _check(
            self._library.cublasLtMatmul(
                self._handle, plan.description,
                ctypes.byref(plan.one), b.data.ptr, A, a.data.ptr, B,
                ctypes.byref(plan.zero), out.data.ptr, C, out.data.ptr, C,
                ctypes.byref(plan.algorithm), self._workspaces.address(lane), WORKSPACE,
                cupy.cuda.get_current_stream().ptr,
            ), "cublasLtMatmul",
        )  # fmt: skip

    def _plan_for(self, key: Key, vector: Array | None) -> Plan:
        """Return the cached plan of a product. Raise its cached Refused, if that is the result."""
        plan = self._plans.pop(key, None)
        if plan is None:
            try:
                plan = self._plan(key, vector)
            except Refused as error:
                # Not `error` itself: its traceback would keep the operands' memory.
                plan = Refused(*error.args)
            while len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
        self._plans[key] = plan
        if isinstance(plan, Refused):
            raise Refused(*plan.args)
        return plan

    def _open(self) -> None:
        """Load the library at the first product; cache a failure."""
        if self._unavailable:
            raise Refused(self._unavailable)
        if self._library is not None:
            return
        try:
            library = load()
            _check(library.cublasLtCreate(ctypes.byref(self._handle)), "cublasLtCreate")
            self._library = library
            _destroy_with(self, library.cublasLtDestroy, self._handle)
        except AllocationFailed:
            raise  # not cached: memory may be free next time
        except Exception as error:
            self._unavailable = f"cuBLASLt cannot be used: {type(error).__name__}: {error}"
            raise Refused(self._unavailable) from error

    def _plan(self, key: Key, vector: Array | None) -> Plan:
        """Describe a product and choose its algorithm."""
        if key.dtype not in TYPES:
            raise Refused(f"no product of {key.dtype}")
        self._open()
        kind = TYPES[key.dtype]
        scalar = c_float if key.dtype == "float32" else ctypes.c_double
        compute = self._compute if key.dtype == "float32" else COMPUTE_64F
        description = self._new("MatmulDesc", compute, kind)
        self._set(description, TRANSA, c_int32(key.first.is_transposed))
        self._set(description, TRANSB, c_int32(key.second.is_transposed))
        self._set(description, EPILOGUE, c_uint32(key.epilogue))
        if vector is not None:
            self._set(description, BIAS_POINTER, c_void_p(vector.data.ptr))
        operands = (key.first, key.second, key.result)
        A, B, C = (self._new("MatrixLayout", kind, o.rows, o.columns, o.ld) for o in operands)
        algorithm = self._choose(description, (A, B, C), key)
        return Plan(description, (A, B, C), algorithm, scalar(1.0), scalar(0.0))

    def _new(self, what: str, *arguments: int) -> c_void_p:
        """Return the handle of a new library object, which is destroyed with the handle."""
        handle, create = c_void_p(), f"cublasLt{what}Create"
        _check(getattr(self._library, create)(ctypes.byref(handle), *arguments), create)
        destroy = getattr(self._library, f"cublasLt{what}Destroy")
        _destroy_with(handle, destroy, c_void_p(handle.value))
        return handle

    def _choose(self, description: c_void_p, layouts: Any, key: Key) -> Algorithm:
        """Return the best algorithm for the available workspace and alignment."""
        library, preference = self._library, self._new("MatmulPreference")
        # The library loads a bias, and stores a bias gradient, with vectors as wide as for the
        # result: so the result's alignment is limited to theirs (PyTorch issue 194497).
        result = min(key.result.alignment, key.vector_alignment)
        alignments = [key.first.alignment, key.second.alignment, result, result]
        wanted: list[tuple[int, Any]] = [(MAX_WORKSPACE, c_uint64(WORKSPACE))]
        wanted += [(k, c_uint32(v)) for k, v in zip(MIN_ALIGNMENTS, alignments, strict=True)]
        for attribute, value in wanted:
            done = library.cublasLtMatmulPreferenceSetAttribute(
                preference, attribute, ctypes.byref(value), ctypes.sizeof(value)
            )
            _check(done, "cublasLtMatmulPreferenceSetAttribute")
        found, count = Heuristic(), c_int(0)
        A, B, C = layouts
        status = library.cublasLtMatmulAlgoGetHeuristic(
            self._handle, description, A, B, C, C, preference, 1,
            ctypes.byref(found), ctypes.byref(count),
        )  # fmt: skip
        _check(status, "cublasLtMatmulAlgoGetHeuristic")
        if count.value == 0:
            raise Refused("cuBLASLt has no algorithm for this product")
        algorithm: Algorithm = found.algorithm
        return algorithm

    def _set(self, description: c_void_p, attribute: int, value: Any) -> None:
        done = self._library.cublasLtMatmulDescSetAttribute(
            description, attribute, ctypes.byref(value), ctypes.sizeof(value)
        )
        _check(done, f"cublasLtMatmulDescSetAttribute({attribute})")


def _operand(array: Array) -> Operand:
    """Return the description of a row-major matrix as a column-major one, without a copy."""
    (n, m), size = array.shape, array.dtype.itemsize
    if n == 0 or m == 0:
        raise Refused("an empty product")
    down, right = (step // size for step in array.strides)
    if (right == 1 or m == 1) and (down >= m or n == 1):
        return Operand(m, n, max(down, m) if n > 1 else m, False, _align(array))
    if (down == 1 or n == 1) and (right >= n or m == 1):
        return Operand(n, m, max(right, n) if m > 1 else n, True, _align(array))
    raise Refused(f"a matrix with strides {array.strides} for shape {array.shape}")


def _align(array: Array) -> int:
    """Return the alignment of the address: a power of two, at most 256."""
    address = int(array.data.ptr)
    return min(256, address & -address)


def _destroy_with(owner: Any, destroy: Any, handle: c_void_p) -> None:
    """Destroy a library object when its owner is garbage-collected, except at process exit."""
    weakref.finalize(owner, destroy, handle).atexit = False  # CUDA may have shut down by then


def _check(status: int, function: str) -> None:
    if status == ALLOC_FAILED:
        raise AllocationFailed(f"{function} failed with CUBLAS_STATUS_ALLOC_FAILED")
    if status != 0:
        raise Refused(f"{function} failed with status {status}")
