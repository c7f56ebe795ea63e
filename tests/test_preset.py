"""preset="tabular": the values it sets, its fits, and scikit-learn's contract."""

from __future__ import annotations

import pickle
import signal
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn_checks import SKIPS, checked, named

import nnbackend as nn
from nnbackend.estimators.presets import TABULAR, filled

SMALL: dict[str, Any] = {
    "preset": "tabular", "hidden_layer_sizes": 8, "max_iter": 4, "random_state": 0,
    "device": "numpy",
}  # fmt: skip
X, LABELS = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
X_REG, Y_REG = make_regression(120, 6, noise=1.0, random_state=0)
LABELS = np.array(["a", "b", "c"])[LABELS]
# The smallest fit that passes the checks, because every fit has two members.
QUICK: dict[str, Any] = {
    "preset": "tabular", "hidden_layer_sizes": 4, "max_iter": 6, "learning_rate_init": 0.1,
}  # fmt: skip
UNEQUAL = "held-out rows and scale depend on the number of rows, whatever their weights"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": UNEQUAL,
    "check_sample_weight_equivalence_on_sparse_data": UNEQUAL,
}


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_check_estimator_except_named_failures(name: str) -> None:
    model = getattr(nn, name)(**QUICK, n_members=2, device="numpy")
    found = checked(model, EXPECTED)
    assert not named(found, "failed")
    assert named(found, "xfail").keys() == EXPECTED.keys()
    assert named(found, "skipped").keys() <= SKIPS.keys()
    assert len(found) > 50


def test_user_parameters_override_the_preset_also_in_a_clone() -> None:
    model = clone(nn.MLPClassifier(preset="tabular", beta_2=0.9, dropout=[0.0, 0.1, 0.2]))
    values = filled(model, 1000)
    assert (values["beta_2"], values["dropout"]) == (0.9, [0.0, 0.1, 0.2])
    rest = TABULAR.keys() - {"beta_2", "dropout"}
    assert {name: values[name] for name in rest} == {name: TABULAR[name] for name in rest}
    assert model.get_params()["solver"] == "adam"


def test_a_default_given_in_another_type_counts_as_set() -> None:
    model = nn.MLPClassifier(**SMALL, early_stopping=np.False_).fit(X, LABELS)
    assert model.validation_scores_ is None
    assert nn.MLPClassifier(**SMALL, early_stopping=False).fit(X, LABELS).validation_scores_


def test_members_differ_and_their_probabilities_are_averaged() -> None:
    model = nn.MLPClassifier(**SMALL, n_members=3).fit(X, LABELS)
    scaled = model.scaler_.transform(X, dtype=np.float64)
    parts = [member.predict_proba(scaled) for member in model.estimators_]
    assert len(parts) == 3
    assert not np.allclose(parts[0], parts[1])
    np.testing.assert_allclose(model.predict_proba(X), np.mean(parts, axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert set(model.predict(X)) <= {"a", "b", "c"}


def test_attributes_are_the_best_members() -> None:
    model = nn.MLPRegressor(**SMALL).fit(X_REG, Y_REG)
    losses = [member.best_validation_loss_ for member in model.estimators_]
    assert model.best_member_ == int(np.argmin(losses))
    best = model.estimators_[model.best_member_]
    assert model.coefs_[0] is best.coefs_[0]
    assert model.loss_curve_ == best.loss_curve_
    assert model.transform(X_REG).shape == (120, 8)


def test_the_scale_of_targets_does_not_matter() -> None:
    small = nn.MLPRegressor(**SMALL).fit(X_REG, Y_REG)
    large = nn.MLPRegressor(**SMALL).fit(X_REG, 1e6 * Y_REG + 1e8)
    np.testing.assert_allclose((large.predict(X_REG) - 1e8) / 1e6, small.predict(X_REG), rtol=1e-5)


def test_a_pickle_predicts_the_same_and_holds_no_device() -> None:
    model = nn.MLPClassifier(**SMALL).fit(X, LABELS)
    model.predict(X)
    stored = pickle.dumps(model)
    assert b"Backend" not in stored
    np.testing.assert_array_equal(pickle.loads(stored).predict_proba(X), model.predict_proba(X))


def test_sparse_rows_are_scaled_after_a_dense_fit() -> None:
    model = nn.MLPClassifier(**SMALL).fit(X, LABELS)
    found = model.predict_proba(scipy.sparse.csr_array(X))
    np.testing.assert_allclose(found, model.predict_proba(X))


def test_eval_set_is_scaled_like_the_rows() -> None:
    model = nn.MLPRegressor(**SMALL, n_members=1).fit(X_REG, Y_REG, eval_set=(X_REG, Y_REG))
    assert model.score(X_REG, Y_REG) == pytest.approx(
        model.validation_scores_[int(np.argmin(model.validation_loss_curve_))]
    )


def test_a_fit_without_preset_deletes_the_members() -> None:
    model = nn.MLPClassifier(**SMALL).fit(X, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.set_params(preset=None).fit(X, LABELS)
    assert not hasattr(model, "estimators_")
    plain = clone(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain.fit(X, LABELS)
    np.testing.assert_array_equal(plain.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("wrong", [{"solver": "lbfgs"}, {"warm_start": True}])
def test_parameters_that_exclude_a_preset_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(nn.errors.ArgumentError, match="preset='tabular'"):
        nn.MLPClassifier(**SMALL, **wrong).fit(X, LABELS)
    assert not hasattr(nn.MLPClassifier(**SMALL), "partial_fit")
    with pytest.raises(nn.errors.ArgumentError, match="estimators_"):
        nn.MLPClassifier(**SMALL).fit(X, LABELS).to_sklearn()


class _Interrupt(nn.Callback):
    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_ends_the_whole_fit() -> None:
    with pytest.warns(UserWarning, match="interrupted by user"):
        model = nn.MLPClassifier(**SMALL, callbacks=_Interrupt()).fit(X, LABELS)
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
        model = nn.MLPClassifier(**SMALL, callbacks=_InterruptBegin(2)).fit(X, LABELS)
    assert len(model.estimators_) == 1
    assert model.predict(X).shape == LABELS.shape


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.filterwarnings("ignore:Training interrupted")
def test_ctrl_c_before_the_first_epoch_keeps_the_previous_fit() -> None:
    model = nn.MLPClassifier(**SMALL).fit(X, LABELS)
    before = model.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=_InterruptBegin(1)).fit(X, LABELS)
    np.testing.assert_array_equal(model.predict_proba(X), before)


# ---- lbfgs, which has no epochs ----------------------------------------------------------------


def test_lbfgs_prints_its_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.MLPRegressor(
        hidden_layer_sizes=8, solver="lbfgs", verbose=True, random_state=0, max_iter=500
    )
    model.fit(X_REG, Y_REG / 100)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[-1] == f"Iteration {model.n_iter_}, loss = {model.loss_:.8f}"


def test_ctrl_c_in_lbfgs_keeps_the_last_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_at_third(text: str) -> None:
        if text.startswith("Iteration 3"):
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", stop_at_third)
    model = nn.MLPRegressor(
        hidden_layer_sizes=8, solver="lbfgs", verbose=True, random_state=0, alpha=0.0
    )
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X_REG, Y_REG)
    assert model.n_iter_ == 3
    error = float(np.mean((model.predict(X_REG) - Y_REG) ** 2)) / 2
    assert model.loss_ == pytest.approx(error)


def test_lbfgs_rejects_arguments_that_need_epochs() -> None:
    model = nn.MLPRegressor(hidden_layer_sizes=8, solver="lbfgs")
    with pytest.raises(nn.errors.ArgumentError, match="eval_set"):
        model.fit(X_REG, Y_REG, eval_set=(X_REG, Y_REG))
    with pytest.raises(nn.errors.ArgumentError, match="callbacks"):
        model.set_params(callbacks=[nn.Callback()]).fit(X_REG, Y_REG)
