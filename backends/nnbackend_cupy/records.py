"""Records of kernels: what the head of a kernel in `cuda/` declares.

    __global__ over_elements(256, 1) KERNEL(
        T z[B O], const T b[O], double rate, long long n = B * O, int columns = O) {

The record is the only description of how a kernel is called. The head of the C function, the checks
of the arrays, the order of a launch and the C types of its numbers are made from it, so that they
cannot disagree. `over_elements` of grids.py chooses the grid; 256 and 1 are the launch bounds:
threads, and blocks per multiprocessor (left out: no bounds). Operands, which callers pass by name,
come first, then scratch memory, then sizes:

    const T x[B O]             an array that is read; equal letters are equal sizes, * is any size
    T a[B O]                   an array that is written
    const Y y[B C...]          C is the product of all further sizes
    strided In data[N C...]    read, each row contiguous; the size data_stride is their distance
    double rate                a number
    scratch T partial[m O]     memory that the launches of one lane share, m O elements
    long long n = B * O        a size, from letters and other sizes
    int lanes = grid           a size that the grid determines
    int label if HAS_LABELS    only in variants with this macro; `if not` in the others
    T s#[P]                    one for each of n: s0, s1, ...

T, Y, In and the like are types of arrays. Each has the dtype of the first such operand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_cupy import grids, sources
from nnbackend_cupy.kernel_cache import Launch
from nnbackend_cupy.sources import C_NAMES, Source
from nnbackend_cupy.tracing import Untraceable

DTYPES = {c_name: name for name, c_name in C_NAMES.items()}
LABELS = ("int32", "int64")
# The dtypes that a type of arrays may have; others, such as In and Out, may have any.
ALLOWED = {"T": ("float32", "float64"), "Y": LABELS}
ROLES = ("operand", "scratch", "size")
_HEAD = re.compile(r"((?:\w+ )?)__global__ (\w+)\((\w+)(?:, (\d+))?\) KERNEL\(\s*([^{]*?)\) \{")
_PARAMETER = re.compile(
    r"(?P<words>(?:(?:const|restrict|strided|scratch) )*)(?P<c_type>\w[\w ]*?) (?P<name>\w+)"
    r"(?:\[(?P<axes>[^]]+)\])?(?: = (?P<value>\w+(?: \* \w+)*))?"
)


class Parameter(NamedTuple):
    """One parameter: its declaration in C, and what is known about it.

    axes: of an array; empty for a number.  factors: of a size.
    """

    text: str
    role: str
    c_type: str
    name: str
    axes: list[str]
    factors: list[str]
    is_strided: bool


def _parsed(text: str) -> Parameter:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise ValueError(f"expected `type name[axes]` or `type name = size`. Received: {text!r}")
    words, c_type, name, axes, size = found.groups("")
    const = "const " if "const" in words or "strided" in words else ""
    pointer = "* __restrict__" if "restrict" in words else "*" if axes else ""
    role = "scratch" if "scratch" in words else "size" if size else "operand"
    return Parameter(
        f"{const}{c_type}{pointer} {name}", role, c_type, name, axes.split(),
        size.split(" * "), "strided" in words,
    )  # fmt: skip


class Plan(NamedTuple):
    """A launch without its arrays.

    operands: each with the type of a number, None for an array.
    scratch: the role, the number of elements and the dtype of each array.
    """

    launch: Launch
    grid: tuple[int, ...]
    block: tuple[int, ...]
    operands: list[tuple[str, Any]]
    scratch: list[tuple[str, int, np.dtype[Any]]]
    sizes: list[Any]

    def arguments(self, operands: Mapping[str, Any]) -> list[Any]:
        """Return the operands in the order of the kernel, numbers in their C types."""
        return [
            operands[name] if convert is None else convert(operands[name])
            for name, convert in self.operands
        ]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A CUDA kernel, or one variant of it.

    name: of its file in `cuda/`.
    filling: returns what to fill in, from the dtype of T, the formulas and n: the lines of FORMULA,
    or lines and macros by name. It raises OfRow if `of_row` is the kernel of these formulas, with
    the same operands.
    macros: of the variant.  n: of the parameters with #.
    """

    name: str
    filling: Callable[..., list[str] | Mapping[str, object]] | None = None
    of_row: Kernel | None = None
    macros: Mapping[str, Any] = field(default_factory=dict)
    n: int = 0

    # ---- the head, parsed at the first use --------------------------------------------------

    @cached_property
    def head(self) -> re.Match[str]:
        """The groups of the head: attributes, grid, threads, blocks, parameters."""
        found = _HEAD.search(sources.file_text(f"{self.name}.cu"))
        if found is None:
            raise ValueError(f"{self.name}.cu has no head `__global__ ...(...) KERNEL(...) {{`")
        return found

    @cached_property
    def declared(self) -> list[Parameter]:
        """All parameters in their order. Raises: ValueError."""
        declared = list(map(_parsed, self._declarations()))
        names, roles = [p.name for p in declared], [ROLES.index(p.role) for p in declared]
        if roles != sorted(roles) or len(set(names)) < len(names):
            raise ValueError(f"{self.name}: expected {ROLES} in this order. Received: {names}")
        known = {*DTYPES, *(p.c_type for p in declared if p.axes and p.c_type[0].isupper())}
        if unknown := [p.text for p in declared if p.c_type not in known]:
            raise ValueError(f"{self.name}: unknown types of {unknown}")
        return declared

    def _declarations(self) -> Iterator[str]:
        """Yield the declarations of this variant."""
        for declaration in re.split(r",\s+", self.head[5]):
            text, _, condition = declaration.partition(" if ")
            macro = condition.removeprefix("not ")
            if not condition or bool(self.macros[macro]) == (condition == macro):
                for k in range(self.n if "#" in text else 1):
                    yield text.replace("#", str(k))

    @cached_property
    def arrays(self) -> list[str]:
        """The names of the operands that are arrays."""
        return [p.name for p in self.of_role("operand") if p.axes]

    def of_role(self, role: str) -> list[Parameter]:
        """Return the parameters with a role."""
        return [parameter for parameter in self.declared if parameter.role == role]

    # ---- use --------------------------------------------------------------------------------

    def bind(self, operands: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, int]]:
        """Return the dtypes of the types and the sizes of the letters, after all checks.

        Raises: TypeError for other operands; Untraceable for an unsupported dtype, layout or shape.
        """
        expected = [parameter.name for parameter in self.of_role("operand")]
        if sorted(expected) != sorted(operands):
            raise TypeError(f"{self.name}: expected operands {expected}. Received: {[*operands]}")
        types: dict[str, str] = {}
        sizes = {str(n): n for n in range(5)}  # axes may be numbers
        for parameter in self.of_role("operand"):
            if parameter.axes:
                _bind(parameter, operands[parameter.name], types, sizes)
        return types, sizes

    def source(self, types: Mapping[str, str], *formulas: Any) -> Source:
        """Return the text for some types and formulas. Raises: Untraceable, OfRow."""
        each = {"n": self.n} if "#" in self.head[5] else {}
        filling = self.filling(np.dtype(types["T"]), *formulas, **each) if self.filling else {}
        attributes, _, threads, blocks, _ = self.head.groups("")
        bounds = f" __launch_bounds__({threads}, {blocks})" if blocks else ""
        parameters = ", ".join(parameter.text for parameter in self.declared)
        head = f'extern "C" {attributes}__global__ void{bounds}\n    KERNEL({parameters}) {{'
        text = _HEAD.sub(lambda found: head, sources.file_text(f"{self.name}.cu"))
        names = [sources.label_of(formula) for formula in formulas if formula is not None]
        macros = {name: C_NAMES[dtype] for name, dtype in types.items()} | dict(self.macros)
        if each:
            macros["EACH(DO)"] = " ".join(f"DO({k})" for k in range(self.n))
        filling = {"FORMULA": filling} if isinstance(filling, list) else filling
        if twice := macros.keys() & filling:
            raise ValueError(f"{self.name}: {sorted(twice)} are filled in twice")
        label = "_".join((self.name, *names, *types.values()))
        return sources.instance(text, label, {**macros, **filling})

    def plan(self, types: Mapping[str, str], sizes: dict[str, int], launch: Launch) -> Plan | None:
        """Return the launch for some types and sizes, None if there is nothing to compute."""
        for parameter in self.of_role("size"):
            if parameter.factors != ["grid"]:
                sizes[parameter.name] = math.prod(sizes[factor] for factor in parameter.factors)
        found = getattr(grids, self.head[2])(**sizes)
        if found is None:
            return None
        grid, of_grid = found
        sizes |= of_grid
        threads = self.head[3]

        def dtype(parameter: Parameter) -> np.dtype[Any]:
            return np.dtype(types.get(parameter.c_type) or DTYPES[parameter.c_type])

        return Plan(
            launch,
            grid,
            (int(self.macros.get(threads, threads)),),
            [(p.name, None if p.axes else dtype(p).type) for p in self.of_role("operand")],
            [
                (p.name, math.prod(sizes[axis] for axis in p.axes), dtype(p))
                for p in self.of_role("scratch")
            ],
            [dtype(p).type(sizes[p.name]) for p in self.of_role("size")],
        )


@cache
def variant(name: str, filling: Any = None, n: int = 0, **macros: int) -> Kernel:
    """Return a variant of a kernel, the same object for the same arguments."""
    return Kernel(name, filling, macros={macro: int(value) for macro, value in macros.items()}, n=n)


# ---- checks -------------------------------------------------------------------------------------


def _bind(parameter: Parameter, array: Array, types: dict[str, str], sizes: dict[str, int]) -> None:
    """Check an array, and add its type and sizes if they are new."""
    name, c_type, axes, shape = array.dtype.name, parameter.c_type, parameter.axes, array.shape
    if c_type in DTYPES or c_type in types:
        expected = [DTYPES.get(c_type) or types[c_type]]
    else:
        expected = list(ALLOWED.get(c_type, C_NAMES))
        types[c_type] = name
    if name not in expected:
        raise Untraceable(f"{parameter.name}: expected {', '.join(expected)}. Received: {name}")
    if parameter.is_strided:
        sizes[f"{parameter.name}_stride"] = row_stride(array)
    elif not array.flags.c_contiguous:
        raise Untraceable(f"{parameter.name} is not contiguous: {array.shape}, {array.strides}")
    if axes == ["*"]:
        return
    if axes[-1].endswith("..."):
        shape = (*shape[: len(axes) - 1], math.prod(shape[len(axes) - 1 :]))
    new = dict(zip((axis.removesuffix("...") for axis in axes), shape, strict=False))
    if len(shape) != len(axes) or any(sizes.get(axis, n) != n for axis, n in new.items()):
        known = {axis: n for axis, n in sizes.items() if not axis.isdigit()}
        raise Untraceable(
            f"{parameter.name}: expected shape {axes} where {known}. Received: {array.shape}"
        )
    sizes |= new


def row_stride(data: Array) -> int:
    """Return the stride of rows in elements. Raise Untraceable if a row is not contiguous."""
    if data.size == 0:  # the strides of an empty array mean nothing
        return 0
    itemsize, below = data.dtype.itemsize, data.dtype.itemsize
    for n, step in zip(data.shape[:0:-1], data.strides[:0:-1], strict=True):
        if n > 1 and step != below:
            raise Untraceable(f"rows with strides {data.strides} are not contiguous")
        below *= n
    if data.dtype.name not in C_NAMES or data.strides[0] % itemsize:
        raise Untraceable(f"no kernel reads rows of {data.dtype}, strides {data.strides}")
    return int(data.strides[0] // itemsize)
