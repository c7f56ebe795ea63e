"""A page that watches a run: one under way in this process, or a run folder that another writes.

It shows what the live page shows, and explains any row; it changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnbackend.config import Settings
from nnbackend.errors import ArgumentError
from nnbackend.live_page.algorithm import Algorithm
from nnbackend.live_page.changes import Changes
from nnbackend.live_page.controls import Controls
from nnbackend.live_page.curves import Curve
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.phases import Phase, Snapshot, Snapshots
from nnbackend.live_page.pictures import Plane
from nnbackend.live_page.recorder import Recorder
from nnbackend.live_page.session import Outlet, Session
from nnbackend.live_page.sources import Source, telling_features
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.loop import Trainer
from nnbackend.training.run import Run

logger = logging.getLogger("nnbackend")

ALLOWED = ("row", "focus", "plane")
POLL_SECONDS = 0.5
WATCH_SECONDS = 0.1  # between two frames of a run under way, which should not be slowed
Weights = tuple[Sequence[Any], Sequence[Any]]  # those of `Network.get_parameters`


class WatchedControls(Controls):
    """The controls of a run that something else trains."""

    def __init__(self, trainer: Trainer, source: Source, settings: Settings) -> None:
        self.devices, self.fixed, self.setup_number = (), trainer.net, 1
        self.is_watched = True
        self.options, self.source = PageOptions(settings), source
        self.phase = Phase(trainer, self.options)
        self.features = telling_features(source.data)
        self.pictures = Plane(self.phase, source, self.features)
        self.snapshots, self.curve, self.recorder = Snapshots(), Curve(), Recorder()
        self.changes = Changes()
        self.snapshots.add(Snapshot.of(self.phase))
        self.algorithm = Algorithm(self)

    def add(self, row: Row, epoch: int) -> None:
        """Add an epoch's metrics to the curve."""
        score = row.get(f"valid_{self.phase.data.score.name}")
        point = {"epoch": float(epoch), "step": float(epoch * self.phase.state.steps_per_epoch)}
        point |= {name: row[name] for name in ("train_loss", "valid_loss") if name in row}
        self.curve.add(point if score is None else point | {"valid_score": score})


class WatchSession(Session):
    """A session whose commands only look.

    poll: returns True if there is something new to show; called by the session's thread.
    """

    def __init__(
        self,
        controls: WatchedControls,
        poll: Callable[[], bool] = lambda: False,
        outlet: Outlet | None = None,
    ) -> None:
        self._set_up(controls, outlet)
        self._poll = poll

    def obey(self, command: Mapping[str, Any]) -> None:
        """Carry out a command. Raises: ArgumentError for one that would change the run."""
        if command["do"] not in ALLOWED:
            raise ArgumentError(
                f"This page watches a run. Received: {command['do']}. Use nnbackend live DATA to "
                "train on the page."
            )
        super().obey(command)

    def tick(self, is_forced: bool = False) -> None:
        """Carry out the commands that wait, and send a frame if one is due; never raises."""
        while not self._commands.empty():
            self._serve(0.0)
        if is_forced or time.perf_counter() - self._last_frame >= WATCH_SECONDS:
            try:
                self._publish(is_forced)
            except Exception as error:  # the page must not end the run that it shows
                self.outlet = None
                logger.warning("the live page shows no more of the run: %r", error)

    def _loop(self) -> None:
        self._run_safely(lambda: self._publish(is_forced=True))
        while not self._closed.is_set():
            self._serve(POLL_SECONDS)
            if self._commands.empty() and self._poll():
                self._run_safely(lambda: self._publish(is_forced=True))


class LiveView(Callback):
    """A callback that shows the run in its own process; its thread makes the frames."""

    def __init__(self, session: WatchSession) -> None:
        self.session = session

    def on_train_begin(self, trainer: Run) -> None:
        self.session.is_running = True
        for row in trainer.state.history:  # of a resumed run
            self._add(row)
        self.session.tick(is_forced=True)

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        self.session.tick()

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        self._add(row)
        self.session.tick()
        return None

    def on_train_end(self, trainer: Run) -> None:
        self.session.is_running = False
        self.session.tick(is_forced=True)

    def _add(self, row: Row) -> None:
        controls = self.session.controls
        assert isinstance(controls, WatchedControls)
        controls.add(row, int(row["epoch"]))


class RunReader:
    """Follows the files of a run folder, and puts its newest weights into the controls' network.

    read_history: returns the rows so far.  read_weights: returns the weights, or None if there are
    none.  stamps: returns values that differ when a file has changed.
    """

    def __init__(
        self,
        controls: WatchedControls,
        read_history: Callable[[], list[Row]],
        read_weights: Callable[[], Weights | None],
        stamps: Callable[[], Any],
    ) -> None:
        self.controls, self.stamps = controls, stamps
        self.read_history, self.read_weights = read_history, read_weights
        self._seen: Any = None

    def poll(self) -> bool:
        """Read what has changed; return True if something has."""
        now = self.stamps()
        if now == self._seen:
            return False
        controls, rows = self.controls, self.read_history()
        weights = self.read_weights()
        if weights is not None:
            controls.phase.net.set_parameters(*weights)
        controls.curve = Curve()
        for row in rows:
            controls.add(row, int(row["epoch"]))
        phase = controls.phase
        phase.epoch_before = len(rows)
        phase.step_before = len(rows) * phase.state.steps_per_epoch
        self._seen = now
        return True
