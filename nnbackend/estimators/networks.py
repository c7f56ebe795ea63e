"""A fitted network: what it computes, and its conversion to Models, to scikit-learn and back.

A fit is host arrays and plain records: `coefs_`, `intercepts_` and the architecture. A network on
the device is built from them when needed. So an estimator can be copied, pickled and sent to
another process, users can set its weights, and a parameter that is set later affects the next fit
only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np
import sklearn.neural_network
from sklearn.utils.validation import check_is_fitted

from nnbackend.data.coding import ColumnCoding
from nnbackend.data.columns import NumberColumn
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError
from nnbackend.estimators.base import Activations, BaseMLP, Data, Parameters, Units, engine_rows
from nnbackend.model.model import Model
from nnbackend.network.activations import Activation, get_activation
from nnbackend.network.evaluation.passes import ROWS_AT_ONCE
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import Loss, cross_entropy
from nnbackend.network.network import Network
from nnbackend.options import check

SKLEARN_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
_ENGINE_NAMES = {"logistic": "sigmoid", "exp": "exponential"}
_COPIED = {
    "classes_", "_label_binarizer", "n_features_in_", "feature_names_in_", "n_outputs_",
    "n_layers_", "out_activation_", "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_",
    "validation_scores_", "best_validation_score_", "_no_improvement_count", "_random_state",
}  # fmt: skip
_THEIR_LOSSES = {
    "quadratic": "squared_error",
    "poisson": "poisson",
    "cross_entropy": "log_loss",
    "binary_cross_entropy": "log_loss",
}


@dataclass(frozen=True)
class Architecture:
    """The part of a network that a fit keeps besides its arrays.

    hidden: the layers without the rates of `dropout`.  dtype: as chosen by the first fit.
    """

    hidden: tuple[AbstractLayer, ...]
    loss: Loss
    dtype: str

    def network(
        self, n_in: int, output: tuple[int, str], user: Parameters, with_dropout: bool = False
    ) -> Network:
        """Return a network without fitted weights. output: its units and activation.

        user: has the device; without a dtype it is float32 if the device has no float64.
        """
        layers: list[int | AbstractLayer] = [n_in]
        rates = _dropout_rates(user.dropout if with_dropout else 0.0, len(self.hidden))
        for layer, rate in zip((*self.hidden, None), rates, strict=True):
            if rate:  # of the layer's inputs
                layers.append(Dropout(rate))
            if layer is not None:
                layers.append(layer)
        layers.append(Dense(output[0], engine_activation(output[1])))
        device = get_backend(user.device)
        is_absent = user.dtype is None and self.dtype not in device.float_dtypes
        dtype = device.float_dtypes[0] if is_absent else self.dtype
        return Network(layers, self.loss, device=device, dtype=dtype)

    def resized(self, weights: Sequence[np.ndarray]) -> Architecture:
        """Return the architecture with the sizes of the weights, which users can set."""
        widths, hidden = [W.shape[1] for W in weights[:-1]], []
        for layer in self.hidden:
            if isinstance(layer, (Dense, Maxout)) and widths:  # other depths: set_parameters raises
                n_out = widths.pop(0) // getattr(layer, "n_pieces", 1)
                layer = layer if layer.n_out == n_out else replace(layer, n_out=n_out)
            hidden.append(layer)
        return replace(self, hidden=tuple(hidden))


def listed_units(sizes: Units) -> list[int | AbstractLayer]:
    """Return hidden_layer_sizes as a list of numbers and layers."""
    is_one = (AbstractLayer, int, np.integer)
    hidden = [sizes] if isinstance(sizes, is_one) else list(sizes)
    for size in hidden:
        if not isinstance(size, AbstractLayer) and not (isinstance(size, is_one) and size > 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
    return hidden


def engine_activation(choice: str | Activation) -> Activation:
    """Return the activation for one of scikit-learn's names or ours."""
    return _named_activation(choice) if isinstance(choice, str) else get_activation(choice)


@cache
def _named_activation(name: str) -> Activation:
    return get_activation(_ENGINE_NAMES.get(name, name))


def chosen_layers(sizes: Units, activation: Activations) -> tuple[AbstractLayer, ...]:
    """Return the hidden layers that the parameters describe, without the rates of `dropout`."""
    hidden = listed_units(sizes)
    phis = [activation] * len(hidden) if isinstance(activation, (str, Activation)) else activation
    if len(phis) != len(hidden):
        raise ArgumentError(
            f"activation must be one choice, or one for each of the {len(hidden)} hidden layers. "
            f"Received: activation={activation!r}."
        )
    return tuple(
        size if isinstance(size, AbstractLayer) else Dense(int(size), engine_activation(phi))
        for size, phi in zip(hidden, phis, strict=True)
    )


def draw_parameters(
    net: Network, sizes: Units, activation: Activations, random: np.random.RandomState
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the initial (coefs_, intercepts_).

    If scikit-learn could build the network too, they equal its numbers for the same
    random_state: weights and biases uniform within the bound of Glorot and Bengio 2010, a third
    of its square for the logistic function. Other layers use nnbackend's initializers.
    """
    has_layers = any(isinstance(size, AbstractLayer) for size in listed_units(sizes))
    if has_layers or not isinstance(activation, str) or activation not in SKLEARN_ACTIVATIONS:
        net.initialize(int(random.randint(np.iinfo(np.int32).max)))
        return net.get_parameters()
    weights, biases = [], []
    for shape, n in net.layout.shapes:
        bound = math.sqrt((2.0 if activation == "logistic" else 6.0) / sum(shape))
        weights.append(random.uniform(-bound, bound, shape).astype(net.dtype, copy=False))
        biases.append(random.uniform(-bound, bound, n).astype(net.dtype, copy=False))
    return weights, biases


def _dropout_rates(choice: float | Sequence[float], n: int) -> list[float]:
    """Return the dropout rates of inputs and hidden layers; a number applies to hidden layers."""
    rates = np.ravel(choice).tolist()
    rates = rates if np.ndim(choice) else [0.0, *rates * n]
    check(
        "dropout",
        choice,
        lambda v: len(rates) == n + 1 and all(0.0 <= float(rate) < 1.0 for rate in rates),
        f"one number below 1, or {n + 1}: of the inputs and of each hidden layer",
    )
    return [float(rate) for rate in rates]


class FittedMLP(BaseMLP):
    """One fitted network. NetworkMLP adds the fit."""

    # ---- the network ------------------------------------------------------------------------

    def _architecture(self) -> Architecture:
        """Return the architecture of the fit. Weights set without a fit have the parameters'."""
        if not hasattr(self, "_fitted_architecture"):
            self._fitted_architecture = self._chosen(str(self.coefs_[0].dtype))
        return self._fitted_architecture

    def _chosen(self, dtype: str) -> Architecture:
        """Return the architecture that the parameters describe. dtype: if none is set."""
        layers = chosen_layers(self.hidden_layer_sizes, self.activation)
        return Architecture(layers, self._loss(), str(self.dtype or dtype))

    def _key(self) -> tuple[Any, ...]:
        """Return the cache key of the network; a different key means a new network."""
        return self.device, self.out_activation_, *(W.shape for W in self.coefs_)

    def _network(self) -> Network:
        """Return a network with the fitted weights, built once; the weights are set each time.

        So changes of `coefs_` take effect. Of the parameters only `device` is read.
        """
        check_is_fitted(self)
        key, net = getattr(self, "_built", (None, None))
        if net is None or key != self._key():
            n_in, output = self.coefs_[0].shape[0], (self.n_outputs_, self.out_activation_)
            net = self._architecture().resized(self.coefs_).network(n_in, output, self)
            self._built = self._key(), net
        net.set_parameters(self.coefs_, self.intercepts_)
        return net

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_built", None)  # it holds a device
        return state

    def _outputs(self, X: Data) -> np.ndarray:
        net = self._network()
        return net.outputs(engine_rows(self._new_rows(X)))

    def _hidden(self, X: Data, layer: int) -> np.ndarray:
        net, x = self._network(), engine_rows(self._new_rows(X))
        parts = []
        for start in range(0, x.shape[0], ROWS_AT_ONCE):
            part = net.backend.narrowed(np.ascontiguousarray(x[start : start + ROWS_AT_ONCE]))
            parts.append(net.backend.to_host(net.trace(net.backend.to_device(part)).a[layer]))
        return np.concatenate(parts)

    # ---- models -----------------------------------------------------------------------------

    def to_models(self) -> list[Model]:
        """Return the fit as one model, which takes raw rows.

        Its outputs are `predict_proba` of a classifier, (n, n_classes), and `predict` of a
        regressor. `nnbackend.export` writes it as an ONNX model.
        Raises: ArgumentError for a classifier fitted to one class.
        """
        check_is_fitted(self)
        classes = getattr(self, "classes_", None)
        if classes is not None and len(classes) < 2:
            raise ArgumentError(
                f"A network needs at least two classes. Received: a fit to {classes!r} alone. "
                "Fit to rows of several classes."
            )
        net = self._without_dropout()
        is_softmax = isinstance(last := net.layers[-1], Dense) and last.activation.name == "softmax"
        codes = tuple(np.asarray(classes).tolist()) if is_softmax else None
        return [Model.from_parts(net, Preprocessing(classes=codes, columns=columns_of(self)))]

    def _without_dropout(self) -> Network:
        """Return a network for predictions. One logistic output becomes a softmax of two.

        softmax(0, z) = (1 - sigmoid(z), sigmoid(z))
        """
        weights, biases = list(self.coefs_), list(self.intercepts_)
        output, fitted = (self.n_outputs_, self.out_activation_), self._architecture()
        loss = fitted.loss
        if output == (1, "logistic"):
            weights[-1] = np.hstack([np.zeros_like(weights[-1]), weights[-1]])
            biases[-1] = np.concatenate([np.zeros_like(biases[-1]), biases[-1]])
            output, loss = (2, "softmax"), cross_entropy(*loss.params)
        hidden = tuple(layer for layer in fitted.hidden if not isinstance(layer, Dropout))
        plain = Architecture(hidden, loss, fitted.dtype).resized(weights)
        net = plain.network(weights[0].shape[0], output, self)
        net.set_parameters(weights, biases)
        return net

    # ---- scikit-learn -----------------------------------------------------------------------

    @classmethod
    def from_sklearn(cls, model: Any) -> Self:
        """Return an estimator with the parameters and the fit of a scikit-learn estimator.

        A later partial_fit starts with a new optimizer state.
        Raises: ArgumentError for anything else.
        """
        if not isinstance(model, getattr(sklearn.neural_network, cls.__name__)):
            raise ArgumentError(
                f"from_sklearn of {cls.__name__} takes scikit-learn's {cls.__name__}. "
                f"Received: {type(model).__name__}."
            )
        names = cls().get_params()
        ours = cls(**{k: v for k, v in model.get_params().items() if k in names})
        if hasattr(model, "coefs_"):
            _copy_fit(model, ours)
            phi = engine_activation(model.activation)
            layers = tuple(Dense(W.shape[1], phi) for W in ours.coefs_[:-1])
            dtype = str(ours.coefs_[0].dtype)
            ours._fitted_architecture = Architecture(layers, ours._loss(), dtype)
            ours.validation_loss_curve_ = ours.best_validation_loss_ = None
        return ours

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with this fit, for programs that require its class.

        Raises: ArgumentError for activations, layers or a loss that scikit-learn lacks.
        """
        check_is_fitted(self)
        phis, loss = self._their_names(), self._architecture().loss
        unknown = sorted(phis - set(SKLEARN_ACTIVATIONS)) or (sorted(phis) if len(phis) > 1 else [])
        if unknown or loss.name not in _THEIR_LOSSES:
            what = f"hidden layers of {', '.join(unknown)}" if unknown else f"loss={loss!r}"
            raise ArgumentError(
                "scikit-learn supports one activation (identity, logistic, tanh, relu) for all "
                "hidden layers, and squared_error or poisson as a loss. "
                f"Received: {what}. Fit with supported ones to convert."
            )
        theirs = getattr(sklearn.neural_network, type(self).__name__)()
        fitted = {  # needed for predictions and further fits; other parameters as set now
            "activation": phis.pop() if phis else "identity",
            "hidden_layer_sizes": tuple(W.shape[1] for W in self.coefs_[:-1]),
            "loss": _THEIR_LOSSES[loss.name],
            "verbose": bool(self.verbose),
        }
        if self.solver not in ("lbfgs", "sgd", "adam"):
            fitted["solver"] = "adam"  # only for a continued fit, not for predictions
        names, options = theirs.get_params(), {**self.get_params(), **fitted}
        theirs.set_params(**{k: v for k, v in options.items() if k in names})
        _copy_fit(self, theirs)
        # Early stopping of a continued fit compares with these, and restores them if nothing is
        # better.
        best = copy.deepcopy((theirs.coefs_, theirs.intercepts_))
        vars(theirs).update(zip(("_best_coefs", "_best_intercepts"), best, strict=True))
        return theirs

    def _their_names(self) -> set[str]:
        """Return the hidden layers' activations by scikit-learn's names, ours for other ones.

        Dropout does not affect predictions.
        """
        names = set()
        for layer in self._architecture().hidden:
            if not isinstance(layer, Dense):
                names |= set() if isinstance(layer, Dropout) else {type(layer).__name__}
            elif layer.activation.kernel is None:
                names.add(repr(layer.activation))
            else:
                name = layer.activation.name
                names.add("logistic" if name == "sigmoid" else name)
        return names


def _copy_fit(source: Any, target: Any) -> None:
    """Copy what both libraries' estimators keep of a fit."""
    fit = {k: copy.deepcopy(v) for k, v in vars(source).items() if k in _COPIED}
    for name in ("coefs_", "intercepts_"):
        fit[name] = [np.array(part) for part in getattr(source, name)]
    vars(target).update(fit)


def columns_of(model: BaseMLP) -> dict[str, Any] | None:
    """Return the coding of the columns of the table that an estimator was fitted to."""
    if not hasattr(model, "feature_names_in_"):
        return None
    numeric = tuple(NumberColumn(str(name)) for name in model.feature_names_in_)
    return ColumnCoding(numeric, None, None).to_dict()
