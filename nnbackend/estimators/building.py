"""From an estimator's parameters to a network, and from its arrays back to one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.network.activations import Activation, get_activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.options import check

SKLEARN_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
_ENGINE_NAMES = {"logistic": "sigmoid", "exp": "exponential"}


def hidden_layers(sizes: Any) -> list[Any]:
    """Return hidden_layer_sizes as a list of numbers and layers."""
    is_many = hasattr(sizes, "__iter__") and not isinstance(sizes, AbstractLayer)
    hidden = list(sizes) if is_many else [sizes]
    for size in hidden:
        if not isinstance(size, AbstractLayer) and (not isinstance(size, Integral) or size <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
    return hidden


def engine_activation(choice: Any) -> Activation:
    """Return the activation for one of scikit-learn's names or ours."""
    return _named_activation(choice) if isinstance(choice, str) else get_activation(choice)


@cache
def _named_activation(name: str) -> Activation:
    return get_activation(_ENGINE_NAMES.get(name, name))


def chosen_layers(estimator: Any) -> tuple[AbstractLayer, ...]:
    """Return the hidden layers that the parameters describe, without the rates of `dropout`."""
    hidden = hidden_layers(estimator.hidden_layer_sizes)
    phis = _one_each(estimator.activation, len(hidden), "activation")
    return tuple(
        size if isinstance(size, AbstractLayer) else Dense(int(size), engine_activation(phi))
        for size, phi in zip(hidden, phis, strict=True)
    )


def fitted_layers(
    hidden: Sequence[AbstractLayer], weights: Sequence[np.ndarray]
) -> list[AbstractLayer]:
    """Return the hidden layers with the sizes of the weights, which users can set."""
    widths, layers = [W.shape[1] for W in weights], []
    for layer in hidden:
        if isinstance(layer, (Dense, Maxout)) and widths:  # other depths: set_parameters raises
            n_out = widths.pop(0) // getattr(layer, "n_pieces", 1)
            layer = layer if layer.n_out == n_out else replace(layer, n_out=n_out)
        layers.append(layer)
    return layers


def build_network(
    n_in: int,
    hidden: Sequence[AbstractLayer],
    output: tuple[int, str],
    loss: Loss,
    *,
    device: Any,
    dtype: str,
    dropout: Any = 0.0,
) -> Network:
    """Return a network without fitted weights. output: its units and activation."""
    rates = _dropout_rates(dropout, len(hidden))
    layers: list[int | AbstractLayer] = [n_in]
    for layer, rate in zip(
        (*hidden, None), rates, strict=True
    ):  # a rate applies to its layer's inputs
        if rate:
            layers.append(Dropout(rate))
        if layer is not None:
            layers.append(layer)
    n_out, phi = output
    layers.append(Dense(n_out, engine_activation(phi)))
    return Network(layers, loss, device=device, dtype=dtype)


def draw_parameters(
    estimator: Any, net: Network, random: np.random.RandomState
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the initial (coefs_, intercepts_).

    If scikit-learn could build the network too, they equal its numbers for the same
    random_state: weights and biases uniform within the bound of Glorot and Bengio 2010, a third
    of its square for the logistic function. Other layers use nnbackend's initializers.
    """
    phi = estimator.activation
    plain = isinstance(phi, str) and phi in SKLEARN_ACTIVATIONS
    hidden = hidden_layers(estimator.hidden_layer_sizes)
    if not plain or any(isinstance(size, AbstractLayer) for size in hidden):
        net.initialize(int(random.randint(np.iinfo(np.int32).max)))
        return net.get_parameters()
    weights, biases = [], []
    for (shape, n), _ in zip(net.layout.shapes, net.trainable_layers, strict=True):
        bound = math.sqrt((2.0 if phi == "logistic" else 6.0) / sum(shape))
        weights.append(random.uniform(-bound, bound, shape).astype(net.dtype, copy=False))
        biases.append(random.uniform(-bound, bound, n).astype(net.dtype, copy=False))
    return weights, biases


def _one_each(choice: Any, n: int, name: str) -> Sequence[Any]:
    """Return one activation for each hidden layer."""
    if isinstance(choice, (str, Activation)):
        return [choice] * n
    choices = list(choice)
    if len(choices) != n:
        raise ArgumentError(
            f"{name} must be one choice, or one for each of the {n} hidden layers. "
            f"Received: {name}={choice!r}."
        )
    return choices


def _dropout_rates(choice: Any, n: int) -> list[float]:
    """Return the dropout rates of inputs and hidden layers; a number applies to hidden layers."""
    if np.ndim(choice) == 0:
        return [0.0] + [float(choice)] * n
    check(
        "dropout",
        choice,
        lambda v: len(v) == n + 1 and all(0.0 <= float(rate) < 1.0 for rate in v),
        f"one number below 1, or {n + 1}: of the inputs and of each hidden layer",
    )
    return [float(rate) for rate in choice]
