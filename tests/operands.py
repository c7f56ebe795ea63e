"""Operands of the numba backend's products, for tests: their memory, panels and pairs."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from nnbackend_numba import pairs
from nnbackend_numba.scalars import FAST

NO_PAIRS = "this processor has no AVX512-BF16"
needs_pairs = pytest.mark.skipif(not pairs.is_available(), reason=NO_PAIRS)
GUARD = -77.0
EDGE = 64  # guard numbers on either side

# ---- memory -------------------------------------------------------------------------------------


class AtOffset:
    """Memory that begins at an address 64 i + offset, between guard numbers."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def put(self, values: Any) -> Any:
        """Return a copy of an array in such memory."""
        memory = np.full(values.size + 3 * EDGE, GUARD, values.dtype)
        start = EDGE + (self.offset - memory.ctypes.data) % 64 // values.itemsize
        memory[start : start + values.size] = values.ravel()
        return memory[start : start + values.size].reshape(values.shape)

    def check(self, array: Any) -> None:
        """Raise AssertionError if memory before or after an array was written."""
        memory, start = array.base, (array.ctypes.data - array.base.ctypes.data) // array.itemsize
        assert (memory[:start] == GUARD).all(), "written before the array"
        assert (memory[start + array.size :] == GUARD).all(), "written after the array"


class BetweenPages:
    """Memory at the first or the last address between two pages that must not be accessed."""

    def __init__(self, is_last: bool) -> None:
        self.is_last = is_last
        self.protect = ctypes.CDLL(None, use_errno=True).mprotect
        self.protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def put(self, values: Any) -> Any:
        page = mmap.PAGESIZE
        inner = -(-values.nbytes // page) * page
        memory = np.frombuffer(mmap.mmap(-1, inner + 2 * page), np.uint8)
        for edge in (0, page + inner):
            done = self.protect(memory.ctypes.data + edge, page, 0)
            assert done == 0, os.strerror(ctypes.get_errno())
        start = page + (inner - values.nbytes if self.is_last else 0)
        placed = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        placed[...] = values
        return placed

    def check(self, array: Any) -> None:
        """Do nothing: an access outside of the array ends the process."""


def run_in_child(work: Callable[[Callable[[Any], None]], None], path: Path) -> None:
    """Run work in a forked process. Raise AssertionError with its last note if it fails."""
    with path.open("w+b", buffering=0) as file:
        child = os.fork()
        if child == 0:
            try:
                work(
                    lambda note: os.pwrite(file.fileno(), str(note).ljust(200).encode(), 0) and None
                )
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"exit status {status} in {file.read().decode()}"


def protected(test: Any) -> Any:
    """Skip a test where pages cannot be protected."""
    # Python 3.12 warns of a fork in a process with threads; the child only computes.
    test = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")(test)
    reason = "pages are protected on Linux only"
    return pytest.mark.skipif(not sys.platform.startswith("linux"), reason=reason)(test)


# ---- layouts ------------------------------------------------------------------------------------


def to_panels(matrix: Any, lanes: int) -> Any:
    """Return the panels of a matrix; lanes without a row contain NaN."""
    n_rows, n_units = matrix.shape
    padded = np.full((-(-n_rows // lanes) * lanes, n_units), np.nan, matrix.dtype)
    padded[:n_rows] = matrix
    return np.ascontiguousarray(padded.reshape(-1, lanes, n_units).transpose(0, 2, 1))


def from_panels(array: Any, n_rows: int) -> Any:
    """Return the matrix that panels contain."""
    return array.transpose(0, 2, 1).reshape(-1, array.shape[1])[:n_rows]


def rounded(values: Any) -> Any:
    """Return float32 numbers rounded to bfloat16, ties to even, by arithmetic of integers."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    kept, rest = bits >> 16, bits & 0xFFFF
    kept += (rest > 0x8000) | ((rest == 0x8000) & (kept % 2 == 1))
    kept = np.where(np.isnan(values), (bits >> 16) | 0x40, kept)
    return (kept << 16).astype(np.uint32).view(np.float32)


def paired(values: Any) -> Any:
    """Return rows of pairs, as float32, of numbers that bfloat16 has; an odd last one with zero."""
    halves = (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)
    halves = np.pad(halves, ((0, 0), (0, halves.shape[1] % 2)))
    return np.ascontiguousarray(halves).view(np.float32)


@cache
def from_python(function: Any) -> Any:
    """Return a function of compiled code, compiled again with a wrapper for Python."""
    return numba.njit(**FAST)(function.py_func)
