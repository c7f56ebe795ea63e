"""The server of the page: a socket, uvicorn, and the session until Ctrl-C."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.live_page.session import Session
from nnbackend.serving.sockets import CONNECTIONS, LOCAL, STOP_SECONDS, address, listen, stopping

MAX_FRAME = 65_536  # bytes of a message from a page


@dataclass
class Running:
    """A server that is set up: its socket, its address, and uvicorn's object."""

    listener: socket.socket
    url: str
    server: Any


def set_up(session: Session, host: str, port: int, stream: Any = None) -> Running:
    """Return a server of a session, and print its address to a stream, by default stdout.

    Raises: ArgumentError for an address that cannot be used, or without the packages.
    """
    uvicorn, app = _import("uvicorn"), _import("nnbackend.live_page.app")
    _import("wsproto")
    listener = listen(host, port)
    is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    hub, token = app.Hub(), app.new_token()
    session.outlet = hub
    config = uvicorn.Config(
        app.new_app(session, hub, token, LOCAL if is_local else None),
        log_level="warning", access_log=False, server_header=False, proxy_headers=False,
        lifespan="off", ws="wsproto", ws_max_size=MAX_FRAME, ws_per_message_deflate=False,
        http="h11", loop="asyncio", limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )  # fmt: skip
    url = f"http://{address(listener)}/{token}/"
    print(f"live page: {url} (Ctrl-C ends it)", file=stream, flush=True)
    if not is_local:
        print(
            "nnbackend: note: other machines can open the page, if they know its address; the "
            "connection is not encrypted",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return Running(listener, url, uvicorn.Server(config))


def serve(session: Session, host: str, port: int, *, open_browser: bool) -> None:
    """Show a session until Ctrl-C or SIGTERM; print its address.

    Raises: as `set_up`.
    """
    running = set_up(session, host, port)
    with running.listener:
        session.start()
        if open_browser:
            webbrowser.open(running.url)
        try:
            run_server(running.server, running.listener)
        finally:
            session.close()


@contextmanager
def in_background(session: Session, *, open_browser: bool) -> Iterator[None]:
    """Show a session from another thread, inside the context.

    Raises: as `set_up`.
    """
    running = set_up(session, "127.0.0.1", 0, sys.stderr)
    running.server.capture_signals = nullcontext  # they stay with the main thread
    thread = threading.Thread(
        target=running.server.run, kwargs={"sockets": [running.listener]}, daemon=True
    )
    thread.start()
    if open_browser:
        webbrowser.open(running.url)
    try:
        yield
    finally:
        session.close()
        running.server.should_exit = True
        thread.join(2 * STOP_SECONDS)
        running.listener.close()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArgumentError(
            f"live needs the packages starlette, uvicorn and wsproto. Received: {error}. "
            'Install them with: pip install "nnbackend[live]"'
        ) from error


def run_server(server: Any, listener: socket.socket) -> None:
    """Run the server until it is stopped; in a notebook in another thread."""
    # uvicorn's own context would repeat the signal after a clean stop.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        server.capture_signals = lambda: stopping(server)
        server.run(sockets=[listener])
        return
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.should_exit = True
        thread.join()
