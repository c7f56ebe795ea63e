"""CUDA kernels of layers: activations, bias and weight gradients, maxout, dropout."""

from __future__ import annotations

from nnbackend.backend import philox
from nnbackend.backend.formulas import Activation, Array
from nnbackend_cupy import grids
from nnbackend_cupy.launch import Launcher
from nnbackend_cupy.records import Kernel, variant
from nnbackend_cupy.sources import row_slope_lines, row_value_lines, slope_lines, value_lines
from nnbackend_cupy.tracing import Untraceable

MAX_FEW = 16  # columns of the narrower matrix in one launch of a thin gradient

BIAS_ACTIVATION = Kernel("activation", value_lines, Kernel("row_activation", row_value_lines))
SLOPE = Kernel("slope", slope_lines, Kernel("row_slope", row_slope_lines))
BIAS_GRADIENT = Kernel("column_sums")
WEIGHT_GRADIENT = Kernel("weight_gradient")
WEIGHT_SUMS = Kernel("weight_sums")
MAXOUT = Kernel("maxout")
MAXOUT_GRADIENT = Kernel("maxout_gradient")
DROPOUT = Kernel("dropout")
DROPOUT_GRADIENT = Kernel("dropout_gradient")


class LayerKernels(Launcher):
    """The kernels of layers, except matrix products."""

    def bias_activation(self, z: Array, b: Array, a: Array, phi: Activation) -> None:
        """Compute z += b;  a = phi(z), in one pass. Shapes: z, a (B, O); b (O,); a may be z."""
        self._run(BIAS_ACTIVATION, phi, z=z, b=b, a=a)

    def slope(self, delta: Array, z: Array, a: Array, phi: Activation) -> None:
        """Compute delta = dC/dz from dC/da, in place. Shapes: all (B, O)."""
        self._run(SLOPE, phi, delta=delta, z=z, a=a)

    def bias_gradient(self, delta: Array, db: Array, lane: int = 0) -> None:
        """Compute db = sum of delta's rows. Shapes: delta (B, O), db (O,).

        lane: concurrent launches need different ones.
        """
        self._run(BIAS_GRADIENT, lane=lane, delta=delta, db=db)

    def weight_gradient(self, x: Array, delta: Array, dW: Array, db: Array, lane: int = 0) -> None:
        """Compute dW = x^T delta;  db = sum of delta's rows, in two launches: parts, their sums.

        For many rows and few units. lane: concurrent launches need different ones.
        Shapes: x (B, I), delta (B, O), dW (I, O), db (O,).
        """
        n_in, n_out = dW.shape
        few = min(n_in, n_out)
        if dW.size == 0:
            raise Untraceable(f"a weight gradient without weights. Received: dW.shape={dW.shape}")
        tiles = grids.tall_tiles(n_in, n_out, few <= MAX_FEW)
        chunks, _ = grids.over_tall(x.shape[0], tiles, self._multiprocessors)
        partial = self._scratch("partial", chunks * (dW.size + n_out), dW.dtype, lane)
        if few > MAX_FEW:
            self._run(WEIGHT_GRADIENT, x=x, delta=delta, partial=partial)
        else:
            is_delta = n_out == few
            kernel = variant("thin_gradient", FEW=few, IS_DELTA_FEW=is_delta)
            narrow, wide = (delta, x) if is_delta else (x, delta)
            self._run(kernel, many=wide, few=narrow, partial=partial)
        self._run(WEIGHT_SUMS, partial=partial, dW=dW, db=db, chunks=chunks)

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        """Compute the largest piece of each unit. Shapes: z (B, K * O); a and which (B, O)."""
        pieces = z.shape[1] // max(1, a.shape[1])
        self._run(MAXOUT, z=z, a=a, which=which, pieces=pieces)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        """Pass the gradient to the winning piece. Shapes: delta and which (B, O), dz (B, K * O)."""
        pieces = dz.shape[1] // max(1, delta.shape[1])
        self._run(MAXOUT_GRADIENT, delta=delta, which=which, dz=dz, pieces=pieces)

    def dropout_forward(
        self,
        x: Array,
        rate: float,
        key: tuple[int, int],
        clock: Array,
        first_row: int,
        a: Array,
        mask: Array,
    ) -> None:
        """Compute a = x * mask / (1 - rate), with the mask of `philox.host_mask`."""
        self._run(
            DROPOUT, x=x, a=a, mask=mask, clock=clock, seed=key[0], layer=key[1],
            first_row=first_row, threshold=philox.keep_threshold(rate), scale=1.0 / (1.0 - rate),
        )  # fmt: skip

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        """Compute dx = da * mask / (1 - rate). Shapes: all (B, O)."""
        self._run(DROPOUT_GRADIENT, da=da, mask=mask, scale=1.0 / (1.0 - rate), dx=dx)
