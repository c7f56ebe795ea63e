"""The progress bar of the estimators, and programs without a console."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def _fit(verbose: Any = "bar", **options: Any) -> nn.MLPClassifier:
    model = nn.MLPClassifier(4, max_iter=3, device="numpy", random_state=0, verbose=verbose)
    return model.set_params(**options).fit(X, Y)


def test_the_bar_ends_with_the_last_epoch_and_its_losses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = _fit(early_stopping=True, validation_fraction=0.2)
    out, err = capsys.readouterr()
    assert not out
    assert err.endswith("\n")
    last = err.rstrip("\n").split("\r")[-1]
    assert re.search(r"^100%\|.*\| 3\.0/3 epochs \[.*train_loss=\d\.\d{4}, valid_loss=", last), last
    assert f"valid_loss={model.validation_loss_curve_[-1]:.4f}" in last


def test_a_stopped_fit_leaves_the_bar_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    class Stop(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> bool:
            return bool(row["epoch"] == 2)

    _fit(callbacks=Stop())
    assert "| 2.0/3 epochs" in capsys.readouterr().err.split("\r")[-1]


def test_the_bar_moves_within_an_epoch() -> None:
    from nnbackend.estimators.callbacks import ProgressBar

    seen: list[float] = []

    class Look(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            bar.on_progress(trainer, step, n_steps)
            seen.append(bar.bar.n)

    bar = ProgressBar()
    _fit(verbose=False, callbacks=[bar, Look()], max_iter=2)
    assert seen == [1.0, 2.0]
    bar.on_train_begin(types.SimpleNamespace(config=types.SimpleNamespace(epochs=4)))
    bar.on_progress(types.SimpleNamespace(state=types.SimpleNamespace(epoch=1)), 1, 4)
    assert bar.bar.n == 1.25
    bar.bar.close()


def test_a_missing_tqdm_is_an_error_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(nn.errors.ArgumentError, match=r'pip install "nnbackend\[progress\]"'):
        _fit()
    assert hasattr(_fit(verbose=False), "coefs_")


def test_tqdm_is_imported_for_the_bar_only() -> None:
    code = (
        "import sys, nnbackend as nn\n"
        "nn.MLPRegressor(solver='lbfgs', device='numpy').fit([[0.0], [1.0]], [0.0, 1.0])\n"
        "sys.exit('tqdm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# ---- no console ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"verbose": True}, {"solver": "lbfgs"}, {"early_stopping": True}], ids=str,
)  # fmt: skip
def test_without_a_console_a_fit_is_silent(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert _fit(**options).predict(X).shape == (40,)


def test_without_a_console_an_ensemble_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    model = nn.TabularMLPClassifier(4, max_iter=3, n_members=2, device="numpy", verbose="bar")
    assert model.fit(X, Y).predict(X).shape == (40,)


def test_the_bar_is_not_written_to_another_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    _fit()
    assert not capsys.readouterr().out


def test_a_closed_stream_does_not_fail_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert hasattr(_fit(), "coefs_")


def test_the_command_line_runs_without_a_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        patch.setattr(sys, "stdout", None)
        words = ["--epochs", "2", "--hidden", "4", "--device", "numpy", "--out", "run"]
        assert main(["train", "iris", *words]) == 0
        assert main(["evaluate", "run", "iris"]) == 0
        assert main(["evaluate", "absent", "iris"]) == 2
        assert main(["--help"]) == 0
        assert sys.stdout is sys.stderr is None
    assert Path("run/model.safetensors").is_file()
