"""The saved form of a run: its state, its options, and a fingerprint of its data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend.data.host_rows import HostRows
from nnbackend.errors import ArgumentError
from nnbackend.persistence.config_data import describe_config, with_newer_options
from nnbackend.training.run import Run
from nnbackend.validation import host_array, some_rows

SAMPLED_ROWS = 4096  # rows in the fingerprint of larger data, evenly spaced


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
        "data": fingerprint(run),
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


def fingerprint(run: Run) -> str:
    """Return a hash of the rows (a sample of large data), the targets and the sample weights."""
    data, backend = run.data, run.net.backend
    # Of a stream, the first batch.
    rows = data.rows if data.stream is None else range(len(data.y))
    parts: list[tuple[Array, Any]] = [(data.x, rows)]
    digest = hashlib.sha256()
    _add(digest, "y", data.y)
    _add(digest, "weight", data.weight)
    _add(
        digest,
        "rows",
        np.array([len(data.rows)]) if data.stream else np.asarray(data.rows, np.int64),
    )
    if data.validation is not None:
        x, y, weight = data.validation
        parts.append((x, range(int(x.shape[0]))))
        _add(digest, "validation y", y)
        _add(digest, "validation weight", weight)
    for x, rows in parts:
        every = max(1, -(-len(rows) // SAMPLED_ROWS))
        sample = np.asarray(rows[::every], np.int64)
        part = some_rows(x, sample, backend)
        host = host_array(part[:] if isinstance(part, HostRows) else part, "x", backend)
        _add(digest, f"x of {int(x.shape[0])}", host)
    return digest.hexdigest()


def _add(digest: Any, name: str, array: np.ndarray | None) -> None:
    if array is None:
        digest.update(f"{name} none\n".encode())
        return
    digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


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
    if facts["monitor"] != run.state.history.monitor or facts["data"] != fingerprint(run):
        raise ArgumentError(
            "The data must be those of the run: x, y, sample_weight and validation, in the same "
            f"order and dtypes. Received: other data ({len(run.data.rows):,} training rows; the "
            f"checkpoint has {facts['n']:,}). Use the same data, or start a new run."
        )
