"""Rows of memory-mapped files: selected without a copy, and read batch by batch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.host_rows import HostRows, narrow, places_of

NEAR = 1024  # rows between two that are read in one run
FEW = 64  # rows of a run, from which on it is read alone
LARGE = 1 << 28  # bytes from which on the rows of a file are selected, not copied


class FileRows(HostRows):
    """Rows of files, one behind another; or those of them at some indices.

    >>> rows = FileRows([np.array([[0, 1], [2, 3]]), np.array([[4, 5]])])
    >>> rows.shape, rows.take(np.array([2, 0]))[:].tolist()
    ((3, 2), [[4, 5], [0, 1]])
    """

    def __init__(self, parts: Sequence[NDArray[Any]], index: NDArray[np.int64] | None = None):
        self.parts, self.index = tuple(parts), index
        self._stops = np.cumsum([len(part) for part in parts])
        n = int(self._stops[-1]) if index is None else len(index)
        self.shape = n, int(parts[0].shape[1])
        self.dtype = parts[0].dtype

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        rows = rows[0] if isinstance(rows, tuple) else rows
        if self.index is None and len(self.parts) == 1:
            part: NDArray[Any] = np.asarray(self.parts[0][rows])
            return part
        places = self.places(rows)
        if len(self.parts) == 1:
            rows_of: NDArray[Any] = np.asarray(self.parts[0][places])
            return rows_of
        of = np.searchsorted(self._stops, places, side="right")
        found = np.empty((len(places), self.shape[1]), self.dtype)
        cuts = [0, *(np.flatnonzero(np.diff(of)) + 1), len(places)]
        if len(cuts) * FEW < len(places):  # long runs, such as a window: without another copy
            for start, stop in itertools.pairwise(cuts):
                part, begin = self.parts[of[start]], self._stops[of[start]]
                local = places[start:stop] - (begin - len(part))
                np.take(part, local, axis=0, out=found[start:stop], mode="clip")
            return found
        for i in np.unique(of):
            mine = of == i
            begin = self._stops[i] - len(self.parts[i])
            found[mine] = self.parts[i][places[mine] - begin]
        return found

    def places(self, rows: Any) -> NDArray[np.int64]:
        """Return the places among all rows of the files of some rows."""
        return places_of(rows, self.shape[0], self.index)

    def take(self, rows: Any) -> FileRows:
        return FileRows(self.parts, narrow(self.places(rows)))

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        if not hasattr(os, "posix_fadvise"):  # macOS, Windows
            return
        places = self.places(rows)
        of = np.searchsorted(self._stops, places, side="right")
        jumps = (np.diff(places) < 0) | (np.diff(places) > NEAR) | (np.diff(of) != 0)
        cuts = np.flatnonzero(jumps) + 1
        for run in np.split(np.arange(len(places)), cuts):
            i = int(of[run[0]])
            part, begin = self.parts[i], int(self._stops[i]) - len(self.parts[i])
            if isinstance(part, np.memmap) and part.filename is not None:
                first, last = int(places[run[0]]) - begin, int(places[run[-1]]) - begin
                _advise(part, first, last + 1 - first)


def _advise(part: Any, first: int, n: int) -> None:
    """Ask the system to read n rows of a memory-mapped file from row `first` on."""
    width = part.shape[1] * part.dtype.itemsize
    with suppress(OSError):  # only advice: reading the rows raises the error
        file = os.open(part.filename, os.O_RDONLY)
        try:
            os.posix_fadvise(file, part.offset + first * width, n * width, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def in_files(x: Any) -> Any:
    """Return the rows of a large memory-mapped file as such; anything else unchanged."""
    if not isinstance(x, np.memmap) or x.nbytes < LARGE or x.ndim != 2:
        return x
    is_plain = x.flags.c_contiguous and x.dtype.isnative and x.dtype.kind in "fiu"
    return FileRows([x]) if is_plain else x


def selected(x: NDArray[Any] | HostRows, rows: Any) -> Any:
    """Return some rows: a copy, but those of large files and of sparse matrices without one."""
    if isinstance(x, HostRows):
        return x.take(rows)
    if isinstance(x, np.memmap) and x.nbytes >= LARGE:
        return FileRows([x]).take(rows)
    return x[rows]
