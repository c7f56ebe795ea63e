"""One network from several: networks of one architecture, side by side, with a common output.

The packed network needs no more than a network does: it is saved, exported, explained and moved to
a device in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network


def pack(members: Sequence[Network], loss: str | Loss | None = None) -> Network:
    """Return the network whose last pre-activation is the mean of the members'.

    z^L = 1/K sum_k z_k^L;  its hidden layers are the members' side by side, without dropout.
    A regression's outputs are so the mean of the members' outputs, probabilities of a softmax their
    normalised geometric mean.
    loss: by default the members'.
    Raises: ArgumentError for members of different architectures.
    """
    first = members[0]
    hidden = [layer for layer in first.layers[:-1] if not isinstance(layer, Dropout)]
    shapes = {tuple(map(repr, net.layers)) for net in members}
    if len(shapes) != 1 or not all(isinstance(la, (Dense, Maxout)) for la in hidden):
        raise ArgumentError(
            "The members must have equal layers, Dense or Maxout. Received: "
            f"{len(shapes)} architectures, such as {first!r}."
        )
    n = len(members)
    layers: list[int | AbstractLayer] = [first.n_in]
    for layer in hidden:
        wide: Any = layer
        layers.append(replace(wide, n_out=n * wide.n_out))
    layers.append(first.layers[-1])
    parameters = [net.get_parameters() for net in members]
    weights, biases = [], []
    for i, layer in enumerate(hidden):
        pieces = layer.n_pieces if isinstance(layer, Maxout) else 1
        weights.append(_side_by_side([W[i] for W, _ in parameters], pieces, is_first=i == 0))
        biases.append(_joined([b[i] for _, b in parameters], pieces))
    weights.append(np.concatenate([W[-1] for W, _ in parameters]) / n)
    biases.append(np.mean([b[-1] for _, b in parameters], axis=0))
    if not hidden:
        weights[-1] = np.mean([W[-1] for W, _ in parameters], axis=0)
    net = Network(
        layers, loss or first.loss, device=first.backend, dtype=first.dtype, seed=first.seed
    )
    net.set_parameters(weights, biases)
    return net


def _joined(parts: Sequence[np.ndarray], pieces: int) -> np.ndarray:
    """Return vectors over (piece, unit) as one, with all units of a piece in a row."""
    return np.concatenate([part.reshape(pieces, -1) for part in parts], axis=1).ravel()


def _side_by_side(parts: Sequence[np.ndarray], pieces: int, is_first: bool) -> np.ndarray:
    """Return weights (I, P * O) as (I, P * n * O) of common inputs, else as (n * I, P * n * O)."""
    n_in, n_out = parts[0].shape[0], parts[0].shape[1] // pieces
    rows = n_in if is_first else n_in * len(parts)
    wide = np.zeros((rows, pieces, len(parts), n_out), parts[0].dtype)
    for k, W in enumerate(parts):
        first = 0 if is_first else k * n_in
        wide[first : first + n_in, :, k] = W.reshape(n_in, pieces, n_out)
    return wide.reshape(rows, -1)
