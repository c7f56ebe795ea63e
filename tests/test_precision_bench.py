"""`benchmarks.precision` trains in both precisions, and writes its scores into a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import precision
from benchmarks.precision import BEGIN, DOCS, END, main, table
from nnbackend.devices import get_backend

ROOT = Path(__file__).resolve().parent.parent


def test_a_run_is_written_and_its_scores_inserted_into_the_page(tmp_path: Path) -> None:
    if "bf16" not in get_backend("cpu").precisions:
        pytest.skip("this CPU has no bf16")
    assert main(["--quick", "--seeds", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("precision-*.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    (cancer,) = result["sets"]
    runs = [cancer["runs"][p] for p in ("float32", "bf16")]
    assert [len(of) for of in runs] == [2, 2]
    for run in runs[0] + runs[1]:
        assert run["score"] > 0.9
        assert run["us_per_step"] > 0.0
    page = tmp_path / "page.md"
    page.write_text((ROOT / DOCS).read_text(encoding="utf-8"), encoding="utf-8")
    for _ in range(2):
        assert main(["--docs", str(path), "--page", str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert f"{BEGIN}\n{table(result)}\n" in text
        assert text.count("| breast cancer, 426 |") == text.count(END) == 1


def test_a_cpu_without_bf16_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "get_backend", lambda _: get_backend("numpy"))
    assert main(["--quick"]) == 1
    assert "numpy:0 has float32 only" in capsys.readouterr().err
