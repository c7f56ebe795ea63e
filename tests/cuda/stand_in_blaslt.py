"""A model of cublasLtMatmul, written from its documentation: column-major matrices on the host.

It has the library's functions, so that a wrong leading dimension, transpose, epilogue or alignment
gives wrong numbers or an error status.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from stand_in import STATE

SUCCESS, ALLOC_FAILED, INVALID_VALUE, NOT_SUPPORTED = 0, 3, 7, 15
DESTROYED = "destroyed"
DTYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64)}
SCALE_OF = {68: 0, 77: 0, 75: 0, 70: 1}  # compute type -> type of alpha and beta
SIZES = {3: 4, 4: 4, 7: 4, 8: 8}  # of the description's attributes
EPILOGUES = (1, 4, 6, 256)


def _target(reference: Any) -> Any:
    return reference._obj  # of ctypes.byref


def _id(value: Any) -> int:
    return int(value.value if hasattr(value, "value") else value or 0)


class Model:
    """The functions of libcublasLt that the backend calls."""

    def __init__(self) -> None:
        self._things: list[Any] = [None]
        self.refused: set[int] = set()  # epilogues without an algorithm
        self.epilogues: list[int] = []  # of the products computed
        self.is_strict = False  # raise an exception instead of returning a status
        self.is_choosy = False  # have no algorithm for some shapes, as the library
        self.lacks_memory = 0  # the number of next calls that fail without memory
        self.n_made = self.n_destroyed = 0

    def _new(self, reference: Any, thing: Any) -> int:
        if self._lacks():
            return ALLOC_FAILED
        self._things.append(thing)
        self.n_made += 1
        _target(reference).value = len(self._things) - 1
        return SUCCESS

    def _get(self, handle: Any) -> Any:
        thing = self._things[_id(handle)]
        assert thing is not DESTROYED
        return thing

    def _destroy(self, handle: Any) -> int:
        self._get(handle)
        self._things[_id(handle)] = DESTROYED
        self.n_destroyed += 1
        return SUCCESS

    cublasLtDestroy = cublasLtMatmulDescDestroy = cublasLtMatrixLayoutDestroy = _destroy
    cublasLtMatmulPreferenceDestroy = _destroy

    def _lacks(self) -> bool:
        lacks = self.lacks_memory > 0
        self.lacks_memory -= lacks
        return lacks

    def _invalid(self) -> int:
        if self.is_strict:
            raise AssertionError("cuBLASLt does not support this call")
        return INVALID_VALUE

    def cublasLtCreate(self, handle: Any) -> int:
        return self._new(handle, "handle")

    def cublasLtMatmulDescCreate(self, made: Any, compute: int, scale: int) -> int:
        if SCALE_OF.get(compute) != scale:
            return self._invalid()
        return self._new(made, {"compute": compute, "scale": scale, 3: 0, 4: 0, 7: 1, 8: 0})

    def cublasLtMatmulDescSetAttribute(self, d: Any, key: int, value: Any, size: int) -> int:
        if SIZES.get(key) != size:
            return self._invalid()
        self._get(d)[key] = _id(_target(value))
        return SUCCESS

    def cublasLtMatrixLayoutCreate(
        self, made: Any, kind: int, rows: int, columns: int, ld: int
    ) -> int:
        return self._new(made, (DTYPES[kind], rows, columns, ld)) if ld >= rows else self._invalid()

    def cublasLtMatmulPreferenceCreate(self, made: Any) -> int:
        return self._new(made, {1: 0, 5: 256, 6: 256, 7: 256, 8: 256})

    def cublasLtMatmulPreferenceSetAttribute(self, p: Any, key: int, value: Any, size: int) -> int:
        if size != (8 if key == 1 else 4):
            return self._invalid()
        self._get(p)[key] = _id(_target(value))
        return SUCCESS

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle: Any, d: Any, A: Any, B: Any, C: Any, D: Any, preference: Any,
        wanted: int, results: Any, count: Any,
    ) -> int:  # fmt: skip
        STATE.refuse("a search for algorithms")
        description = self._get(d)
        m, n = self._sizes(description, *map(self._get, (A, B, D)))
        if m < 0 or description[7] not in EPILOGUES:
            return self._invalid()
        _target(count).value = int(self._has_algorithm(description[7], m))
        wants = self._get(preference)
        self._things.append((m, n, wants.copy()))
        _target(results).algorithm.data[0] = len(self._things) - 1
        return SUCCESS

    def _has_algorithm(self, epilogue: int, m: int) -> bool:
        if not self.is_choosy:
            return epilogue not in self.refused
        return m % 2 == 0 or m < 16 if epilogue == 1 else m % 4 != 1

    def _sizes(self, d: Any, A: Any, B: Any, D: Any) -> tuple[int, int]:
        (m, k) = A[1:3] if not d[3] else A[2:0:-1]
        (k2, n) = B[1:3] if not d[4] else B[2:0:-1]
        return (m, n) if k == k2 and D[1:3] == (m, n) else (-1, -1)

    def cublasLtMatmul(
        self, handle: Any, d: Any, alpha: Any, a: int, A: Any, b: int, B: Any, beta: Any,
        c: int, C: Any, out: int, D: Any, algorithm: Any, workspace: int, n_bytes: int, stream: int,
    ) -> int:  # fmt: skip
        if self._lacks():
            return ALLOC_FAILED
        description, layouts = dict(self._get(d)), [self._get(v) for v in (A, B, D)]
        chosen = self._things[_target(algorithm).data[0]]
        if chosen[:2] != self._sizes(description, *layouts) or stream != STATE.stream.ptr:
            return self._invalid()
        alignments = [chosen[2][key] for key in (5, 6, 8)]
        if any(p % align for p, align in zip((a, b, out), alignments, strict=True)):
            return self._invalid()
        if chosen[2][1] > n_bytes or (description[7] != 1 and not description[8]):
            return self._invalid()
        self.epilogues.append(description[7])
        scalars = _target(alpha).value, _target(beta).value
        STATE.do(lambda: self._compute(description, layouts, (a, b, out), scalars))
        return SUCCESS

    def _compute(self, d: Any, layouts: Any, pointers: Any, scalars: Any) -> None:
        A, B, D = (_view(p, *layout) for p, layout in zip(pointers, layouts, strict=True))
        first, second = (A.T if d[3] else A), (B.T if d[4] else B)
        dtype = layouts[2][0]
        made = (scalars[0] * (first @ second)).astype(dtype)
        if scalars[1]:
            made = made + dtype.type(scalars[1]) * D
        if d[7] in (4, 6):
            made = made + _view(d[8], dtype, D.shape[0], 1, D.shape[0])
        if d[7] == 6:
            made = np.fmax(made, 0)  # 0 for NaN, as the library does
        if d[7] == 256:  # the sum of A over the contracted dimension
            _view(d[8], dtype, D.shape[0], 1, D.shape[0])[:, 0] = first.sum(axis=1)
        D[...] = made


def _view(pointer: int, dtype: np.dtype[Any], rows: int, columns: int, ld: int) -> np.ndarray:
    """Return the memory at a pointer, which must belong to an array, as a column-major matrix."""
    n = ld * (columns - 1) + rows
    STATE.at(pointer, n * dtype.itemsize)
    flat = np.frombuffer((ctypes.c_char * (n * dtype.itemsize)).from_address(pointer), dtype)
    steps = (dtype.itemsize, ld * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), steps)
