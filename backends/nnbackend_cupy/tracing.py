"""Trace a formula over `xp` into a tree of operations, by calling it once with symbols.

A built-in or custom formula receives symbols instead of arrays, and a symbolic namespace; its
result is the tree. NumPy's functions are traced too. A formula that branches on values
(`if z > 0`), changes an array in place or reduces over the batch cannot be traced: it raises
`Untraceable`, and the caller evaluates it over arrays instead.

All numbers have the working dtype, including constants. Shapes are names of axes: "B" rows,
"O" columns, "P" parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[str | int, ...]
ELEMENTS: Shape = ("B", "O")  # of an activation, an output, a target
REDUCTIONS = ("sum", "prod", "max", "min", "argmax", "argmin", "all", "any")
FLOAT, INTEGER, BOOL = "fib"  # the kinds of a symbol; float is the working dtype

# Functions of NumPy or the array API standard: the operation, the kind of its operands (None: their
# common kind; NUMBER: that, with booleans as floats) and of its result (None: the same).
NUMBER = "number"
_INVERSE = ("asin", "acos", "atan", "asinh", "acosh", "atanh")
_C_FUNCTIONS = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "erf", "erfc"),
    *("sin", "cos", "tan", "sinh", "cosh", "tanh", *_INVERSE, "floor", "ceil", "trunc", "rint"),
)
UNARY: dict[str, tuple[str, str | None, str | None]] = {
    **{name: (name, FLOAT, None) for name in _C_FUNCTIONS},
    **{f"arc{name[1:]}": (name, FLOAT, None) for name in _INVERSE},
    **dict.fromkeys(("abs", "absolute", "fabs"), ("fabs", NUMBER, None)),
    **dict.fromkeys(("logical_not", "invert"), ("!", BOOL, BOOL)),
    "round": ("rint", FLOAT, None),
    "sign": ("sign", NUMBER, None),
    "negative": ("neg", NUMBER, None),
    "isnan": ("isnan", None, BOOL),
}
COMPARISONS = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
LOGICAL = {"and": "&&", "or": "||", "xor": "!="}
BINARY: dict[str, tuple[str, str | None, str | None]] = {
    **{name: (op, None, BOOL) for name, op in COMPARISONS.items()},
    **{f"logical_{name}": (op, BOOL, BOOL) for name, op in LOGICAL.items()},
    **dict.fromkeys(("atan2", "arctan2"), ("atan2", FLOAT, None)),
    "maximum": ("maximum", FLOAT, None),
    "minimum": ("minimum", FLOAT, None),
    "divide": ("/", FLOAT, None),
}


class Untraceable(Exception):
    """A formula or its arrays are not supported by the kernels; the message is the reason."""


class Symbol:
    """One value in a formula: an input, a constant, or an operation on others.

    op: "input", "constant", "size" or the operation.  args: symbols; of the first three, a name,
    a number, an axis.  kind: FLOAT, INTEGER or BOOL.
    """

    __slots__ = ("args", "kind", "op", "shape_names", "working")
    __hash__ = object.__hash__

    def __init__(
        self, op: str, args: tuple[Any, ...], kind: str, shape: Shape, working: np.dtype[Any]
    ) -> None:
        self.op, self.args, self.kind, self.shape_names = op, args, kind, shape
        self.working = working

    # ---- supported attributes of an array ---------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of an array in its place; for floats, the working dtype."""
        others = {INTEGER: np.dtype(np.int64), BOOL: np.dtype(np.bool_)}
        return others.get(self.kind, self.working)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes; those of named axes are symbols."""
        return tuple(
            n if n == 1 else Symbol("size", (n,), INTEGER, (), self.working)
            for n in self.shape_names
        )

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape_names)

    def astype(self, dtype: Any, **options: Any) -> Any:
        """Return the value in another kind; every float has the working dtype."""
        return XP.astype(self, dtype)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """Convert a column (B, 1) to a vector (B,), or back."""
        return XP.reshape(self, shape[0] if len(shape) == 1 else shape)

    def __getitem__(self, key: Any) -> Symbol:
        keys = key if isinstance(key, tuple) else (key,)
        whole = slice(None)
        if keys in ((whole,), (...,), (whole, whole)):
            return self
        if self.ndim == 1 and keys in ((whole, None), (..., None)):
            return _reshaped(self, (*self.shape_names, 1))
        return _refuse("selects elements of an array")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in _METHODS:
            raise AttributeError(f"a traced array has no {name!r}")
        return lambda *args, **kwargs: getattr(XP, name)(self, *args, **kwargs)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            _refuse(f"calls {ufunc.__name__}.{method} with {sorted(kwargs)}")
        return getattr(XP, ufunc.__name__)(*inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return getattr(XP, func.__name__)(*args, **kwargs)

    # ---- operations that need values --------------------------------------------------------

    def __bool__(self) -> bool:
        return _refuse("branches on an array's values (use xp.where instead of if, min or max)")

    def __float__(self) -> float:
        return _refuse("converts an array to a number (as the functions of math do)")

    def __len__(self) -> int:
        return _refuse("uses an array's length")

    __int__ = __index__ = __iter__ = __complex__ = __float__

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse("changes an array in place")

    def __iadd__(self, other: Any) -> Any:
        # Python would compute a + other; on arrays, += also changes the original.
        _refuse("changes an array in place")

    __isub__ = __imul__ = __itruediv__ = __ipow__ = __iand__ = __ior__ = __ixor__ = __iadd__


def _refuse(why: str) -> NoReturn:
    raise Untraceable(f"it {why}")


# ---- building -----------------------------------------------------------------------------------


def inputs(dtype: Any, shape: Shape, *names: str) -> list[Symbol]:
    """Return symbols for arrays or numbers with these names."""
    return [Symbol("input", (name,), FLOAT, shape, np.dtype(dtype)) for name in names]


def _as_symbol(value: Any, like: Symbol) -> Symbol:
    """Return a number as a constant, which has the working dtype in operations with floats."""
    if isinstance(value, Symbol):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        _refuse(f"uses a {type(value).__name__} that is not a number")
    kind = BOOL if isinstance(value, bool) else INTEGER if isinstance(value, int) else FLOAT
    return Symbol("constant", (value,), kind, (), like.working)


def _broadcast(symbols: Sequence[Symbol]) -> Shape:
    """Return the common shape of symbols by NumPy's broadcasting rules."""
    shape: list[str | int] = []
    for axis in range(1, 1 + max(s.ndim for s in symbols)):
        names = {s.shape_names[-axis] for s in symbols if s.ndim >= axis} - {1}
        if len(names) > 1:
            _refuse(f"combines shapes {[s.shape_names for s in symbols]}")
        shape.insert(0, names.pop() if names else 1)
    return tuple(shape)


def _node(op: str, values: Sequence[Any], of: str | None = None, kind: str | None = None) -> Symbol:
    """Return an operation on values. of, kind: of its operands and its result, as in `UNARY`."""
    like = next(v for v in values if isinstance(v, Symbol))
    symbols = [_as_symbol(v, like) for v in values]
    common = min((s.kind for s in symbols), key="fib".index)
    if of is not None:
        common = of if of != NUMBER else FLOAT if common == BOOL else common
    symbols = [_cast(s, common) for s in symbols]
    return Symbol(op, tuple(symbols), kind or common, _broadcast(symbols), like.working)


def _cast(symbol: Symbol, kind: str) -> Symbol:
    if symbol.kind == kind:
        return symbol
    if symbol.op == "constant":
        value = {FLOAT: float, INTEGER: int, BOOL: bool}[kind](symbol.args[0])
        return Symbol("constant", (value,), kind, symbol.shape_names, symbol.working)
    return Symbol("cast", (symbol,), kind, symbol.shape_names, symbol.working)


def _reshaped(symbol: Symbol, shape: Shape) -> Symbol:
    return Symbol("same", (symbol,), symbol.kind, shape, symbol.working)


def _power(base: Any, exponent: Any) -> Symbol:
    """Return a power; small exponents become products, which are accurate and far cheaper."""
    if isinstance(exponent, (int, float, np.number)) and isinstance(base, Symbol):
        x: Any = _cast(base, FLOAT)
        small: dict[float, Callable[[], Symbol]] = {
            -1.0: lambda: 1.0 / x,
            0.0: lambda: XP.ones_like(x),
            0.5: lambda: XP.sqrt(x),
            1.0: lambda: x,
            2.0: lambda: x * x,
            3.0: lambda: x * x * x,
            4.0: lambda: (x * x) * (x * x),
        }
        if float(exponent) in small:
            return small[float(exponent)]()
    return _node("pow", (base, exponent), of=FLOAT)


def _reduce(op: str, x: Symbol, axis: Any, keepdims: bool) -> Symbol:
    """Return a reduction along a row."""
    if axis not in (1, -1) or x.shape_names != ELEMENTS:
        _refuse(f"computes {op} over axis {axis} of shape {x.shape_names}; a row's is axis 1")
    if op in ("all", "any"):
        x = _cast(x, BOOL)
    elif x.kind == BOOL:
        x = _cast(x, INTEGER)
    kind = INTEGER if op.startswith("arg") else x.kind
    return Symbol(op, (x,), kind, ("B", 1) if keepdims else ("B",), x.working)


# ---- the namespace ------------------------------------------------------------------------------


class SymbolicNamespace:
    """The namespace `xp` for symbols: element-wise functions and reductions along a row."""

    float32, float64, bool, bool_ = np.float32, np.float64, np.bool_, np.bool_
    int32, int64 = np.int32, np.int64
    e, pi, inf, nan = float(np.e), float(np.pi), float(np.inf), float(np.nan)
    finfo = staticmethod(np.finfo)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _FUNCTIONS:
            raise AttributeError(f"{name} is not a function that can be traced")
        traced = _FUNCTIONS[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            if not any(isinstance(value, Symbol) for value in (*args, *kwargs.values())):
                return getattr(np, name)(*args, **kwargs)  # only numbers: a number
            return traced(*args, **kwargs)

        return call


XP: Any = SymbolicNamespace()


def _arithmetic(op: str) -> Callable[..., Symbol]:
    def traced(a: Any, b: Any) -> Symbol:
        made = _node(op, (a, b))
        if made.kind == BOOL:  # as in NumPy, + is or, * is and, and - is an error
            made.op = {"+": "||", "*": "&&"}.get(op) or _refuse("subtracts booleans")
        return made

    return traced


def _bitwise(op: str) -> Callable[..., Symbol]:
    def traced(a: Any, b: Any) -> Symbol:
        if any(getattr(v, "kind", BOOL) != BOOL for v in (a, b)):
            _refuse("uses bitwise operations on numbers")
        return _node(op, (a, b), BOOL, BOOL)

    return traced


def _reduction(op: str) -> Callable[..., Symbol]:
    return lambda x, axis=None, keepdims=False: _reduce(op, x, axis, keepdims)


def _where(condition: Any, a: Any, b: Any) -> Symbol:
    like = next(v for v in (condition, a, b) if isinstance(v, Symbol))
    values = [_as_symbol(v, like) for v in (a, b)]
    kind = min((v.kind for v in values), key="fib".index)
    symbols = [_cast(_as_symbol(condition, like), BOOL), *(_cast(v, kind) for v in values)]
    return Symbol("where", tuple(symbols), kind, _broadcast(symbols), like.working)


def _astype(x: Symbol, dtype: Any, **options: Any) -> Symbol:
    char = np.dtype(dtype).kind
    if char not in "fiub":
        _refuse(f"uses the dtype {dtype}")
    return _cast(x, INTEGER if char in "iu" else char)


def _full_like(x: Symbol, value: Any, dtype: Any = None, **options: Any) -> Symbol:
    made = _cast(_as_symbol(value, x), x.kind)
    whole = Symbol("same", (made,), x.kind, x.shape_names, x.working)
    return whole if dtype is None else _astype(whole, dtype)


def _reshape(x: Symbol, shape: Any, **options: Any) -> Symbol:
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    wanted = tuple(s.args[0] if isinstance(s, Symbol) else s for s in sizes)
    if x.shape_names[:1] == ("B",) and x.shape_names[1:] in ((), (1,)):
        for target in (("B",), ("B", 1)):
            if len(wanted) == len(target) and wanted[0] in (-1, "B") and wanted[1:] == target[1:]:
                return _reshaped(x, target)
    return _refuse(f"reshapes {x.shape_names} to {wanted}")


def _clip(x: Symbol, min: Any = None, max: Any = None, **options: Any) -> Symbol:
    low, high = options.get("a_min", min), options.get("a_max", max)
    x = x if low is None else _node("maximum", (x, low))
    return x if high is None else _node("minimum", (x, high))


def _mean(x: Symbol, axis: Any = None, keepdims: bool = False) -> Symbol:
    return _node("/", (_reduce("sum", _cast(x, FLOAT), axis, keepdims), x.shape[1]))


def _logaddexp(a: Any, b: Any) -> Symbol:
    made: Symbol = XP.maximum(a, b) + XP.log1p(XP.exp(-XP.abs(a - b)))
    return made


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: lambda x, row=row: _node(row[0], (x,), *row[1:]) for name, row in UNARY.items()},
    **{name: lambda a, b, row=row: _node(row[0], (a, b), *row[1:]) for name, row in BINARY.items()},
    **{f"bitwise_{name}": _bitwise(op) for name, op in LOGICAL.items()},
    "add": _arithmetic("+"),
    "subtract": _arithmetic("-"),
    "multiply": _arithmetic("*"),
    **{op: _reduction(op) for op in REDUCTIONS},
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "mean": _mean,
    "power": _power,
    "pow": _power,
    "positive": lambda x: x,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1.0 / x,
    "isinf": lambda x: XP.abs(x) == np.inf,
    "isfinite": lambda x: XP.abs(x) < np.inf,
    "expit": lambda x: 1.0 / (1.0 + XP.exp(-x)),
    "logaddexp": _logaddexp,
    "where": _where,
    "clip": _clip,
    "astype": _astype,
    "reshape": _reshape,
    "full_like": _full_like,
    "ones_like": lambda x, **options: _full_like(x, 1.0, **options),
    "zeros_like": lambda x, **options: _full_like(x, 0.0, **options),
}
_METHODS = {*REDUCTIONS, "mean", "clip"}


def _add_operators() -> None:
    """Define the operators of Symbol: `a + b` is xp.add(a, b), also with a number on the left."""
    names = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}
    names |= {"pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
    for short, name in names.items():
        traced = _FUNCTIONS[name]
        setattr(Symbol, f"__{short}__", lambda a, b, f=traced: f(a, b))
        setattr(Symbol, f"__r{short}__", lambda a, b, f=traced: f(b, a))
    for short, name in zip(("eq", "ne", "lt", "le", "gt", "ge"), COMPARISONS, strict=True):
        setattr(Symbol, f"__{short}__", lambda a, b, f=_FUNCTIONS[name]: f(a, b))
    ones = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "invert"}
    for short, name in ones.items():
        setattr(Symbol, f"__{short}__", lambda a, f=_FUNCTIONS[name]: f(a))


_add_operators()


def traced(formula: Callable[..., Any], *args: Any) -> Any:
    """Return a formula's result for symbols. Raise Untraceable if the formula is unsupported."""
    try:
        return formula(*args)
    except Untraceable:
        raise
    except Exception as error:  # a formula may use anything that symbols do not support
        raise Untraceable(f"it fails on symbols: {type(error).__name__}: {error}") from error


def as_symbol(result: Any, like: Symbol, shape: Shape) -> Symbol:
    """Return a formula's result as floats that broadcast to `shape`. Raise Untraceable if not."""
    symbol = _cast(_as_symbol(result, like), FLOAT)
    full = _broadcast([symbol, Symbol("input", ("",), FLOAT, shape, like.working)])
    if full != shape or symbol.ndim > len(shape):
        _refuse(f"returns shape {symbol.shape_names}, expected {shape}")
    return symbol
