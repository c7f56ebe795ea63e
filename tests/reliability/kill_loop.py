"""Kill a writer with SIGKILL at random moments, and check the files after each kill.

    python tests/reliability/kill_loop.py KIND KILLS FOLDER [until-unreadable]

KIND: a writer of `writers.py`; `checkpoints`, a training run with a checkpoint after every step; or
`checkpoints_in_place`, the same with naive writes in place.
KILLS: the number of kills; with until-unreadable, the maximum.
Children are forked from a process with all imports, so a kill takes milliseconds.
Prints one line of JSON: numbers of kills, unreadable files, mixtures, and stale temporary files.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from writers import WRITERS, read

import nnbackend as nn
from nnbackend.persistence import checkpoints
from nnbackend.persistence.checkpoints import checkpoint_paths, read_checkpoint
from nnbackend.persistence.run_state import step_of
from nnbackend.training import step_runner

LONGEST = 0.03  # seconds a child may live after its first file

X = np.random.default_rng(0).normal(size=(64, 30)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)


def _train(callbacks: list[nn.Callback]) -> None:
    net = nn.Network([30, 64, nn.Dropout(0.2), 2], "cross_entropy", device="numpy")
    nn.train(net, X, LABELS, epochs=40, batch_size=16, callbacks=callbacks)


class Course(nn.Callback):
    """A callback that records the weights after each step of an uninterrupted run."""

    def __init__(self) -> None:
        self.thetas: dict[int, bytes] = {}

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        self.thetas[trainer.state.step] = trainer.net.theta.tobytes()


def _check_files(kind: str, folder: Path, course: Course) -> None:
    """Raise if a file is incomplete, or its content differs from its stamp."""
    if not kind.startswith("checkpoints"):
        read(kind, folder / "file")
        return
    paths = checkpoint_paths(folder)
    assert 1 <= len(paths) <= 3  # three if killed before the oldest was removed
    for path in paths:
        checkpoint = read_checkpoint(path)
        step = step_of(checkpoint.state.facts)
        parts = [checkpoint.arrays[f"{kind}.{i}"] for kind in ("weights", "biases") for i in (0, 1)]
        theta = b"".join(part.tobytes() for part in parts)
        assert theta == course.thetas[step], "stamp and content differ"


def _child(work: Callable[[], None]) -> int:
    """Fork a process that calls `work` until it is killed; return its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def main(kind: str, kills: int, folder: Path, is_over_when_unreadable: bool) -> dict[str, int]:
    step_runner.POLL_INTERVAL_SECONDS = 0.0
    course, rng = Course(), random.Random(1)
    if kind == "checkpoints_in_place":
        checkpoints.atomic_write = lambda path, data: path.write_bytes(data)  # type: ignore
    if kind.startswith("checkpoints"):
        _train([course])

    def work() -> None:
        if kind.startswith("checkpoints"):
            _train([nn.Checkpoints(folder, steps=1)])
        else:
            for step in range(1, 1_000_000):
                WRITERS[kind](folder / "file", step)

    found = {"kills": 0, "unreadable": 0, "mixed": 0, "stale": 0}
    while found["kills"] < kills and not (is_over_when_unreadable and found["unreadable"]):
        for path in folder.iterdir():
            path.unlink()
        child = _child(work)
        while all(path.name.endswith(".tmp") for path in folder.iterdir()):
            if os.waitpid(child, os.WNOHANG)[0]:
                raise RuntimeError("the child ended before its first file")
            time.sleep(0.0005)
        time.sleep(rng.random() * LONGEST)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        found["kills"] += os.WIFSIGNALED(status)
        found["stale"] += any(path.name.endswith(".tmp") for path in folder.iterdir())
        try:
            _check_files(kind, folder, course)
        except AssertionError:
            found["mixed"] += 1
        except Exception:  # a reader of a broken file may raise anything
            found["unreadable"] += 1
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), len(sys.argv) > 4)))
