"""LLVM intrinsics that compiled loops need and numba lacks: addresses, atomics, BLAS calls.

Addresses are int64.
"""
# numba reads an intrinsic's signature from its body, so they have no type annotations.
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
def call_operation(typingctx, address, words, worker, workers, step):
    """Call a compiled operation, which has four int64 arguments and returns nothing."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 4)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


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
    """Add atomically to the int64 at an address; return its previous value."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", place, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(typingctx, address):
    """Read atomically the int64 at an address."""

    def generate(context, builder, signature, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(typingctx, address, value):
    """Write atomically the int64 at an address."""

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
def gemm(typingctx, address, a, a_is_turned, b, b_is_turned, c):
    """Compute C = A B for row-major matrices with a Fortran gemm at an address.

    "turned": the matrix is stored transposed. Fortran sees each matrix transposed, so it computes
    C^T = B^T A^T. Rows of the matrices may be apart; columns must not be.
    """
    kinds = a, b, c

    def generate(context, builder, signature, args):
        address, a_turned, b_turned = args[0], args[2], args[4]
        a, b, c = (
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(kinds, args[1::2], strict=True)
        )
        real = context.get_value_type(kinds[0].dtype)
        m, n = cgutils.unpack_tuple(builder, c.shape, 2)
        k = builder.select(a_turned, *cgutils.unpack_tuple(builder, a.shape, 2))

        def spilled(value):
            place = cgutils.alloca_once_value(builder, value)
            return builder.bitcast(place, BYTES)

        def letter(turned):
            return spilled(builder.select(turned, ir.Constant(I8, 84), ir.Constant(I8, 78)))

        def integer(value):
            return spilled(builder.trunc(value, I32))

        def matrix(array):
            between, _ = cgutils.unpack_tuple(builder, array.strides, 2)
            elements = builder.sdiv(between, array.itemsize)
            return [builder.bitcast(array.data, BYTES), integer(elements)]

        kind = ir.FunctionType(ir.VoidType(), [BYTES] * 13)
        one, zero = (spilled(ir.Constant(real, value)) for value in (1.0, 0.0))
        builder.call(
            builder.inttoptr(address, kind.as_pointer()),
            [
                letter(b_turned), letter(a_turned), integer(n), integer(m), integer(k),
                one, *matrix(b), *matrix(a), zero, *matrix(c),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(types.int64, a, types.boolean, b, types.boolean, c), generate


@cache
def gemm_address(dtype: str) -> int:
    """Return the address of gemm in SciPy's BLAS."""
    from scipy.linalg import cython_blas

    threads.look_again()  # importing SciPy loads its BLAS
    capsule: Any = cython_blas.__pyx_capi__["sgemm" if dtype == "float32" else "dgemm"]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))


@cache
def yield_address() -> int:
    """Return the address of the system's function that yields the processor."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
