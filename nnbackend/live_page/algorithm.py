"""The walk through the five steps of backpropagation, on the row and the weight in focus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from nnbackend.errors import ArgumentError, Fault
from nnbackend.live_page.explaining import Focus, Row, explain, inputs_of
from nnbackend.live_page.phases import Phase
from nnbackend.live_page.pictures import Plane, pieces
from nnbackend.live_page.sources import Source
from nnbackend.network.layers import Dropout
from nnbackend.network.network import Network
from nnbackend.training.optimizers import SGD

Command = Mapping[str, Any]
STEPS = 5


class Trained(Protocol):
    """What the walk needs of the controls: the phase, the data, the pictures, and a step."""

    phase: Phase
    source: Source
    pictures: Plane

    def advance(self, most: int) -> int:
        """Run at most `most` steps of training; return their number."""


class Algorithm:
    """The step under way, the row and the weight in focus.

    sub: the step, from 1 to 5; 0 outside the walk.  chosen: the row, or None for the first row of
    the next step of training.
    """

    def __init__(self, controls: Trained) -> None:
        self._controls = controls
        self.sub, self.chosen, self.focus_at = 0, None, Focus(2, 0, 0)
        self.leave()

    def leave(self) -> None:
        """End the walk."""
        self.sub = 0
        self._update: dict[str, Any] | None = None
        self._before: np.ndarray | None = None
        self._row = 0

    def back(self) -> bool:
        """Go back by one of the steps 2 to 4, which changed nothing; return True if it did."""
        if not 1 < self.sub < STEPS:
            return False
        self.sub -= 1
        return True

    def row(self, command: Command) -> None:
        """Explain a row; None for the first row of the next step of training."""
        row, n = command["row"], self._controls.source.data.n_samples
        if row is not None and row >= n:
            raise ArgumentError(Fault("row", f"below {n}", row))
        self.leave()
        self.chosen = row

    def focus(self, command: Command) -> None:
        """Look at one weight closely."""
        _, unit, below, piece = place_of(self._controls.phase.net, command)
        self.focus_at = Focus(command["layer"], unit, below, piece)

    def substep(self, command: Command) -> None:
        """Do the next of the five steps; the fifth updates the weights."""
        if self.sub in (0, STEPS):
            self.leave()
            self.sub = 1
        elif self.sub < STEPS - 1:
            self.sub += 1
        else:
            self._update_weights()

    def _update_weights(self) -> None:
        """Run one step of training, and keep what its explanation needs."""
        controls, phase = self._controls, self._controls.phase
        to_host, net = phase.net.backend.to_host, phase.net
        rows, row = phase.next_rows(), self._explained()
        gradient = net.backprop(inputs_of(phase, controls.source, rows), phase.data.y[rows])
        before = to_host(phase.state.theta)
        controls.advance(1)
        self.sub, self._before, self._row = STEPS, before, row.index
        self._update = {
            "b": len(rows),
            "rule": type(phase.trainer.config.optimizer).__name__.lower(),
            "is_plain": is_plain(phase),
            "lr": phase.learning_rate,
            "dW": [to_host(W) for W in gradient.weights],
            "db": [to_host(b) for b in gradient.biases],
        }

    def facts(self) -> dict[str, Any]:
        """Return the numbers of the five steps, as plain data."""
        row = self._explained()
        found = explain(row, self._controls.pictures, self.focus_at)
        found |= {"sub": self.sub, "follows": self.chosen is None}
        if self._update is not None:
            found["update"] = self._focused_update(row)
        return found

    def _focused_update(self, row: Row) -> dict[str, Any]:
        """Return the update of the weight in focus, and of its bias."""
        assert self._update is not None
        net, at = self._controls.phase.net, self.focus_at
        i = at.layer - 2
        column = at.piece * net.trainable_layers[i].n_out + at.unit
        weights, biases = net.get_parameters()
        return {
            **{name: self._update[name] for name in ("b", "rule", "lr", "is_plain")},
            "w": float(row.W[i][at.input, column]), "bias": float(row.b[i][column]),
            "dw": float(self._update["dW"][i][at.input, column]),
            "db": float(self._update["db"][i][column]),
            "new_w": float(weights[i][at.input, column]), "new_bias": float(biases[i][column]),
        }  # fmt: skip

    def _explained(self) -> Row:
        """Return the row that is explained, with the weights before an update."""
        phase, source = self._controls.phase, self._controls.source
        if self._before is None:
            index = int(phase.next_rows()[0]) if self.chosen is None else self.chosen
            return Row(phase, source, index)
        theta, backend = phase.state.theta, phase.net.backend
        after = backend.to_host(theta)
        backend.to_device(self._before, out=theta)
        try:
            return Row(phase, source, self._row)
        finally:
            backend.to_device(after, out=theta)


def is_plain(phase: Phase) -> bool:
    """Whether an update is w - eta dC/dw: no momentum, adaptive rates, penalties or dropout."""
    config, rule = phase.trainer.config, phase.trainer.config.optimizer
    more = (
        config.l1,
        config.l2,
        config.decay,
        config.clip_norm,
        any(config.norm_limits(phase.net)),
    )
    has_dropout = any(isinstance(la, Dropout) and la.drop_rate for la in phase.net.layers)
    return isinstance(rule, SGD) and not rule.state and not any(more) and not has_dropout


def place_of(net: Network, command: Command) -> tuple[int, int, int, int]:
    """Return (index of the trainable layer, unit, input, piece) of a command.

    Raises: ArgumentError for a place outside the network.
    """
    n, piece = len(net.trainable_layers), command.get("piece") or 0
    if not 2 <= command["layer"] <= n + 1:
        raise ArgumentError(Fault("layer", f"from 2 to {n + 1}", command["layer"]))
    i = command["layer"] - 2
    layer, n_in = net.trainable_layers[i], int(net.weights[i].shape[0])
    for name, value, limit in (
        ("unit", command["unit"], layer.n_out),
        ("input", command["input"], n_in),
        ("piece", piece, pieces(layer)),
    ):
        if value >= limit:
            raise ArgumentError(Fault(name, f"below {limit}", value))
    return i, command["unit"], command["input"], piece
