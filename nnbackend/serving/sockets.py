"""Sockets and signals of a local server, for `nnbackend serve` and `nnbackend live`."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnbackend.errors import ArgumentError

PORTS = 65535
CONNECTIONS = 100  # at once; more get 503
STOP_SECONDS = 5  # for the requests in progress when the server is stopped
LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises: ArgumentError for an address that cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=2 * CONNECTIONS)
        # asyncio sends small answers at once (TCP_NODELAY) only on sockets of a stated protocol.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
    except OSError as error:
        raise ArgumentError(
            "--host and --port must be an address of this machine with a free port. Received: "
            f"{host}, port {port} ({error.strerror or error}). Choose another port, or 0 for a "
            "free one."
        ) from error


def address(listener: socket.socket) -> str:
    """Return host and port as in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def stopping(server: Any) -> Iterator[None]:
    """End a uvicorn server on Ctrl-C and SIGTERM, after the requests in progress."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, server.handle_exit) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
