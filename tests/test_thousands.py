"""Points in whole numbers, 1.500 for 1500, in training tables and in new rows."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main

RNG = np.random.default_rng(0)


def _spanish(value: float, digits: int) -> str:
    """Return a number as 2.145 or 2.145,30."""
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def _table(path: Path, digits: int, n: int = 300, other: bool = False) -> np.ndarray:
    """Write incomes with so many decimals; return them. other: with a column such as 1,5."""
    incomes = RNG.uniform(300, 5000, n).round(digits)
    lines = ["income;height;left" if other else "income;left"]
    for value in incomes:
        cells = [_spanish(value, digits), "yes" if value > 2000 else "no"]
        lines.append(";".join([cells[0], "1,75", cells[1]] if other else cells))
    path.write_text("\n".join(lines) + "\n")
    return incomes


def test_new_rows_have_the_decimal_sign_of_the_training_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _table(tmp_path / "t.csv", 2)
    out = tmp_path / "run"
    words = f"train {tmp_path / 't.csv'} --device numpy --hidden 4 --epochs 20 --out {out}"
    assert main(words.split()) == 0
    (tmp_path / "points.csv").write_text("income;a\n1.500;x\n857;x\n4.100;x\n")
    (tmp_path / "commas.csv").write_text("income;a\n1500,00;x\n857,0;x\n4100,00;x\n")
    answers = []
    for name in ("points", "commas"):
        capsys.readouterr()
        assert main(["predict", str(out), str(tmp_path / f"{name}.csv"), "--proba"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


def test_a_clear_comma_elsewhere_decides(tmp_path: Path) -> None:
    incomes = _table(tmp_path / "t.csv", 0, other=True)
    data = nn.data.load(str(tmp_path / "t.csv"))
    assert np.array_equal(data.x[:, 0], incomes)


def test_decimal_is_followed(tmp_path: Path) -> None:
    incomes = _table(tmp_path / "t.csv", 0)
    data = nn.data.load(str(tmp_path / "t.csv"), decimal=",")
    assert np.array_equal(data.x[:, 0], incomes)
    assert data.columns is not None
    again = nn.data.load(str(tmp_path / "t.csv"), coding=data.columns)
    assert np.array_equal(again.x, data.x)


def test_a_target_with_points(tmp_path: Path) -> None:
    prices = RNG.integers(1000, 9000, 50)
    rows = [f"{i},5;{_spanish(price, 0)}" for i, price in enumerate(prices)]
    (tmp_path / "t.csv").write_text("\n".join(["x;price", *rows]) + "\n")
    data = nn.data.load(str(tmp_path / "t.csv"), task="regression")
    assert data.y is not None
    assert np.array_equal(data.y, prices)
    assert data.columns is not None
    again = nn.data.load(str(tmp_path / "t.csv"), coding=data.columns)
    assert again.y is not None
    assert np.array_equal(again.y, prices)


def test_numbers_that_may_be_thousands_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _table(tmp_path / "t.csv", 0)
    with caplog.at_level(logging.WARNING, "nnbackend"):
        nn.data.load(str(tmp_path / "t.csv"))
    assert "column 'income' has numbers such as" in caplog.text
    assert "decimal=','" in caplog.text


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_measured_numbers_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, digits: int
) -> None:
    values = RNG.uniform(1, 5000, 300).round(digits)
    rows = [f"{value:g},{'yes' if value > 9 else 'no'}" for value in values]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    with caplog.at_level(logging.WARNING, "nnbackend"):
        nn.data.load(str(tmp_path / "t.csv"))
    assert "thousands" not in caplog.text
