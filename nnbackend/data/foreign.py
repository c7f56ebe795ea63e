"""Checks for tensors of other libraries that cannot be read directly."""

from __future__ import annotations

from typing import Any

from nnbackend.data.numeric import type_name
from nnbackend.errors import DeviceMismatchError


def check_readable(x: Any, what: str) -> None:
    """Raise DeviceMismatchError for a tensor that records gradients or is not in host memory.

    PyTorch's errors for these tensors name functions that the caller has not called.
    """
    if getattr(x, "requires_grad", False) is True:
        received, cure = "which records gradients", f"{what}.detach()"
    elif (place := device_type(x)) != "cpu":
        received, cure = f"which is on {place}", f"{what}.cpu()"
    else:
        return
    raise DeviceMismatchError(
        f"{what} must be an array on the host or on the network's device that does not record "
        f"gradients. Received: {type_name(x)}, {received}. Use {cure}."
    )


def device_type(x: Any) -> str:
    """Return the PyTorch device type of a tensor, such as "mps"; "cpu" for anything else."""
    return str(getattr(getattr(x, "device", None), "type", "cpu"))
