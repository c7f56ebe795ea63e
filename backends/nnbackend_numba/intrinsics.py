"""LLVM intrinsics that compiled loops need and numba lacks: addresses, atomics, calls.

Addresses are int64.
"""
# numba reads an intrinsic's signature from its body, so they have no type annotations.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, no-untyped-call"

from __future__ import annotations

import ctypes
import sys
from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

I8, I32, I64, I128 = (ir.IntType(bits) for bits in (8, 32, 64, 128))
BYTES = I8.as_pointer()
LOCAL_BYTES = 2048


@intrinsic(prefer_literal=True)
def load_words(typingctx, address, kinds):
    """Return the words at an address: an int64 for each q of `kinds`, a float64 for each d."""
    kind_of = {"q": types.int64, "d": types.float64}
    result = types.BaseTuple.from_types([kind_of[kind] for kind in kinds.literal_value])

    def generate(context, builder, signature, args):
        values = []
        for k, kind in enumerate(result):
            place = builder.add(args[0], I64(8 * k))
            place = builder.inttoptr(place, context.get_data_type(kind).as_pointer())
            values.append(builder.load(place))
        return context.make_tuple(builder, result, values)

    return result(types.int64, kinds), generate


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
def call_function(typingctx, address, arguments):
    """Call a C function with integers or pointers, a tuple of int64; return its int.

    It ignores surplus arguments, and the upper halves of those that are shorter.
    """

    def generate(context, builder, signature, args):
        values = [builder.extract_value(args[1], i) for i in range(arguments.count)]
        kind = ir.FunctionType(I32, [I64] * arguments.count)
        result = builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
        return builder.sext(result, I64)

    return types.int64(types.int64, types.UniTuple(types.int64, arguments.count)), generate


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
def call_product(typingctx, address, arguments):
    """Call a compiled matrix product with its arguments, a tuple of int64."""

    def generate(context, builder, signature, args):
        values = [builder.extract_value(args[1], i) for i in range(arguments.count)]
        kind = ir.FunctionType(ir.VoidType(), [I64] * arguments.count)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, arguments.count)), generate


@intrinsic
def cut(typingctx, array, start, n):
    """Return n numbers of an array in C order, from one on; it compiles faster than a slice."""
    result = types.Array(array.dtype, 1, "C")

    def generate(context, builder, signature, args):
        made = context.make_array(array)(context, builder, args[0])
        place = builder.gep(made.data, [args[1]], source_etype=context.get_data_type(array.dtype))
        return array_of(context, builder, result, place, args[2])

    return result(array, types.int64, types.int64), generate


@intrinsic
def view(typingctx, address, shape, like):
    """Return the C array at an address. like: its dtype, or an array of it.

    It compiles faster than `numba.carray`.
    """
    result = types.Array(like.dtype, len(shape), "C")

    def generate(context, builder, signature, args):
        kind = context.get_data_type(like.dtype).as_pointer()
        sizes = cgutils.unpack_tuple(builder, args[1])
        return array_of(context, builder, result, builder.inttoptr(args[0], kind), *sizes)

    return result(types.int64, types.UniTuple(types.int64, len(shape)), like), generate


def array_of(context, builder, kind, place, *sizes):
    """Emit an array at a pointer, of a numba type."""
    made = context.make_array(kind)(context, builder)
    item = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))
    )
    strides = [item]
    for size in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    arrayobj.populate_array(
        made, data=place, shape=cgutils.pack_array(builder, sizes),
        strides=cgutils.pack_array(builder, strides), itemsize=item, meminfo=None,
    )  # fmt: skip
    return made._getvalue()


@intrinsic
def address_of(typingctx, array):
    """Return the address of an array's first element."""

    def generate(context, builder, signature, args):
        made = context.make_array(array)(context, builder, args[0])
        return builder.ptrtoint(made.data, I64)

    return types.int64(array), generate


@intrinsic
def local_memory(typingctx):
    """Return the address of LOCAL_BYTES on the stack, the same at every execution of the call."""

    def generate(context, builder, signature, args):
        place = cgutils.alloca_once(builder, ir.ArrayType(I8, LOCAL_BYTES), zfill=False)
        place.align = 64
        return builder.ptrtoint(place, I64)

    return types.int64(), generate


@cache
def yield_address() -> int:
    """Return the address of the system's function that yields the processor."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
