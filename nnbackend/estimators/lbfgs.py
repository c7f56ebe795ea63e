"""The solver "lbfgs": SciPy's L-BFGS-B on the engine's loss and gradient.

It is SciPy's, not nnbackend's LBFGS, because users of scikit-learn expect its limits (max_fun) and
its iterates. Its few vectors are on the host; the passes over the data run on the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from nnbackend.data.sparse import SparseRows
from nnbackend.errors import ArgumentError
from nnbackend.estimators.fit_data import FitData
from nnbackend.network.evaluation.passes import ROWS_AT_ONCE
from nnbackend.network.network import Network
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


def fit_lbfgs(estimator: Any, net: Network, data: FitData, config: TrainConfig) -> None:
    """Minimise the loss of all rows; leave the best weights in the network.

    Ctrl-C ends it with the weights of the last completed iteration.
    Raises: ArgumentError for callbacks and validation rows, which need epochs.
    """
    _refuse_what_needs_epochs(estimator, data)
    find = _by_parts if isinstance(data.X, SparseRows) else _at_once
    objective = find(net, data, config)
    theta = net.backend.to_host(net.theta).astype(np.float64)
    progress = _Progress(theta, bool(estimator.verbose))
    largest = max(W * n for (W, n), _ in net.layout.shapes) * data.n
    with net.backend.active(largest), np.errstate(over="ignore", invalid="ignore"):
        try:
            result = scipy.optimize.minimize(
                objective,
                theta,
                method="L-BFGS-B",
                jac=True,
                callback=progress,
                options={
                    "maxfun": estimator.max_fun,
                    "maxiter": estimator.max_iter,
                    "gtol": estimator.tol,
                },
            )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
            _place(net, progress.theta)
            estimator.n_iter_, estimator.loss_ = progress.n, progress.loss
            return
        except MemoryError:
            _place(net, progress.theta)
            raise
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = float(result.fun)
    _place(net, result.x)


class _Progress:
    """Keeps the last iteration's weights, and prints its loss if verbose."""

    def __init__(self, theta: np.ndarray, speaks: bool) -> None:
        self.theta, self.speaks = theta, speaks
        self.n, self.loss = 0, float("nan")

    def __call__(self, intermediate_result: Any) -> None:
        # The argument's name makes SciPy pass the loss too. It reuses the vector.
        self.theta = np.array(intermediate_result.x)
        self.loss = float(intermediate_result.fun)
        self.n += 1
        if self.speaks:
            print(f"Iteration {self.n}, loss = {self.loss:.8f}")


def _refuse_what_needs_epochs(estimator: Any, data: FitData) -> None:
    given = ["callbacks"] if estimator.callbacks else []
    given += ["eval_set"] if data.validation is not None else []
    if given:
        raise ArgumentError(
            "callbacks and eval_set need a solver with epochs, such as 'adam'. "
            f"Received: solver='lbfgs' with {' and '.join(given)}. Remove one of them."
        )


def _place(net: Network, theta: np.ndarray) -> None:
    net.backend.to_device(theta.astype(net.dtype), out=net.theta)


def _at_once(net: Network, data: FitData, config: TrainConfig) -> Objective:
    """Return the loss and its gradient, from all rows in one pass."""
    trainer = new_trainer(net, data.X, data.y, config, sample_weight=data.weight)
    assert trainer.state.lbfgs is not None
    evaluate, gradient = trainer.state.lbfgs.evaluate, trainer.state.lbfgs.grad

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        _place(net, theta)
        loss = evaluate()
        return loss, net.backend.to_host(gradient).astype(np.float64)

    return objective


def _by_parts(net: Network, data: FitData, config: TrainConfig) -> Objective:
    """Return the same from sparse rows, made dense part by part."""
    weight = np.ones(data.n) if data.weight is None else data.weight
    l1, l2 = config.penalty(data.n)
    n_weights = net.layout.n_weights

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        _place(net, theta)
        loss, gradient = 0.0, np.zeros_like(theta)
        for start in range(0, data.n, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            share = float(weight[part].sum() / weight.sum())
            if share:
                found = net.backprop(
                    net.backend.to_device(net.backend.narrowed(data.X[part])),
                    data.y[part], weight[part],
                )  # fmt: skip
                loss += share * found.loss
                gradient += share * net.backend.to_host(found.vector)
        w = theta[:n_weights]
        gradient[:n_weights] += l2 * w + l1 * np.sign(w)
        return loss + l1 * float(np.abs(w).sum()) + 0.5 * l2 * float(w @ w), gradient

    return objective
