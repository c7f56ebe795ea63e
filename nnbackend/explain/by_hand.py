"""A network, its sample and its target, written by hand in a small TOML or JSON file.

    x = [0.05, 0.10]                      # the sample
    y = [0.90]                            # its target
    w2 = [[0.15, 0.20], [0.25, 0.30]]     # w2[j][k]: to unit j of layer 2 from unit k of layer 1
    b2 = [0.35, 0.35]
    w3 = [[0.40, 0.45]]
    b3 = [0.60]
    activation = "sigmoid"                # of all layers, or a list with one for each after layer 1
    loss = "quadratic"
    learning_rate = 0.5

The last three may be left out: sigmoid, quadratic and 0.1. Layer 1 is the input.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.network.activations import get_activation
from nnbackend.network.layers import AbstractLayer, Dense
from nnbackend.network.losses import get_loss
from nnbackend.network.network import Network
from nnbackend.options import raise_all

ETA = 0.1
OTHERS = ("x", "y", "activation", "loss", "learning_rate")


@dataclass(frozen=True)
class HandWritten:
    """A network written by hand: with a sample x (1, n_in), its target y (1, n_out), and eta."""

    net: Network
    x: np.ndarray
    y: np.ndarray
    learning_rate: float


def read_network(path: Path, sizes: Sequence[int] | None = None, device: Any = None) -> HandWritten:
    """Read a file in the format above; sizes: the units of every layer, the input first.

    Raises: ArgumentError with all faults of the file at once.
    """
    reader = _Reader(_load(path), str(path))
    units = reader.sizes() if sizes is None else list(sizes)
    found = reader.read(units)
    raise_all(reader.errors)
    layers: list[int | AbstractLayer] = [units[0]]
    layers += [Dense(n, phi) for n, phi in zip(units[1:], found["activation"], strict=True)]
    net = Network(layers, found["loss"], dtype="float64", device=device)
    net.set_parameters([W.T for W in found["w"]], found["b"])
    return HandWritten(net, found["x"][None], found["y"][None], found["learning_rate"])


def _load(path: Path) -> dict[str, Any]:
    """Read the file as JSON if its name ends with .json, else as TOML."""
    is_json = path.suffix.lower() == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        stored = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise ArgumentError(f"--weights must be a readable file. Received: {error}.") from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "TOML"
        raise ArgumentError(f"{path}: the file must be {kind}. Received: {error}.") from error
    if not isinstance(stored, dict):
        raise ArgumentError(f"{path}: the file must be an object. Received: {stored!r}.")
    return stored


class _Reader:
    """Reads the keys of a file and collects the errors."""

    def __init__(self, stored: dict[str, Any], where: str) -> None:
        self.stored, self.where = stored, where
        self.errors: list[ArgumentError] = []

    def sizes(self) -> list[int]:
        """Return the units of each layer: the length of x, and the rows of w2, w3, ..."""
        levels = [int(key[1:]) for key in self.stored if re.fullmatch(r"w([2-9]|[1-9]\d)", key)]
        if not levels:
            raise ArgumentError(
                f"{self.where}: the file must have the weights w2, w3, ... Received: none."
            )
        names = ["x", *(f"w{level}" for level in range(2, max(levels) + 1))]
        lists = [self.stored.get(name) for name in names]
        return [len(found) if isinstance(found, list) and found else 1 for found in lists]

    def read(self, sizes: list[int]) -> dict[str, Any]:
        """Return all values by name."""
        levels = range(2, len(sizes) + 1)
        known = [*OTHERS, *(f"{letter}{level}" for level in levels for letter in "wb")]
        for key in self.stored:
            if key not in known:
                shape = ",".join(map(str, sizes))
                self._add(f"unknown key {key!r} for layers {shape}. Known: {', '.join(known)}")
        return {
            "x": self._array("x", (sizes[0],)),
            "y": self._array("y", (sizes[-1],)),
            "w": [self._array(f"w{v}", (sizes[v - 1], sizes[v - 2])) for v in levels],
            "b": [self._array(f"b{v}", (sizes[v - 1],)) for v in levels],
            "activation": self._activations(len(sizes) - 1),
            "loss": self._named("loss", self.stored.get("loss", "quadratic"), get_loss),
            "learning_rate": self._rate(),
        }

    def _add(self, message: str) -> None:
        end = "" if message.endswith(("?", ".")) else "."
        self.errors.append(ArgumentError(f"{self.where}: {message}{end}"))

    def _array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of a shape; zeros if it is invalid."""
        lists = "a list" if len(shape) == 1 else f"a list of {_count(shape[0], 'list')}"
        expected = f"{key} must be {lists} of {_count(shape[-1], 'number')}"
        if key not in self.stored:
            self._add(f"{expected}. Received: none")
            return np.zeros(shape)
        value = self.stored[key]
        if _shape(value) != shape:
            self._add(f"{expected}. Received: {_describe(value)}")
            return np.zeros(shape)
        return np.array(value, np.float64)

    def _activations(self, n: int) -> list[Any]:
        value = self.stored.get("activation", "sigmoid")
        names = value if isinstance(value, list) else [value] * n
        if len(names) != n:
            self._add(
                f"activation must be one name, or {n} names, one for each layer after the input. "
                f"Received: {value!r}"
            )
        return [self._named("activation", name, get_activation) for name in names]

    def _named(self, key: str, name: Any, get: Any) -> Any:
        try:
            if not isinstance(name, str):
                raise ArgumentError(f"{key} must be a name. Received: {name!r}.")
            return get(name)
        except ArgumentError as error:
            self._add(str(error))
            return None

    def _rate(self) -> float:
        value = self.stored.get("learning_rate", ETA)
        if not _is_number(value) or value <= 0:
            self._add(f"learning_rate must be a number above 0. Received: {value!r}")
            return ETA
        return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of a vector or matrix of finite numbers; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    if all(map(_is_number, value)):
        return (len(value),)
    if not all(isinstance(row, list) and row and all(map(_is_number, row)) for row in value):
        return None
    widths = {len(row) for row in value}
    return (len(value), *widths) if len(widths) == 1 else None


def _describe(value: Any) -> str:
    shape = _shape(value)
    if shape is None:
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if len(shape) == 1:
        return f"a list of {shape[0]}"
    return f"a list of {_count(shape[0], 'list')} of {shape[1]}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
