"""The backend of one CUDA GPU: CUDA kernels and cuBLASLt, launched eagerly or from a graph.

The defaults over CuPy compute what these do not support (a formula that cannot be traced, a
strided array), with the same results; a step with such a call is not captured. Only `to_host`
copies values to the host. Every public method makes its device current first, whichever device is
current in the caller's thread.
"""

from __future__ import annotations

import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import cupy
import numpy as np
from cupy.cuda.memory import OutOfMemoryError

from nnbackend.backend import Backend
from nnbackend.backend.base import BATCH
from nnbackend.backend.formulas import Activation, Array
from nnbackend_cupy import failures, namespace, nccl
from nnbackend_cupy.blaslt import BlasLt, Refused
from nnbackend_cupy.capturing import Captures
from nnbackend_cupy.kernel_cache import Launch
from nnbackend_cupy.kernels import CUDA_KERNELS, Kernels
from nnbackend_cupy.narrow import Device, NarrowSteps
from nnbackend_cupy.narrow_source import Grid
from nnbackend_cupy.staging import Staging
from nnbackend_cupy.streams import Streams, ThreadState
from nnbackend_cupy.tracing import Untraceable

LOG = logging.getLogger("nnbackend.cupy")
# Products whose three sizes are all at least this fill the GPU; run concurrently they are slower
# (H200, 784-512-512-10 with 1024 rows: 164 us a step against 158).
LARGE = 256

# A CUDA kernel computes weight gradients with at least this many rows, and at most this many units
# per side and weights. H200, 65,536 rows, float32: cuBLASLt takes 60 us for 64 x 64 weights and
# 35 us for 64 x 1; arithmetic takes 10.5 us, memory 4 to 8 us. A step of 64-64-64-64-1 took
# 363 us with cuBLASLt and 239 us with this kernel. With 1024 rows the products take 8.3 and
# 4.1 us, little more than two launches. With tensor cores, cuBLASLt is faster on larger ones.
TALL_ROWS, MAX_TALL_SIDE = 8192, 256
MAX_TALL, MAX_TALL_BESIDE_TENSOR_CORES = 128 * 128, 64 * 64

# Attributes of a backend that `with_precision` copies.
SWITCHES = ("uses_narrow", "uses_fused", "uses_tall", "narrow_grid")

# Methods that do not use the device, or make it current themselves.
_UNWRAPPED = {"owns", "dtype_name", "capture", "active", "with_precision", "report"}


def _with_device_current(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that makes the backend's device current, or records its call."""

    @functools.wraps(method)
    def wrapped(self: CuPyBackend, *args: Any, **kwargs: Any) -> Any:
        recorder = self._thread_state.recorder
        if recorder is not None:
            return recorder.add(method.__name__, args, kwargs)
        try:
            if cupy.cuda.runtime.getDevice() == self.index:
                return method(self, *args, **kwargs)
            with self._device:
                return method(self, *args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            failures.raise_meaning(self.device, error)
            raise

    return wrapped


def _enter_in_every_method(backend: type[CuPyBackend]) -> type[CuPyBackend]:
    for name, method in inspect.getmembers(backend, inspect.isfunction):
        if not name.startswith("_") and name not in _UNWRAPPED:
            setattr(backend, name, _with_device_current(method))
    return backend


def _use_cuda_kernels(backend: type[CuPyBackend]) -> type[CuPyBackend]:
    """Call the CUDA kernels first; the methods of the same names are the fallback."""
    for name in CUDA_KERNELS:
        setattr(backend, name, _prefer_cuda_kernel(name, getattr(backend, name)))
    return backend


def _prefer_cuda_kernel(name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(default)
    def kernel(self: CuPyBackend, *args: Any, **kwargs: Any) -> None:
        self._streams.join()
        if not self._try(name, *args, **kwargs):
            default(self, *args, **kwargs)

    return kernel


@_enter_in_every_method
@_use_cuda_kernels
class CuPyBackend(Backend):
    """CuPy on one CUDA device.

    precision: of float32 matrix products: "float32", "tf32", or "bf16" operands.
    uses_narrow: whether one kernel runs captured steps of narrow networks; narrow_grid: its grid,
    instead of an automatic choice. uses_fused: whether consecutive calls of other captured steps
    share a launch. Without both, a captured step gives the same bits as a called one.
    uses_tall: whether CUDA kernels compute the weight gradients of many rows and few units.
    """

    name = "cupy"
    xp = namespace.xp
    capabilities = frozenset({"uint64", "capture"})
    precisions = ("float32", "tf32", "bf16")

    def __init__(self, index: int = 0, precision: str = "float32") -> None:
        self.index = index
        self.device = f"cupy:{index}"
        self.precision = precision
        self._device = cupy.cuda.Device(index)
        self._fallbacks: dict[str, str] = {}  # kernel -> why CuPy replaced it
        self._thread_state = ThreadState()
        self._others: weakref.WeakValueDictionary[Any, Backend] = weakref.WeakValueDictionary()
        self._rank_sums: weakref.WeakKeyDictionary[Any, nccl.RankSums] = weakref.WeakKeyDictionary()
        self.uses_narrow = self.uses_fused = self.uses_tall = True
        self.narrow_grid: Grid | None = None
        with self.active():
            properties = _device_properties(self._device)
            self._kernels = Kernels(cupy.RawKernel, cupy.zeros, properties.multiprocessors)
            self._blas = BlasLt(precision)
            self._streams = Streams()
            self._staging = Staging()
            self._narrow = NarrowSteps(_compile_narrow, cupy.zeros, properties)
        self._captures = Captures(self)

    def with_precision(self, precision: str) -> Backend:
        super().with_precision(precision)
        if precision == self.precision:
            return self
        switches = {name: getattr(self, name) for name in SWITCHES}
        key = precision, *switches.values()
        other = self._others.get(key)
        if other is None:  # shared by networks: it has separate streams, workspaces and kernels
            other = self._others[key] = type(self)(self.index, precision)
            vars(other).update(switches)
        return other

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
        # Into a new array: with unified memory, `get` alone may return a view. It is not pinned,
        # because the caller keeps it, and waits for the copy in either case.
        host = np.empty(array.shape, array.dtype)
        array.get(out=host)
        return host

    def synchronize(self) -> None:
        self._device.synchronize()

    def release_memory(self) -> None:
        failures.free_memory()

    def active(self, multiplications: int | None = None) -> AbstractContextManager[Any]:
        return self._inside()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        try:
            with cupy.cuda.Device(self.index):
                yield
        except (MemoryError, RuntimeError) as error:  # also from code outside the kernels
            failures.raise_meaning(self.device, error)
            raise

    def owns(self, array: object) -> bool:
        return isinstance(array, cupy.ndarray) and array.device.id == self.index

    def _allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an empty array; without memory, free the pool's unused blocks and try again."""
        try:
            return cupy.empty(shape, dtype)
        except OutOfMemoryError:
            failures.free_memory()
            return cupy.empty(shape, dtype)

    # ---- CUDA kernels -----------------------------------------------------------------------

    def _try(self, name: str, *args: Any, **kwargs: Any) -> bool:
        """Launch a CUDA kernel. Return False, and log it once, if it does not support the call."""
        try:
            getattr(self._kernels, name)(*args, **kwargs)
        except Untraceable as error:
            self._note_fallback(name, error)
            return False
        return True

    def _note_fallback(self, name: str, error: Exception) -> None:
        if self._streams.is_recording():
            raise error  # a capture has no fallback
        self._thread_state.fallbacks[name] = str(error)
        if name not in self._fallbacks:
            self._fallbacks[name] = str(error)
            LOG.info("%s is computed by CuPy: %s", name, error)

    def _not_recorded(self, reason: str) -> None:
        LOG.warning("steps are called one by one, not replayed: %s", reason)

    def _multiply(self, a: Array, b: Array, out: Array, **epilogue: Any) -> bool:
        """Compute out = a b; return True if the product included the epilogue."""
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
        self._streams.join()  # gradients of an earlier backward pass may still read x
        # A product with an activation epilogue does not store z, so z and a must be one array.
        fused = phi.kernel in ("identity", "relu") and z is a
        relu = phi.kernel == "relu"
        if self._multiply(x, W, z, bias=b if fused else None, relu=fused and relu):
            return
        if not self._try("bias_activation", z, b, a, phi):
            cupy.add(z, b, out=z)
            a[...] = phi.value(z, self.xp)  # no copy if the value is `a` itself

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
        self._streams.join_before(delta)
        identity = phi.kernel == "identity"  # its slope is 1
        if not identity and not self._try("slope", delta, z, a, phi):
            delta[...] = phi.delta(delta, z, a, self.xp)
        self._gradients(x, W, delta, dW, db, dx)

    def _gradients(
        self, x: Array, W: Array, delta: Array, dW: Array, db: Array, dx: Array | None
    ) -> None:
        """Compute the products of `dense_backward` from delta = dC/dz."""
        self._streams.join_before(dW, db, dx)
        if dx is None:
            self._weight_gradient(x, delta, dW, db, 0)
            self._streams.join()
        elif min(*W.shape, x.shape[0]) >= LARGE:
            self._weight_gradient(x, delta, dW, db, 0)
            self._multiply(delta, W.T, dx)
        else:
            # The layers below need dx; no layer needs dW.
            with self._streams.beside(x, delta, dW, db) as lane:
                self._weight_gradient(x, delta, dW, db, lane)
            self._multiply(delta, W.T, dx)

    def _weight_gradient(self, x: Array, delta: Array, dW: Array, db: Array, lane: int) -> None:
        if self._is_tall(x, dW):
            try:
                self._kernels.weight_gradient(x, delta, dW, db, lane)
                return
            except Untraceable as error:  # not reported as a fallback: cuBLASLt computes it
                LOG.debug("cuBLASLt computes a weight gradient: %s", error)
        summed = self._multiply(x.T, delta, dW, bias_gradient=db, lane=lane)
        if not summed and not self._try("bias_gradient", delta, db, lane):
            cupy.sum(delta, axis=0, out=db)

    def _is_tall(self, x: Array, dW: Array) -> bool:
        """Return True if the CUDA kernel is expected to be faster for this gradient."""
        is_plain = self.precision == "float32" and x.dtype == np.float32
        most = MAX_TALL if is_plain else MAX_TALL_BESIDE_TENSOR_CORES
        if not self.uses_tall or x.shape[0] < TALL_ROWS or max(dW.shape) > MAX_TALL_SIDE:
            return False
        return bool(dW.size <= most)

    # ---- arrays in a step ------------------------------------------------------------------

    def copy(self, source: Array, target: Array) -> None:
        self._streams.join()
        super().copy(source, target)

    def fill(self, array: Array, value: float) -> None:
        self._streams.join()
        super().fill(array, value)

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

    # ---- ranks ------------------------------------------------------------------------------

    @property
    def captures_exchanges(self) -> bool:  # type: ignore[override]
        """Whether NCCL adds gradients on the GPUs; without it they travel through host memory."""
        return nccl.lacking() is None

    def share_loss(
        self, ranks: Any, figures: Sequence[Array], deltas: Sequence[Array | None], totals: Array
    ) -> None:
        self._streams.join()
        if (sums := self._sums_of(ranks)) is not None:
            sums.share_loss(figures, deltas, totals)
        else:
            super().share_loss(ranks, figures, deltas, totals)

    def share_gradient(self, ranks: Any, parts: Sequence[Array], gradient: Array) -> None:
        self._streams.join()
        if (sums := self._sums_of(ranks)) is not None:
            sums.add(parts, gradient)
        else:
            super().share_gradient(ranks, parts, gradient)

    def _sums_of(self, ranks: Any) -> nccl.RankSums | None:
        """Return the sums over ranks by NCCL; None, and log it once, without NCCL."""
        reason = nccl.lacking()
        if reason is not None:
            if "nccl" not in self._fallbacks:
                self._fallbacks["nccl"] = reason
                LOG.warning(
                    "gradients of the ranks travel through host memory, and steps are not "
                    "captured, as NCCL is missing (%s): pip install 'nnbackend[nccl13]', or nccl12",
                    reason,
                )
            return None
        if ranks not in self._rank_sums:
            self._rank_sums[ranks] = nccl.RankSums(ranks)
        return self._rank_sums[ranks]

    # ---- steps ------------------------------------------------------------------------------

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        run: Callable[[int], None] | None = None

        def run_on_device(n: int) -> None:
            nonlocal run
            try:
                with self._device:  # made current once for all n steps
                    run = run or self._captures.new_run(step)
                    run(n)
            except (MemoryError, RuntimeError) as error:
                failures.raise_meaning(self.device, error)
                raise

        return run_on_device

    def report(self) -> dict[str, Any]:
        """Return how this backend ran: captures, reasons for steps not captured, products."""
        return {
            **self._captures.report(),
            "fallbacks": dict(self._fallbacks),
            "products": self._blas.report(),
        }

    @property
    def narrow_reason(self) -> str | None:
        """Why the kernel for narrow networks did not run the last captured step."""
        return self._captures.narrow_reason


def _compile_narrow(text: str, name: str, is_cooperative: bool) -> Launch:
    kernel = cupy.RawKernel(text, name)
    if not is_cooperative:
        return kernel  # type: ignore[no-any-return]

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        # CuPy's own option would also link the device runtime, which its wheels lack.
        kernel.kernel(grid, block, arguments, enable_cooperative_groups=True)

    return launch


def _device_properties(device: Any) -> Device:
    return Device(device.attributes["MultiProcessorCount"], int(device.compute_capability))
