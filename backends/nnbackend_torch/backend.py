"""PyTorch on one device: arrays, and the kernels that read no value on the host.

Products, activations and their slopes write into the given arrays; the defaults over the array API
compute the rest. Gradients are ours: PyTorch's automatic differentiation is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import array_api_compat.torch as array_api
import numpy as np
import torch

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Activation, Array
from nnbackend_torch.failures import convert, converting

aten: Any = torch.ops.aten
Slope = Callable[[Array, Array], Any]


class TorchBackend(Backend):
    """PyTorch on a device without shortcuts of its own, such as Apple's and Intel's GPUs.

    type: PyTorch's name of the kind of device.  index: its number among these.
    """

    name = "torch"
    xp = array_api

    def __init__(self, type: str, index: int) -> None:
        self.device = f"torch:{type}:{index}"
        self._type = type
        self._device = torch.device(type) if type in ("cpu", "mps") else torch.device(type, index)
        self.float_dtypes = ("float32",) if type == "mps" else ("float32", "float64")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _convert_errors(cls)

    # ---- arrays -----------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=self._device)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        return torch.zeros(shape, dtype=getattr(torch, dtype), device=self._device)

    def to_device(self, host: np.ndarray, out: Array | None = None) -> Array:
        # A copy in C order: PyTorch reads neither negative strides nor read-only arrays.
        array = torch.from_numpy(np.array(host, order="C"))
        return array.to(self._device) if out is None else out.copy_(array)

    def to_host(self, array: Array) -> np.ndarray:
        return np.array(array.detach().cpu().numpy(), order="C")

    def synchronize(self) -> None:
        getattr(torch, self._type).synchronize()

    def owns(self, array: object) -> bool:
        is_here = isinstance(array, torch.Tensor) and array.device == self._device
        return is_here and not array.requires_grad  # type: ignore[attr-defined]

    def release_memory(self) -> None:
        getattr(torch, self._type).empty_cache()

    def active(self, multiplications: int | None = None) -> AbstractContextManager[Any]:
        return self._inside(multiplications)

    @contextmanager
    def _inside(self, multiplications: int | None) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # also from code outside the kernels
            convert(error, self.device)
            raise

    # ---- layers -----------------------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        torch.addmm(b, x, W, out=z)
        if (value := VALUES.get(phi.kernel)) is not None:
            value(z, out=a)
        elif phi.kernel != "identity":
            a.copy_(phi.value(z, self.xp))
        elif a is not z:
            a.copy_(z)

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
        if (slope := SLOPES.get(phi.kernel)) is not None:
            slope(delta, a)
        elif phi.kernel != "identity":
            delta.copy_(phi.delta(delta, z, a, self.xp))
        torch.mm(x.t(), delta, out=dW)
        torch.sum(delta, 0, out=db)
        if dx is not None:
            torch.mm(delta, W.t(), out=dx)

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        rows, n_out = a.shape
        values, winners = z.view(rows, -1, n_out).max(1)  # the first of equal ones
        a.copy_(values)
        which.copy_(winners)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        rows, n_out = delta.shape
        pieces = dz.zero_().view(rows, -1, n_out)
        pieces.scatter_(1, which.long().unsqueeze(1), delta.unsqueeze(1))

    def copy(self, source: Array, target: Array) -> None:
        target.copy_(source)

    def fill(self, array: Array, value: float) -> None:
        array.fill_(value)


def _relu(z: Array, out: Array) -> None:
    torch.clamp(z, min=0.0, out=out)


def _relu_slope(delta: Array, a: Array) -> None:
    aten.threshold_backward.grad_input(delta, a, 0.0, grad_input=delta)


def _sigmoid_slope(delta: Array, a: Array) -> None:
    aten.sigmoid_backward.grad_input(delta, a, grad_input=delta)


def _tanh_slope(delta: Array, a: Array) -> None:
    aten.tanh_backward.grad_input(delta, a, grad_input=delta)


VALUES: dict[str | None, Callable[..., Any]] = {
    "relu": _relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
# delta = dC/da becomes dC/dz, from a.
SLOPES: dict[str | None, Slope] = {
    "relu": _relu_slope,
    "sigmoid": _sigmoid_slope,
    "tanh": _tanh_slope,
}


def _convert_errors(backend: type[TorchBackend]) -> None:
    """Make every method of a backend's class raise DeviceMemoryError without memory."""
    for name, method in vars(backend).copy().items():
        if callable(method) and not name.startswith("_") and name != "active":
            setattr(backend, name, converting(method))


_convert_errors(TorchBackend)
