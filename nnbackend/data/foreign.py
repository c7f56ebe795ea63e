"""Arrays of other libraries that cannot be read as they are, and what the caller can do."""

from __future__ import annotations

from typing import Any

from nnbackend.data.numeric import type_name
from nnbackend.errors import DeviceMismatchError


def check_readable(x: Any, what: str) -> None:
    """Raise DeviceMismatchError for a tensor that records gradients or is not in host memory.

    PyTorch's own errors for these name functions that the caller has not called.
    """
    if getattr(x, "requires_grad", False) is True:
        received, cure = "one that records gradients", f"{what}.detach()"
    elif (place := device_type(x)) != "cpu":
        received, cure = f"one on {place}", f"{what}.cpu()"
    else:
        return
    raise DeviceMismatchError(
        f"{what} must be an array of the host or of the network's device, without a record of "
        f"gradients. Received: {type_name(x)}, {received}. Use {cure}."
    )


def device_type(x: Any) -> str:
    """Return what PyTorch calls the device of a tensor, as "mps"; "cpu" for anything else."""
    return str(getattr(getattr(x, "device", None), "type", "cpu"))
