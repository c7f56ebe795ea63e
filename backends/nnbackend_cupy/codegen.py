"""Generate CUDA C from traced formulas: straight-line code that computes each value once.

An element-wise formula becomes the body of one function. One with reductions along a row becomes
a row program: a sequence of loops over the columns, one for each stage of reductions. Some lanes of
a warp share a row and loop over its columns; after a loop, every lane has its sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnbackend_cupy.tracing import BOOL, FLOAT, INTEGER, REDUCTIONS, Symbol, Untraceable

C_TYPES = {FLOAT: "T", INTEGER: "int", BOOL: "bool"}
COMMON_FUNCTIONS = {"sign", "maximum", "minimum"}  # functions of cuda/common.cu, for every type
INFIX = ("+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">=", "&&", "||")
# The C text of operations that are not functions.
TEXTS = {
    **{op: f"{{0}} {op} {{1}}" for op in INFIX},
    "same": "{0}",
    "where": "{0} ? {1} : {2}",
    "isnan": "{0} != {0}",
    "neg": "-{0}",
    "!": "!{0}",
}
# The initial values of reductions.
STARTS = {"sum": "0", "prod": "1", "max": "-INFINITE", "min": "INFINITE", "all": "1", "any": "0"}


def number(value: Any, kind: str, dtype: np.dtype[Any]) -> str:
    """Return a constant as C text, in the working dtype."""
    if kind != FLOAT:
        return str(int(value))
    if value != value or abs(value) == np.inf:
        text = "INFINITE - INFINITE" if value != value else "-INFINITE" if value < 0 else "INFINITE"
        return f"(T)({text})"
    text = str(dtype.type(value))  # the shortest text of the same number
    text = text if set(text) & set(".e") else f"{text}.0"
    return f"{text}f" if dtype == np.float32 else text


class Printer:
    """A generator of element-wise code in one dtype.

    loads: C text for each input; in a row program it may use the column `j`.
    """

    def __init__(self, dtype: Any, loads: Mapping[str, str]) -> None:
        self.dtype, self.loads = np.dtype(dtype), loads
        self.lines: list[str] = []
        self.indent = "  "
        self.known: dict[int, str] = {}  # the text of a value, by its key
        self._count = 0
        self._numbers: dict[Any, int] = {}  # the key of each computation
        self._keys: dict[int, tuple[int, Symbol]] = {}  # by the id of a symbol, kept alive

    def value(self, symbol: Symbol) -> str:
        """Return the text of a symbol's value, and append the lines that it needs."""
        key = self.key(symbol)
        if key not in self.known:
            text = self._text(symbol)
            if symbol.op not in ("constant", "same"):
                name = self.new_name("v")
                self.line(f"const {C_TYPES[symbol.kind]} {name} = {text};")
                text = name
            self.known[key] = text
        return self.known[key]

    def key(self, symbol: Symbol) -> int:
        """Return a symbol's key, equal for symbols that compute the same."""
        if id(symbol) not in self._keys:
            args = tuple(self.key(a) if isinstance(a, Symbol) else repr(a) for a in symbol.args)
            content = (symbol.op, symbol.kind, args)
            number = self._numbers.setdefault(content, len(self._numbers))
            self._keys[id(symbol)] = number, symbol
        return self._keys[id(symbol)][0]

    def new_name(self, letter: str) -> str:
        """Return an unused name."""
        self._count += 1
        return f"{letter}{self._count}"

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append(self.indent + text)

    def _text(self, symbol: Symbol) -> str:
        if symbol.op == "constant":
            return number(symbol.args[0], symbol.kind, self.dtype)
        if symbol.op == "input":
            return self.loads[symbol.args[0]]
        if symbol.op == "size":
            if symbol.args[0] != "O" or not isinstance(self, RowPrinter):
                raise Untraceable(f"it uses the size {symbol.args[0]}")
            return "columns"
        args = [self.value(a) for a in symbol.args]
        return self._operation(symbol, [f"({a})" if a.startswith("-") else a for a in args])

    def _operation(self, symbol: Symbol, args: list[str]) -> str:
        op, kind = symbol.op, symbol.kind
        if op == "cast":
            return f"{args[0]} != 0" if kind == BOOL else f"({C_TYPES[kind]}){args[0]}"
        if op in TEXTS:
            return TEXTS[op].format(*args)
        if kind == INTEGER and op == "fabs":
            return f"abs({args[0]})"
        suffix = "f" if op not in COMMON_FUNCTIONS and self.dtype == np.float32 else ""
        return f"{op}{suffix}({', '.join(args)})"


class RowPrinter(Printer):
    """A generator of row programs."""

    def __init__(self, dtype: Any, loads: Mapping[str, str]) -> None:
        super().__init__(dtype, loads)
        self._levels: dict[int, int] = {}
        self._of_row: dict[int, bool] = {}

    def program(self, results: Sequence[Symbol], writes: Sequence[tuple[str, Symbol]]) -> list[str]:
        """Generate the code of a row: write the columns of `writes`, and compute `results`.

        Return the text of `results`; the lines before it are in `self.lines`.
        """
        stages: dict[int, dict[int, Symbol]] = {}
        for symbol in (*results, *(symbol for _, symbol in writes)):
            self._find_reductions(symbol, stages, set())
        for _, reductions in sorted(stages.items()):
            self._reduce(reductions)
        if writes:
            self._loop([s for _, s in writes], [f"{place} = {{}}" for place, _ in writes])
        return [self.value(symbol) for symbol in results]

    def _find_reductions(
        self, symbol: Symbol, stages: dict[int, dict[int, Symbol]], seen: set[int]
    ) -> None:
        """Collect the reductions by stage; each depends only on earlier stages."""
        key = self.key(symbol)
        if key not in seen:
            seen.add(key)
            for argument in _arguments(symbol):
                self._find_reductions(argument, stages, seen)
            if symbol.op in REDUCTIONS:
                stages.setdefault(self._level(symbol), {}).setdefault(key, symbol)

    def _level(self, symbol: Symbol) -> int:
        key = self.key(symbol)
        if key not in self._levels:
            below = max((self._level(a) for a in _arguments(symbol)), default=0)
            self._levels[key] = below + (symbol.op in REDUCTIONS)
        return self._levels[key]

    def _is_of_row(self, symbol: Symbol) -> bool:
        """Return True if a value is the same in every column."""
        key = self.key(symbol)
        if key not in self._of_row:
            if symbol.op in ("input", *REDUCTIONS):
                self._of_row[key] = "O" not in symbol.shape_names
            else:
                self._of_row[key] = all(self._is_of_row(a) for a in _arguments(symbol))
        return self._of_row[key]

    def _prepare(self, symbol: Symbol, seen: set[int]) -> None:
        """Compute before a loop what is the same in every column."""
        key = self.key(symbol)
        if key in seen or key in self.known:
            return
        seen.add(key)
        if self._is_of_row(symbol):
            self.value(symbol)
        else:
            for argument in _arguments(symbol):
                self._prepare(argument, seen)

    def _loop(self, symbols: Sequence[Symbol], statements: Sequence[str]) -> None:
        """Generate a loop over the columns; `{}` in a statement is its symbol's value."""
        for symbol in symbols:
            self._prepare(symbol, set())
        outside = dict(self.known)
        self.line("for (int j = lane; j < columns; j += lanes) {")
        self.indent += "  "
        values = [self.value(symbol) for symbol in symbols]
        for statement, value in zip(statements, values, strict=True):
            self.line(f"{statement.format(value)};")
        self.indent = self.indent[:-2]
        self.line("}")
        self.known = outside  # names inside the loop end with it

    def _reduce(self, reductions: Mapping[int, Symbol]) -> None:
        """Compute the reductions of one stage in one loop."""
        statements, names = [], {}
        for key, symbol in reductions.items():
            name, op = self.new_name("r"), symbol.op
            names[key] = name
            kind = "int" if op in ("all", "any") else C_TYPES[symbol.args[0].kind]
            if op in ("max", "min") and kind == "int":
                raise Untraceable(f"it computes the {op} of integers")
            if op.startswith("arg"):
                self.line(f"Place<{kind}> {name} = {{0, NO_PLACE}};")
                item = f"Place<{kind}>{{{{{{}}, j}}}}"
            else:
                self.line(f"{kind} {name} = ({kind})({STARTS[op]});")
                item = f"({kind}){{}}"
            statements.append(f"{name} = {op}_of({name}, {item})")
        self._loop([s.args[0] for s in reductions.values()], statements)
        for key, symbol in reductions.items():
            name, op = names[key], symbol.op
            self.line(f"{name} = {op}_of_lanes({name}, lanes);")
            suffix = ".j" if op.startswith("arg") else ""
            self.known[key] = f"({name} != 0)" if symbol.kind == BOOL else f"{name}{suffix}"


def _arguments(symbol: Symbol) -> list[Symbol]:
    return [a for a in symbol.args if isinstance(a, Symbol)]


def has_reductions(symbol: Symbol) -> bool:
    """Return True if a formula combines elements of a row, or uses a size."""
    pending, seen = [symbol], set()
    while pending:
        here = pending.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if here.op in REDUCTIONS or here.op == "size":
            return True
        pending += _arguments(here)
    return False
