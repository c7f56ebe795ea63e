"""The activations of hidden layers, which `transform` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._set_output import _get_output_config

from nnbackend.errors import ArgumentError
from nnbackend.estimators import taking_in
from nnbackend.estimators.ensemble import prediction_rows
from nnbackend.network.network import ROWS_AT_ONCE


def hidden_activations(estimator: Any, X: Any, layer: int) -> Any:
    """Give the activations (n, units) of a hidden layer, where X is.

    Raises: ArgumentError for a layer that is not there, or without a name for each unit.
    """
    if hasattr(estimator, "estimators_"):
        best = estimator.estimators_[estimator.best_member_]
        return taking_in.like(estimator, X, best.transform(prediction_rows(estimator, X), layer))
    net = estimator._network()
    x = taking_in.prediction_rows(estimator, X)
    n = len(net.learning_layers) - 1
    if n == 0:
        raise ArgumentError(
            "transform needs a hidden layer. Received: hidden_layer_sizes="
            f"{estimator.hidden_layer_sizes!r}. predict_proba and predict give the outputs."
        )
    if not -n <= layer < n:
        raise ArgumentError(
            f"layer must name one of the {n} hidden layers, from 0. Received: layer={layer}."
        )
    if layer % n != n - 1 and _get_output_config("transform", estimator)["dense"] != "default":
        raise ArgumentError(
            "set_output names the units of the last hidden layer only. Received: "
            f"layer={layer}. Call set_output(transform='default') before."
        )
    parts = []
    for start in range(0, x.shape[0], ROWS_AT_ONCE):
        here = net.backend.to_device(np.ascontiguousarray(x[start : start + ROWS_AT_ONCE]))
        parts.append(net.backend.to_host(net.trace(here).a[layer % n]))
    return taking_in.like(estimator, X, np.concatenate(parts))
