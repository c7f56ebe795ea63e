"""Gradients of several ranks are added by NCCL, within captured steps."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from mpi_processes import OPEN_MPI
from stand_in_backend import modules, new_backend

import nnbackend as nn

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
PROGRAM = Path(__file__).parent / "nccl_ranks.py"


def found(mpiexec: str, size: int, reduction: str) -> list[dict[str, Any]]:
    """Return what each rank reports."""
    command = [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", str(PROGRAM), reduction]
    done = subprocess.run(
        command, env={**os.environ, **OPEN_MPI}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("}{", "}\n{").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_captured_steps_give_the_same_bits_on_1_2_and_4_ranks(mpiexec: str) -> None:
    (alone,) = found(mpiexec, 1, "fixed")
    assert alone["launches"] > 0
    assert alone["not recorded"] == []
    for size in (2, 4):
        assert found(mpiexec, size, "fixed") == [alone] * size


def test_the_fast_sum_is_within_rounding(mpiexec: str) -> None:
    (fixed,), fast = found(mpiexec, 1, "fixed"), found(mpiexec, 3, "fast")
    assert fast == fast[:1] * 3
    assert fast[0]["launches"] > 0
    assert np.allclose(fast[0]["losses"], fixed["losses"], atol=1e-6, rtol=0)


def test_without_nccl_gradients_travel_through_the_host(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(modules().nccl, "lacking", lambda: "ImportError: libnccl.so.2")
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)

    def weights(backend: Any) -> np.ndarray:
        net = nn.Network([5, 4, 2], "cross_entropy", device=backend, seed=1)
        labels = (x[:, 0] > 0).astype(np.int64)
        nn.train(net, x, labels, epochs=3, batch_size=16, communicator=nn.distributed.Alone())
        return net.backend.to_host(net.theta)

    with caplog.at_level(logging.WARNING):
        got = weights(new_backend())
    assert caplog.text.count("travel through host memory") == 1
    monkeypatch.undo()
    assert np.allclose(got, weights(new_backend()), atol=1e-6, rtol=0)
