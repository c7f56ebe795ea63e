"""`benchmarks.gpu_check` runs to its end on the stand-in, and says that it was the stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from emulator import LACKING

from benchmarks.gpu_check import CONTENDERS, TINY, main


@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_on_the_stand_in(tmp_path: Path) -> None:
    assert main(["--emulated", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["emulated"]
    assert found["complete"]
    assert found["capture"]["equal"]
    assert found["numbers"]["relu_epilogue_keeps_nan"] is False  # as the stand-in's model has it
    assert found["conformance"]["passed"] >= 20
    assert found["failures"] == []
    assert {row: tuple(table) for row, table in found["speed"].items()} == dict.fromkeys(
        TINY, CONTENDERS
    )


@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_out_of_time_it_still_writes_what_it_has(tmp_path: Path) -> None:
    assert main(["--emulated", "--out", str(tmp_path), "--seconds", "0"]) == 1
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["complete"]
    assert "conformance" in found["failures"]
    assert found["speed"][TINY[0]]["ours"] == {"left_out": "no time left"}
