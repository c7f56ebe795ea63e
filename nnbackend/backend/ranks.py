"""Kernels of a step that several ranks share: the sums over their shards of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from nnbackend.backend.formulas import Array

WEIGHT = 1  # the index of the weight of the rows in figures and totals
TINY = np.finfo(np.float64).tiny  # all weights of a batch may be 0


class Exchange(Protocol):
    """What ranks share; see `nnbackend.distributed.Communicator`."""

    def parts(self, n: int) -> list[slice]:
        """Return this rank's parts of n rows."""

    def total(self, vectors: list[np.ndarray]) -> np.ndarray:
        """Return the sum of all ranks' vectors, which it may overwrite."""

    def share(self, value: Any) -> list[Any]:
        """Return the ranks' values."""


class RankKernels:
    """The part of a backend for steps on several ranks; the defaults add on the host.

    captures_exchanges: whether `capture` records these kernels too.
    """

    captures_exchanges = False

    def share_loss(
        self: Any,
        ranks: Exchange,
        figures: Sequence[Array],
        deltas: Sequence[Array | None],
        totals: Array,
    ) -> None:
        """Add the figures of all shards to `totals`; weigh the deltas of this rank's shards.

            totals += F,  F = sum_i f_i;  delta_i *= w_i / W;  w_i, W: the weights in f_i, F

        So the gradients, of the mean loss of each shard, add up to that of the whole mini-batch.
        Shapes: totals and each of the figures (4,) in sum_dtype; each delta (rows of the shard, O),
        or None for a shard without rows.
        """
        mine = [self.to_host(f).astype(np.float64) for f in figures]
        weights = [float(f[WEIGHT]) for f in mine]
        total = ranks.total(mine)
        summed = self.to_host(totals) + total
        self.to_device(summed.astype(self.sum_dtype), out=totals)
        for delta, weight in zip(deltas, weights, strict=True):
            if delta is not None:
                delta[...] = delta * (weight / (float(total[WEIGHT]) + TINY))

    def share_gradient(self: Any, ranks: Exchange, parts: Sequence[Array], gradient: Array) -> None:
        """Compute gradient = the sum of the parts of all ranks; the parts are overwritten.

        Shapes: gradient and each part (P,); a single part may be the gradient itself.
        """
        self.to_device(ranks.total([self.to_host(part) for part in parts]), out=gradient)


def add_as_tree(
    parts: Sequence[Array],
    out: Array,
    add: Callable[[Array, Array, Array], None],
    copy: Callable[[Array, Array], None],
) -> None:
    """Compute out = the sum of 1, 2, 4 or 8 parts as a binary tree; the parts are overwritten.

    The only place with the order of the sums, on which the bits depend. out may be the first part.
    add(one, other, out), copy(source, out): of the array library.
    """
    while len(parts) > 2:
        for one, other in zip(parts[::2], parts[1::2], strict=True):
            add(one, other, one)
        parts = parts[::2]
    if len(parts) == 2:
        add(parts[0], parts[1], out)
    elif parts[0] is not out:
        copy(parts[0], out)
