"""The backend interface: one device of one array library, with the kernels of backpropagation.

`Backend` is both the interface and the reference. A subclass must implement six methods. Every
kernel has a default implementation with the functions of `xp`, the library's array API namespace.
A backend overrides a kernel for speed only, and `nnbackend.testing` compares each override with the
default. Kernels write into their array arguments and transfer nothing to the host. They read values
that change from step to step from small device arrays, so that a step can be captured and replayed.

Shape letters: B rows of a batch, I inputs and O outputs of a layer, K pieces, P parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.formulas import Activation, Array, Loss, Namespace, Score, UpdateRule
from nnbackend.backend.ranks import RankKernels
from nnbackend.errors import ArgumentError, Fault, Mention

# 2: sums and rates in `sum_dtype`, several types of devices in one spec.
API_VERSION = 2

# Indices of `totals`, in `sum_dtype`: the sums of a pass over the data.
LOSS, WEIGHT, PENALTY, SCORE = range(4)
# Indices of `clock`, int64: step since training began (from 1), batch of this epoch (from 0).
STEP, BATCH = range(2)
# Indices of `hyper`, in `sum_dtype`: learning rate and momentum of the step, and the step count.
RATE, MOMENTUM, COUNT = range(3)
FAR = 1e15  # limit before squaring, against overflow; 1 + FAR^2 equals FAR^2 in every dtype
PRECISIONS = ("float32", "tf32", "bf16")  # of float32 matrix products


class Backend(RankKernels, ABC):
    """One device of one array library: six methods to implement, kernels to inherit or override.

    Any method raises DeviceMemoryError when an allocation fails; on the CPU, NumPy's MemoryError is
    accepted too. Training and prediction then repeat the batch in smaller parts.
    name: the registered name, such as "numpy".  device: the device string for `get_backend`, such
    as "cupy:1" or "torch:mps:0".
    xp: namespace of array API functions.  float_dtypes: names of the supported dtypes.
    capabilities: a subset of "uint64" (wrapping 64-bit integers, to draw dropout masks on the
    device) and "capture" (`capture` records steps instead of calling them one by one).
    """

    name: str
    device: str
    xp: Namespace
    float_dtypes: tuple[str, ...] = ("float32", "float64")
    capabilities: frozenset[str] = frozenset()
    precisions: tuple[str, ...] = PRECISIONS[:1]  # of float32 matrix products
    precision: str = "float32"
    threads: int = 1  # of a step, if their number changes how results are rounded
    reduced: ClassVar[Callable[[Backend], tuple[Any, ...]]]  # set by nnbackend.devices

    @property
    def sum_dtype(self) -> str:
        """The dtype of `totals`, `rates` and `hyper`: float64 if the device has it, else float32.

        If it is float32, the engine regularly adds `totals` to float64 sums on the host, so that
        long sums stay accurate.
        """
        return "float64" if "float64" in self.float_dtypes else "float32"

    # ---- (a) methods that a backend must implement ------------------------------------------

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a new uninitialized C-contiguous array, whose slices and reshapes are views."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a new C-contiguous array of zeros."""

    @abstractmethod
    def to_device(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Copy a NumPy array to the device, into `out` if given; the dtype is unchanged.

        Without `out` the result may share memory with `host`, if the device uses the same memory.
        """

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """Return a new NumPy copy, never a view, after waiting for the device."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has completed all submitted work."""

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Return True if `array` is an array of this library on this device."""

    # ---- (b) kernels: layers ----------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        """Feed x through a dense layer: z = x W + b, a = phi(z).

        Shapes: x (B, I), W (I, O), b (O,); z and a (B, O), and may be one array.
        """
        z[...] = x @ W + b
        a[...] = phi.value(z, self.xp)

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
        """Convert `delta` from dC/da to dC/dz in place, and compute the layer's gradients.

            delta = da * phi'(z);  dW = x^T delta;  db = sum of delta's rows;  dx = delta W^T

        Shapes: as in `dense_forward`; delta (B, O), dW (I, O), db (O,), dx (B, I) or None.
        """
        delta[...] = phi.delta(delta, z, a, self.xp)
        dW[...] = x.T @ delta
        db[...] = self.xp.sum(delta, axis=0)
        if dx is not None:
            dx[...] = delta @ W.T

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        """Compute the largest of each unit's pieces and its index; ties select the first.

        Shapes: z (B, K * O), piece by piece; a (B, O); which (B, O) int32, the winning piece.
        """
        n_out = a.shape[1]
        pieces = self.xp.reshape(z, (z.shape[0], z.shape[1] // n_out, n_out))  # (B, K, O)
        a[...] = self.xp.max(pieces, axis=1)
        which[...] = self.xp.astype(self.xp.argmax(pieces, axis=1), which.dtype)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        """Copy each unit's gradient to its winning piece; set the other pieces to zero.

        Shapes: delta and which (B, O), dz (B, K * O).
        """
        n_out = delta.shape[1]
        for k in range(dz.shape[1] // n_out):
            won = self.xp.astype(which == k, delta.dtype)
            dz[:, k * n_out : (k + 1) * n_out] = delta * won

    def dropout_forward(
        self,
        x: Array,
        rate: float,
        key: tuple[int, int],
        clock: Array,
        first_row: int,
        a: Array,
        mask: Array,
    ) -> None:
        """Set random units to zero and scale up the others: a = x * mask / (1 - rate).

        The mask is a function of key (seed, layer), the step in `clock` and the row number,
        counted from first_row; it is the same on every backend (see `philox`).
        Shapes: x and a (B, O); mask (B, O) bool; clock (2,) int64.
        """
        xp = self.xp
        if "uint64" in self.capabilities:
            rows = xp.astype(self._arange(x.shape[0]), xp.uint64) + first_row
            step = xp.astype(clock[STEP : STEP + 1], xp.uint64)
            mask[...] = philox.mask(key, step, rows, x.shape[1], rate, xp)
        else:  # drawn on the host; a backend without uint64 cannot capture steps with dropout
            step = int(self.to_host(clock)[STEP])
            self.to_device(philox.host_mask(*key, step, first_row, x.shape, rate), out=mask)
        a[...] = x * (xp.astype(mask, x.dtype) * (1.0 / (1.0 - rate)))

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        """Propagate the gradient through the same mask: dx = da * mask / (1 - rate)."""
        dx[...] = da * (self.xp.astype(mask, da.dtype) * (1.0 / (1.0 - rate)))

    # ---- kernels: loss and scores -----------------------------------------------------------

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        """Compute delta = d(mean loss)/d(out), and add the batch's losses to `totals`.

        Only this kernel computes the mean over the batch, sum(w * loss) / sum(w).
        totals[LOSS] += sum(w * loss), totals[WEIGHT] += sum(w), in sum_dtype.
        Shapes: out and delta (B, O); y (B, O), or (B,) int32 class labels; weight (B,) or None.
        """
        xp = self.xp
        rows, gradient = loss.rows(out, self._targets(y, out), xp)
        if weight is None:
            delta[...] = gradient * (1.0 / out.shape[0])
            totals[LOSS] = totals[LOSS] + xp.sum(xp.astype(rows, totals.dtype))
            totals[WEIGHT] = totals[WEIGHT] + out.shape[0]
        else:
            share = weight / (xp.sum(weight) + float(xp.finfo(weight.dtype).smallest_normal))
            delta[...] = gradient * xp.reshape(share, (-1, 1))
            totals[LOSS] = totals[LOSS] + xp.sum(xp.astype(rows * weight, totals.dtype))
            totals[WEIGHT] = totals[WEIGHT] + xp.sum(xp.astype(weight, totals.dtype))

    def add_score(
        self, score: Score, out: Array, y: Array, weight: Array | None, totals: Array
    ) -> None:
        """Add the scores of the batch to the sums: totals[SCORE] += sum(w * score).

        Shapes: as in `loss_and_delta`.
        """
        xp = self.xp
        rows = xp.astype(score.rows(out, self._targets(y, out), xp), totals.dtype)
        if weight is not None:
            rows = rows * xp.astype(weight, totals.dtype)
        totals[SCORE] = totals[SCORE] + xp.sum(rows)

    # ---- kernels: gradient and update -------------------------------------------------------

    def add_penalty(
        self, weights: Array, gradient: Array, l1: float, l2: float, rows: int, totals: Array
    ) -> None:
        """Add the gradient of l1 * sum |w| + l2 / 2 * sum w^2, and `rows` times its value.

        totals[PENALTY] += rows * value.  Shapes: weights and gradient (n_weights,), flat.
        """
        xp = self.xp
        gradient[...] = gradient + l2 * weights + l1 * xp.sign(weights)
        value = xp.sum(l1 * xp.abs(weights) + (0.5 * l2) * weights * weights, keepdims=True)
        here = slice(PENALTY, PENALTY + 1)
        totals[here] = totals[here] + rows * xp.astype(value, totals.dtype)

    def clip_norm(self, gradient: Array, max_norm: float) -> None:
        """Scale the gradient down to a norm of at most `max_norm`, without a branch on the host.

        Shapes: gradient (P,). Source: Pascanu, Mikolov and Bengio 2013, algorithm 1.
        """
        xp = self.xp
        norm = xp.sqrt(xp.sum(gradient * gradient, keepdims=True))
        gradient[...] = gradient * (max_norm / xp.where(norm > max_norm, norm, max_norm))

    def optimizer_step(
        self,
        rule: UpdateRule,
        theta: Array,
        gradient: Array,
        state: Sequence[Array],
        hyper: Array,
        weight_decay: float,
        n_weights: int,
    ) -> None:
        """Update the parameter vector by one optimizer step, in place.

        Decoupled decay is applied first, to the weights only: w *= 1 - lr * weight_decay.
        Shapes: theta, gradient and each array of state (P,); hyper (3,) in sum_dtype.
        """
        xp = self.xp
        rate, momentum, count = (hyper[i : i + 1] for i in (RATE, MOMENTUM, COUNT))
        c = tuple(xp.astype(v, theta.dtype) for v in rule.coefficients(rate, momentum, count))
        if weight_decay:
            keep = xp.astype(1.0 - rate * weight_decay, theta.dtype)
            theta[:n_weights] = theta[:n_weights] * keep
        new, new_state = rule.recurrence(theta, gradient, tuple(state), c, rule.params, xp)
        theta[...] = new
        for old, value in zip(state, new_state, strict=True):
            old[...] = value

    def max_norm(self, W: Array, limit: float) -> None:
        """Scale the incoming weights of each unit down to a norm of at most `limit`.

        Shapes: W (I, O), one column a unit. Source: Srivastava et al. 2014, section 5.1.
        """
        xp = self.xp
        norm = xp.sqrt(xp.sum(W * W, axis=0))
        W[...] = W * (limit / xp.where(norm > limit, norm, limit))

    def average(self, theta: Array, ema_weights: Array, decay: float, hyper: Array) -> None:
        """Update the running average: ema_weights = d ema_weights + (1 - d) theta.

        d = min(decay, (1 + t) / (10 + t)) at step t: a smaller decay in the first steps reduces the
        influence of the initial weights.
        """
        t = hyper[COUNT : COUNT + 1]
        early = (1.0 + t) / (10.0 + t)
        d = self.xp.astype(self.xp.where(early < decay, early, decay), theta.dtype)
        ema_weights[...] = ema_weights + (1.0 - d) * (theta - ema_weights)

    # ---- kernels: batches -------------------------------------------------------------------

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        """Increment the clock, and look up the step's learning rate and momentum.

        Shapes: clock (2,) int64; rates (2, steps of the epoch) and hyper (3,) in sum_dtype.
        """
        clock[...] = clock + 1
        hyper[:COUNT] = self.xp.take(rates, clock[BATCH : BATCH + 1], axis=1)[:, 0]
        hyper[COUNT:] = self.xp.astype(clock[STEP : STEP + 1], hyper.dtype)

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        """Gather this step's rows: out[i] = data[order[batch * batch_size + i]].

        Shapes: data (n, ...), order (n,) int64, out (B, ...); data is cast to the dtype of out.
        """
        places = self._arange(out.shape[0]) + clock[BATCH : BATCH + 1] * batch_size
        rows = self.xp.take(data, self.xp.take(order, places), axis=0)
        out[...] = self.xp.astype(rows, out.dtype)

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        """Scale inputs: t = (rows - shift) * factor; with a clip, t / sqrt(1 + (t / clip)^2).

        The dtype of the computation is that of shift and factor, float64 if the device has it, so
        that a shift that is large compared with the spread of a column causes no cancellation.
        Shapes: rows and out (B, I), of any real dtype, may be one array; shift and factor (I,).
        Source of the smooth clip: Holzmueller et al. 2024 (RealMLP), appendix B.
        """
        xp = self.xp
        t = (xp.astype(rows, shift.dtype) - shift) * factor
        if clip is not None:
            u = t * (1.0 / clip)
            u = xp.where(u > FAR, FAR, xp.where(u < -FAR, -FAR, u))
            t = u * clip / xp.sqrt(1.0 + u * u)
        out[...] = xp.astype(t, out.dtype)

    def copy(self, source: Array, target: Array) -> None:
        """Copy one device array into another of the same shape."""
        target[...] = source

    def fill(self, array: Array, value: float) -> None:
        """Set every element to a value."""
        array[...] = value

    # ---- (c) optional -----------------------------------------------------------------------

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that runs n steps, each equivalent to `step()`.

        The default calls `step` n times. A backend may instead record it once and replay it, so a
        step must only call kernels of this backend, always with the same arrays. Capturing does not
        run the step. A step must update parameters, optimizer state, gradient, totals and clock;
        arrays that only pass data between its kernels (a batch's rows, activations, local
        gradients) may stay unwritten. The first run allocates all memory that later runs need,
        including that of the recording. If it raises MemoryError, the engine restores the arrays
        that a step changes and tries smaller parts.
        """

        def run(n: int) -> None:
            for _ in range(n):
                step()

        return run

    def active(self, multiplications: int | None = None) -> AbstractContextManager[Any]:
        """Return a context in which this device is current, for code outside the kernels too.

        multiplications: those of a training run's largest matrix product, which a backend may use
        to choose its number of threads.
        """
        return nullcontext()

    def release_memory(self) -> None:
        """Empty the library's pool of freed memory, if it has one.

        The engine calls it after a MemoryError, before it retries with smaller parts.
        """

    def with_precision(self, precision: str) -> Backend:
        """Return this device with another precision of float32 matrix products.

        Raises: ArgumentError for a precision that is not in `precisions`.
        """
        if precision not in self.precisions:
            gpu, cpu = Mention("device", "gpu"), Mention("device", "cpu")
            where = " if the CPU has AVX512-BF16 and numba is installed."
            more = ("tf32 needs ", gpu, ", bf16 that or ", cpu, where)
            expected = f"{' or '.join(self.precisions)} on {self.device}"
            raise ArgumentError(Fault("precision", expected, precision, more))
        return self

    # ---- shared by the engine and the defaults ----------------------------------------------

    def dtype_name(self, array: Array) -> str:
        """Return the name of a float array's dtype, such as "float32"."""
        return next(n for n in self.float_dtypes if array.dtype == getattr(self.xp, n))

    def cast(self, array: Array, dtype: str) -> Array:
        """Return the array in a float dtype; the array itself if it already has that dtype."""
        target = getattr(self.xp, dtype)
        return array if array.dtype == target else self.xp.astype(array, target)

    def narrowed(self, host: np.ndarray) -> np.ndarray:
        """Return a host array, cast from float64 to float32 if the device has no float64."""
        is_too_wide = host.dtype == np.float64 and "float64" not in self.float_dtypes
        return host.astype(np.float32) if is_too_wide else host

    def _arange(self, n: int) -> Array:
        """Return 0 .. n-1 as int64 on the device: a view of a cached array of 2^k elements.

        The cache is never cleared, because a recorded step may read its arrays. Their total size is
        less than four times the largest n.
        """
        cache: dict[int, Array] = self.__dict__.setdefault("_ranges", {})
        length = 1 << max(n - 1, 0).bit_length()
        if length not in cache:
            cache[length] = self.to_device(np.arange(length, dtype=np.int64))
        return cache[length] if n == length else cache[length][:n]

    def _targets(self, y: Array, out: Array) -> Array:
        """Return targets as (B, O) in the dtype of `out`; class labels are one-hot encoded."""
        if y.ndim == 2:
            return y
        labels = self.xp.reshape(self.xp.astype(y, self.xp.int64), (-1, 1))
        return self.xp.astype(labels == self._arange(out.shape[1]), out.dtype)

    def __repr__(self) -> str:
        products = "" if self.precision == "float32" else f", float32 products in {self.precision}"
        return f"<backend {self.device}{products}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self  # a device cannot be copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to unpickle the device; see `nnbackend.devices.pickling`."""
        return type(self).reduced(self)
