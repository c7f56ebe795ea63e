"""Make a fork wait for the compiler, so that the child does not deadlock on its locks.

numba and llvmlite have one lock each. If one thread compiled while another one forked, the locks
would stay locked in the child, which has no thread to release them.
"""

from __future__ import annotations

import os
from contextlib import suppress

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

# In the order in which numba acquires them. llvmlite's lock has no public name.
_LOCKS = [global_compiler_lock, *filter(None, [getattr(ffi.lib, "_lock", None)])]


def _acquire() -> None:
    for lock in _LOCKS:
        lock.__enter__()


def _release() -> None:
    for lock in reversed(_LOCKS):
        with suppress(RuntimeError):  # Ctrl-C interrupted the acquisition
            lock.__exit__(None, None, None)


# Both locks are reentrant, and the forking thread owns them, also in the child. Another thread
# finishes the kernel that it compiles before the fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
