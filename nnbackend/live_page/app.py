"""The web application of the page, on Starlette.

Every address begins with a random token. The Host and, for what changes anything, the Origin are
checked, so that other web pages cannot reach the server; only the page's own files are served.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from nnbackend.errors import NNBackendError
from nnbackend.live_page import commands, exports
from nnbackend.live_page.frames import to_json
from nnbackend.live_page.replay import to_html
from nnbackend.live_page.session import Session
from nnbackend.live_page.sources import from_csv

PAGE = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
MAX_UPLOAD = 5_000_000  # bytes of a CSV file
MAX_CONFIG = 20_000  # bytes of a config.toml
UPLOAD_SECONDS = 30.0
MAX_VIEWERS = 8
FRAME_SECONDS = 1 / 60  # at least between two frames to one viewer
POLICY = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass
class Viewer:
    """One open page: texts to send, and whether it has shown the last frame."""

    texts: deque[str]
    wake: asyncio.Event
    is_ready: bool = True


class Hub:
    """The `Outlet` of a session: keeps the newest setup and frame for each viewer.

    `send_frame` and `send_setup` are called by the session's thread.
    """

    def __init__(self) -> None:
        self.setup = ""
        self.frame = b""
        self.number = 0  # of the frame
        self.viewers: list[Viewer] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def wants_frame(self) -> bool:
        return any(viewer.is_ready for viewer in self.viewers)

    def send_frame(self, frame: bytes) -> None:
        self.frame, self.number = frame, self.number + 1
        self._wake_all()

    def send_setup(self, text: str) -> None:
        self.setup = text
        for viewer in list(self.viewers):
            viewer.texts.append(text)
        self._wake_all()

    def _wake_all(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for viewer in self.viewers:
            viewer.wake.set()

    def join(self) -> Viewer:
        """Return a new viewer, which first gets the setup and the newest frame."""
        self._loop = asyncio.get_running_loop()
        viewer = Viewer(deque([self.setup] if self.setup else []), asyncio.Event())
        viewer.wake.set()
        self.viewers.append(viewer)
        return viewer

    async def feed(self, viewer: Viewer, socket: WebSocket) -> None:
        """Send texts at once and the newest frame when the page has shown the one before."""
        shown = 0
        while True:
            await viewer.wake.wait()
            viewer.wake.clear()
            while viewer.texts:
                await socket.send_text(viewer.texts.popleft())
            if viewer.is_ready and self.number > shown:
                viewer.is_ready, shown = False, self.number
                await socket.send_bytes(self.frame)
                await asyncio.sleep(FRAME_SECONDS)


def new_token() -> str:
    """Return a random token for the address."""
    return secrets.token_urlsafe(24)


def new_app(session: Session, hub: Hub, token: str, hosts: frozenset[str] | None = None) -> ASGIApp:
    """Return the ASGI application. hosts: allowed names of the server, or None for all."""

    async def page(request: Request) -> Response:
        return _file("index.html")

    async def file(request: Request) -> Response:
        return _file(request.path_params["name"])

    async def upload(request: Request) -> Response:
        name, kind = request.query_params.get("name", "data"), request.path_params["kind"]
        limit = MAX_UPLOAD if kind == "data" else MAX_CONFIG
        body = await _body(request, limit)
        if body is None:
            return _error(413, f"A file may have {limit} bytes. Received: more. Send less.")
        if kind == "data":
            return await _answer(session, lambda: _use_csv(session, body, name))
        if kind == "config":
            return await _answer(session, lambda: exports.use_config(session, body))
        return _error(404, "There is no such address.")

    async def export(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in exports.EXPORTS:
            return _error(404, f"Known exports: {', '.join(exports.EXPORTS)}.")
        kind, make = exports.EXPORTS[name]
        if make is to_html:
            make = partial(to_html, language=request.query_params.get("language", ""))
        future = session.call(lambda: make(session.controls))
        text = await asyncio.wrap_future(future)
        headers = {**POLICY, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text, media_type=kind, headers=headers)

    async def socket(socket: WebSocket) -> None:
        await _talk(socket, session, hub)

    app = Starlette(
        routes=[
            Route("/", page),
            WebSocketRoute("/socket", socket),
            Route("/send/{kind}", upload, methods=["POST"]),
            Route("/export/{name}", export),
            Route("/{name}", file),
        ],
        exception_handlers={404: _missing, 405: _missing, Exception: _broken},
    )
    return Guard(app, token, hosts)


def _use_csv(session: Session, body: bytes, name: str) -> None:
    session.controls.use(from_csv(body, name[:60]))
    session.show()


async def _answer(session: Session, function: Callable[[], None]) -> Response:
    try:
        await asyncio.wrap_future(session.call(function))
    except NNBackendError as error:
        return _error(422, str(error))
    return Response(to_json({"status": "ok"}), media_type="application/json", headers=POLICY)


async def _talk(socket: WebSocket, session: Session, hub: Hub) -> None:
    """Carry messages between a page and the session until the page is closed."""
    if len(hub.viewers) >= MAX_VIEWERS:
        await socket.close(1013, "too many pages are open")
        return
    await socket.accept()
    viewer = hub.join()
    feeder = asyncio.create_task(hub.feed(viewer, socket))
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                break
            text = message.get("text")
            if text == "shown":
                viewer.is_ready = True
                viewer.wake.set()
            else:
                viewer.texts.append(await _obey(session, text or ""))
                viewer.wake.set()
    except WebSocketDisconnect:
        pass
    finally:
        hub.viewers.remove(viewer)
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def _obey(session: Session, text: str) -> str:
    """Carry out a message; return the reply."""
    error = ""
    try:
        await asyncio.wrap_future(session.send(commands.read(text)))
    except (NNBackendError, ArithmeticError, MemoryError) as failure:
        error = str(failure)
    return to_json({"type": "reply", "id": commands.ticket(text), "error": error})


class Guard:
    """Middleware that lets only requests with the token, from this server's own page, through."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str] | None) -> None:
        self.app, self.hosts = app, hosts
        self.prefix = f"/{token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        fault = self._fault(scope, headers)
        if not fault:
            path = scope["path"][len(self.prefix) :] or "/"
            await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        else:
            await _error(fault[0], fault[1])(scope, receive, send)

    def _fault(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and text for a request that is refused."""
        host = headers.getlist("host")
        if len(host) != 1 or (self.hosts is not None and _name(host[0]) not in self.hosts):
            return 400, "The Host must be the server's own."
        given = scope["path"].encode("utf-8", "surrogatepass")
        prefix = self.prefix.encode()
        is_known = secrets.compare_digest(given[: len(prefix)], prefix)
        if not is_known or given[len(prefix) : len(prefix) + 1] not in (b"/", b""):
            return 403, "The address must have the token that nnbackend live prints."
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        origins = headers.getlist("origin")
        if (changes or origins) and origins != [f"http://{host[0]}"]:
            return 403, "The Origin must be the server's own page."
        return None


def _name(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    return name if port.isdecimal() else host.lower()


def _file(name: str) -> Response:
    """Return one of the page's files, which are listed, not looked up by their path."""
    path = {p.name: p for p in PAGE.iterdir() if p.suffix in KINDS}.get(name)
    if path is None:
        return _error(404, "There is no such file.")
    return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=POLICY)


async def _body(request: Request, most: int) -> bytes | None:
    """Return the body of a request; None for more than `most` bytes, or for one that is slow."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        return None
    parts, size = [], 0
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    return None
                parts.append(part)
    except TimeoutError:
        return None
    return b"".join(parts)


def _error(code: int, text: str) -> Response:
    return Response(to_json({"error": text}), code, POLICY, media_type="application/json")


async def _missing(request: Request, error: Exception) -> Response:
    return _error(getattr(error, "status_code", 404), "There is no such address.")


async def _broken(request: Request, error: Exception) -> Response:
    return _error(500, "The server failed; its log says why.")
