"""The interface of a contender: one library that builds, trains and returns a network."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from nnbackend.bench.rows import OPTIMIZERS, Row

if TYPE_CHECKING:
    from nnbackend.bench.rows import Floats, Labels, Parameters


def library(name: str) -> Any:
    """Import a contender's library; only its own process does."""
    return importlib.import_module(name)


class AbstractContender(ABC):
    """One library on one row, with the data in its memory.

    `steps` and `epochs` return when the work is finished, not when it is queued.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]  # required packages; the first is the library itself
    is_ours: ClassVar[bool] = False
    step_note: ClassVar[str] = ""  # if a step on a resident batch includes more than a step

    def __init__(self, row: Row, x: Floats, y: Labels, start: Parameters, seed: int = 0) -> None:
        self.row, self.x, self.y, self.start, self.seed = row, x, y, start, seed
        self.learning_rate = OPTIMIZERS[row.optimizer]
        self.prepare()

    @classmethod
    def load(cls) -> None:
        """Import all that training needs."""
        for name in cls.modules:
            library(name)

    @abstractmethod
    def prepare(self) -> None:
        """Build the network and copy the data to the library's device."""

    @abstractmethod
    def reset(self) -> None:
        """Restore the initial weights and clear the optimizer's state."""

    @abstractmethod
    def steps(self, n: int) -> None:
        """Run n steps on the first batch, which stays in place."""

    @abstractmethod
    def epochs(self, n: int) -> None:
        """Run n epochs, each in a new order."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """Return copies of the weights (I, O) and biases (O,) as they are now."""

    @abstractmethod
    def predict(self, x: Floats) -> Any:
        """Return the labels of host rows, as a host array."""

    @property
    def first_batch(self) -> tuple[Floats, Labels]:
        """The rows that a step on a resident batch uses."""
        return self.x[: self.row.batch], self.y[: self.row.batch]
