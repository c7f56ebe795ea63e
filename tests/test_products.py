"""The matrix products of the numba backend, and the layout of their operands, against NumPy.

Operands lie at any address, between guard numbers, or next to memory that must not be accessed.
Lanes that do not count contain NaN. The tiles of other processors are compiled and read. "bf16" are
float32 products of pairs of bfloat16, see `pairs`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn

pytest.importorskip("numba", reason="numba is not installed")

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.caching import NullCache
from operands import (
    GUARD,
    AtOffset,
    BetweenPages,
    from_panels,
    from_python,
    needs_pairs,
    paired,
    protected,
    rounded,
    run_in_child,
    to_panels,
)

from nnbackend_numba import caching, intrinsics, pairs, panels, prediction, products, tiles
from nnbackend_numba.workers import Workers

DTYPES = ("float32", "float64")
KINDS = (*DTYPES, pytest.param("bf16", marks=needs_pairs))
PRODUCTS = ("z", "dx", "dW", "rows")  # the last: z = x W row by row, of predictions

# ---- products -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A product C (m, columns) = A (m, k) B (k, columns) of a layer, plus D if it adds."""

    product: str
    dtype: str
    m: int
    columns: int
    k: int
    adds: bool = False
    by_rows: bool = False

    @property
    def is_padded(self) -> bool:
        """Whether the last vector of a row of C is written beyond the row."""
        return self.product == "dW" and self.columns % self.lanes != 0

    @property
    def is_narrow(self) -> bool:
        return self.dtype == "bf16"

    @property
    def sums(self) -> str:
        """The dtype of C and D."""
        return "float32" if self.is_narrow else self.dtype

    @property
    def lanes(self) -> int:
        return tiles.lanes(self.sums)


@cache
def driver(dtype: str) -> Any:
    """Return the compiled product of a dtype as a function of Python."""
    n = products._product.__code__.co_argcount
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * n)(products.product_of(dtype).address)


def draw(case: Case) -> list[Any]:
    """Return A, B and D of a case."""
    rng = np.random.default_rng(case.m + 100 * case.columns + 10_000 * case.k)
    shapes = ((case.m, case.k), (case.k, case.columns), (case.m, case.columns))
    A, B, D = (rng.standard_normal(shape).astype(case.sums) for shape in shapes)
    return [rounded(A), rounded(B), D] if case.is_narrow else [A, B, D]


def with_longer(matrix: Any) -> Any:
    """Return the numbers of a matrix, followed by those that products may overwrite."""
    return np.append(matrix.ravel(), np.full(products.LONGER, GUARD, matrix.dtype))


def computed(case: Case, memory: Any) -> Any:
    """Return C, computed with all operands in memory of a kind."""
    m, lanes, (A, B, D) = case.m, case.lanes, draw(case)
    A, B, at_once = (paired(A), paired(B.T).T, lanes // 2) if case.is_narrow else (A, B, lanes)
    k, size, n, part = len(B), A.itemsize, -(-case.columns // lanes), products.PART
    line = lanes * size
    b, d = to_panels(B.T, lanes), to_panels(D.T, lanes)
    of_b, of_c = (line, b[0].nbytes), (line, d[0].nbytes)
    if case.product == "rows":  # B, C and D have the rows of all panels, one after the other
        b, d = (np.ascontiguousarray(v.transpose(1, 0, 2)) for v in (b, d))
        of_b = of_c = (n * line, line)
    c = np.full_like(d, GUARD)
    if case.product == "z":
        a, of_a = np.ascontiguousarray(A.T), (size, m * size, 0, m * size)
    elif case.product in ("dx", "rows"):
        a, of_a = A, (k * size, size, 0, size)
    else:
        a = to_panels(A.T, at_once)
        of_a = at_once * size, size, at_once - 1, a[0].nbytes
        c, d, of_c = with_longer(np.full_like(D, GUARD)), with_longer(D), (D[0].nbytes, line)
        part = k if case.is_padded else products.LONG_PART
        # Rows of a batch that is not a multiple of the lanes.
        b = np.pad(b, ((0, 0), (0, -k % at_once), (0, 0)), constant_values=np.nan)
        of_b = line, b[0].nbytes
    a, b, c, d = map(memory.put, (a, b, c, d))
    of_d = (d.ctypes.data, *of_c) if case.adds else (0, 0, 0)
    driver(case.dtype)(
        m, n, k, a.ctypes.data, *of_a, b.ctypes.data, *of_b, c.ctypes.data, *of_c, *of_d,
        case.by_rows, part, 0, 0, 0,
    )  # fmt: skip
    memory.check(c)
    if case.product == "dW":
        return c[: D.size].reshape(D.shape)
    if case.product == "rows":
        return c.reshape(m, -1)[:, : case.columns]
    return from_panels(c, case.columns).T


def check(case: Case, got: Any) -> None:
    """Compare C with NumPy's in float64, each element by the bound of its terms."""
    A, B, D = (matrix.astype(np.float64) for matrix in draw(case))
    D = D if case.adds else np.zeros_like(D)
    bound = 4 * np.finfo(case.sums).eps * np.sqrt(case.k) * (abs(A) @ abs(B) + abs(D))
    wrong = ~(abs(got - (A @ B + D)) <= bound)
    assert not wrong.any(), f"{case}: wrong at {np.argwhere(wrong)[:5].tolist()}"


def shapes() -> Iterator[tuple[int, int, int]]:
    """Yield m, columns and k: each number at the edges of its blocks, with some of the others."""
    yield from ((m, n, k) for m in range(1, 31) for n, k in ((1, 1), (37, 19), (64, 7)))
    yield from ((m, n, k) for n in range(1, 71) for m, k in ((1, 3), (15, 18), (29, 33)))
    parts = (*range(255, 259), *range(511, 514), *range(1023, 1027))
    yield from ((m, n, k) for k in (*range(1, 41), *parts) for m, n in ((1, 1), (13, 17), (29, 64)))


def variants(product: str, dtype: str, every: int = 1) -> Iterator[Case]:
    """Yield the cases of a product: each shape with D and without, in both orders of tiles."""
    for m, columns, k in [*shapes()][::every]:
        case = Case(product, dtype, m, columns, k)
        for adds in (False, True):
            yield replace(case, adds=adds)
            if not case.is_padded:
                yield replace(case, adds=adds, by_rows=True)


def check_products(product: str, dtype: str, every: int = 1) -> None:
    """Check all cases of a product, each at another address."""
    for i, case in enumerate(variants(product, dtype, every)):
        check(case, computed(case, AtOffset(i * np.dtype(case.sums).itemsize % 64)))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_are_those_of_numpy(product: str, dtype: str) -> None:
    check_products(product, dtype, every=2 if dtype == "bf16" else 1)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_no_bit_depends_on_addresses_and_the_order_of_tiles(product: str, dtype: str) -> None:
    for case in variants(product, dtype, every=20):
        bits = {
            computed(replace(case, by_rows=by_rows), AtOffset(offset)).tobytes()
            for offset in (0, 0, 8, 24, 56)
            for by_rows in (False, not case.is_padded)
        }
        assert len(bits) == 1, case


@protected
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_access_nothing_outside_of_their_operands(
    product: str, dtype: str, tmp_path: Path
) -> None:
    driver(dtype)

    def work(note: Callable[[Any], None]) -> None:
        for case in variants(product, dtype, every=3):
            for is_last in (False, True):
                note(f"{case}, {is_last=}")
                computed(case, BetweenPages(is_last))

    run_in_child(work, tmp_path / "case")


# ---- the functions that call products -----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("ends", "inputs", "units"), [((0, 3), (0, 37), (0, 35)), ((1, 2), (5, 36), (16, 33))]
)
def test_parts_of_forward(
    dtype: str, ends: tuple[int, int], inputs: tuple[int, int], units: tuple[int, int]
) -> None:
    lanes, address = tiles.lanes(dtype), products.product_of(dtype).address
    rng = np.random.default_rng(0)
    x, W, d = (rng.standard_normal(s).astype(dtype) for s in ((3 * lanes, 37), (37, 35), (35,)))
    (p, q), (first, last), (lo, hi) = ends, inputs, units
    own, wide = W[first:last], panels.aligned((35, lanes), dtype)
    wide[...] = d[:, None]
    for biases in (0, wide.ctypes.data):
        z = np.full((4, 35, lanes), GUARD, dtype)
        from_python(products.forward)(
            address, to_panels(x, lanes), own, z, 1, ends, inputs, units, biases, 0
        )
        rows = x[p * lanes : q * lanes, first:last].astype(np.float64)
        wanted = rows @ own[:, lo:hi] + (d[lo:hi] if biases else 0)
        np.testing.assert_allclose(
            from_panels(z[1 : 1 + q - p, lo:hi], len(rows)), wanted, rtol=1e-4, atol=1e-4
        )
        z[1 : 1 + q - p, lo:hi] = GUARD
        assert (z == GUARD).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("part", "n"), [((0, 37), 35), ((9, 30), 35), ((9, 30), 1030)])
def test_parts_of_the_gradients(dtype: str, part: tuple[int, int], n: int) -> None:
    lanes, address = tiles.lanes(dtype), products.product_of(dtype).address
    rng, (lo, hi), n_panels = np.random.default_rng(0), part, -(-n // lanes)
    x, W, dz = (rng.standard_normal(s).astype(dtype) for s in ((n, 37), (37, 21), (n, 21)))
    dx = np.full((n_panels, 37, lanes), GUARD, dtype)
    from_python(products.input_gradient)(
        address, to_panels(dz, lanes), W[4:], dx, 4, (max(lo, 4), hi)
    )
    wanted = dz.astype(np.float64) @ W[max(lo, 4) : hi].T
    np.testing.assert_allclose(from_panels(dx, n)[:, max(lo, 4) : hi], wanted, rtol=1e-4, atol=1e-4)
    assert (np.delete(dx, np.s_[max(lo, 4) : hi], axis=1) == GUARD).all()

    turned = np.full((2, -(-21 // lanes), n_panels * lanes, lanes), np.nan, dtype)
    turned[1, :, :n] = to_panels(dz.T, lanes)
    ahead, read = np.array([x.ctypes.data, W.ctypes.data]), W[lo:hi].nbytes
    for arguments in ((0, 0, 0), (ahead.ctypes.data, 2, read)):  # with memory to prefetch
        dW = with_longer(np.full((hi - lo, 21), GUARD, dtype))
        from_python(products.weight_gradient)(
            address, to_panels(x, lanes), turned, 1, dW, n, 21, part, *arguments
        )
        wanted = x[:, lo:hi].astype(np.float64).T @ dz
        np.testing.assert_allclose(
            dW[: wanted.size].reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_parts_write_nothing(dtype: str) -> None:
    lanes, address = tiles.lanes(dtype), products.product_of(dtype).address
    x, W, z = (np.full(s, GUARD, dtype) for s in ((2, 5, lanes), (5, 3), (2, 3, lanes)))
    for ends, inputs, units in (
        ((1, 1), (0, 5), (0, 3)),
        ((0, 2), (2, 2), (0, 3)),
        ((0, 2), (0, 5), (3, 3)),
    ):
        from_python(products.forward)(address, x, W, z, 0, ends, inputs, units, 0, 0)
    from_python(products.input_gradient)(address, z, W, x, 0, (4, 4))
    from_python(products.input_gradient)(address, z[:0], W, x[:0], 0, (0, 5))
    assert (x == GUARD).all()
    assert (z == GUARD).all()


def check_prediction(dtype: str, columns: int, threads: int) -> None:
    """Check the products of many rows, and that each row is activated once."""
    rng = np.random.default_rng(0)
    for n in (prediction.FEWEST_ROWS - 1, prediction.ROWS_AT_ONCE + 1, 600):
        x, W = (rng.standard_normal(s).astype(dtype) for s in ((n, 300), (300, columns)))
        memory, parts = AtOffset(8), []
        z = memory.put(np.full((n, columns), GUARD, dtype))
        prediction.forward(memory.put(x), memory.put(W), z, parts.append, threads)
        np.testing.assert_allclose(z, x.astype(np.float64) @ W, rtol=1e-4, atol=1e-4)
        memory.check(z)
        rows = np.concatenate([np.arange(n)[part] for part in parts])
        assert sorted(rows) == [*range(n)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 16, 37])
def test_rows_of_a_prediction(dtype: str, columns: int, threads: int) -> None:
    check_prediction(dtype, columns, threads)


# ---- panels -------------------------------------------------------------------------------------


def parts_of(columns: int) -> list[tuple[int, int]]:
    """Return some first and last columns."""
    return [(0, columns), (columns // 3, columns), (0, columns - columns // 4)]


def check_panels(out: str, source: str, memory: Any, note: Callable[[Any], Any] = str) -> None:
    """Check `write_panel` for all numbers of rows and columns near those of a square."""
    is_same = int(out == source and out != "int32")
    for lanes in {tiles.lanes("float32"), tiles.lanes("float64")}:
        for n, columns in ((1, 1), (3, 2), (lanes, lanes), (lanes - 1, 7), (lanes, 2 * lanes + 5)):
            values, at = np.arange(n * columns).reshape(n, columns) % 251, np.arange(lanes)
            data = memory.put(values.astype(source))
            rows = np.minimum(at, n - 1)  # after the last row, that one
            layouts = [(data, is_same), (memory.put(np.ascontiguousarray(data.T)).T, 0)]
            for (data, by_squares), (first, last) in itertools.product(layouts, parts_of(columns)):
                note(f"{out} from {source}: {data.shape} {data.strides} {lanes} {first} {last}")
                panel = AtOffset(0).put(np.full((columns, lanes), GUARD, out))
                (down, across), address = data.strides, data.ctypes.data
                from_python(panels.write_panel)(
                    panel, address + rows * down, data[:1, :1], across, by_squares, first, last
                )
                wanted = np.full_like(panel, GUARD)
                wanted[first:last] = values[rows, first:last].T
                np.testing.assert_array_equal(panel, wanted)
                AtOffset(0).check(panel)


@pytest.mark.parametrize("source", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("out", ["int32", "float32", "float64"])
def test_rows_of_each_dtype_in_panels(out: str, source: str) -> None:
    check_panels(out, source, AtOffset(24))


def check_transposes(dtype: str, memory: Any) -> None:
    """Check `write_transposed` for numbers of units near the lanes."""
    lanes, worker = tiles.lanes(dtype), 1
    for n_panels in (1, 3):
        for units in (1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2):
            vectors, rows = -(-units // lanes), n_panels * lanes
            values = np.arange(n_panels * units * lanes, dtype=dtype)
            delta = memory.put(values.reshape(n_panels, units, lanes))
            turned = memory.put(np.full((2, vectors, rows, lanes), GUARD, dtype))
            from_python(panels.write_transposed)(delta, turned, worker)
            matrix = from_panels(delta, rows)[:, np.minimum(np.arange(vectors * lanes), units - 1)]
            np.testing.assert_array_equal(turned[1], to_panels(matrix.T, lanes))
            assert (turned[0] == GUARD).all()
            memory.check(turned)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposed_panels(dtype: str) -> None:
    for offset in (0, 8, 40):
        check_transposes(dtype, AtOffset(offset))


@protected
@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_access_nothing_outside_of_their_operands(dtype: str, tmp_path: Path) -> None:
    def work(note: Callable[[Any], None]) -> None:
        for memory in (BetweenPages(False), BetweenPages(True)):
            for source in ("uint8", dtype):
                check_panels(dtype, source, memory, note)
            note(f"transposes of {dtype}")
            check_transposes(dtype, memory)

    run_in_child(work, tmp_path / "case")


# ---- assembly -----------------------------------------------------------------------------------

LABEL = r"\.?L\w+"
JUMP = rf"\s(?:j\w+|b\.\w+|b|t?cbn?z)\s(?:.*\s)?({LABEL})$"
ON_STACK = re.compile(r"%[xyz]mm\d.*\(%[re]sp|\(%[re]sp.*%[xyz]mm\d|\b[qvdsz]\d+\b.*\[sp\b")
FUSED, SEPARATE = (
    re.compile(r"\sv?fn?madd\d|\sfmla\b|\svdpbf16ps\b"),
    re.compile(r"\sv?mulp[sd]\s|\sfmul\b"),
)


def inner_loops(assembly: str) -> list[list[str]]:
    """Return the lines of each block that jumps to its own beginning and computes vectors."""
    loops = []
    for block in re.split(rf"\n(?={LABEL}:)", assembly):
        lines = block.splitlines()
        jumps = [i for i, line in enumerate(lines) if re.search(JUMP, line)]
        back = [i for i in jumps if f"{re.search(JUMP, lines[i])[1]}:" in lines[0]]  # type: ignore[index]
        if back:
            loops.append(lines[: back[-1] + 1])
    return [loop for loop in loops if count(FUSED, loop) + count(SEPARATE, loop) > 0]


def count(pattern: re.Pattern[str], lines: list[str]) -> int:
    return sum(bool(pattern.search(line)) for line in lines)


def sums_of(kind: re.Pattern[str], loop: list[str]) -> int:
    """Return the number of sums; a loop over pairs may have two rounds, with the same registers."""
    of_pairs = {line.split(",")[-1] for line in loop if "dpbf16" in line}
    return len(of_pairs) or count(kind, loop)


def check_assembly(assembly: str, high: int, has_fused: bool = True) -> None:
    """Check that the sums stay in registers, from one multiplication to the next."""
    loops, kind = inner_loops(assembly), FUSED if has_fused else SEPARATE
    assert max(sums_of(kind, loop) for loop in loops) == tiles.PAIR * high
    assert len(loops) >= tiles.PAIR * high
    assert not any(count(ON_STACK, loop) for loop in loops)
    assert not has_fused or not any(count(SEPARATE, loop) for loop in loops)


def compiled(
    machine: Any, dtype: str, registers: tuple[int, int], vectors: Any = tiles.Vectors
) -> str:
    """Return the assembly of a function that contains the tiles of a dtype."""
    module = ir.Module()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    kind = ir.FunctionType(ir.VoidType(), [intrinsics.I64] * len(tiles.ARGUMENTS))
    function = ir.Function(module, kind, "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    given = dict(zip(tiles.ARGUMENTS, function.args, strict=True))
    width, high = registers
    tiles.emit_tile(vectors(builder, dtype, width), high, given)
    builder.ret_void()
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_assembly(parsed)


FIRST_LLVM = {"znver4": 16}  # an older one ends the process


def machine_of(triple: str, cpu: str) -> Any:
    """Return LLVM's machine of a processor; skip the test if this llvmlite has none."""
    if llvm.llvm_version_info[0] < FIRST_LLVM.get(cpu, 0):
        pytest.skip(f"LLVM {llvm.llvm_version_info[0]} does not know {cpu}")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError as error:
        pytest.skip(f"this llvmlite cannot compile for {triple}: {error}")
    return target.create_target_machine(cpu=cpu, opt=3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("triple", "cpu", "registers"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", (16, 6)),
        ("x86_64-unknown-linux-gnu", "haswell", (32, 6)),
        ("x86_64-unknown-linux-gnu", "skylake-avx512", (64, 14)),
        ("x86_64-unknown-linux-gnu", "znver4", (64, 14)),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", (16, 12)),
        ("arm64-apple-darwin", "apple-m1", (16, 12)),
    ],
)
def test_sums_stay_in_registers(
    triple: str, cpu: str, registers: tuple[int, int], dtype: str
) -> None:
    machine = machine_of(triple, cpu)
    assert tiles.register_of(machine) == registers
    width, high = registers
    check_assembly(compiled(machine, dtype, registers), high, has_fused=cpu != "x86-64")
    # Vectors of two registers each: their sums cannot stay in registers, which must be found.
    loops = inner_loops(compiled(machine, dtype, (2 * width, high)))
    assert any(count(ON_STACK, loop) for loop in loops)


@pytest.mark.parametrize("cpu", ["cooperlake", "znver4", "sapphirerapids"])
def test_sums_of_pairs_stay_in_registers(cpu: str) -> None:
    machine = machine_of("x86_64-unknown-linux-gnu", cpu)
    assembly = compiled(machine, "float32", (64, 14), pairs.Pairs)
    check_assembly(assembly, 14)
    loops = inner_loops(assembly)
    assert not any(count(re.compile(r"\sv?fmadd"), loop) for loop in loops)
    reads = re.compile(r"\sv(broadcastss|pbroadcastd)\s[^%]*\(")  # and copies to all lanes
    assert max(count(reads, loop) for loop in loops) >= 14


def check_own_assembly() -> None:
    """Check the products that numba compiles for this process."""
    for dtype in (*DTYPES, *["bf16"] * pairs.is_available()):
        with pytest.MonkeyPatch.context() as patch:  # code from the cache has no assembly
            patch.setattr(caching, "_cache_of", lambda _: NullCache())
            function = products.product_of.__wrapped__(dtype)
        check_assembly(function._library.get_asm_str(), tiles.register()[1])


def test_sums_stay_in_registers_of_this_processor() -> None:
    if platform.machine().lower() not in ("x86_64", "amd64", "arm64", "aarch64"):
        pytest.skip(f"the assembly of {platform.machine()} is not known")
    if tiles.register()[0] == 16 and "86" in platform.machine():
        pytest.skip("this processor has no fused multiply-add")
    check_own_assembly()


# ---- AVX2 ---------------------------------------------------------------------------------------


def check_avx2() -> None:
    """Check products, panels and a network; run in a process whose vectors have 32 bytes."""
    assert tiles.register() == (32, 6)
    check_own_assembly()
    for dtype in DTYPES:
        for product in PRODUCTS:
            check_products(product, dtype, every=3)
        check_panels(dtype, dtype, AtOffset(8))
        check_transposes(dtype, AtOffset(8))
    check_prediction("float32", 37, threads=1)
    check_training()


def check_training() -> None:
    """Check recorded steps of a network that has every product."""
    rng, trained, runs = np.random.default_rng(0), [], list[int]()
    x, y = rng.standard_normal((100, 23)).astype("f4"), rng.integers(0, 5, 100)
    with pytest.MonkeyPatch.context() as patch:
        run = Workers.run
        patch.setattr(Workers, "run", lambda self, *given: runs.append(1) or run(self, *given))
        for device in ("numpy", "numba"):
            assert not runs
            layers = [23, nn.Dense(37, "tanh"), nn.Dense(5, "softmax")]
            net = nn.Network(layers, "cross_entropy", device=device, dtype="float32", seed=0)
            nn.train(net, x, y, epochs=3, batch_size=33, optimizer="adam", seed=0)
            trained.append(np.concatenate([v.ravel() for p in net.get_parameters() for v in p]))
    assert runs
    np.testing.assert_allclose(*trained, rtol=2e-4, atol=2e-4)


def test_products_of_a_processor_with_avx2(tmp_path: Path) -> None:
    features = llvm.get_host_cpu_features()
    if platform.machine().lower() not in ("x86_64", "amd64") or not features.get("avx2"):
        pytest.skip("this processor has no AVX2")
    wanted = {f: is_on and not f.startswith("avx512") for f, is_on in features.items()}
    environment = os.environ | {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": ",".join("-+"[is_on] + f for f, is_on in wanted.items()),
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = "import test_products; test_products.check_avx2()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
