"""The few things compiled loops need that numba has no word for: addresses, atomics, BLAS.

Each is a handful of LLVM instructions. Numbers called addresses are int64.
"""
# numba reads an intrinsic's signature from its body, so they bear no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, no-untyped-call"

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnbackend_numpy import threads

I8, I32, I64, I128 = (ir.IntType(bits) for bits in (8, 32, 64, 128))
BYTES = I8.as_pointer()


@intrinsic
def pointer(typingctx, address):
    """Return an address as a pointer, for `numba.carray`."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], BYTES)

    return types.voidptr(types.int64), generate


@intrinsic
def size_of(typingctx, kind):
    """Return the bytes of a number of some kind, as np.float32."""
    size = kind.dtype.bitwidth // 8

    def generate(context, builder, signature, args):
        return ir.Constant(I64, size)

    return types.int64(kind), generate


@intrinsic
def call_operation(typingctx, address, ints, floats, worker, workers, step):
    """Call a compiled operation: five int64 arguments, nothing back."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 5)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def call_plain(typingctx, address):
    """Call a C function without arguments."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(I32, [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def fetch_add(typingctx, address, amount):
    """Add to the int64 at an address, atomically; return what was there."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", place, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(typingctx, address):
    """Read the int64 at an address that another thread may write."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(typingctx, address, value):
    """Write the int64 at an address that another thread may read."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        builder.store_atomic(args[1], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def high_word(typingctx, a, b):
    """Return the upper 64 bits of the product of two uint64."""

    def generate(context, builder, signature, args):
        wide = builder.mul(*(builder.zext(v, I128) for v in args))
        return builder.trunc(builder.lshr(wide, ir.Constant(I128, 64)), I64)

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def gemm(typingctx, address, b_is_turned, a_is_turned, n, m, k, one, b, ldb, a, lda, c, ldc):
    """Multiply by a Fortran gemm: C = A B, for matrices of rows one after another.

    Fortran sees each matrix turned, so it is asked for C^T = B^T A^T. Shapes: A (m, k), B (k, n),
    C (m, n); turned says that a matrix lies transposed. ld: the elements from a row to the next.
    `one` is 1 in the matrices' dtype; all else is int64, with matrices by their addresses.
    """
    number = one

    def generate(context, builder, signature, args):
        address, b_turned, a_turned, n, m, k, one, b, ldb, a, lda, c, ldc = args
        real = context.get_value_type(number)

        def spilled(value):
            place = cgutils.alloca_once_value(builder, value)
            return builder.bitcast(place, BYTES)

        def letter(turned):
            is_turned = builder.icmp_signed("!=", turned, ir.Constant(I64, 0))
            return spilled(builder.select(is_turned, ir.Constant(I8, 84), ir.Constant(I8, 78)))

        def integer(value):
            return spilled(builder.trunc(value, I32))

        def matrix(value):
            return builder.inttoptr(value, BYTES)

        kind = ir.FunctionType(ir.VoidType(), [BYTES] * 13)
        builder.call(
            builder.inttoptr(address, kind.as_pointer()),
            [
                letter(b_turned), letter(a_turned), integer(n), integer(m), integer(k),
                spilled(one), matrix(b), integer(ldb), matrix(a), integer(lda),
                spilled(ir.Constant(real, 0.0)), matrix(c), integer(ldc),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    int64 = types.int64
    return types.void(*[int64] * 6, number, *[int64] * 6), generate


@cache
def gemm_address(dtype: str) -> int:
    """Return the address of SciPy's matrix product, which it offers to compiled code."""
    from scipy.linalg import cython_blas

    threads.look_again()  # SciPy comes with a BLAS of its own
    capsule: Any = cython_blas.__pyx_capi__["sgemm" if dtype == "float32" else "dgemm"]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))


@cache
def yield_address() -> int:
    """Return the address of the system's "let another thread run"."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
