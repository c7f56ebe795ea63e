"""Passes over a data set: outputs and scores of many rows, in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.base import LOSS, SCORE, WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.backend.ranks import Exchange
from nnbackend.data.file_rows import selected
from nnbackend.data.row_scaler import RowScaler
from nnbackend.network.evaluation.scores import SQUARED_ERROR, Score
from nnbackend.network.evaluation.sums import Sums
from nnbackend.network.losses import Loss
from nnbackend.network.workspace import Workspace

FEW_ROWS = 16  # up to here allocating a workspace takes longer than the pass: reuse it
ROWS_AT_ONCE = 4096  # rows of a part, at most


@dataclass
class RowPasses:
    """Passes over many rows x (n, I), on the device or the host.

    new_workspace: returns the workspace of a pass over rows (B, I) on the device.
    scaler: scales raw rows, if given.
    spare: by their number of rows, workspaces that passes over few rows reuse, each with its array
    for x. None: not for reuse.
    """

    backend: Backend
    dtype: str
    new_workspace: Callable[[Array], Workspace]
    scaler: RowScaler | None = None
    spare: dict[int, tuple[Workspace, Array]] | None = None

    def run(self, x: Array, use: Callable[[int, Workspace], None]) -> None:
        """Call use(first row, workspace) for all rows, in parts that fit in the device's memory.

        Infinite outputs for finite rows show in the results; NumPy's warnings would repeat that.
        Raises: MemoryError when a single row does not fit.
        """
        n, done, size = int(x.shape[0]), 0, ROWS_AT_ONCE

        def proceed() -> None:
            nonlocal done
            offset = done
            for start, space in self._parts(x[offset:, ...] if offset else x, size):
                use(offset + start, space)
                done = offset + start + space.rows

        while done < n:
            try:
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    proceed()
                continue
            except MemoryError:
                size = min(size, n - done)
                if size == 1:
                    raise
            # Outside of the handler: the error's frames, which reference the arrays, are freed.
            if self.spare is not None:
                self.spare.clear()
            self.backend.release_memory()
            size = -(-size // 2)

    def _parts(self, x: Array, size: int) -> Iterator[tuple[int, Workspace]]:
        """Yield each part's first row and a workspace that contains the part's scaled rows."""
        n = int(x.shape[0])
        size, space, buffer = min(n, size), None, None
        for start in range(0, n, size):
            rows = min(size, n - start)
            if space is None or space.rows != rows:
                space = buffer = None  # frees its memory before the next allocation
                buffer = self.backend.empty((rows, int(x.shape[1])), self.dtype)
                space = self.new_workspace(buffer)
            self._load(x[start : start + rows, ...], space, buffer)
            yield start, space
        if space is not None and self.spare is not None and n <= FEW_ROWS:
            space.read(buffer)  # drops the reference to the caller's rows
            self.spare[n] = space, buffer

    def reused(self, x: Array) -> np.ndarray | None:
        """Return the outputs of as few rows as in an earlier pass; None if there is none."""
        spare, n = self.spare, int(x.shape[0])
        # Removed from the cache until the pass ends, so that threads never share a workspace.
        if spare is None or (found := spare.pop(n, None)) is None:
            return None
        space, buffer = found
        with suppress(MemoryError), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._load(x[:n, ...], space, buffer)  # sparse rows become an array
            out = self.backend.to_host(space.forward())
            space.read(buffer)  # drops the reference to the caller's rows
            spare[n] = found
            return out
        return None

    def _load(self, part: Array, space: Workspace, buffer: Array) -> None:
        """Set rows as the input of a workspace: in place, or scaled or converted in `buffer`."""
        backend, scaler = self.backend, self.scaler
        is_on_host = not backend.owns(part)
        if is_on_host and scaler is not None and scaler.on_host:
            backend.to_device(scaler.scaled(part), out=buffer)
        elif scaler is not None:
            part = backend.to_device(np.ascontiguousarray(part)) if is_on_host else part
            scaler.scale(part, buffer)
        elif is_on_host:
            backend.to_device(np.ascontiguousarray(part, self.dtype), out=buffer)
        elif _can_be_read_in_place(part, self.dtype):
            space.read(part)
        else:
            backend.copy(backend.cast(part, self.dtype), buffer)


def all_outputs(passes: RowPasses, x: Array, n_out: int) -> np.ndarray:
    """Return the outputs of all rows on the host: (n, n_out)."""
    if (few := passes.reused(x)) is not None:
        return few
    result = np.empty((int(x.shape[0]), n_out), passes.dtype)

    def store(start: int, space: Workspace) -> None:
        result[start : start + space.rows] = passes.backend.to_host(space.forward())

    passes.run(x, store)
    return result


def mean_scores(
    passes: RowPasses,
    x: Array,
    y: np.ndarray,
    weight: np.ndarray | None,
    *,
    loss: Loss,
    score: Score,
    activate: Callable[[Array], Array],
    ranks: Exchange | None = None,
) -> dict[str, float]:
    """Return the mean "loss" and the mean score of all rows.

    activate: returns the output activations, where the last layer of a pass returns z.
    ranks: share the rows.

    Shapes: x (n, I); y (n,) labels or (n, O); weight (n,).
    """

    def add(out: Array, target: Array, w: Array | None, delta: Array, totals: Array) -> None:
        passes.backend.add_score(score, activate(out), target, w, totals)
        passes.backend.loss_and_delta(loss, out, target, w, delta, totals)

    if ranks is None:
        sums = _sums(passes, x, y, weight, add)
    else:
        found = []
        for rows in ranks.parts(len(y)):
            w = None if weight is None else weight[rows]
            found.append(_sums(passes, selected(x, rows), y[rows], w, add))
        sums = ranks.total(found)
    value = float(sums[SCORE] / sums[WEIGHT])
    if score is SQUARED_ERROR:
        value = _r2(value, y, weight)
    return {"loss": float(sums[LOSS] / sums[WEIGHT]), score.name: value}


def _sums(
    passes: RowPasses,
    x: Array,
    y: np.ndarray,
    weight: np.ndarray | None,
    add: Callable[[Array, Array, Array | None, Array, Array], None],
) -> np.ndarray:
    """Return the sums (SLOTS,) over all rows.

    add: adds those of some rows, from their outputs, targets and weights; it may use the next
    array, of the form of the outputs.
    """
    backend, running = passes.backend, Sums(passes.backend)
    totals, before = running.totals, backend.zeros((4,), backend.sum_dtype)
    unused: Array | None = None

    def use(start: int, space: Workspace) -> None:
        nonlocal unused
        part = slice(start, start + space.rows)
        backend.copy(totals, before)
        try:
            target = backend.to_device(y[part])
            w = None if weight is None else backend.to_device(weight[part])
            out = space.forward()
            if unused is None or unused.shape != out.shape:
                unused = None  # frees its memory before the next allocation
                unused = backend.empty(tuple(out.shape), passes.dtype)
            add(out, target, w, unused, totals)
        except MemoryError:  # `run` repeats these rows in smaller parts
            unused = None
            backend.copy(before, totals)
            raise
        running.flush()

    passes.run(x, use)
    return running.read()


def _can_be_read_in_place(part: Array, dtype: str) -> bool:
    """Return True if rows are a C-contiguous host array in the network's dtype."""
    return isinstance(part, np.ndarray) and part.dtype == dtype and part.flags.c_contiguous


def _r2(mean_square: float, y: np.ndarray, weight: np.ndarray | None) -> float:
    """Return 1 - sum of squares / variance; for constant targets 1 or 0, as in scikit-learn."""
    values = y.astype(np.float64)
    variance = float(
        (
            np.average(
                (values - np.average(values, axis=0, weights=weight)) ** 2, axis=0, weights=weight
            )
        ).sum()
    )
    if variance == 0.0:
        return 1.0 if mean_square == 0.0 else 0.0
    return 1.0 - mean_square / variance
