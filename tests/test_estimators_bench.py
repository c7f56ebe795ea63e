"""`benchmarks.estimators` measures both libraries, and writes its table into the docs page."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.estimators import BEGIN, DOCS, END, SETS, main, table

ROOT = Path(__file__).resolve().parent.parent


def test_a_run_is_written_and_its_table_inserted_into_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "backends")]))
    options = ["--seeds", "1", "--rounds", "1", "--out", str(tmp_path)]
    assert main(["--sets", "1", *options]) == 0
    (path,) = tmp_path.glob("estimators-*.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    (iris,) = result["sets"]
    theirs, ours = (iris["rounds"][whose][0] for whose in ("scikit-learn", "nnbackend"))
    assert theirs["scores"] == pytest.approx(ours["scores"])
    for one in (theirs, ours):
        assert min(*one["fit_s"], *one["predict_s"]) > 0.0
        assert one["peak_mib"] > 50.0
    page = tmp_path / "page.md"
    page.write_text((ROOT / DOCS).read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["--docs", str(path), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("| iris | ") == 2  # the table of TabularMLP* has one too
    assert f"{BEGIN}\n{table(result)}\n{END}" in text
    assert main(["--docs", str(path), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text


def test_there_are_ten_sets_of_both_kinds() -> None:
    assert len(SETS) == 10
    assert len({kind for _, kind, _ in SETS}) == 2
