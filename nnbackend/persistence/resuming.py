"""Resuming of an interrupted run, with the same result as without the interruption."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnbackend.backend import Backend, get_backend
from nnbackend.errors import ArgumentError, BackendError, ModelFileError, NNBackendError
from nnbackend.network.activations import Activation
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.persistence.building import as_model_file_error, build_network
from nnbackend.persistence.checkpoints import Checkpoint, Checkpoints, newest_checkpoint
from nnbackend.persistence.config_data import build_config
from nnbackend.persistence.description import CustomFormulas, describe_network
from nnbackend.persistence.run_state import load_run, step_of
from nnbackend.training.api import new_trainer
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.history import History
from nnbackend.training.preparation import Validation
from nnbackend.training.run import Run
from nnbackend.training.state import DECISIONS

# Errors that an invalid state of a run causes when it is used.
STATE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)

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
) -> tuple[Network, History]:
    """Resume the run whose checkpoints are in a folder; return its network and history.

    x, y, sample_weight, validation: the data of the run, which a checkpoint does not hold. Scaling
    and a fraction for validation are stored.
    optimizer, schedule, momentum_schedule, early_stopping, activations, losses: only if they are
    custom code, which a checkpoint does not hold.
    epochs: a larger number extends the run; it counts from the beginning. A schedule that depends
    on the number of epochs then changes. device: by default that of the run if it can be used here,
    else the automatic choice.

    Parameters, optimizer state, history and stopping decision become the same as without the
    interruption: bit for bit on the same device and versions, else within rounding. The state of
    custom callbacks is not stored.

    Raises: ModelFileError for invalid files; ArgumentError when data or options differ from those
    of the run.
    """
    checkpoint = newest_checkpoint(Path(folder))
    own = CustomFormulas({a.name: a for a in activations}, {lo.name: lo for lo in losses})
    own_parts = {
        "optimizer": optimizer, "schedule": schedule, "momentum_schedule": momentum_schedule,
        "early_stopping": early_stopping,
    }  # fmt: skip
    try:
        backend = device_of(checkpoint) if device is None else device
        net = build_network(checkpoint.description, checkpoint.arrays, backend, own)
        config, share = _read_config(checkpoint, own_parts, net)
    except ModelFileError as error:
        raise ModelFileError(f"{checkpoint.path}: {error}") from error
    if epochs is not None:
        config = replace(config, epochs=epochs)
    writer = next((c for c in callbacks if isinstance(c, Checkpoints)), None)
    if writer is None:
        writer = Checkpoints(folder, **_intervals(checkpoint))
        callbacks = [*callbacks, writer]
    trainer = new_trainer(
        net, x, y, config,
        sample_weight=sample_weight, callbacks=callbacks,
        validation=share if validation is None else validation,
    )  # fmt: skip
    restore(trainer, trainer.callbacks, checkpoint)
    return net, trainer.run()


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


def restore(run: Run, callbacks: Iterable[Callback], checkpoint: Checkpoint) -> None:
    """Restore the state of a run from a checkpoint.

    Raises: ArgumentError for a checkpoint of another run; ModelFileError for an invalid one.
    """
    described, net = dict(checkpoint.description), run.net
    differing = [
        name for name, value in describe_network(net).items()
        if name not in ("versions", "scaler", "target_scaler") and described.get(name) != value
    ]  # fmt: skip
    if differing:
        raise ArgumentError(
            f"The network must be that of the run. Received: other {', '.join(differing)} than in "
            f"{checkpoint.path}. Start a new run."
        )
    _check_epochs(run.config.epochs, checkpoint.state.facts)
    _warn_of_differences(run, checkpoint)
    try:
        n, arrays = len(net.weights), checkpoint.arrays
        net.set_parameters(
            [arrays[f"weights.{i}"] for i in range(n)], [arrays[f"biases.{i}"] for i in range(n)]
        )
        load_run(run, checkpoint.state)
        step = step_of(checkpoint.state.facts)
    except NNBackendError:
        raise
    except STATE_ERRORS as error:
        raise _invalid_state(checkpoint, error) from error
    for callback in callbacks:
        if isinstance(callback, Checkpoints):
            callback.restored_from(checkpoint)
    logger.info("resuming after step %d, from %s", step, checkpoint.path)


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
        raise _invalid_state(checkpoint, error) from error
    return config, share


def _check_epochs(epochs: int, facts: Mapping[str, Any]) -> None:
    """Raise ArgumentError for fewer epochs than already started, or more after a decided stop."""
    done, begun, config = facts.get("epoch"), bool(facts.get("step_in_epoch")), facts.get("config")
    before = config.get("epochs") if isinstance(config, dict) else None
    if type(done) is not int or type(before) is not int or epochs == before:
        return  # `load_run` raises for invalid values
    if epochs < done + begun:
        raise ArgumentError(
            f"epochs must be at least {done + begun}, the epochs that the run has already started. "
            f"Received: epochs={epochs}."
        )
    if facts.get("stop_reason") in DECISIONS:
        raise ArgumentError(
            "epochs cannot extend a run that was stopped by a decision. "
            f"Received: epochs={epochs} for a run that stopped after epoch {done} "
            f"({facts['stop_reason']}). Start a new run, or continue to train its network with "
            "nnbackend.train."
        )


def _intervals(checkpoint: Checkpoint) -> dict[str, Any]:
    every = checkpoint.every
    if set(every) != {"epochs", "steps", "minutes"}:
        raise _invalid_state(checkpoint, ValueError(f"every={every!r}"))
    with as_model_file_error():
        Checkpoints("", **every)
    return dict(every)


def _invalid_state(checkpoint: Checkpoint, error: Exception) -> ModelFileError:
    return ModelFileError(
        "A checkpoint must have the state of a run, as nnbackend.Checkpoints writes it. "
        f"Received: {type(error).__name__}: {str(error)[:300]} in {checkpoint.path}."
    )


def _warn_of_differences(run: Run, checkpoint: Checkpoint) -> None:
    """Log a warning if the device or versions differ, which may change the last bits."""
    own = {"device": run.net.backend.device, **describe_network(run.net)["versions"]}
    versions = checkpoint.description.get("versions")
    stored = {"device": checkpoint.state.facts.get("device")}
    stored |= versions if isinstance(versions, dict) else {}
    other = [f"{k} {stored.get(k)}, now {v}" for k, v in own.items() if stored.get(k) != v]
    if other:
        logger.warning("the run resumes within rounding, not bit for bit: %s", "; ".join(other))
