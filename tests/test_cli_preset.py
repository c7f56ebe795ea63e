"""`nnbackend train --preset tabular`: a run folder with one model of all members."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table with text, an id, and a gap in each tenth row."""
    rng = np.random.default_rng(0)
    size, city = rng.normal(size=400), rng.choice(["Lima", "Cusco", "Puno"], 400)
    answer = np.where(size + (city == "Lima") + rng.normal(size=400) > 0.5, "yes", "no")
    lines = ["key,size,city,answer"]
    for i in range(400):
        cell = "" if i % 10 == 0 else f"{size[i]:.3f}"
        lines.append(f"k{i},{cell},{city[i]},{answer[i]}")
    path = tmp_path_factory.mktemp("tables") / "answers.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


SMALL = ("--preset", "tabular", "--hidden", "8", "--members", "2", "--device", "numpy")


def test_a_run_has_one_model_that_every_command_takes(call: Run, table: Path) -> None:
    code, out, err = call("train", str(table), *SMALL, "--out", "run", "--json")
    assert code == 0
    results = json.loads(out.splitlines()[-1])
    assert results["members"] == 2
    assert results["test_roc_auc"] > 0.65
    assert "network 1  best epoch" in err
    code, out, _ = call("evaluate", "run", str(table), "--part", "test", "--json")
    assert json.loads(out.splitlines()[-1])["roc_auc"] == pytest.approx(results["test_roc_auc"])
    Path("new.csv").write_text("key,size,city\nn1,,Ica\nn2,0.4,Lima\n", encoding="utf-8")
    code, out, _ = call("predict", "run", "new.csv", "--proba")
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == ["n1", "n2"]
    assert call("summary", "run")[0] == 0
    assert call("export", "run", "--out", "m.onnx")[0] == 0


def test_its_config_repeats_the_run(call: Run, table: Path) -> None:
    call("train", str(table), *SMALL, "--out", "one")
    stored = tomllib.loads(Path("one/config.toml").read_text(encoding="utf-8"))
    assert stored["epochs"] in (10, 40, 160)
    assert call("train", "--config", "one/config.toml", "--out", "two")[0] == 0
    models = [nn.load(f"{name}/model.safetensors") for name in ("one", "two")]
    rows = {"size": [0.1, -2.0], "city": ["Puno", "Lima"]}
    np.testing.assert_array_equal(*(model.predict_proba(rows) for model in models))


def test_a_regression_predicts_in_the_targets_units(call: Run) -> None:
    code, out, _ = call("train", "diabetes", *SMALL, "--epochs", "10", "--out", "run", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["test_r2"] > 0.2
    data = nn.data.load("diabetes")
    predicted = nn.load("run/model.safetensors").predict(data.x)
    assert 100 < predicted.mean() < 200


def test_validation_rows_may_be_a_file(call: Run, table: Path) -> None:
    words = ("train", str(table), *SMALL, "--epochs", "3", "--validation", str(table))
    assert call(*words, "--out", "run")[0] == 0
    assert f'validation = "{table}"' in Path("run/config.toml").read_text(encoding="utf-8")


def test_options_that_the_preset_decides_are_refused(call: Run, table: Path) -> None:
    code, _, err = call("train", str(table), *SMALL, "--optimizer", "sgd", "--l2", "0.1")
    assert code == 2
    assert "--optimizer" in err
    assert "--l2" in err
    assert "Omit them" in err
    assert not Path("runs").exists()


def test_an_interrupted_run_keeps_its_members(
    call: Run, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnbackend.cli.preset import MemberProgress

    def interrupt(self: Any, trainer: Any, row: Any) -> None:
        trainer.interrupt.requested = self.member == 2

    monkeypatch.setattr(MemberProgress, "on_epoch_end", interrupt)
    code, _, err = call(
        "train", str(table), *SMALL, "--epochs", "5", "--members", "3", "--out", "run"
    )
    assert code == 130
    assert "the model of the 2 members so far is in run" in err
    assert nn.load("run/model.safetensors").predict({"size": [1.0], "city": ["Lima"]}).shape == (1,)
