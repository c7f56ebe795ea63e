"""`nnbackend.tune`: the search in Python, its study file, its workers, and its errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

import nnbackend as nn
from nnbackend.config import Settings
from nnbackend.errors import ArgumentError, DataError
from nnbackend.search.api import TuneResult
from nnbackend.search.objective import Problem
from nnbackend.search.space import Choices, Range, default_space, space_of
from nnbackend.training.history import History

optuna = pytest.importorskip("optuna")

FAST: dict[str, Any] = {"epochs": 5, "device": "numpy", "trials": 4, "folds": 1}
SPACE = {
    "width": ("range", 2, 9),
    "learning_rate": ("log", 1e-3, 0.1),
    "activation": ["relu", "tanh"],
}


@pytest.fixture
def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two classes that a network can mostly separate."""
    x = rng.standard_normal((160, 4))
    return x, np.where(x[:, 0] * x[:, 1] + 0.3 * rng.standard_normal(160) > 0, "up", "down")


def _trials(result: TuneResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.trials]


# ---- results --------------------------------------------------------------------------------


def test_the_model_is_that_of_the_best_trial(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    result = nn.tune(x, y, space=SPACE, **FAST)
    assert [row["trial"] for row in result.trials] == [0, 1, 2, 3]
    complete = [row for row in result.trials if row["state"] == "complete"]
    best = min(complete, key=lambda row: row["value"])
    assert result.best_value == best["value"]
    assert result.best_params == {name: best[name] for name in SPACE}
    assert result.settings.hidden == (best["width"],)
    assert result.settings.activation == (best["activation"],)
    assert result.history.best["valid_loss"] == result.best_value
    assert result.model.network.layers[0].n_out == best["width"]
    assert set(result.model.predict(x)) == {"up", "down"}
    # The validation rows of the trial judge the model in the same way.
    same = nn.tune(x, y, space={"width": [best["width"]]}, **FAST | {"trials": 1},
                   learning_rate=best["learning_rate"], activation=best["activation"])  # fmt: skip
    assert same.best_value == result.best_value


def test_the_same_seed_gives_the_same_trials(rows: tuple[np.ndarray, np.ndarray]) -> None:
    first, same, other = (nn.tune(*rows, space=SPACE, seed=s, **FAST) for s in (3, 3, 4))
    assert _trials(first) == _trials(same)
    assert [row["learning_rate"] for row in first.trials[1:]] != [
        row["learning_rate"] for row in other.trials[1:]
    ]


def test_the_first_trial_is_close_to_the_defaults(rows: tuple[np.ndarray, np.ndarray]) -> None:
    first = nn.tune(*rows, trials=1, epochs=1, device="numpy").trials[0]
    assert (first["layers"], first["width"], first["activation"]) == (1, 200, "relu")
    assert (first["learning_rate"], first["dropout"]) == (0.001, 0.2)


def test_settings_that_are_given_are_not_searched(rows: tuple[np.ndarray, np.ndarray]) -> None:
    result = nn.tune(*rows, trials=3, epochs=1, device="numpy", hidden=(7, 5), dropout=0.0,
                     optimizer="sgd", batch_size=32)  # fmt: skip
    names = {"activation", "learning_rate", "weight_decay", "scale"}
    assert result.best_params.keys() == names
    assert result.settings.hidden == (7, 5)
    assert result.settings.optimizer == "sgd"
    assert max(row["learning_rate"] for row in result.trials) > 0.01  # sgd takes larger rates


def test_a_function_of_the_trial_is_a_space(rows: tuple[np.ndarray, np.ndarray]) -> None:
    def space(trial: Any) -> dict[str, Any]:
        n = trial.suggest_int("n", 1, 2)
        return {"hidden": [trial.suggest_int(f"width{i}", 2, 5) for i in range(n)], "l2": 0.01}

    result = nn.tune(*rows, space=space, **FAST)
    best = next(row for row in result.trials if row["value"] == result.best_value)
    assert result.settings.hidden == tuple(best["hidden"])
    assert result.settings.l2 == 0.01
    assert {len(row["hidden"]) for row in result.trials} == {1, 2}


def test_metrics_are_maximised_or_minimised(rows: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import roc_auc_score

    x, y = rows
    valid = x[120:], y[120:]
    result = nn.tune(x[:120], y[:120], space=SPACE, metric="roc_auc", validation=valid, **FAST)
    values = [row["value"] for row in result.trials if row["state"] == "complete"]
    assert result.best_value == max(values)
    scores = result.model.predict_proba(valid[0])[:, 1]
    assert result.best_value == pytest.approx(roc_auc_score(valid[1] == "up", scores))
    result = nn.tune(x[:120], x[:120, 3] * 2, space=SPACE, metric="mae",
                     validation=(x[120:], x[120:, 3] * 2), **FAST)  # fmt: skip
    assert result.best_value == min(r["value"] for r in result.trials if r["state"] == "complete")
    errors = np.abs(result.model.predict(x[120:]) - 2 * x[120:, 3])
    assert result.best_value == pytest.approx(errors.mean(), rel=1e-5)


@pytest.mark.parametrize("loss", ["quadratic", "binary_cross_entropy", "cross_entropy"])
def test_metrics_of_classes_for_every_form_of_targets(
    rows: tuple[np.ndarray, np.ndarray], loss: str
) -> None:
    x, y = rows
    options: dict[str, Any] = {**FAST, "metric": "f1", "space": {"width": [5]}, "trials": 1}
    result = nn.tune(x, y, validation=(x, y), loss=loss, **options)
    assert result.best_value == pytest.approx(f1_score(y == "up", result.model.predict(x) == "up"))


def test_tables_with_categories_and_gaps(rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    size = rng.standard_normal(120)
    color = np.array(["red", "blue", "green"])[rng.integers(0, 3, 120)]
    frame = pandas.DataFrame({"size": size, "color": color, "price": size + (color == "red")})
    frame.loc[::7, "size"] = np.nan
    by_name = nn.tune(frame, "price", space=SPACE, **FAST)
    features = frame.drop(columns="price")
    apart = nn.tune(features, frame["price"], space=SPACE, **FAST)
    assert _trials(by_name) == _trials(apart)
    found = by_name.model.predict(features)
    assert np.array_equal(found, apart.model.predict(features))
    assert np.isfinite(found).all()
    assert apart.model.preprocessing.columns is not None
    assert apart.model.preprocessing.columns["target"] is None
    new = [{"size": None, "color": "purple"}]
    assert np.isfinite(apart.model.predict(new)).all()


def test_folds_are_judged_at_one_epoch_with_its_neighbours() -> None:
    # The lowest losses, 0 in epochs 2 and 7, jump; the mean of five epochs is lowest at epoch 6.
    costs = [
        [9.0, 0.0, 9.0, 2.0, 2.0, 2.0, 9.0, 2.0],
        [9.0, 0.0, 9.0, 2.0, 2.0, 2.0, 0.0, 2.0, 0.0],
    ]
    scores = [[0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.0, 0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1]]
    histories = [
        History("valid_loss", [{"valid_loss": c, "valid_accuracy": s}
                               for c, s in zip(*fold, strict=True)])
        for fold in zip(costs, scores, strict=True)
    ]  # fmt: skip
    problem = Problem(nn.data.load("iris"), 0.2, Settings(), {}, "accuracy", "numpy")
    assert problem.judge(histories) == (pytest.approx(0.4), 6)
    assert problem.judge(histories[:1]) == (0.0, 2)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_folds_with_a_metric_that_the_history_lacks(
    rows: tuple[np.ndarray, np.ndarray], ema: float | None
) -> None:
    x, y = rows
    options: dict[str, Any] = {**FAST, "space": {"width": [6]}, "trials": 1, "epochs": 1}
    options |= {"ema": ema, "metric": "log_loss"}
    each = [
        nn.tune(x[rest], y[rest], validation=(x[held], y[held]), **options).best_value
        for rest, held in StratifiedKFold(3, shuffle=True, random_state=0).split(x, y)
    ]
    found = nn.tune(x, y, **options | {"folds": 3}).best_value
    assert found == pytest.approx(np.mean(each))


def test_folds_judge_a_trial_by_all_rows(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    options: dict[str, Any] = {**FAST, "trials": 1, "epochs": 1, "space": {"width": [6]}}
    by_default = nn.tune(x, y, **options | {"folds": None})
    assert by_default.best_value == nn.tune(x, y, **options | {"folds": 5}).best_value
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(x, y)
    each = [
        nn.tune(x[rest], y[rest], validation=(x[held], y[held]), **options).best_value
        for rest, held in folds
    ]
    assert nn.tune(x, y, **options | {"folds": 3}).best_value == pytest.approx(np.mean(each))
    with pytest.raises(ArgumentError, match="1 with given validation rows"):
        nn.tune(x, y, validation=(x, y), **options | {"folds": 3})
    with pytest.raises(ArgumentError, match="at most half of the 160"):
        nn.tune(x, y, **options | {"folds": 81})


# ---- trials that end early ------------------------------------------------------------------


@pytest.mark.parametrize("folds", [1, 2])
def test_bad_trials_are_pruned(rows: tuple[np.ndarray, np.ndarray], folds: int) -> None:
    def space(trial: Any) -> dict[str, Any]:
        return {"learning_rate": 0.02 if trial.number < 5 else 1e-6}

    result = nn.tune(*rows, space=space, trials=7, epochs=20, device="numpy", folds=folds)
    states = [row["state"] for row in result.trials]
    assert states == ["complete"] * 5 + ["pruned"] * 2
    assert [row["n_epochs"] for row in result.trials[5:]] == [4, 4]
    # The loss of one fold does not compare with the means of two.
    assert all((row["value"] is None) == (folds == 2) for row in result.trials[5:])
    assert result.best_params["learning_rate"] == 0.02


def test_trials_that_fail_do_not_end_the_search(rows: tuple[np.ndarray, np.ndarray]) -> None:
    def space(trial: Any) -> dict[str, Any]:
        return [{"learning_rate": 1e30, "optimizer": "sgd"}, {"momentum": 0.5}, {}][trial.number]

    result = nn.tune(*rows, space=space, trials=3, epochs=3, device="numpy")
    diverged, failed, good = result.trials
    assert [row["state"] for row in result.trials] == ["diverged", "failed", "complete"]
    assert "diverged in epoch" in diverged["error"]
    assert "momentum is for sgd" in failed["error"]
    assert result.best_value == good["value"]


def test_a_search_without_success_ends_soon(rows: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ArgumentError, match=r"3 trials, none .* momentum is for sgd"):
        nn.tune(*rows, space={"momentum": [0.5, 0.6]}, trials=99, epochs=1, device="numpy")


def test_the_time_limit_ends_trial_and_search(rows: tuple[np.ndarray, np.ndarray]) -> None:
    result = nn.tune(*rows, space=SPACE, trials=99, minutes=1e-9, epochs=10**6, device="numpy")
    assert [(row["state"], row["n_epochs"]) for row in result.trials] == [("out of time", 1)]
    assert len(result.history) == 1  # the model is not trained for the million epochs


# ---- the study file -------------------------------------------------------------------------


def test_a_study_continues(rows: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "study"
    options = {**FAST, "space": SPACE}
    first = nn.tune(*rows, study=path, **options | {"trials": 2})
    with path.open("a") as file:
        file.write('{"op_code": 5, "tri')  # the process was killed as it wrote
    resumed = nn.tune(*rows, study=path, **options | {"trials": 4})
    whole = nn.tune(*rows, **options | {"trials": 4})
    assert first.trials == resumed.trials[:2]
    assert len({row["learning_rate"] for row in resumed.trials}) == 4
    assert _trials(resumed) == _trials(whole)
    again = nn.tune(*rows, study=path, **options | {"trials": 4})
    assert again.trials == resumed.trials


def test_a_study_of_another_search_is_refused(
    rows: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, y = rows
    options: dict[str, Any] = {"study": tmp_path / "study", "trials": 1, "device": "numpy"}
    nn.tune(x, y, space=SPACE, epochs=2, **options)
    for changed, why in (
        ((x + 1, y, {"space": SPACE, "epochs": 2}), "data"),
        ((x, y, {"space": SPACE, "epochs": 3}), "settings 'epochs=3'"),
        ((x, y, {"space": {"width": [3]}, "epochs": 2}), "space 'width: 3'"),
    ):
        with pytest.raises(ArgumentError, match=f"Received: other {why}"):
            nn.tune(*changed[:2], **options, **changed[2])
    other = tmp_path / "table.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ArgumentError, match=r"table\.csv, which is another file"):
        nn.tune(x, y, **options | {"study": other})
    assert other.read_text() == "a,b\n1,2\n"


def test_workers_share_the_study(rows: tuple[np.ndarray, np.ndarray]) -> None:
    shown: list[dict[str, Any]] = []
    result = nn.tune(*rows, space=SPACE, workers=2, progress=shown.append, **FAST)
    assert [row["trial"] for row in result.trials] == [0, 1, 2, 3]
    assert sorted(row["trial"] for row in shown) == [0, 1, 2, 3]
    assert result.history.best["valid_loss"] == result.best_value
    assert len(result.study.trials) == 4  # also without the file of the workers
    alone = nn.tune(*rows, space=SPACE, **FAST)
    assert _trials(alone) == _trials(result)  # of the first ten trials, all are drawn at random


def test_an_interrupt_ends_only_the_trials_of_its_search(
    rows: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "study"
    options: dict[str, Any] = {**FAST, "space": SPACE, "study": path}
    nn.tune(*rows, **options | {"trials": 1})
    other = nn.tune(*rows, **options | {"trials": 1}).study.ask()
    other.set_user_attr("owner", "a search on another machine")

    def interrupt(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    result = nn.tune(*rows, workers=2, progress=interrupt, **options | {"trials": 500})
    states = {trial.number: trial.state.name for trial in result.study.trials}
    assert states.pop(other.number) == "RUNNING"
    assert set(states.values()) <= {"COMPLETE", "PRUNED", "FAIL", "WAITING"}
    assert len(states) < 500
    # The interrupted trials wait to be run by the next search.
    failed = [trial.params for trial in result.study.trials if trial.state.name == "FAIL"]
    waiting = [trial for trial in result.study.trials if trial.state.name == "WAITING"]
    assert [trial.system_attrs["fixed_params"] for trial in waiting] == [p for p in failed if p]
    assert result.history.best["valid_loss"] == result.best_value


# ---- spaces and errors ----------------------------------------------------------------------


def test_forms_of_a_space() -> None:
    space = space_of(
        {
            "width": ["log", 8, 64], "learning_rate": "log:1e-4:0.1", "dropout": ("range", 0, 0.5),
            "batch_size": [16, None], "activation": "relu|maxout:3", "epochs": "range:2:5",
        },
        (),
    )  # fmt: skip
    assert space == {
        "width": Range(8, 64, is_log=True, is_whole=True),
        "learning_rate": Range(1e-4, 0.1, is_log=True),
        "dropout": Range(0.0, 0.5),
        "batch_size": Choices((16, None)),
        "activation": Choices(("relu", "maxout:3")),
        "epochs": Range(2, 5, is_whole=True),
    }
    assert space_of({"hidden": [(100, 50), [20]]}, ()) == {"hidden": Choices(("100,50", "20"))}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "a dictionary of setting -> values"),
        ({"widht": [3]}, "Did you mean 'width'"),
        ({"device": ["cpu"]}, "must be a setting that can be searched"),
        ({"dropout": ("range", 0.5, 0.1)}, "low < high"),
        ({"learning_rate": ("log", 0, 0.1)}, "numbers above 0"),
        ({"dropout": ("range", 0, 1.5)}, "dropout must be numbers of at least 0 and below 1"),
        ({"activation": ["rellu"]}, "Did you mean 'relu'"),
        ({"width": "log:a:b"}, "low < high"),
        ({"hidden": [8], "layers": [1]}, "either 'hidden' or 'layers' and 'width'"),
        ({"l2": [0.1]}, "either searched or set"),
    ],
)
def test_bad_spaces(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        space_of(space, {"l2"})


def test_the_default_space_follows_optimizer_and_data() -> None:
    data = nn.data.load("digits")
    assert "learning_rate" not in default_space(Settings(optimizer="lbfgs"), data, ())
    assert "l2" in default_space(Settings(optimizer="lbfgs"), data, ())
    named = default_space(Settings(optimizer="adam:learning_rate=0.01"), data, ())
    assert "learning_rate" not in named
    assert default_space(Settings(), data, {"hidden"}).keys().isdisjoint({"layers", "width"})
    with pytest.raises(ArgumentError, match="needs a setting without a value"):
        default_space(Settings(), data, default_space(Settings(), data, ()))


def test_bad_arguments_are_reported_at_once(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    bad: dict[str, Any] = {"workers": 0, "minutes": -1, "validation": 1.5, "epcohs": 3, "l2": -1}
    with pytest.raises(ArgumentError) as caught:
        nn.tune(x, y, trials=0, **bad)
    message = str(caught.value)
    for part in ("trials must", "workers must", "minutes must", "validation must", "l2 must",
                 "Did you mean 'epochs'"):  # fmt: skip
        assert part in message
    with pytest.raises(ArgumentError, match=r"metric must be one of loss, accuracy.*r2"):
        nn.tune(x, y, metric="r2", device="numpy")
    with pytest.raises(DataError, match="'sideways'"):
        nn.tune(x, y, validation=(x, np.full(len(x), "sideways")), device="numpy")


def test_losses_are_compared_by_the_score(rows: tuple[np.ndarray, np.ndarray]) -> None:
    space = {"loss": ["cross_entropy", "quadratic"]}
    assert nn.tune(*rows, space=space, **FAST).metric == "accuracy"
    with pytest.raises(ArgumentError, match="different losses cannot be compared"):
        nn.tune(*rows, space=space, metric="loss", **FAST)


def test_without_optuna(
    rows: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ArgumentError, match=r'pip install "nnbackend\[tune\]"'):
        nn.tune(*rows)


def test_values_are_json(rows: tuple[np.ndarray, np.ndarray]) -> None:
    json.dumps(nn.tune(*rows, space=SPACE, **FAST).trials)
