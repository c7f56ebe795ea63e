"""The estimators with other tools: copies, pickles, searches, routing, tables, conversion."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import sklearn
import sklearn.neural_network as theirs
from rows import registered
from scipy.special import softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nnbackend as nn

ESTIMATORS = ("MLPClassifier", "MLPRegressor")
SMALL: dict[str, Any] = {"hidden_layer_sizes": 8, "max_iter": 5, "random_state": 0}
X, Y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
WEIGHT = np.linspace(0.1, 2.0, 120)
X_REG, Y_REG = make_regression(120, 6, n_targets=2, noise=1.0, random_state=0)
Y_REG = Y_REG / Y_REG.std()


@pytest.fixture(autouse=True)
def _few_epochs_do_not_converge() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _data(name: str) -> tuple[Any, Any]:
    return (X_REG, Y_REG) if name == "MLPRegressor" else (X, Y)


def _fitted() -> Any:
    return nn.MLPClassifier(**SMALL).fit(X, Y)


def _farthest(ours: Any, other: Any) -> float:
    pairs = zip([*ours.coefs_, *ours.intercepts_], [*other.coefs_, *other.intercepts_], strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


# ---- copies and pickles -------------------------------------------------------------------------


def test_a_pickle_holds_no_device_and_continues_training() -> None:
    model = nn.MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1, 2])
    model.predict(X)
    stored = pickle.dumps(model)
    assert b"Backend" not in stored
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    model.partial_fit(X, Y)
    again.partial_fit(X, Y)
    assert _farthest(model, again) == 0.0


def test_clones_share_a_backend_and_pickles_reopen_it() -> None:
    with registered("ghost"):
        backend = nn.get_backend("ghost")
        model = nn.MLPClassifier(device=backend, **SMALL).fit(X, Y)
        assert clone(model).device is backend
        stored = pickle.dumps(model)
        assert b"Ghost" not in stored
        again = pickle.loads(stored)
        assert again.device.device == backend.device
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_clone_keeps_every_parameter() -> None:
    model = nn.MLPClassifier((4, nn.Maxout(3)), activation=["elu", "relu"], dropout=[0, 0.1, 0])
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("name", ["MLPClassifier", "TabularMLPClassifier"])
def test_a_fitted_estimator_moves_to_another_device(name: str) -> None:
    model = getattr(nn, name)(device="numpy", **SMALL).fit(X, Y)
    before = model.predict_proba(X)
    with registered("ghost"):
        moved = pickle.loads(pickle.dumps(model)).set_params(device="ghost")
        model.set_params(device="ghost")
        backend = nn.get_backend("ghost")
        for one in (model, moved):
            np.testing.assert_allclose(one.predict_proba(X), before, rtol=1e-6)
            assert backend.owns(one.predict_proba(backend.to_device(X)))
            used = getattr(one, "estimators_", [one])
            assert {m._network().backend.device for m in used} == {backend.device}


# ---- searches and other estimators --------------------------------------------------------------


def test_grid_search_in_processes() -> None:
    pipe = make_pipeline(StandardScaler(), nn.MLPClassifier(**SMALL))
    search = GridSearchCV(pipe, {"mlpclassifier__dropout": [0.0, 0.3]}, cv=2, n_jobs=2)
    assert search.fit(X, Y).predict(X).shape == (120,)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: BaggingClassifier(m, n_estimators=2, random_state=0),
        lambda m: CalibratedClassifierCV(m, cv=2),
    ],
    ids=["bagging", "calibration"],
)
def test_meta_estimators(make: Any) -> None:
    model = make(nn.MLPClassifier(**{**SMALL, "max_iter": 300})).fit(X, Y)
    assert model.score(X, Y) > 0.5


def test_cross_validate_and_permutation_importance() -> None:
    scores = cross_validate(nn.MLPRegressor(**SMALL), X_REG, Y_REG, cv=2)["test_score"]
    assert np.isfinite(scores).all()
    found = permutation_importance(_fitted(), X, Y, n_repeats=2, random_state=0)
    assert found.importances_mean.shape == (6,)


def test_weights_are_routed_like_scikit_learns() -> None:
    scores = []
    with sklearn.config_context(enable_metadata_routing=True):
        for library in (nn, theirs):
            model = library.MLPClassifier(**SMALL).set_fit_request(sample_weight=True)
            scaler = StandardScaler().set_fit_request(sample_weight=True)
            pipe = make_pipeline(scaler, model.set_score_request(sample_weight=True))
            found = cross_validate(pipe, X, Y, params={"sample_weight": WEIGHT}, cv=2)
            scores.append(found["test_score"])
    np.testing.assert_allclose(*scores)


def test_a_validation_set_is_routed() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = nn.MLPClassifier(**SMALL).set_fit_request(eval_set=True)
        pipe = make_pipeline(StandardScaler(), model).fit(X, Y, eval_set=(X[:40], Y[:40]))
    assert len(pipe[-1].validation_scores_) == SMALL["max_iter"]


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_several_threads_can_predict_at_once(device: str) -> None:
    pytest.importorskip(device)
    model = nn.MLPClassifier(device=device, **SMALL).fit(X, Y)
    parts = [np.tile(X[i : i + 20], (5, 1)) for i in range(100)]
    alone = [model.predict_proba(part) for part in parts]
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(model.predict_proba, parts))
    finally:
        sys.setswitchinterval(before)
    np.testing.assert_array_equal(together, alone)


# ---- tables in, tables out ----------------------------------------------------------------------


def test_hidden_units_have_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    model = nn.MLPClassifier(hidden_layer_sizes=(8, 3), max_iter=2).set_output(transform="pandas")
    hidden = model.fit(frame, Y).transform(frame)
    assert list(hidden.columns) == [f"mlpclassifier{i}" for i in range(3)]
    assert list(model.feature_names_in_) == list("abcdef")
    with pytest.raises(nn.errors.ArgumentError, match=r"set_output\(transform='default'\)"):
        model.transform(frame, layer=0)
    assert model.set_output(transform="default").transform(frame, layer=0).shape == (120, 8)


def test_a_network_can_precede_another_estimator() -> None:
    pipe = make_pipeline(StandardScaler(), nn.MLPClassifier(**SMALL), LogisticRegression())
    assert pipe.fit(X, Y).score(X, Y) > 0.5


def test_html_shows_the_parameters_set() -> None:
    assert "MLPClassifier" in _fitted()._repr_html_()
    assert "dropout" in nn.MLPClassifier(dropout=0.3)._repr_html_()


# ---- conversion to scikit-learn's estimators and back -------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_to_scikit_learn_and_back(name: str) -> None:
    x, y = _data(name)
    ours = getattr(nn, name)(activation="sigmoid", dropout=0.1, **SMALL).fit(x, y)
    other = ours.to_sklearn()
    assert type(other) is getattr(theirs, name)
    np.testing.assert_allclose(other.predict(x), ours.predict(x), rtol=1e-9)
    back = getattr(nn, name).from_sklearn(other)
    np.testing.assert_array_equal(back.predict(x), ours.predict(x))
    assert _farthest(back.partial_fit(x, y), other) > 0.0
    with pytest.raises(nn.errors.ArgumentError, match="elu"):
        getattr(nn, name)(activation="elu", **SMALL).fit(x, y).to_sklearn()


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
def test_a_converted_fit_can_be_continued(settings: dict[str, Any]) -> None:
    ours = nn.MLPClassifier(**{**SMALL, **settings}).fit(X, Y)
    other = ours.to_sklearn().set_params(warm_start=True).fit(X, Y)
    again = nn.MLPClassifier.from_sklearn(other).fit(X, Y)
    for after in (other, again):
        assert np.isfinite(after.predict_proba(X)).all()
        if not after.early_stopping:  # which restores better weights
            assert _farthest(ours, after) > 0.0


@pytest.mark.parametrize("other", [theirs.MLPRegressor(), LogisticRegression()], ids=str)
def test_only_the_same_class_is_converted(other: Any) -> None:
    with pytest.raises(nn.errors.ArgumentError, match=f"Received: {type(other).__name__}"):
        nn.MLPClassifier.from_sklearn(other)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_members_of_an_ensemble_are_converted_one_by_one(name: str) -> None:
    x, y = _data(name)
    model = getattr(nn, f"Tabular{name}")(n_members=2, **SMALL).fit(x, y)
    assert not hasattr(model, "to_sklearn")
    assert not hasattr(model, "from_sklearn")
    with pytest.raises(nn.errors.ArgumentError, match=r"layers of silu\. Fit with supported ones"):
        model.estimators_[0].to_sklearn()
    model.set_params(activation="tanh").fit(x, y)
    rows = model.encoder_.transform(x)
    members = [member.to_sklearn() for member in model.estimators_]
    if name == "MLPClassifier":
        logits = np.mean([member.predict_log_proba(rows) for member in members], axis=0)
        np.testing.assert_allclose(softmax(logits, axis=1), model.predict_proba(x), rtol=1e-4)
    else:
        mean = np.mean([member.predict(rows) for member in members], axis=0)
        np.testing.assert_allclose(model.target_scaler_.inverse(mean), model.predict(x), rtol=1e-3)
