"""The activations of hidden layers, returned by `transform`."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._set_output import _get_output_config

from nnbackend.errors import ArgumentError
from nnbackend.estimators import fit_data
from nnbackend.estimators.ensemble import prediction_rows
from nnbackend.network.evaluation.passes import ROWS_AT_ONCE


def hidden_activations(estimator: Any, X: Any, layer: int) -> Any:
    """Return the activations (n, units) of a hidden layer; of an ensemble the best member's.

    They are on the device of X, or on the host if scikit-learn builds a table from them.
    Raises: ArgumentError for an unknown layer, or one without names in a table.
    """
    if hasattr(estimator, "estimators_"):
        net = estimator.estimators_[estimator.best_member_]._network()
        x = fit_data.rows(prediction_rows(estimator, X))
    else:
        net, x = estimator._network(), fit_data.prediction_rows(estimator, X)
    in_table = _get_output_config("transform", estimator)["dense"] != "default"
    index = _index(estimator, layer, len(net.trainable_layers) - 1, in_table)
    parts = []
    for start in range(0, x.shape[0], ROWS_AT_ONCE):
        part = net.backend.narrowed(np.ascontiguousarray(x[start : start + ROWS_AT_ONCE]))
        here = net.backend.to_device(part)
        parts.append(net.backend.to_host(net.trace(here).a[index]))
    found = np.concatenate(parts)
    return found if in_table else fit_data.like(estimator, X, found)


def _index(estimator: Any, layer: int, n: int, in_table: bool) -> int:
    """Return the index of a layer among the n hidden layers."""
    if n == 0:
        raise ArgumentError(
            "transform needs a hidden layer. Received: a network fitted without one. "
            "predict_proba and predict give the outputs."
        )
    if not -n <= layer < n:
        raise ArgumentError(
            f"layer must name one of the {n} hidden layers, from 0. Received: layer={layer}."
        )
    if in_table and layer % n != n - 1:
        raise ArgumentError(
            "set_output names the units of the last hidden layer only. Received: "
            f"layer={layer}. Call set_output(transform='default') before."
        )
    return layer % n
