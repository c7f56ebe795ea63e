"""Plots: atomic files, the columns they use, errors for data that cannot be drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnbackend.errors import ArgumentError
from nnbackend.plots import confusion_matrix, count_confusions, curves
from nnbackend.training.history import History, Row

PNG = b"\x89PNG\r\n\x1a\n"


def _rows(n: int, score: str = "accuracy") -> list[Row]:
    return [
        {
            "epoch": e,
            "train_loss": 2.0 * 0.7**e,
            "valid_loss": 0.3 + (e - 6) ** 2 / 50,
            f"valid_{score}": 1 - 0.5**e,
            "learning_rate": 1e-3,
            "seconds": 0.1,
        }
        for e in range(1, n + 1)
    ]


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("score", ["accuracy", "r2"])
def test_curves_are_written_as_an_image(n: int, score: str, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    curves(_rows(n, score), path)
    assert path.read_bytes().startswith(PNG)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_curves_take_a_history_and_a_monitor(tmp_path: Path) -> None:
    curves(History("valid_loss", _rows(9)), tmp_path / "a.svg", monitor="valid_accuracy")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "best epoch, 9" in text
    curves(_rows(9), tmp_path / "b.svg")
    assert "best epoch, 6" in (tmp_path / "b.svg").read_text(encoding="utf-8")


def test_a_logarithmic_scale_has_plain_numbers(tmp_path: Path) -> None:
    rows: list[Row] = [{"epoch": e, "train_loss": 0.8 * 0.6**e} for e in range(1, 10)]
    curves(rows, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "<!-- 0.05 -->" in text
    assert "mathdefault" not in text, "a power of ten"


def test_curves_without_validation(tmp_path: Path) -> None:
    rows: list[Row] = [{"epoch": 1, "train_loss": 0.0}, {"epoch": 2, "train_loss": float("inf")}]
    curves(rows, tmp_path / "curves.pdf")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_curves_that_cannot_be_drawn_raise(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="must have at least one row"):
        curves([], tmp_path / "curves.png")
    with pytest.raises(ArgumentError, match=r"Use \.png"):
        curves(_rows(3), tmp_path / "curves.bmp2")
    with pytest.raises(ArgumentError, match="Did you mean 'valid_loss'"):
        curves(_rows(3), tmp_path / "curves.png", monitor="valid_los")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n", [2, 10, 30, 60])
def test_a_confusion_matrix_is_written_as_an_image(
    n: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    classes = [f"kind {i}" for i in range(n)]
    true = rng.integers(0, n, 300)
    predicted = np.where(rng.random(300) < 0.8, true, rng.integers(0, n, 300))
    path = tmp_path / "confusion.png"
    confusion_matrix(np.array(classes)[true], np.array(classes)[predicted], classes, path)
    assert path.read_bytes().startswith(PNG)


def test_confusions_are_counted() -> None:
    counts, labels = count_confusions(["b", "a", "b"], ["a", "a", "b"], ["a", "b", "c"])
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert labels == ["a", "b", "c"]
    with pytest.raises(ArgumentError, match="Received: 'd'"):
        count_confusions(["a"], ["d"], ["a"])
    with pytest.raises(ArgumentError, match="of equal length"):
        count_confusions(["a"], ["a", "a"])


def test_no_global_state_of_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from nnbackend.plots import curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        "curves([{'epoch': 1, 'train_loss': 1.0}], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = str(tmp_path / "curves.png")
    subprocess.run([sys.executable, "-c", code, path], check=True, env=_environment())


def _environment() -> dict[str, str]:
    import os

    root = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "backends")])}
