"""The environment of a contender's process, and its memory.

All contenders get the same number of threads, by environment variables set before their process
starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nnbackend.machine import THREAD_VARIABLES

# Shell settings that would favour one contender or differ from a plain installation.
STRANGE_VARIABLES = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_VERBOSE", "MKL_DEBUG_CPU_TYPE"),
    *("XLA_FLAGS", "JAX_PLATFORMS", "KMP_AFFINITY", "OMP_WAIT_POLICY", "NNBACKEND_DEVICE"),
)


def environment(threads: int, coretype: str = "", cache: str = "") -> dict[str, str]:
    """Return the environment of a contender's process.

    coretype: the OpenBLAS kernels to use, instead of its own choice.  cache: an empty folder for
    the caches of compiling libraries.
    """
    given = {k: v for k, v in os.environ.items() if k not in STRANGE_VARIABLES}
    given.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    given["JAX_PLATFORMS"] = "cpu"
    if coretype:
        given["OPENBLAS_CORETYPE"] = coretype
    if cache:
        given["NUMBA_CACHE_DIR"] = os.path.join(cache, "numba")
        given["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(cache, "inductor")
    return given


def peak_memory() -> int:
    """Return the peak memory of this process in bytes; 0 if unknown."""
    try:  # getrusage of a new process counts its parent's memory too
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
