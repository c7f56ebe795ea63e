"""A session: one network that is trained in its own thread, asked between steps.

The trainer's thread owns all state. Other threads only send commands, each of which is answered,
and receive messages through an `Outlet`; a slow viewer never slows the training.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from nnbackend.devices import backends
from nnbackend.errors import NNBackendError
from nnbackend.live_page.controls import Controls
from nnbackend.live_page.frames import to_json
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.showing import Show, setup
from nnbackend.live_page.sources import Source, toy
from nnbackend.network.network import Network

logger = logging.getLogger("nnbackend")

FRAME_SECONDS = 1 / 40  # at least 30 a second, also where a wait ends late
BURST_SECONDS = 0.01  # of steps between two looks at the commands
OF_ALGORITHM = ("row", "focus", "substep")  # commands of Algorithm; the others are of Controls
KEEPS_RUNNING = ("set", "focus", "row", "plane")
DEFAULT_SPEED = 300.0  # steps a second


class Outlet(Protocol):
    """Where the messages of a session go."""

    def wants_frame(self) -> bool:
        """Return True if a viewer has shown the last frame."""

    def send_frame(self, frame: bytes) -> None:
        """Send a frame; the newest replaces one that is not sent yet."""

    def send_setup(self, text: str) -> None:
        """Send what has changed beside the weights: options, data, layers."""


@dataclass
class Pace:
    """The speed of a run: `speed` steps a second since `begin`; None for as many as possible."""

    speed: float | None = DEFAULT_SPEED
    begin: float = 0.0
    done: int = 0
    burst: int = 1
    rate: float = 0.0  # measured steps a second
    _since: tuple[float, int] = field(default=(0.0, 0), repr=False)

    def start(self) -> None:
        """Begin to count."""
        self.begin, self.done = time.perf_counter(), 0
        self._since = self.begin, 0

    def due(self) -> int:
        """Return the number of steps to run now."""
        if self.speed is None:
            return self.burst
        passed = time.perf_counter() - self.begin
        late = int(passed * self.speed) - self.done
        if late > self.speed * 0.25 + 1:  # the engine is slower: do not catch up later
            self.begin, self.done = time.perf_counter(), 0
            late = 1
        return min(max(late, 0), self.burst)

    def wait_seconds(self) -> float:
        """Return the time until the next step is due."""
        if self.speed is None:
            return 0.0
        return max(0.0, self.begin + (self.done + 1) / self.speed - time.perf_counter())

    def count(self, n: int, seconds: float) -> None:
        """Count steps and adapt the burst to the time that they took."""
        self.done += n
        fitting = max(1, round(n * BURST_SECONDS / max(seconds, 1e-7)))
        self.burst = min(fitting, 2 * self.burst)
        now = time.perf_counter()
        if now - self._since[0] > 0.5:
            self.rate = (self.done - self._since[1]) / (now - self._since[0])
            self._since = now, self.done
        if self.done < self._since[1]:
            self._since = now, self.done


class Session:
    """A network in training, with its data, its history and its viewers' commands.

    source: the data; by default the spirals.  fixed: a network from Python, which is trained in
    place.  devices: those that the page may use beside the usual ones.  close() ends the thread.
    """

    def __init__(
        self,
        source: Source | None = None,
        options: PageOptions | None = None,
        *,
        fixed: Network | None = None,
        devices: tuple[str, ...] = (),
        outlet: Outlet | None = None,
    ) -> None:
        if fixed is None:
            devices = tuple(dict.fromkeys((*devices, "cpu", *_usable())))
        source, options = source or toy("spirals"), options or PageOptions()
        self._set_up(Controls(source, options, devices, fixed), outlet)

    def _set_up(self, controls: Controls, outlet: Outlet | None) -> None:
        self.controls, self.outlet = controls, outlet
        self.pace = Pace()
        self.is_running = False
        self.error = ""
        self._commands: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="nnbackend live", daemon=True)
        self._last_frame = 0.0
        self._setup_number = 0
        self._show = Show()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, seconds: float = 10.0) -> None:
        """End the thread after the current step; commands that wait are cancelled."""
        self._closed.set()
        self._commands.put((lambda: None, Future()))
        if self._thread.is_alive():
            self._thread.join(seconds)
        while not self._commands.empty():
            self._commands.get()[1].cancel()

    # ---- from other threads -----------------------------------------------------------------

    def send(self, command: Mapping[str, Any]) -> Future[Any]:
        """Queue a command, from `commands.read`; the result has the errors of its fields."""
        return self.call(lambda: self.obey(command))

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue a function that runs between two steps."""
        done: Future[Any] = Future()
        self._commands.put((function, done))
        return done

    def show(self) -> None:
        """Send the setup and a frame after a change, from the thread."""
        self.is_running, self.error = False, ""
        self._publish(is_forced=True)

    # ---- the thread -------------------------------------------------------------------------

    def obey(self, command: Mapping[str, Any]) -> None:
        """Carry out a command. Raises: ArgumentError or another NNBackendError, with no effect."""
        name = command["do"]
        self.error = ""
        if name == "speed":
            self.pace.speed = command["value"]
            self.pace.start()
        elif name == "run":
            self.is_running = not self.controls.is_finished
            self.controls.algorithm.leave()
            self.pace.start()
        elif name == "pause":
            self.is_running = False
        else:
            self._carry_out(name, command)
        self._show.expire()
        self._publish(is_forced=True)

    def _carry_out(self, name: str, command: Mapping[str, Any]) -> None:
        """Carry out a command that shows or changes something; most of them pause the run."""
        owner = self.controls.algorithm if name in OF_ALGORITHM else self.controls
        try:
            getattr(owner, name)(command)
        except ArithmeticError:  # after the step that diverged
            self.is_running = False
            self._publish(is_forced=True)
            raise
        self.is_running = self.is_running and name in KEEPS_RUNNING

    def _loop(self) -> None:
        self._run_safely(lambda: self._publish(is_forced=True))
        while not self._closed.is_set():
            if self.is_running:
                self._run_safely(self._run)
            else:
                self._serve(None)

    def _serve(self, seconds: float | None) -> None:
        """Carry out the next command; wait for it at most `seconds`."""
        try:
            function, done = self._commands.get(timeout=seconds)
        except queue.Empty:
            return
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    def _run(self) -> None:
        """Train until a command arrives or the run ends; send frames at their time."""
        phase, pace = self.controls.phase, self.pace
        with phase.net.backend.active(phase.largest):
            while self.is_running and self._commands.empty():
                n = pace.due()
                if n:
                    begin = time.perf_counter()
                    done = self.controls.advance(n)
                    pace.count(done, time.perf_counter() - begin)
                    self.is_running = not self.controls.is_finished
                now = time.perf_counter()
                if now - self._last_frame >= FRAME_SECONDS:
                    self._publish()
                if not n:
                    until_frame = self._last_frame + FRAME_SECONDS - now
                    time.sleep(min(max(pace.wait_seconds(), 0.0005), max(until_frame, 0.001)))
        if self.is_running:
            self._serve(0.0)
        else:
            self._publish(is_forced=True)

    def _run_safely(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except (NNBackendError, ArithmeticError, MemoryError) as error:
            self.is_running, self.error = False, str(error)
            logger.warning("the live page paused: %s", error)
            self._publish(is_forced=True)
        except Exception:  # the thread must not end, or the page would wait for ever
            self.is_running = False
            logger.exception("the live page paused")

    # ---- messages ---------------------------------------------------------------------------

    def _publish(self, is_forced: bool = False) -> None:
        """Send the setup if it has changed, and a frame if a viewer can show it."""
        if self.outlet is None:
            return
        controls = self.controls
        if controls.setup_number != self._setup_number:
            self._setup_number = controls.setup_number
            self.outlet.send_setup(to_json({"type": "setup", **setup(controls)}))
        if not is_forced and not self.outlet.wants_frame():
            return
        self._last_frame = time.perf_counter()
        facts, arrays = self._show.frame(controls, is_paused=not self.is_running)
        state = {"running": self.is_running, "speed": self.pace.speed, "rate": self.pace.rate,
                 "error": self.error}  # fmt: skip
        self.outlet.send_frame(self._show.encoded({"type": "frame", **facts, **state}, arrays))


def _usable() -> list[str]:
    """Return the names of the usable backends."""
    return [row.name for row in backends() if row.usable]
