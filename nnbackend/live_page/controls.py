"""The state behind the page's controls, and what each command does to it.

Used by one thread only. A command that raises leaves the state as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnbackend.errors import ArgumentError, Fault
from nnbackend.live_page.algorithm import Algorithm, place_of
from nnbackend.live_page.changes import Changes
from nnbackend.live_page.curves import Curve
from nnbackend.live_page.options import NEW_WEIGHTS, STRUCTURE, PageOptions
from nnbackend.live_page.phases import Phase, Snapshot, Snapshots, new_phase
from nnbackend.live_page.pictures import Plane
from nnbackend.live_page.recorder import Recorder
from nnbackend.live_page.sources import Source, telling_features, toy
from nnbackend.network.network import Network

SNAPSHOT_SECONDS = 0.25  # of training between two snapshots
Command = Mapping[str, Any]


class Controls:
    """A network with its trainer, its data and its history.

    setup_number: grows with every change that is not one of weights.
    devices: those that the page may use.  fixed: a network from Python, whose layers stay.
    is_watched: whether something else trains the network.
    """

    def __init__(
        self,
        source: Source,
        options: PageOptions,
        devices: tuple[str, ...] = (),
        fixed: Network | None = None,
    ) -> None:
        self.devices, self.fixed, self.is_watched = devices, fixed, False
        self.setup_number = 0
        self.features: tuple[int, int] = (0, 1)
        self._begin(options, source)

    def _begin(self, options: PageOptions, source: Source) -> None:
        """Start again with new weights; on an error nothing is changed."""
        phase = new_phase(options, source, self.fixed)
        if source.data is not getattr(getattr(self, "source", None), "data", None):
            self.features = telling_features(source.data)
        pictures = Plane(phase, source, self.features)
        self.options, self.source, self.phase, self.pictures = options, source, phase, pictures
        self.snapshots, self.curve, self.recorder = Snapshots(), Curve(), Recorder()
        self.changes = Changes()
        self.snapshots.add(Snapshot.of(phase))
        self.algorithm = Algorithm(self)
        self._trained = 0.0  # seconds since the last snapshot
        self.setup_number += 1
        self._record()

    # ---- training ---------------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether the run has reached its last epoch."""
        return self.phase.state.epoch >= self.options.settings.epochs

    def advance(self, most: int, is_replay: bool = False) -> int:
        """Run at most `most` steps, within the epoch; return their number.

        Raises: ArithmeticError when the loss is no longer finite, but not in a replay.
        """
        begin, before = time.perf_counter(), self.phase.step
        if self.phase.advance(most):
            row = self.phase.end_epoch()
            score = self.phase.data.score.name
            point = {"epoch": float(self.phase.epoch), "step": float(self.phase.step),
                     "train_loss": row["train_loss"]}  # fmt: skip
            if f"valid_{score}" in row:
                point |= {"valid_loss": row["valid_loss"], "valid_score": row[f"valid_{score}"]}
            self.curve.add(point)
            if not (is_replay or math.isfinite(row["train_loss"])):
                raise ArithmeticError(
                    "The loss is no longer a finite number. Go back, or choose a smaller learning "
                    "rate and reset."
                )
            self._record()
        self._trained += time.perf_counter() - begin
        if self._trained > SNAPSHOT_SECONDS:
            self._snapshot()
        return self.phase.step - before

    def _snapshot(self, kind: str = "step") -> None:
        self.snapshots.add(Snapshot.of(self.phase, kind))
        self._trained = 0.0

    def _record(self) -> None:
        curve = self.curve.rows[-1] if self.curve.rows else {}
        self.recorder.add(self.phase.epoch, self.phase.step, self.phase.state, curve)

    def step(self, command: Command) -> None:
        """Run one step."""
        self.algorithm.leave()
        self.advance(1)

    def epoch(self, command: Command) -> None:
        """Run to the end of the epoch."""
        self.algorithm.leave()
        epoch = self.phase.epoch
        while self.phase.epoch == epoch:
            self.advance(1 << 30)

    def back(self, command: Command) -> None:
        """Undo the last edit, or go back by one step."""
        last = self.snapshots.items[-1]
        if self.algorithm.back():
            return
        if last.kind == "edit" and last.step == self.phase.step:
            self.snapshots.items.pop()
            self.changes.undo()
            self._restore(self.snapshots.items[-1], last.step)
        elif self.phase.step > self.snapshots.items[0].step:
            self.goto({"step": self.phase.step - 1})
            self.algorithm.leave()

    def goto(self, command: Command) -> None:
        """Go back to a step: restore the newest snapshot before it, and replay the steps."""
        step = command["step"]
        first = self.snapshots.items[0].step
        if not first <= step <= self.phase.step:
            raise ArgumentError(Fault("step", f"from {first} to {self.phase.step}", step))
        self._restore(self.snapshots.before(step), step)

    def _restore(self, snapshot: Snapshot, step: int) -> None:
        """Restore a snapshot and replay up to a step; the same bits."""
        self.algorithm.leave()
        previous = self.phase
        self.phase = snapshot.restore()
        self.changes.cut(step)
        self.curve.cut(snapshot.step)
        self.recorder.cut(snapshot.step)
        if self.phase is not previous:
            self.options = self.phase.options
            self.pictures = Plane(self.phase, self.source, self.features)
            self.setup_number += 1
        items = list(self.snapshots.items)
        while self.phase.step < step:
            self.advance(step - self.phase.step, is_replay=True)
        self.snapshots.items[:] = items

    def reset(self, command: Command) -> None:
        """Draw the initial weights again, from the same seed."""
        if self.fixed is not None:
            first = self.snapshots.items[0]
            del self.snapshots.items[1:]
            self.changes = Changes()
            self._restore(first, first.step)
            self.curve, self.recorder = Curve(), Recorder()
            self._record()
        else:
            self._begin(self.options, self.source)

    # ---- what is trained --------------------------------------------------------------------

    def set(self, command: Command) -> None:
        """Set options; those of the update rule keep the weights."""
        given = command["options"]
        options = self.options.changed(given, self.devices)
        if self.fixed is not None and (names := [n for n in given if n in STRUCTURE]):
            raise ArgumentError(Fault(names[0], "as it is: the network is from Python", "another"))
        if any(NEW_WEIGHTS[name] for name in given) and self.fixed is None:
            self._begin(options, self.source)
            return
        phase = self._carried_on(options)
        self.algorithm.leave()
        before = self.options.texts()
        self.changes.set(self.phase.epoch, self.phase.step, before, options.texts())
        self.options, self.phase = options, phase
        self.pictures = Plane(phase, self.source, self.features)
        self._snapshot()
        self.setup_number += 1

    def _carried_on(self, options: PageOptions) -> Phase:
        """Return a phase with other options and the current weights."""
        before = self.phase.net.get_parameters()
        phase = new_phase(options, self.source, self.fixed)
        self.phase.net.set_parameters(*before)
        phase.carry_on(self.phase)
        return phase

    def data(self, command: Command) -> None:
        """Use a toy set."""
        source = toy(command["set"], command["rows"], command["noise"], command["seed"])
        self.use(source)

    def use(self, source: Source) -> None:
        """Use other data; what depends on the target is chosen again."""
        if self.fixed is not None:
            raise ArgumentError("The data of a network from Python stay. Received: other data.")
        settings = self.options.settings
        scale = "none" if source.kind == "toy" else "standard"
        free = replace(settings, loss=None, output_activation=None, task=None, scale=scale)
        same = self.source.data.task == source.data.task and self.source.kind == source.kind
        options = replace(self.options, settings=settings if same else free)
        self._begin(options, source)

    def columns(self, command: Command) -> None:
        """Use some of the columns of a file; none for all."""
        self.use(self.source.select(tuple(command["columns"])))

    def plane(self, command: Command) -> None:
        """Draw the plane of two features."""
        n, features = self.source.data.n_features, command["features"]
        if len(features) != 2 or len(set(features)) != 2 or max(features) >= n:
            raise ArgumentError(Fault("features", f"two columns from 0 to {n - 1}", features))
        self.features = (features[0], features[1])
        self.pictures = Plane(self.phase, self.source, self.features)
        self.setup_number += 1

    def weight(self, command: Command) -> None:
        """Set one weight."""
        i, j, k, piece = place_of(self.phase.net, command)
        weights, biases = self.phase.net.get_parameters()
        width = self.phase.net.trainable_layers[i].n_out
        self._edit(weights[i], (k, piece * width + j), command, weights, biases)

    def bias(self, command: Command) -> None:
        """Set one bias."""
        i, j, _, piece = place_of(self.phase.net, {"input": 0, **command})
        weights, biases = self.phase.net.get_parameters()
        width = self.phase.net.trainable_layers[i].n_out
        self._edit(biases[i], (piece * width + j,), command, weights, biases)

    def _edit(self, array: Any, place: Any, command: Command, weights: Any, biases: Any) -> None:
        if self.snapshots.items[-1].step != self.phase.step:
            self._snapshot()
        array[place] = command["value"]
        self.phase.net.set_parameters(weights, biases)
        self._snapshot("edit")
        self.changes.edit(self.phase.epoch, self.phase.step, _edited(command))
        if self.algorithm.sub == 5:
            self.algorithm.leave()


def _edited(command: Command) -> str:
    """Return an edited weight or bias in words, in the order of the slides."""
    unit, layer = command["unit"] + 1, command["layer"]
    piece = f" of piece {command['piece'] + 1}" if command.get("piece") else ""
    symbol = f"b^{layer}_{unit}"
    if "input" in command:  # a weight
        symbol = f"w^{layer}_{{{unit},{command['input'] + 1}}}"
    return f"{symbol}{piece} = {command['value']:g}, edited"
