"""Runs of the numba backend for tests: random networks, and the programs of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend_numba import partitioning, program
from nnbackend_numba.backend import NumbaBackend
from nnbackend_numba.program import Program

TOLERANCE = {"float32": 2e-4, "float64": 1e-11}  # relative, after some steps
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "leaky_relu", "elu", "identity")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta")


def partition_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partition steps of any size among several workers, also by inputs."""
    monkeypatch.setattr(program, "WORK_PER_WORKER", 1)
    monkeypatch.setattr(program, "MIN_PARALLEL_WORK", 1)
    monkeypatch.setattr(partitioning, "MIN_INPUTS_PER_WORKER", 2)


def backend_of(workers: int, precision: str = "float32") -> NumbaBackend:
    """Return a backend with a number of threads."""
    backend = NumbaBackend(precision)
    backend._threads = workers
    return backend


def recorded_programs(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """Return a list that receives every program made from now on."""
    made: list[Program] = []
    original = Program.__init__

    def noting(self: Program, *args: Any) -> None:
        original(self, *args)
        made.append(self)

    monkeypatch.setattr(Program, "__init__", noting)
    return made


def random_case(
    rng: np.random.Generator, activations: Sequence[str] = ACTIVATIONS
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Draw layers, options of the network and options of training."""
    layers: list[Any] = [int(rng.integers(1, 40))]
    for _ in range(rng.integers(0, 4)):
        width = int(rng.integers(1, 50))
        kind = rng.choice(["dense", "dense", "dense", "dropout", "maxout"])
        if kind == "dense":
            layers.append(nn.Dense(width, str(rng.choice(activations))))
        elif kind == "maxout":
            layers.append(nn.Maxout(width, int(rng.integers(2, 4))))
        else:
            layers.append(nn.Dropout(0.3))
    classes = int(rng.integers(2, 6))
    loss = str(rng.choice(["cross_entropy", "quadratic", "huber"]))
    last = "softmax" if loss == "cross_entropy" else str(rng.choice(activations))
    layers.append(nn.Dense(classes, last))
    options: dict[str, Any] = {
        "optimizer": str(rng.choice(OPTIMIZERS)),
        "batch_size": int(rng.integers(1, 20)),
        "scale": str(rng.choice(["standard", "robust"])) if rng.random() < 0.5 else None,
    }
    for name, value in (
        *(("l1", 1e-4), ("l2", 1e-3), ("weight_decay", 0.01), ("clip_norm", 0.5)),
        *(("max_norm", 1.0), ("ema", 0.9)),
    ):
        if rng.random() < 0.3:
            options[name] = value
    return layers, {"loss": loss}, options


def random_data(
    rng: np.random.Generator, layers: Any, network: Any, options: Any, kind: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of a dtype, if the case scales them, and targets."""
    x = (50 * rng.standard_normal((45, layers[0])) + 100).astype(kind)
    if options["scale"] is None:
        x = (x / 100).astype(np.float32)
    labels = rng.integers(0, layers[-1].n_out, 45)
    if network["loss"] == "cross_entropy":
        return x, labels
    return x, rng.standard_normal((45, layers[-1].n_out))
