"""One flat vector for all parameters, and the layers' views of it.

All weights come first, then all biases: a penalty or decay of the weights uses one slice, and an
optimizer is one pass over one vector. Gradients and an optimizer's moments have the same layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnbackend.backend.formulas import Array, Namespace

ParameterShapes = tuple[tuple[int, int], int]


class Layout:
    """The positions of each layer's W and b in the flat vector.

    size: P, the number of parameters.  n_weights: the number of weights.
    """

    def __init__(self, shapes: Sequence[ParameterShapes]) -> None:
        self.shapes = tuple(shapes)
        self.n_weights = sum(math.prod(W) for W, _ in shapes)
        self.size = self.n_weights + sum(b for _, b in shapes)

    def largest_product(self, rows: int) -> int:
        """Return the number of multiplications of the largest matrix product of a batch."""
        return rows * max(math.prod(W) for W, _ in self.shapes)

    def views(self, vector: Array, xp: Namespace) -> list[tuple[Array, Array]]:
        """Return (W, b) of each layer as views of a vector (P,)."""
        pairs, w, b = [], 0, self.n_weights
        for W_shape, n_biases in self.shapes:
            n = math.prod(W_shape)
            pairs.append((xp.reshape(vector[w : w + n], W_shape), vector[b : b + n_biases]))
            w, b = w + n, b + n_biases
        return pairs
