"""Whole training runs: a hundred steps of every optimizer end where the reference ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.model.model import Model
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.network import Network
from nnbackend.testing.error_bounds import TOLERANCE
from nnbackend.testing.kit import MOST_DRAWS, FailureReport, Suite
from nnbackend.testing.reference import ReferenceBackend
from nnbackend.training.api import train
from nnbackend.training.optimizers import OPTIMIZERS, SGD, Optimizer

ROWS, N_IN, CLASSES = 60, 7, 3
# Relative to the sum of absolute terms: |first theta| and all |changes|.
AFTER_100_STEPS = {"float64": 1e-11, "float32": 1e-4}
# The reference must stay this far from kinks, because rounding errors grow.
NEAR_A_JUMP = {"float64": 1e-10, "float32": 1e-5}

Seed: TypeAlias = int | tuple[int, ...]


@dataclass(frozen=True)
class TrainingCase:
    """A training run: an optimizer, options of `train`, with or without dropout."""

    optimizer: Any
    dropout: bool = False
    options: dict[str, Any] = field(default_factory=dict)


_ADAM = OPTIMIZERS["adam"]()
CASES: dict[str, TrainingCase] = {
    name: TrainingCase(rule, dropout=True)
    for name, make in OPTIMIZERS.items()
    if isinstance(rule := make(), Optimizer)
} | {
    "momentum": TrainingCase(SGD(0.05, momentum=0.9), dropout=True),
    "nesterov": TrainingCase(SGD(0.05, momentum=0.9, nesterov=True), dropout=True),
    "penalty and clipping": TrainingCase(SGD(0.1), options={"l1": 1e-3, "clip_norm": 0.3}),
    "penalty and averaging": TrainingCase(_ADAM, options={"l2": 0.1, "ema": 0.95}),
    "max_norm, no shuffling": TrainingCase(SGD(0.1), options={"max_norm": 0.8, "shuffle": False}),
    "decay and schedules": TrainingCase(
        SGD(0.1, momentum=0.5),
        options={
            "weight_decay": 0.1,
            "schedule": "cosine",
            "momentum_schedule": lambda step: 0.5 + 0.3 / step,
        },
    ),
    "all rows, weighted and scaled": TrainingCase(
        _ADAM,
        options={"batch_size": None, "epochs": 100, "sample_weight": True, "scale": "standard"},
    ),
}


class TrainingConformance(Suite):
    """A hundred steps against the same training on the reference in float64."""

    @pytest.mark.parametrize("case", list(CASES))
    def test_100_steps(self, backend: Backend, dtype: str, case: str) -> None:
        wanted = reference_run(case, dtype, self.seed)
        net, losses = run(case, backend, dtype, dtype, wanted.seed)
        report = FailureReport("train", f"{case}, 100 steps, {net!r}, {dtype}", self.seed)
        tolerance = AFTER_100_STEPS[dtype]
        report.close("train_loss of the epochs", losses, wanted.losses, tolerance)
        theta = backend.to_host(net.theta)
        report.within("theta", theta, wanted.theta, tolerance * wanted.terms)

    def test_lbfgs(self, backend: Backend, dtype: str) -> None:
        # Its line search compares losses, so only the descent can be compared.
        _, losses = _train(_network(backend, dtype, False), dtype, "lbfgs", {"epochs": 15})
        reference = _network(ReferenceBackend(), dtype, False)
        _, wanted = _train(reference, dtype, "lbfgs", {"epochs": 15})
        report = FailureReport("train", f"lbfgs, 15 iterations, {dtype}", self.seed)
        report.close("train_loss of the first 3", losses[:3], wanted[:3], 1e-3)
        if not losses[-1] < 0.1 * losses[0]:
            report.fail(f"lbfgs did not minimise the loss: {losses}")

    def test_one_seed_gives_one_result(self, backend: Backend, dtype: str) -> None:
        first, second = (
            run("adam", backend, dtype, dtype, self.seed, epochs=3)[0] for _ in range(2)
        )
        report = FailureReport(
            "train", f"adam with dropout, twice from one seed, {dtype}", self.seed
        )
        report.alike(
            "theta of the second run", backend.to_host(second.theta),
            backend.to_host(first.theta).astype(np.float64), TOLERANCE[dtype],
        )  # fmt: skip

    def test_rows_already_on_the_device(self, backend: Backend, dtype: str) -> None:
        x, y, _ = data(dtype, self.seed)
        host, device = (_network(backend, dtype, False) for _ in range(2))
        train(host, x, y, epochs=3, batch_size=16)
        train(device, backend.to_device(x), y, epochs=3, batch_size=16)
        report = FailureReport("train", f"x on the device instead of the host, {dtype}", self.seed)
        report.alike(
            "theta", backend.to_host(device.theta),
            backend.to_host(host.theta).astype(np.float64), TOLERANCE[dtype],
        )  # fmt: skip

    def test_a_device_split(self, backend: Backend, dtype: str) -> None:
        x, y, _ = data(dtype, self.seed)
        figures = []
        for given in (x, backend.to_device(x)):
            net = _network(backend, dtype, False)
            figures.append(train(net, given, y, epochs=2, validation=0.25)["valid_loss"])
        report = FailureReport("train", f"validation=0.25 with x on the device, {dtype}", self.seed)
        report.alike("valid_loss", np.array(figures[1]), np.array(figures[0]), 1e-5)


class WatchedReference(ReferenceBackend):
    """The reference, which sums all changes of the parameters and records the distance to kinks.

    Where the pieces of a maxout unit are equal, or a weight under l1 is 0, the gradient is not
    continuous: after a rounding error two correct runs diverge.
    """

    def __init__(self) -> None:
        self.terms: Any = 0.0  # |first theta| + the sum of all |changes|
        self.nearest = np.inf  # relative to the largest number beside it
        self._last: Any = 0.0

    def maxout_forward(self, z: Any, a: Any, which: Any) -> None:
        super().maxout_forward(z, a, which)
        pieces = np.sort(z.reshape(len(z), -1, a.shape[1]), axis=1)
        self._note(pieces[:, -1] - pieces[:, -2], z)

    def add_penalty(self, weights, gradient, l1, l2, rows, totals):  # type: ignore
        super().add_penalty(weights, gradient, l1, l2, rows, totals)
        if l1:
            self._note(np.abs(weights), weights)

    def optimizer_step(self, rule, theta, *rest):  # type: ignore
        self.read(theta)
        super().optimizer_step(rule, theta, *rest)
        self.read(theta)

    def read(self, theta: Any) -> None:
        """Add the changes since the last call."""
        self.terms = self.terms + np.abs(theta - self._last)
        self._last = theta.copy()

    def _note(self, distance: Any, beside: Any) -> None:
        self.nearest = min(self.nearest, float(distance.min() / np.abs(beside).max()))


@dataclass(frozen=True)
class Wanted:
    """The reference's result: theta, the absolute terms of each element, and the losses.

    seed: of data whose run meets no kink.
    """

    theta: np.ndarray
    terms: np.ndarray
    losses: np.ndarray
    seed: tuple[int, ...]


def run(
    name: str, backend: Backend, dtype: str, rounded: str, seed: Seed, **options: Any
) -> tuple[Network, np.ndarray]:
    """Run a case in `dtype`, from data and weights rounded to `rounded`."""
    net = _network(backend, dtype, CASES[name].dropout)
    start = _network(ReferenceBackend(), rounded, CASES[name].dropout)
    net.set_parameters(*start.get_parameters())
    x, y, _ = data(rounded, seed)
    given = _options(name, rounded, seed) | options
    model = Model(net, scale=given.pop("scale", None))
    history = model.fit(x.astype(dtype), y, **given)
    return net, np.array(history["train_loss"])


@cache
def reference_run(name: str, rounded: str, seed: int) -> Wanted:
    """Run a case on the reference in float64, with the first data whose run meets no kink."""
    for attempt in range(MOST_DRAWS):
        reference, drawn = WatchedReference(), (seed, attempt)
        net, losses = run(name, reference, "float64", rounded, drawn)
        reference.read(net.theta)
        if reference.nearest > NEAR_A_JUMP[rounded]:
            return Wanted(net.theta, reference.terms, losses, drawn)
    raise AssertionError(f"{name}: all {MOST_DRAWS} runs pass near a discontinuity, seed {seed}")


@cache
def data(dtype: str, seed: Seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, labels and weights that a small network can learn."""
    rng = np.random.default_rng([*np.atleast_1d(seed), 1])
    x = rng.standard_normal((ROWS, N_IN)).astype(dtype)
    y = (x @ rng.standard_normal((N_IN, CLASSES))).argmax(axis=1)
    return x, y, (rng.random(ROWS) + 0.5).astype(dtype)


def _network(backend: Backend, dtype: str, dropout: bool) -> Network:
    middle = [Dropout(0.3)] if dropout else []
    layers: list[int | AbstractLayer] = [
        N_IN,
        Dense(9, "tanh"),
        *middle,
        Maxout(5),
        Dense(CLASSES, "softmax"),
    ]
    return Network(layers, "cross_entropy", device=backend, dtype=dtype, seed=3)


def _options(name: str, rounded: str, seed: Seed) -> dict[str, Any]:
    """Return the options of `train` for a case."""
    options = {"epochs": 25, "batch_size": 16, "seed": 5, **CASES[name].options}
    if options.get("sample_weight"):
        options["sample_weight"] = data(rounded, seed)[2]
    return options | {"optimizer": CASES[name].optimizer}


def _train(
    net: Network, dtype: str, optimizer: str, options: dict[str, Any]
) -> tuple[Network, np.ndarray]:
    x, y, _ = data(dtype, 0)
    return net, np.array(train(net, x, y, optimizer=optimizer, **options)["train_loss"])
