"""The arrays of one batch, and the two passes over them: feed-forward and backpropagation.

A workspace allocates all memory of a pass once per batch size. So a training step allocates
nothing, and several passes through one network can run at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.network.layers import AbstractLayer, Dropout, LayerBuffers
from nnbackend.network.parameters import Layout


@dataclass(frozen=True)
class DropoutSource:
    """The address of dropout's random bits: a seed, the clock that counts steps, a row."""

    seed: int
    clock: Array  # (2,) int64 on the device
    first_row: int = 0


class Workspace:
    """The arrays of a forward and backward pass over rows x (B, I).

    Without `grad` it supports feed-forward only. Without `dropout` it omits the dropout layers.
    keep_z: allocate separate arrays for z and a even where one array suffices.
    """

    def __init__(
        self,
        backend: Backend,
        layers: Sequence[AbstractLayer],
        layout: Layout,
        x: Array,
        theta: Array,
        *,
        grad: Array | None = None,
        dropout: DropoutSource | None = None,
        keep_z: bool = False,
    ) -> None:
        self.backend, self.x, self.rows = backend, x, int(x.shape[0])
        dtype, n_in = backend.dtype_name(theta), int(x.shape[1])
        self.chain: list[tuple[AbstractLayer, LayerBuffers]] = []
        self.trainable: list[LayerBuffers] = []  # the buffers of the trainable layers
        parameters = iter(layout.views(theta, backend.xp))
        gradients = iter(layout.views(grad, backend.xp) if grad is not None else [])
        for index, layer in enumerate(layers):
            shapes = layer.parameter_shapes(n_in)
            if isinstance(layer, Dropout) and dropout is None:
                continue
            buffers = layer.make_buffers(backend, dtype, self.rows, n_in, keep_z)
            n_in = layer.n_outputs(n_in)
            if grad is not None:
                buffers.delta = backend.empty((self.rows, n_in), dtype)
            if shapes is not None:
                buffers.W, buffers.b = next(parameters)
                if grad is not None:
                    buffers.dW, buffers.db = next(gradients)
                self.trainable.append(buffers)
            elif dropout is not None:
                buffers.key = (dropout.seed, index)
                buffers.clock, buffers.first_row = dropout.clock, dropout.first_row
            self.chain.append((layer, buffers))
        self.out = self.chain[-1][1]
        self._inputs = [x] + [buffers.a for _, buffers in self.chain[:-1]]
        self._gradients_below = [self._gradient_below(i) for i in range(len(self.chain))]

    def read(self, x: Array) -> None:
        """Set other rows as the input, of the same shape."""
        self.x = self._inputs[0] = x

    def forward(self) -> Array:
        """Feed x forward; return the output activations (B, O), an array of this workspace."""
        for (layer, buffers), x in zip(self.chain, self._inputs, strict=True):
            layer.forward(self.backend, x, buffers)
        return self.out.a

    def backward(self) -> None:
        """Propagate back from dC/da of the output, which is in `self.out.delta`."""
        for i in range(len(self.chain) - 1, -1, -1):
            layer, buffers = self.chain[i]
            layer.backward(self.backend, self._inputs[i], buffers, self._gradients_below[i])

    def _gradient_below(self, i: int) -> Array | None:
        """Return the array for layer i's dC/dx, or None if no layer below is trainable."""
        has_trainable = any(buffers.W is not None for _, buffers in self.chain[:i])
        return self.chain[i - 1][1].delta if has_trainable else None
