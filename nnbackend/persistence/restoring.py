"""Restoring of a run from a checkpoint, after which it continues as without the interruption."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from nnbackend.errors import ArgumentError, Fault, Mention, ModelFileError, NNBackendError
from nnbackend.persistence.checkpoints import Checkpoint, Checkpoints
from nnbackend.persistence.description import describe_model, describe_network
from nnbackend.persistence.run_state import load_run, step_of
from nnbackend.training.callbacks import Callback
from nnbackend.training.run import Run
from nnbackend.training.state import DECISIONS

# Errors that an invalid state of a run causes when it is used.
STATE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)

logger = logging.getLogger("nnbackend")


def restore(run: Run, callbacks: Iterable[Callback], checkpoint: Checkpoint) -> None:
    """Restore the state of a run from a checkpoint.

    Raises: ArgumentError for a checkpoint of another run; ModelFileError for an invalid one.
    """
    described, net = dict(checkpoint.description), run.net
    own = describe_model(net, run.data.preprocessing)
    differing = [
        name for name, value in own.items()
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
        raise invalid_state(checkpoint, error) from error
    for callback in callbacks:
        if isinstance(callback, Checkpoints):
            callback.restored_from(checkpoint)
    logger.info("resuming after step %d, from %s", step, checkpoint.path)


def _check_epochs(epochs: int, facts: Mapping[str, Any]) -> None:
    """Raise ArgumentError for fewer epochs than already started, or more after a decided stop."""
    done, begun, config = facts.get("epoch"), bool(facts.get("step_in_epoch")), facts.get("config")
    before = config.get("epochs") if isinstance(config, dict) else None
    if type(done) is not int or type(before) is not int or epochs == before:
        return  # `load_run` raises for invalid values
    if epochs < done + begun:
        raise ArgumentError(
            Fault(
                "epochs", f"at least {done + begun}, the epochs that the run has already started",
                epochs,
            )
        )  # fmt: skip
    if facts.get("stop_reason") in DECISIONS:
        raise ArgumentError(
            Mention("epochs"), " cannot extend a run that was stopped by a decision. Received: ",
            Mention("epochs", epochs), f" for a run that stopped after epoch {done} "
            f"({facts['stop_reason']}). Start a new run, or continue to train its network with "
            "nnbackend.train.",
        )  # fmt: skip


def invalid_state(checkpoint: Checkpoint, error: Exception) -> ModelFileError:
    """Return the error for a checkpoint whose state cannot be used."""
    return ModelFileError(
        "A checkpoint must have the state of a run, as nnbackend.Checkpoints writes it. "
        f"Received: {type(error).__name__}: {str(error)[:300]} in {checkpoint.path}."
    )


def _warn_of_differences(run: Run, checkpoint: Checkpoint) -> None:
    """Log a warning if device, threads, precision or versions differ: results are rounded so."""
    backend, facts = run.net.backend, checkpoint.state.facts
    own = {
        "device": backend.device, "threads": backend.threads, "precision": backend.precision,
        **describe_network(run.net)["versions"],
    }  # fmt: skip
    versions = checkpoint.description.get("versions")
    stored = {"device": facts.get("device"), "threads": facts.get("threads")}
    stored["precision"] = checkpoint.description.get("precision", "float32")
    stored |= versions if isinstance(versions, dict) else {}
    other = [f"{k} {stored.get(k)}, now {v}" for k, v in own.items() if stored.get(k) != v]
    if other:
        logger.warning("the run resumes within rounding, not bit for bit: %s", "; ".join(other))
