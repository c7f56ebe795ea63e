"""How the workers share out a step: by rows of the batch, or by inputs of the layers.

By rows, a worker feeds its rows through all layers and back; but it reads all of the weights,
which others have changed, and for the gradient of its part of them the rows of the others. By
inputs, a worker owns some rows of W: it alone reads, differentiates and changes them, and takes
its columns of x; what the workers exchange are their parts of z, and delta. What one processor
reads after another wrote it is slow (about 25 ns for a line of the cache, measured on two cores of
a server), so the first layers, as many as make the exchange smallest, are shared by inputs, and
the rest by rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnbackend.backend.formulas import Array
from nnbackend_numba.recorder import Call

FEWEST = 32  # inputs for each worker of a layer that is shared by inputs
BARRIER_COST = 400  # numbers that could be exchanged in the time of two meetings


@dataclass(frozen=True)
class Partitioning:
    """The weights of the layers that are shared by inputs, in their order.

    x: what the first of them takes; a worker gathers only its columns. raw: x before it is scaled,
    where that is another array.
    """

    weights: tuple[Array, ...] = ()
    x: Array = None
    raw: Array = None

    def is_x(self, array: Array) -> bool:
        """Whether an array holds the inputs of the first layer, raw or scaled."""
        return array is not None and (array is self.x or array is self.raw)

    def is_by_inputs(self, W: Array) -> bool:
        """Whether a layer is shared by inputs."""
        return any(W is other for other in self.weights)

    def is_next_by_inputs(self, W: Array) -> bool:
        """Whether the layer above is shared by inputs too."""
        return any(W is other for other in self.weights[:-1])


def choose_partitioning(calls: Sequence[Call], workers: int) -> Partitioning:
    """Choose how many of the first layers are shared by inputs."""
    layers = [call.given for call in calls if call.kernel == "dense_forward"]
    if workers == 1 or not layers:
        return Partitioning()
    x = layers[0]["x"]
    raw = next((c.given["rows"] for c in calls if c.given.get("out") is x and "rows" in c.given), x)
    is_gathered = any(c.kernel == "gather_rows" and c.given["out"] is raw for c in calls)
    is_made = any(c.given.get("a") is x for c in calls)
    costs = [_exchange(layers, 0, is_gathered)]
    for k in range(1, _in_a_row(calls) + 1):
        if layers[k - 1]["x"].shape[1] < FEWEST * workers:
            break
        costs.append(_exchange(layers, k, False) + (x.size if is_made else 0))
    chosen = costs.index(min(costs))
    weights = tuple(layer["W"] for layer in layers[:chosen])
    return Partitioning(weights, x, raw) if chosen else Partitioning()


def _in_a_row(calls: Sequence[Call]) -> int:
    """Count the dense layers that feed each other directly, from the first on."""
    count, x = 0, None
    for call in calls:
        if call.kernel == "dense_forward" and (count == 0 or call.given["x"] is x):
            count, x = count + 1, call.given["a"]
        elif count:
            break
    return count


def _exchange(layers: Sequence[dict[str, Any]], k: int, is_first_by_rows: bool) -> float:
    """Return about how many numbers workers exchange when the first k layers are shared by inputs."""
    total = 0.0
    for place, layer in enumerate(layers):
        (B, n_in), n_out = layer["x"].shape, layer["W"].shape[1]
        if place < k:
            # Parts of z and delta; and each worker writes all of z, which is then added up. With
            # this the choice was right at 784-512-512-10 b1024, where rows are faster by 7 %.
            total += 4 * B * n_out + BARRIER_COST
        else:
            total += n_in * n_out + B * n_out
            if place or is_first_by_rows:
                total += B * n_in
    return total
