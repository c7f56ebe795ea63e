"""Description of a network as plain data, without its arrays.

A formula is stored by its name in the tables of activations, losses and initializers. For a custom
formula only the name is stored.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnbackend import __version__
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import ACTIVATIONS, Activation
from nnbackend.network.initializers import INITIALIZERS, Initializer
from nnbackend.network.layers import LAYERS, AbstractLayer
from nnbackend.network.losses import LOSSES, Loss
from nnbackend.network.network import Network

LABEL_TYPES = (str, int, bool, float)


@dataclass(frozen=True)
class CustomFormulas:
    """The custom activations and losses of a network, by name."""

    activations: Mapping[str, Activation] = field(default_factory=dict)
    losses: Mapping[str, Loss] = field(default_factory=dict)


def describe_network(net: Network) -> dict[str, Any]:
    """Return the description from which the network can be rebuilt, as data for JSON.

    Raises: ArgumentError for a layer that cannot be stored.
    """
    precision = net.backend.precision
    return {
        **({} if precision == "float32" else {"precision": precision}),
        "versions": {"nnbackend": __version__, "numpy": np.__version__},
        "dtype": net.dtype,
        "seed": net.seed,
        "n_in": net.n_in,
        "layers": [describe_layer(layer) for layer in net.layers],
        "loss": _describe_formula(net.loss, LOSSES),
    }


def describe_model(net: Network, known: Preprocessing) -> dict[str, Any]:
    """Return the description of a network and its preprocessing, as data for JSON.

    Raises: ArgumentError for a layer or a label that cannot be stored.
    """
    return {
        **describe_network(net),
        "classes": None if known.classes is None else [_label(c) for c in known.classes],
        "scaler": _describe_scaler(known.scaler),
        "target_scaler": _describe_scaler(known.target_scaler),
        "columns": dict(known.columns) if isinstance(known.columns, Mapping) else known.columns,
        **({} if known.encoder is None else {"encoder": known.encoder.to_dict()}),
        **({} if known.intervals is None else {"intervals": known.intervals.to_dict()}),
        **({} if known.threshold is None else {"threshold": known.threshold}),
    }


def model_tensors(net: Network, known: Preprocessing) -> dict[str, np.ndarray]:
    """Return host copies of all arrays, by their names in the file."""
    weights, biases = net.get_parameters()
    tensors = {f"weights.{i}": W for i, W in enumerate(weights)}
    tensors |= {f"biases.{i}": b for i, b in enumerate(biases)}
    for name, scaler in (("scaler", known.scaler), ("target_scaler", known.target_scaler)):
        if scaler is not None:
            tensors[f"{name}.shift"] = np.asarray(scaler.shift, np.float64)
            tensors[f"{name}.factor"] = np.asarray(scaler.factor, np.float64)
    return tensors


def describe_layer(layer: AbstractLayer) -> dict[str, Any]:
    """Return a layer's kind and arguments.

    >>> from nnbackend.network.layers import Dropout
    >>> describe_layer(Dropout(0.2))
    {'kind': 'dropout', 'drop_rate': 0.2}
    """
    kind = next((name for name, cls in LAYERS.items() if type(layer) is cls), None)
    if kind is None:
        raise ArgumentError(
            f"Only layers of nnbackend can be saved: {', '.join(sorted(LAYERS))}. "
            f"Received: {layer!r}."
        )
    described: dict[str, Any] = {"kind": kind}
    for name in inspect.signature(type(layer)).parameters:
        value = getattr(layer, name)
        if isinstance(value, Activation):
            described[name] = _describe_formula(value, ACTIVATIONS)
        elif isinstance(value, Initializer):
            described[name] = _describe_formula(value, INITIALIZERS)
        else:
            described[name] = plain_number(value)
    return described


def custom_formulas(net: Network) -> CustomFormulas:
    """Return the network's custom activations and loss.

    Raises: ArgumentError when two activations have the same name, by which they are stored.
    """
    activations: dict[str, Activation] = {}
    for layer in net.layers:
        phi = getattr(layer, "activation", None)
        if not isinstance(phi, Activation) or _is_built_in(phi, ACTIVATIONS):
            continue
        other = activations.setdefault(phi.name, phi)
        if (other.f, other.df, other.params) != (phi.f, phi.df, phi.params):
            raise ArgumentError(
                "Custom activations must have unique names to be saved. "
                f"Received: two different ones named {phi.name!r}. Rename one of them."
            )
    losses = {} if _is_built_in(net.loss, LOSSES) else {net.loss.name: net.loss}
    return CustomFormulas(activations, losses)


def _describe_formula(
    formula: Activation | Loss | Initializer, table: Mapping[str, Callable[..., Any]]
) -> dict[str, Any]:
    return {
        "name": formula.name,
        "params": [plain_number(p) for p in formula.params],
        "own": not _is_built_in(formula, table),
    }


def _is_built_in(formula: Any, table: Mapping[str, Callable[..., Any]]) -> bool:
    """Return True if the table builds an equal formula; custom ones may share a built-in name."""
    try:
        return bool(table[formula.name](*formula.params) == formula)
    except (KeyError, TypeError, ArgumentError):
        return False


def plain_number(value: Any) -> int | float | str:
    """Return a number for JSON; infinities and NaN become text."""
    plain = value.item() if isinstance(value, np.generic) else value
    if type(plain) not in (int, float):
        try:
            plain = float(plain)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"A parameter must be a number to be saved. Received: {value!r}."
            ) from error
    return plain if math.isfinite(plain) else str(plain)


def _label(label: Any) -> Any:
    plain = label.item() if isinstance(label, np.generic) else label
    if type(plain) not in LABEL_TYPES:
        raise ArgumentError(
            f"classes must be text, numbers or booleans to be saved. Received: {label!r}."
        )
    return plain


def _describe_scaler(scaler: Scaler | None) -> dict[str, Any] | None:
    if scaler is None:
        return None
    return {"kind": scaler.kind, "clip": None if scaler.clip is None else float(scaler.clip)}
