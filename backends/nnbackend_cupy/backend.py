"""The kernels on one CUDA GPU: own kernels and cuBLASLt, launched eagerly or from a graph.

What neither of them takes (a formula that cannot be traced, a strided array) is computed by the
defaults over CuPy, with the same results; a step with such a call is not recorded. Nothing here
reads a value back to the host, `to_host` excepted. Every public method runs with its own device
current, whichever device the caller's thread is on.
"""

from __future__ import annotations

import functools
import inspect
import logging
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
from nnbackend_cupy.blaslt import BlasLt, Refused
from nnbackend_cupy.graphs import Steps, without_effect
from nnbackend_cupy.launching import Kernels, Launch
from nnbackend_cupy.narrow import Device, NarrowSteps
from nnbackend_cupy.narrow_source import Grid, NotNarrow
from nnbackend_cupy.recorder import NotRecorded, Recorder, recorded
from nnbackend_cupy.staging import Staging
from nnbackend_cupy.tracing import Untraceable

LOG = logging.getLogger("nnbackend.cupy")
# Kernels of `Kernels` that stand for the method of the same name, and for nothing else.
OWN = (
    *("maxout_forward", "maxout_backward", "dropout_forward", "dropout_backward"),
    *("loss_and_delta", "add_score", "add_penalty", "clip_norm", "optimizer_step"),
    *("max_norm", "average", "tick", "gather_rows", "scale_rows"),
)

# What a kernel that does not suit the device raises: at its compilation, or at its launch.
NOT_LAUNCHED = (cupy.cuda.compiler.CompileException, cupy.cuda.driver.CUDADriverError)

# Methods that touch no device, or enter it by themselves.
_ANYWHERE = {"owns", "dtype_name", "capture", "active", "with_precision"}


def _on_its_device(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method with the backend's device current; a call within such a call finds it so."""

    @functools.wraps(method)
    def entered(self: CuPyBackend, *args: Any, **kwargs: Any) -> Any:
        if self._recorder is not None and self._recorder.takes():
            return self._recorder.add(method.__name__, args, kwargs)
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


def _with_own_kernels(backend: type[CuPyBackend]) -> type[CuPyBackend]:
    """Put the own kernels before the methods of the same names, which take what those refuse."""
    for name in OWN:
        setattr(backend, name, _own_first(name, getattr(backend, name)))
    return backend


def _own_first(name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(default)
    def kernel(self: CuPyBackend, *args: Any, **kwargs: Any) -> None:
        if not self._try(name, *args, **kwargs):
            default(self, *args, **kwargs)

    return kernel


@_enter_in_every_method
@_with_own_kernels
class CuPyBackend(Backend):
    """CuPy on one CUDA device.

    precision: of float32 matrix products: "float32", "tf32", or "bf16" operands.
    uses_narrow: whether captured steps of narrow networks are made by one kernel; narrow_grid: on
    which grid, instead of the one of its own choice; narrow_reason: why the last captured step is
    not made so.
    """

    name = "cupy"
    xp = namespace.xp
    capabilities = frozenset({"uint64", "capture"})
    precisions = ("float32", "tf32", "bf16")

    def __init__(self, index: int = 0, precision: str = "float32") -> None:
        self.index = index
        self.device = f"cupy:{index}"
        self.precision = precision
        self._own_device = cupy.cuda.Device(index)
        self._fallbacks: dict[str, str] = {}  # kernel -> why the default took its place
        self._n_fallbacks = 0
        self._recorder: Recorder | None = None
        self.uses_narrow = True
        self.narrow_grid: Grid | None = None
        self.narrow_reason: str | None = None
        with self._own_device:
            self._kernels = Kernels(cupy.RawKernel, cupy.zeros)
            self._blas = BlasLt(precision)
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._staging = Staging()
            self._narrow = NarrowSteps(_compile_narrow, cupy.zeros, _facts(self._own_device))

    def with_precision(self, precision: str) -> Backend:
        super().with_precision(precision)
        return self if precision == self.precision else type(self)(self.index, precision)

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
        self._staging.send(host, out)
        return out

    def to_host(self, array: Array) -> np.ndarray:
        # Into memory of our own: on machines with unified memory, `get` alone may give a view. It
        # is not pinned: the caller keeps it, and waits for what is read in either case.
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

    # ---- own kernels ------------------------------------------------------------------------

    def _try(self, name: str, *args: Any, **kwargs: Any) -> bool:
        """Launch an own kernel; where it refuses, say so once and give False."""
        try:
            getattr(self._kernels, name)(*args, **kwargs)
        except Untraceable as error:
            self._note_fallback(name, error)
            return False
        return True

    def _note_fallback(self, name: str, error: Exception) -> None:
        if cupy.cuda.get_current_stream().ptr == self._stream.ptr:
            raise error  # in a capture there is nothing to fall back on
        self._n_fallbacks += 1
        if name not in self._fallbacks:
            self._fallbacks[name] = str(error)
            LOG.info("%s is computed by CuPy: %s", name, error)

    def _not_recorded(self, reason: str) -> None:
        LOG.warning("steps are called one by one, not replayed: %s", reason)

    def _multiply(self, a: Array, b: Array, out: Array, **epilogue: Any) -> bool:
        """Give out = a b, and tell whether the epilogue was done with it."""
        try:
            return self._blas.multiply(a, b, out, **epilogue)
        except Refused as error:
            self._note_fallback("matmul", error)
            cupy.matmul(a, b, out=out)
            return False

    # ---- layers -----------------------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        # Only into one array can a product bring its activation: z would be lost otherwise.
        fused = phi.kernel in ("identity", "relu") and z is a
        relu = phi.kernel == "relu"
        if self._multiply(x, W, z, bias=b if fused else None, relu=fused and relu):
            return
        if not self._try("bias_activation", z, b, a, phi):
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
        identity = phi.kernel == "identity"  # its slope is 1
        if not identity and not self._try("slope", delta, z, a, phi):
            delta[...] = phi.delta(delta, z, a, self.xp)
        summed = self._multiply(x.T, delta, dW, bias_gradient=db)
        if not summed and not self._try("bias_gradient", delta, db):
            cupy.sum(delta, axis=0, out=db)
        if dx is not None:
            self._multiply(delta, W.T, dx)

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
        fallbacks = 0

        def counted() -> None:
            nonlocal fallbacks
            before = self._n_fallbacks
            step()
            fallbacks = self._n_fallbacks - before

        def can_record() -> str | None:
            return "; ".join(self._fallbacks.values()) if fallbacks else None

        steps = Steps(counted, self._stream, can_record, self._not_recorded)

        run: Callable[[int], None] | None = None

        def run_here(n: int) -> None:
            nonlocal run
            try:
                with self._own_device:  # once for all kernels of all n steps
                    run = run or self._narrow_run(step, steps.run)
                    run(n)
            except OutOfMemoryError as error:
                raise BackendError(self._no_room(error)) from error

        return run_here

    def _narrow_run(
        self, step: Callable[[], None], otherwise: Callable[[int], None]
    ) -> Callable[[int], None]:
        """Return a function that makes n steps: in one kernel, or `otherwise`."""
        self.narrow_reason = None if self.uses_narrow else "it is switched off"
        if not self.uses_narrow:
            return otherwise
        self._recorder = recorder = Recorder()
        try:
            calls = recorded(lambda: without_effect(self._stream, step), recorder)
            self._recorder = None
            run = self._narrow.plan(calls, self.narrow_grid)
        except (NotRecorded, NotNarrow) as error:
            self.narrow_reason = str(error)
            return otherwise
        finally:
            self._recorder = None

        def or_otherwise(n: int) -> None:
            nonlocal run
            try:
                run(n)
            except NOT_LAUNCHED as error:  # nothing has been executed
                self.narrow_reason = f"{type(error).__name__}: {error}"
                LOG.warning("steps are not made in one kernel: %s", self.narrow_reason)
                run = otherwise
                run(n)

        return or_otherwise


def _compile_narrow(text: str, name: str, is_cooperative: bool) -> Launch:
    kernel: Launch = cupy.RawKernel(text, name, enable_cooperative_groups=is_cooperative)
    return kernel


def _facts(device: Any) -> Device:
    return Device(device.attributes["MultiProcessorCount"], int(device.compute_capability))
