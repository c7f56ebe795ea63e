"""Readers raise only our errors for random changes of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Script
from fuzz import at_random
from targets import TARGETS

Count = Callable[[int, int], int]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_random_changes(
    target: str, count: Count, note: Callable[[str], None], script: Script, tmp_path: Path
) -> None:
    os.chdir(tmp_path)  # for the crash file
    found = script("fuzz.py", target, count(150, 30_000).__str__() + "x", PYTHONWARNINGS="error")
    note(f"{found.get('tried')} inputs, {found.get('accepted')} of them accepted")
    assert found["code"] == 0, found["stderr"]
    assert found["crash"] is None, found["stderr"]


def test_a_naive_reader_raises_other_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same changes crash a reader that trusts its file."""

    def naive(data: bytes) -> None:
        n = int.from_bytes(data[:8], "little")
        data[8 : 8 + n].decode()
        [data[n]]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TARGETS, "model", naive)
    assert at_random("model", 60.0, 500)["crash"] == "crash-model"
