"""Checks of a device before its first use: writable views and correct results.

The engine writes into slices and reshapes of one vector. A library whose slices are copies would
silently train wrongly, so it is refused. Both checks take a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnbackend.backend.base import LOSS, WEIGHT, Backend
from nnbackend.backend.formulas import Array, Namespace
from nnbackend.errors import BackendError

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of the largest element


class Tanh:
    """An `Activation`, because this package cannot import those of nnbackend.network."""

    kernel, params = "tanh", ()
    f_is_plain = df_is_plain = False

    def f(self, z: Array, xp: Namespace) -> Array:
        """Return a = tanh(z)."""
        return xp.tanh(z)

    def df(self, z: Array, a: Array, xp: Namespace) -> Array:
        """Return 1 - a^2."""
        return 1.0 - a * a

    value = f

    def delta(self, da: Array, z: Array, a: Array, xp: Namespace) -> Array:
        """Return dC/dz, computed from dC/da."""
        return da * self.df(z, a, xp)


def check_views(backend: Backend) -> None:
    """Raise BackendError unless slices and reshapes of an array write into it."""
    requirement = "its arrays can be created and written to"
    try:
        for requirement, is_met in _requirements(backend):
            if not is_met():
                raise BackendError(_message(backend, requirement, "this does not hold"))
    except BackendError:
        raise
    except Exception as error:  # array libraries raise any type for a missing feature
        raise BackendError(
            _message(backend, requirement, f"{type(error).__name__}: {str(error)[:200]}")
        ) from error


def _message(backend: Backend, requirement: str, received: str) -> str:
    return (
        f"{backend.device} cannot be used: the engine requires that {requirement}. "
        f"Received: {received}. For a library whose slices are copies (as JAX), wrap its arrays "
        "in ones that write through; see docs/write-a-backend.md, 'The six methods'."
    )


def _requirements(backend: Backend) -> list[tuple[str, Callable[[], bool]]]:
    """Return the requirements and their checks; each check relies on those before it."""
    vector = backend.empty((12,), "float32")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    matrix: list[Array] = []

    def host() -> list[float]:
        found: list[float] = backend.to_host(vector).tolist()
        return found

    def fills() -> bool:
        vector[...] = 1.0
        return host() == [1.0] * 12

    def slices() -> bool:
        vector[9:] = 2.0
        part = vector[2:8]
        part[...] = 3.0
        return host() == [1.0] * 2 + [3.0] * 6 + [1.0] + [2.0] * 3

    def reshapes() -> bool:
        matrix.append(backend.xp.reshape(vector[2:8], (2, 3)))
        matrix[0][:, 1:] = 4.0
        return host()[2:8] == [3.0, 4.0, 4.0] * 2

    def adds() -> bool:
        part = vector[:3]
        part += 1.0
        return host()[:4] == [2.0, 2.0, 4.0, 4.0]

    def receives() -> bool:
        out = backend.to_device(values, out=matrix[0])
        return backend.owns(out) and host()[2:8] == values.ravel().tolist()

    def copies() -> bool:
        copy = backend.to_host(vector)
        copy[...] = -1.0
        contents = host()
        before = backend.to_host(vector)
        vector[...] = 7.0
        return contents[2:8] == values.ravel().tolist() and before.tolist() == contents

    return [
        ("array[...] = value writes into the array", fills),
        ("a slice of an array is a view, which writes into it", slices),
        ("xp.reshape of a slice is a view, which writes into the array", reshapes),
        ("in-place arithmetic on a slice (part += 1) changes the array", adds),
        ("to_device(host, out=view) writes into the view", receives),
        ("to_host returns a new copy, which can be written to", copies),
    ]


def self_test(backend: Backend, kernels: Any) -> str:
    """Return a description of a wrong result, or ""; runs a step of one small layer.

    The dtype is the first of float_dtypes.  kernels: the class whose kernels run: the backend's, or
    `Backend` with its defaults.
    """
    dtype, sums = backend.float_dtypes[0], backend.sum_dtype
    x = np.linspace(-1.0, 1.0, 15).reshape(5, 3).astype(dtype)
    W = np.cos(np.arange(6.0)).reshape(3, 2).astype(dtype)
    b, da = np.array([0.25, -0.5], dtype), np.sin(np.arange(10.0)).reshape(5, 2).astype(dtype)
    theta, grad = backend.empty((8,), dtype), backend.zeros((8,), dtype)
    delta = backend.to_device(da, out=backend.empty((5, 2), dtype))
    backend.to_device(np.concatenate([W.ravel(), b]), out=theta)
    z, a, dx = (backend.empty(shape, dtype) for shape in ((5, 2), (5, 2), (5, 3)))
    views = [(backend.xp.reshape(v[:6], (3, 2)), v[6:]) for v in (theta, grad)]
    device_x, phi = backend.to_device(x), Tanh()
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), sums)
    backend.to_device(np.array([41, 0], np.int64), out=clock)
    rates = backend.to_device(np.array([[0.5, 0.125], [0.0, 0.75]], sums))
    totals = backend.zeros((4,), sums)
    with backend.active():
        kernels.tick(backend, clock, rates, hyper)
        kernels.dense_forward(backend, device_x, *views[0], phi, z, a)
        kernels.dense_backward(backend, device_x, views[0][0], z, a, phi, delta, *views[1], dx)
        totals[LOSS : WEIGHT + 1] = backend.xp.astype(backend.xp.sum(a, axis=0), totals.dtype)
        theta -= 0.5 * grad
    expected = _step_of_numpy(x, W, b, da)
    results = {"a layer's output": a, "a layer's gradient": grad, "a gradient below": dx,
               "a step": theta, "a sum": totals[: WEIGHT + 1]}  # fmt: skip
    results = {name: backend.to_host(array).astype(np.float64) for name, array in results.items()}
    for name, value in results.items():
        error = float(np.abs(value - expected[name]).max() / np.abs(expected[name]).max())
        if not error <= TOLERANCE[dtype]:
            return f"{name} is off by {error:.1e} of its size, in {dtype}"
    ticked = [*backend.to_host(clock).tolist(), *backend.to_host(hyper).tolist()]
    if ticked != [42, 1, 0.125, 0.75, 42.0]:  # step, batch; rate, momentum, step
        return f"a step's clock and rates became {ticked}, expected [42, 1, 0.125, 0.75, 42.0]"
    return ""


def _step_of_numpy(x: Any, W: Any, b: Any, da: Any) -> dict[str, np.ndarray]:
    """Return the expected results of `self_test`, computed in float64 on the host."""
    x, W, b, da = (v.astype(np.float64) for v in (x, W, b, da))
    a = np.tanh(x @ W + b)
    delta = da * (1.0 - a * a)
    grad = np.concatenate([(x.T @ delta).ravel(), delta.sum(axis=0)])
    theta = np.concatenate([W.ravel(), b]) - 0.5 * grad
    return {"a layer's output": a, "a layer's gradient": grad, "a gradient below": delta @ W.T,
            "a step": theta, "a sum": a.sum(axis=0)}  # fmt: skip
