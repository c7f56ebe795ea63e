"""Continued fits: partial_fit keeps the optimizer state, warm_start resets it like scikit-learn."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import nnbackend as nn

RNG = np.random.default_rng(0)
X, WEIGHT = RNG.normal(size=(70, 5)), RNG.uniform(0.1, 1.0, 70)
TARGETS = {"MLPClassifier": RNG.integers(0, 3, 70), "MLPRegressor": RNG.normal(size=(70, 2))}
BATCHES = [slice(start, start + 16) for start in range(0, 70, 16)]  # the last has fewer rows
SMALL: dict[str, Any] = {"hidden_layer_sizes": 8, "random_state": 3, "shuffle": False}


@pytest.fixture(autouse=True)
def _few_epochs_do_not_converge() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _state(model: Any) -> list[bytes]:
    """Return the weights and the optimizer state as bytes."""
    vectors = [model._optimizer.vectors[name] for name in sorted(model._optimizer.vectors)]
    parts = [*model.coefs_, *model.intercepts_, *vectors, np.array(model._optimizer.steps)]
    return [part.tobytes() for part in parts]


def _batch_by_batch(model: Any, y: np.ndarray, weight: np.ndarray | None, epochs: int) -> Any:
    classes = {"classes": np.unique(y)} if isinstance(model, nn.MLPClassifier) else {}
    for _ in range(epochs):
        for part in BATCHES:
            w = None if weight is None else weight[part]
            model.partial_fit(X[part], y[part], w, **classes)
        model = pickle.loads(pickle.dumps(model))  # no state exists on the device only
    return model


SETTINGS: list[dict[str, Any]] = [
    {},
    {"solver": "sgd"},
    {"solver": "sgd", "nesterovs_momentum": False},
    {"solver": "adamw", "weight_decay": 0.1},
    {"solver": "adagrad"},
    {"solver": "rmsprop"},
    {"solver": "adadelta", "dtype": "float32"},
    {"dropout": [0.2, 0.5]},
    {"l1": 0.01, "clip_norm": 0.5, "max_norm": 1.0},
    {"schedule": "exponential", "hidden_layer_sizes": [nn.Maxout(4), 6]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_batch_by_batch_is_one_run_bit_for_bit(
    name: str, device: str, settings: dict[str, Any]
) -> None:
    pytest.importorskip(device)
    make, y = getattr(nn, name), TARGETS[name]
    options = {**SMALL, "device": device, **settings}
    once = make(batch_size=16, max_iter=2, **options).fit(X, y)
    assert _state(_batch_by_batch(make(**options), y, None, 2)) == _state(once)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_batch_by_batch_with_sample_weights_is_one_run(name: str) -> None:
    """Without alpha, which is divided by the mean weight of the rows of a call."""
    make, y = getattr(nn, name), TARGETS[name]
    options = {**SMALL, "device": "numpy", "alpha": 0.0}
    once = make(batch_size=16, max_iter=2, **options).fit(X, y, WEIGHT)
    assert _state(_batch_by_batch(make(**options), y, WEIGHT, 2)) == _state(once)


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_partial_fit_continues_a_fit(device: str) -> None:
    pytest.importorskip(device)
    y, options = TARGETS["MLPRegressor"], {**SMALL, "device": device}
    once = nn.MLPRegressor(batch_size=16, max_iter=3, **options).fit(X, y)
    parted = nn.MLPRegressor(batch_size=16, max_iter=2, **options).fit(X, y)
    parted.set_params(batch_size="auto")  # one batch for each call
    assert _state(_batch_by_batch(parted, y, None, 1)) == _state(once)


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_warm_start_keeps_the_weights_and_resets_the_optimizer(
    name: str, solver: str, device: str
) -> None:
    pytest.importorskip(device)
    y = TARGETS[name] if name == "MLPClassifier" else TARGETS[name][:, 0]
    options = {**SMALL, "solver": solver, "max_iter": 4, "warm_start": True}
    ours, other = getattr(nn, name)(device=device, **options), getattr(theirs, name)(**options)
    for _ in range(3):
        ours.fit(X, y)
        other.fit(X, y)
        for W, V in zip(ours.coefs_, other.coefs_, strict=True):
            np.testing.assert_allclose(W, V, rtol=1e-7, atol=1e-9)
        assert (ours.n_iter_, getattr(ours, "t_", 0)) == (other.n_iter_, getattr(other, "t_", 0))
    if solver != "lbfgs":
        assert ours.loss_curve_ == pytest.approx(other.loss_curve_)
        assert ours._optimizer.steps == 4  # of the last fit only


def test_another_solver_cannot_continue() -> None:
    model = nn.MLPRegressor(**SMALL, device="numpy").partial_fit(X, TARGETS["MLPRegressor"])
    model.set_params(solver="adagrad")
    with pytest.raises(ValueError, match=r"the first call, adam\. Received: adagrad"):
        model.partial_fit(X, TARGETS["MLPRegressor"])
    assert np.isfinite(model.fit(X, TARGETS["MLPRegressor"]).loss_)


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"solver": "lbfgs"}, {"solver": "adam"}),
    ({"early_stopping": True}, {"early_stopping": False}),
    ({"early_stopping": False}, {"early_stopping": True}),
    ({"dtype": "float32"}, {"dtype": "float64"}),
    ({}, {"solver": "sgd", "learning_rate": "invscaling", "power_t": 1e308}),
]


@pytest.mark.parametrize(("before", "after"), CHANGES, ids=str)
def test_parameters_can_change_before_a_warm_start(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    y = TARGETS["MLPRegressor"][:, 0]
    options = {**SMALL, "device": "numpy", "max_iter": 3, "warm_start": True}
    model = nn.MLPRegressor(**{**options, **before}).fit(X, y)
    model.set_params(**after).fit(X, y)
    assert np.isfinite(model.loss_curve_).all()
    assert len(model.loss_curve_) == (3 if before.get("solver") == "lbfgs" else 6)


def test_invalid_input_raises() -> None:
    y = TARGETS["MLPClassifier"]
    model = nn.MLPClassifier(**SMALL, device="numpy")
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        model.partial_fit(X[:0], y[:0], classes=[0, 1, 2])
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="NoneType and int"):
        model.fit(X, np.where(y == 1, None, y))
    with pytest.raises(ValueError, match="class_weight must be a dict"):
        model.set_params(class_weight=[1.0]).fit(X, y)
    model.set_params(class_weight=None).fit(X, y)
    with pytest.raises(ValueError, match="'solver' parameter"):
        model.set_params(solver="newton").partial_fit(X, y)
