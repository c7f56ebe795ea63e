"""A fitted estimator: parameters set later affect the next fit, not the current one."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning

import nnbackend as nn
from nnbackend.errors import ArgumentError, ShapeError

SMALL: dict[str, Any] = {"max_iter": 3, "random_state": 0, "device": "numpy"}
X, LABELS = make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)
VALUES = make_regression(60, 6, n_targets=2, random_state=0)[1] / 100.0
YES = LABELS == 1

# name -> (class, its own parameters, targets)
KINDS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "classes": (nn.MLPClassifier, {"hidden_layer_sizes": (7, 4), "activation": "elu"}, LABELS),
    "layers": (
        nn.MLPClassifier,
        {"hidden_layer_sizes": [nn.Maxout(4), nn.Dropout(0.2), 5], "dropout": [0.1, 0, 0, 0.2]},
        np.array(["a", "b", "c"])[LABELS],
    ),
    "yes or no": (nn.MLPClassifier, {"hidden_layer_sizes": 7, "dtype": "float32"}, YES),
    "one class": (nn.MLPClassifier, {"hidden_layer_sizes": 7}, np.ones(60, int)),
    "several labels": (nn.MLPClassifier, {"hidden_layer_sizes": 7}, np.stack([YES, ~YES], axis=1)),
    "value": (nn.MLPRegressor, {"hidden_layer_sizes": 7, "activation": "tanh"}, VALUES[:, 0]),
    "counts": (nn.MLPRegressor, {"loss": "poisson", "hidden_layer_sizes": 7}, np.abs(VALUES)),
    "no hidden layer": (nn.MLPRegressor, {"hidden_layer_sizes": (), "loss": "huber"}, VALUES),
    "ensemble": (nn.TabularMLPClassifier, {"n_members": 2}, LABELS),
    "ensemble of values": (nn.TabularMLPRegressor, {"n_members": 2}, VALUES),
}
# Another valid value of every parameter.
OTHER: dict[str, Any] = {
    "hidden_layer_sizes": (3, 2, 1), "activation": "logistic", "solver": "lbfgs", "alpha": 7.0,
    "batch_size": 5, "learning_rate": "adaptive", "learning_rate_init": 0.5, "power_t": 0.1,
    "max_iter": 9, "shuffle": False, "random_state": 9, "tol": 0.5, "verbose": "bar",
    "warm_start": True, "momentum": 0.1, "nesterovs_momentum": False,
    "early_stopping": {False: True, True: False},
    "validation_fraction": 0.4, "beta_1": 0.1, "beta_2": 0.1, "epsilon": 0.1,
    "n_iter_no_change": 1, "max_fun": 2, "device": "numpy:0", "dropout": [0.5] * 9, "l1": 0.3,
    "weight_decay": 0.3, "max_norm": 0.1, "clip_norm": 0.1, "ema": 0.5,
    "schedule": {None: "cosine", "cosine": None},
    "monitor": "score", "callbacks": [nn.Callback()], "n_members": 1,
    "dtype": {None: "float32", "float32": "float64"},
    "loss": {"poisson": "squared_error", "huber": "poisson", "squared_error": nn.losses.poisson()},
    "label_smoothing": 0.5, "class_weight": "balanced", "n_bins": 3, "bin_scale": 0.01,
    "threshold": 0.01,
}  # fmt: skip


def _by_joblib(model: Any) -> Any:
    stored = io.BytesIO()
    joblib.dump(model, stored)
    stored.seek(0)
    return joblib.load(stored)


WAYS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda model: model,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "joblib": _by_joblib,
}


@pytest.fixture(autouse=True)
def _few_epochs_do_not_converge() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _fit(kind: str) -> Any:
    make, own, y = KINDS[kind]
    return make(**{**SMALL, **own}).fit(X, y)


def _predictions(model: Any) -> list[np.ndarray]:
    found = [model.predict(X)]
    if hasattr(model, "predict_proba"):
        found += [model.predict_proba(X), model.predict_log_proba(X)]
    return found if len(model.coefs_) == 1 else [*found, model.transform(X)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_set_after_the_fit_does_not_affect_it(kind: str) -> None:
    model = _fit(kind)
    before, parameters = _predictions(model), model.get_params()
    assert parameters.keys() <= OTHER.keys()
    for name, value in parameters.items():
        other = OTHER[name]
        model.set_params(**{name: other[value] if isinstance(other, dict) else other})
        for way, copied in WAYS.items():
            after = copied(model)
            for a, b in zip(before, _predictions(after), strict=True):
                np.testing.assert_array_equal(a, b, f"{name}, {way}")
                assert a.dtype == b.dtype, (name, way)
        assert clone(model).get_params()[name] != value, name
        model.set_params(**{name: value})
    for name, value in parameters.items():  # all at once
        other = OTHER[name]
        model.set_params(**{name: other[value] if isinstance(other, dict) else other})
    for copied in WAYS.values():
        for a, b in zip(before, _predictions(copied(model)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_memory_mapped_model_predicts_and_continues_training(tmp_path: Path) -> None:
    model = _fit("classes").set_params(hidden_layer_sizes=(2,))
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    assert not mapped.coefs_[0].flags.writeable
    np.testing.assert_array_equal(mapped.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(
        mapped.partial_fit(X, LABELS).coefs_[1], model.partial_fit(X, LABELS).coefs_[1]
    )


# ---- continued fits -----------------------------------------------------------------------------


def _continue(model: Any, how: str) -> Any:
    if how == "partial_fit":
        return model.partial_fit(X, LABELS)
    return model.set_params(warm_start=True).fit(X, LABELS)


@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
@pytest.mark.parametrize("way", WAYS)
def test_a_continued_fit_keeps_the_units_like_scikit_learn(way: str, how: str) -> None:
    fits = []
    for kind in (nn.MLPClassifier, theirs.MLPClassifier):
        model = kind((7,), random_state=0, max_iter=3).partial_fit(X, LABELS, classes=[0, 1, 2])
        model.set_params(hidden_layer_sizes=(3,))
        fits.append(_continue(WAYS[way](model), how))
    for ours, other in zip(*(model.coefs_ for model in fits), strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-12)
    np.testing.assert_allclose(fits[0].predict_proba(X), fits[1].predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
def test_a_continued_fit_keeps_activations_and_dtype(how: str) -> None:
    model = _fit("classes")
    model.partial_fit(X, LABELS)
    other = copy.deepcopy(model)
    other.set_params(activation="relu", hidden_layer_sizes=nn.Maxout(3), dtype="float32")
    for a, b in zip(_continue(model, how).coefs_, _continue(other, how).coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.dtype == np.float64


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
def test_the_first_rows_set_the_dtype_like_scikit_learn(dtypes: tuple[str, str]) -> None:
    fits = [nn.MLPClassifier(3, random_state=0), theirs.MLPClassifier(3, random_state=0)]
    for model in fits:
        for dtype in dtypes:
            model.partial_fit(X.astype(dtype), LABELS, classes=[0, 1, 2])
    assert fits[0].coefs_[0].dtype == fits[1].coefs_[0].dtype == dtypes[0]


def test_training_parameters_affect_a_continued_fit() -> None:
    model = _fit("classes")
    other = copy.deepcopy(model).set_params(dropout=0.5)
    assert np.abs(
        _continue(model, "warm_start").coefs_[0] - _continue(other, "warm_start").coefs_[0]
    ).any()


def test_a_continued_fit_keeps_its_outputs() -> None:
    model = _fit("value").set_params(warm_start=True)
    before = model.predict(X)
    with pytest.raises(ShapeError, match=r"y must have 1 column\(s\).*Received: 2"):
        model.fit(X, VALUES)
    with pytest.raises(ArgumentError, match=r"output activation, 'identity'. .* needs 'exp'"):
        model.set_params(loss="poisson").fit(X, np.abs(VALUES[:, 0]))
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("kind", ["ensemble", "ensemble of values"])
@pytest.mark.parametrize("wrong", [{"X": np.full((60, 6), np.nan)}, {"sample_weight": [1.0]}])
def test_a_failed_fit_keeps_the_ensemble(kind: str, wrong: dict[str, Any]) -> None:
    model = _fit(kind)
    before = model.predict(X)
    with pytest.raises(ValueError, match=r"NaN|sample_weight"):
        model.fit(**{"X": X + 9.0, "y": KINDS[kind][2], **wrong})
    np.testing.assert_array_equal(model.predict(X), before)


# ---- attributes that users can set --------------------------------------------------------------


def test_weights_of_other_sizes_are_used_like_scikit_learns() -> None:
    fits = [nn.MLPClassifier((7, 4), **SMALL), theirs.MLPClassifier((7, 4), random_state=0)]
    for model in fits:
        model.set_params(max_iter=3).fit(X, LABELS)
        model.coefs_[0], model.intercepts_[0] = model.coefs_[0][:, 2:], model.intercepts_[0][2:]
        model.coefs_[1] = model.coefs_[1][2:]
    np.testing.assert_allclose(*(model.predict_proba(X) for model in fits), atol=1e-12)


def test_a_changed_output_activation_is_used_like_scikit_learns() -> None:
    fits = [nn.MLPClassifier(7, **SMALL), theirs.MLPClassifier(7, random_state=0)]
    for model in fits:
        model.set_params(max_iter=3).fit(X, LABELS).out_activation_ = "identity"
    np.testing.assert_allclose(*(model.predict_proba(X) for model in fits), atol=1e-12)


@pytest.mark.parametrize("kind", ["value", "yes or no"])
def test_to_sklearn_converts_the_fit_not_the_parameters(kind: str) -> None:
    model = _fit(kind)
    model.set_params(activation="relu", hidden_layer_sizes=[nn.Maxout(3)])
    if kind == "value":
        model.set_params(loss="huber")
    other = model.to_sklearn()
    np.testing.assert_allclose(other.predict(X), model.predict(X), rtol=1e-6)
    other.set_params(hidden_layer_sizes=(9, 9))
    back = type(model).from_sklearn(other).set_params(device="numpy")
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    assert back.partial_fit(X, KINDS[kind][2]).coefs_[0].shape == (6, 7)


def test_weights_set_without_a_fit_have_the_layers_of_the_parameters() -> None:
    source = _fit("value")
    model = nn.MLPRegressor(hidden_layer_sizes=7, activation="tanh", device="numpy")
    for name in ("coefs_", "intercepts_", "n_features_in_", "n_outputs_", "out_activation_"):
        setattr(model, name, getattr(source, name))
    np.testing.assert_array_equal(model.predict(X), source.predict(X))
    model.set_params(hidden_layer_sizes=3, activation="relu")
    np.testing.assert_array_equal(model.to_models()[0].predict(X), source.predict(X))
