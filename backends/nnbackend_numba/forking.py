"""A fork waits for the compiler, so that no child finds its locks held for ever.

numba and llvmlite have one lock each. A thread that compiles while another one forks would leave
them locked in the child, where nobody is left to release them.
"""

from __future__ import annotations

import os
from contextlib import suppress

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

# In the order in which numba takes them. llvmlite's has no public name.
_LOCKS = [global_compiler_lock, *filter(None, [getattr(ffi.lib, "_lock", None)])]


def _acquire() -> None:
    for lock in _LOCKS:
        lock.__enter__()


def _release() -> None:
    for lock in reversed(_LOCKS):
        with suppress(RuntimeError):  # Ctrl-C came while it was waited for
            lock.__exit__(None, None, None)


# Both locks are reentrant and belong to the thread that forks, also in the child. What another
# thread compiles is finished first, kernel by kernel.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
