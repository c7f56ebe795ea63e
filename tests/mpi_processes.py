"""Processes of MPI for tests, which share few cores."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH')}")
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}  # fmt: skip


@cache
def lacking() -> str:
    """Return why ranks cannot be started; "" if they can."""
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return "the extra mpi is not installed"
    if MPIEXEC is None:
        return "mpiexec is not installed"
    code = "from mpi4py import MPI; MPI.COMM_WORLD.allgather(1)"
    try:
        tried = subprocess.run(
            [MPIEXEC, "-n", "2", sys.executable, "-c", code],
            env={**os.environ, **OPEN_MPI}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "mpiexec starts no processes here within a minute"
    if tried.returncode:
        return f"mpiexec starts no processes here: {tried.stderr[-200:]}"
    return ""


def start(mpiexec: str, size: int, words: Sequence[str]) -> subprocess.Popen[str]:
    """Start the command on ranks."""
    command = [mpiexec, "-n", str(size), sys.executable, "-m", "nnbackend", *words]
    environment = {**os.environ, **OPEN_MPI}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ranks_of(out: Path) -> list[int]:
    """Return the processes of the ranks of a run, by their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if str(out) in words and words[1:3] == ["-m", "nnbackend"]:
                found.append(int(folder.name))
    return sorted(found)


def sha(out: Path) -> str:
    """Return the hash of the model file of a run."""
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
