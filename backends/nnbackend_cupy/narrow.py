"""Launch the kernel for narrow networks, cuda/narrow.cu, which runs n steps in one launch.

`narrow_match` selects the steps, `narrow_source` builds the kernel's text, this module its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_cupy import sources
from nnbackend_cupy.kernel_cache import Launch
from nnbackend_cupy.narrow_match import Step, match
from nnbackend_cupy.narrow_source import CLUSTER, DTYPE, GRID, Grid, NotNarrow, kernel
from nnbackend_cupy.recorder import Call
from nnbackend_cupy.tracing import Untraceable

CLUSTER_BLOCKS = 8  # supported by every device with clusters
CLUSTERS_FROM = 90  # compute capability
# Multiplications of a forward pass up to which a cluster is faster than a grid of all
# multiprocessors, whose barrier takes 1.0 us instead of 0.2. H200, us a step: 2.8 thousand
# multiplications (8-16-3, 16 rows) 4.0 in a cluster, 4.8 in a grid, 7.7 in one block; 52 thousand
# (4-50-3, 150 rows) 8.2, 5.4 and 53.
MAX_FOR_CLUSTER = 16 << 10
# Above, the faster products of cuBLASLt save more time than its launches cost.
MAX_WORK = 100 << 20
# What takes the place of an array that the kernel does not read: another of its type.
UNREAD = {"weights": "theta", "order": "clock", "shift": "hyper", "factor": "hyper"}
MAX_CACHED = 64  # compiled kernels, each for one network's sizes; a run references its kernel


@dataclass(frozen=True)
class Device:
    """The properties of a device that determine the grid."""

    multiprocessors: int
    capability: int  # such as 90


def choose_grid(work: int, device: Device) -> Grid:
    """Return the grid for a step with `work` multiplications in its forward pass."""
    if work <= MAX_FOR_CLUSTER and device.capability >= CLUSTERS_FROM:
        return Grid(CLUSTER, CLUSTER_BLOCKS)
    return Grid(GRID, device.multiprocessors)


class NarrowSteps:
    """The launches of one device.

    compile(text, name, is_cooperative) returns a kernel, zeros(shape, dtype) an array of zeros.
    """

    def __init__(
        self,
        compile: Callable[[str, str, bool], Launch],
        zeros: Callable[[tuple[int, ...], str], Array],
        device: Device,
    ) -> None:
        self._compile, self._zeros, self._device = compile, zeros, device
        self._launches: dict[str, Launch] = {}  # the least recently used first

    def plan(
        self, calls: Sequence[Call], grid: Grid | None = None
    ) -> tuple[Callable[[int], None], Grid]:
        """Return a function that runs n of the recorded steps, and its grid.

        grid: None for that of `choose_grid`.
        Raises: NotNarrow with the reason if the kernel does not support the step.
        """
        try:
            step = match(calls)
            if grid is None and step.work > MAX_WORK:
                raise NotNarrow(f"{step.work:,} multiplications, at most {MAX_WORK:,}")
            grid = grid or choose_grid(step.work, self._device)
            made, size = kernel(step.net, grid, step.rows)
            operands = self._operands(step, size, grid.blocks)
            types, sizes = made.bind(operands)
            text = made.source(types, step.net.loss)
        except Untraceable as error:
            raise NotNarrow(str(error)) from error
        launch = self._launches.pop(text.name, None)
        if launch is None:
            launch = self._compile(sources.program([text]), text.name, grid.barrier == GRID)
            while len(self._launches) >= MAX_CACHED:
                self._launches.pop(next(iter(self._launches)), None)
        self._launches[text.name] = launch
        plan = made.plan(types, {**sizes, "blocks": grid.blocks}, launch)
        assert plan is not None
        *arguments, _ = plan.arguments(operands)

        def run(n: int) -> None:
            if n:
                launch(plan.grid, plan.block, (*arguments, np.int32(n), *plan.sizes))

        return run, grid

    def _operands(self, step: Step, size: int, blocks: int) -> dict[str, Any]:
        given = {**step.operands, "steps": 0}
        for name, other in UNREAD.items():
            given[name] = given[other] if given[name] is None else given[name]
        scratch = self._zeros((size,), DTYPE.name), self._zeros((2 * blocks,), "float64")
        counter = self._zeros((1,), "uint64")
        return {**given, "scratch": scratch[0], "parts": scratch[1], "counter": counter}
