"""CUDA kernels that start a step and read the rows of its batch."""

from __future__ import annotations

from collections.abc import Sequence

from nnbackend.backend.formulas import Array
from nnbackend_cupy.launch import Launcher
from nnbackend_cupy.records import Kernel, variant

TICK = Kernel("tick")
GATHER = Kernel("gather")
SCALE = Kernel("scale")


class BatchKernels(Launcher):
    """The kernels of batches."""

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        """Count a step, and read its learning rate and momentum."""
        self._run(TICK, clock=clock, rates=rates, hyper=hyper)

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        """Compute out[i] = data[order[batch * batch_size + i]] in out's dtype.

        Shapes: data (N, ...) with contiguous rows, out (R, ...) contiguous.
        """
        self._run(GATHER, data=data, order=order, clock=clock, out=out, batch_size=batch_size)

    def begin_step(
        self, clock: Array, rates: Array, hyper: Array, order: Array, batch_size: int,
        gathers: Sequence[tuple[Array, Array]],
    ) -> None:  # fmt: skip
        """Run `tick`, then `gather_rows` for each (data, out), in one launch."""
        arrays = {
            f"{name}{k}": array
            for k, pair in enumerate(gathers)
            for name, array in zip(("data", "out"), pair, strict=True)
        }
        self._run(
            variant("begin", n=len(gathers)), **arrays, order=order, clock=clock, rates=rates,
            hyper=hyper, batch_size=batch_size,
        )  # fmt: skip

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        """Compute out = (rows - shift) * factor in float64, clipped smoothly.

        Shapes: rows (B, I) of any real dtype, each row contiguous; shift, factor (I,) float64; out
        (B, I) contiguous.
        """
        self._run(SCALE, rows=rows, shift=shift, factor=factor, clip=clip or 0.0, out=out)
