"""numba's cache on the disk, which may fail: what is compiled then serves from memory.

A folder that cannot be written, a full disk and a damaged file cost time and nothing else. Each
is logged once. A damaged file is replaced.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core import event, sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.ccallback import CFunc
from numba.core.serialize import dumps

from nnbackend_numba.scalars import FAST

logger = logging.getLogger("nnbackend")
CURE = "Set NUMBA_CACHE_DIR to a folder that can be written and has room."
_said: set[str] = set()


def jit(function: Callable[..., Any]) -> Any:
    """Return a function that is compiled when first called, and kept on the disk where possible."""
    made = numba.njit(**FAST)(function)
    made._cache = _cache_of(function)
    return made


def c_function(signature: str, function: Callable[..., Any]) -> Any:
    """Return a function compiled as a C function, kept on the disk where possible."""
    types = sigutils.normalize_signature(signature)
    made: Any = CFunc(function, types, locals={}, options=dict(FAST))
    made._cache = _cache_of(function)
    made.compile()
    return made


class _Payload(CompileResultCacheImpl):  # type: ignore[misc]
    """Compiled code with its checksum: damaged code would crash the process."""

    def reduce(self, result: Any) -> Any:
        data = dumps(super().reduce(result))
        return sha256(data).digest(), data

    def rebuild(self, context: Any, payload: Any) -> Any:
        checksum, data = payload
        if sha256(data).digest() != checksum:
            raise ValueError("its checksum is another")
        return super().rebuild(context, pickle.loads(data))


class _Cache(FunctionCache):  # type: ignore[misc]
    """The cache of one function, whose failures are logged and not raised."""

    _impl_class = _Payload

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return super().load_overload(signature, context)
        except Exception as error:  # unpickling damaged bytes raises whatever they say
            _say(logger.info, "numba's cache holds a damaged file, which is replaced", error)
            with suppress(OSError):  # without its index a file is written anew
                Path(self._cache_file._index_path).unlink()
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        try:
            super().save_overload(signature, result)
        except Exception as error:
            _say_unsaved(error)


def _cache_of(function: Callable[..., Any]) -> Any:
    try:
        return _Cache(function)
    except (RuntimeError, OSError) as error:  # no folder can be written
        _say_unsaved(error)
        return NullCache()


def _say(log: Callable[[str], None], what: str, error: Exception) -> None:
    """Log that something failed, once for each `what`."""
    if what not in _said:
        _said.add(what)
        log(f"{what} ({type(error).__name__}: {error})")


_UNSAVED = (
    "numba cannot keep compiled kernels on the disk: every process compiles them anew, which takes "
    f"some seconds. {CURE}"
)
_say_unsaved = partial(_say, logger.warning, _UNSAVED)


class _Announcement(event.Listener):  # type: ignore[misc]
    """Says once in a process that kernels are compiled, when the first one really is."""

    is_said = False

    def on_start(self, event: Any) -> None:
        if not self.is_said and str(event.data["module"]).startswith(f"{__package__}."):
            self.is_said = True
            once = "" if _UNSAVED in _said else ", once"
            logger.warning(
                "numba compiles kernels for this machine%s; this takes some seconds", once
            )

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:run_pass", _Announcement())
