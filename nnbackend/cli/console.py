"""Output to consoles and pipes of any encoding, and without a console.

On Windows, and with an old locale elsewhere, stdout encodes few characters. Other characters are
written as escapes such as \\u03c6. Tables for other programs are always UTF-8.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def present() -> Iterator[None]:
    """Discard output inside the context if the program has no console (pythonw, PyInstaller)."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is None:
                null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(null))
        yield


class _LenientStream:
    """A stream that discards its output after a failed write: a closed pipe, a full disk."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream is closed
            abandon(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            abandon(self._stream)


@contextlib.contextmanager
def lenient_stderr() -> Iterator[None]:
    """Discard output to stderr after a failed write inside the context; training continues."""
    stream: Any = _LenientStream(sys.stderr)
    with contextlib.redirect_stderr(stream):
        yield


def print_message(message: str) -> None:
    """Print a message of the command to stderr."""
    print(f"nnbackend: {message}", file=sys.stderr, flush=True)


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
        # An absent, closed or custom stream stays as it is.
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
    """Yield stdout for a table that other programs read: UTF-8, lines end in one character.

    Terminals and streams without a byte buffer keep their own encoding.
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
        table.detach()  # keeps the byte stream open


@contextlib.contextmanager
def quiet_logging(is_quiet: bool) -> Iterator[None]:
    """Hide the library's log messages below errors inside the context if `is_quiet`."""
    logger = logging.getLogger("nnbackend")
    before = logger.level
    if is_quiet:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
