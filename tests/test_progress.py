"""The progress bar of the estimators, and programs without a console."""

from __future__ import annotations

import io
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
FULL = "[" + "#" * 30 + "] epoch 3/3  train_loss "
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def _fit(verbose: Any = "bar", **options: Any) -> nn.MLPClassifier:
    model = nn.MLPClassifier(4, max_iter=3, device="numpy", random_state=0, verbose=verbose)
    return model.set_params(**options).fit(X, Y)


@pytest.fixture
def _draw_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnbackend.estimators.progress.PAUSE", -1.0)


@pytest.mark.usefixtures("_draw_every_step")
def test_the_bar_is_one_line_and_ends_with_the_last_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _fit()
    out, err = capsys.readouterr()
    assert not out
    assert err.endswith("\n")
    drawn = err.rstrip("\n").split("\r")[1:]
    assert len(drawn) == 4  # a step of each epoch, and the end
    assert drawn[-1].startswith(FULL)


def test_a_shorter_bar_overwrites_a_longer_one(capsys: pytest.CaptureFixture[str]) -> None:
    from nnbackend.estimators.progress import _on_stream

    show = _on_stream(sys.stderr)
    for bar, is_last in (("a long one", False), ("short", True)):
        show(bar, is_last)
    assert capsys.readouterr().err == "\ra long one\rshort     \n"


# ---- no console ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"verbose": True}, {"solver": "lbfgs"}, {"preset": "tabular", "n_members": 2},
                {"early_stopping": True}], ids=str,
)  # fmt: skip
def test_without_a_console_a_fit_is_silent(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert _fit(**options).predict(X).shape == (40,)


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


# ---- notebooks ----------------------------------------------------------------------------------


class DisplayHandle:
    """A replacement of IPython's handle that records the output of the cell."""

    def __init__(self, shown: list[Any], display_id: str) -> None:
        self.shown, self.display_id = shown, display_id

    def update(self, obj: Any, **kwargs: Any) -> None:
        assert kwargs == {"raw": True}, "IPython formats anything else, a dict by its repr"
        self.shown.append((self.display_id, "update", obj))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the output of the cell. Names, signatures and results are those of IPython 9."""
    cell: list[Any] = []

    def display(
        *objs: Any, include: Any = None, exclude: Any = None, metadata: Any = None,
        transient: Any = None, display_id: Any = None, raw: bool = False, clear: bool = False,
        **kwargs: Any,
    ) -> DisplayHandle | None:  # fmt: skip
        assert raw
        assert not kwargs
        if display_id is None:
            return None
        handle = DisplayHandle(cell, str(len(cell)) if display_id is True else display_id)
        cell.extend((handle.display_id, "display", obj) for obj in objs)
        return handle

    kernel_shell = types.SimpleNamespace(kernel=object())
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: kernel_shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return cell


@pytest.mark.usefixtures("_draw_every_step")
def test_a_notebook_shows_one_output_for_each_fit(
    shown: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _fit()
    _fit()
    first, second = shown[:4], shown[4:]
    for part in (first, second):
        assert [how for _, how, _ in part] == ["display", "update", "update", "update"]
        assert len({cell for cell, _, _ in part}) == 1
        assert part[-1][2]["text/plain"].startswith(FULL)
    assert first[0][0] != second[0][0]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()], ids=["plain", "IPython"])
def test_ipython_in_a_terminal_prints_the_line(
    shell: Any, shown: list[Any], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    _fit()
    assert not shown
    assert FULL in capsys.readouterr().err


def test_ipython_is_not_imported_for_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    before = {name for name in sys.modules if name.partition(".")[0] == "IPython"}
    _fit()
    assert {name for name in sys.modules if name.partition(".")[0] == "IPython"} == before
