"""Prediction intervals: their coverage, their storage, and where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.data.intervals import Intervals, fit_intervals
from nnbackend.errors import ArgumentError, DataError


def _errors(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions, and true values whose errors grow with them and are skewed."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(1.0, 3.0, n)
    return predicted, predicted + predicted**2 * (rng.exponential(size=n) - 1.0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_bounds_hold_the_share_of_new_values(level: float) -> None:
    found = fit_intervals(*_errors(5_000, 0))
    predicted, true = _errors(20_000, 1)
    bounds = found.bounds(predicted, level)
    inside = (true >= bounds[:, 0]) & (true <= bounds[:, 1])
    assert inside.mean() == pytest.approx(level, abs=0.015)
    for part in (predicted < 1.5, predicted > 2.5):  # wide where errors are large
        assert inside[part].mean() == pytest.approx(level, abs=0.035)


def test_few_errors_make_one_group_and_wide_bounds() -> None:
    found = fit_intervals(np.zeros(20), np.arange(20.0))
    assert found.bounds(np.array([5.0]), 0.95).tolist() == [[5.0, 24.0]]


def test_predictions_that_agree_are_one_group() -> None:
    found = fit_intervals(np.ones(3_000), np.random.default_rng(0).normal(size=3_000))
    assert np.isfinite(found.bounds(np.array([0.0, 1.0, 2.0]), 0.9)).all()


def test_a_level_must_be_a_share() -> None:
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        fit_intervals(*_errors(100, 0)).bounds(np.ones(2), 90.0)


@pytest.mark.parametrize(
    "change",
    [{"edges": [2.0, 1.0]}, {"n": [0] * 10}, {"quantiles": [[1.0, 0.0]]}, {"n": None}],
    ids=str,
)
def test_untrusted_intervals_are_refused(change: dict[str, Any]) -> None:
    stored = fit_intervals(*_errors(5_000, 0)).to_dict()
    again = Intervals.from_dict(stored)
    np.testing.assert_array_equal(again.quantiles, stored["quantiles"])
    with pytest.raises(DataError, match="Stored intervals must have"):
        Intervals.from_dict({**stored, **change})


def test_the_preset_has_them_in_python_in_its_model_and_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_200, 3))
    y = 100.0 + x[:, 0] + rng.normal(size=1_200)
    model = nn.TabularMLPRegressor(
        hidden_layer_sizes=8, max_iter=20, n_members=2, random_state=0, device="numpy"
    ).fit(x[:600], y[:600])
    bounds = model.predict_interval(x[600:], 0.8)
    inside = (y[600:] >= bounds[:, 0]) & (y[600:] <= bounds[:, 1])
    assert inside.mean() == pytest.approx(0.8, abs=0.06)
    model.to_model().save("m.safetensors")
    loaded = nn.load("m.safetensors", device="numpy")
    np.testing.assert_allclose(loaded.predict_interval(x[600:], 0.8), bounds, rtol=1e-5)
    np.save("new.npy", x[600:603])
    assert main(["predict", "m.safetensors", "new.npy", "--interval", "0.8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prediction,lower,upper"
    assert [float(v) for v in lines[1].split(",")[1:]] == pytest.approx(bounds[0])


def test_other_models_have_none() -> None:
    net = nn.Network([2, 1], device="numpy")
    with pytest.raises(ArgumentError, match="needs a regression by TabularMLPRegressor"):
        nn.Model(net).predict_interval(np.zeros((1, 2)))
    rng = np.random.default_rng(0)
    several = nn.TabularMLPRegressor(hidden_layer_sizes=4, max_iter=2, n_members=1, device="numpy")
    several.fit(rng.normal(size=(150, 2)), rng.normal(size=(150, 2)))
    with pytest.raises(ArgumentError, match="2 outputs"):
        several.predict_interval(np.zeros((1, 2)))
