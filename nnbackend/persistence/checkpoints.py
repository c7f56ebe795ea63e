"""Checkpoints: a run written down while it goes on, so that a crash costs minutes and no bits.

A checkpoint is a file like a model's, with the state of the run beside the network. The two newest
are kept, each written whole or not at all; what a killed process left behind is swept at the start.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError, ModelFileError, check
from nnbackend.persistence.atomic_file import atomic_write, sweep
from nnbackend.persistence.config_data import describe_config
from nnbackend.persistence.container import encode, read_model
from nnbackend.persistence.description import describe_network, network_tensors
from nnbackend.persistence.run_state import RunState, state_dict, step_of
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.trainer import Trainer

NAME = "checkpoint-{:012d}.safetensors"
PATTERN = re.compile(r"checkpoint-(\d{12,19})\.safetensors")
PREFIX = "run."  # of the state's arrays, beside those of the network
DEFAULT_MINUTES = 10.0
KEPT = 2
OVERHEAD = 100_000  # bytes of a checkpoint that are no vectors, about
# What batch systems send some time before they kill.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))

logger = logging.getLogger("nnbackend")


@dataclass(frozen=True)
class Checkpoint:
    """What was read of a checkpoint: the network's description and arrays, the run's state."""

    path: Path
    description: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    state: RunState
    every: Mapping[str, Any]


class Checkpoints(Callback):
    """Writes checkpoints of a run into a folder of its own; `nnbackend.resume` goes on from them.

    epochs, steps, minutes: write one every so many; by default every 10 minutes. Within an epoch
    training is looked at about ten times a second. At the end, and on Ctrl-C, SIGTERM or SIGUSR1,
    which end training after the step under way, a last one is written. The newest two are kept.
    It should stand last in the list of callbacks, so that it writes what the others decided.

    A periodic checkpoint that cannot be written is a warning in the log, and training goes on.
    Raises: ArgumentError for a folder that holds another run's checkpoints, or a run that cannot be
    written down; OSError when there is no room for two of them. When the last one cannot be
    written, its error comes after training has ended as ever: the network has its weights, and
    the error's `history` the history.
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
        self._good: list[Path] = []  # checkpoints known to be whole, oldest first
        self._saved: tuple[int, str] | None = None  # step and stop_reason of the newest
        self._tried = (0, 0, 0.0)  # epoch, step, time of the last attempt
        self._failure: Exception | None = None  # of the last checkpoint

    def restored_from(self, checkpoint: Checkpoint) -> None:
        """Take the folder's checkpoints for this run's own."""
        facts = checkpoint.state.facts
        self._good = [checkpoint.path]
        self._saved = (step_of(facts), facts["stop_reason"])

    def on_train_begin(self, trainer: Trainer) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._good and checkpoint_paths(self.folder):
            raise ArgumentError(
                "Checkpoints need a folder of their own. Received: "
                f"{self.folder}, which holds those of a run. Go on with that run by "
                "nnbackend.resume, or name another folder."
            )
        sweep(self.folder, "checkpoint-*")
        self._check_room(trainer)
        # What has no place in a file is found now, not after hours.
        config = {"config": describe_config(trainer.config), "every": self.every}
        encode(describe_network(trainer.net) | {"run": config}, {})
        trainer.interrupt.signals = SIGNALS
        self._tried = self._now(trainer)

    def on_progress(self, trainer: Trainer, step: int, n_steps: int) -> None:
        if step < n_steps:  # else the epoch is about to end
            self._save_if_due(trainer)

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        self._save_if_due(trainer)

    def on_pause(self, trainer: Trainer) -> None:
        self._failure = None
        if self._saved != (trainer.step, trainer.history.stop_reason):
            try:
                self._save(trainer)
            except Exception as error:  # raised once the best weights are back
                self._failure = error

    def on_train_end(self, trainer: Trainer) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            failure.history = trainer.history  # type: ignore[attr-defined]
            failure.add_note(
                "The last checkpoint could not be written. Training itself has ended "
                f"({trainer.history.stop_reason}): the network has its weights, and this error "
                "the history."
            )
            raise failure

    def _save_if_due(self, trainer: Trainer) -> None:
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
                "a checkpoint could not be written, training goes on (%s)",
                error or type(error).__name__,
            )
        self._tried = self._now(trainer)

    def _now(self, trainer: Trainer) -> tuple[int, int, float]:
        return trainer.epoch, trainer.step, time.monotonic() / 60.0

    def _save(self, trainer: Trainer) -> None:
        path = self.folder / NAME.format(trainer.step)
        atomic_write(path, encode_checkpoint(trainer, self.every))
        self._saved = (trainer.step, trainer.history.stop_reason)
        self._good = [*(p for p in self._good if p != path), path][-KEPT:]
        for old in checkpoint_paths(self.folder):
            if old not in self._good:
                old.unlink(missing_ok=True)

    def _check_room(self, trainer: Trainer) -> None:
        """Refuse to begin what could not be written down."""
        net = trainer.net
        width = np.dtype(net.dtype).itemsize
        vectors = (
            2 + len(trainer.state) + (trainer.ema_weights is not None)
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
                f"{free / 1e6:,.2f} MB in {self.folder}. Make room, or name another folder",
            )


def encode_checkpoint(trainer: Trainer, every: Mapping[str, Any]) -> bytes:
    """Return a checkpoint's bytes."""
    state = state_dict(trainer)
    description = describe_network(trainer.net) | {"run": {**state.facts, "every": dict(every)}}
    arrays = network_tensors(trainer.net)
    arrays |= {PREFIX + name: array for name, array in state.arrays.items()}
    return encode(description, arrays)


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return a folder's checkpoints, the oldest first."""
    found = [path for path in folder.iterdir() if PATTERN.fullmatch(path.name)]
    return sorted(found, key=step_in_name)


def step_in_name(path: Path) -> int:
    """Return the step after which a checkpoint was written, by its name."""
    return int(path.name[len("checkpoint-") : -len(".safetensors")])


def keep_newest(folder: Path) -> None:
    """Remove what a run that has ended needs no more: all checkpoints but the one of its end."""
    for path in checkpoint_paths(folder)[:-1]:
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises: ModelFileError when it is none, or not whole.
    """
    description, arrays = read_model(path)
    run = description.pop("run", None)
    if not isinstance(run, dict) or not isinstance(every := run.pop("every", None), dict):
        raise ModelFileError(
            "A checkpoint must have the state of a run. Received: a file without it, perhaps a "
            "model. Give a folder that nnbackend.Checkpoints wrote."
        )
    if "recipe" in run:
        raise ModelFileError(
            "A checkpoint must have been written by this version of nnbackend. Received: one of an "
            "earlier version. Resume it with that version, or start a new run."
        )
    own = {name: array for name, array in arrays.items() if not name.startswith(PREFIX)}
    state = {n.removeprefix(PREFIX): a for n, a in arrays.items() if n.startswith(PREFIX)}
    return Checkpoint(path, description, own, RunState(run, state), every)


def newest_checkpoint(folder: Path) -> Checkpoint:
    """Read the newest checkpoint of a folder; the one before it where that one is damaged.

    Raises: ModelFileError when there is none that is whole.
    """
    paths = checkpoint_paths(folder) if folder.is_dir() else []
    reasons = []
    for path in reversed(paths):
        try:
            checkpoint = read_checkpoint(path)
        except ModelFileError as error:
            reasons.append(f"{path.name}: {error}")
            logger.warning("a checkpoint is passed over: %s", reasons[-1])
        else:
            return checkpoint
    what = " ".join(reasons) or ("no checkpoint in it" if folder.is_dir() else "no such folder")
    raise ModelFileError(
        f"A folder with a checkpoint of a run is needed. Received: {folder}: {what}."
    )
