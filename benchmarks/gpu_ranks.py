"""Two ranks on one GPU, whose gradients NCCL adds: bits as of one rank, and the time of a step.

NCCL lets two ranks share a GPU from version 2.30 on, with NCCL_MULTI_RANK_GPU_ENABLE=1.

    mpiexec -n 2 python -m mpi4py -m benchmarks.gpu_ranks fixed     # what a task starts
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, new_backend

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0",
}  # fmt: skip
SECONDS = 60  # of one start of ranks


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Yield a task for each number of ranks and reduction."""
    alone: Answer = {}
    for name in words or ("1 fixed", "2 fixed", "2 fast"):
        yield name, lambda name=name: started(is_emulated, name, alone)


def started(is_emulated: bool, name: str, alone: Answer) -> Answer:
    """Return what rank 0 reports, compared with one rank.

    alone: the answer of one rank, which this function enters.
    """
    size, reduction = name.split()
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpiexec is None or importlib.util.find_spec("mpi4py") is None:
        return {"left_out": "the extra mpi is not installed"}
    command = [mpiexec, "-n", size, sys.executable, "-m", "mpi4py", "-m", "benchmarks.gpu_ranks"]
    command += [reduction, *["--emulated"] * is_emulated]
    done = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr or done.stdout)[-600:]}
    answer: Answer = json.loads(lines[-1])
    if name == "1 fixed":
        alone.update(answer)
    is_equal = reduction == "fast" or answer["bits"] == alone.get("bits")
    return {**answer, "ok": is_equal and answer["graphs"] > 0 and not answer["not_recorded"]}


def report(reduction: str, is_emulated: bool) -> dict[str, Any]:
    """Train on this rank; return the bits of its weights, its graphs and the time of a step."""
    import nnbackend as nn

    ranks = nn.distributed.world(reduction)
    if is_emulated:
        importlib.import_module("stand_in_backend").modules().cupy.cuda.nccl.ranks = ranks
    backend = new_backend(is_emulated)
    sizes, rows, batch = ([6, 9, 3], 48, 20) if is_emulated else ([784, 512, 512, 10], 8192, 1024)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], rows)
    net = nn.Network(sizes, "cross_entropy", device=backend, seed=1)
    history = nn.train(net, x, y, epochs=6, batch_size=batch, communicator=ranks)
    steps = rows // batch + (rows % batch > 0)
    made = backend.report()
    return {
        "bits": hashlib.sha256(backend.to_host(net.theta).tobytes()).hexdigest()[:16],
        "us": round(min(history["seconds"][2:]) / steps * 1e6, 1),
        "graphs": len(made["recorded"]), "not_recorded": made["not_recorded"],
        "losses": [round(v, 6) for v in history["train_loss"]], "rank": ranks.rank,
    }  # fmt: skip


if __name__ == "__main__":
    found = report(sys.argv[1], "--emulated" in sys.argv)
    if not found["rank"]:
        sys.stdout.write(json.dumps(found) + "\n")
