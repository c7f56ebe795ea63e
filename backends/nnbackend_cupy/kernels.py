"""Launch the CUDA kernels: choose the kernel, its grid and its arguments.

`Kernels` has the kernels of `Backend` except the matrix products, with the same names and
semantics. It does not import CuPy: it receives functions that compile and that allocate zeros.
After its first use with given shapes, a kernel does not allocate, copy to the host or synchronize,
so that a step can be captured.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.formulas import Activation, Array, Loss, Score, UpdateRule
from nnbackend_cupy import grids, sources
from nnbackend_cupy.grids import DROPOUT_THREADS, OUTPUT_WARPS, ROW_THREADS, THREADS
from nnbackend_cupy.kernel_cache import KernelCache, Launch
from nnbackend_cupy.sources import Source
from nnbackend_cupy.tracing import Untraceable

MAX_OUTPUTS = 16  # of an output layer in one launch
MAX_FEW = 16  # columns of the narrower matrix in one launch of `thin_gradient`
MANY_ROWS = 16384  # above, a separate launch sums the sample weights
LABELS = ("int32", "int64")
SUMS = ("float64",)  # of totals, rates, hyper, shifts and factors


class Scratch(threading.local):
    """Scratch arrays of a thread by role and dtype."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, str], Array] = {}


class Kernels:
    """The kernels of one device, compiled at their first use.

    compile(source, name) returns a kernel.  zeros(shape, dtype) returns an array of zeros, used as
    scratch memory: each thread has separate arrays, and its launches that use them must run one
    after another.
    Every method raises Untraceable for a formula, dtype or layout that the kernels do not support.
    """

    def __init__(
        self,
        compile: Callable[[str, str], Launch],
        zeros: Callable[[tuple[int, ...], str], Array],
        multiprocessors: int = 132,
    ) -> None:
        self._zeros = zeros
        self._multiprocessors = multiprocessors
        self._cache = KernelCache(compile)
        self._parts: dict[tuple[str, str, str], Launch] = {}
        self._local = Scratch()

    def in_use(self) -> list[Any]:
        """Return the objects that a graph of this thread needs: scratch arrays and kernels."""
        return [*self._local.arrays.values(), *self._cache.launches()]

    # ---- layers -----------------------------------------------------------------------------

    def bias_activation(self, z: Array, b: Array, a: Array, phi: Activation) -> None:
        """Compute z += b;  a = phi(z), in one pass. Shapes: z, a (B, O); b (O,); a may be z."""
        dtype = _check(z, b, a)
        rows, columns = z.shape
        if z.size == 0:
            return
        source, launch = self._kernel(
            (phi,), "value", dtype, lambda: sources.activation(phi, dtype)
        )
        if source.is_of_row:
            self._launch_rows(launch, (z, b, a), rows, columns)
        else:
            launch(
                grids.over_elements(z.size),
                (THREADS,),
                (z, b, a, np.int64(z.size), np.int32(columns)),
            )

    def slope(self, delta: Array, z: Array, a: Array, phi: Activation) -> None:
        """Compute delta = dC/dz from dC/da, in place. Shapes: all (B, O)."""
        dtype = _check(delta, z, a)
        if delta.size == 0:
            return
        source, launch = self._kernel(
            (phi,), "slope", dtype, lambda: sources.slope(phi, dtype, with_bias=False)
        )
        if source.is_of_row:
            self._launch_rows(launch, (delta, z, a), *delta.shape)
        else:
            launch(grids.over_elements(delta.size), (THREADS,), (delta, z, a, np.int64(delta.size)))

    def bias_gradient(self, delta: Array, db: Array, lane: int = 0) -> None:
        """Compute db = sum of delta's rows. Shapes: delta (B, O), db (O,).

        lane: concurrent launches need different ones.
        """
        dtype = _check(delta, db)
        _, launch = self._kernel((), "db", dtype, lambda: sources.bias_gradient(dtype))
        self._launch_columns(launch, (delta,), db, lane)

    def weight_gradient(self, x: Array, delta: Array, dW: Array, db: Array, lane: int = 0) -> None:
        """Compute dW = x^T delta;  db = sum of delta's rows, in two launches: parts, their sums.

        For many rows and few units. lane: concurrent launches need different ones.
        Shapes: x (B, I), delta (B, O), dW (I, O), db (O,).
        """
        dtype = _check(x, delta, dW, db)
        rows, (n_in, n_out) = x.shape[0], dW.shape
        n, few, many = dW.size + n_out, min(n_in, n_out), max(n_in, n_out)
        if dW.size == 0:
            raise Untraceable(f"a weight gradient without weights. Received: dW.shape={dW.shape}")
        tiles = grids.tall_tiles(n_in, n_out, few <= MAX_FEW)
        chunks, rows_of_block = grids.over_tall(rows, tiles, self._multiprocessors)
        partial = self._scratch(f"weight gradient {lane}", (chunks, n), dtype.name)
        if few <= MAX_FEW:
            is_delta = n_out == few
            _, launch = self._kernel(
                (), ("thin", few, is_delta), dtype,
                lambda: sources.thin_gradient(dtype, few, is_delta),
            )  # fmt: skip
            arrays = (x, delta, partial) if is_delta else (delta, x, partial)
            sizes: tuple[int, ...] = (rows, many, rows_of_block)
        else:
            launch = self._part("weight_gradient", "tile", dtype)
            arrays, sizes = (x, delta, partial), (rows, n_in, n_out, rows_of_block)
        launch((tiles, chunks), (THREADS,), (*arrays, *map(np.int32, sizes)))
        self._part("weight_gradient", "total", dtype)(
            (-(-n // grids.TOTAL_WIDTH),), (THREADS,),
            (partial, dW, db, *map(np.int32, (chunks, dW.size, n))),
        )  # fmt: skip

    def slope_and_bias(self, delta: Array, z: Array, a: Array, phi: Activation, db: Array) -> None:
        """Compute `slope` and `bias_gradient`, in one pass for an element-wise activation."""
        dtype = _check(delta, z, a, db)
        if phi.kernel == "identity":  # the slope is 1
            self.bias_gradient(delta, db)
            return
        source, launch = self._kernel(
            (phi,), "slope, db", dtype, lambda: sources.slope(phi, dtype, with_bias=True)
        )
        if source.is_of_row:
            self.slope(delta, z, a, phi)
            self.bias_gradient(delta, db)
        else:
            self._launch_columns(launch, (delta, z, a), db)

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        """Compute the largest piece of each unit. Shapes: z (B, K * O); a and which (B, O)."""
        self._maxout("maxout", z, a, which, (z, a, which))

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        """Pass the gradient to the winning piece. Shapes: delta and which (B, O), dz (B, K * O)."""
        self._maxout("maxout_gradient", dz, delta, which, (delta, which, dz))

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
        dtype = _check(x, a)
        _check(mask, kinds=("bool",))
        _check(clock, kinds=("int64",))
        rows, columns = x.shape
        drawn = rows * philox.blocks_per_row(columns)
        if drawn >= 2**31:
            raise Untraceable(f"dropout of {rows} rows exceeds the kernel's counter")
        if drawn == 0:
            return
        words = [np.uint64(word) for word in (*key, first_row)]
        numbers = np.int32(philox.keep_threshold(rate)), dtype.type(1.0 / (1.0 - rate))
        launch = self._part("layers", "dropout", dtype)
        grid = (-(-drawn // DROPOUT_THREADS),)
        sizes = np.uint32(rows), np.int32(columns)
        launch(grid, (DROPOUT_THREADS,), (x, a, mask, clock, *words, *numbers, *sizes))

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        """Compute dx = da * mask / (1 - rate). Shapes: all (B, O)."""
        dtype = _check(da, dx)
        _check(mask, kinds=("bool",))
        self._over_elements(
            self._part("layers", "dropout_gradient", dtype),
            (da, mask, dtype.type(1.0 / (1.0 - rate)), dx), da.size,
        )  # fmt: skip

    # ---- losses and scores ------------------------------------------------------------------

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        """Compute delta = d(mean loss)/d(out), and add to totals, as `Backend.loss_and_delta`."""
        dtype, target = _check(out, delta), _target(out, y)
        _check(totals, kinds=SUMS)
        rows, columns = out.shape
        if out.size == 0:
            return
        key = ("loss", target, weight is not None)
        _, launch = self._kernel(
            (loss,), key, dtype, lambda: sources.loss(loss, dtype, target, weight is not None)
        )
        weights: tuple[Any, ...] = ()
        if weight is not None:
            _check(out, weight)
            weights = (weight, *self._weight_total(weight, rows))
        self._launch_sums(launch, (out, y, *weights, delta, totals), rows, columns)

    def add_score(
        self, score: Score, out: Array, y: Array, weight: Array | None, totals: Array
    ) -> None:
        """Compute totals[SCORE] += sum of weight * score."""
        dtype, target = _check(out), _target(out, y)
        _check(totals, kinds=SUMS)
        rows, columns = out.shape
        if out.size == 0:
            return
        key = ("score", target, weight is not None)
        _, launch = self._kernel(
            (score,), key, dtype, lambda: sources.score(score, dtype, target, weight is not None)
        )
        weights = () if weight is None else (weight,)
        _check(out, *weights)
        self._launch_sums(launch, (out, y, *weights, totals), rows, columns)

    def output_layer(
        self, loss: Loss, phi: Activation, below: Activation | None,
        arrays: tuple[Array, Array, Array, Array, Array, Array], y: Array, z_below: Array,
        dx: Array, totals: Array,
    ) -> None:  # fmt: skip
        """Compute an output layer, its loss and the backward pass to the layer below.

        All in one launch:

            z = x W + b;  a = phi(z);  delta = phi'(z) dloss/da;  dx = delta W^T phi_below'(z_below)

        Shapes: arrays x (B, I), W (I, O), b (O,), z and a and delta (B, O); z_below and dx (B, I).
        """
        dtype, target = _check(*arrays, z_below, dx), _target(arrays[4], y)
        _check(totals, kinds=SUMS)
        rows, (n_in, n_out) = arrays[0].shape[0], arrays[1].shape
        if not 0 < n_out <= MAX_OUTPUTS or n_in * rows == 0:
            raise Untraceable(f"an output layer of {n_out} units, at most {MAX_OUTPUTS}")
        warps, blocks = grids.over_outputs(rows)
        _, launch = self._kernel(
            (loss, phi, below), ("output", target, n_out, warps), dtype,
            lambda: sources.output(phi, loss, below, dtype, target, n_out, warps),
        )  # fmt: skip
        arguments = (*arrays, y, z_below, dx, totals, *self._sums())
        sizes = np.int32(rows), np.int32(n_in)
        launch((blocks,), (32 * OUTPUT_WARPS,), (*arguments, *sizes))

    # ---- gradient and update ----------------------------------------------------------------

    def add_penalty(
        self, weights: Array, gradient: Array, l1: float, l2: float, rows: int, totals: Array
    ) -> None:
        """Compute gradient += l2 w + l1 sign(w), and add the penalty for `rows` rows to totals."""
        dtype, n = _check(weights, gradient), weights.size
        _check(totals, kinds=SUMS)
        numbers = dtype.type(l1), dtype.type(l2), np.float64(rows)
        self._over_elements(
            self._part("vectors", "penalty", dtype),
            (weights, gradient, *numbers, totals, *self._sums()), n,
        )  # fmt: skip

    def clip_norm(self, gradient: Array, max_norm: float) -> None:
        """Clip the gradient to the norm `max_norm`, in two launches. Shapes: (P,)."""
        dtype, n = _check(gradient), gradient.size
        factor = self._scratch("factor", (1,), dtype.name)
        self._over_elements(
            self._part("vectors", "norm", dtype),
            (gradient, dtype.type(max_norm), factor, *self._sums()), n,
        )  # fmt: skip
        self._over_elements(self._part("vectors", "scale", dtype), (gradient, factor), n)

    def optimizer_step(
        self,
        rule: UpdateRule,
        theta: Array,
        gradient: Array,
        state: Sequence[Array],
        hyper: Array,
        weight_decay: float,
        n_weights: int,
    ) -> None:
        """Apply an update rule with weight decay, in one launch. Shapes: (P,), hyper (3,)."""
        dtype = _check(theta, gradient, *state)
        _check(hyper, kinds=SUMS)
        n = theta.size
        _, launch = self._kernel(
            (rule,), len(state), dtype, lambda: sources.update(rule, dtype, len(state))
        )
        numbers = np.float64(weight_decay), np.int64(n_weights)
        self._over_elements(launch, (theta, gradient, *state, hyper, *numbers), n)

    def max_norm(self, W: Array, limit: float) -> None:
        """Clip the norm of each column of W (I, O) to `limit`."""
        dtype = _check(W)
        rows, columns = W.shape
        width = min(8, grids.power_of_two(columns))
        if W.size:
            self._part("vectors", "max_norm", dtype)(
                (-(-columns // width),), (THREADS,),
                (W, dtype.type(limit), np.int32(rows), np.int32(columns), np.int32(width)),
            )  # fmt: skip

    def average(self, theta: Array, ema_weights: Array, decay: float, hyper: Array) -> None:
        """Compute ema_weights = d ema_weights + (1 - d) theta. Shapes: (P,), hyper (3,)."""
        dtype = _check(theta, ema_weights)
        _check(hyper, kinds=SUMS)
        self._over_elements(
            self._part("vectors", "average", dtype),
            (theta, ema_weights, np.float64(decay), hyper), theta.size,
        )  # fmt: skip

    # ---- batches ----------------------------------------------------------------------------

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        """Count a step, and read its learning rate and momentum."""
        _check(clock, kinds=("int64",))
        _check(rates, hyper, kinds=SUMS)
        _, launch = self._kernel((), "tick", np.dtype(np.float64), sources.tick)
        launch((1,), (32,), (clock, rates, hyper, np.int64(rates.shape[1])))

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        """Compute out[i] = data[order[batch * batch_size + i]], in out's dtype.

        Shapes: data (n, ...) of any real dtype, its rows contiguous; out (B, ...) contiguous.
        """
        _check(out, kinds=sources.C_NAMES)
        _check(order, clock, kinds=("int64",))
        if out.size == 0:
            return
        columns, names = out.size // out.shape[0], (data.dtype.name, out.dtype.name)
        stride = _row_stride(data)
        _, launch = self._kernel((), ("gather", *names), out.dtype, lambda: sources.gather(*names))
        numbers = np.int64(batch_size), np.int64(stride), np.int64(out.size), np.int32(columns)
        launch(grids.over_elements(out.size), (THREADS,), (data, order, clock, out, *numbers))

    def begin_step(
        self, clock: Array, rates: Array, hyper: Array, order: Array, batch_size: int,
        gathers: Sequence[tuple[Array, Array]],
    ) -> None:  # fmt: skip
        """Run `tick`, then `gather_rows` for each (data, out), in one launch."""
        _check(clock, order, kinds=("int64",))
        _check(rates, hyper, kinds=SUMS)
        arguments: list[Any] = []
        n_blocks = 0
        for data, out in gathers:
            _check(out, kinds=sources.C_NAMES)
            blocks = grids.over_gathered(out.size)
            numbers = np.int64(_row_stride(data)), np.int64(out.size)
            columns = np.int32(out.size // out.shape[0])
            arguments += [data, out, *numbers, columns, np.int32(blocks)]
            n_blocks += blocks
        names = tuple((data.dtype.name, out.dtype.name) for data, out in gathers)
        _, launch = self._kernel(
            (), ("begin", *names), np.dtype(np.float64), lambda: sources.begin(names)
        )
        counter = self._scratch("begin", (1,), "uint32")
        sizes = np.int64(batch_size), np.int64(rates.shape[1])
        launch((n_blocks,), (THREADS,), (*arguments, order, clock, rates, hyper, counter, *sizes))

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        """Compute out = (rows - shift) * factor in float64, clipped smoothly.

        Shapes: rows (B, I) of any real dtype, each row contiguous; shift, factor (I,) float64; out
        (B, I) contiguous.
        """
        _check(out)
        _check(shift, factor, kinds=SUMS)
        if out.size == 0:
            return
        names, stride = (rows.dtype.name, out.dtype.name), _row_stride(rows)
        _, launch = self._kernel((), ("scale", *names), out.dtype, lambda: sources.scale(*names))
        numbers = np.int64(stride), np.int64(out.size), np.int32(out.shape[1])
        launch(
            grids.over_elements(out.size), (THREADS,),
            (rows, shift, factor, np.float64(clip or 0.0), out, *numbers),
        )  # fmt: skip

    # ---- helpers of the launches ------------------------------------------------------------

    def _kernel(
        self, formulas: Sequence[Any], role: Any, dtype: np.dtype[Any], make: Callable[[], Source]
    ) -> tuple[Source, Launch]:
        """Return a kernel, traced and compiled at its first use."""
        return self._cache.kernel(formulas, role, dtype, make)

    def _part(self, file: str, part: str, dtype: np.dtype[Any]) -> Launch:
        """Return one kernel of a file that defines several."""
        key = (file, part, dtype.char)
        if key not in self._parts:
            self._parts[key] = self._cache.part(getattr(sources, file)(dtype), part)
        return self._parts[key]

    def _scratch(self, role: str, shape: tuple[int, ...], dtype: str) -> Array:
        """Return a scratch array: zeros at first, then as the last launch left it.

        A role has one array for all shapes, which may be larger than requested.
        """
        n, arrays = math.prod(shape), self._local.arrays
        array = arrays.get((role, dtype))
        if array is None or array.size < n:
            array = arrays[role, dtype] = self._zeros((n,), dtype)
        return array

    def _sums(self) -> tuple[Array, Array]:
        """Return an array for the partial sums of blocks, and the counter of blocks."""
        return (
            self._scratch("sums", (grids.MAX_BLOCKS,), "float64"),
            self._scratch("counter", (1,), "uint32"),
        )

    def _over_elements(self, launch: Launch, arguments: tuple[Any, ...], n: int) -> None:
        if n:
            launch(grids.over_elements(n), (THREADS,), (*arguments, np.int64(n)))

    def _launch_rows(
        self, launch: Launch, arguments: tuple[Any, ...], rows: int, columns: int
    ) -> None:
        grid, lanes = grids.over_rows(rows, columns)
        launch(grid, (ROW_THREADS,), (*arguments, *map(np.int32, (rows, columns, lanes))))

    def _launch_sums(
        self, launch: Launch, arguments: tuple[Any, ...], rows: int, columns: int
    ) -> None:
        (n_blocks,), lanes = grids.over_rows(rows, columns)
        grid, sizes = (min(n_blocks, grids.MAX_BLOCKS),), map(np.int32, (rows, columns, lanes))
        launch(grid, (ROW_THREADS,), (*arguments, *self._sums(), *sizes))

    def _launch_columns(
        self, launch: Launch, arguments: tuple[Any, ...], db: Array, lane: int = 0
    ) -> None:
        rows, columns = arguments[0].shape
        if columns == 0:
            return
        width, tiles, chunks, rows_of_block = grids.over_columns(rows, columns)
        partial = self._scratch(f"columns {lane}", (chunks, columns), db.dtype.name)
        counters = self._scratch(f"counters {lane}", (tiles,), "uint32")
        sizes = map(np.int32, (rows, columns, width, rows_of_block))
        launch((tiles, chunks), (THREADS,), (*arguments, db, partial, counters, *sizes))

    def _maxout(
        self, part: str, pieces: Array, units: Array, which: Array, arguments: tuple[Any, ...]
    ) -> None:
        dtype = _check(pieces, units)
        _check(which, kinds=("int32",))
        if units.size:
            columns = units.shape[1]
            sizes = np.int64(units.size), np.int32(columns), np.int32(pieces.shape[1] // columns)
            launch = self._part("layers", part, dtype)
            launch(grids.over_elements(units.size), (THREADS,), (*arguments, *sizes))

    def _weight_total(self, weight: Array, rows: int) -> tuple[Array, np.int32]:
        """Return an array for the sum of weights, and 1 if it is filled, 0 if blocks must sum."""
        total = self._scratch("weight total", (1,), "float64")
        if rows > MANY_ROWS:
            self._over_elements(
                self._part("vectors", "total", weight.dtype), (weight, total, *self._sums()), rows
            )
        return total, np.int32(rows > MANY_ROWS)


# ---- checks -------------------------------------------------------------------------------------


def _check(*arrays: Array, kinds: Any = ("float32", "float64")) -> np.dtype[Any]:
    """Return the common dtype of contiguous arrays. Raise Untraceable for others."""
    dtype: np.dtype[Any] = arrays[0].dtype
    for array in arrays:
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise Untraceable(
                f"the kernels need contiguous arrays of one dtype. Received: {array.dtype} with "
                f"strides {array.strides} for shape {array.shape} beside {dtype}"
            )
    if dtype.name not in kinds:
        raise Untraceable(f"the kernels need {', '.join(kinds)} here. Received: {dtype}")
    return dtype


def _target(out: Array, y: Array) -> str:
    """Return the dtype name of the targets: that of out for (B, O), an integer for labels (B,)."""
    if y.ndim == 2:
        _check(out, y)
    else:
        _check(y, kinds=LABELS)
    return str(y.dtype.name)


def _row_stride(data: Array) -> int:
    """Return the stride of rows in elements. Raise Untraceable if a row is not contiguous."""
    itemsize, below = data.dtype.itemsize, data.dtype.itemsize
    for n, step in zip(data.shape[:0:-1], data.strides[:0:-1], strict=True):
        if n > 1 and step != below:
            raise Untraceable(f"rows with strides {data.strides} are not contiguous")
        below *= n
    if data.dtype.name not in sources.C_NAMES or data.strides[0] % itemsize:
        raise Untraceable(f"no kernel reads rows of {data.dtype}, strides {data.strides}")
    return int(data.strides[0] // itemsize)
