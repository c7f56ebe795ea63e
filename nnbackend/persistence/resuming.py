"""Going on with an interrupted run, as if it had not been interrupted."""

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
from nnbackend.persistence.building import build_network, refusing
from nnbackend.persistence.checkpoints import Checkpoint, Checkpoints, newest_checkpoint
from nnbackend.persistence.config_data import build_config
from nnbackend.persistence.description import OwnFormulas, describe_network
from nnbackend.persistence.run_state import DECISIONS, load_state_dict, step_of
from nnbackend.training.callbacks import Callback, EarlyStopping
from nnbackend.training.config import TrainConfig
from nnbackend.training.history import History
from nnbackend.training.preparation import Validation
from nnbackend.training.trainer import Trainer

# What data that is no state of a run leads to, where it is used.
NO_STATE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)

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
    """Go on with the run whose checkpoints are in a folder; return its network and history.

    x, y, sample_weight, validation: the data of the run, which a checkpoint does not hold; a
    validation that was a fraction is known. optimizer, schedule, momentum_schedule,
    early_stopping, activations, losses: only where they were code of your own, of which a file
    knows the name at most. epochs: to train on for longer, counted from the beginning; a schedule
    that depends on their number then takes another course. Scaling is known, too. device: by
    default the one that the run had, where it can be used here, else the automatic choice.

    Parameters, optimizer state, history and the decision to stop become what they would have been
    without the interruption: bit for bit on the same device and versions, else within rounding.
    What callbacks of your own have counted is theirs to keep.

    Raises: ModelFileError for whatever is wrong with the files; ArgumentError when data or options
    are not those of the run.
    """
    checkpoint = newest_checkpoint(Path(folder))
    own = OwnFormulas({a.name: a for a in activations}, {lo.name: lo for lo in losses})
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
    trainer = Trainer(
        net, x, y, config,
        sample_weight=sample_weight, callbacks=callbacks,
        validation=share if validation is None else validation,
    )  # fmt: skip
    restore(trainer, checkpoint)
    return net, trainer.run()


def device_of(checkpoint: Checkpoint) -> Backend:
    """Return the device that a run had; where it cannot be used here, the automatic choice."""
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


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Bring a new run to where a checkpoint was taken of it.

    Raises: ArgumentError when the checkpoint is another run's; ModelFileError when it is none.
    """
    described, net = dict(checkpoint.description), trainer.net
    differing = [
        name for name, value in describe_network(net).items()
        if name not in ("versions", "scaler", "target_scaler") and described.get(name) != value
    ]  # fmt: skip
    if differing:
        raise ArgumentError(
            f"A run goes on with the network it was begun with. Received: other "
            f"{', '.join(differing)} than {checkpoint.path} has. Begin a new run."
        )
    _check_epochs(trainer.config.epochs, checkpoint.state.facts)
    _tell_differences(trainer, checkpoint)
    try:
        n, arrays = len(net.weights), checkpoint.arrays
        net.set_parameters(
            [arrays[f"weights.{i}"] for i in range(n)], [arrays[f"biases.{i}"] for i in range(n)]
        )
        load_state_dict(trainer, checkpoint.state)
        step = step_of(checkpoint.state.facts)
    except NNBackendError:
        raise
    except NO_STATE as error:
        raise _no_state(checkpoint, error) from error
    for callback in trainer.callbacks:
        if isinstance(callback, Checkpoints):
            callback.restored_from(checkpoint)
    logger.info("going on after step %d, from %s", step, checkpoint.path)


def _read_config(
    checkpoint: Checkpoint, own: dict[str, Any], net: Network
) -> tuple[TrainConfig, float | None]:
    facts = checkpoint.state.facts
    try:
        config, share = build_config(facts["config"], own), facts["validation"]
        with refusing():
            config.checked(net)
        if share is not None and not 0.0 < share < 1.0:
            raise ValueError(f"validation={share!r}")
    except NNBackendError:
        raise
    except NO_STATE as error:
        raise _no_state(checkpoint, error) from error
    return config, share


def _check_epochs(epochs: int, facts: Mapping[str, Any]) -> None:
    """Refuse fewer epochs than the run has begun already, and more for one that is decided."""
    done, begun, config = facts.get("epoch"), bool(facts.get("step_in_epoch")), facts.get("config")
    before = config.get("epochs") if isinstance(config, dict) else None
    if type(done) is not int or type(before) is not int or epochs == before:
        return  # for `put_state` to say what is wrong, if anything is
    if epochs < done + begun:
        raise ArgumentError(
            f"epochs must be at least {done + begun}: it counts from the beginning of the run, "
            f"which has got that far. Received: epochs={epochs}."
        )
    if facts.get("stop_reason") in DECISIONS:
        raise ArgumentError(
            "epochs can only prolong a run that was not told to stop. "
            f"Received: epochs={epochs} for one that ended with epoch {done} "
            f"({facts['stop_reason']}). Begin a new run, or train its network on by "
            "nnbackend.train."
        )


def _intervals(checkpoint: Checkpoint) -> dict[str, Any]:
    every = checkpoint.every
    if set(every) != {"epochs", "steps", "minutes"}:
        raise _no_state(checkpoint, ValueError(f"every={every!r}"))
    with refusing():
        Checkpoints("", **every)
    return dict(every)


def _no_state(checkpoint: Checkpoint, error: Exception) -> ModelFileError:
    return ModelFileError(
        "A checkpoint must have the state of a run, as nnbackend.Checkpoints writes it. "
        f"Received: {type(error).__name__}: {str(error)[:300]} in {checkpoint.path}."
    )


def _tell_differences(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Say what may make a difference in the last bits."""
    own = {"device": trainer.backend.device, **describe_network(trainer.net)["versions"]}
    versions = checkpoint.description.get("versions")
    stored = {"device": checkpoint.state.facts.get("device")}
    stored |= versions if isinstance(versions, dict) else {}
    other = [f"{k} {stored.get(k)}, now {v}" for k, v in own.items() if stored.get(k) != v]
    if other:
        logger.warning("the run goes on within rounding, not bit for bit: %s", "; ".join(other))
