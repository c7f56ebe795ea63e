"""The server of the page: a socket, uvicorn, and the session until Ctrl-C."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
import sys
import threading
import webbrowser
from typing import Any

from nnbackend.errors import ArgumentError
from nnbackend.live_page.session import Session
from nnbackend.serving.sockets import CONNECTIONS, LOCAL, STOP_SECONDS, address, listen, stopping

MAX_FRAME = 65_536  # bytes of a message from a page


def serve(session: Session, host: str, port: int, *, open_browser: bool) -> None:
    """Show a session until Ctrl-C or SIGTERM; print its address.

    Raises: ArgumentError for an address that cannot be used, or without the packages.
    """
    uvicorn, app = _import("uvicorn"), _import("nnbackend.live_page.app")
    _import("wsproto")
    with listen(host, port) as listener:
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
        server = uvicorn.Server(config)
        url = f"http://{address(listener)}/{token}/"
        print(f"live page: {url} (Ctrl-C ends it)", flush=True)
        if not is_local:
            print(
                "nnbackend: note: other machines can open the page, if they know its address; the "
                "connection is not encrypted",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        session.start()
        if open_browser:
            webbrowser.open(url)
        try:
            _run(server, listener)
        finally:
            session.close()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArgumentError(
            f"live needs the packages starlette, uvicorn and wsproto. Received: {error}. "
            'Install them with: pip install "nnbackend[live]"'
        ) from error


def _run(server: Any, listener: socket.socket) -> None:
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
