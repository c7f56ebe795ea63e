"""A recipe as plain data, and back: every name looked up in a fixed table.

What is a user's own code, a function for a schedule or an optimizer of one's own, is stored as
"own" and has to be given again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.persistence.building import refusing
from nnbackend.training.callbacks import EarlyStopping
from nnbackend.training.config import TrainConfig
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.optimizers import OPTIMIZERS, Optimizer
from nnbackend.training.schedules import SCHEDULES, Constant, Schedule

OWN = "own"
PLAIN = (bool, int, float, str, type(None))
# The entries of a recipe that are objects, and the tables in which their kinds are looked up.
TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "momentum_schedule": SCHEDULES,
    "early_stopping": {"early_stopping": EarlyStopping},
}


def describe_config(config: TrainConfig) -> dict[str, Any]:
    """Return a checked recipe as data for JSON.

    Raises: ArgumentError for an option that has no name in a file, as a function for `shuffle`.
    """
    described: dict[str, Any] = {}
    for entry in fields(TrainConfig):
        value, table = getattr(config, entry.name), TABLES.get(entry.name)
        if isinstance(value, Constant):  # what None was turned into
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
    """Return the recipe that was described; `own` has what is the user's own code, by its entry.

    Raises: ArgumentError when `own` lacks something, or has what the description knows itself;
    ModelFileError, KeyError, TypeError or ValueError for data that describes no recipe.
    """
    options: dict[str, Any] = {}
    for entry in fields(TrainConfig):
        value, table = described[entry.name], TABLES.get(entry.name)
        is_own = isinstance(value, dict) and value.get("kind") == OWN
        if is_own != (own.get(entry.name) is not None):
            raise ArgumentError(
                f"{entry.name} must be given again exactly when it is code of your own, which no "
                f"file holds. Received: {entry.name}={own.get(entry.name)!r}, where the run "
                f"{'had one of its own' if is_own else f'knows its {entry.name}'}."
            )
        if is_own:
            value = own[entry.name]
        elif table is not None and value is not None:
            with refusing():
                value = _build_object(value, table)
        options[entry.name] = _from_plain(value)
    return TrainConfig(**options)


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
    """Return a value for JSON; a number of NumPy becomes Python's."""
    plain = value.item() if hasattr(value, "item") else value
    if type(plain) not in PLAIN:
        try:
            plain = float(plain)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                "A run that is to be gone on with has options that are numbers or names. "
                f"Received: {value!r}. Leave it out, or train without checkpoints."
            ) from error
    return str(plain) if plain == math.inf else plain


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_plain(item) for item in value)
    return math.inf if value == "inf" else value  # which JSON does not know
