"""Matrix products by cuBLASLt, called through ctypes on the library that CuPy brings.

CuPy's own products refuse to be recorded, and have no epilogues. Here the algorithm and the
workspace are chosen at a product's first use; later uses allocate nothing. cuBLASLt counts by
columns: out = a b of rows is out^T = b^T a^T of columns, where the same memory is the transpose.
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
WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for Hopper
TYPES = {"float32": 0, "float64": 1}  # cudaDataType_t
COMPUTE = {"float32": 68, "tf32": 77, "bf16": 75}  # cublasComputeType_t; float64 has 70 alone
COMPUTE_64F = 70
TRANSA, TRANSB, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
MAX_WORKSPACE, MIN_ALIGNMENTS = 1, (5, 6, 7, 8)  # cublasLtMatmulPreferenceAttributes_t
DEFAULT, BIAS, RELU_BIAS, BGRADA = 1, 4, 6, 256  # cublasLtEpilogue_t
EPILOGUES = {DEFAULT: "plain", BIAS: "bias", RELU_BIAS: "bias+relu", BGRADA: "bias gradient"}
ALLOC_FAILED = 3  # cublasStatus_t
MAX_PLANS = 1024  # a deep network has a few dozen; the least recently used is dropped


class Refused(Exception):
    """A product that cuBLASLt is not asked for, or says no to."""


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
    """Load the library and declare its functions; raises where it cannot be found."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    for name, arguments in SIGNATURES.items():
        getattr(library, f"cublasLt{name}").argtypes = arguments
    return library


@dataclass(eq=False)
class Plan:
    """How one product is computed: descriptors, the chosen algorithm, and the two scalars.

    A recorded product needs its plan no more: the graph has what the library launched.
    """

    description: c_void_p
    layouts: tuple[c_void_p, c_void_p, c_void_p]  # of the library's A, B and result
    algorithm: Algorithm
    one: Any
    zero: Any


@dataclass(frozen=True)
class Operand:
    """A matrix as the library sees it: stored columns `ld` elements apart, perhaps transposed."""

    rows: int  # as stored
    columns: int
    ld: int
    is_transposed: bool
    alignment: int


class Key(NamedTuple):
    """What decides a plan: the operands as the library sees them, dtype, epilogue, alignment."""

    first: Operand
    second: Operand
    result: Operand
    dtype: str
    epilogue: int
    vector_alignment: int


class Workspaces(threading.local):
    """Scratch memory of the library: for each thread, and in it for each lane of launches."""

    def __init__(self) -> None:
        self.arrays: dict[int, Array] = {}

    def address(self, lane: int) -> int:
        """Return the address of a lane's workspace, allocated at its first use."""
        if lane not in self.arrays:
            self.arrays[lane] = cupy.empty((WORKSPACE,), "uint8")
        return int(self.arrays[lane].data.ptr)


class BlasLt:
    """The matrix products of one device.

    Threads may share one object: each has workspaces of its own. Products of one thread that may
    run at the same time, on two streams, need different lanes.

    Of its algorithms the library's own first choice is taken. To time the first eight and keep the
    fastest was tried on an H200: a step took from 2 % less to 2 % more, and two processes would no
    longer give the same bits.

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
        # A plan's bias pointer is set for each launch, so setting and launching are one act.
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
        """Return out = a b; tell whether an epilogue was wanted and done.

        bias (columns of b,) is added to each row, relu=True then cuts below 0. bias_gradient
        receives the sum of b's rows. Where the library has no algorithm with the epilogue, the
        product is made without it.
        Raises: Refused when the product is not made at all; AllocationFailed without memory.
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
        """The workspaces of this thread; a recorded step needs them as long as it is replayed."""
        return self._workspaces.arrays

    def report(self) -> list[dict[str, Any]]:
        """Return what was decided about each product so far: sizes, epilogue, refusal or not."""
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
        """Return the plan of a product, made at its first use; a refusal is kept too."""
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
        """Load the library at the first product; a failure is kept."""
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
            raise  # there may be memory the next time
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
        """Return a new object of the library, which is destroyed with what is returned."""
        made, create = c_void_p(), f"cublasLt{what}Create"
        _check(getattr(self._library, create)(ctypes.byref(made), *arguments), create)
        _destroy_with(made, getattr(self._library, f"cublasLt{what}Destroy"), c_void_p(made.value))
        return made

    def _choose(self, description: c_void_p, layouts: Any, key: Key) -> Algorithm:
        """Return the best algorithm that needs no more workspace and alignment than there is."""
        library, preference = self._library, self._new("MatmulPreference")
        # A bias is loaded, and a bias gradient stored, as wide as the result's own rows: so the
        # result counts as no better aligned than they are (PyTorch issue 194497).
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
    """Describe a matrix of rows as the library's matrix of columns, without a copy."""
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
    """Return the largest power of two, up to 256, that the address is a multiple of."""
    address = int(array.data.ptr)
    return min(256, address & -address)


def _destroy_with(owner: Any, destroy: Any, handle: c_void_p) -> None:
    """Destroy an object of the library when its owner is gone; not at the end of the process."""
    weakref.finalize(owner, destroy, handle).atexit = False  # CUDA may be gone by then


def _check(status: int, function: str) -> None:
    if status == ALLOC_FAILED:
        raise AllocationFailed(f"{function} failed with CUBLAS_STATUS_ALLOC_FAILED")
    if status != 0:
        raise Refused(f"{function} failed with status {status}")
