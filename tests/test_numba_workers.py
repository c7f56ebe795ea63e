"""Workers step back to one thread when they are disturbed, and count the cores they may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend_numpy.cores import cpu_quota, usable_cores

pytest.importorskip("numba", reason="numba is not installed")

from nnbackend_numba import partitioning, program, workers
from nnbackend_numba.backend import NumbaBackend
from nnbackend_numba.workers import Workers


class Clock:
    """A clock that stands still but for the steps of two workers, or of one thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, together: float, alone: float) -> None:
        self.now, self.together, self.alone = 0.0, together, alone
        self.steps = {"together": 0, "alone": 0}
        monkeypatch.setattr(workers.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(workers, "make_steps", self._make_steps)
        monkeypatch.setattr(workers, "make_all_shares", self._make_all_shares)

    def _make_steps(
        self, table: Any, last: Any, start: int, steps: int, worker: int, *rest: Any
    ) -> None:
        if worker == 0:
            self.now += steps * self.together
            self.steps["together"] += steps

    def _make_all_shares(self, table: Any, last: Any, start: int, steps: int, n: int) -> None:
        self.now += steps * self.alone
        self.steps["alone"] += steps

    def run(self, team: Workers, steps: int) -> dict[str, int]:
        """Run steps; return how many of them were made together and alone."""
        before = dict(self.steps)
        team.run(np.empty((0, 2), np.int64), np.empty((0, 2), np.int64), steps, True)
        made = {kind: n - before[kind] for kind, n in self.steps.items()}
        assert sum(made.values()) == steps
        return made


def test_workers_that_are_not_disturbed_work_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, together=1e-3, alone=1.8e-3)
    made = clock.run(Workers(2), 10_000)
    assert made["alone"] < 50


@pytest.mark.parametrize("from_the_start", [True, False])
def test_disturbed_workers_step_back_and_return(
    from_the_start: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, team = Clock(monkeypatch, together=1e-3, alone=1.8e-3), Workers(2)
    if not from_the_start:
        clock.run(team, 1000)
    clock.together = 6e-3  # another program takes a core for most of the time
    begin = clock.now
    clock.run(team, 10_000)
    assert clock.now - begin < 1.3 * 10_000 * clock.alone
    clock.together = 1e-3
    clock.run(team, 2_000)
    assert clock.run(team, 5_000)["alone"] < 100


def test_a_single_disturbance_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, team = Clock(monkeypatch, together=1e-3, alone=1.8e-3), Workers(2)
    clock.run(team, 1000)
    clock.together = 5e-3
    clock.run(team, 20)
    clock.together = 1e-3
    assert clock.run(team, 1000)["alone"] < 50


def test_results_do_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WORK_PER_WORKER", 1)
    monkeypatch.setattr(program, "MIN_PARALLEL_WORK", 1)
    monkeypatch.setattr(partitioning, "MIN_INPUTS_PER_WORKER", 2)
    monkeypatch.setattr(workers, "SLICE_SECONDS", 0.0)  # every step is a slice
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 40)), rng.integers(0, 3, 70)
    used: set[bool] = set()

    def trained(alternates: bool) -> np.ndarray:
        def note(self: Workers, seconds: float) -> None:
            used.add(self._is_alone)
            self._is_alone = alternates and not self._is_alone

        monkeypatch.setattr(Workers, "_note", note)
        backend = NumbaBackend()
        backend._threads = 2
        net = nn.Network([40, 30, 20, nn.Dense(3, "softmax")], "cross_entropy", device=backend)
        nn.train(net, x, y, epochs=4, batch_size=16)
        return np.array(net.theta)

    expected = trained(alternates=False)
    assert used == {False}
    np.testing.assert_array_equal(trained(alternates=True), expected)
    assert used == {False, True}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_quota_of_a_control_group(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    write(own, "0::/outer/inner\n")
    assert cpu_quota(tmp_path, own) == float("inf")
    write(tmp_path / "outer/inner/cpu.max", "max 100000\n")
    write(tmp_path / "outer/cpu.max", "150000 100000\n")
    assert cpu_quota(tmp_path, own) == 1.5  # the group around it limits both
    write(tmp_path / "outer/inner/cpu.max", "50000 100000\n")
    assert cpu_quota(tmp_path, own) == 0.5


def test_the_quota_of_a_control_group_of_version_1(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    write(own, "3:memory:/job\n2:cpu,cpuacct:/job\n")
    write(tmp_path / "cpu/job/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu/job/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path, own) == float("inf")
    write(tmp_path / "cpu/job/cpu.cfs_quota_us", "200000\n")
    assert cpu_quota(tmp_path, own) == 2.0


def test_a_quota_below_the_number_of_cpus_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnbackend_numpy import cores

    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for quota, expected in ((float("inf"), 4), (2.9, 2), (0.3, 1), (8.0, 4)):
        monkeypatch.setattr(cores, "cpu_quota", lambda quota=quota: quota)
        assert usable_cores() == expected
