"""Conversion of a list such as [784, 100, 10] into layers."""

from __future__ import annotations

from collections.abc import Sequence

from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.network.activations import Activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout
from nnbackend.network.losses import OUTPUT_ACTIVATIONS, Loss, get_loss
from nnbackend.validation import check_size


def build_layers(
    layers: Sequence[int | AbstractLayer], loss: Loss | None, activation: str | Activation
) -> tuple[int, tuple[AbstractLayer, ...]]:
    """Return n_in and the layers; a number becomes a Dense layer."""
    items = list(layers) if isinstance(layers, (list, tuple)) else []
    if len(items) < 2:
        expected = "a list of n_in and at least one layer, as [784, 100, 10]"
        raise ArgumentError(Fault("layers", expected, layers))
    output = OUTPUT_ACTIVATIONS.get(loss.name, "identity") if loss else "identity"
    built: list[AbstractLayer] = []
    for place, item in enumerate(items[1:], start=1):
        if not isinstance(item, AbstractLayer):
            is_last = place == len(items) - 1
            item = Dense(check_size("n_out", item), output if is_last else activation)
        built.append(item)
    if isinstance(built[-1], Dropout):
        raise ArgumentError(
            "the last layer must compute the output. Received: a Dropout at the end. "
            "Put it before the last Dense."
        )
    if any(isinstance(la, Dense) and la.activation.name == "softmax" for la in built[:-1]):
        raise ArgumentError("softmax must be on the last layer. Received: on a hidden layer.")
    last = built[-1]
    if isinstance(last, Dense) and last.n_out == 1 and last.activation.name == "softmax":
        raise ArgumentError(
            "softmax needs at least 2 units: of 1 unit it is always 1. Received: 1. Use 2 units, "
            "or a sigmoid output with ", Mention("loss", "binary_cross_entropy"), ".",
        )  # fmt: skip
    return check_size("n_in", items[0]), tuple(built)


def default_loss(last: AbstractLayer) -> Loss:
    """Return the default loss of an output layer: cross-entropy after softmax, else quadratic."""
    is_softmax = isinstance(last, Dense) and last.activation.name == "softmax"
    return get_loss("cross_entropy" if is_softmax else "quadratic")
