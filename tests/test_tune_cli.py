"""`nnbackend tune`: its run folder, its options, its study file, and Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.cli.settings import read_config
from nnbackend.plots import trials as draw_trials

pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parent.parent
SPACE = ("--space", "width=range:3:9", "--space", "learning_rate=log:1e-3:0.1")
FAST = ("--trials", "3", "--epochs", "3", "--device", "numpy", "--folds", "1", *SPACE)


def _json(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _table(folder: str | Path) -> list[dict[str, str]]:
    with (Path(folder) / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_tune_writes_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "iris", *FAST, "--json"]) == 0
    out, err = capsys.readouterr()
    found, folder = _json(out), Path("runs/iris-001")
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "last.safetensors", "config.toml", "history.csv", "curves.png"),
        *("environment.json", "checkpoints", "study.journal", "trials.csv", "trials.png"),
    }
    assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")
    rows = _table(folder)
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    best = min(rows, key=lambda row: float(row["value"] or "inf"))
    assert found["best_trial"] == int(best["trial"])
    assert found["best_loss"] == found["valid_loss"] == float(best["value"])
    settings = read_config(folder / "config.toml")
    assert settings["hidden"] == (int(best["width"]),)
    assert settings["learning_rate"] == float(best["learning_rate"])
    assert settings["validation"] == 0.2
    # The printed table has the same trials.
    lines = [line.split() for line in err.splitlines() if line[:5].strip().isdigit()]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert f"{float(best['value']):.6g}" in lines[int(best["trial"])]


def test_train_repeats_the_best_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "iris", *FAST, "--quiet", "--out", "tuned", "--json"]) == 0
    tuned = _json(capsys.readouterr().out)
    words = ["--quiet", "--out", "again", "--json"]
    assert main(["train", "--config", "tuned/config.toml", *words]) == 0
    again = _json(capsys.readouterr().out)
    for name in ("valid_loss", "test_loss", "test_accuracy", "best_epoch"):
        assert again[name] == tuned[name]
    data = nn.data.load("iris")
    models = [nn.load(f"{name}/model.safetensors", device="numpy") for name in ("tuned", "again")]
    first, second = (model.predict_proba(data.x) for model in models)
    assert np.array_equal(first, second)
    assert main(["evaluate", "tuned", "iris", "--json"]) == 0
    assert _json(capsys.readouterr().out)["accuracy"] == tuned["test_accuracy"]


def test_a_study_continues(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "iris", *FAST, "--study", "study"]
    assert main([*words, "--out", "first"]) == 0
    first = _table("first")
    capsys.readouterr()
    more = [word if word != "3" else "5" for word in words[:4]]
    assert main([*more, *words[4:], "--out", "second"]) == 0
    second = _table("second")
    assert second[: len(first)] == first
    assert len(second) == 5
    assert "5 trials, 3 known" in capsys.readouterr().err
    assert main([*words, "--metric", "accuracy"]) == 2
    assert "other metric 'accuracy' (was 'loss')" in capsys.readouterr().err


def test_folds_and_the_rows_of_the_last_training(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trials", "2", "--epochs", "2", "--device", "numpy", "--quiet", *SPACE]
    assert main(["tune", "iris", *words]) == 0
    assert read_config(Path("runs/iris-001/config.toml"))["validation"] == 0.1  # 5 folds
    assert main(["tune", "iris", *words, "--validation", "0.3"]) == 0
    assert read_config(Path("runs/iris-002/config.toml"))["validation"] == 0.3
    capsys.readouterr()
    assert main(["tune", "iris", *words[:-4], *FAST[-6:]]) == 0
    assert read_config(Path("runs/iris-003/config.toml"))["validation"] == 0.2


def test_a_known_run_is_searched_further(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["train", "iris", "--hidden", "7", "--epochs", "2", "--quiet", "--device", "numpy"])
        == 0
    )
    words = ["tune", "--config", "runs/iris-001/config.toml", "--quiet"]
    assert main([*words, "--trials", "2", "--space", "learning_rate=log:0.01:0.1"]) == 0
    settings = read_config(Path("runs/iris-002/config.toml"))
    assert settings["hidden"] == (7,)
    assert 0.01 <= settings["learning_rate"] <= 0.1
    assert main(words) == 2
    assert "needs a setting without a value" in capsys.readouterr().err


def test_options_that_are_given_are_not_searched(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trials", "2", "--epochs", "2", "--device", "numpy", "--folds", "1", "--quiet"]
    assert main(["tune", "diabetes", "--optimizer", "sgd", "--hidden", "6", "--dropout", "0",
                 "--metric", "rmse", "--json", *words]) == 0  # fmt: skip
    assert _json(capsys.readouterr().out)["best_rmse"] > 0
    names = _table("runs/diabetes-001")[0].keys()
    assert {"activation", "learning_rate", "weight_decay", "scale"} < names
    assert {"layers", "width", "dropout", "optimizer"}.isdisjoint(names)
    assert read_config(Path("runs/diabetes-001/config.toml"))["optimizer"] == "sgd"


def test_a_space_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("space.toml").write_text(
        'hidden = ["8", "6,4"]\nactivation = ["relu", "maxout:2"]\nl2 = ["log", 1e-5, 0.01]\n'
    )
    words = ["--trials", "2", "--epochs", "2", "--device", "numpy", "--folds", "1", "--quiet"]
    assert main(["tune", "iris", "--space", "space.toml", "--space", "dropout=0|0.1", *words]) == 0
    row = _table("runs/iris-001")[0]
    assert row["hidden"] in ("8", "6,4")
    assert row["dropout"] in ("0", "0.1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "no"], "--trials must be a whole number, at least 1"),
        (["--minutes", "0"], "--minutes must be a number above 0"),
        (["--validation", "0"], "--validation must be above 0"),
        (["--space", "widht=1|2"], "Did you mean 'width'"),
        (["--space", "nothing.toml"], "--space must be a readable .toml file"),
        (["--space", "dropout=range:0:0.5", "--dropout", "0.1"], "either searched or set"),
        (["--metric", "r2"], "--metric must be one of loss, accuracy"),
        (["--trails", "3"], "Did you mean '--trials'"),
        (["--study", "table.csv"], "table.csv, which is another file"),
        (["--study", "no/folder/study"], "no/folder"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text("a,b\n1,2\n")
    assert main(["tune", "iris", "--device", "numpy", "--epochs", "1", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_without_optuna(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "iris"]) == 2
    assert 'pip install "nnbackend[tune]"' in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_the_trials_and_trains_the_best(tmp_path: Path, workers: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "nnbackend", "tune", "iris", "--trials", "100000", "--epochs", "40",
         "--device", "numpy", "--folds", "1", "--out", "out", "--json", "--workers", workers,
         *SPACE],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell makes background jobs ignore Ctrl-C; this process must not ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("    2 "):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "--study out/study.journal" in err
    found = _json(out)
    assert found["trials"] >= 3
    assert nn.load(tmp_path / found["model"], device="numpy").classes is not None
    rows = _table(tmp_path / "out")
    assert len(rows) == found["trials"]
    assert {row["state"] for row in rows} <= {"complete", "pruned", "interrupted"}


# ---- the picture ----------------------------------------------------------------------------


def test_the_picture_of_trials(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"trial": 0, "state": "complete", "value": 0.5, "rate": 0.1, "kind": "a", "width": 5},
        {"trial": 1, "state": "pruned", "value": 0.9, "rate": 0.01, "kind": "b", "width": None},
        {"trial": 2, "state": "diverged", "value": None, "rate": 3.0, "kind": "a"},
        *({"trial": 3 + i, "state": "complete", "value": 0.4, "rate": 0.1 * i + 0.1,
           "kind": "a", "width": i} for i in range(8)),
    ]  # fmt: skip
    for is_maximised in (False, True):
        draw_trials(rows, tmp_path / "trials.svg", metric="valid loss", is_maximised=is_maximised,
                    settings=["rate", "kind", "width"], logarithmic={"rate"})  # fmt: skip
    assert (tmp_path / "trials.svg").read_text(encoding="utf-8").startswith("<?xml")
    with pytest.raises(nn.errors.ArgumentError, match="must have a complete one"):
        draw_trials(rows[1:3], tmp_path / "x.png", metric="m", is_maximised=True, settings=[])
