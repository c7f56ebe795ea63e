"""A backend: one device of one array library, with the kernels of backpropagation.

`Backend` is both the contract and the reference. A subclass must give six methods; every kernel
has a default written over `xp`, the library's namespace of Python array API functions. A backend
overrides a kernel for speed only, and `nnbackend.testing` compares each override with the default
here. Kernels write into the arrays they are given, hand nothing to the host, and read whatever
changes from step to step from small device arrays, so that a step can be captured and replayed.

Shape letters: B rows of a batch, I inputs and O outputs of a layer, K pieces, P parameters.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.formulas import Activation, Array, Loss, Namespace, Score, UpdateRule
from nnbackend.errors import ArgumentError, BackendError

# 2: sums and rates in `sum_dtype`, several types of devices in one spec.
API_VERSION = 2

# Slots of `totals`, the sums in `sum_dtype` that a pass over the data leaves on the device.
LOSS, WEIGHT, PENALTY, SCORE = range(4)
# Slots of `clock`, int64: steps made since training began (the first is 1), batch of this epoch.
STEP, BATCH = range(2)
# Slots of `hyper`, in `sum_dtype`: what a schedule may change, and the step count once more.
RATE, MOMENTUM, COUNT = range(3)
FAR = 1e15  # clips away before its square could overflow; 1 + FAR^2 is FAR^2 in every dtype


class Backend(ABC):
    """One device of one array library: six methods to give, kernels to inherit or override.

    A device that cannot serve an allocation raises DeviceMemoryError, whichever call asked for it.
    On the CPU, NumPy's MemoryError will do. A step is then made in parts, a prediction too.
    name: the registered name, as "numpy".  device: the word that `get_backend` takes for this
    device, as "cupy:1" or "torch:mps:0".
    xp: namespace of array API functions.  float_dtypes: names of the supported dtypes.
    capabilities: of "uint64" (wrapping 64-bit integers, for dropout masks made in place) and
    "capture" (steps really are captured, not called one by one).
    """

    name: str
    device: str
    xp: Namespace
    float_dtypes: tuple[str, ...] = ("float32", "float64")
    capabilities: frozenset[str] = frozenset()
    precisions: tuple[str, ...] = ("float32",)  # of float32 matrix products
    precision: str = "float32"

    @property
    def sum_dtype(self) -> str:
        """The dtype of sums and rates: float64 where the device has it, else float32.

        Of `totals`, `rates` and `hyper`. Where it is float32 the engine brings `totals` to the
        host now and then, and adds them up there, so that long sums lose nothing.
        """
        return "float64" if "float64" in self.float_dtypes else "float32"

    # ---- (a) what a backend must give -------------------------------------------------------

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a new C-contiguous array with any content; slices and reshapes of it are views."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a new C-contiguous array of zeros."""

    @abstractmethod
    def to_device(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Bring a NumPy array here, keeping its dtype; into `out` where given.

        Without `out` the result may share memory with `host`, where that is the same memory.
        """

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """Return a fresh NumPy copy, never a view; waits for the device."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

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
        """Take `delta` from dC/da to dC/dz in place, and give the layer's gradients.

            delta = da * phi'(z);  dW = x^T delta;  db = sum of delta's rows;  dx = delta W^T

        Shapes: as in `dense_forward`; delta (B, O), dW (I, O), db (O,), dx (B, I) or None.
        """
        delta[...] = phi.delta(delta, z, a, self.xp)
        dW[...] = x.T @ delta
        db[...] = self.xp.sum(delta, axis=0)
        if dx is not None:
            dx[...] = delta @ W.T

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        """Keep the largest of each unit's pieces; ties go to the first.

        Shapes: z (B, K * O), piece by piece; a (B, O); which (B, O) int32, the winning piece.
        """
        n_out = a.shape[1]
        pieces = self.xp.reshape(z, (z.shape[0], z.shape[1] // n_out, n_out))  # (B, K, O)
        a[...] = self.xp.max(pieces, axis=1)
        which[...] = self.xp.astype(self.xp.argmax(pieces, axis=1), which.dtype)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        """Send each unit's gradient to its winning piece; the others get zero.

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
        """Silence units at random and scale the kept ones up: a = x * mask / (1 - rate).

        The mask's bits are addressed by key (seed, layer), the step in `clock`, and the row
        counted from first_row: the same on every backend (see `philox`).
        Shapes: x and a (B, O); mask (B, O) bool; clock (2,) int64.
        """
        xp = self.xp
        if "uint64" in self.capabilities:
            rows = xp.astype(self._arange(x.shape[0]), xp.uint64) + first_row
            step = xp.astype(clock[STEP : STEP + 1], xp.uint64)
            mask[...] = philox.mask(key, step, rows, x.shape[1], rate, xp)
        else:  # made on the host; a backend without uint64 cannot capture steps with dropout
            step = int(self.to_host(clock)[STEP])
            self.to_device(philox.host_mask(*key, step, first_row, x.shape, rate), out=mask)
        a[...] = x * (xp.astype(mask, x.dtype) * (1.0 / (1.0 - rate)))

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        """Let the gradient through where the units were kept: dx = da * mask / (1 - rate)."""
        dx[...] = da * (self.xp.astype(mask, da.dtype) * (1.0 / (1.0 - rate)))

    # ---- kernels: loss and scores -----------------------------------------------------------

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        """Compare the output with the target: delta = d(mean loss)/d(out), and add to totals.

        The mean over the batch is taken here and nowhere else: sum(w * loss) / sum(w).
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
        """Add each row's score to the sums: totals[SCORE] += sum(w * score).

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
        """Add the gradient of l1 * sum |w| + l2 / 2 * sum w^2, and its value for `rows` rows.

        totals[PENALTY] += rows * value.  Shapes: weights and gradient (n_weights,), flat.
        """
        xp = self.xp
        gradient[...] = gradient + l2 * weights + l1 * xp.sign(weights)
        value = xp.sum(l1 * xp.abs(weights) + (0.5 * l2) * weights * weights, keepdims=True)
        here = slice(PENALTY, PENALTY + 1)
        totals[here] = totals[here] + rows * xp.astype(value, totals.dtype)

    def clip_norm(self, gradient: Array, max_norm: float) -> None:
        """Shrink the gradient to at most `max_norm` long; no branch on the host.

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
        """Make one step of gradient descent on the whole parameter vector, in place.

        Decoupled decay comes first and on the weights only: w *= 1 - lr * weight_decay.
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
        """Shrink the incoming weights of each unit to at most `limit` long.

        Shapes: W (I, O), one column a unit. Source: Srivastava et al. 2014, section 5.1.
        """
        xp = self.xp
        norm = xp.sqrt(xp.sum(W * W, axis=0))
        W[...] = W * (limit / xp.where(norm > limit, norm, limit))

    def average(self, theta: Array, ema_weights: Array, decay: float, hyper: Array) -> None:
        """Move the running average of the parameters: shadow = d shadow + (1 - d) theta.

        d is `decay`, and smaller at first, min(decay, (1 + t) / (10 + t)), so that the initial
        weights are soon forgotten.
        """
        t = hyper[COUNT : COUNT + 1]
        early = (1.0 + t) / (10.0 + t)
        d = self.xp.astype(self.xp.where(early < decay, early, decay), theta.dtype)
        ema_weights[...] = ema_weights + (1.0 - d) * (theta - ema_weights)

    # ---- kernels: batches -------------------------------------------------------------------

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        """Begin a step: count it, and look up its learning rate and momentum.

        Shapes: clock (2,) int64; rates (2, steps of the epoch) and hyper (3,) in sum_dtype.
        """
        clock[...] = clock + 1
        hyper[:COUNT] = self.xp.take(rates, clock[BATCH : BATCH + 1], axis=1)[:, 0]
        hyper[COUNT:] = self.xp.astype(clock[STEP : STEP + 1], hyper.dtype)

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        """Collect this step's rows: out[i] = data[order[batch * batch_size + i]].

        Shapes: data (n, ...) of any dtype, order (n,) int64, out (B, ...) in its own dtype.
        """
        places = self._arange(out.shape[0]) + clock[BATCH : BATCH + 1] * batch_size
        rows = self.xp.take(data, self.xp.take(order, places), axis=0)
        out[...] = self.xp.astype(rows, out.dtype)

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        """Scale inputs: t = (rows - shift) * factor; with a clip, t / sqrt(1 + (t / clip)^2).

        Computed in the dtype of shift and factor, float64 where the device has it, and rounded
        once, so that a shift that is large beside the spread of a column costs no digit.
        Shapes: rows and out (B, I), of any real dtype and maybe one array; shift, factor (I,).
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
        """Set every element."""
        array[...] = value

    # ---- (c) optional -----------------------------------------------------------------------

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that makes n steps, each as `step` would; here by calling it n times.

        A device may record `step` once and replay it, so a step calls kernels of this backend and
        does nothing else, always with the same arrays. Until the result has been used, `step`
        must not be taken to have run. What a step leaves is its parameters, optimizer state,
        gradient, totals and clock; arrays that only pass between its kernels (a batch's rows,
        activations, local gradients) may stay unwritten.
        The first run asks for all the memory that later ones need, a recording's included: where it
        raises MemoryError, the engine restores what a step changes and tries smaller parts.
        """

        def run(n: int) -> None:
            for _ in range(n):
                step()

        return run

    def active(self, multiplications: int | None = None) -> AbstractContextManager[Any]:
        """Return a context for work on this device, also for arithmetic outside the kernels.

        For libraries with a current device, or with threads to choose: a training run says how
        many multiplications its largest matrix product has.
        """
        return nullcontext()

    def release_memory(self) -> None:  # noqa: B027 - most libraries have no pool
        """Empty the library's pool of freed memory, where it has one.

        Called after a MemoryError, before less is asked for.
        """

    def with_precision(self, precision: str) -> Backend:
        """Return this device with float32 matrix products made in a precision of `precisions`.

        Raises: ArgumentError for one that the device does not have.
        """
        if precision not in self.precisions:
            more = " tf32 and bf16 are for CUDA." if self.precisions == ("float32",) else ""
            raise ArgumentError(
                f"precision must be one of {', '.join(self.precisions)} on {self.device}. "
                f"Received: precision={precision!r}.{more}"
            )
        return self

    # ---- shared by the engine and the defaults ----------------------------------------------

    def dtype_name(self, array: Array) -> str:
        """Return the name of a float array's dtype, as "float32"."""
        return next(n for n in self.float_dtypes if array.dtype == getattr(self.xp, n))

    def cast(self, array: Array, dtype: str) -> Array:
        """Return the array in a float dtype; itself, where it has it already."""
        wanted = getattr(self.xp, dtype)
        return array if array.dtype == wanted else self.xp.astype(array, wanted)

    def narrowed(self, host: np.ndarray) -> np.ndarray:
        """Return a host array in a dtype that the device has: where it has no float64, float32."""
        lacks_it = host.dtype == np.float64 and "float64" not in self.float_dtypes
        return host.astype(np.float32) if lacks_it else host

    def _arange(self, n: int) -> Array:
        """Return 0 .. n-1 as int64 on the device: a view of one of few lengths, made once each.

        They are kept for good, as a recorded step may read one; together they take no more than
        four times the longest that was asked for.
        """
        cache: dict[int, Array] = self.__dict__.setdefault("_ranges", {})
        length = 1 << max(n - 1, 0).bit_length()
        if length not in cache:
            cache[length] = self.to_device(np.arange(length, dtype=np.int64))
        return cache[length] if n == length else cache[length][:n]

    def _targets(self, y: Array, out: Array) -> Array:
        """Return targets as (B, O) in the dtype of `out`; class labels become one-hot rows."""
        if y.ndim == 2:
            return y
        labels = self.xp.reshape(self.xp.astype(y, self.xp.int64), (-1, 1))
        return self.xp.astype(labels == self._arange(out.shape[1]), out.dtype)

    def __repr__(self) -> str:
        return f"<backend {self.device}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self  # there is no second device to make

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the word for the device, which is opened again where the pickle is read.

        A backend that no entry point leads to is pickled as an object, with its attributes.
        Raises: BackendError when these cannot be pickled.
        """
        from nnbackend.backend.registry import is_registered  # which imports this module

        if is_registered(self):
            return _opened, (self.device, self.precision)
        state = {name: value for name, value in self.__dict__.items() if name != "_ranges"}
        try:
            pickle.dumps((type(self), state))
        except Exception as error:  # of pickle, or of whatever an attribute is
            raise BackendError(
                "A backend in a pickle must be registered under an entry point of "
                "nnbackend.backends, or have a class and attributes that pickle takes. "
                f"Received: {self!r} ({type(self).__qualname__}; {error}). Register it, "
                "or save the network by net.save(path)."
            ) from error
        return _restored, (type(self), state)


def _opened(device: str, precision: str) -> Backend:
    from nnbackend.backend.registry import get_backend

    return get_backend(device).with_precision(precision)


def _restored(kind: type[Backend], state: dict[str, Any]) -> Backend:
    backend = kind.__new__(kind)
    backend.__dict__.update(state)
    return backend
