"""Metrics of predictions: worked by hand, and the same as scikit-learn's on real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.metrics import METRICS, advice, metrics_of

Y = np.array([0, 0, 0, 1, 1])
P = np.array([0.1, 0.6, 0.3, 0.4, 0.9], np.float32)  # of class 1
BOTH = np.column_stack([1 - P, P])


def test_two_classes_worked_by_hand() -> None:
    found = metrics_of(Y, BOTH, 2)
    assert list(found) == [name for name, m in METRICS.items() if m.needs != "values"]
    # Answered: 0, 1, 0, 0, 1.
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "f1": 2 * 1 / (2 + 2),
        "roc_auc": 5 / 6,  # of six pairs only (0.6, 0.4) is in the wrong order
        "average_precision": (1 + 2 / 3) / 2,
        "brier": (0.01 + 0.36 + 0.09 + 0.36 + 0.01) / 5,
        "log_loss": -np.log([0.9, 0.4, 0.7, 0.4, 0.9]).mean(),
        "mcc": (2 * 1 - 1 * 1) / np.sqrt(2 * 2 * 3 * 3),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_values_worked_by_hand() -> None:
    found = metrics_of(np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 4.0]), 0)
    assert found == pytest.approx(
        {"r2": 1 - 5 / 14, "rmse": np.sqrt(5 / 3), "mae": 1.0}  # of the mean 3: 4 + 1 + 9
    )


def test_more_classes_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    found = metrics_of(y, p.astype(np.float32), 4)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), rel=1e-5)
    assert found["f1"] == pytest.approx(metrics.f1_score(y, p.argmax(1), average="macro"))
    balanced = metrics.balanced_accuracy_score(y, p.argmax(axis=1))
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    assert found["brier"] == pytest.approx(((p - np.eye(4)[y]) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_rows_of_one_class_only() -> None:
    found = metrics_of(np.zeros(5, int), BOTH, 2)
    assert np.isnan(found["roc_auc"])
    assert np.isnan(found["average_precision"])
    assert found["balanced_accuracy"] == found["accuracy"] == 3 / 5
    assert np.isfinite(found["log_loss"])


def test_names_that_do_not_suit_are_refused() -> None:
    assert list(metrics_of(Y, BOTH, 2, ["mcc", "brier"])) == ["mcc", "brier"]
    for name, cure in {"rmse": "", "roc-auc": "Did you mean 'roc_auc'"}.items():
        with pytest.raises(
            ArgumentError, match=f"metric must be a name.*Known: accuracy, .*{cure}"
        ):
            metrics_of(Y, BOTH, 2, [name])


def test_advice_where_accuracy_is_that_of_the_majority() -> None:
    y = np.array([0] * 95 + [1] * 5)
    assert "0.9500, that of always answering 'no'" in advice(y, 0.952, ["no", "yes"])
    assert advice(y, 0.97, ["no", "yes"]) == ""
    assert advice(np.array([0, 1] * 50), 0.8, [0, 1]) == ""


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_command(words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return main(words.split()), *capsys.readouterr()

    return run_command


def test_the_commands_print_metrics_and_advice(
    run: Callable[[str], tuple[int, str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{'yes' if a + b > 2.6 else 'no'}" for a, b in rng.normal(size=(900, 2))
    ]
    Path("t.csv").write_text("\n".join(["a,b,y", *rows]), encoding="utf-8")
    code, out, err = run("train t.csv --hidden 4 --epochs 1 --device numpy")
    assert code == 0
    assert "test_roc_auc" in out
    assert "that of always answering 'no'" in caplog.text
    caplog.clear()
    code, out, err = run("evaluate runs/t-001 t.csv --device numpy")
    assert [line.split()[0] for line in out.splitlines()[1:10]] == ["loss", *list(METRICS)[:8]]
    assert "that of always answering 'no'" in caplog.text
    code, out, err = run("evaluate runs/t-001 t.csv --device numpy --metric roc_auc,f1 --json")
    assert '"roc_auc": ' in out
    assert "mcc" not in out
    code, out, err = run("evaluate runs/t-001 t.csv --device numpy --metric rmse")
    assert (code, "--metric must be a name" in err) == (2, True)
    assert run("train diabetes --hidden 4 --epochs 1 --device numpy")[0] == 0
    code, out, err = run("evaluate runs/diabetes-001 diabetes --device numpy")
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["loss", "r2", "rmse", "mae"]
