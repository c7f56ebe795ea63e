"""Runs that are interrupted and resumed equal the uninterrupted run bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import interruptions
import numpy as np
import pytest
from conftest import Script
from rows import make_or_skip

import nnbackend as nn

Count = Callable[[int, int], int]


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_random_interruptions(
    device: str, script: Script, count: Count, note: Callable[[str], None], tmp_path: Path
) -> None:
    make_or_skip(device)
    found = script("interruptions.py", device, count(15, 100), tmp_path)
    note(f"{found}")
    assert found["code"] == 0, found["stderr"]
    assert found["different"] == 0
    assert found["interruptions"] > found["runs"]


def test_a_naive_resume_gives_another_result(tmp_path: Path) -> None:
    """Saving the weights and training for the remaining epochs is not the same."""
    different = 0
    for seed in range(4):
        options: dict[str, Any] = interruptions.options_of(np.random.default_rng(seed))
        whole = interruptions.network("numpy")
        data = interruptions.X, interruptions.LABELS
        nn.Model(whole, scale="standard").fit(*data, **options)
        model = nn.Model(interruptions.network("numpy"), scale="standard")
        model.fit(*data, **{**options, "epochs": 2})
        model.save(tmp_path / "model")
        model = nn.load(tmp_path / "model", "numpy")
        model.fit(*data, **{**options, "epochs": options["epochs"] - 2})
        different += not np.array_equal(model.network.theta, whole.theta)
    assert different == 4
