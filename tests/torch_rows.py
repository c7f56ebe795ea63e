"""The row `torch32`: PyTorch on the CPU as a device without float64, such as Apple's GPUs."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

from nnbackend.backend import Backend, BackendSpec, Probe
from nnbackend.errors import BackendUnavailableError

# The message of PyTorch for MPS.
REFUSAL = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
)


def lacking() -> str:
    """Return which package PyTorch's backend lacks; "" if none."""
    names = ("torch", "array_api_compat")
    return next((f"{n} is not installed" for n in names if not importlib.util.find_spec(n)), "")


@functools.cache
def _class() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from nnbackend_torch.backend import TorchBackend

    class Refuse(TorchDispatchMode):
        """Refuse every operation whose result has float64."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            found = func(*args, **(kwargs or {}))
            for one in found if isinstance(found, (tuple, list)) else (found,):
                if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                    raise TypeError(REFUSAL)
            return found

    def refusing(method: Any) -> Any:
        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with Refuse():
                return method(*args, **kwargs)

        return wrapped

    class WithoutFloat64(TorchBackend):
        """The kernels of all devices, on the CPU."""

        name = "torch32"

        def __init__(self) -> None:
            super().__init__("cpu", 0)
            self.device, self.float_dtypes = "torch32:0", ("float32",)

        def synchronize(self) -> None:
            pass

        def release_memory(self) -> None:
            pass

    others = {"owns", "active", "capture", "with_precision", "dtype_name"}
    for name in dir(WithoutFloat64):
        method = getattr(WithoutFloat64, name)
        is_public = callable(method) and not name.startswith("_")
        if is_public and name not in others and not isinstance(method, type):
            setattr(WithoutFloat64, name, refusing(method))
    return WithoutFloat64


def new_backend() -> Backend:
    """Return the row's backend."""
    if reason := lacking():
        raise BackendUnavailableError(reason)
    made: Backend = _class()()
    return made


def _probe() -> Probe:
    return Probe(0, lacking()) if lacking() else Probe(1)


SPEC = BackendSpec(
    name="torch32", kind="cpu", priority=-1, probe=_probe, load=lambda _: new_backend()
)
