"""The solver lbfgs of the estimators, which has no epochs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_regression

import nnbackend as nn

X_REG, Y_REG = make_regression(120, 6, noise=1.0, random_state=0)


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
