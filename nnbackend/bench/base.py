"""The interface of a contender: one library that builds, trains and returns a network.

All contenders do the same work: float32, the row's layers, loss, batch size and optimizer with the
same constants, from the same initial weights. An epoch draws a new order, gathers each batch and
steps.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from nnbackend.bench.rows import OPTIMIZERS, Row
from nnbackend.errors import ArgumentError

if TYPE_CHECKING:
    from nnbackend.bench.rows import Floats, Parameters, Targets


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
    distributions: ClassVar[tuple[str, ...]] = ()  # for the report, beside those of `machine`
    imports: ClassVar[dict[str, str]] = {}  # title -> a user's first import of the library
    is_ours: ClassVar[bool] = False

    def __init__(self, row: Row, x: Floats, y: Targets, start: Parameters, seed: int = 0) -> None:
        self.row, self.x, self.y, self.start, self.seed = row, x, y, start, seed
        self.learning_rate = OPTIMIZERS[row.optimizer]
        if missing := self.lacks(row):
            raise ArgumentError(f"{self.title} has no {missing}, which {row.name} needs.")
        self.prepare()

    @classmethod
    def load(cls) -> None:
        """Import all that training needs."""
        for name in cls.modules:
            library(name)

    @classmethod
    def path(cls) -> str:
        """Return the import path, by which a worker finds the class."""
        return f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def missing(cls) -> str:
        """Return why the contender cannot run here, or the empty string."""
        for root in (module.partition(".")[0] for module in cls.modules):
            if importlib.util.find_spec(root) is None:
                return f"{root} is not installed"
        return ""

    @classmethod
    def lacks(cls, row: Row) -> str:
        """Return what the library lacks to train a row, or the empty string."""
        return ""

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
        """Return copies of the weights (I, K * O) and biases (K * O,) as they are now."""

    @abstractmethod
    def predict(self, x: Floats) -> Any:
        """Return the labels, or a regression's outputs, of host rows as a host array."""

    @property
    def first_batch(self) -> tuple[Floats, Targets]:
        """The rows that a step on a resident batch uses."""
        return self.x[: self.row.batch], self.y[: self.row.batch]
