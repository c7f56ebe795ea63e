"""The values with which a preset replaces the estimators' defaults.

A parameter counts as set by the user if it differs, in value or type, from the constructor's
default. So an estimator stores its arguments only, as scikit-learn's clone and searches require.
"""

from __future__ import annotations

import inspect
from typing import Any

from nnbackend.errors import ArgumentError

LEAST_ROWS, MOST_ROWS, STEPS = 32, 256, 8
TABULAR: dict[str, Any] = {
    "hidden_layer_sizes": (128, 128),
    "activation": "silu",
    "solver": "adamw",
    "alpha": 0.0,
    "learning_rate_init": 0.003,
    "beta_2": 0.95,
    "weight_decay": 0.02,
    "schedule": "cosine",
    "dropout": 0.1,
    "label_smoothing": 0.1,
    "early_stopping": True,
    "validation_fraction": 0.2,
    "n_iter_no_change": float("inf"),
    "monitor": "valid_loss",
}
PRESETS = {"tabular": TABULAR}


def filled(estimator: Any, n: int) -> dict[str, Any]:
    """Return all parameters of a fit of n rows: the user's, else the preset's, else the defaults.

    Raises: ArgumentError for parameters that exclude a preset.
    """
    given: dict[str, Any] = estimator.get_params(deep=False)
    for name, value in (("solver", "lbfgs"), ("warm_start", True)):
        if isinstance(given[name], (str, bool)) and given[name] == value:
            raise ArgumentError(
                "A preset trains an ensemble from the beginning, in mini-batches. "
                f"Received: preset={estimator.preset!r}, {name}={value!r}. Remove one of them."
            )
    values = {**PRESETS[estimator.preset], "batch_size": _rows_per_batch(n)}
    if given["schedule"] is None and given["learning_rate"] != "constant":
        del values["schedule"]  # one of scikit-learn's schedule names is valid too
    signature = inspect.signature(type(estimator).__init__).parameters
    for name in given.keys() & values.keys():
        if _same(given[name], signature[name].default):
            given[name] = values[name]
    return given


def _rows_per_batch(n: int) -> int:
    """Return an eighth of the rows, so that an epoch of a small table has several steps."""
    return min(n, max(LEAST_ROWS, min(MOST_ROWS, n // STEPS)))


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)
