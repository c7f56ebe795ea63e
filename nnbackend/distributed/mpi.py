"""Communication by MPI, through mpi4py; `mpiexec` or `srun` starts the processes."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from nnbackend.distributed.c_calls import CCall
from nnbackend.distributed.communicator import Communicator
from nnbackend.errors import ArgumentError


class MPI(Communicator):
    """The ranks of a communicator of mpi4py."""

    def __init__(self, comm: Any, reduction: str = "fixed") -> None:
        super().__init__(reduction)
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()
        self._mpi: Any = _mpi4py()

    def gather(self, mine: np.ndarray, out: np.ndarray) -> None:
        self.comm.Allgather(mine, out)

    def add(self, vector: np.ndarray) -> None:
        self.comm.Allreduce(self._mpi.IN_PLACE, vector)

    def c_gather(self, mine: np.ndarray, out: np.ndarray) -> CCall:
        n, byte, at = mine.nbytes, self._handle(self._mpi.BYTE), (mine.ctypes.data, out.ctypes.data)
        arguments = (at[0], n, byte, at[1], n, byte, self._handle(self.comm))
        return self._c_call("MPI_Allgather", arguments) or super().c_gather(mine, out)

    def c_add(self, vector: np.ndarray) -> CCall:
        kind = self._mpi.FLOAT if vector.dtype == np.float32 else self._mpi.DOUBLE
        arguments = (
            *(int(self._mpi.IN_PLACE), vector.ctypes.data, vector.size),
            *map(self._handle, (kind, self._mpi.SUM, self.comm)),
        )
        return self._c_call("MPI_Allreduce", arguments) or super().c_add(vector)

    def _handle(self, of: Any) -> int:
        """Return the C handle of an object of mpi4py."""
        return int(self._mpi._handleof(of))

    def _c_call(self, name: str, arguments: tuple[int, ...]) -> CCall | None:
        """Return the call of a function of the MPI library; None if its address is unknown."""
        try:
            function = getattr(ctypes.CDLL(self._mpi.__file__), name)
        except (AttributeError, OSError):
            return None
        address = int(ctypes.cast(function, ctypes.c_void_p).value or 0)
        return CCall(address, arguments, self._mpi.Exception)

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        mine = np.array(numbers, np.int64)
        found = np.empty_like(mine)
        self.comm.Allreduce(mine, found, self._mpi.MAX)
        return [int(number) for number in found]

    def share(self, value: Any) -> list[Any]:
        found: list[Any] = self.comm.allgather(value)
        return found

    def abort(self, code: int) -> NoReturn:
        self.comm.Abort(code)
        raise SystemExit(code)


def world(reduction: str = "fixed") -> Communicator:
    """Return the communicator of all processes that `mpiexec` or `srun` has started.

    reduction: "fixed" gives the same bits for 1, 2, 4 and 8 ranks; "fast" is faster.
    Raises: ArgumentError if mpi4py or its MPI library is missing.
    """
    return MPI(_mpi4py().COMM_WORLD, reduction)


def as_communicator(given: Any) -> Communicator | None:
    """Return a Communicator for one of nnbackend or of mpi4py; None stays None."""
    if given is not None and not isinstance(given, Communicator):
        if not hasattr(given, "Allgather"):
            raise ArgumentError(
                "communicator must be nnbackend.distributed.world(), or a communicator of mpi4py. "
                f"Received: {given!r:.80}."
            )
        given = MPI(given)
    if given is not None:
        given.check()
    found: Communicator | None = given
    return found


def _mpi4py() -> Any:
    cure = "pip install 'nnbackend[mpi]'"
    try:
        return importlib.import_module("mpi4py.MPI")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mpi4py":
            raise
        raise ArgumentError(
            f"Several ranks need mpi4py. Received: it is not installed. Run: {cure}"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(
            f"Several ranks need an MPI library. Received: {error}. Run: {cure}"
        ) from error
