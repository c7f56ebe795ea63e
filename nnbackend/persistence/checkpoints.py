"""Checkpoints: the saved state of a run, from which it can be resumed bit for bit.

A checkpoint is a model file that also holds the state of the run. The two newest are kept. Each is
written atomically; temporary files of killed processes are removed at the start.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError, ModelFileError
from nnbackend.options import check
from nnbackend.persistence.atomic_file import atomic_write, sweep
from nnbackend.persistence.config_data import describe_config
from nnbackend.persistence.container import encode, read_model
from nnbackend.persistence.description import describe_model, model_tensors
from nnbackend.persistence.run_state import SavedRun, save_run, step_of
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.interrupt import SIGNALS
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.run import Run

NAME = "checkpoint-{:012d}.safetensors"
PATTERN = re.compile(r"checkpoint-(\d{12,19})\.safetensors")
PREFIX = "run."  # of the names of the state's arrays
DEFAULT_MINUTES = 10.0
KEPT = 2
OVERHEAD = 100_000  # approximate bytes of a checkpoint besides its vectors

logger = logging.getLogger("nnbackend")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint: description and arrays of the network, state of the run."""

    path: Path
    description: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    state: SavedRun
    every: Mapping[str, Any]


class Checkpoints(Callback):
    """A callback that writes checkpoints of a run to a folder, for `nnbackend.resume`.

    epochs, steps, minutes: the interval between checkpoints; by default 10 minutes. Within an epoch
    the interval is checked about ten times a second. A last checkpoint is written at the end, and
    on Ctrl-C, SIGTERM or SIGUSR1, which stop training after the current step. The two newest are
    kept. Put it last in the list of callbacks, so that it saves the decisions of the others.

    If a periodic checkpoint cannot be written, a warning is logged and training continues.
    Raises: ArgumentError for a folder with the checkpoints of another run, or a run that cannot be
    saved; OSError without disk space for two checkpoints. If the last checkpoint cannot be written,
    its error is raised after training has ended: the network has its weights, and the error's
    attribute `history` is the history.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        minutes: float | None = None,
    ) -> None:
        every = {"epochs": epochs, "steps": steps, "minutes": minutes}
        for name in ("epochs", "steps"):
            expected = "a whole number, at least 1"
            check(name, every[name], lambda v: v is None or (v >= 1 and v == int(v)), expected)
        check("minutes", minutes, lambda v: v is None or 0 < v < math.inf, "a number above 0")
        if epochs is steps is minutes is None:
            every["minutes"] = DEFAULT_MINUTES
        self.folder = Path(folder)
        self.every = {name: v if v is None else float(v) for name, v in every.items()}
        self._good: list[Path] = []  # complete checkpoints, oldest first
        self._saved: tuple[int, str] | None = None  # step and stop_reason of the newest
        self._tried = (0, 0, 0.0)  # epoch, step, time of the last attempt
        self._failure: Exception | None = None  # of the last checkpoint

    def restored_from(self, checkpoint: Checkpoint) -> None:
        """Continue the checkpoints of a resumed run."""
        facts = checkpoint.state.facts
        self._good = [checkpoint.path]
        self._saved = (step_of(facts), facts["stop_reason"])

    def on_train_begin(self, trainer: Run) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._good and checkpoint_paths(self.folder):
            raise ArgumentError(
                "Checkpoints need a folder without those of another run. Received: "
                f"{self.folder}, which holds checkpoints. Resume that run with nnbackend.resume, "
                "or choose another folder."
            )
        sweep(self.folder, "checkpoint-*")
        self._check_disk_space(trainer)
        # Find options that cannot be stored now, not after hours.
        config = {"config": describe_config(trainer.config), "every": self.every}
        encode(describe_model(trainer.net, trainer.data.preprocessing) | {"run": config}, {})
        trainer.interrupt.signals = SIGNALS
        self._tried = self._now(trainer)

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        if step < n_steps:  # else on_epoch_end follows
            self._save_if_due(trainer)

    def on_epoch_end(self, trainer: Run, row: Row) -> None:
        self._save_if_due(trainer)

    def on_pause(self, trainer: Run) -> None:
        self._failure = None
        if self._saved != (trainer.state.step, trainer.state.history.stop_reason):
            try:
                self._save(trainer)
            except Exception as error:  # raised after the best weights are restored
                self._failure = error

    def on_train_end(self, trainer: Run) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            history = trainer.state.history
            failure.history = history  # type: ignore[attr-defined]
            failure.add_note(
                "The last checkpoint could not be written. Training has ended "
                f"({history.stop_reason}): the network has its weights, and the attribute "
                "`history` of this error is the history."
            )
            raise failure

    def _save_if_due(self, trainer: Run) -> None:
        now, before = self._now(trainer), self._tried
        limits = self.every["epochs"], self.every["steps"], self.every["minutes"]
        if not any(
            limit and n - b >= limit for n, b, limit in zip(now, before, limits, strict=True)
        ):
            return
        try:
            self._save(trainer)
        except (OSError, MemoryError) as error:
            logger.warning(
                "a checkpoint could not be written, training continues (%s)",
                error or type(error).__name__,
            )
        self._tried = self._now(trainer)

    def _now(self, trainer: Run) -> tuple[int, int, float]:
        return trainer.state.epoch, trainer.state.step, time.monotonic() / 60.0

    def _save(self, trainer: Run) -> None:
        path = self.folder / NAME.format(trainer.state.step)
        atomic_write(path, encode_checkpoint(trainer, self.every))
        self._saved = (trainer.state.step, trainer.state.history.stop_reason)
        self._good = [*(p for p in self._good if p != path), path][-KEPT:]
        for old in checkpoint_paths(self.folder):
            if old not in self._good:
                old.unlink(missing_ok=True)

    def _check_disk_space(self, trainer: Run) -> None:
        """Raise OSError if the disk has no space for the checkpoints."""
        net = trainer.net
        width = np.dtype(net.dtype).itemsize
        vectors = (
            2 + len(trainer.state.optimizer) + (trainer.state.ema_weights is not None)
        )  # with weights and best
        if isinstance(trainer.config.optimizer, LBFGS):
            vectors += 1 + 2 * trainer.config.optimizer.memory
        size = vectors * net.n_parameters * width + OVERHEAD
        needed = (KEPT + 1 - len(self._good)) * size  # one more while it is being written
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"Checkpoints need {needed / 1e6:,.2f} MB of free disk. Received: "
                f"{free / 1e6:,.2f} MB in {self.folder}. Free some, or choose another folder",
            )


def encode_checkpoint(trainer: Run, every: Mapping[str, Any]) -> bytes:
    """Return the bytes of a checkpoint."""
    state, net, known = save_run(trainer), trainer.net, trainer.data.preprocessing
    description = describe_model(net, known) | {"run": {**state.facts, "every": dict(every)}}
    arrays = model_tensors(net, known)
    arrays |= {PREFIX + name: array for name, array in state.arrays.items()}
    return encode(description, arrays)


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    found = [path for path in folder.iterdir() if PATTERN.fullmatch(path.name)]
    return sorted(found, key=step_in_name)


def step_in_name(path: Path) -> int:
    """Return the step of a checkpoint by its name."""
    return int(path.name[len("checkpoint-") : -len(".safetensors")])


def keep_newest(folder: Path) -> None:
    """Remove all checkpoints of a finished run except the last one."""
    for path in checkpoint_paths(folder)[:-1]:
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises: ModelFileError for a file that is not a complete checkpoint.
    """
    description, arrays = read_model(path)
    run = description.pop("run", None)
    if not isinstance(run, dict) or not isinstance(every := run.pop("every", None), dict):
        raise ModelFileError(
            "A checkpoint must have the state of a run. Received: a file without one, such as a "
            "model. Use a folder that nnbackend.Checkpoints wrote."
        )
    is_earlier = "config" not in run or run.get("lbfgs", {}) is None
    if is_earlier or any(name.startswith(f"{PREFIX}state.") for name in arrays):
        raise ModelFileError(
            "A checkpoint must have been written by this version of nnbackend. Received: one of an "
            "earlier version. Resume it with that version, or start a new run."
        )
    own = {name: array for name, array in arrays.items() if not name.startswith(PREFIX)}
    state = {n.removeprefix(PREFIX): a for n, a in arrays.items() if n.startswith(PREFIX)}
    return Checkpoint(path, description, own, SavedRun(run, state), every)


def newest_checkpoint(folder: Path) -> Checkpoint:
    """Read the newest checkpoint of a folder; if it is damaged, the one before it.

    Raises: ModelFileError when there is no complete checkpoint.
    """
    paths = checkpoint_paths(folder) if folder.is_dir() else []
    reasons = []
    for path in reversed(paths):
        try:
            checkpoint = read_checkpoint(path)
        except ModelFileError as error:
            reasons.append(f"{path.name}: {error}")
            logger.warning("skipping a damaged checkpoint: %s", reasons[-1])
        else:
            return checkpoint
    what = " ".join(reasons) or ("no checkpoint in it" if folder.is_dir() else "no such folder")
    raise ModelFileError(
        f"The folder must hold a complete checkpoint of a run. Received: {folder}: {what}."
    )
