"""The saved form of a run: its state, its options, and a fingerprint of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.persistence.config_data import describe_config, with_newer_options
from nnbackend.training.fingerprints import fingerprint
from nnbackend.training.run import Run


@dataclass(frozen=True)
class SavedRun:
    """A run between two steps: plain data for JSON, and host arrays by name."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def save_run(run: Run) -> SavedRun:
    """Return a copy of the state of a run, without the parameters of the network."""
    state = run.state.state_dict()
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    facts = {name: value for name, value in state.items() if name not in arrays} | {
        "device": run.net.backend.device,
        "threads": run.net.backend.threads,
        "validation": run.data.validation_share,
        "config": describe_config(run.config),
        "n": len(run.data.rows),
        "data": fingerprint(run.data, run.net.backend),
    }
    return SavedRun(facts, arrays)


def load_run(run: Run, saved: SavedRun) -> None:
    """Restore the state of a run with the same config and data.

    Raises: ArgumentError for the state of another run; ValueError, KeyError or TypeError for an
    invalid state. The run is unusable after an error.
    """
    _check_same_run(run, saved.facts)
    if (epoch := saved.facts["epoch"]) > run.config.epochs:
        raise ValueError(f"epoch={epoch}")
    run.state.load_state_dict({**saved.facts, **saved.arrays})


def step_of(facts: Mapping[str, Any]) -> int:
    """Return the number of steps since the beginning of training."""
    step: int = facts["epoch"] * facts["steps_per_epoch"] + facts["step_in_epoch"]
    return step


def _check_same_run(run: Run, facts: Mapping[str, Any]) -> None:
    own, stored = describe_config(run.config), with_newer_options(facts["config"])
    # The number of epochs may change; a schedule that depends on it changes too.
    differing = [name for name in own if name != "epochs" and stored.get(name) != own[name]]
    if differing:
        raise ArgumentError(
            "The options must be those of the run. Received: other "
            f"{', '.join(differing)}: {[own[n] for n in differing]} where the checkpoint has "
            f"{[stored.get(n) for n in differing]}. Use the same, or start a new run."
        )
    if facts["monitor"] != run.state.history.monitor or facts["data"] != fingerprint(
        run.data, run.net.backend
    ):
        raise ArgumentError(
            "The data must be those of the run: x, y, sample_weight and validation, in the same "
            f"order and dtypes. Received: other data ({len(run.data.rows):,} training rows; the "
            f"checkpoint has {facts['n']:,}). Use the same data, or start a new run."
        )
