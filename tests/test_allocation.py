"""A training step allocates no memory on the CPU, traced over a thousand steps."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import BackendUnavailableError
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig

# Wide batches and narrow layers: large arrays, cheap products.
STEPS, BATCH, UNITS = 1000, 2048, 100
# NumPy's own buffers of 8 192 elements, for operands of two dtypes, and the losses of rows; the
# smallest temporary of a layer would be a mask of BATCH * UNITS bytes, 204 800.
ALLOWED = 190_000


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("optimizer", [nn.SGD(1e-6), nn.Adam(1e-6)], ids=["sgd", "adam"])
def test_a_thousand_steps_allocate_no_array(device: str, optimizer: Any) -> None:
    rng = np.random.default_rng(0)
    n = BATCH * 20
    x, y = rng.integers(0, 255, (n, 8), dtype=np.uint8), rng.integers(0, 3, n)
    layers = [8, UNITS, nn.Maxout(UNITS), nn.Dense(3, "softmax")]
    try:
        net = nn.Network(layers, "cross_entropy", device=device)
    except BackendUnavailableError as error:
        pytest.skip(str(error).splitlines()[0])
    trainer = new_trainer(
        net, x, y, TrainConfig(optimizer=optimizer, epochs=1, batch_size=BATCH, l2=1e-4)
    )
    trainer.run()  # the first epoch allocates everything
    run = partial(trainer.runner.run_steps, trainer.state.history.batch_size)
    trainer.state.clock[1] = -1
    run(1)
    tracemalloc.start()
    try:
        for _ in range(STEPS // 20):
            trainer.state.clock[1] = -1
            run(20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ALLOWED, f"{peak:,} bytes at the most"


def test_rows_of_a_memory_mapped_file_stay_on_the_disk(tmp_path: Path) -> None:
    """Training copies at most a chunk of the data at a time."""
    n, columns = 400_000, 64
    path = tmp_path / "x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.float32, (n, columns))
    for start in range(0, n, 50_000):
        x[start : start + 50_000] = np.random.default_rng(start).standard_normal((50_000, columns))
    x.flush()
    mapped = np.load(path, mmap_mode="r")
    y = np.random.default_rng(0).integers(0, 2, n)
    net = nn.Network([columns, 8, nn.Dense(2, "softmax")], "cross_entropy", device="cpu")
    tracemalloc.start()
    try:
        nn.train(net, mapped, y, epochs=1, batch_size=1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 4, f"{peak:,} of {x.nbytes:,} bytes"
