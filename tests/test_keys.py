"""Rows that belong together: groups and times in splits, folds and the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.cli.parts import read_data, split_test, split_validation, training_positions
from nnbackend.config import Settings
from nnbackend.data.keys import Keys
from nnbackend.data.splits import fold_rows, split_rows
from nnbackend.errors import ArgumentError, DataError

GROUPS = np.random.default_rng(1).integers(0, 12, 200)
TIMES = np.random.default_rng(2).integers(0, 40, 200).astype(float)
LABELS = np.random.default_rng(3).integers(0, 2, 200)


def _table(path: Path, n: int = 300) -> Path:
    """Write rows of 30 patients, each of whom has its own level of y, over 60 days."""
    rng = np.random.default_rng(0)
    patient, x = rng.integers(0, 30, n), rng.normal(size=n)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 60, n), unit="D")
    level = rng.normal(size=30)[patient]
    frame = pd.DataFrame({
        "patient": [f"P{p}" for p in patient], "day": days.strftime("%d/%m/%Y"), "x": x,
        "level": level + rng.normal(size=n) * 0.01, "y": x + 3 * level,
    })  # fmt: skip
    frame.to_csv(path, index=False)
    return path


# ---- splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 0.98])
@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_together(share: float, seed: int) -> None:
    rest, held = split_rows(200, share, seed, LABELS, Keys(groups=GROUPS))
    assert not set(GROUPS[rest]) & set(GROUPS[held])
    assert len(rest) + len(held) == 200
    assert abs(len(held) - 200 * share) <= np.bincount(GROUPS).max()
    again = split_rows(200, share, seed, LABELS, Keys(groups=GROUPS))
    assert np.array_equal(again[1], held)


def test_other_seeds_hold_out_other_groups() -> None:
    found = {tuple(split_rows(200, 0.2, seed, None, Keys(groups=GROUPS))[1]) for seed in range(9)}
    assert len(found) > 5


@pytest.mark.parametrize("share", [0.01, 0.25, 0.99])
def test_the_latest_rows_are_held_out(share: float) -> None:
    rest, held = split_rows(200, share, 0, LABELS, Keys(order=TIMES))
    assert TIMES[rest].max() < TIMES[held].min()
    assert abs(len(held) - 200 * share) <= np.unique(TIMES, return_counts=True)[1].max()


@pytest.mark.parametrize("labels", [None, LABELS])
def test_folds_of_groups(labels: Any) -> None:
    parts = list(fold_rows(200, 4, 0, labels, Keys(groups=GROUPS)))
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(200))
    for rest, held in parts:
        assert not set(GROUPS[rest]) & set(GROUPS[held])


def test_folds_of_time_go_forward() -> None:
    parts = list(fold_rows(200, 4, 0, LABELS, Keys(order=TIMES)))
    assert len(parts) == 4
    for rest, held in parts:
        assert TIMES[rest].max() < TIMES[held].min()
    assert [len(rest) for rest, _ in parts] == sorted({len(rest) for rest, _ in parts})
    assert TIMES[parts[-1][1]].max() == TIMES.max()


def test_plain_folds_are_stratified() -> None:
    labels = np.repeat([0, 1], [180, 20])
    for rest, held in fold_rows(200, 5, 7, labels):
        assert labels[held].sum() == 4
        assert len(rest) == 160


def test_too_few_parts() -> None:
    one = Keys(groups=np.zeros(9, np.int64))
    with pytest.raises(DataError, match=r"part need at least 2 groups. Received: 1"):
        split_rows(9, 0.5, 0, None, one)
    with pytest.raises(
        DataError, match=r"3 folds need at least 3 groups. Received: 1. Choose fewer"
    ):
        list(fold_rows(9, 3, 0, None, one))
    with pytest.raises(DataError, match=r"at least 4 different times. Received: 2"):
        list(fold_rows(4, 3, 0, None, Keys(order=np.array([0.0, 0.0, 1.0, 1.0]))))
    with pytest.raises(DataError, match=r"20 folds need as many rows. Received: 9"):
        list(fold_rows(9, 20, 0, None))


# ---- columns of a table -------------------------------------------------------------------------


def test_parts_by_a_column(tmp_path: Path) -> None:
    path = _table(tmp_path / "t.csv")
    frame = pd.read_csv(path)
    settings = Settings(data=str(path), group="patient")
    data = read_data(settings)
    assert "patient" not in (data.feature_names or ())
    parts = split_test(data, settings)
    training, held = split_validation(parts.training, settings)
    assert held is not None
    assert parts.test is not None
    of = [set(part.ids["patient"]) for part in (training, held, parts.test)]
    assert not (of[0] & of[1])
    assert not (of[0] & of[2])
    assert not (of[1] & of[2])
    assert len(set.union(*of)) == frame["patient"].nunique()
    assert set(frame["patient"][training_positions(data, settings)]) == of[0]


def test_parts_by_time(tmp_path: Path) -> None:
    path = _table(tmp_path / "t.csv")
    frame = pd.read_csv(path)
    days = pd.to_datetime(frame["day"], format="%d/%m/%Y")
    settings = Settings(data=str(path), time="day")
    data = read_data(settings)
    assert any("day" in name for name in data.feature_names or ())
    parts = split_test(data, settings)
    training, held = split_validation(parts.training, settings)
    assert held is not None
    assert parts.test is not None
    at = dict(zip(frame["x"].round(9), days, strict=True))
    position = (data.feature_names or ()).index("x")
    first, second, third = (
        [at[round(float(v), 9)] for v in part.x[:, position]]
        for part in (training, held, parts.test)
    )
    assert max(first) < min(second)
    assert max(second) < min(third)
    assert sorted(days[training_positions(data, settings)]) == sorted(first)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"group": "patent"}, "Did you mean 'patient'"),
        ({"group": "y"}, "besides the target"),
        ({"time": "patient"}, "must have dates or numbers. Received: cells such as 'P0'"),
        ({"group": "patient", "time": "day"}, "Omit one of them"),
    ],
)
def test_columns_that_cannot_be_used(tmp_path: Path, options: Any, text: str) -> None:
    path = _table(tmp_path / "t.csv")
    with pytest.raises((ArgumentError, DataError), match=text):
        read_data(Settings(data=str(path), **options))


def test_gaps_and_arrays(tmp_path: Path) -> None:
    frame = pd.read_csv(_table(tmp_path / "t.csv"))
    frame.loc[[3, 7], "day"] = None
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    with pytest.raises(DataError, match=r"a value in every row. Received: 2 rows without"):
        read_data(Settings(data=str(tmp_path / "gaps.csv"), time="day"))
    with pytest.raises(ArgumentError, match=r"Received: iris, which is no table"):
        split_test(read_data(Settings(data="iris")), Settings(data="iris", group="species"))


# ---- the command line ---------------------------------------------------------------------------


def _results(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "extra", ["--hidden 8 --epochs 4", "--preset tabular --members 2 --epochs 4"]
)
def test_cross_validation(extra: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = _table(tmp_path / "t.csv"), tmp_path / "run"
    words = f"train {path} --device numpy --cv 3 --json --out {out} {extra}"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    with (out / "cv.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [float(row["r2"]) for row in rows]
    assert sum(int(row["rows"]) for row in rows) == 240  # without the test rows
    assert found["cv_r2"] == pytest.approx(np.mean(values))
    assert found["cv_r2_sd"] == pytest.approx(np.std(values, ddof=1))
    assert "+- " in captured.out
    assert captured.err.count("fold ") == 3
    assert (out / "model.safetensors").is_file()


def test_a_fold_equals_a_run_on_its_rows(tmp_path: Path) -> None:
    """The first fold's figures are those of a model that has never seen the fold's rows."""
    out = tmp_path / "run"
    words = f"train iris --device numpy --cv 3 --out {out} --hidden 8 --epochs 4 --test 0"
    assert main([*words.split(), "--validation", "0", "--scale", "standard"]) == 0
    with (out / "cv.csv").open() as file:
        row = next(csv.DictReader(file))
    data = read_data(Settings(data="iris"))
    rest, held = next(iter(fold_rows(150, 3, 0, data.y)))
    assert data.y is not None
    np.savez(tmp_path / "rest.npz", x=data.x[rest], y=np.array(data.labels)[rest])
    words = f"train {tmp_path / 'rest.npz'} --device numpy --out {tmp_path / 'one'} --hidden 8"
    more = "--epochs 4 --test 0 --validation 0 --scale standard"
    assert main([*words.split(), *more.split()]) == 0
    model = nn.load(tmp_path / "one" / "model.safetensors", "numpy")
    p = model.predict_proba(data.x[held])
    expected = -np.log(p[np.arange(len(held)), data.y[held]]).mean()
    assert float(row["log_loss"]) == pytest.approx(expected, rel=1e-6)


def test_groups_are_harder_than_random_folds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that knows the patients is worse on new patients; the folds show it."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 20, 300)
    marks = np.eye(20)[patient] + 0.01 * rng.normal(size=(300, 20))
    frame = pd.DataFrame(marks, columns=[f"m{i}" for i in range(20)])
    frame["patient"], frame["y"] = patient, rng.normal(size=20)[patient]
    frame.to_csv(tmp_path / "p.csv", index=False)
    base = f"train {tmp_path / 'p.csv'} --device numpy --cv 4 --json --hidden 32 --epochs 60"
    base += " --learning-rate 0.03"
    found = {}
    for name, more in {"random": ["--ignore", "patient"], "groups": ["--group", "patient"]}.items():
        assert main([*base.split(), *more, "--out", str(tmp_path / name)]) == 0
        found[name] = _results(capsys)
    assert found["random"]["cv_r2"] > 0.5
    assert found["random"]["test_r2"] > 0.5
    assert found["groups"]["cv_r2"] < 0.3
    assert found["groups"]["test_r2"] < 0.3


@pytest.mark.parametrize(
    "key",
    ["--group patient", "--time day", "--time day --preset tabular --members 1"],
)
def test_evaluate_finds_the_test_rows(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = _table(tmp_path / "t.csv"), tmp_path / "run"
    words = f"train {path} --device numpy --epochs 2 --hidden 8 --json --out {out} {key}"
    assert main(words.split()) == 0
    trained = _results(capsys)
    assert main(["evaluate", str(out), str(path), "--json"]) == 0
    found = _results(capsys)
    assert found["part"] == "test"
    assert found["loss"] == pytest.approx(trained["test_loss"])
    if "preset" not in key:
        assert main(["train", "--resume", str(out), "--epochs", "3"]) == 0


def test_tune_judges_by_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    path = _table(tmp_path / "t.csv")
    base = f"tune {path} --device numpy --hidden 4 --epochs 2 --trials 1 --time day"
    for name, more in {"one": [], "folds": ["--folds", "3"]}.items():
        assert main([*base.split(), *more, "--out", str(tmp_path / name)]) == 0
    assert main([*base.split(), "--cv", "3"]) == 2
    assert "--cv must be none for a search" in capsys.readouterr().err


def test_cross_validation_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnbackend.cli import plan

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan.Model, "from_parts", interrupted)
    words = f"train iris --device numpy --cv 3 --epochs 1 --out {tmp_path / 'run'}"
    assert main(words.split()) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
