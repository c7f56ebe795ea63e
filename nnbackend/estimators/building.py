"""From an estimator's parameters to a network, and from its arrays back to one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError, check
from nnbackend.estimators.taking_in import dtype_on_device
from nnbackend.network.activations import Activation, get_activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network

SKLEARN_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
_ENGINE_NAMES = {"logistic": "sigmoid", "exp": "exponential"}


def hidden_layers(sizes: Any) -> list[Any]:
    """Give hidden_layer_sizes as a list of numbers and layers."""
    is_many = hasattr(sizes, "__iter__") and not isinstance(sizes, AbstractLayer)
    hidden = list(sizes) if is_many else [sizes]
    for size in hidden:
        if not isinstance(size, AbstractLayer) and (not isinstance(size, Integral) or size <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
    return hidden


def engine_activation(choice: Any) -> Activation:
    """Give the engine's activation for a name of scikit-learn's or ours."""
    return get_activation(_ENGINE_NAMES.get(choice, choice) if isinstance(choice, str) else choice)


def build_network(estimator: Any, n_in: int, n_out: int, loss: Loss, output: str) -> Network:
    """Build the network that the parameters describe; its weights are still to be set."""
    hidden = hidden_layers(estimator.hidden_layer_sizes)
    phis = _one_each(estimator.activation, len(hidden), "activation")
    rates = _dropout_rates(estimator.dropout, len(hidden))
    layers: list[int | AbstractLayer] = [n_in]
    if rates[0]:
        layers.append(Dropout(rates[0]))
    for size, phi, rate in zip(hidden, phis, rates[1:], strict=True):
        is_layer = isinstance(size, AbstractLayer)
        layers.append(size if is_layer else Dense(int(size), engine_activation(phi)))
        if rate:
            layers.append(Dropout(rate))
    layers.append(Dense(n_out, engine_activation(output)))
    return Network(layers, loss, device=estimator.device, dtype=dtype_on_device(estimator))


def draw_parameters(
    estimator: Any, net: Network, random: np.random.RandomState
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give the initial (coefs_, intercepts_).

    Where scikit-learn could build the network too, they are its numbers for the same
    random_state: weights and biases uniform within the bound of Glorot and Bengio 2010, a third
    of its square for the logistic function. Other layers have the engine's initializers.
    """
    phi = estimator.activation
    plain = isinstance(phi, str) and phi in SKLEARN_ACTIVATIONS
    hidden = hidden_layers(estimator.hidden_layer_sizes)
    if not plain or any(isinstance(size, AbstractLayer) for size in hidden):
        net.initialize(int(random.randint(np.iinfo(np.int32).max)))
        return net.get_parameters()
    weights, biases = [], []
    for (shape, n), _ in zip(net.layout.shapes, net.learning_layers, strict=True):
        bound = math.sqrt((2.0 if phi == "logistic" else 6.0) / sum(shape))
        weights.append(random.uniform(-bound, bound, shape).astype(net.dtype, copy=False))
        biases.append(random.uniform(-bound, bound, n).astype(net.dtype, copy=False))
    return weights, biases


def _one_each(choice: Any, n: int, name: str) -> Sequence[Any]:
    """Give one choice for each hidden layer."""
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
    """Give the rate of the inputs, and of each hidden layer: one number means the hidden ones."""
    if np.ndim(choice) == 0:
        return [0.0] + [float(choice)] * n
    check(
        "dropout",
        choice,
        lambda v: len(v) == n + 1 and all(0.0 <= float(rate) < 1.0 for rate in v),
        f"one number below 1, or {n + 1}: of the inputs and of each hidden layer",
    )
    return [float(rate) for rate in choice]
