"""The estimators for tables: their parameters, their fits, and scikit-learn's contract."""

from __future__ import annotations

import inspect
import pickle
import signal
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn_checks import SKIPS, checked, named

import nnbackend as nn

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": 8, "max_iter": 4, "random_state": 0, "device": "numpy",
}  # fmt: skip
X, LABELS = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
X_REG, Y_REG = make_regression(120, 6, noise=1.0, random_state=0)
LABELS = np.array(["a", "b", "c"])[LABELS]
# The smallest fit that passes the checks, because every fit has two members.
QUICK: dict[str, Any] = {
    "hidden_layer_sizes": 4, "max_iter": 6, "learning_rate_init": 0.1, "n_members": 2,
}  # fmt: skip
NAMES = ("TabularMLPClassifier", "TabularMLPRegressor")
# Of the first release of these defaults, on NumPy.
RECORDED_CLASSES = [
    [0.27450212949514363, 0.30037790928426783, 0.42511996122058854],
    [0.3689582775417578, 0.19958375170334175, 0.43145797075490033],
]
RECORDED_VALUES = [76.69548961548482, 13.896872520383305]
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
        "learning_rate_init": 0.003, "beta_2": 0.95, "weight_decay": 0.02, "schedule": "cosine",
        "dropout": 0.1, "label_smoothing": 0.1, "early_stopping": True,
        "validation_fraction": 0.2, "n_iter_no_change": np.inf, "monitor": "valid_loss",
        "n_members": 4,
    }  # fmt: skip
    if name == "TabularMLPRegressor":
        del expected["label_smoothing"]
    assert {k: v for k, v in found.items() if k not in one or v != one[k]} == expected
    kinds = [p.kind for p in inspect.signature(getattr(nn, name)).parameters.values()]
    n_positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert n_positional == (2 if name == "TabularMLPClassifier" else 3)


def test_the_first_fit_equals_recorded_numbers() -> None:
    """A change of a default, of the seeds or of the scales shows here."""
    classes = nn.TabularMLPClassifier(**SMALL).fit(X, LABELS)
    np.testing.assert_allclose(classes.predict_proba(X[:2]), RECORDED_CLASSES, rtol=1e-6)
    values = nn.TabularMLPRegressor(**SMALL).fit(X_REG, Y_REG)
    np.testing.assert_allclose(values.predict(X_REG[:2]), RECORDED_VALUES, rtol=1e-6)


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


def test_members_differ_and_their_probabilities_are_averaged() -> None:
    model = nn.TabularMLPClassifier(**SMALL, n_members=3).fit(X, LABELS)
    scaled = model.scaler_.transform(X, dtype=np.float64)
    parts = [member.predict_proba(scaled) for member in model.estimators_]
    assert len(parts) == 3
    assert not np.allclose(parts[0], parts[1])
    np.testing.assert_allclose(model.predict_proba(X), np.mean(parts, axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert set(model.predict(X)) <= {"a", "b", "c"}


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


def test_sparse_rows_are_scaled_after_a_dense_fit() -> None:
    model = nn.TabularMLPClassifier(**SMALL).fit(X, LABELS)
    found = model.predict_proba(scipy.sparse.csr_array(X))
    np.testing.assert_allclose(found, model.predict_proba(X))


def test_eval_set_is_scaled_like_the_rows() -> None:
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
