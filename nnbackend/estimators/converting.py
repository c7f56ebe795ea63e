"""Conversion to scikit-learn's estimators and back, and to networks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import sklearn.neural_network

from nnbackend.data.coding import ColumnCoding, RawColumn
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.errors import ArgumentError
from nnbackend.estimators.building import (
    SKLEARN_ACTIVATIONS,
    build_network,
    engine_activation,
    fitted_layers,
)
from nnbackend.estimators.fit_data import dtype_on_device
from nnbackend.model.model import Model
from nnbackend.network.layers import Dense, Dropout
from nnbackend.network.losses import cross_entropy
from nnbackend.network.network import Network

FITTED = (
    "classes_", "_label_binarizer", "n_features_in_", "feature_names_in_", "n_outputs_",
    "n_layers_", "out_activation_", "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_",
    "validation_scores_", "best_validation_score_", "_no_improvement_count",
)  # fmt: skip
_THEIR_LOSSES = {
    "quadratic": "squared_error",
    "poisson": "poisson",
    "cross_entropy": "log_loss",
    "binary_cross_entropy": "log_loss",
}


def from_theirs(kind: Any, model: Any) -> Any:
    """Return an estimator of a class with the parameters and the fit of scikit-learn's.

    Raises: ArgumentError for anything else.
    """
    name = kind.__name__
    if not isinstance(model, getattr(sklearn.neural_network, name)):
        raise ArgumentError(
            f"from_sklearn of {name} takes scikit-learn's {name}. Received: {type(model).__name__}."
        )
    names = kind().get_params()
    ours = kind(**{k: v for k, v in model.get_params().items() if k in names})
    if hasattr(model, "coefs_"):
        _copy_fit(model, ours)
        parts = [np.ravel(part) for part in (*ours.coefs_, *ours.intercepts_)]
        ours._best_theta = np.concatenate(parts)
        ours._dtype = str(ours.coefs_[0].dtype)
        phi = engine_activation(model.activation)
        ours._hidden_layers = tuple(Dense(W.shape[1], phi) for W in ours.coefs_[:-1])
        ours._fitted_loss = ours._loss()
        ours.validation_loss_curve_ = ours.best_validation_loss_ = None
        if getattr(ours, "validation_scores_", None) is not None:  # lbfgs has no curve
            ours.validation_loss_curve_, ours.best_validation_loss_ = [], np.inf
    return ours


def to_theirs(kind: Any, model: Any) -> Any:
    """Return scikit-learn's estimator of a class with our fit, without dropout.

    Raises: ArgumentError for layers that scikit-learn does not have.
    """
    if hasattr(model, "estimators_"):
        raise _several(model)
    phis = _their_names(model)
    unknown = sorted(phis - set(SKLEARN_ACTIVATIONS)) or (sorted(phis) if len(phis) > 1 else [])
    loss = _THEIR_LOSSES.get(model._fitted_loss.name)
    if not unknown and loss is not None:
        return _converted(kind, model, phis.pop() if phis else "identity", loss)
    what = f"hidden layers of {', '.join(unknown)}" if unknown else f"loss={model._fitted_loss!r}"
    raise ArgumentError(
        "scikit-learn supports one activation (identity, logistic, tanh, relu) for all hidden "
        f"layers, and squared_error or poisson as a loss. Received: {what}. "
        "Fit with supported ones to convert."
    )


def _their_names(model: Any) -> set[str]:
    """Return the hidden layers' activations by scikit-learn's names, ours for other ones.

    Dropout does not affect predictions.
    """
    names = set()
    for layer in model._hidden_layers:
        if not isinstance(layer, Dense):
            names |= set() if isinstance(layer, Dropout) else {type(layer).__name__}
        elif layer.activation.kernel is None:
            names.add(repr(layer.activation))
        else:
            name = layer.activation.name
            names.add("logistic" if name == "sigmoid" else name)
    return names


def _several(model: Any) -> ArgumentError:
    """Return the hint for an ensemble: convert a member, if scikit-learn has its activation."""
    names = sorted(_their_names(model))
    phi, cure = ", ".join(names) or "identity", "Convert"
    if names and (len(names) > 1 or phi not in SKLEARN_ACTIVATIONS):
        cure = "Fit with an activation that it supports, such as 'tanh', and convert"
    values = ", and gives values for model.target_scaler_.inverse" if model.target_scaler_ else ""
    return ArgumentError(
        "scikit-learn's MLP is one network, without scales. Received: "
        f"{len(model.estimators_)} members of a preset, activation={phi!r}. {cure} a member, "
        "model.estimators_[0].to_sklearn(); it takes rows from model.scaler_.transform" + values
    )


def _converted(kind: Any, model: Any, phi: str, loss: str) -> Any:
    names = kind().get_params()
    fitted = {  # needed for predictions and further fits; other parameters as set now
        "activation": phi,
        "hidden_layer_sizes": tuple(W.shape[1] for W in model.coefs_[:-1]),
        "loss": loss,
    }
    options = {k: v for k, v in {**model.get_params(), **fitted}.items() if k in names}
    if options["solver"] not in ("lbfgs", "sgd", "adam"):
        options["solver"] = "adam"  # only for a continued fit, not for predictions
    options["verbose"] = bool(options["verbose"])
    theirs = kind(**options)
    _copy_fit(model, theirs)
    # Early stopping of a continued fit compares with these, and restores them if nothing is better.
    theirs._best_coefs = [W.copy() for W in theirs.coefs_]
    theirs._best_intercepts = [b.copy() for b in theirs.intercepts_]
    return theirs


def _copy_fit(source: Any, target: Any) -> None:
    for name in FITTED:
        if hasattr(source, name):
            setattr(target, name, copy.deepcopy(getattr(source, name)))
    target.coefs_ = [np.array(W) for W in source.coefs_]
    target.intercepts_ = [np.array(b) for b in source.intercepts_]
    target._random_state = copy.deepcopy(getattr(source, "_random_state", None))


def as_models(model: Any) -> list[Model]:
    """Return the fit as models on raw rows, one for each member of an ensemble.

    Raises: ArgumentError for a classifier of one class.
    """
    classes = getattr(model, "classes_", None)
    if classes is not None and len(classes) < 2:
        raise ArgumentError(
            f"A network needs at least two classes. Received: a fit to {classes!r} alone. "
            "Fit to rows of several classes."
        )
    models, columns = [], _columns(model)
    for member in getattr(model, "estimators_", [model]):
        net = _as_network(member)
        is_softmax = isinstance(last := net.layers[-1], Dense) and last.activation.name == "softmax"
        known = Preprocessing(
            getattr(model, "scaler_", None),
            getattr(model, "target_scaler_", None),
            tuple(np.asarray(classes).tolist()) if is_softmax else None,
            columns,
        )
        models.append(Model.from_parts(net, known))
    return models


def _columns(model: Any) -> dict[str, Any] | None:
    """Return the coding of the columns of the table that an estimator was fitted to."""
    if not hasattr(model, "feature_names_in_"):
        return None
    numeric = tuple(RawColumn(str(name), "numeric") for name in model.feature_names_in_)
    return ColumnCoding(numeric, None, None).to_dict()


def _as_network(model: Any) -> Network:
    """Return a member's network. One logistic output becomes a softmax of two.

    softmax(0, z) = (1 - sigmoid(z), sigmoid(z))
    """
    weights, biases = list(model.coefs_), list(model.intercepts_)
    output, loss = (model.n_outputs_, model.out_activation_), model._fitted_loss
    if output == (1, "logistic"):
        weights[-1] = np.hstack([np.zeros_like(weights[-1]), weights[-1]])
        biases[-1] = np.concatenate([np.zeros_like(biases[-1]), biases[-1]])
        output, loss = (2, "softmax"), cross_entropy(*loss.params)
    hidden = [la for la in model._hidden_layers if not isinstance(la, Dropout)]
    net = build_network(
        weights[0].shape[0], fitted_layers(hidden, weights[:-1]), output, loss,
        device=model.device, dtype=dtype_on_device(model),
    )  # fmt: skip
    net.set_parameters(weights, biases)
    return net
