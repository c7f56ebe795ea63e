"""A simulated device over NumPy, which raises errors where a GPU would fail or wait.

Its arrays wrap NumPy arrays, whose values reach the host through `to_host` only. So code that runs
on `device=GhostBackend()` keeps device and host apart, on a machine without a GPU:

    net = nn.Network([784, 100, 10], loss="cross_entropy", device=GhostBackend())
    nn.train(net, x, y, callbacks=[my_callback])

A `GhostError` names the operation. The device is for tests only and has no entry point.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, cast

import numpy as np

from nnbackend.backend import Backend, BackendSpec, Probe
from nnbackend.errors import BackendError, DeviceMemoryError
from nnbackend.testing.standard import HOST_ANSWERS, STANDARD, VALUE_SHAPES

_ARITHMETIC = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
_PLAIN = (bool, int, float, complex, type(None), str)


class GhostError(BackendError, TypeError):
    """An operation mixed device and host, or read a value, where a GPU would not allow it."""


class GhostArray:
    """An array of the simulated device, with the operators and attributes of the array API only."""

    __slots__ = ("_data", "device")
    __array_ufunc__ = None  # so that `numpy_array + ghost_array` calls our operator
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: np.ndarray, device: str) -> None:
        self._data, self.device = data, device

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes, known to the host."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype."""
        return self._data.dtype

    @property
    def T(self) -> GhostArray:
        """The transposed view of a matrix."""
        return type(self)(self._data.T, self.device)

    @property
    def mT(self) -> GhostArray:
        """The view with the last two axes exchanged."""
        return type(self)(self._data.mT, self.device)

    def __getitem__(self, key: Any) -> GhostArray:
        return type(self)(np.asarray(self._data[self._key(key)]), self.device)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._data[self._key(key)] = unwrap(value, self.device, "array[...] = value")

    def _key(self, key: Any) -> Any:
        """Check an index: whole numbers, slices, `...`, None, or an integer array of the device."""
        parts = key if isinstance(key, tuple) else (key,)
        plain = []
        for part in parts:
            if isinstance(part, GhostArray) and part.dtype == np.bool_:
                raise GhostError(
                    f"hidden host read: array[mask] on {self.device} has a shape that depends on "
                    "values. Multiply by the mask, or use xp.where."
                )
            is_array = isinstance(part, (GhostArray, np.ndarray, list))
            plain.append(unwrap(part, self.device, "array[index]") if is_array else part)
        return tuple(plain)

    def __repr__(self) -> str:
        """Describe the array without reading it."""
        return f"<{self.device} array of {self.dtype}, shape {self.shape}>"

    def _refuse(self, what: str) -> NoReturn:
        raise GhostError(
            f"hidden host read: {what} of an array on {self.device}, shape {self.shape}. A GPU "
            "would have to finish all its work first. Use backend.to_host where the value is "
            "needed, or keep the computation on the device."
        )

    def __bool__(self) -> bool:
        self._refuse("bool(), `if`, `and`, `or` or `not`")

    def __float__(self) -> float:
        self._refuse("float()")

    def __int__(self) -> int:
        self._refuse("int()")

    def __index__(self) -> int:
        self._refuse("use as an index or a size")

    def __complex__(self) -> complex:
        self._refuse("complex()")

    def __len__(self) -> int:
        self._refuse("len() (use .shape[0])")

    def __iter__(self) -> NoReturn:
        self._refuse("iteration")

    def __contains__(self, value: object) -> bool:
        self._refuse("`in`")

    def __str__(self) -> str:
        self._refuse("str() or print()")

    def __format__(self, form: str) -> str:
        self._refuse("format() or an f-string")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("conversion to NumPy")

    def __array_function__(self, function: Any, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse(f"numpy.{getattr(function, '__name__', function)}()")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("DLPack export")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self._refuse("pickling or copying")

    def _binary(self, name: str, other: Any) -> GhostArray:
        value = unwrap(other, self.device, f"operator {name}")
        return type(self)(np.asarray(getattr(self._data, name)(value)), self.device)

    def _inplace(self, name: str, other: Any) -> GhostArray:
        getattr(self._data, name)(unwrap(other, self.device, f"operator {name}"))
        return self

    def _unary(self, name: str) -> GhostArray:
        return type(self)(np.asarray(getattr(self._data, name)()), self.device)


def _give_operators() -> None:
    """Add the operators to GhostArray."""

    def binary(name: str) -> Callable[[GhostArray, Any], GhostArray]:
        return lambda self, other: self._binary(name, other)

    def inplace(name: str) -> Callable[[GhostArray, Any], GhostArray]:
        return lambda self, other: self._inplace(name, other)

    def unary(name: str) -> Callable[[GhostArray], GhostArray]:
        return lambda self: self._unary(name)

    for word in _ARITHMETIC.split():
        setattr(GhostArray, f"__{word}__", binary(f"__{word}__"))
        setattr(GhostArray, f"__r{word}__", binary(f"__r{word}__"))
        setattr(GhostArray, f"__i{word}__", inplace(f"__i{word}__"))
    for word in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(GhostArray, f"__{word}__", binary(f"__{word}__"))
    for word in ("neg", "pos", "abs", "invert"):
        setattr(GhostArray, f"__{word}__", unary(f"__{word}__"))


_give_operators()


def unwrap(value: Any, device: str, operation: str) -> Any:
    """Return the NumPy array of an array of this device, or a Python scalar; raise otherwise."""
    if isinstance(value, GhostArray):
        if value.device != device:
            raise GhostError(
                f"cross-device mix: {operation} has operands on {device} and {value.device}. "
                "Copy one with to_host and to_device."
            )
        return value._data
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (np.ndarray, np.generic, list)):
        shape, kind = getattr(value, "shape", ""), type(value).__name__
        raise GhostError(
            f"host operand: {operation} on {device} received a host {kind} {shape}. "
            "Copy it there with backend.to_device, or use a Python scalar."
        )
    raise GhostError(f"{operation} on {device} received {type(value).__qualname__}.")


class GhostArray32(GhostArray):
    """An array of a device without float64, such as Apple's GPUs; it raises for float64."""

    __slots__ = ()

    def __init__(self, data: np.ndarray, device: str) -> None:
        if data.dtype == np.float64:
            raise GhostError(
                f"float64 array: {device} has no float64, so it cannot make one of shape "
                f"{data.shape}. Use backend.sum_dtype for sums, backend.narrowed for host arrays."
            )
        super().__init__(data, device)


class GhostNamespace:
    """The functions of the array API standard for one ghost device, and nothing else."""

    def __init__(self, device: str, array: type[GhostArray] = GhostArray) -> None:
        self._device, self._array = device, array

    def __getattr__(self, name: str) -> Any:
        if name not in STANDARD or not hasattr(np, name):
            raise AttributeError(
                f"xp.{name} is not a function of the array API standard, so a backend can lack it"
            )
        found = getattr(np, name)
        is_plain = name in HOST_ANSWERS or isinstance(found, type) or not callable(found)
        value = self._of_dtypes(found) if is_plain else self._on_device(name, found)
        setattr(self, name, value)  # later lookups find the attribute itself
        return value

    def _of_dtypes(self, found: Any) -> Any:
        """Return a dtype, a constant, or a function of dtypes whose result the host knows."""
        if isinstance(found, type) and issubclass(found, np.generic):
            return np.dtype(found)
        return found

    def _on_device(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        device, array, operation = self._device, self._array, f"xp.{name}"

        def inside(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return tuple(inside(v) for v in value)
            return value if isinstance(value, np.dtype) else unwrap(value, device, operation)

        def outside(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return tuple(outside(v) for v in value)
            return array(np.asarray(value), device)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name in VALUE_SHAPES:
                raise GhostError(
                    f"hidden host read: {operation} on {device} gives a shape that depends on "
                    "values."
                )
            kwargs.pop("device", None)
            return outside(
                function(*map(inside, args), **{k: inside(v) for k, v in kwargs.items()})
            )

        return call


class GhostBackend(Backend):
    """One simulated device: the six methods, and the base class's kernels.

    index: the device's number; arrays of ghost:0 and ghost:1 refuse each other.
    limit: maximum bytes of all its arrays; none by default. Arrays of `empty`, `zeros` and
    `to_device` count until they have no more views (see `live`).
    has_float64: without it the device is ghost32:0, and raises for every float64 array.
    Inside a captured step it raises for `to_host`, `synchronize`, and allocations by `empty`,
    `zeros` or `to_device` without `out`. Temporaries of expressions are allowed and not counted.
    """

    name = "ghost"
    capabilities = frozenset({"uint64"})

    def __init__(self, index: int = 0, limit: int | None = None, has_float64: bool = True) -> None:
        self._array = GhostArray if has_float64 else GhostArray32
        if not has_float64:
            self.name, self.float_dtypes = "ghost32", ("float32",)
        self.device = f"{self.name}:{index}"
        self.xp = GhostNamespace(self.device, self._array)
        self.limit, self.live = limit, 0
        self.peak = self.n_refused = 0  # peak of live bytes; failed allocations
        self._recording = False

    def empty(self, shape: tuple[int, ...], dtype: str) -> GhostArray:
        self._refuse_in_capture("empty", "allocates")
        array = self._allocate(shape, dtype)
        array.view(np.uint8).fill(0xFF)  # NaN in floats shows reads before the first write
        return self._array(array, self.device)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> GhostArray:
        self._refuse_in_capture("zeros", "allocates")
        array = self._allocate(shape, dtype)
        array.fill(0)
        return self._array(array, self.device)

    def _allocate(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a new host array, counted while it lives. Raises: DeviceMemoryError."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        free = None if self.limit is None else self.limit - self.live
        if free is not None and n_bytes > free:
            self.n_refused += 1
            raise DeviceMemoryError.on(self.device, n_bytes, free, self.limit)
        try:
            array = np.empty(shape, dtype)
        except MemoryError as error:
            raise DeviceMemoryError.on(self.device, n_bytes, cause=str(error)) from error
        self._count(n_bytes)
        weakref.finalize(array, self._count, -n_bytes).atexit = False
        return array

    def _count(self, n_bytes: int) -> None:
        self.live += n_bytes
        self.peak = max(self.peak, self.live)

    def to_device(self, host: np.ndarray, out: GhostArray | None = None) -> GhostArray:
        if not isinstance(host, np.ndarray):
            raise GhostError(f"to_device takes a NumPy array. Received: {type(host).__qualname__}.")
        if out is None:
            self._refuse_in_capture("to_device without out", "allocates")
            array = self._allocate(host.shape, host.dtype)
            array[...] = host
            return self._array(array, self.device)
        target = cast(np.ndarray, unwrap(out, self.device, "to_device(out=)"))
        if (host.shape, host.dtype) != (target.shape, target.dtype):
            raise GhostError(
                f"to_device(out=) must match the host array: {host.dtype} {host.shape} does not "
                f"fit {target.dtype} {target.shape}."
            )
        target[...] = host
        return out

    def to_host(self, array: GhostArray) -> np.ndarray:
        self._refuse_in_capture("to_host", "waits for the device")
        if not isinstance(array, GhostArray):
            raise GhostError(f"host operand: to_host received {type(array).__qualname__}.")
        return np.array(unwrap(array, self.device, "to_host"))

    def synchronize(self) -> None:
        self._refuse_in_capture("synchronize", "waits for the device")

    def owns(self, array: object) -> bool:
        return isinstance(array, GhostArray) and array.device == self.device

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that makes n steps, each under the rules of a recording."""

        def run(n: int) -> None:
            for _ in range(n):
                self._recording = True
                try:
                    step()
                finally:
                    self._recording = False

        return run

    def _arange(self, n: int) -> GhostArray:
        # The base class copies it from the host at first use, which may be inside a step.
        return cast(GhostArray, self.xp.arange(n, dtype=self.xp.int64))

    def _refuse_in_capture(self, method: str, what: str) -> None:
        if self._recording:
            raise GhostError(
                f"{method} inside capture on {self.device}: it {what}, and a recorded step may not."
            )


def ghost_spec() -> BackendSpec:
    """Return the spec of two ghost devices, for a test that enters them into the registry."""
    return BackendSpec(
        name="ghost",
        kind="gpu",
        priority=-1,
        probe=lambda: Probe(device_count=2),
        load=GhostBackend,
        version=lambda: f"over NumPy {np.__version__}",
    )


SPEC = ghost_spec()
SPEC32 = BackendSpec(
    "ghost32", "gpu", -2, lambda: Probe(1), lambda n: GhostBackend(n, has_float64=False)
)
