"""The estimators for tables: their parameters, their fits, and scikit-learn's contract."""

from __future__ import annotations

import inspect
import pickle
import signal
import warnings
from typing import Any

import numpy as np
import pandas
import pytest
import scipy.sparse
import scipy.special
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn_checks import SKIPS, checked, named

import nnbackend as nn

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": 8, "max_iter": 4, "random_state": 0, "device": "numpy",
}  # fmt: skip
X, LABELS = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
X_REG, Y_REG = make_regression(120, 6, noise=1.0, random_state=0)
LABELS = np.array(["a", "b", "c"])[LABELS]
# The smallest fit that passes the checks, because every fit has two members. In float32 a row's
# result depends in the last digit on the rows beside it, which one check does not allow.
QUICK: dict[str, Any] = {
    "hidden_layer_sizes": 4, "max_iter": 30, "learning_rate_init": 0.03, "n_members": 2,
    "dtype": "float64", "n_bins": 4,
}  # fmt: skip
NAMES = ("TabularMLPClassifier", "TabularMLPRegressor")
# Of the first version of these defaults, on NumPy.
RECORDED_CLASSES = [
    [0.04760478064417839, 0.5828325152397156, 0.36956271529197693],
    [0.12557439506053925, 0.5534201860427856, 0.3210054337978363],
]
RECORDED_VALUES = [4.229724763221785, 2.164382402478159]
UNEQUAL = "held-out rows and scale depend on the number of rows, whatever their weights"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": UNEQUAL,
    "check_sample_weight_equivalence_on_sparse_data": UNEQUAL,
}


@pytest.mark.parametrize("name", NAMES)
def test_check_estimator_except_named_failures(name: str) -> None:
    model = getattr(nn, name)(**QUICK, device="numpy")
    found = checked(model, EXPECTED)
    assert not named(found, "failed")
    assert named(found, "xfail").keys() == EXPECTED.keys()
    assert named(found, "skipped").keys() <= SKIPS.keys()
    assert len(found) > 50


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_documented_ones(name: str) -> None:
    one = getattr(nn, name.removeprefix("Tabular"))().get_params()
    found = getattr(nn, name)().get_params()
    assert one.keys() - found.keys() == {"learning_rate", "power_t", "warm_start", "max_fun"}
    expected = {
        "hidden_layer_sizes": (128, 128), "activation": "silu", "solver": "adamw", "alpha": 0.0,
        "learning_rate_init": 0.005, "beta_2": 0.95, "weight_decay": 0.02, "schedule": "cosine",
        "dropout": 0.1, "label_smoothing": 0.1, "early_stopping": True, "max_iter": "auto",
        "validation_fraction": 0.2, "n_iter_no_change": 40, "monitor": "valid_loss", "tol": 0.0,
        "n_members": 4, "n_bins": 24, "bin_scale": 0.3, "threshold": None,
    }  # fmt: skip
    if name == "TabularMLPRegressor":
        del expected["label_smoothing"], expected["threshold"]
        expected["bin_scale"] = 1.0
    assert {k: v for k, v in found.items() if k not in one or v != one[k]} == expected
    kinds = [p.kind for p in inspect.signature(getattr(nn, name)).parameters.values()]
    n_positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert n_positional == (2 if name == "TabularMLPClassifier" else 3)


def test_the_first_fit_equals_recorded_numbers() -> None:
    """A change of a default, of the seeds or of the scales shows here."""
    classes = nn.TabularMLPClassifier(**SMALL).fit(X, LABELS)
    np.testing.assert_allclose(classes.predict_proba(X[:2]), RECORDED_CLASSES, rtol=1e-4)
    values = nn.TabularMLPRegressor(**SMALL).fit(X_REG, Y_REG)
    np.testing.assert_allclose(values.predict(X_REG[:2]), RECORDED_VALUES, rtol=1e-4)


def test_members_have_the_parameters_of_the_ensemble() -> None:
    model = nn.TabularMLPClassifier(**SMALL, beta_2=0.9, callbacks=[], verbose=0).fit(X, LABELS)
    for member in model.estimators_:
        own, given = member.get_params(), model.get_params()
        assert own["batch_size"] == 32
        assert {k: own[k] for k in given.keys() & own.keys() - {"batch_size", "random_state"}} == {
            k: given[k] for k in own.keys() & given.keys() - {"batch_size", "random_state"}
        }
    seeds = {member.random_state for member in model.estimators_}
    assert len(seeds) == len(model.estimators_) == 4


def test_early_stopping_can_be_switched_off() -> None:
    assert nn.TabularMLPClassifier(**SMALL).fit(X, LABELS).validation_scores_
    model = nn.TabularMLPClassifier(**SMALL, early_stopping=False).fit(X, LABELS)
    assert model.validation_scores_ is None
    assert clone(model).early_stopping is False


def test_members_differ_and_their_logits_are_averaged() -> None:
    model = nn.TabularMLPClassifier(**SMALL, n_members=3).fit(X, LABELS)
    rows = model.encoder_.transform(X)
    parts = [np.log(member.predict_proba(rows)) for member in model.estimators_]
    assert len(parts) == 3
    assert not np.allclose(parts[0], parts[1])
    expected = scipy.special.softmax(np.mean(parts, axis=0), axis=1)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5)
    assert set(model.predict(X)) <= {"a", "b", "c"}


def test_probabilities_are_calibrated_by_the_held_out_folds() -> None:
    """Labels that a fifth of the rows lack: smoothing bends probabilities, calibration does not."""
    x, y = make_classification(
        2000, 4, n_informative=3, n_redundant=0, flip_y=0.4, class_sep=2.0, random_state=1
    )
    model = nn.TabularMLPClassifier(16, max_iter=20, n_members=2, random_state=0, device="numpy")
    found = {}
    for smoothing in (0.0, 0.3):
        model.set_params(label_smoothing=smoothing).fit(x[:1000], y[:1000])
        found[smoothing] = log_loss(y[1000:], model.predict_proba(x[1000:]))
    assert model.temperature_ < 0.9
    assert found[0.3] == pytest.approx(found[0.0], rel=0.03)


def test_a_table_with_text_dates_and_gaps_is_taken_whole() -> None:
    rng = np.random.default_rng(0)
    n = 300
    city, size = rng.choice(["Lima", "Cusco", "Puno"], n), rng.normal(size=n)
    y = np.where(city == "Lima", 2.0, 0.0) + size
    gaps = np.where(rng.random(n) < 0.2, np.nan, size)
    frame = pandas.DataFrame({"city": city, "size": gaps, "id": [f"k{i}" for i in range(n)]})
    frame["since"] = pandas.to_datetime("2026-01-01") + pandas.to_timedelta(np.arange(n), "D")
    model = nn.TabularMLPRegressor(**{**SMALL, "max_iter": 60}).fit(frame[:250], y[:250])
    assert model.score(frame[250:], y[250:]) > 0.5
    new = frame[250:].assign(city="Ica")
    new.iloc[0, 1] = np.nan
    assert np.isfinite(model.predict(new)).all()
    np.testing.assert_allclose(model.to_model().predict(new), model.predict(new), rtol=1e-5)


def test_attributes_are_the_best_members() -> None:
    model = nn.TabularMLPRegressor(**SMALL).fit(X_REG, Y_REG)
    losses = [member.best_validation_loss_ for member in model.estimators_]
    assert model.best_member_ == int(np.argmin(losses))
    best = model.estimators_[model.best_member_]
    assert model.coefs_[0] is best.coefs_[0]
    assert model.loss_curve_ == best.loss_curve_
    assert model.transform(X_REG).shape == (120, 8)


def test_the_scale_of_targets_does_not_matter() -> None:
    small = nn.TabularMLPRegressor(**SMALL).fit(X_REG, Y_REG)
    large = nn.TabularMLPRegressor(**SMALL).fit(X_REG, 1e6 * Y_REG + 1e8)
    np.testing.assert_allclose((large.predict(X_REG) - 1e8) / 1e6, small.predict(X_REG), rtol=1e-5)


def test_a_pickle_predicts_the_same_and_holds_no_device() -> None:
    model = nn.TabularMLPClassifier(**SMALL).fit(X, LABELS)
    model.predict(X)
    stored = pickle.dumps(model)
    assert b"Backend" not in stored
    np.testing.assert_array_equal(pickle.loads(stored).predict_proba(X), model.predict_proba(X))


def test_sparse_rows_are_encoded_after_a_dense_fit() -> None:
    model = nn.TabularMLPClassifier(**SMALL).fit(X, LABELS)
    found = model.predict_proba(scipy.sparse.csr_array(X))
    np.testing.assert_allclose(found, model.predict_proba(X))


def test_eval_set_is_encoded_like_the_rows() -> None:
    model = nn.TabularMLPRegressor(**SMALL, n_members=1).fit(X_REG, Y_REG, eval_set=(X_REG, Y_REG))
    assert model.score(X_REG, Y_REG) == pytest.approx(
        model.validation_scores_[int(np.argmin(model.validation_loss_curve_))]
    )


@pytest.mark.parametrize("wrong", [{"warm_start": True}, {"learning_rate": "adaptive"},
                                   {"power_t": 0.5}, {"max_fun": 9}], ids=str)  # fmt: skip
def test_parameters_of_one_network_are_none_of_an_ensemble(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(wrong))}'"):
        nn.TabularMLPClassifier(**wrong)
    with pytest.raises(ValueError, match="Invalid parameter"):
        nn.TabularMLPClassifier().set_params(**wrong)


@pytest.mark.parametrize("solver", ["lbfgs", nn.LBFGS()])
def test_an_ensemble_needs_a_solver_with_mini_batches(solver: Any) -> None:
    with pytest.raises(ValueError, match="'solver' parameter of TabularMLPClassifier must be"):
        nn.TabularMLPClassifier(**SMALL, solver=solver).fit(X, LABELS)


@pytest.mark.parametrize("wrong", [{"preset": "tabular"}, {"n_members": 2}], ids=str)
def test_one_network_has_no_parameter_of_an_ensemble(wrong: dict[str, Any]) -> None:
    for kind in (nn.MLPClassifier, nn.MLPRegressor):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            kind(**wrong)


def test_reaching_max_iter_is_no_warning_but_divergence_is() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.TabularMLPClassifier(**SMALL, callbacks=nn.Callback()).fit(X, LABELS)
    wild: dict[str, Any] = {**SMALL, "solver": "sgd", "learning_rate_init": 1e6, "schedule": None}
    with pytest.warns(ConvergenceWarning, match="need to be preprocessed"):
        nn.TabularMLPRegressor(**wild).fit(X_REG, Y_REG)


def test_members_keep_the_users_callbacks_only() -> None:
    own = nn.Callback()
    model = nn.TabularMLPClassifier(**SMALL, callbacks=own).fit(X, LABELS)
    assert all(member.callbacks is own for member in model.estimators_)
    with pytest.raises(nn.errors.ArgumentError, match=r"Received: callbacks=\[1\]"):
        nn.TabularMLPClassifier(**SMALL, callbacks=[1]).fit(X, LABELS)


class _Interrupt(nn.Callback):
    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_ends_the_whole_fit() -> None:
    with pytest.warns(UserWarning, match="interrupted by user"):
        model = nn.TabularMLPClassifier(**SMALL, callbacks=_Interrupt()).fit(X, LABELS)
    assert len(model.estimators_) == 1
    assert model.n_iter_ == 1


class _InterruptBegin(nn.Callback):
    """Sends Ctrl-C before the first epoch of a member."""

    def __init__(self, member: int) -> None:
        self.member = member

    def on_train_begin(self, trainer: Any) -> None:
        self.member -= 1
        if self.member == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_before_a_members_first_epoch_keeps_earlier_members() -> None:
    with pytest.warns(UserWarning, match="interrupted by user"):
        model = nn.TabularMLPClassifier(**SMALL, callbacks=_InterruptBegin(2)).fit(X, LABELS)
    assert len(model.estimators_) == 1
    assert model.predict(X).shape == LABELS.shape


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.filterwarnings("ignore:Training interrupted")
def test_ctrl_c_before_the_first_epoch_keeps_the_previous_fit() -> None:
    model = nn.TabularMLPClassifier(**SMALL).fit(X, LABELS)
    before = model.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=_InterruptBegin(1)).fit(X, LABELS)
    np.testing.assert_array_equal(model.predict_proba(X), before)
