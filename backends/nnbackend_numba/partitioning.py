"""Partition a step among the workers: by rows of the batch, or by inputs of the layers.

- By rows: a worker propagates its rows forward and backward through all layers. It reads all
  weights, and the rows of all workers for the gradient of its part of the weights.
- By inputs: a worker owns some rows of W, which no other worker reads or updates, and reads its
  columns of x. The workers exchange partial sums of z, and delta.

Reading what another core wrote is slow (about 25 ns per cache line, measured on two cores of a
server). So the first layers are partitioned by inputs, as many as minimize the numbers exchanged,
and the rest by rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnbackend.backend.formulas import Array
from nnbackend_numba.recorder import Call
from nnbackend_numba.tiles import lanes

MIN_INPUTS_PER_WORKER = 32  # of a layer that is partitioned by inputs
BARRIER_COST = 400  # numbers that workers could exchange in the time of two barriers
MULTIPLICATIONS = 90  # of a worker in the time in which it exchanges one number


@dataclass(frozen=True)
class Partitioning:
    """The weights of the layers that are partitioned by inputs, in order.

    x: the input of the first layer, of which each worker gathers only its columns.
    raw: x before scaling, if that is another array.
    """

    weights: tuple[Array, ...] = ()
    x: Array = None
    raw: Array = None

    def is_x(self, array: Array) -> bool:
        """Return True if an array holds the inputs of the first layer, raw or scaled."""
        return array is not None and (array is self.x or array is self.raw)

    def is_by_inputs(self, W: Array) -> bool:
        """Return True if the layer with weights W is partitioned by inputs."""
        return any(W is other for other in self.weights)

    def is_next_by_inputs(self, W: Array) -> bool:
        """Return True if the layer above is partitioned by inputs too."""
        return any(W is other for other in self.weights[:-1])


def choose_partitioning(calls: Sequence[Call], workers: int) -> Partitioning:
    """Choose how many of the first layers to partition by inputs."""
    layers = [call.arguments for call in calls if call.kernel == "dense_forward"]
    is_in_shards = len({id(layer["W"]) for layer in layers}) < len(layers)
    if workers == 1 or not layers or is_in_shards:
        return Partitioning()
    x = layers[0]["x"]
    raw = next(
        (
            c.arguments["rows"]
            for c in calls
            if c.arguments.get("out") is x and "rows" in c.arguments
        ),
        x,
    )
    is_gathered = any(c.kernel == "gather_rows" and c.arguments["out"] is raw for c in calls)
    is_computed = any(c.arguments.get("a") is x for c in calls)
    costs = [_cost(layers, 0, is_gathered, workers)]
    for k in range(1, _consecutive_dense_layers(calls) + 1):
        if layers[k - 1]["x"].shape[1] < MIN_INPUTS_PER_WORKER * workers:
            break
        costs.append(_cost(layers, k, False, workers) + (x.size if is_computed else 0))
    chosen = costs.index(min(costs))
    weights = tuple(layer["W"] for layer in layers[:chosen])
    return Partitioning(weights, x, raw) if chosen else Partitioning()


def _consecutive_dense_layers(calls: Sequence[Call]) -> int:
    """Count the first dense layers that follow each other directly."""
    count, x = 0, None
    for call in calls:
        if call.kernel == "dense_forward" and (count == 0 or call.arguments["x"] is x):
            count, x = count + 1, call.arguments["a"]
        elif count:
            break
    return count


def _cost(layers: Sequence[dict[str, Any]], k: int, is_first_by_rows: bool, workers: int) -> float:
    """Estimate the cost of a step with the first k layers partitioned by inputs.

    That is how many numbers workers exchange, or could exchange while one waits for another.
    """
    total = 0.0
    for place, layer in enumerate(layers):
        (B, n_in), n_out = layer["x"].shape, layer["W"].shape[1]
        if place < k:
            # Partial sums of z, and delta; each worker writes a full z, and the sums are added.
            # With this factor the choice was right at 784-512-512-10 b1024, where partitioning by
            # rows is 7 % faster.
            total += 4 * B * n_out + BARRIER_COST
        else:
            total += n_in * n_out + B * n_out
            if place or is_first_by_rows:
                total += B * n_in
            products = 3 * B * n_in * n_out / MULTIPLICATIONS
            total += products * _excess(B, lanes(layer["W"].dtype.name), workers)
    return total


def _excess(rows: int, width: int, workers: int) -> float:
    """Return the share of the rows that a worker has above the average: whole panels.

    >>> _excess(128, 16, 2), _excess(16, 16, 2)
    (0.0, 0.5)
    """
    panels = -(-rows // width)
    return -(-panels // workers) / panels - 1 / workers
