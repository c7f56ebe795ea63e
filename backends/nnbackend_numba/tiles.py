"""Generate the inner loops of matrix products: register tiles, as LLVM vector instructions.

A tile is a block of C = A B whose sums stay in registers during the whole loop over k: up to
`rows` by 2 vectors. Each round of the loop reads 2 vectors of B and `rows` numbers of A, each of
which is copied to all lanes and multiplied with both vectors. A may lie in memory in any way; B and
C are read and written by whole vectors, so nothing is masked: edges lie in padded memory.

The IR is the same for every processor. Only the number of lanes and of rows differ: a tile needs
2 * rows registers for its sums, 2 for B and 1 for A. Addresses and strides are int64, in bytes.

Source of the scheme: Goto and van de Geijn 2008, "Anatomy of high-performance matrix
multiplication"; without packing, because A and B of a layer fit the caches.
"""
# numba reads an intrinsic's signature from its body, so they have no type annotations.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, no-untyped-call"

from __future__ import annotations

import re
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from nnbackend_numba.intrinsics import BYTES, I8, I32, I64

PAIR = 2  # vectors of a tile
HALF = 7  # rows that one pointer reaches: multiples 0 to 6 of the distance between rows
FUSED = ("contract",)  # a multiplication and an addition in one instruction, where there is one
# Bytes of a vector register, by a register's name in the assembly of a 64-byte addition; and the
# rows of a tile, for 16 or 32 registers.
REGISTERS = {"zmm": (64, 14), "ymm": (32, 6), "xmm": (16, 6), "": (16, 12)}


@cache
def register() -> tuple[int, int]:
    """Return the bytes of this processor's vector registers, and the rows of a tile.

    numba's target decides, also one that NUMBA_CPU_NAME or NUMBA_CPU_FEATURES choose.
    """
    return register_of(cpu_target.target_context.codegen()._tm)


def register_of(machine: Any) -> tuple[int, int]:
    """Return the same for a target machine of LLVM, by compiling an addition of 64 bytes."""
    vector = ir.VectorType(ir.FloatType(), 16)
    module = ir.Module()
    module.triple = machine.triple
    place = ir.FunctionType(ir.VoidType(), [vector.as_pointer()] * 2)
    function = ir.Function(module, place, "add")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.store(builder.fadd(*map(builder.load, function.args)), function.args[0])
    builder.ret_void()
    assembly = machine.emit_assembly(llvm.parse_assembly(str(module)))
    return next(
        v for name, v in REGISTERS.items() if re.search(rf"%{name}\d" if name else "", assembly)
    )


def lanes(dtype: str) -> int:
    """Return how many numbers of a dtype a vector has."""
    return register()[0] // np.dtype(dtype).itemsize


class Vectors:
    """A builder of instructions on vectors of one dtype, of a width in bytes."""

    def __init__(self, builder: Any, dtype: str, width: int) -> None:
        self.number = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.size = np.dtype(dtype).itemsize
        self.build, self.lanes = builder, width // self.size
        self.kind = ir.VectorType(self.number, self.lanes)
        self.zero, self.undefined = (ir.Constant(self.kind, v) for v in (None, ir.Undefined))

    def at(self, place: Any, offset: Any) -> Any:
        return self.build.gep(place, [offset], source_etype=I8)

    def load(self, place: Any) -> Any:
        place = self.build.bitcast(place, self.kind.as_pointer())
        return self.build.load(place, align=self.size)

    def store(self, value: Any, place: Any) -> None:
        place = self.build.bitcast(place, self.kind.as_pointer())
        self.build.store(value, place, align=self.size)

    load_operand = load  # of A or B

    def load_to_all_lanes(self, place: Any) -> Any:
        place = self.build.bitcast(place, self.number.as_pointer())
        value = self.build.load(place, align=self.size)
        first = self.build.insert_element(self.undefined, value, ir.Constant(I32, 0))
        return self.pick(first, first, [0] * self.lanes)

    def pick(self, x: Any, y: Any, numbers: list[int]) -> Any:
        """Return a vector of these numbers of x, followed by y."""
        places = ir.Constant(ir.VectorType(I32, self.lanes), numbers)
        return self.build.shuffle_vector(x, y, places)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        return self.build.fadd(self.build.fmul(x, y, flags=FUSED), z, flags=FUSED)

    def prefetch(self, place: Any) -> None:
        """Request a cache line for reading."""
        name, kind = "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [BYTES, I32, I32, I32])
        function = self.build.module.globals.get(name) or ir.Function(self.build.module, kind, name)
        self.build.call(function, [place, *(ir.Constant(I32, v) for v in (0, 3, 1))])


def _sums(v: Vectors, m: int, n: int, given: dict[str, Any]) -> list[Any]:
    """Emit the loop over k of a tile of m rows and n vectors; return its sums, row by row."""
    build, row = v.build, given["row"]
    multiples = [build.mul(I64(i), row) for i in range(HALF + 1)]
    starts = [given["a"], v.at(given["a"], multiples[HALF])][: 1 + (m > HALF)]
    before, loop, after = build.block, build.append_basic_block("k"), build.append_basic_block()
    build.branch(loop)
    build.position_at_end(loop)
    count, b, ahead = build.phi(I64), build.phi(BYTES), build.phi(BYTES)
    rows, sums = [build.phi(BYTES) for _ in starts], [build.phi(v.kind) for _ in range(m * n)]
    v.prefetch(ahead)
    columns = [v.load_operand(b), v.load_operand(v.at(b, given["b_next"]))][:n]
    later = []
    for i in range(m):
        number = v.load_to_all_lanes(v.at(rows[i // HALF], multiples[i % HALF]))
        for j, column in enumerate(columns):
            later.append(v.multiply_add(number, column, sums[i * n + j]))
    done = build.add(count, I64(1))
    is_jump = build.icmp_signed("==", build.and_(done, given["mask"]), I64(0))
    on = build.select(is_jump, given["jump"], given["col"])
    phis = [count, b, ahead, *rows, *sums]
    first = [I64(0), given["b"], given["ahead"], *starts, *[v.zero] * (m * n)]
    moved = [v.at(b, given["b_down"]), v.at(ahead, given["pace"]), *(v.at(p, on) for p in rows)]
    for phi, old, new in zip(phis, first, [done, *moved, *later], strict=True):
        phi.add_incoming(old, before)
        phi.add_incoming(new, loop)
    build.cbranch(build.icmp_signed("<", done, given["k"]), loop, after)
    build.position_at_end(after)
    return later


def _store(v: Vectors, m: int, n: int, sums: list[Any], given: dict[str, Any]) -> None:
    """Emit C = sums, or C = D + sums."""
    is_added = v.build.icmp_signed("!=", given["d"], I64(0))
    with v.build.if_else(is_added) as branches:
        for adds, branch in zip((True, False), branches, strict=True):
            with branch:
                c, d = given["c"], v.build.inttoptr(given["d"], BYTES)
                for i in range(m):
                    for j in range(n):
                        value = sums[i * n + j]
                        if adds:
                            value = v.build.fadd(
                                value, v.load(v.at(d, given["d_next"]) if j else d)
                            )
                        v.store(value, v.at(c, given["c_next"]) if j else c)
                    c, d = v.at(c, given["c_down"]), v.at(d, given["d_down"])


# The arguments of a tile: C (m, n vectors) = A (m, k) B (k, n), or D + A B if d is not 0.
# a: where A begins. From row to row it is `row`, from column to column `col`, but `jump` after each
# column whose number, counted from 1, has no bit of `mask`.
# b_down and the like: from row to row; b_next and the like: from a vector to the next one.
# ahead, pace: what to prefetch in the first round, and how much further in each later round.
ARGUMENTS = (
    *("m", "n", "k", "a", "row", "col", "mask", "jump", "b", "b_down", "b_next"),
    *("c", "c_down", "c_next", "d", "d_down", "d_next", "ahead", "pace"),
)


def emit_tile(v: Vectors, high: int, given: dict[str, Any]) -> None:
    """Emit tiles of up to `high` rows and 2 vectors. given: ARGUMENTS, int64."""
    builder = v.build
    given = given | {k: builder.inttoptr(given[k], BYTES) for k in ("a", "b", "c", "ahead")}
    done = builder.append_basic_block()
    shape = builder.add(builder.mul(given["n"], I64(64)), given["m"])
    choice = builder.switch(shape, done)
    for n in range(1, PAIR + 1):
        for m in range(1, high + 1):
            block = builder.append_basic_block(f"rows{m}x{n}")
            choice.add_case(I64(64 * n + m), block)
            builder.position_at_end(block)
            _store(v, m, n, _sums(v, m, n, given), given)
            builder.branch(done)
    builder.position_at_end(done)


@cache
def tile(dtype: str, vectors: type[Vectors] = Vectors) -> Any:
    """Return the intrinsic that computes a tile of a dtype; it takes ARGUMENTS as a tuple.

    m: 1 to the rows of a tile; n: 1 or 2; k: at least 1. vectors: how operands are multiplied.
    """

    @intrinsic
    def computed(typingctx, arguments):
        def generate(context, builder, signature, args):
            values = [builder.extract_value(args[0], i) for i in range(len(ARGUMENTS))]
            given = dict(zip(ARGUMENTS, values, strict=True))
            width, high = register()
            emit_tile(vectors(builder, dtype, width), high, given)
            return context.get_dummy_value()

        return types.void(arguments), generate

    return computed


@intrinsic
def transpose(typingctx, like, to, down, places, offset):
    """Transpose a square of as many rows and columns as lanes.

    like: an array of the dtype. to, down: the address of the result, and the distance of its rows.
    places: the address of the addresses of the source's rows. offset: added to each of them.
    """

    def generate(context, builder, signature, args):
        v = Vectors(builder, str(like.dtype), register()[0])
        _, to, down, places, offset = args
        to, places = builder.inttoptr(to, BYTES), builder.inttoptr(places, I64.as_pointer())
        rows = []
        for i in range(v.lanes):
            row = builder.load(builder.gep(places, [I64(i)], source_etype=I64))
            rows.append(v.load(builder.inttoptr(builder.add(row, offset), BYTES)))
        for i, value in enumerate(_transposed(v, rows)):
            v.store(value, v.at(to, builder.mul(I64(i), down)))
        return context.get_dummy_value()

    is_float = str(like.dtype) in ("float32", "float64")
    result = types.void(like, *[types.int64] * 4)
    # Other dtypes are never transposed: their rows are read number by number.
    return result, generate if is_float else lambda context, *_: context.get_dummy_value()


def _transposed(v: Vectors, rows: list[Any]) -> list[Any]:
    """Emit the exchange of numbers between rows at a distance of 1, 2, 4 and so on."""
    n, step = v.lanes, 1
    while step < n:
        low = [j if not j & step else n + j - step for j in range(n)]
        high = [j + step if not j & step else n + j for j in range(n)]
        for i in range(n):
            if not i & step:
                x, y = rows[i], rows[i + step]
                rows[i], rows[i + step] = v.pick(x, y, low), v.pick(x, y, high)
        step *= 2
    return rows
