"""Resuming of an interrupted run, with the same result as without the interruption."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnbackend.backend import Backend
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, BackendError, ModelFileError, NNBackendError
from nnbackend.model.model import Model
from nnbackend.network.activations import Activation
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.persistence.building import (
    as_model_file_error,
    build_network,
    build_preprocessing,
)
from nnbackend.persistence.checkpoints import Checkpoint, Checkpoints, newest_checkpoint
from nnbackend.persistence.config_data import build_config
from nnbackend.persistence.description import CustomFormulas
from nnbackend.persistence.restoring import STATE_ERRORS, invalid_state, restore
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.history import History
from nnbackend.training.preparation import Validation

logger = logging.getLogger("nnbackend")


def resume(
    folder: str | os.PathLike[str],
    x: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    validation: Validation = None,
    epochs: int | None = None,
    optimizer: Any = None,
    schedule: Any = None,
    momentum_schedule: Any = None,
    early_stopping: EarlyStopping | None = None,
    activations: Iterable[Activation] = (),
    losses: Iterable[Loss] = (),
    device: str | Backend | None = None,
    callbacks: Sequence[Callback] = (),
    communicator: Any = None,
) -> tuple[Model, History]:
    """Resume the run whose checkpoints are in a folder; return its model and history.

    x, y, sample_weight, validation: the data of the run, which a checkpoint does not hold: raw rows
    and labels for a run of `Model.fit`. A fraction for validation is stored, as is preprocessing.
    optimizer, schedule, momentum_schedule, early_stopping, activations, losses: only if they are
    custom code, which a checkpoint does not hold.
    epochs: a larger number extends the run; it counts from the beginning. A schedule that depends
    on the number of epochs then changes. device: by default that of the run if it can be used here,
    else the automatic choice.

    Parameters, optimizer state, history and stopping decision become the same as without the
    interruption: bit for bit on the same device and versions, else within rounding. The state of
    custom callbacks is not stored. communicator: as for `nnbackend.train`; the number of ranks may
    be another one.

    Raises: ModelFileError for invalid files; ArgumentError when data or options differ from those
    of the run.
    """
    checkpoint = newest_checkpoint(Path(folder))
    own = CustomFormulas({a.name: a for a in activations}, {lo.name: lo for lo in losses})
    own_parts = {
        "optimizer": optimizer, "schedule": schedule, "momentum_schedule": momentum_schedule,
        "early_stopping": early_stopping,
    }  # fmt: skip
    model, config, share = _rebuild(checkpoint, device, own, own_parts)
    if epochs is not None:
        config = replace(config, epochs=epochs)
    writer = next((c for c in callbacks if isinstance(c, Checkpoints)), None)
    if writer is None:
        writer = Checkpoints(folder, **_intervals(checkpoint))
        callbacks = [*callbacks, writer]
    trainer = model.new_trainer(
        x, y, config,
        sample_weight=sample_weight, callbacks=callbacks, communicator=communicator,
        validation=share if validation is None else validation,
    )  # fmt: skip
    restore(trainer, trainer.callbacks, checkpoint)
    return model, trainer.run()


def _rebuild(
    checkpoint: Checkpoint,
    device: str | Backend | None,
    own: CustomFormulas,
    own_parts: dict[str, Any],
) -> tuple[Model, TrainConfig, float | None]:
    """Return the model, the options and the validation fraction of a checkpoint."""
    try:
        backend = device_of(checkpoint) if device is None else device
        described, arrays = checkpoint.description, checkpoint.arrays
        net = build_network(described, arrays, backend, own)
        model = Model.from_parts(net, build_preprocessing(described, arrays))
        return model, *_read_config(checkpoint, own_parts, net)
    except ModelFileError as error:
        raise ModelFileError(f"{checkpoint.path}: {error}") from error


def device_of(checkpoint: Checkpoint) -> Backend:
    """Return the device of a run; if it cannot be used here, the automatic choice."""
    word = checkpoint.state.facts.get("device")
    try:
        if not isinstance(word, str):
            raise ArgumentError(f"the checkpoint must name its device. Received: {word!r:.50}")
        return get_backend(word)
    except (BackendError, ArgumentError) as error:
        chosen = get_backend()
        logger.warning(
            "the run was on %r, which cannot be used here; it is resumed on %s. %s",
            word, chosen.device, error,
        )  # fmt: skip
        return chosen


def _read_config(
    checkpoint: Checkpoint, own: dict[str, Any], net: Network
) -> tuple[TrainConfig, float | None]:
    facts = checkpoint.state.facts
    try:
        config, share = build_config(facts["config"], own), facts["validation"]
        with as_model_file_error():
            config.checked(net)
        if share is not None and not 0.0 < share < 1.0:
            raise ValueError(f"validation={share!r}")
    except NNBackendError:
        raise
    except STATE_ERRORS as error:
        raise invalid_state(checkpoint, error) from error
    return config, share


def _intervals(checkpoint: Checkpoint) -> dict[str, Any]:
    every = checkpoint.every
    if set(every) != {"epochs", "steps", "minutes"}:
        raise invalid_state(checkpoint, ValueError(f"every={every!r}"))
    with as_model_file_error():
        Checkpoints("", **every)
    return dict(every)
