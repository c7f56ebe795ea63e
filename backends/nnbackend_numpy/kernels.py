"""NumPy kernels, which write their results into the given arrays with `out=`.

The hot path of a step (affine maps, the usual activations, Adam and the SGD family) allocates no
temporary array. The base class computes the rest, which is rare or small.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.backend import Backend, philox
from nnbackend.backend.base import BATCH, COUNT, FAR, MOMENTUM, PENALTY, RATE, STEP
from nnbackend.backend.formulas import Activation, UpdateRule
from nnbackend_numpy import threads

Array = NDArray[Any]


class NumPyBackend(Backend):
    """NumPy on the CPU."""

    name = "numpy"
    device = "numpy:0"
    xp = np
    capabilities = frozenset({"uint64"})

    def __init__(self) -> None:
        self._scratch_arrays = threading.local()  # one array per dtype and thread

    # ---- arrays -----------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        return np.zeros(shape, dtype)

    def to_device(self, host: Array, out: Array | None = None) -> Array:
        if out is None:
            return np.asarray(host)
        np.copyto(out, host)
        return out

    def to_host(self, array: Array) -> Array:
        return np.array(array)

    def synchronize(self) -> None:
        pass

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def active(self, multiplications: int | None = None) -> AbstractContextManager[Any]:
        return nullcontext() if multiplications is None else self._run(multiplications)

    @contextmanager
    def _run(self, multiplications: int) -> Iterator[None]:
        """Set the number of BLAS threads for a training run; free the scratch arrays at its end."""
        try:
            with threads.threads_for(multiplications):
                yield
        finally:
            self._scratch_arrays.__dict__.clear()

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        run = super().capture(step)

        def quietly(n: int) -> None:
            # The trainer detects and reports divergence; NumPy's warnings would repeat it.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                run(n)

        return quietly

    # ---- layers -----------------------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        np.matmul(x, W, out=z)
        z += b
        if (inplace := _VALUES.get(phi.kernel)) is not None:
            inplace(z, a)
        else:
            a[...] = phi.value(z, np)

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
        if (inplace := _SLOPES.get(phi.kernel)) is not None:
            inplace(delta, a, self._scratch)
        else:
            delta[...] = phi.delta(delta, z, a, np)
        np.matmul(x.T, delta, out=dW)
        np.add.reduce(delta, axis=0, out=db)
        if dx is not None:
            np.matmul(delta, W.T, out=dx)

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        n_out = a.shape[1]
        np.copyto(a, z[:, :n_out])
        which.fill(0)
        for k in range(1, z.shape[1] // n_out):
            piece = z[:, k * n_out : (k + 1) * n_out]
            np.copyto(which, k, where=np.greater(piece, a, out=self._scratch(a, "?")))
            np.maximum(a, piece, out=a)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        n_out, won = delta.shape[1], self._scratch(delta, "?")
        for k in range(dz.shape[1] // n_out):
            np.equal(which, k, out=won)
            np.multiply(delta, won, out=dz[:, k * n_out : (k + 1) * n_out])

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
        mask[...] = philox.host_mask(*key, int(clock[STEP]), first_row, x.shape, rate)
        np.multiply(x, mask, out=a)
        a *= 1.0 / (1.0 - rate)

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        np.multiply(da, mask, out=dx)
        dx *= 1.0 / (1.0 - rate)

    # ---- update -----------------------------------------------------------------------------

    def add_penalty(
        self, weights: Array, gradient: Array, l1: float, l2: float, rows: int, totals: Array
    ) -> None:
        t = self._scratch(weights)
        if l2:
            gradient += np.multiply(weights, l2, out=t)
            totals[PENALTY] += rows * 0.5 * l2 * float(np.dot(weights, weights))
        if l1:
            gradient += np.multiply(np.sign(weights, out=t), l1, out=t)
            totals[PENALTY] += rows * l1 * float(np.abs(weights, out=t).sum())

    def clip_norm(self, gradient: Array, max_norm: float) -> None:
        norm = float(np.sqrt(gradient @ gradient))
        if norm > max_norm:
            gradient *= max_norm / norm

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
        rate = float(hyper[RATE])
        c = rule.coefficients(rate, float(hyper[MOMENTUM]), float(hyper[COUNT]))
        if weight_decay:
            theta[:n_weights] *= 1.0 - rate * weight_decay
        if (inplace := _UPDATES.get(rule.kernel)) is not None:
            inplace(rule.params, c, theta, gradient, state, self._scratch)
            return
        new, new_state = rule.recurrence(theta, gradient, tuple(state), c, rule.params, np)
        theta[...] = new
        for old, value in zip(state, new_state, strict=True):
            old[...] = value

    # ---- batches ----------------------------------------------------------------------------

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        clock += 1
        batch = clock[BATCH]
        hyper[RATE] = rates[0, batch]
        hyper[MOMENTUM] = rates[1, batch]
        hyper[COUNT] = clock[STEP]

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        start = int(clock[BATCH]) * batch_size
        rows = order[start : start + out.shape[0]]
        if data.dtype == out.dtype:
            # With mode="clip", take writes directly into out. The rows are never out of range.
            np.take(data, rows, axis=0, out=out, mode="clip")
        else:
            taken = np.take(
                data, rows, axis=0, out=self._scratch(out, data.dtype.char), mode="clip"
            )
            np.copyto(out, taken, casting="unsafe")

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        t = self._scratch(out, shift.dtype.char)
        np.subtract(rows, shift, out=t)
        t *= factor
        if clip is not None:
            t *= 1.0 / clip
            np.clip(t, -FAR, FAR, out=t)
            root = t * t
            root += 1.0
            t /= np.sqrt(root, out=root)
            t *= clip
        np.copyto(out, t, casting="unsafe")

    def _scratch(self, like: Array, dtype: str = "") -> Array:
        """Return this thread's scratch array with the shape of `like`; each call reuses it."""
        arrays, key, size = self._scratch_arrays.__dict__, dtype or like.dtype.char, like.size
        flat = arrays.get(key)
        if flat is None or flat.size < size:
            flat = arrays[key] = np.empty(size, key)
        scratch: Array = flat[:size].reshape(like.shape)
        return scratch


Scratch = Callable[..., Array]

# ---- activations: a = phi(z); delta *= phi'(z), computed from a ---------------------------------


def _identity(z: Array, a: Array) -> None:
    if a is not z:
        np.copyto(a, z)


def _relu(z: Array, a: Array) -> None:
    np.maximum(z, 0.0, out=a)


def _tanh(z: Array, a: Array) -> None:
    np.tanh(z, out=a)


def _no_slope(delta: Array, a: Array, scratch: Scratch) -> None:
    pass


def _relu_slope(delta: Array, a: Array, scratch: Scratch) -> None:
    delta *= np.greater(a, 0.0, out=scratch(a, "?"))


def _sigmoid_slope(delta: Array, a: Array, scratch: Scratch) -> None:
    slope = np.subtract(1.0, a, out=scratch(a))
    slope *= a
    delta *= slope


def _tanh_slope(delta: Array, a: Array, scratch: Scratch) -> None:
    slope = np.multiply(a, a, out=scratch(a))
    np.subtract(1.0, slope, out=slope)
    delta *= slope


_VALUES: dict[str | None, Callable[[Array, Array], None]] = {
    "identity": _identity,
    "relu": _relu,
    "tanh": _tanh,
}
_SLOPES: dict[str | None, Callable[[Array, Array, Scratch], None]] = {
    "identity": _no_slope,
    "relu": _relu_slope,
    "sigmoid": _sigmoid_slope,
    "tanh": _tanh_slope,
}

# ---- update rules, in place ---------------------------------------------------------------------

Numbers = tuple[Any, ...]


def _sgd(
    p: Numbers, c: Numbers, theta: Array, g: Array, state: Sequence[Array], s: Scratch
) -> None:
    theta -= np.multiply(g, c[0], out=s(g))


def _momentum(
    p: Numbers, c: Numbers, theta: Array, g: Array, state: Sequence[Array], s: Scratch
) -> None:
    lr, mu = c
    (velocity,) = state
    velocity *= mu
    velocity -= np.multiply(g, lr, out=s(g))
    theta += velocity


def _adam(
    p: Numbers, c: Numbers, theta: Array, g: Array, state: Sequence[Array], s: Scratch
) -> None:
    rest1, rest2, eps = p  # 1 - beta1, 1 - beta2
    rate, v_correction = c
    m, v = state
    t = s(g)
    m += np.multiply(np.subtract(g, m, out=t), rest1, out=t)
    np.multiply(g, g, out=t)
    t -= v
    t *= rest2
    v += t
    np.multiply(v, v_correction, out=t)
    np.sqrt(t, out=t)
    t += eps
    np.divide(m, t, out=t)
    t *= rate
    theta -= t


_UPDATES: dict[
    str | None,
    Callable[[Numbers, Numbers, Array, Array, Sequence[Array], Scratch], None],
] = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}
