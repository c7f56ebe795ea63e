"""Pictures and figures of how good predictions are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import plots
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.model.importance import feature_groups, permutation_importance
from nnbackend.plots.quality import expected_calibration_error


def test_expected_calibration_error_by_hand() -> None:
    """Half of the rows are predicted 0.2 and all are 1, half 0.9 and all are 1."""
    p = np.repeat([0.2, 0.9], 50)
    two = np.stack([1.0 - p, p], axis=1)
    assert expected_calibration_error(np.ones(100, int), two) == pytest.approx(0.45)
    right = (np.arange(100) % 50 < np.where(p < 0.5, 10, 45)).astype(int)
    shuffled = np.random.default_rng(0).permutation(100)
    assert expected_calibration_error(right[shuffled], two[shuffled]) < 0.25
    three = np.tile([0.1, 0.7, 0.2], (100, 1))
    assert expected_calibration_error(np.ones(100, int), three) == pytest.approx(0.3)


@pytest.fixture(scope="module")
def fitted() -> tuple[nn.Model, np.ndarray, np.ndarray]:
    """Return a classifier of the first of three columns, and other rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 3))
    y = (x[:, 0] + 0.3 * rng.normal(size=900) > 0).astype(int)
    model = nn.Model(nn.Network([3, 8, 2], loss="cross_entropy", device="numpy"), scale="standard")
    model.fit(x[:600], y[:600], epochs=20)
    return model, x[600:], y[600:]


def test_only_the_column_that_is_used_is_important(fitted: Any) -> None:
    model, x, y = fitted
    losses = permutation_importance(model, x, y, names=["used", "other", "third"])
    assert next(iter(losses)) == "used"
    assert losses["used"].mean() > 0.2
    assert abs(losses["other"]).max() < 0.1
    assert losses["third"].shape == (5,)
    again = permutation_importance(model, x, y, metric="log_loss", repeats=2)
    assert next(iter(again)) == "x0"
    assert again["x0"].mean() > 0.3  # a larger loss counts as a loss too


def test_features_of_a_column_are_shuffled_together() -> None:
    rng = np.random.default_rng(0)
    city = rng.choice(["Lima", "Cusco", "Puno"], 300)
    size = rng.normal(size=300)
    net = nn.Network([4, 8, 1], device="numpy")
    model = nn.Model(net, scale="standard")
    table = {"size": size, "city": city}
    model.fit(table, np.where(city == "Lima", 3.0, 0.0), epochs=30)
    assert dict(feature_groups(model)) == {"size": [0], "city": [1, 2, 3]}
    x = np.stack([size, city == "Cusco", city == "Lima", city == "Puno"], axis=1).astype(float)
    order = model.preprocessing.columns["columns"][1]["levels"]  # type: ignore[index]
    x[:, 1:] = np.stack([city == level for level in order], axis=1)
    losses = permutation_importance(model, x, np.where(city == "Lima", 3.0, 0.0))
    assert list(losses) == ["city", "size"]
    assert losses["city"].mean() > 0.5


@pytest.mark.parametrize("draw", ["roc_curve", "precision_recall_curve", "calibration_curve"])
def test_pictures_of_two_and_of_three_classes(draw: str, fitted: Any, tmp_path: Path) -> None:
    model, x, y = fitted
    getattr(plots, draw)(y, model.predict_proba(x), ("no", "yes"), tmp_path / "two.png")
    p = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    getattr(plots, draw)(np.arange(60) % 3, p, ("a", "b", "c"), tmp_path / "three.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"two.png", "three.svg"}
    assert "matplotlib" in (tmp_path / "three.svg").read_text(encoding="utf-8")


def test_a_curve_of_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="rows of two classes"):
        plots.roc_curve(np.zeros(9, int), np.full((9, 2), 0.5), ("a", "b"), tmp_path / "a.png")


def test_the_command_line_draws_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--epochs", "2", "--hidden", "4", "--device", "numpy", "--quiet"]
    assert main(["train", "iris", *words, "--out", "classes"]) == 0
    assert main(["train", "diabetes", *words, "--out", "values"]) == 0
    for kind in ("roc", "pr", "calibration", "importance", "dependence"):
        assert main(["plot", "classes", "--kind", kind, "--device", "numpy"]) == 0
        assert Path(f"classes/{kind}.png").stat().st_size > 5_000
    assert main(["plot", "values", "--kind", "residuals", "--device", "numpy"]) == 0
    assert main(["plot", "values", "--kind", "roc", "--device", "numpy"]) == 2
    assert main(["plot", "classes", "--kind", "residuals", "--device", "numpy"]) == 2


def test_pictures_that_repeat_a_training_refuse_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--preset", "tabular", "--members", "1", "--epochs", "2", "--device", "numpy"]
    assert main(["train", "iris", *words, "--hidden", "4", "--out", "run"]) == 0
    for kind in ("weights", "diagram", "boundary", "importance", "dependence"):
        assert main(["plot", "run", "--kind", kind, "--device", "numpy"]) == 0, kind
    assert main(["plot", "run", "--kind", "signals", "--device", "numpy"]) == 2
    assert "a run with the preset 'tabular'" in capsys.readouterr().err
