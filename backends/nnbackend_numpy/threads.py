"""Limit BLAS to one thread where matrices are small.

Every product must wake the second thread, which costs more than it saves on small products, and
much more on a busy machine. The rule depends on sizes alone, so that the same run uses the same
number of threads, and gives the same bits, every time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

ONE_THREAD_BELOW = 1 << 22  # multiplications in one product, about 0.1 ms

_lock = threading.Lock()
_active = 0
_limit: Any = None


class _Depth(threading.local):
    """The number of limits that this thread has set and not restored yet."""

    depth = 0


_local = _Depth()


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Limit BLAS to one thread if the largest product has few multiplications.

    The limit holds for the process: the first caller sets it, the last one restores it.
    """
    if multiplications >= ONE_THREAD_BELOW:
        _restore_inherited_limit()
        yield
        return
    with one_each():
        yield


@contextmanager
def one_each() -> Iterator[None]:
    """Limit BLAS to one thread for each thread that calls it."""
    global _active, _limit
    controller = _controller()
    if controller is None:
        yield
        return
    _restore_inherited_limit()
    with _lock:
        _active += 1
        _local.depth += 1
        if _active == 1:
            _limit = controller.limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            _local.depth -= 1
            if _active == 0:
                _limit.restore_original_limits()
                _limit = None


def _restore_inherited_limit() -> None:
    """Restore the number of BLAS threads if the parent process limited it before the fork."""
    global _limit
    if _limit is not None and _active == 0:
        with _lock:
            if _limit is not None and _active == 0:
                _limit.restore_original_limits()
                _limit = None


def _reset_in_child() -> None:
    """Count only this thread's limits: a forked process has none of its parent's other threads."""
    global _lock, _active
    _lock, _active = threading.Lock(), _local.depth


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)


def of_blas() -> int:
    """Return the number of threads that BLAS uses now: the CPUs, or the limit set by the user."""
    controller = _controller()
    if controller is None:
        return 1
    return max(
        (pool["num_threads"] for pool in controller.select(user_api="blas").info()), default=1
    )


@cache
def _controller() -> Any:
    """Return the thread controller of the loaded BLAS libraries; None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
