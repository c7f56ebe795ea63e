"""The state of a run between two steps, saved as plain data and arrays, and restored.

Batches, dropout masks and learning rates follow from the seed and the step. Everything else that
the next steps need is part of the state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend.data.sparse import SparseRows
from nnbackend.data.validation import host_array, some_rows
from nnbackend.errors import ArgumentError
from nnbackend.network.sums import SLOTS
from nnbackend.persistence.config_data import describe_config
from nnbackend.training.trainer import Trainer

SAMPLED_ROWS = 4096  # rows in the fingerprint of larger data, evenly spaced
COUNTS = ("epoch", "step_in_epoch", "steps_per_epoch", "n")  # integer attributes of the trainer
DECISIONS = ("early stopping", "converged", "callback")  # stop reasons that are final

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RunState:
    """The state of a run between two steps: plain data for JSON, and host arrays by name."""

    facts: Mapping[str, Any]
    arrays: Arrays


def state_dict(trainer: Trainer) -> RunState:
    """Return a copy of the state of a run, without the parameters of the network."""
    history, lbfgs = trainer.history, trainer.lbfgs
    to_host = trainer.backend.to_host
    arrays = {name: to_host(array) for name, array in _vectors(trainer).items()}
    if trainer.sums.is_short:
        arrays["sums"] = trainer.sums.host.copy()
    columns = list(history.rows[0]) if history.rows else []
    if history.rows:
        arrays["history"] = np.array([[row[c] for c in columns] for row in history.rows])
    facts: dict[str, Any] = {name: getattr(trainer, name) for name in COUNTS}
    facts |= {
        "stop_reason": history.stop_reason,
        "monitor": history.monitor,
        "device": trainer.backend.device,
        "validation": trainer.validation_share,
        "columns": columns,
        "config": describe_config(trainer.config),
        "data": fingerprint(trainer),
        "lbfgs": None,
    }
    if lbfgs is not None:
        facts["lbfgs"] = {"pairs": len(lbfgs.pairs), "converged": lbfgs.converged}
        arrays["lbfgs.loss"] = np.array([lbfgs.loss, *(rho for _, _, rho in lbfgs.pairs)])
        for i, (s, y, _) in enumerate(lbfgs.pairs):
            arrays[f"lbfgs.s.{i}"], arrays[f"lbfgs.y.{i}"] = to_host(s), to_host(y)
    return RunState(facts, arrays)


def load_state_dict(trainer: Trainer, state: RunState) -> None:
    """Restore the state of a run with the same config and data.

    Raises: ArgumentError for the state of another run; ValueError, KeyError or TypeError for an
    invalid state. The trainer is unusable after an error.
    """
    facts, arrays = state.facts, dict(state.arrays)
    if any(type(facts[name]) is not int for name in COUNTS):
        raise TypeError(f"{', '.join(COUNTS)} must be whole numbers")
    _check_same_run(trainer, facts)
    epoch, step_in_epoch = facts["epoch"], facts["step_in_epoch"]
    if not (0 <= epoch <= trainer.config.epochs and 0 <= step_in_epoch <= trainer.steps_per_epoch):
        raise ValueError(f"epoch={epoch}, step_in_epoch={step_in_epoch}")
    rows = _history_rows(facts["columns"], arrays.pop("history", None), epoch, trainer)
    if facts["lbfgs"] is not None:
        _restore_lbfgs(trainer, facts["lbfgs"], arrays)
    vectors = _vectors(trainer)
    del vectors["totals"]
    _restore_sums(trainer, arrays)
    if vectors.keys() != arrays.keys():
        raise ValueError(f"arrays {sorted(vectors.keys() ^ arrays.keys())}")
    for name, vector in vectors.items():
        host = arrays[name]
        if host.shape != tuple(vector.shape) or vector.dtype != getattr(
            trainer.backend.xp, host.dtype.name
        ):
            raise ValueError(f"{name}: {host.dtype} {host.shape}")
        trainer.backend.to_device(np.ascontiguousarray(host), out=vector)
    trainer.epoch, trainer.step_in_epoch = epoch, step_in_epoch
    trainer.history.rows[:] = rows
    reason = facts["stop_reason"]
    if reason not in ("", "epochs", *DECISIONS):
        raise ValueError(f"stop_reason={reason!r}")
    trainer.decided = "" if reason == "epochs" else reason


def step_of(facts: Mapping[str, Any]) -> int:
    """Return the number of steps since the beginning of training."""
    step: int = facts["epoch"] * facts["steps_per_epoch"] + facts["step_in_epoch"]
    return step


def fingerprint(trainer: Trainer) -> str:
    """Return a hash of the rows (a sample of large data), the targets and the sample weights."""
    loader, backend = trainer.loader, trainer.backend
    parts: list[tuple[Array, Any]] = [(loader.source, loader.rows)]
    digest = hashlib.sha256()
    for name, part in (("y", loader.y), ("weight", loader.weight)):
        host = None if part is None else backend.to_host(part)
        _add(digest, name, host)
    _add(digest, "rows", loader.rows)
    if trainer.validation is not None:
        x, y, weight = trainer.validation
        parts.append((x, range(int(x.shape[0]))))
        _add(digest, "validation y", y)
        _add(digest, "validation weight", weight)
    for x, rows in parts:
        every = max(1, -(-len(rows) // SAMPLED_ROWS))
        sample = np.asarray(rows[::every], np.int64)
        part = some_rows(x, sample, backend)
        host = host_array(part[:] if isinstance(part, SparseRows) else part, "x", backend)
        _add(digest, f"x of {int(x.shape[0])}", host)
    return digest.hexdigest()


def _add(digest: Any, name: str, array: np.ndarray | None) -> None:
    if array is None:
        digest.update(f"{name} none\n".encode())
        return
    digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _vectors(trainer: Trainer) -> dict[str, Array]:
    """Return the device arrays that training updates in place, by their names in the state."""
    vectors = {f"state.{name}": array for name, array in trainer.state.items()}
    vectors |= {"best": trainer.best, "totals": trainer.totals}
    if trainer.ema_weights is not None:
        vectors["ema_weights"] = trainer.ema_weights
    if trainer.lbfgs is not None:
        vectors["lbfgs.gradient"] = trainer.grad
    return vectors


def _check_same_run(trainer: Trainer, facts: Mapping[str, Any]) -> None:
    stored = dict(facts["config"])
    own = describe_config(trainer.config)
    # The number of epochs may change; a schedule that depends on it changes too.
    differing = [name for name in own if name != "epochs" and stored.get(name) != own[name]]
    if differing:
        raise ArgumentError(
            "The options must be those of the run. Received: other "
            f"{', '.join(differing)}: {[own[n] for n in differing]} where the checkpoint has "
            f"{[stored.get(n) for n in differing]}. Use the same, or start a new run."
        )
    if facts["monitor"] != trainer.history.monitor or facts["data"] != fingerprint(trainer):
        raise ArgumentError(
            "The data must be those of the run: x, y, sample_weight and validation, in the same "
            f"order and dtypes. Received: other data ({trainer.n:,} training rows; the checkpoint "
            f"has {facts['n']:,}). Use the same data, or start a new run."
        )
    if facts["steps_per_epoch"] != trainer.steps_per_epoch:
        raise ValueError(f"steps_per_epoch={facts['steps_per_epoch']}")


def _history_rows(
    columns: Any, table: np.ndarray | None, epoch: int, trainer: Trainer
) -> list[dict[str, float]]:
    n = 0 if table is None else len(table)
    if n != epoch or len(set(columns)) != len(columns):
        raise ValueError(f"{n} rows of history for {epoch} epochs")
    if table is None:
        return []
    if table.ndim != 2 or table.shape[1] != len(columns) or trainer.history.monitor not in columns:
        raise ValueError(f"history {table.shape} of columns {columns}")
    rows = [dict(zip(columns, row, strict=True)) for row in table.tolist()]
    return [row | {"epoch": int(row["epoch"])} for row in rows]


def _restore_sums(trainer: Trainer, arrays: dict[str, np.ndarray]) -> None:
    """Restore the sums of the current epoch; the run may be from a device without float64."""
    dtype = "float32" if "sums" in arrays else "float64"
    totals, host = arrays.pop("totals"), arrays.pop("sums", np.zeros(SLOTS))
    if totals.dtype.name != dtype or host.dtype != np.float64:
        raise ValueError(f"sums in {totals.dtype} and {host.dtype}")
    if {totals.shape, host.shape} != {(SLOTS,)}:
        raise ValueError(f"sums {totals.shape} and {host.shape}")
    trainer.sums.put(totals, host)


def _restore_lbfgs(
    trainer: Trainer, facts: Mapping[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    steps = trainer.lbfgs_steps()
    to_device, shape = trainer.backend.to_device, tuple(steps.theta.shape)
    loss, *rhos = arrays.pop("lbfgs.loss").tolist()
    if len(rhos) != facts["pairs"] or len(rhos) > steps.rule.memory:
        raise ValueError(f"{len(rhos)} pairs")
    steps.pairs.clear()
    for i, rho in enumerate(rhos):
        s, y = arrays.pop(f"lbfgs.s.{i}"), arrays.pop(f"lbfgs.y.{i}")
        if {s.shape, y.shape} != {shape} or {s.dtype.name, y.dtype.name} != {trainer.net.dtype}:
            raise ValueError(f"pair {i}")
        steps.pairs.append((to_device(s), to_device(y), rho))
    steps.loss, steps.converged = loss, bool(facts["converged"])
