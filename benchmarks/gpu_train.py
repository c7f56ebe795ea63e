"""Training on the GPU and on the CPU with the same seed: digits, MNIST, Fashion-MNIST."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, new_backend

# The folder of the IDX folders `mnist` and `fashion`.
DATA = Path(os.environ.get("NNBACKEND_GPU_DATA", "/usr/share/datasets"))
FOLDERS = {"mnist": ("mnist", "mnist-data"), "fashion": ("fashion", "fashion-mnist")}


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Yield a task for each data set named in words, or for all."""
    for name in words or ("digits", "mnist", "fashion"):
        yield name, lambda name=name: train(is_emulated, name)


def train(is_emulated: bool, name: str) -> Answer:
    """Train on both devices; return the curves and the difference at their ends."""
    found = load(name)
    if found is None:
        return {"left_out": f"no IDX folder of {name} under {DATA} (NNBACKEND_GPU_DATA)"}
    if is_emulated and name != "digits":
        return {"left_out": "too large for the stand-in"}
    runs = {
        device: one_run(on, found, epochs=1 if is_emulated else 20 if name == "digits" else 10)
        for device, on in (("gpu", new_backend(is_emulated)), ("cpu", "cpu"))
    }
    gpu, cpu = (np.array(runs[device]["train_loss"]) for device in ("gpu", "cpu"))
    apart = float(np.abs(gpu - cpu).max() / cpu[0])
    accuracies = [runs[device]["test_accuracy"] for device in ("gpu", "cpu")]
    is_near = apart < 0.02 and abs(accuracies[0] - accuracies[1]) < 0.01
    return {"ok": is_near, "loss_apart": apart, **runs}


def load(name: str) -> tuple[np.ndarray, ...] | None:
    """Return x, y, test x, test y, or None if the files are missing."""
    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x.astype(np.float32) / 16
        return x[:1400], y[:1400], x[1400:], y[1400:]
    from nnbackend.data.idx_files import read_idx_folder

    folder = next((DATA / f for f in FOLDERS[name] if (DATA / f).is_dir()), None)
    if folder is None:
        return None
    data: Any = read_idx_folder(folder)
    x, test_x = (np.asarray(v, np.float32).reshape(len(v), -1) / 255 for v in (data.x, data.test.x))
    return x, np.asarray(data.y), test_x, np.asarray(data.test.y)


def one_run(device: Any, data: tuple[np.ndarray, ...], epochs: int) -> Answer:
    """Train 100 hidden units with Adam; return losses, test accuracy and seconds per epoch."""
    import nnbackend as nn

    x, y, test_x, test_y = data
    net = nn.Network([x.shape[1], 100, nn.Dense(10, "softmax")], device=device, seed=0)
    history = nn.train(net, x, y, optimizer=nn.Adam(1e-3), epochs=epochs, batch_size=128, seed=0)
    return {
        "train_loss": [row["train_loss"] for row in history.rows],
        "test_accuracy": net.evaluate(test_x, test_y)["accuracy"],
        "seconds": [round(row["seconds"], 4) for row in history.rows],
        "device": net.backend.device,
    }
