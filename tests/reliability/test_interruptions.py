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
        nn.train(whole, interruptions.X, interruptions.LABELS, **options)
        net = interruptions.network("numpy")
        nn.train(net, interruptions.X, interruptions.LABELS, **{**options, "epochs": 2})
        net.save(tmp_path / "model")
        net = nn.load(tmp_path / "model", "numpy")
        rest = {**options, "epochs": options["epochs"] - 2}
        nn.train(net, interruptions.X, interruptions.LABELS, **rest)
        different += not np.array_equal(net.theta, whole.theta)
    assert different == 4
