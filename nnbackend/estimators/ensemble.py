"""Ensembles: members with different seeds on scaled rows, whose outputs are averaged.

The members are trained one after another. Training them as one batch would need batched kernels
for the product and for each activation, loss and update, in every backend.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.estimators import fit_data
from nnbackend.estimators.presets import filled
from nnbackend.training.interrupt import InterruptGuard

MIRRORED = (
    "coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_", "n_iter_", "t_", "loss_",
    "loss_curve_", "best_loss_", "converged_", "validation_scores_", "best_validation_score_",
    "validation_loss_curve_", "best_validation_loss_", "_dtype",
    "_hidden_layers", "_fitted_loss",
)  # fmt: skip


def fit_ensemble(estimator: Any, X: Any, y: Any, sample_weight: Any, eval_set: Any) -> None:
    """Fit the scalers and the members; set the best member's arrays and curves as the estimator's.

    The members hold out different rows, as their seeds are different. Ctrl-C ends the fit and keeps
    the members that have completed an epoch.
    Raises: KeyboardInterrupt if no member has completed an epoch.
    """
    X, y, _ = estimator._validate_input(X, y, False, reset=True)
    y = estimator._truth(y)  # labels again: each member encodes them itself
    random = check_random_state(estimator.random_state)
    options = {**filled(estimator, X.shape[0]), "preset": None}
    scaler = None if issparse(X) else fit_scaler("robust", X)
    target_scaler = estimator._target_scaler(y)
    if eval_set is None and not _can_hold_out(estimator, y, options["validation_fraction"]):
        options["early_stopping"] = False
    rows, targets = _scaled(scaler, X), _scaled_targets(target_scaler, y)
    validation = None
    if eval_set is not None:
        validation = _scaled_set(estimator, eval_set, scaler, target_scaler)
    members: list[Any] = []
    with (
        InterruptGuard() as guard
    ):  # between the members too; a member's own guard covers its steps
        for _ in range(estimator.n_members):
            options["random_state"] = int(random.randint(np.iinfo(np.int32).max))
            member = type(estimator)(**options)
            member._is_member = True
            member.fit(rows, targets, sample_weight=sample_weight, eval_set=validation)
            is_interrupted = guard.requested or member._stop_reason == "interrupted"
            if member.n_iter_ or not is_interrupted:
                members.append(member)
            if is_interrupted:
                break
    if not members:
        raise KeyboardInterrupt
    best = min(members, key=_loss_of)
    # All at once at the end: a failed fit keeps the members and scalers of the previous fit.
    estimator.estimators_, estimator.best_member_ = members, members.index(best)
    estimator.scaler_, estimator.target_scaler_ = scaler, target_scaler
    for name in MIRRORED:
        setattr(estimator, name, getattr(best, name))


def mean_outputs(estimator: Any, X: Any) -> np.ndarray:
    """Return the mean of the members' outputs (n, n_outputs) of rows X, unscaled."""
    x = fit_data.rows(prediction_rows(estimator, X))
    out = sum(member._network().outputs(x) for member in estimator.estimators_)
    mean: np.ndarray = out / len(estimator.estimators_)
    if estimator.target_scaler_ is not None:
        mean = estimator.target_scaler_.inverse(mean)  # float64: float32 may have too few digits
    return mean


def prediction_rows(estimator: Any, X: Any) -> Any:
    """Check the rows to predict for, and scale them."""
    check_is_fitted(estimator)
    X = fit_data.on_host(estimator, X)
    X = validate_data(
        estimator, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False
    )
    return _scaled(estimator.scaler_, X)


def _scaled(scaler: Scaler | None, X: Any) -> Any:
    """Scale rows. With a scaler fitted to dense rows, sparse rows become dense."""
    if scaler is None:
        return X
    X = X.toarray() if issparse(X) else X
    return scaler.transform(X, dtype=X.dtype)


def _scaled_targets(scaler: Scaler | None, y: Any) -> Any:
    return y if scaler is None else scaler.transform(np.asarray(y), dtype=np.float64)


def _scaled_set(
    estimator: Any, eval_set: Any, scaler: Scaler | None, target_scaler: Scaler | None
) -> Any:
    fit_data.check_eval_set(eval_set)
    X, y, *weight = (fit_data.on_host(estimator, part) for part in eval_set)
    X = validate_data(
        estimator, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False
    )
    if target_scaler is not None:
        y = estimator._eval_targets(np.asarray(y))
        fit_data.check_outputs(y, math.prod(y.shape[1:]), len(target_scaler.shift))
    return (_scaled(scaler, X), _scaled_targets(target_scaler, y), *weight)


def _can_hold_out(estimator: Any, y: np.ndarray, share: float) -> bool:
    """Return True if at least two rows, and a row of each class, can be held out."""
    n, counts = y.shape[0], [y.shape[0]]
    held = math.ceil(share * n)
    if estimator._stratifies and estimator._output() != "softmax" and y.ndim == 1:
        counts = np.unique(y, return_counts=True)[1].tolist()
    return bool(held >= max(2, len(counts)) and n - held >= len(counts) and min(counts) >= 2)


def _loss_of(member: Any) -> float:
    """Return the loss for comparing members, each on its own held-out rows."""
    if member.early_stopping and member.validation_scores_:
        if member.monitor == "valid_loss":
            return float(member.best_validation_loss_)
        return -float(member.best_validation_score_)
    return float(member.loss_)
