"""How many CPUs this process may use at once: its affinity, and the quota of its control groups."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Return how many CPUs this process may use at once: their number, or a quota below it.

    A quota is a limit of a control group, as of a container; parts of a CPU do not count.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, int(min(cpu_quota(), cpus)))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU time per time that the control groups of this process allow.

    root: where control groups are mounted.  own: the file that lists those of this process.
    Source: Linux's documentation, cpu.max (version 2), cpu.cfs_quota_us (version 1).
    """
    quota = float("inf")
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        here = root / "cpu" if controllers else root
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        for group in [here, *_groups(here, path)]:
            numbers = " ".join(_text(group / name) for name in files).split()
            if len(numbers) == 2 and numbers[0] not in ("max", "-1"):
                quota = min(quota, float(numbers[0]) / float(numbers[1]))
    return quota


def _groups(root: Path, path: str) -> list[Path]:
    """Return the folders of a control group and of the groups that contain it."""
    parts = [part for part in path.split("/") if part]
    return [root.joinpath(*parts[: n + 1]) for n in range(len(parts))]


def _text(path: Path) -> str:
    """Return the text of a file of the system, "" if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
