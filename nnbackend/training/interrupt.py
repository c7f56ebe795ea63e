"""Signals between steps, so that what was learnt is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptGuard:
    """While it is entered, a first Ctrl-C sets `requested`; a second one raises as usual.

    An update that is cut in the middle would leave half-moved weights. Outside the main thread,
    where Python delivers no signals, it does nothing.
    Guards nest: a request is seen by all of them.
    signals: others that ask to end, as SIGTERM where something can be saved; asked again, they
    change nothing.  received: the one that asked.
    """

    def __init__(self) -> None:
        self.requested = False
        self.received: int | None = None
        self.signals: tuple[int, ...] = ()
        self._before: dict[int, Any] = {}
        self._outer: InterruptGuard | None = None

    def __enter__(self) -> InterruptGuard:
        self.requested, self.received, self._outer = False, None, None
        if threading.current_thread() is not threading.main_thread():
            return self
        # A program that ignores or handles a signal itself keeps its way.
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

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested, self.received = True, number
        if self._outer is not None and not self._outer.requested:
            self._outer._request(number, frame)
