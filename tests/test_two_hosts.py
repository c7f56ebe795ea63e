"""Two ranks that exchange by TCP between network namespaces give the file of one rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mpi_processes import OPEN_MPI, sha, start

from benchmarks import two_hosts
from benchmarks.ranks import exchange_us
from benchmarks.two_hosts import TwoHosts, lacking

WORDS = "train digits --device numpy --hidden 20 --epochs 2 --quiet".split()  # noqa: SIM905


def test_two_hosts_give_the_file_of_one_rank(mpiexec: str, tmp_path: Path) -> None:
    if reason := lacking():
        pytest.skip(reason)
    one, two = tmp_path / "one", tmp_path / "two"
    process = start(mpiexec, 1, [*WORDS, "--out", str(one)])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    with TwoHosts(0.2e-3, 125e6) as hosts:
        rank = [sys.executable, "-m", "nnbackend", *WORDS, "--out", str(two)]
        done = subprocess.run(
            [*hosts.mpiexec(mpiexec), *rank], env={**os.environ, **OPEN_MPI},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        latency, bandwidth = hosts.measured()
    assert sha(one) == sha(two)
    assert latency > 0.19e-3
    assert bandwidth < 130e6
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"nn{os.getpid()}" not in names


def test_without_programs_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_hosts.sys, "platform", "linux")
    monkeypatch.setattr(two_hosts.shutil, "which", lambda name: None)
    assert two_hosts.lacking.__wrapped__() == "ip is not installed"


def test_the_prediction_of_an_exchange() -> None:
    """Worked by hand, for a latency of 1 ms and 1 MB a second."""
    link = 1e-3, 1e6
    assert exchange_us(100, 8, *link) == pytest.approx(3 * (1000 + 400))
    assert exchange_us(8000, 8, *link) == pytest.approx(14 * (1000 + 4000))
    assert exchange_us(8000, 8, *link, "fixed") == pytest.approx(7 * (1000 + 32_000))
    assert exchange_us(800_000, 8, *link) == pytest.approx(14 * (3000 + 400_000))
