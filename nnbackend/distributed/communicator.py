"""What the processes of a run say to each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from nnbackend.backend.ranks import add_as_tree
from nnbackend.distributed.c_calls import CCall, python_call
from nnbackend.errors import ArgumentError, Fault
from nnbackend.suggestions import suggest

REDUCTIONS = ("fixed", "fast")
SHARDS = 8  # parts of a mini-batch with the reduction "fixed"


class Communicator(ABC):
    """The ranks 0 .. size - 1 of a run, each a process with the same network and data.

    reduction: "fixed": each mini-batch is divided into 8 shards, whose gradients are added in one
    order, so that 1, 2, 4 and 8 ranks give the same bits; "fast": each rank has one shard, and the
    order of the sum is the library's.

    All ranks must call the methods in the same order.
    """

    rank = 0
    size = 1

    def __init__(self, reduction: str = "fixed") -> None:
        if reduction not in REDUCTIONS:
            cure = suggest(str(reduction), REDUCTIONS)
            raise ArgumentError(Fault("reduction", "fixed or fast", reduction, (cure,)))
        self.reduction = reduction

    def check(self) -> None:
        """Raise ArgumentError for a number of ranks that the reduction does not have."""
        if self.is_fixed and (self.size > SHARDS or SHARDS % self.size):
            raise ArgumentError(
                "The reduction 'fixed' needs 1, 2, 4 or 8 ranks. "
                f"Received: {self.size}. Start another number, or use the reduction 'fast'."
            )

    @property
    def is_fixed(self) -> bool:
        """Whether the gradients of shards are added in one order."""
        return self.reduction == "fixed"

    @property
    def n_shards(self) -> int:
        """The number of shards of a mini-batch."""
        return SHARDS if self.is_fixed else self.size

    @property
    def shards(self) -> range:
        """The numbers of this rank's shards."""
        n = self.n_shards // self.size
        return range(n * self.rank, n * (self.rank + 1))

    def parts(self, n: int) -> list[slice]:
        """Return the rows of this rank's shards of n rows.

        >>> Alone().parts(20)[:3]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None)]
        """
        of = self.n_shards
        return [slice(n * i // of, n * (i + 1) // of) for i in self.shards]

    def total(self, vectors: list[np.ndarray]) -> np.ndarray:
        """Return the sum of all ranks' vectors (n,), of one dtype; they may be overwritten."""
        mine = _tree(vectors)
        if not self.is_fixed:
            self.add(mine)
            return mine
        every = np.empty((self.size, mine.size), mine.dtype)
        self.gather(mine.view(np.uint8), every.view(np.uint8))
        return _tree([*every])

    def c_gather(self, mine: np.ndarray, out: np.ndarray) -> CCall:
        """Return `gather` of these arrays, of one dtype, as a call for compiled programs."""
        return python_call(lambda: self.gather(mine.view(np.uint8), out.view(np.uint8)))

    def c_add(self, vector: np.ndarray) -> CCall:
        """Return `add` of this array as a call for compiled programs."""
        return python_call(lambda: self.add(vector))

    @abstractmethod
    def gather(self, mine: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (size, n) with the vectors `mine` (n,) of all ranks, which are bytes."""

    @abstractmethod
    def add(self, vector: np.ndarray) -> None:
        """Replace a vector (n,) by its sum over the ranks, in any order."""

    @abstractmethod
    def maximum(self, numbers: Sequence[int]) -> list[int]:
        """Return the largest of the ranks' numbers, at each place."""

    @abstractmethod
    def share(self, value: Any) -> list[Any]:
        """Return the ranks' values, which can be pickled."""

    @abstractmethod
    def abort(self, code: int) -> NoReturn:
        """End the processes of all ranks."""


class Alone(Communicator):
    """One process that rounds as several do: for a run that others continue, and for tests."""

    def gather(self, mine: np.ndarray, out: np.ndarray) -> None:
        out[0] = mine

    def add(self, vector: np.ndarray) -> None:
        """Do nothing: there is one rank."""

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def share(self, value: Any) -> list[Any]:
        return [value]

    def abort(self, code: int) -> NoReturn:
        raise SystemExit(code)


def _tree(vectors: list[np.ndarray]) -> np.ndarray:
    """Return the sum of 1, 2, 4 or 8 vectors, in the first one; all may be overwritten."""
    add_as_tree(vectors, vectors[0], lambda one, other, out: np.add(one, other, out=out), np.copyto)
    return vectors[0]
