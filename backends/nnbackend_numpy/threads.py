"""One BLAS thread where matrices are small.

A second thread must be woken for every product. For small ones that costs more than it brings,
and many times more when the machine has other work. The rule looks at sizes alone, so that the
same run uses the same threads, and gives the same bits, every time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

ONE_THREAD_BELOW = 1 << 22  # multiplications in one product: about a tenth of a millisecond

_lock = threading.Lock()
_inside = 0
_limit: Any = None


class _Own(threading.local):
    """How many times this thread is inside."""

    depth = 0


_own = _Own()


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Within it, BLAS uses one thread if the largest product has few multiplications.

    The setting is the process's: the first to enter sets it, the last to leave puts it back.
    """
    if multiplications >= ONE_THREAD_BELOW:
        _restore_left_over()
        yield
        return
    with one_each():
        yield


@contextmanager
def one_each() -> Iterator[None]:
    """Within it, BLAS uses one thread for each thread that calls it."""
    global _inside, _limit
    controller = _controller()
    if controller is None:
        yield
        return
    _restore_left_over()
    with _lock:
        _inside += 1
        _own.depth += 1
        if _inside == 1:
            _limit = controller.limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            _own.depth -= 1
            if _inside == 0:
                _limit.restore_original_limits()
                _limit = None


def _restore_left_over() -> None:
    """Restore the number of BLAS threads that the parent process had limited before the fork."""
    global _limit
    if _limit is not None and _inside == 0:
        with _lock:
            if _limit is not None and _inside == 0:
                _limit.restore_original_limits()
                _limit = None


def _begin_in_child() -> None:
    """Forget the parent's other threads, which a forked process does not have."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), _own.depth


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def of_blas() -> int:
    """Return how many threads BLAS uses now: the CPUs, or what the user has limited it to."""
    controller = _controller()
    if controller is None:
        return 1
    return max(
        (pool["num_threads"] for pool in controller.select(user_api="blas").info()), default=1
    )


def look_again() -> None:
    """Take note of a BLAS that was loaded since."""
    _controller.cache_clear()


@cache
def _controller() -> Any:
    """Return what sets the threads of the loaded BLAS; None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
