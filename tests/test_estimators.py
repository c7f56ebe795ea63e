"""The estimators: scikit-learn's numbers, and the extensions."""

from __future__ import annotations

import doctest
import inspect
import signal
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn
import sklearn.neural_network as theirs
from rows import registered
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import nnbackend as nn
from nnbackend.estimators.base import AT_LEAST_0, parameter

ESTIMATORS = ("MLPClassifier", "MLPRegressor")
SMALL: dict[str, Any] = {"hidden_layer_sizes": 8, "max_iter": 5, "random_state": 0}

X_CLASS, Y_CLASS = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
X_BINARY, Y_BINARY = make_classification(120, 6, random_state=1)
X_REG, Y_REG = make_regression(120, 6, n_targets=2, noise=1.0, random_state=0)
Y_REG = Y_REG / Y_REG.std()


@pytest.fixture(autouse=True)
def _few_epochs_do_not_converge() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _farthest(ours: Any, other: Any) -> float:
    pairs = zip([*ours.coefs_, *ours.intercepts_], [*other.coefs_, *other.intercepts_], strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


# ---- scikit-learn's numbers ---------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"batch_size": 50},
    {"solver": "sgd"},
    {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "max_iter": 300},
    {"solver": "lbfgs"},
    {"early_stopping": True, "validation_fraction": 0.3},
    {"activation": "logistic", "hidden_layer_sizes": (5, 4)},
    {"activation": "tanh", "alpha": 0.5, "shuffle": False},
    {"activation": "identity", "epsilon": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_fit(name: str, settings: dict[str, Any]) -> None:
    X, y = (X_REG, Y_REG) if name == "MLPRegressor" else (X_CLASS, Y_CLASS)
    if name == "MLPRegressor" and settings.get("solver") == "lbfgs":
        y = y[:, 0]  # for several outputs scikit-learn's loss and gradient do not belong together
    options = {**SMALL, **settings}
    ours = getattr(nn, name)(device="numpy", **options).fit(X, y)
    other = getattr(theirs, name)(**options).fit(X, y)
    assert _farthest(ours, other) < 1e-9
    assert ours.loss_ == pytest.approx(other.loss_, rel=1e-9)
    assert (ours.n_iter_, ours.t_) == (other.n_iter_, other.t_)
    if settings.get("solver") != "lbfgs":
        assert ours.loss_curve_ == pytest.approx(other.loss_curve_, rel=1e-9)
        if ours.validation_scores_ is not None:
            assert ours.validation_scores_ == pytest.approx(other.validation_scores_)
    np.testing.assert_allclose(ours.predict(X), other.predict(X), rtol=1e-8)


@pytest.mark.parametrize("settings", [{}, {"solver": "sgd", "learning_rate": "invscaling"}])
def test_partial_fit_and_warm_start_continue_like_scikit_learn(settings: dict[str, Any]) -> None:
    fits = []
    for kind in (nn.MLPClassifier, theirs.MLPClassifier):
        model = kind(**{**SMALL, **settings})
        for part in (slice(0, 50), slice(50, 120), slice(0, 120)):
            model.partial_fit(X_BINARY[part], Y_BINARY[part], classes=[0, 1])
        model.set_params(warm_start=True).fit(X_BINARY, Y_BINARY)
        fits.append(model)
    assert _farthest(*fits) < 1e-12
    assert fits[0].loss_curve_ == pytest.approx(fits[1].loss_curve_)


def test_poisson_equals_scikit_learns_fit() -> None:
    y = np.random.default_rng(0).poisson(np.exp(X_REG[:, 0]))
    fits = [k("poisson", **SMALL).fit(X_REG, y) for k in (nn.MLPRegressor, theirs.MLPRegressor)]
    assert _farthest(*fits) < 1e-12


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_rows_equal_the_dense_fit(solver: str) -> None:
    X = np.where(np.abs(X_CLASS) < 0.5, 0.0, X_CLASS)
    weight = np.linspace(0.5, 2.0, len(X))
    dense = nn.MLPClassifier(solver=solver, **SMALL).fit(X, Y_CLASS, weight)
    sparse = nn.MLPClassifier(solver=solver, **SMALL).fit(
        scipy.sparse.csc_array(X), Y_CLASS, weight
    )
    assert _farthest(dense, sparse) < 1e-9
    np.testing.assert_allclose(
        sparse.predict_proba(scipy.sparse.csr_array(X)), dense.predict_proba(X), atol=1e-9
    )


def test_sparse_rows_are_never_dense_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    X = scipy.sparse.random_array((400, 30), density=0.1, random_state=0, format="csr")
    made: list[int] = []
    original = scipy.sparse.csr_array.toarray

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        if self.shape[1] == 30:  # the labels are encoded with another sparse matrix
            made.append(self.shape[0])
        return original(self, *args, **options)

    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", counted)
    nn.MLPClassifier(batch_size=64, early_stopping=True, **SMALL).fit(X, np.arange(400) % 2)
    assert made
    assert max(made) <= 64


def test_uniform_weights_change_nothing() -> None:
    plain = nn.MLPClassifier(alpha=1.0, **SMALL).fit(X_CLASS, Y_CLASS)
    weighted = nn.MLPClassifier(alpha=3.0, **SMALL).fit(X_CLASS, Y_CLASS, np.full(120, 3.0))
    assert _farthest(plain, weighted) < 1e-12


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_keeps_the_completed_epochs() -> None:
    class Interrupt(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            if row["epoch"] == 2:
                signal.raise_signal(signal.SIGINT)

    model = nn.MLPClassifier(callbacks=[Interrupt()], **SMALL)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X_CLASS, Y_CLASS)
    assert 2 <= model.n_iter_ < 5
    assert model.predict(X_CLASS).shape == (120,)


def test_divergence_raises_with_a_cure() -> None:
    model = nn.MLPRegressor(solver="sgd", learning_rate_init=1e6, **SMALL)
    with pytest.raises(ValueError, match="need to be preprocessed"):
        model.fit(X_REG, Y_REG)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learns_docstring_examples_run_with_our_import(name: str) -> None:
    statements = doctest.DocTestParser().get_examples(getattr(theirs, name).__doc__)
    said: list[list[Any]] = [[], []]
    for answers, home in zip(said, ("sklearn.neural_network", "nnbackend"), strict=True):
        names: dict[str, Any] = {}
        for statement in statements:
            source = statement.source.replace("sklearn.neural_network", home)
            if statement.want:
                answer = eval(source, names)
                answers.append(str(answer) if hasattr(answer, "fit") else answer)
            else:
                exec(source, names)
        assert type(names["regr" if name == "MLPRegressor" else "clf"]).__module__.startswith(home)
    assert len(said[1]) >= 2
    for theirs_said, ours_said in zip(*said, strict=True):
        if isinstance(ours_said, str):
            assert ours_said == theirs_said
        else:
            np.testing.assert_allclose(ours_said, theirs_said, rtol=1e-9)


@pytest.mark.parametrize("y", [[0, 1], [[0, 1], [1, 1]]], ids=["binary", "multilabel"])
def test_the_user_guides_settings_reproduce_its_results(y: Any) -> None:
    X, new = [[0.0, 0.0], [1.0, 1.0]], [[2.0, 2.0], [-1.0, -2.0], [1.0, 2.0]]
    said = []
    for library in (theirs, nn):
        model = library.MLPClassifier(
            solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(5, 2), random_state=1
        ).fit(X, y)
        again = library.MLPClassifier((15,), random_state=1, max_iter=1, warm_start=True)
        for _ in range(10):
            again.fit(X, y)
        shapes = [W.shape for W in model.coefs_]
        said.append((repr(model), shapes, model.predict_proba(new), again.predict_proba(new)))
    assert said[0][:2] == said[1][:2]
    np.testing.assert_allclose(said[0][2], said[1][2], atol=1e-6)
    np.testing.assert_allclose(said[0][3], said[1][3])


def _gallery(library: Any) -> list[Any]:
    """Use an MLP as the examples of scikit-learn's gallery do."""
    X, y = MinMaxScaler().fit_transform(X_CLASS), Y_CLASS
    options = {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
        curves = library.MLPClassifier(
            verbose=0, random_state=0, max_iter=4, learning_rate_init=0.2, **options
        ).fit(X, y)
        filters = library.MLPClassifier(
            (4,), max_iter=3, alpha=1e-4, solver="sgd", verbose=10, random_state=1
        ).fit(X, y.astype(str))
    pipe = make_pipeline(
        StandardScaler(),
        library.MLPClassifier([5, 5], solver="lbfgs", alpha=0.1, random_state=1, max_iter=9,
                              early_stopping=True),
    ).fit(X_BINARY, Y_BINARY)  # fmt: skip
    assert not hasattr(pipe, "decision_function")
    images = [coef.reshape(2, 3) for coef in filters.coefs_[0].T]
    said = [curves.loss_, *curves.loss_curve_, curves.score(X, y), filters.score(X, y.astype(str))]
    return [said, images, filters.coefs_[0].min(), pipe.predict_proba(X_BINARY)[:, 1]]


def test_gallery_examples_reproduce_scikit_learns_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (*found, theirs_said), (*ours, said) = (
        [*_gallery(library), capsys.readouterr().out] for library in (theirs, nn)
    )
    assert said == theirs_said
    assert said.count("Iteration") == 3
    for one, other in zip(ours, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 2},
        {"tol": 10.0},
        {"early_stopping": True, "n_iter_no_change": 2},
    ],
    ids=str,
)
def test_verbose_output_equals_scikit_learns(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "solver": "sgd", "max_iter": 100, "verbose": True, **settings}
    said = []
    for library in (theirs, nn):
        library.MLPClassifier(**options).fit(X_CLASS, Y_CLASS)
        said.append(capsys.readouterr().out)
    assert said[1] == said[0]
    assert said[1].endswith("Stopping.\n")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_parameters_are_scikit_learns_followed_by_ours(name: str) -> None:
    first = [inspect.signature(getattr(library, name)) for library in (theirs, nn)]
    old, new = ([(p.name, p.kind, p.default) for p in s.parameters.values()] for s in first)
    assert new[: len(old)] == old


def test_the_constructors_have_the_same_parameters_but_three() -> None:
    first, second = (
        list(inspect.signature(getattr(nn, name)).parameters.values()) for name in ESTIMATORS
    )
    assert [p.name for p in first[-2:]] == ["label_smoothing", "class_weight"]
    assert second[0].name == "loss"
    assert first[:-2] == second[1:]


@dataclass(eq=False, repr=False, kw_only=True)
class _WithStrength(nn.MLPClassifier):
    strength: float = parameter(1.0, AT_LEAST_0)
    alpha: float = 0.5


def test_a_parameter_is_declared_once_by_its_field() -> None:
    model = _WithStrength(strength=2.0, **SMALL)
    assert (model.strength, model.alpha, clone(model).strength) == (2.0, 0.5, 2.0)
    assert "strength=2.0" in repr(model)
    assert [*inspect.signature(_WithStrength).parameters][-1] == "strength"
    for name in ("strength", "alpha"):  # another default keeps the constraints
        with pytest.raises(
            ValueError, match=f"'{name}' parameter of _WithStrength must be a float"
        ):
            clone(model).set_params(**{name: -1.0}).fit(X_CLASS, Y_CLASS)


@pytest.mark.parametrize("name", [*ESTIMATORS, "TabularMLPClassifier", "TabularMLPRegressor"])
def test_an_estimator_is_equal_to_itself_only(name: str) -> None:
    """As scikit-learn's are: a set or dictionary can hold several with the same parameters."""
    one, other = getattr(nn, name)(), getattr(nn, name)()
    assert one == one
    assert one != other
    assert [one, other].index(other) == 1
    assert len({one, other}) == 2


# ---- extensions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_device_gives_the_same_fit(name: str) -> None:
    X, y = (X_REG, Y_REG) if name == "MLPRegressor" else (X_CLASS, Y_CLASS)
    options = {"dropout": 0.2, "early_stopping": True, **SMALL}
    first = getattr(nn, name)(device="numpy", **options).fit(X, y)
    with registered("ghost"):
        for device in ("numba", "ghost"):
            other = getattr(nn, name)(device=device, **options).fit(X, y)
            assert _farthest(first, other) < 1e-9
            np.testing.assert_allclose(other.predict(X), first.predict(X), rtol=1e-8)


def test_output_follows_input() -> None:
    with registered("ghost"):
        backend = nn.get_backend("ghost")
        X, y = backend.to_device(X_CLASS), backend.to_device(Y_CLASS)
        model = nn.MLPClassifier(device="ghost", **SMALL).fit(X, y, eval_set=(X, y))
        for name in ("predict", "predict_proba", "predict_log_proba", "transform"):
            given = getattr(model, name)(X)
            assert backend.owns(given)
            on_host = getattr(model, name)(X_CLASS)
            assert isinstance(on_host, np.ndarray)
            np.testing.assert_array_equal(backend.to_host(given), on_host)
        assert model.score(X, y) == model.score(X_CLASS, Y_CLASS)
        regressor = nn.MLPRegressor(device="ghost", **SMALL).fit(X, backend.to_device(Y_REG))
        assert backend.owns(regressor.predict(X))
        parted = nn.MLPClassifier(device="ghost", **SMALL)
        parted.partial_fit(X, y, classes=backend.to_device(np.arange(3)))
        assert list(parted.classes_) == [0, 1, 2]


@pytest.mark.parametrize("name", ["MLPClassifier", "TabularMLPClassifier"])
def test_tables_of_hidden_units_are_on_the_host(name: str) -> None:
    pandas = pytest.importorskip("pandas")
    with registered("ghost"):
        X = nn.get_backend("ghost").to_device(X_CLASS)
        model = getattr(nn, name)(device="ghost", **SMALL).fit(X, Y_CLASS)
        hidden = model.transform(X_CLASS)
        with sklearn.config_context(transform_output="pandas"):
            table = model.transform(X)
    assert isinstance(table, pandas.DataFrame)
    np.testing.assert_array_equal(table.to_numpy(), hidden)


OURS: list[dict[str, Any]] = [
    {"hidden_layer_sizes": (8, nn.Maxout(4, n_pieces=2)), "activation": ("elu", "relu")},
    {"activation": nn.Activation("cube", lambda z: z**3, lambda z: 3 * z**2)},
    {"dropout": (0.1, 0.5)},
    {"max_norm": 0.5},
    {"clip_norm": 0.01},
    {"l1": 0.1},
    {"solver": "adamw", "weight_decay": 0.5},
    {"ema": 0.9},
    {"schedule": "cosine"},
    {"schedule": nn.schedules.WarmUp(2.0)},
    {"solver": nn.RMSProp(0.01)},
    {"dtype": "float32"},
]


@pytest.mark.parametrize("settings", OURS, ids=str)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_of_our_parameters_has_an_effect(name: str, settings: dict[str, Any]) -> None:
    X, y = (X_REG, Y_REG) if name == "MLPRegressor" else (X_CLASS, Y_CLASS)
    options = {**SMALL, **settings}
    model = getattr(nn, name)(**options).fit(X, y)
    plain = getattr(nn, name)(**SMALL).fit(X, y)
    answer = "predict" if name == "MLPRegressor" else "predict_proba"
    said, before = (getattr(m, answer)(X) for m in (model, plain))
    assert np.isfinite(said).all()
    assert not np.array_equal(said, before)


def test_label_smoothing_and_class_weight() -> None:
    y = (np.arange(120) % 10 == 0).astype(int)
    plain = nn.MLPClassifier(**SMALL).fit(X_BINARY, y)
    balanced = nn.MLPClassifier(class_weight="balanced", **SMALL).fit(X_BINARY, y)
    assert (
        balanced.predict_proba(X_BINARY)[:, 1].mean() > plain.predict_proba(X_BINARY)[:, 1].mean()
    )
    by_weight = nn.MLPClassifier(**SMALL).fit(X_BINARY, y, np.where(y == 1, 5.0, 120 / 216))
    assert _farthest(balanced, by_weight) < 1e-2
    long = {**SMALL, "max_iter": 300}
    smooth = nn.MLPClassifier(label_smoothing=0.4, **long).fit(X_CLASS, Y_CLASS)
    sharp = nn.MLPClassifier(**long).fit(X_CLASS, Y_CLASS)
    assert smooth.predict_proba(X_CLASS).max() < sharp.predict_proba(X_CLASS).max()


def test_early_stopping_on_eval_set_restores_the_best_weights() -> None:
    model = nn.MLPClassifier(
        64, early_stopping=True, monitor="valid_loss", n_iter_no_change=5, max_iter=400,
        learning_rate_init=0.02, random_state=0,
    )  # fmt: skip
    model.fit(X_CLASS[:60], Y_CLASS[:60], eval_set=(X_CLASS[60:], Y_CLASS[60:]))
    curve = model.validation_loss_curve_
    assert model.converged_
    assert len(curve) == model.n_iter_ < 400
    probability = model.predict_proba(X_CLASS[60:])[np.arange(60), Y_CLASS[60:]]
    assert -np.log(probability).mean() == pytest.approx(min(curve), rel=1e-6)
    assert min(curve) < curve[-1]


@pytest.mark.parametrize("monitor", ["score", "valid_loss"])
def test_averaged_weights_are_validated_and_kept(monitor: str) -> None:
    held = X_REG[80:], Y_REG[80:]
    model = nn.MLPRegressor(
        ema=0.9, early_stopping=True, monitor=monitor, learning_rate_init=0.05, **SMALL
    ).fit(X_REG[:80], Y_REG[:80], eval_set=held)
    curve = model.validation_scores_
    best = np.argmax(curve) if monitor == "score" else np.argmin(model.validation_loss_curve_)
    assert model.score(*held) == pytest.approx(curve[best], rel=1e-12)
    alike = nn.MLPRegressor(early_stopping=True, learning_rate_init=0.05, **SMALL)
    assert alike.fit(X_REG[:80], Y_REG[:80], eval_set=held).validation_scores_ != curve


def test_partial_fit_stops_early_on_eval_set() -> None:
    model = nn.MLPRegressor(
        hidden_layer_sizes=16,
        early_stopping=True,
        n_iter_no_change=3,
        learning_rate_init=0.05,
        random_state=0,
    )
    calls = 0
    while calls < 500 and not getattr(model, "converged_", False):
        model.partial_fit(X_REG[:80], Y_REG[:80], eval_set=(X_REG[80:], Y_REG[80:]))
        calls += 1
    assert model.converged_
    assert calls == len(model.validation_scores_) < 500
    assert model.score(X_REG[80:], Y_REG[80:]) == pytest.approx(model.best_validation_score_)


def test_losses_of_the_regressor() -> None:
    y = np.random.default_rng(0).exponential(size=400)
    X = np.zeros((400, 1))
    options = {"hidden_layer_sizes": (2,), "max_iter": 400, "learning_rate_init": 0.02, "tol": 0.0}
    for loss, expected in (("absolute_error", np.median(y)), (nn.losses.quantile(0.9), None)):
        model = nn.MLPRegressor(loss, random_state=0, **options).fit(X, y)
        below = (y <= model.predict(X[:1])[0]).mean()
        assert below == pytest.approx(0.9 if expected is None else 0.5, abs=0.03)


def test_transform_returns_hidden_activations() -> None:
    model = nn.MLPClassifier((8, 3), activation="tanh", max_iter=5, random_state=0)
    hidden = model.fit(X_CLASS, Y_CLASS).transform(X_CLASS)
    first = np.tanh(X_CLASS @ model.coefs_[0] + model.intercepts_[0])
    np.testing.assert_allclose(model.transform(X_CLASS, layer=0), first)
    np.testing.assert_allclose(hidden, np.tanh(first @ model.coefs_[1] + model.intercepts_[1]))
    with pytest.raises(nn.errors.ArgumentError, match="hidden layers"):
        model.transform(X_CLASS, layer=2)


def test_changed_weights_are_used() -> None:
    model = nn.MLPRegressor(**SMALL).fit(X_REG, Y_REG)
    model.coefs_[-1][:] = 0.0
    np.testing.assert_allclose(model.predict(X_REG), np.tile(model.intercepts_[-1], (120, 1)))


def test_scikit_learns_callbacks_are_called_every_epoch() -> None:
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    model = nn.MLPClassifier(learning_rate_init=0.01, **SMALL).set_callbacks(monitor)
    model.fit(X_CLASS, Y_CLASS)
    rows = monitor.get_logs().data
    scores = [row["neg_log_loss"] for row in rows if row["task_name"] == "epoch"]
    assert len(scores) == 5
    assert scores == sorted(set(scores))
    truth = model.predict_proba(X_CLASS)[np.arange(len(Y_CLASS)), Y_CLASS]
    assert scores[-1] == pytest.approx(np.log(truth).mean())


def test_digits_reach_90_percent() -> None:
    X, y = load_digits(return_X_y=True)
    model = nn.MLPClassifier(dtype="float32", max_iter=30, random_state=0)
    assert model.fit(X[:1200] / 16, y[:1200]).score(X[1200:] / 16, y[1200:]) > 0.9
    assert model.coefs_[0].dtype == np.float32
