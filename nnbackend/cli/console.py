"""Text on consoles and in pipes, whatever their encoding, and without a console.

On Windows, and under an old locale elsewhere, stdout knows few characters. What it does not know
is written as an escape, as \\u03c6; tables for other programs are UTF-8 always.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def present() -> Iterator[None]:
    """Discard output inside the context where a program has no console (pythonw, PyInstaller)."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is None:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(nowhere))
        yield


class _LenientStream:
    """A stream whose reader may leave, or whose disk may be full: what follows is discarded."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            abandon(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            abandon(self._stream)


@contextlib.contextmanager
def lenient_stderr() -> Iterator[None]:
    """Let no failed write to stderr end a training inside the context."""
    stream: Any = _LenientStream(sys.stderr)
    with contextlib.redirect_stderr(stream):
        yield


def abandon(stream: Any) -> None:
    """Point a stream at nothing, so that the interpreter's last flush stays quiet."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Write characters that stdout and stderr cannot encode as escapes inside the context."""
    before: list[tuple[Any, str]] = []
    for stream in (sys.stdout, sys.stderr):
        # A stream that is absent, closed or somebody's own stays as it is.
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            before.append((stream, stream.errors or "strict"))
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in before:
            if not stream.closed:
                stream.reconfigure(errors=errors)


@contextlib.contextmanager
def utf8_stdout() -> Iterator[TextIO]:
    """Return stdout for a table that other programs read: UTF-8, lines end in one character.

    A terminal, and a stream without bytes beneath, are written to in their own encoding.
    """
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        yield stream
        return
    stream.flush()
    table = io.TextIOWrapper(stream.buffer, encoding="utf-8", newline="\n")
    try:
        yield table
        table.flush()
    finally:
        table.detach()  # which leaves the bytes' stream open
