"""Products with bfloat16 operands: 8 bits of a number's fraction, sums in float32.

A pair is two bfloat16 numbers in one int32, which follow each other along k. One instruction
multiplies two pairs in each lane and adds both products to the float32 of that lane. So products of
pairs are those of float32 with half as many steps of k. Per layer and step the operands are rounded
and paired: x and delta along their units (as B) and along the batch's rows, W along its rows and
along its columns. Weights, sums, gradients and the optimizer's vectors stay float32.
"""
# numba reads an intrinsic's signature from its body, so they have no type annotations.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from nnbackend_numba.intrinsics import BYTES, I32, I64
from nnbackend_numba.tiles import Vectors, register

HALF = ir.IntType(16)


@cache
def is_available() -> bool:
    """Return True if the processor multiplies pairs (AVX512-BF16)."""
    return register()[0] == 64 and "+avx512bf16" in cpu_target.target_context.codegen()._tm_features


class Pairs(Vectors):
    """A builder of instructions on vectors of pairs, with sums in float32."""

    def __init__(self, builder: Any, dtype: str, width: int) -> None:
        super().__init__(builder, dtype, width)
        self.words = ir.VectorType(I32, self.lanes)

    def load_operand(self, place: Any) -> Any:
        return self.build.load(self.build.bitcast(place, self.words.as_pointer()), align=4)

    def load_to_all_lanes(self, place: Any) -> Any:
        value = self.build.load(self.build.bitcast(place, I32.as_pointer()), align=4)
        nothing = ir.Constant(self.words, ir.Undefined)
        first = self.build.insert_element(nothing, value, ir.Constant(I32, 0))
        return self.pick(first, first, [0] * self.lanes)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        kind = ir.FunctionType(self.kind, [self.kind, self.words, self.words])
        function = self.build.module.globals.get(name) or ir.Function(self.build.module, kind, name)
        return self.build.call(function, [z, x, y])

    def rounded(self, place: Any) -> Any:
        """Return float32 numbers as bfloat16 in the lower halves of int32."""
        return _rounded(self.build, self.build.bitcast(self.load(place), self.words))


def _rounded(build: Any, bits: Any) -> Any:
    """Emit the rounding of float32, given as int32, to bfloat16: to nearest, ties to even."""

    def number(n: int) -> Any:
        is_one = bits.type == I32
        return ir.Constant(bits.type, n if is_one else [n] * bits.type.count)

    odd = build.and_(build.lshr(bits, number(16)), number(1))
    near = build.lshr(build.add(build.add(bits, odd), number(0x7FFF)), number(16))
    is_nan = build.icmp_unsigned(">", build.and_(bits, number(0x7FFFFFFF)), number(0x7F800000))
    nan = build.or_(build.lshr(bits, number(16)), number(0x40))
    return build.select(is_nan, nan, near)


@intrinsic
def rounded(typingctx, value):
    """Return a float32 as bfloat16, in an int64."""

    def generate(context, builder, signature, args):
        return builder.zext(_rounded(builder, builder.bitcast(args[0], I32)), I64)

    return types.int64(types.float32), generate


@intrinsic
def write_pairs(typingctx, to, low, high):
    """Write pairs of two vectors of float32. All are addresses; high may be 0: zeros."""

    def generate(context, builder, signature, args):
        v = Pairs(builder, "float32", register()[0])
        to, low, high = (builder.inttoptr(address, BYTES) for address in args)
        has_high = builder.icmp_signed("!=", args[2], ir.Constant(args[2].type, 0))
        lower = v.rounded(low)
        with builder.if_else(has_high) as (then, otherwise):
            with then:
                shift = ir.Constant(v.words, [16] * v.lanes)
                both, from_both = (
                    builder.or_(lower, builder.shl(v.rounded(high), shift)),
                    builder.block,
                )
            with otherwise:
                from_one = builder.block
        pairs = builder.phi(v.words)
        pairs.add_incoming(both, from_both)
        pairs.add_incoming(lower, from_one)
        builder.store(pairs, builder.bitcast(to, v.words.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def write_halves(typingctx, to, source):
    """Write a vector of float32 as bfloat16, one after the other. Both are addresses."""

    def generate(context, builder, signature, args):
        v = Pairs(builder, "float32", register()[0])
        to, source = (builder.inttoptr(address, BYTES) for address in args)
        kind = ir.VectorType(HALF, v.lanes)
        halves = builder.trunc(v.rounded(source), kind)
        builder.store(halves, builder.bitcast(to, kind.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 2), generate
