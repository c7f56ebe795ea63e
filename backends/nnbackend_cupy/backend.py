"""The kernels on one CUDA GPU, eagerly: each NumPy-like call is a launch of its own.

What is overridden writes straight into the given arrays where the default would compute into a
temporary and copy. Nothing here reads a value back to the host, `to_host` excepted. Every public
method runs with its own device current, whichever device the caller's thread is on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import cupy
import numpy as np
from cupy.cuda.memory import OutOfMemoryError

from nnbackend.backend import Backend
from nnbackend.backend.base import BATCH
from nnbackend.backend.formulas import Activation, Array
from nnbackend.errors import BackendError
from nnbackend_cupy import namespace

# Methods that touch no device, or enter it by themselves.
_ANYWHERE = {"owns", "dtype_name", "capture", "active"}


def _on_its_device(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method with the backend's device current; a call within such a call finds it so."""

    @functools.wraps(method)
    def entered(self: CuPyBackend, *args: Any, **kwargs: Any) -> Any:
        try:
            if cupy.cuda.runtime.getDevice() == self.index:
                return method(self, *args, **kwargs)
            with self._own_device:
                return method(self, *args, **kwargs)
        except OutOfMemoryError as error:
            raise BackendError(self._no_room(error)) from error

    return entered


def _enter_in_every_method(backend: type[CuPyBackend]) -> type[CuPyBackend]:
    for name, method in inspect.getmembers(backend, inspect.isfunction):
        if not name.startswith("_") and name not in _ANYWHERE:
            setattr(backend, name, _on_its_device(method))
    return backend


@_enter_in_every_method
class CuPyBackend(Backend):
    """CuPy on one CUDA device."""

    name = "cupy"
    xp = namespace.xp
    capabilities = frozenset({"uint64"})

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.device = f"cupy:{index}"
        self._own_device = cupy.cuda.Device(index)

    # ---- arrays -----------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return self._allocate(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        array = self._allocate(shape, dtype)
        array.fill(0)
        return array

    def to_device(self, host: np.ndarray, out: Array | None = None) -> Array:
        dtype = host.dtype.newbyteorder("=") if out is None else out.dtype
        host = host.astype(dtype, order="C", casting="same_kind", copy=False)
        if out is None:
            out = self._allocate(host.shape, dtype)
        elif not out.flags.c_contiguous or out.shape != host.shape:
            out[...] = self.to_device(host)
            return out
        out.set(host)
        # The copy may read `host` until the stream gets there (pinned memory always, pageable
        # memory on some systems), and the caller is free to change it as soon as this returns.
        cupy.cuda.get_current_stream().synchronize()
        return out

    def to_host(self, array: Array) -> np.ndarray:
        # Into memory of our own: on machines with unified memory, `get` alone may give a view.
        host = np.empty(array.shape, array.dtype)
        array.get(out=host)
        return host

    def synchronize(self) -> None:
        self._own_device.synchronize()

    def active(self, multiplications: int | None = None) -> AbstractContextManager[Any]:
        device: AbstractContextManager[Any] = cupy.cuda.Device(self.index)
        return device

    def owns(self, array: object) -> bool:
        return isinstance(array, cupy.ndarray) and array.device.id == self.index

    def _allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Give an empty array; when there is no room, once more without the pool's free blocks."""
        try:
            return cupy.empty(shape, dtype)
        except OutOfMemoryError:
            cupy.get_default_memory_pool().free_all_blocks()
            return cupy.empty(shape, dtype)

    def _no_room(self, error: Exception) -> str:
        """Say how much was wanted, which CuPy's message has, and how much there is."""
        try:
            with self._own_device:
                free, total = cupy.cuda.runtime.memGetInfo()
            room = f" {free:,} of the device's {total:,} bytes are free."
        except Exception:  # the message must not depend on a device in trouble
            room = ""
        return (
            f"{self.device} has no room: {str(error).rstrip('.')}.{room} Use a smaller batch_size, "
            "or free the device: nvidia-smi lists who uses it."
        )

    # ---- layers -----------------------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        cupy.matmul(x, W, out=z)
        cupy.add(z, b, out=z)
        a[...] = phi.value(z, self.xp)  # nothing is copied where this is `a` itself

    def dense_backward(
        self,
        x: Array,
        W: Array,
        z: Array,
        a: Array,
        phi: Activation,
        delta: Array,
        dW: Array,
        db: Array,
        dx: Array | None,
    ) -> None:
        if phi.kernel != "identity":  # the identity's slope is 1
            delta[...] = phi.delta(delta, z, a, self.xp)
        cupy.matmul(x.T, delta, out=dW)
        cupy.sum(delta, axis=0, out=db)
        if dx is not None:
            cupy.matmul(delta, W.T, out=dx)

    # ---- batches ----------------------------------------------------------------------------

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        places = self._arange(out.shape[0]) + clock[BATCH : BATCH + 1] * batch_size
        rows = cupy.take(order, places)
        if data.dtype == out.dtype:
            cupy.take(data, rows, axis=0, out=out)
        else:
            out[...] = cupy.take(data, rows, axis=0)  # the assignment converts

    # ---- steps ------------------------------------------------------------------------------

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        run = super().capture(step)

        def run_here(n: int) -> None:
            with self._own_device:  # once for all kernels of all n steps
                run(n)

        return run_here
