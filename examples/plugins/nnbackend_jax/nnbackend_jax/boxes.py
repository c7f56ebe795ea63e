"""Writable arrays over immutable ones.

A `jax.Array` never changes. A `Box` holds one, and writing to the box replaces it. A slice or a
reshape of a box is a `View`: it stores no array. Reading a view computes its part of the box's
array; writing to a view puts a new array into the box, with that part replaced.
"""

from __future__ import annotations

import operator
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnbackend.errors import DeviceMemoryError

Span = tuple[int, int]  # start and stop of a part of a vector


class Tracer(Protocol):
    """The content of all boxes while a step is traced; see `nnbackend_jax.capturing`."""

    cuts: dict[int, list[int]]

    def read(self, box: Box, span: Span | None) -> jax.Array: ...

    def write(self, box: Box, value: jax.Array, span: Span | None) -> None: ...


class _Tracing(threading.local):
    by: Tracer | None = None


tracing = _Tracing()  # of each thread


class Box:
    """An array that can be written to.

    parts: its content: one array, or a vector's neighbouring parts as compiled steps left them.
    """

    __slots__ = ("_shape", "dtype", "parts")
    __array_ufunc__ = None  # NumPy leaves `host * box` to the box

    def __init__(self, value: jax.Array) -> None:
        self.parts, self._shape, self.dtype = [value], value.shape, value.dtype

    @property
    def value(self) -> jax.Array:
        """The content as one array."""
        if len(self.parts) > 1:
            self.parts = [jnp.concatenate(self.parts)]
        return self.parts[0]

    def read(self, span: Span | None = None) -> jax.Array:
        """Return the present content, or a part of a vector's."""
        if tracing.by is not None:
            return tracing.by.read(self, span)
        return self.value if span is None else self.value[slice(*span)]

    def write(self, value: jax.Array, span: Span | None = None) -> None:
        """Replace the content, or a part of a vector's, by an array of its shape and dtype."""
        if tracing.by is not None:
            tracing.by.write(self, value, span)
        else:
            new = value if span is None else replaced(self.value, slice(*span), value)
            self.parts = [computed(new)]

    @property
    def root(self) -> Box:
        """The box whose array a view shows; for a box itself, the box."""
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self._shape)

    @property
    def T(self) -> Box:
        """A view with the axes in reverse order."""
        return View(self, self._shape[::-1], lambda a: a.T, lambda a, part: part.T)

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, key: Any) -> Box:
        if not is_basic(key):
            copy: Box = apply(operator.getitem, self, key)
            return copy
        if key is ... or (isinstance(key, slice) and key == slice(None)):
            return self
        if self.ndim == 1 and isinstance(key, slice) and key.step in (None, 1):
            places = range(len(self))[key]
            return self._part(places.start, max(places.start, places.stop))
        return self._view(key)

    def _part(self, start: int, stop: int) -> Box:
        """Return a contiguous part of a vector."""
        return Part(self, (start, stop))

    def _view(self, key: Any) -> Box:
        shape = np.broadcast_to(np.empty(()), self._shape)[key].shape  # of one number
        return View(self, shape, lambda a: a[key], lambda a, part: replaced(a, key, part))

    def __setitem__(self, key: Any, value: Any) -> None:
        with jax_scope(self, value):
            part = jnp.asarray(unboxed(value), self.dtype)
            if is_basic(key):
                view = self[key]
                view.write(part if part.shape == view.shape else jnp.broadcast_to(part, view.shape))
            else:
                self.write(replaced(self.read(), unboxed(key), part))

    def __bool__(self) -> bool:
        return bool(self.read())

    def __int__(self) -> int:
        return int(self.read())

    def __float__(self) -> float:
        return float(self.read())

    __index__ = __int__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.read()})"


class View(Box):
    """A slice, reshape or transpose of another box.

    look(array) returns the slice of the box's array, put(array, value) a copy with a new slice.
    """

    __slots__ = ("look", "parent", "put")

    def __init__(
        self,
        parent: Box,
        shape: tuple[int, ...],
        look: Callable[[jax.Array], jax.Array],
        put: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> None:
        self.parent, self._shape, self.dtype = parent, shape, parent.dtype
        self.look, self.put = look, put

    def read(self, span: Span | None = None) -> jax.Array:
        with jax_scope(self):
            return self.look(self.parent.read())

    def write(self, value: jax.Array, span: Span | None = None) -> None:
        with jax_scope(self):
            self.parent.write(self.put(self.parent.read(), value))

    @property
    def root(self) -> Box:
        return self.parent.root

    def _part(self, start: int, stop: int) -> Box:
        return self._view(slice(start, stop))


class Part(Box):
    """A contiguous part of a vector in a box: the engine's parameters are such parts."""

    __slots__ = ("parent", "span")

    def __init__(self, parent: Box, span: Span) -> None:
        self.parent, self.span, self.dtype = parent, span, parent.dtype
        self._shape = (span[1] - span[0],)

    def read(self, span: Span | None = None) -> jax.Array:
        with jax_scope(self):
            return self.parent.read(self.span)

    def write(self, value: jax.Array, span: Span | None = None) -> None:
        with jax_scope(self):
            self.parent.write(value, self.span)

    @property
    def root(self) -> Box:
        return self.parent

    def _part(self, start: int, stop: int) -> Box:
        first = self.span[0]
        return Part(self.parent, (first + start, first + stop))


def is_basic(key: Any) -> bool:
    """Return True for a key that selects a view, as in NumPy: integers, slices, ... and None."""
    keys = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is ... or isinstance(k, int | slice) for k in keys)


def reshaped(box: Box, shape: tuple[int, ...]) -> View:
    """Return a view with another shape, in which one length may be -1."""
    known = prod(n for n in shape if n != -1)
    shape = tuple(box.size // known if n == -1 else n for n in shape)
    return View(box, shape, lambda a: a.reshape(shape), lambda a, part: part.reshape(a.shape))


def replaced(array: jax.Array, key: Any, value: Any) -> jax.Array:
    """Return a copy of an array in which the part that `key` selects has a new value.

    Contiguous parts are updated as a block, which XLA does in place where it can; `at[key].set` is
    a scatter, which is slow on a CPU.
    """
    value = jnp.asarray(value, array.dtype)
    keys = key if isinstance(key, tuple) else (key,)
    is_block = all(type(k) is int or (type(k) is slice and k.step in (None, 1)) for k in keys)
    if not is_block:
        return array.at[key].set(value)
    starts, block, shape = [], [], []  # shape: of the part, without the axes of integers
    others = [slice(None)] * (array.ndim - len(keys))
    for k, n in zip([*keys, *others], array.shape, strict=True):
        if isinstance(k, slice):
            first, length = range(n)[k].start, len(range(n)[k])
            shape.append(length)
        else:
            first, length = range(n)[k], 1
        starts.append(first)
        block.append(length)
    part = jnp.broadcast_to(value, shape).reshape(block)
    return lax.dynamic_update_slice(array, part, starts)


# ---- functions of JAX on boxes ---------------------------------------------------------------


def unboxed(value: Any) -> Any:
    """Return the arrays of boxes, also of those in lists and tuples."""
    if isinstance(value, Box):
        return value.read()
    if type(value) in (list, tuple):
        return type(value)(map(unboxed, value))
    return value


def boxed(value: Any) -> Any:
    """Return new boxes of arrays, also of those in lists and tuples."""
    if isinstance(value, jax.Array):
        return Box(value)
    if type(value) in (list, tuple):
        return type(value)(map(boxed, value))
    return value


@contextmanager
def jax_scope(*operands: Any) -> Iterator[None]:
    """Allow 64-bit types, only in here; raise DeviceMemoryError if memory runs out.

    operands: boxes, or a device of JAX, to name the device in the error.
    """
    try:
        with jax.enable_x64(True):
            yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _memory_error(operands, str(error)) from None  # the traceback would hold arrays


def _memory_error(operands: tuple[Any, ...], message: str) -> DeviceMemoryError:
    """Return the error of a full device, with the numbers that JAX reports."""
    values = [o.root.parts[0] if isinstance(o, Box) else o for o in operands]
    places: list[Any] = [v.device for v in values if isinstance(v, jax.Array) and not is_traced(v)]
    places += [value for value in values if isinstance(value, jax.Device)]
    place = places[0] if places else jax.devices()[0]
    stats = place.memory_stats() or {}  # a CPU has none
    total, used = stats.get("bytes_limit"), stats.get("bytes_in_use", 0)
    asked = re.search(r"allocating (\d+)", message)
    return DeviceMemoryError.on(
        device_name(place), int(asked[1]) if asked else None, total and total - used, total
    )


def device_name(place: jax.Device) -> str:
    """Return nnbackend's name of a device, such as jax:cpu:0."""
    return f"jax:{place.platform}:{jax.local_devices(backend=place.platform).index(place)}"


def is_traced(value: jax.Array) -> bool:
    """Return True for the abstract value of a function that JAX is tracing."""
    return isinstance(value, jax.core.Tracer)


def apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of JAX with the arrays of boxes; return boxes."""
    with jax_scope(*args):
        named = {name: unboxed(value) for name, value in kwargs.items()}
        return boxed(computed(function(*map(unboxed, args), **named)))


def computed(arrays: Any) -> Any:
    """Return arrays after waiting for them: JAX raises the error of a computation only then."""
    return jax.block_until_ready(arrays)  # type: ignore[no-untyped-call]


def _operand(box: Box, other: Any) -> Any:
    """Return the other operand; JAX reads an int as int64, which ends below 2^63."""
    return np.uint64(other) if type(other) is int and box.dtype == np.uint64 else other


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a @ b in float32; JAX's default on a GPU or TPU is a shorter format."""
    return jnp.matmul(a, b, precision="highest")


def _add_operators() -> None:
    """Define the operators of `Box`: each is JAX's on the arrays."""

    def add(name: str, function: Callable[..., Any]) -> None:
        def forward(self: Box, other: Any) -> Any:
            return apply(function, self, _operand(self, other))

        def reverse(self: Box, other: Any) -> Any:
            return apply(function, _operand(self, other), self)

        def in_place(self: Box, other: Any) -> Box:
            self[...] = forward(self, other)
            return self

        setattr(Box, f"__{name}__", forward)
        if name not in COMPARISONS:
            setattr(Box, f"__r{name}__", reverse)
            setattr(Box, f"__i{name}__", in_place)

    for name in (*ARITHMETIC, *COMPARISONS):
        add(name, _matmul if name == "matmul" else getattr(operator, f"__{name}__"))
    for name in UNARY:
        function = getattr(operator, f"__{name}__")
        setattr(Box, f"__{name}__", lambda self, function=function: apply(function, self))


ARITHMETIC = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and", "or", "xor", "lshift", "rshift"),
)
COMPARISONS = ("lt", "le", "eq", "ne", "gt", "ge")
UNARY = ("neg", "pos", "abs", "invert")
_add_operators()


class Namespace:
    """The functions of `jax.numpy` on boxes: the `xp` of the backend."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(jnp, name)
        if isinstance(found, type) or not callable(found):  # a dtype, finfo, or a number
            return found

        def function(*args: Any, **kwargs: Any) -> Any:
            return apply(found, *args, **kwargs)

        setattr(self, name, function)  # the next call finds it at once
        return function

    def reshape(self, x: Box, shape: int | tuple[int, ...], *, copy: bool | None = None) -> Box:
        """Return a view with another shape, or a copy of it."""
        view = reshaped(x, (shape,) if isinstance(shape, int) else tuple(shape))
        return Box(view.read()) if copy else view

    def astype(self, x: Box, dtype: Any, *, copy: bool = True) -> Box:
        """Return the box in another dtype."""
        same = not copy and x.dtype == dtype
        return x if same else apply(lambda a: a.astype(dtype), x)

    matmul = staticmethod(lambda a, b: a @ b)
