"""Signal handling: an interrupt takes effect between steps, so the weights stay consistent."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# Signals that batch systems send some time before they kill a job.
SIGNALS = tuple(
    int(getattr(signal, name)) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class InterruptGuard:
    """A context in which the first Ctrl-C sets `requested`; the second one raises as usual.

    An interrupted update would leave some weights updated and some not. Outside the main thread,
    where Python delivers no signals, the guard does nothing.
    Guards nest: each of them sees a request.
    signals: further signals that set `requested`, such as SIGTERM; repeated ones have no effect.
    received: the number of the signal that was received.
    is_shared: on several ranks, `requested` is set by `agree` alone, at the same step of all.
    is_asked: whether this process has asked for an interrupt.
    """

    def __init__(self) -> None:
        self.is_shared = self.is_asked = self._requested = False
        self.received: int | None = None
        self.signals: tuple[int, ...] = ()
        self._before: dict[int, Any] = {}
        self._outer: InterruptGuard | None = None

    def __enter__(self) -> InterruptGuard:
        self.is_asked = self._requested = False
        self.received, self._outer = None, None
        if threading.current_thread() is not threading.main_thread():
            return self
        # A program that ignores or handles a signal itself keeps its own handler.
        for number, default in (
            (signal.SIGINT, signal.default_int_handler),
            *((number, signal.SIG_DFL) for number in self.signals),
        ):
            before = signal.getsignal(number)
            outer = getattr(before, "__self__", None)
            if isinstance(outer, InterruptGuard):
                self._outer, self.requested = outer, outer.requested
            if before is default or isinstance(outer, InterruptGuard):
                self._before[number] = before
                signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    @property
    def requested(self) -> bool:
        """Whether the run shall stop after the current steps."""
        return self._requested

    @requested.setter
    def requested(self, value: bool) -> None:
        self.is_asked = value
        if not self.is_shared:
            self._requested = value

    def agree(self, is_asked: bool, number: int | None) -> None:
        """Stop all ranks, or none. number: that of a rank's signal."""
        self._requested = is_asked
        self.received = self.received or number

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested, self.received = True, number
        if self._outer is not None and not self._outer.requested:
            self._outer._request(number, frame)
