"""The valid values of each estimator parameter, for scikit-learn's parameter validation."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

from nnbackend.backend import Backend
from nnbackend.estimators.presets import PRESETS
from nnbackend.network.activations import ACTIVATIONS, Activation
from nnbackend.network.layers import AbstractLayer
from nnbackend.training.optimizers import OPTIMIZERS, Optimizer
from nnbackend.training.schedules import SCHEDULES, Schedule

_SHARE = Interval(Real, 0, 1, closed="left")
_AT_LEAST_0 = Interval(Real, 0, None, closed="left")
_ABOVE_0 = Interval(Real, 0, None, closed="neither")
_AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
STOCHASTIC = frozenset(OPTIMIZERS) - {"lbfgs"}

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", _AT_LEAST_1, AbstractLayer],
    "activation": [StrOptions({"logistic", *ACTIVATIONS} - {"softmax"}), Activation, list, tuple],
    "solver": [StrOptions(set(OPTIMIZERS)), Optimizer],
    "alpha": [_AT_LEAST_0],
    "batch_size": [StrOptions({"auto"}), _AT_LEAST_1],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
    "learning_rate_init": [_ABOVE_0],
    "power_t": [_AT_LEAST_0],
    "max_iter": [_AT_LEAST_1],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [_AT_LEAST_0],
    "verbose": ["verbose", StrOptions({"bar"})],
    "warm_start": ["boolean"],
    "momentum": [_SHARE],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [_SHARE],
    "beta_1": [_SHARE],
    "beta_2": [_SHARE],
    "epsilon": [_ABOVE_0],
    "n_iter_no_change": [_AT_LEAST_1, Options(Real, {np.inf})],
    "max_fun": [_AT_LEAST_1],
    "device": [None, str, Backend],
    "dtype": [None, StrOptions({"float32", "float64"})],
    "dropout": [_SHARE, "array-like"],
    "l1": [_AT_LEAST_0],
    "weight_decay": [_AT_LEAST_0],
    "max_norm": [None, _ABOVE_0, "array-like"],
    "clip_norm": [None, _ABOVE_0],
    "ema": [None, Interval(Real, 0, 1, closed="neither")],
    "schedule": [None, StrOptions(set(SCHEDULES)), Schedule, callable],
    "monitor": [None, StrOptions({"score", "valid_loss"})],
    "callbacks": [None, "array-like", HasMethods(["on_epoch_end"])],
    "preset": [None, StrOptions(set(PRESETS))],
    "n_members": [_AT_LEAST_1],
}
