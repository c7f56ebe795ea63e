"""Ranks that are killed or asked to stop at random, resumed with other numbers of ranks.

The number of ranks is 1, 2 or 4, drawn for each start; the model file must equal that of an
undisturbed run. Long form alone: `tests/test_ranks.py` has two signals.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mpi_processes import ranks_of, sha, start
from rows import make_or_skip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
WORDS = "train digits --hidden 30 --dropout 0.2 --epochs 150 --patience 0 --quiet"
N_SIGNALS = 60
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
LONGEST = 5.0  # seconds a job may live before a signal


def _words(device: str, out: Path) -> list[str]:
    return [*WORDS.split(), "--checkpoint", "2 epochs", "--device", device, "--out", str(out)]


def _has_begun(out: Path) -> bool:
    return any((out / "checkpoints").glob("checkpoint-*.safetensors"))


class Jobs:
    """The jobs of runs, some of which receive a signal."""

    def __init__(self, mpiexec: str, seed: int) -> None:
        self.mpiexec, self.chance = mpiexec, random.Random(seed)
        self.signals, self.starts, self.slowest = 0, 0, 0.0

    def finish(self, words: list[str], out: Path, most: int) -> None:
        """Start jobs until the run has ended; stop sending signals after `most`."""
        code = -1
        while code != 0:
            if _has_begun(out):
                now = ["train", "--resume", str(out), "--quiet"]
            else:
                shutil.rmtree(out, ignore_errors=True)
                now = words
            process = start(self.mpiexec, self.chance.choice([1, 2, 4]), now)
            self.starts += 1
            is_disturbed = self.signals < most and self._disturb(process, out)
            asked = time.monotonic()
            _, err = process.communicate(timeout=600)
            code = process.returncode
            if is_disturbed:
                self.signals += 1
                self.slowest = max(self.slowest, time.monotonic() - asked)
            else:
                assert code == 0, err

    def _disturb(self, process: subprocess.Popen[str], out: Path) -> bool:
        """Send a signal to a rank after a random time; return whether there was a rank."""
        time.sleep(self.chance.uniform(0.8, LONGEST))
        ranks = ranks_of(out)
        if process.poll() is not None or not ranks:
            return False
        try:
            os.kill(self.chance.choice(ranks), self.chance.choice(SIGNALS))
        except ProcessLookupError:
            return False
        return True


@pytest.mark.parametrize(("device", "row"), [("numpy", "numpy"), ("cpu", "numba")])
def test_killed_ranks_resume_with_other_numbers(
    device: str, row: str, mpiexec: str, note: Callable[[str], None],
    request: pytest.FixtureRequest, tmp_path: Path,
) -> None:  # fmt: skip
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long")
    make_or_skip(row)
    whole = tmp_path / "whole"
    Jobs(mpiexec, 0).finish(_words(device, whole), whole, 0)
    jobs, runs, begin = Jobs(mpiexec, 1), 0, time.monotonic()
    while jobs.signals < N_SIGNALS:
        out = tmp_path / f"run-{runs}"
        jobs.finish(_words(device, out), out, N_SIGNALS)
        runs += 1
        assert sha(out) == sha(whole)
    note(
        f"{jobs.signals} signals, {jobs.starts} jobs, {runs} runs, the same model file each time; "
        f"a job ended at most {jobs.slowest:.1f} s after a signal; {time.monotonic() - begin:.0f} s"
    )
