"""Conversion of a TrainConfig to plain data and back, with every name looked up in a fixed table.

Custom code, such as a function for a schedule or a custom optimizer, is stored as "own" and must be
passed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.persistence.building import as_model_file_error
from nnbackend.training.config import TrainConfig
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.optimizers import OPTIMIZERS, Optimizer
from nnbackend.training.schedules import SCHEDULES, Constant, Schedule

OWN = "own"
# The options that every checkpoint has.
OLDEST = {
    *("optimizer", "epochs", "batch_size", "shuffle", "l1", "l2", "weight_decay", "max_norm"),
    *("clip_norm", "ema", "schedule", "momentum_schedule", "early_stopping", "seed"),
    "l2_per_batch",
}
PLAIN = (bool, int, float, str, type(None))
# The options that are objects, and the tables in which their kinds are looked up.
TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "momentum_schedule": SCHEDULES,
    "early_stopping": {"early_stopping": EarlyStopping},
}


def describe_config(config: TrainConfig) -> dict[str, Any]:
    """Return a validated config as data for JSON.

    Raises: ArgumentError for an option that cannot be stored, such as a function for `shuffle`.
    """
    described: dict[str, Any] = {}
    for entry in fields(TrainConfig):
        value, table = getattr(config, entry.name), TABLES.get(entry.name)
        if isinstance(value, Constant):  # validation replaces None by it
            value = None
        if isinstance(value, (tuple, list)):
            limits = [_plain(item) for item in value]
            described[entry.name] = limits if any(limits) else None
        elif table is None or value is None:
            described[entry.name] = _plain(value)
        else:
            described[entry.name] = _describe_object(value, table)
    return described


def build_config(described: Mapping[str, Any], own: Mapping[str, Any]) -> TrainConfig:
    """Build a config from the result of `describe_config`; `own` has the custom options by name.

    Raises: ArgumentError when `own` lacks a custom option, or has one that is stored;
    ModelFileError, KeyError, TypeError or ValueError for invalid data.
    """
    options: dict[str, Any] = {}
    described = with_newer_options(described)
    for entry in fields(TrainConfig):
        value, table = described[entry.name], TABLES.get(entry.name)
        is_own = isinstance(value, dict) and value.get("kind") == OWN
        if is_own != (own.get(entry.name) is not None):
            raise ArgumentError(
                f"{entry.name} must be passed again if it is custom code, which a checkpoint does "
                f"not hold, and only then. Received: {entry.name}={own.get(entry.name)!r} for a "
                f"run {'with custom code' if is_own else f'that stores its {entry.name}'}."
            )
        if is_own:
            value = own[entry.name]
        elif table is not None and value is not None:
            with as_model_file_error():
                value = _build_object(value, table)
        options[entry.name] = _from_plain(value)
    return TrainConfig(**options)


def with_newer_options(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config with the defaults of the options that were added after it."""
    defaults = describe_config(TrainConfig())
    return {k: v for k, v in defaults.items() if k not in OLDEST} | dict(described)


def _describe_object(value: Any, table: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    kind = next((name for name, made in table.items() if made is type(value)), None)
    if kind is None:
        return {"kind": OWN}
    described: dict[str, Any] = {"kind": kind}
    for entry in fields(value):
        item = getattr(value, entry.name)
        described[entry.name] = (
            _describe_object(item, SCHEDULES) if isinstance(item, Schedule) else _plain(item)
        )
        if described[entry.name] == {"kind": OWN}:
            return {"kind": OWN}
    return described


def _build_object(described: Any, table: Mapping[str, Callable[..., Any]]) -> Any:
    if not isinstance(described, dict) or described.get("kind") not in table:
        raise ValueError(f"no known kind in {described!r}")
    options = {
        name: _build_object(item, SCHEDULES) if isinstance(item, dict) else _from_plain(item)
        for name, item in described.items()
        if name != "kind"
    }
    built = table[described["kind"]](**options)
    assert isinstance(built, (Optimizer, LBFGS, Schedule, EarlyStopping))
    return built


def _plain(value: Any) -> Any:
    """Return a value for JSON; NumPy scalars become Python numbers."""
    plain = value.item() if hasattr(value, "item") else value
    if type(plain) not in PLAIN:
        try:
            plain = float(plain)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                "The options of a run with checkpoints must be numbers or names. "
                f"Received: {value!r}. Omit it, or train without checkpoints."
            ) from error
    return str(plain) if plain == math.inf else plain


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_plain(item) for item in value)
    return math.inf if value == "inf" else value  # JSON has no infinity
