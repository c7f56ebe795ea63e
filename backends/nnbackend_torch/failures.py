"""PyTorch's errors of memory as errors of nnbackend."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch

from nnbackend.errors import DeviceMemoryError

WITHOUT_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def convert(error: RuntimeError, device: str) -> None:
    """Raise DeviceMemoryError for an error of memory, and nothing for another."""
    if isinstance(error, torch.OutOfMemoryError) or WITHOUT_MEMORY.search(str(error)):
        first = str(error).splitlines()[0][:200]
        raise DeviceMemoryError(f"{device} has no memory: {first}") from error


def converting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a backend that raises DeviceMemoryError without memory."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except RuntimeError as error:
            convert(error, self.device)
            raise

    return wrapped
