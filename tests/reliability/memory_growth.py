"""Measure the memory growth of a process that repeatedly trains and loads small models.

python tests/reliability/memory_growth.py DEVICE [FITS [LOADS]]

DEVICE is numpy, numba, or cupy-emulated (the CUDA kernels on the CPU, which is much slower).
"""

from __future__ import annotations

import gc
import pickle
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / part) for part in ("", "backends", "tests", "tests/cuda")]

import numpy as np  # noqa: E402

import nnbackend as nn  # noqa: E402

WARM_UP = 50
rng = np.random.default_rng(0)
X = rng.normal(size=(200, 10))
Y = (X[:, 0] > 0).astype(int)


def estimator(device: str, i: int) -> nn.MLPClassifier:
    """Return a classifier with built-in formulas, one of three activations."""
    activation = ("relu", "tanh", "logistic")[i % 3]
    return nn.MLPClassifier(
        (20,), activation=activation, alpha=1e-5 * i, max_iter=3, random_state=0, device=device
    )


def fit(device: str, i: int) -> Any:
    """Train a classifier, or every tenth time a network with newly defined formulas."""
    if i % 10:
        return estimator(device, i).fit(X, Y)
    cube = nn.Activation("cube", lambda z: z * z * z, lambda z: 3.0 * z * z)
    error = nn.Loss("error", lambda a, y, xp: (xp.sum((a - y) ** 2, axis=1), 2.0 * (a - y)))
    net = nn.Network([10, nn.Dense(20, cube), 1], error, device=device)
    nn.Model(net, scale="standard").fit(X, Y, epochs=2, batch_size=50)
    return net


def growth(do: Callable[[int], Any], n: int) -> str:
    """Return the memory growth of n calls, and the time per call."""
    for i in range(WARM_UP):
        do(i)
    before, begin = _resident(), time.perf_counter()
    for i in range(n):
        do(i)
    seconds = time.perf_counter() - begin
    return f"{_resident() - before:+.1f} MB, {1e3 * seconds / max(n, 1):.1f} ms each"


def _resident() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def run(device: str, fits: int, loads: int) -> None:
    """Print the memory growth of fits and loads on a device."""
    print(f"{device}: {fits} fits: {growth(lambda i: fit(device, i), fits)}", flush=True)
    stored = pickle.dumps(estimator(device, 0).fit(X, Y))
    figures = growth(lambda i: pickle.loads(stored).predict(X), loads)
    print(f"{device}: {loads} loads that predict: {figures}", flush=True)


def main() -> None:
    device, *numbers = sys.argv[1:]
    fits, loads = (*map(int, numbers), 2000, 2000)[:2]
    warnings.simplefilter("ignore")
    if device.replace("-", "_") == "cupy_emulated":
        from rows import registered

        with registered("cupy_emulated"):
            run("cupy_emulated", fits, loads)
    else:
        run(device, fits, loads)


if __name__ == "__main__":
    main()
