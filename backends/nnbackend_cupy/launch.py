"""Launch kernels by their records.

The arrays of a call are checked, its formulas traced and its kernel compiled at the first call with
given formulas, dtypes, shapes and strides. Later calls look up what to launch. So after its first
use with given shapes, a kernel does not allocate, copy to the host or synchronize, and a step can
be captured. This module does not import CuPy: it receives functions that compile and allocate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from nnbackend.backend.formulas import Array
from nnbackend_cupy.kernel_cache import KernelCache, Launch
from nnbackend_cupy.records import Kernel, Plan
from nnbackend_cupy.sources import OfRow


class Scratch(threading.local):
    """Scratch arrays of a thread by role, lane and dtype."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, int, Any], Array] = {}


class Launcher:
    """The kernels of one device, compiled at their first use.

    compile(source, name) returns a kernel.  zeros(shape, dtype) returns an array of zeros, used as
    scratch memory: each thread has separate arrays, and its launches that use them must run one
    after another.
    Every method raises Untraceable for a formula, dtype or layout that the kernels do not support.
    """

    def __init__(
        self,
        compile: Callable[[str, str], Launch],
        zeros: Callable[[tuple[int, ...], Any], Array],
        multiprocessors: int = 132,
    ) -> None:
        self._zeros = zeros
        self._multiprocessors = multiprocessors
        self._cache = KernelCache(compile)
        self._local = Scratch()

    def in_use(self) -> list[Any]:
        """Return the objects that a graph of this thread needs: scratch arrays and kernels."""
        return [*self._local.arrays.values(), *self._cache.launches()]

    def _run(self, kernel: Kernel, *formulas: Any, lane: int = 0, **operands: Any) -> None:
        """Launch a kernel.

        lane: of its scratch memory; concurrent launches need different ones.
        Raises: TypeError if `operands` are not those of the record.
        """
        try:
            arrays = [operands[name] for name in kernel.arrays]
        except KeyError:
            kernel.bind(operands)
            raise
        key = (kernel, *[(array.dtype, array.shape, array.strides) for array in arrays])
        plan = self._cache.get(formulas, key, lambda: self._plan(kernel, formulas, operands))
        if plan is None:
            return
        arguments = plan.arguments(operands)
        for role, n, dtype in plan.scratch:
            arguments.append(self._scratch(role, n, dtype, lane))
        plan.launch(plan.grid, plan.block, (*arguments, *plan.sizes))

    def _plan(
        self, kernel: Kernel, formulas: tuple[Any, ...], operands: Mapping[str, Any]
    ) -> Plan | None:
        """Return the launch of a kernel, None if there is nothing to compute."""
        types, sizes = kernel.bind(operands)
        chosen, launch = self._cache.get(
            formulas, (kernel, *types.values()), lambda: self._compiled(kernel, formulas, types)
        )
        made: Plan | None = chosen.plan(
            types, {**sizes, "multiprocessors": self._multiprocessors}, launch
        )
        return made

    def _compiled(
        self, kernel: Kernel, formulas: tuple[Any, ...], types: Mapping[str, str]
    ) -> tuple[Kernel, Launch]:
        try:
            return kernel, self._cache.compiled(kernel.source(types, *formulas))
        except OfRow:
            if kernel.of_row is None:
                raise
            return self._compiled(kernel.of_row, formulas, types)

    def _scratch(self, role: str, n: int, dtype: Any, lane: int = 0) -> Array:
        """Return at least n elements of scratch: zeros at first, then as the last launch left it.

        A role has one array for all sizes.
        """
        arrays = self._local.arrays
        array = arrays.get((role, lane, dtype))
        if array is None or array.size < n:
            array = arrays[role, lane, dtype] = self._zeros((n,), dtype)
        return array
