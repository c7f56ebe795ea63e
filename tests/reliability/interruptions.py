"""Interrupt a run at random moments, resume it, and compare it with the uninterrupted run.

    python tests/reliability/interruptions.py DEVICE RUNS FOLDER

Each of RUNS runs has dropout, a schedule, early stopping and random settings. It is ended at up to
four random steps, by a request or by a crash: an exception without a following checkpoint.
Prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.persistence.checkpoints import checkpoint_paths
from nnbackend.training import step_runner

RNG = np.random.default_rng(11)
X = RNG.normal(size=(90, 6)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] ** 2 > 0.6).astype(int)
OPTIMIZERS = [nn.SGD(0.1, 0.9), nn.Adam(), nn.AdamW(), nn.RMSProp(), nn.AdaGrad(0.05)]
SCHEDULES = ["cosine", "one_cycle", "exponential", nn.schedules.Plateau(0.5, patience=1)]


class Crash(Exception):
    """An exception that ends a run like a crash, without writing anything."""


class Ender(nn.Callback):
    """A callback that ends a run after a number of steps and stores a hash of its final state."""

    def __init__(self, step: float = np.inf, crash: bool = False) -> None:
        self.at, self.crash, self.hash, self.steps = step, crash, "", 0

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        if trainer.state.step >= self.at:
            if self.crash:
                raise Crash
            trainer.interrupt.requested = True

    def on_pause(self, trainer: Any) -> None:
        digest, history = hashlib.sha256(), trainer.state.history
        for vector in (trainer.net.theta, trainer.state.best, *trainer.state.optimizer.values()):
            digest.update(trainer.net.backend.to_host(vector).tobytes())
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
        digest.update(json.dumps([rows, history.stop_reason]).encode())
        self.hash, self.steps = digest.hexdigest(), trainer.state.step


def options_of(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "epochs": int(rng.integers(4, 12)),
        "batch_size": int(rng.integers(7, 40)),
        "optimizer": OPTIMIZERS[rng.integers(len(OPTIMIZERS))],
        "schedule": SCHEDULES[rng.integers(len(SCHEDULES))],
        "early_stopping": nn.EarlyStopping(patience=2, min_delta=float(rng.choice([0.0, 0.01]))),
        "ema": 0.9 if rng.random() < 0.3 else None,
        "validation": 0.2,
        "seed": int(rng.integers(1000)),
    }


def fit(net: nn.Network, **options: Any) -> nn.History:
    """Train on scaled rows."""
    return nn.Model(net, scale="standard").fit(X, LABELS, **options)


def network(device: str) -> nn.Network:
    layers = [6, nn.Dense(16, "relu"), nn.Dropout(0.3), nn.Maxout(8), nn.Dropout(0.1),
              nn.Dense(2, "softmax")]  # fmt: skip
    return nn.Network(layers, device=device, seed=2)


def one_run(device: str, folder: Path, rng: np.random.Generator) -> tuple[bool, int]:
    """Return whether the results are equal, and the number of interruptions."""
    options = options_of(rng)
    whole = Ender()
    net = network(device)
    fit(net, callbacks=[whole], **options)
    expected = whole.hash, net.backend.to_host(net.theta).tobytes()

    ends = np.sort(rng.integers(1, whole.steps + 1, size=rng.integers(1, 5))).tolist()
    every, n = int(rng.integers(1, 8)), len(ends)
    other, ender = network(device), Ender(ends.pop(0), bool(rng.random() < 0.5))
    writer = nn.Checkpoints(folder, steps=every)
    try:
        history = fit(other, callbacks=[ender, writer], **options)
        is_over = history.stop_reason != "interrupted"
    except Crash:
        is_over = False
    while not is_over:
        ender = Ender(ends.pop(0), bool(rng.random() < 0.5)) if ends else Ender()
        try:
            if checkpoint_paths(folder):
                model, history = nn.resume(folder, X, LABELS, device=device, callbacks=[ender])
                other = model.network
            else:  # crashed before the first: from the beginning
                other = network(device)
                callbacks = [ender, nn.Checkpoints(folder, steps=every)]
                history = fit(other, callbacks=callbacks, **options)
            is_over = history.stop_reason != "interrupted"
        except Crash:
            continue
    return (ender.hash, other.backend.to_host(other.theta).tobytes()) == expected, n - len(ends)


def main(device: str, runs: int, folder: Path) -> dict[str, int]:
    step_runner.POLL_INTERVAL_SECONDS = 0.0
    found = {"runs": 0, "interruptions": 0, "different": 0}
    for seed in range(runs):
        same, n = one_run(device, folder / str(seed), np.random.default_rng(seed))
        found["runs"] += 1
        found["interruptions"] += n
        found["different"] += not same
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
