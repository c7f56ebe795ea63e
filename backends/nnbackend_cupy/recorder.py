"""The kernel calls of a step, written down instead of made.

A step calls kernels of its backend and does nothing else, always with the same arrays
(`Backend.capture`). So the list of its calls says all that it does, and may be matched with
patterns for which there is one kernel instead of many. A step that asks for more than kernels, as
a copy to the host, is not recorded; nothing of it has been executed then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from nnbackend.backend import Backend

# Methods of `Backend` that a step may call, and that give nothing back.
KERNELS = frozenset(
    {
        *("dense_forward", "dense_backward", "maxout_forward", "maxout_backward"),
        *("dropout_forward", "dropout_backward", "loss_and_delta", "add_score"),
        *("add_penalty", "clip_norm", "optimizer_step", "max_norm", "average"),
        *("tick", "gather_rows", "scale_rows", "copy", "fill"),
    }
)


class NotRecorded(Exception):
    """A step did what is no kernel call; the message says what."""


@dataclass(frozen=True)
class Call:
    """One kernel call, as the step made it."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by the names that `Backend` gives them."""
        return dict(_signature(self.name).bind(*self.args, **self.kwargs).arguments)


@cache
def _signature(name: str) -> inspect.Signature:
    signature = inspect.signature(getattr(Backend, name))
    return signature.replace(parameters=list(signature.parameters.values())[1:])  # without self


class Recorder:
    """Collects the calls of one thread."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def add(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record a call. Raises: NotRecorded for a method that is no kernel."""
        if name not in KERNELS:
            raise NotRecorded(f"the step calls {name}")
        self.calls.append(Call(name, args, kwargs))


def recorded(step: Callable[[], None], recorder: Recorder) -> list[Call]:
    """Return the calls of a step. Raises: NotRecorded, with the reason."""
    try:
        step()
    except NotRecorded:
        raise
    except Exception as error:  # a step may fail where its calls have no effect
        raise NotRecorded(f"{type(error).__name__}: {error}") from error
    return recorder.calls
