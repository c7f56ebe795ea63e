"""Record the kernel calls of a step instead of making them.

A step only calls kernels of its backend, always with the same arrays (`Backend.capture`). So the
list of its calls describes it completely, and patterns in it can be replaced by fused kernels. A
step that does more, such as a copy to the host, is not recorded; none of its calls have run then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from nnbackend.backend import Backend

# Methods of `Backend` that a step may call; they return None.
KERNELS = frozenset(
    {
        *("dense_forward", "dense_backward", "maxout_forward", "maxout_backward"),
        *("dropout_forward", "dropout_backward", "loss_and_delta", "add_score"),
        *("add_penalty", "clip_norm", "optimizer_step", "max_norm", "average"),
        *("tick", "gather_rows", "scale_rows", "copy", "fill"),
        *("share_loss", "share_gradient"),
    }
)


class NotRecorded(Exception):
    """A step that does something other than call kernels; the message is the reason."""


@dataclass(frozen=True)
class Call:
    """A kernel call of a step."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by their names in `Backend`."""
        return dict(_signature(self.name).bind(*self.args, **self.kwargs).arguments)


@cache
def _signature(name: str) -> inspect.Signature:
    signature = inspect.signature(getattr(Backend, name))
    return signature.replace(parameters=list(signature.parameters.values())[1:])  # without self


class Recorder:
    """The recorded calls of one thread."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def add(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record a call. Raise NotRecorded for a method that is not a kernel."""
        if name not in KERNELS:
            raise NotRecorded(f"the step calls {name}")
        self.calls.append(Call(name, args, kwargs))


def recorded(step: Callable[[], None], recorder: Recorder) -> list[Call]:
    """Return the calls of a step. Raise NotRecorded with the reason if that fails."""
    try:
        step()
    except NotRecorded:
        raise
    except Exception as error:  # a step may fail where its calls have no effect
        raise NotRecorded(f"{type(error).__name__}: {error}") from error
    return recorder.calls
