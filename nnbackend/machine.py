"""Facts of this machine: CPU, BLAS, thread settings, versions.

Run folders, `nnbackend devices` and the benchmarks take theirs from here. Nothing here imports an
array library: the command line asks for OpenBLAS's kernels before NumPy is loaded, and the threads
of a library would disturb a measurement.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
LIBRARIES = ("numpy", "numba", "scikit-learn", "scipy", "matplotlib")
AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}  # what SkylakeX kernels use


def usable_cpus() -> list[int]:
    """Return the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory() -> float:
    """Return the bytes of the machine's memory; infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows
        return math.inf


def choose_coretype(flags: Iterable[str], core: str) -> str:
    """Return the OpenBLAS kernels to request: AVX-512's if the CPU has it and they are unused.

    OpenBLAS uses its Haswell kernels on unknown CPUs, whatever their instruction sets.
    >>> choose_coretype(sorted(AVX512), "Haswell"), choose_coretype(["avx2"], "Haswell")
    ('SkylakeX', '')
    """
    idle = core.lower() in ("haswell", "zen") and set(flags) >= AVX512
    return "SkylakeX" if idle else ""


def ask_for_best_kernels() -> None:
    """Request OpenBLAS's AVX-512 kernels if the CPU has AVX-512 and OpenBLAS may not detect it.

    OpenBLAS detects Intel's CPUs, and picks older kernels on some of AMD's. It reads the variable
    when NumPy is loaded; a setting of the user is kept.
    """
    is_amd = _cpu_lines().get("vendor_id") == "AuthenticAMD"
    if "numpy" not in sys.modules and is_amd and set(cpu_flags()) >= AVX512:
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


# Variables that starters of ranks set, by starter; and those with a rank's number on its machine.
STARTERS = {
    "Open MPI": "OMPI_COMM_WORLD_SIZE",
    "MPICH": "PMI_SIZE",
    "PMIx": "PMIX_RANK",
}
RANK_AND_SIZE = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def rank_starter() -> str | None:
    """Return what has started this process as one of several ranks, or None."""
    return next((name for name, variable in STARTERS.items() if variable in os.environ), None)


def started_ranks() -> tuple[int, int]:
    """Return this process's rank and the number of ranks, as a starter's variables say."""
    for rank, size in RANK_AND_SIZE:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def use_one_thread() -> None:
    """Limit BLAS to one thread, before it is loaded; a setting of the user is kept.

    Each rank has a core. And the bits do not depend on the number of ranks then.
    """
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def blas_lines() -> list[str]:
    """Return the loaded BLAS: its kernels, its threads, and what would make it faster."""
    lines = []
    for pool in thread_pools():
        if pool.get("user_api") != "blas":
            continue
        core, n = pool.get("architecture", ""), pool["num_threads"]
        parts = [pool["internal_api"], pool.get("version", ""), core and f"{core} kernels"]
        lines.append(f"{' '.join(filter(None, parts))}, {n} thread{'s' * (n != 1)}")
        if better := choose_coretype(cpu_flags(), core):
            lines[-1] += (
                f". This CPU has AVX-512, which these kernels do not use; matrix products would be "
                f"up to twice as fast -> export OPENBLAS_CORETYPE={better}"
            )
    return lines or ["unknown (threadpoolctl cannot look into it)"]


def _cpu_lines() -> dict[str, str]:
    """Return Linux's description of the first CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    block = text.partition("\n\n")[0]
    pairs = (line.partition(":")[::2] for line in block.splitlines())
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_flags() -> list[str]:
    """Return the CPU's relevant instruction sets; none if they cannot be read."""
    flags = set(_cpu_lines().get("flags", _cpu_lines().get("Features", "")).split())
    wanted = {"avx", "avx2", "fma", "amx_tile", "avx512_bf16", "asimd", "sve"} | AVX512
    return sorted(flags & wanted)


def cpu_name() -> str:
    """Return the CPU's name, with family and model where the name alone says little."""
    lines = _cpu_lines()
    name = lines.get("model name") or platform.processor() or platform.machine() or "unknown"
    if {"cpu family", "model"} <= lines.keys():
        name += f" (family {lines['cpu family']}, model {lines['model']})"
    return name


def versions(*more: str) -> dict[str, str]:
    """Return the versions of Python, this library, and each installed library.

    more: distributions to look up beside those that this library uses.
    """
    from nnbackend import __version__

    found = {"python": platform.python_version(), "nnbackend": __version__}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_facts(*more: str) -> dict[str, Any]:
    """Return what a result should state about the machine. more: as in `versions`."""
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable_cpus()),
        "flags": cpu_flags(),
        "system": platform.platform(),
        "load_average": [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "versions": versions(*more),
    }


def thread_pools() -> list[dict[str, Any]]:
    """Return the thread pools loaded in this process, if threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    kept = ("user_api", "internal_api", "version", "num_threads", "architecture")
    return [{k: pool[k] for k in kept if pool.get(k)} for pool in threadpool_info()]


def thread_settings() -> dict[str, Any]:
    """Return the thread counts set in environment variables, and those that libraries use."""
    facts: dict[str, Any] = {k: os.environ[k] for k in THREAD_VARIABLES if k in os.environ}
    for pool in thread_pools():
        name = f"{pool.get('internal_api', '')} {pool.get('version', '')}".strip()
        facts[name] = pool.get("num_threads")
    return facts
