"""Sums over ranks by NCCL, launched on the current stream: a captured graph contains them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import cupy

from nnbackend.backend.base import WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.backend.ranks import TINY, add_as_tree


def _module() -> Any:
    """Return CuPy's module, imported when it is needed: it warns if the library is missing."""
    found = getattr(cupy.cuda, "nccl", None)
    if found is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = importlib.import_module("cupy.cuda.nccl")
    return found


@cache
def lacking() -> str | None:
    """Return why NCCL cannot be used; None if it can."""
    try:
        _module().get_version()  # CuPy's module is empty without the library
    except (ImportError, AttributeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


class RankSums:
    """The sums over the ranks of one communicator, each with a GPU.

    Every method is first called outside of a capture: it allocates its arrays then.
    """

    def __init__(self, ranks: Any) -> None:
        self._nccl = _module()
        self._size, self._is_fixed = ranks.size, ranks.is_fixed
        if ranks.size > 1:
            unique = ranks.share(self._nccl.get_unique_id() if ranks.rank == 0 else None)[0]
            self._communicator = self._nccl.NcclCommunicator(ranks.size, unique, ranks.rank)
        self._arrays: dict[tuple[Any, ...], Array] = {}

    def share_loss(
        self, figures: Sequence[Array], deltas: Sequence[Array | None], totals: Array
    ) -> None:
        """Compute what `RankKernels.share_loss` does."""
        mine = [self._array("figures", k, totals) for k in range(len(figures))]
        total = self._array("total", 0, totals)
        for source, copied in zip(figures, mine, strict=True):
            copied[...] = source
        self.add(mine, total)
        cupy.add(totals, total, out=totals)
        all_rows, share = (self._array(name, 0, total[:1]) for name in ("rows", "share"))
        cupy.add(total[WEIGHT : WEIGHT + 1], TINY, out=all_rows)
        for source, delta in zip(figures, deltas, strict=True):
            if delta is not None:
                factor = self._array("factor", 0, delta[:1, 0])
                cupy.divide(source[WEIGHT : WEIGHT + 1], all_rows, out=share)
                factor[...] = share  # in delta's dtype
                cupy.multiply(delta, factor, out=delta)

    def add(self, parts: Sequence[Array], out: Array) -> None:
        """Compute out = the sum of all ranks' parts, which are overwritten."""
        kind = self._nccl.NCCL_FLOAT32 if out.dtype == "float32" else self._nccl.NCCL_FLOAT64
        stream = cupy.cuda.get_current_stream().ptr
        if self._is_fixed and self._size > 1:
            add_as_tree(parts, parts[0], _add, _copy)
            every = self._array("every", out.data.ptr, out, self._size)
            self._communicator.allGather(parts[0].data.ptr, every.data.ptr, out.size, kind, stream)
            add_as_tree([every[k] for k in range(self._size)], out, _add, _copy)
            return
        add_as_tree(parts, out, _add, _copy)
        if self._size > 1:
            at, operation = out.data.ptr, self._nccl.NCCL_SUM
            self._communicator.allReduce(at, at, out.size, kind, operation, stream)

    def _array(self, name: str, place: int, like: Array, *more: int) -> Array:
        """Return an array like another, the same one at each call."""
        key = name, place, like.shape, str(like.dtype), more
        if key not in self._arrays:
            self._arrays[key] = cupy.empty((*more, *like.shape), like.dtype)
        return self._arrays[key]


def _add(one: Array, other: Array, out: Array) -> None:
    cupy.add(one, other, out=out)


def _copy(source: Array, out: Array) -> None:
    out[...] = source
