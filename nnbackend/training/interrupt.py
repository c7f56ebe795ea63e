"""Ctrl-C between steps, so that what was learnt is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class InterruptGuard:
    """While it is entered, a first Ctrl-C sets `requested`; a second one raises as usual.

    An update that is cut in the middle would leave half-moved weights. Outside the main thread,
    where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._active = False

    def __enter__(self) -> InterruptGuard:
        self.requested = False
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._before = signal.getsignal(signal.SIGINT)
            # A program that ignores or handles Ctrl-C itself keeps its way.
            self._active = self._before is signal.default_int_handler
        if self._active:
            signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._before)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
