"""A phase of training: a network with its trainer, under one set of options.

A changed learning rate or batch size begins another phase with the same weights; the moments of
the optimizer are kept where they still mean the same. `Snapshot` saves and restores a phase's
state between two steps, so that the steps after it can be replayed to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnbackend.data.preprocessing import Preprocessing
from nnbackend.devices import get_backend
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.sources import Source
from nnbackend.model.building import SCALES_TARGETS, build_config, build_network, complete
from nnbackend.network.layers import AbstractLayer, Dense, Maxout
from nnbackend.network.network import Network
from nnbackend.training.api import new_trainer
from nnbackend.training.batching import epoch_order
from nnbackend.training.loop import Trainer
from nnbackend.training.step_runner import StepRunner
from nnbackend.training.validating import validate

HISTORY_BYTES, HISTORY_LENGTH = 64_000_000, 400
KEPT_ENDS = 40  # snapshots at each end of the history that are not thinned out


class Phase:
    """A trainer, the options it was built from, and the steps and epochs before it."""

    def __init__(self, trainer: Trainer, options: PageOptions) -> None:
        self.trainer, self.options = trainer, options
        self.net, self.state, self.data = trainer.net, trainer.state, trainer.data
        self.step_before = self.epoch_before = 0
        self.largest = self.net.layout.largest_product(self.state.history.batch_size)
        self._epoch: Iterator[None] | None = None

    @property
    def step(self) -> int:
        """Updates so far, those of earlier phases included."""
        return self.step_before + self.state.step

    @property
    def epoch(self) -> int:
        """Completed epochs, those of earlier phases included."""
        return self.epoch_before + self.state.epoch

    def advance(self, most: int) -> bool:
        """Run at most `most` steps of the epoch; return True if it has ended."""
        runner, state = self.trainer.runner, self.state
        if self._epoch is None:
            self._epoch = runner.run_epoch()
        if isinstance(runner, StepRunner):
            runner.burst = most
        next(self._epoch, None)
        return state.step_in_epoch >= state.steps_per_epoch

    def end_epoch(self) -> dict[str, float]:
        """Begin the next epoch; return the epoch's metrics."""
        state, data = self.state, self.data
        row = {"train_loss": state.mean_loss()}
        if data.validation is not None:
            found = validate(self.trainer, self.trainer.runner)
            row |= {f"valid_{name}": value for name, value in found.items()}
        state.epoch, state.step_in_epoch, self._epoch = state.epoch + 1, 0, None
        state.history.rows.append(row)  # read by the schedule "plateau"
        return row

    def evaluate(self, x: Any, y: np.ndarray, weight: Any = None) -> dict[str, float]:
        """Return the loss and the score of encoded rows at the current weights."""
        data = self.data
        return self.net.evaluate_prepared(
            x, y, weight, data.score, scaler=data.preprocessing.scaler, theta=self.state.weights
        )

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.trainer.runner.learning_rate)

    def next_rows(self) -> np.ndarray:
        """Return the indices of the rows that the next step reads."""
        config, state, rows = self.trainer.config, self.state, np.asarray(self.data.rows)
        size = state.history.batch_size
        if size >= len(rows):
            return rows
        is_over = state.step_in_epoch >= state.steps_per_epoch
        epoch, step = (state.epoch + 1, 0) if is_over else (state.epoch, state.step_in_epoch)
        order = epoch_order(len(rows), config.seed, epoch, config.shuffle)
        batch: np.ndarray = rows[order[step * size :][:size]]
        return batch

    def carry_on(self, old: Phase) -> None:
        """Continue from the weights of another phase of a network of the same shape."""
        self.net.set_parameters(*old.net.get_parameters())
        mine, its = self.state, old.state
        rules = self.trainer.config.optimizer, old.trainer.config.optimizer
        is_same = type(rules[0]) is type(rules[1]) and mine.steps_per_epoch == its.steps_per_epoch
        if is_same and mine.vectors().keys() == its.vectors().keys() and mine.lbfgs is None:
            before = Snapshot.of(old)
            self.step_before, self.epoch_before = old.step_before, old.epoch_before
            replace(before, phase=self).restore()
            mine.history.rows[:] = its.history.rows
        else:
            self.step_before, self.epoch_before = old.step, old.epoch


@dataclass(frozen=True)
class Snapshot:
    """All that the next steps of a phase depend on, as host arrays.

    kind: "step", or "edit" after a weight was set.  theta: (P,).
    """

    phase: Phase
    kind: str
    step: int
    epoch: int
    step_in_epoch: int
    theta: np.ndarray
    vectors: dict[str, np.ndarray]
    sums: np.ndarray
    lbfgs: dict[str, Any] | None

    @classmethod
    def of(cls, phase: Phase, kind: str = "step") -> Snapshot:
        """Return a snapshot of a phase between two steps."""
        state, to_host = phase.state, phase.net.backend.to_host
        vectors = {k: to_host(v) for k, v in state.vectors().items() if k != "best"}
        lbfgs = None if state.lbfgs is None else dict(state.lbfgs.state_dict())
        return cls(
            phase, kind, phase.step, state.epoch, state.step_in_epoch, to_host(state.theta),
            vectors, state.sums.host.copy(), lbfgs,
        )  # fmt: skip

    @property
    def n_bytes(self) -> int:
        """The memory of the arrays."""
        return self.theta.nbytes + sum(v.nbytes for v in self.vectors.values()) + 500

    def restore(self) -> Phase:
        """Put the phase back to this state, and return it."""
        state, backend = self.phase.state, self.phase.net.backend
        backend.to_device(self.theta, out=state.theta)
        own = state.vectors()
        for name, vector in self.vectors.items():
            backend.to_device(vector, out=own[name])
        state.sums.host[...] = self.sums
        if state.lbfgs is not None and self.lbfgs is not None:
            state.lbfgs.load_state_dict(self.lbfgs)
        state.epoch, state.step_in_epoch = self.epoch, self.step_in_epoch
        del state.history.rows[self.epoch :]
        self.phase._epoch = None
        return self.phase


class Snapshots:
    """The snapshots of a session, oldest first, in bounded memory: old ones are thinned out."""

    def __init__(self, most: int = HISTORY_LENGTH, n_bytes: int = HISTORY_BYTES) -> None:
        self.items: list[Snapshot] = []
        self.most, self.n_bytes = most, n_bytes

    def add(self, snapshot: Snapshot) -> None:
        """Append a snapshot."""
        self.items.append(snapshot)
        ends = min(KEPT_ENDS, self.most // 4)
        while len(self.items) > 8 and (
            len(self.items) > self.most or sum(s.n_bytes for s in self.items) > self.n_bytes
        ):
            ends = min(ends, len(self.items) // 4)
            middle = self.items[ends:-ends]
            self.items[ends:-ends] = middle[1::2]

    def before(self, step: int) -> Snapshot:
        """Return the newest snapshot at or before a step, and forget those after it."""
        while len(self.items) > 1 and self.items[-1].step > step:
            self.items.pop()
        return self.items[-1]


def new_phase(options: PageOptions, source: Source, fixed: Network | None = None) -> Phase:
    """Return a phase that has not begun. fixed: a network from Python, whose layers stay.

    Raises: ArgumentError for invalid options; BackendError for an unusable device.
    """
    backend = get_backend(options.settings.device) if fixed is None else fixed.backend
    settings = options.settings
    if fixed is None:
        settings = complete(settings, source.data, backend)
        net = _initialized(build_network(settings, source.data, backend), options.initializer)
    else:
        net = fixed
        settings = replace(settings, monitor="valid_loss" if settings.validation else "train_loss")
    config = replace(build_config(settings), early_stopping=None)
    scales_targets = (
        fixed is None and settings.task == "regression" and net.loss.name in SCALES_TARGETS
        and settings.scale != "none"
    )  # fmt: skip
    trainer = new_trainer(
        net, source.data.x, source.data.y, config,
        validation=float(settings.validation) or None,
        preprocessing=Preprocessing(classes=source.data.classes),
        scale=settings.scale, scale_targets=scales_targets,
    )  # fmt: skip
    return Phase(trainer, options)


def _initialized(net: Network, initializer: str) -> Network:
    """Return the network with other initial weights than its activations' own."""
    if initializer == "auto":
        return net
    layers: list[int | AbstractLayer] = [net.n_in]
    for layer in net.layers:
        if isinstance(layer, Dense):
            layer = Dense(layer.n_out, layer.activation, initializer)
        elif isinstance(layer, Maxout):
            layer = Maxout(layer.n_out, layer.n_pieces, initializer)
        layers.append(layer)
    return Network(layers, net.loss, device=net.backend, dtype=net.dtype, seed=net.seed)
