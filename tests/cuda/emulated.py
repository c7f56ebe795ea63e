"""A backend over NumPy whose kernels are the CUDA kernels, run by the emulator; no CuPy.

Only the matrix products are NumPy's. A formula or a layout that the kernels do not support is an
error: there is no fallback.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from emulator import compile_on_host

from nnbackend.testing import ReferenceBackend
from nnbackend_cupy.kernels import CUDA_KERNELS, Kernels


class EmulatedBackend(ReferenceBackend):
    """A backend of NumPy arrays and `Kernels`, with one order of threads."""

    name = device = "emulated"

    def __init__(self, order: int = 0) -> None:
        self.order = order
        self.kernels = Kernels(lambda source, name: compile_on_host(source, name, order), np.zeros)

    def dense_forward(self, x, W, b, phi, z, a):  # type: ignore[no-untyped-def]
        z[...] = x @ W
        self.kernels.bias_activation(z, b, a, phi)

    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore[no-untyped-def]
        self.kernels.slope(delta, z, a, phi)
        self.kernels.bias_gradient(delta, db)
        dW[...] = x.T @ delta
        if dx is not None:
            dx[...] = delta @ W.T


def _pass_on(name: str) -> Any:
    def kernel(self: EmulatedBackend, *args: Any) -> None:
        getattr(self.kernels, name)(*args)

    return kernel


for _name in CUDA_KERNELS:
    setattr(EmulatedBackend, _name, _pass_on(_name))
