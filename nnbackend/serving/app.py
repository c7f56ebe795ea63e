"""The web application of a model, on Starlette.

One worker thread reads the rows and predicts, so requests cannot disturb each other; the event
loop continues to accept connections. Clients get the texts of errors, never a traceback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nnbackend.errors import NNBackendError
from nnbackend.model.model import Model
from nnbackend.serving.openapi import describe, example, openapi, page
from nnbackend.serving.rows import (
    BodyError,
    ReadCSV,
    Rows,
    TooManyRowsError,
    answer,
    csv_rows,
    json_rows,
    to_json,
)

BODY_SECONDS = 60.0  # for the whole body of a request
POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


@dataclass(frozen=True)
class Service:
    """A model and the limits of a request. hosts: allowed names of the server; None: all."""

    model: Model
    name: str
    read_csv: ReadCSV
    max_rows: int
    max_bytes: int
    hosts: frozenset[str] | None = None


def new_app(service: Service) -> ASGIApp:
    """Return the ASGI application of a service. One prediction first compiles what is needed."""
    model, name, limit = service.model, service.name, service.max_rows
    facts, schema = describe(model, name), openapi(model, name, limit)
    text = page(model, name, limit, service.max_bytes)
    worker = anyio.CapacityLimiter(1)
    answer(model, lambda: Rows([example(model)], 1), limit)

    async def root(request: Request) -> Response:
        return HTMLResponse(text, headers=POLICY)

    async def predict(request: Request) -> Response:
        level, kind = _level(request), _kind(request)
        body = await _body(request, service.max_bytes)
        read = _json if kind == "json" else _csv
        job = partial(answer, model, partial(read, body, service), limit, level)
        result = await anyio.to_thread.run_sync(lambda: to_json(job()), limiter=worker)
        return Response(result, media_type="application/json")

    routes = [
        Route("/", root),
        Route("/health", _constant({"status": "ok"})),
        Route("/model", _constant(facts)),
        Route("/openapi.json", _constant(schema)),
        Route("/predict", predict, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        HTTPException: _refused,
        BodyError: partial(_failed, 400),
        TooManyRowsError: partial(_failed, 413),
        NNBackendError: partial(_failed, 422),
        MemoryError: partial(_broken, 503, "The server is out of memory. Send fewer rows."),
        Exception: partial(_broken, 500, "The server failed; its log says why."),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    return app if service.hosts is None else _HostCheck(app, service.hosts)


def _json(body: bytes, service: Service) -> Rows:
    return json_rows(body, service.model)


def _csv(body: bytes, service: Service) -> Rows:
    return csv_rows(body, service.read_csv)


def _constant(value: Any) -> Callable[[Request], Any]:
    """Return an endpoint that returns a value."""
    content = to_json(value)

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type="application/json")

    return endpoint


def _kind(request: Request) -> str:
    """Return the format of the body: "json" or "csv"."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    kinds = {"application/json": "json", "text/csv": "csv"}
    if given not in kinds:
        raise HTTPException(
            415,
            "The Content-Type must be application/json or text/csv. "
            f"Received: {given or 'none'!r:.80}.",
        )
    return kinds[given]


def _level(request: Request) -> float | None:
    """Return the level of the query `interval`; None without it."""
    others = set(request.query_params) - {"interval"}
    if others:
        raise HTTPException(
            422, f"The query may have interval only. Received: {sorted(others)[0]!r:.80}."
        )
    given = request.query_params.get("interval")
    try:
        return None if given is None else float(given)
    except ValueError as error:
        expected = "interval must be a number, such as 0.9."
        raise HTTPException(422, f"{expected} Received: {given!r:.80}.") from error


async def _body(request: Request, most: int) -> bytes:
    """Return the body of a request; refuse more than `most` bytes before they are read."""
    text = f"A request may have {most} bytes. Received: more. Send fewer rows."
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise HTTPException(413, text)
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise HTTPException(413, text)
                parts.append(part)
    except TimeoutError as error:
        seconds = f"{BODY_SECONDS:g} seconds"
        raise HTTPException(408, f"The body must arrive in {seconds}. Received: a part.") from error
    return b"".join(parts)


def _error(code: int, text: str) -> Response:
    return Response(to_json({"error": text}), code, media_type="application/json")


async def _refused(request: Request, error: HTTPException) -> Response:
    response = _error(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _failed(code: int, request: Request, error: Exception) -> Response:
    return _error(code, str(error))


async def _broken(code: int, text: str, request: Request, error: Exception) -> Response:
    return _error(code, text)


class _HostCheck:
    """Middleware that refuses requests for other host names than the server's.

    A page of another site whose name is made to point at this machine cannot reach a local server.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = [value for name, value in scope["headers"] if name == b"host"]
            host = names[0].decode("latin-1").lower() if len(names) == 1 else ""
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
            if name not in self.hosts:
                text = f"The Host must be {', '.join(sorted(self.hosts))}. Received: {host!r:.80}."
                await _error(400, text)(scope, receive, send)
                return
        await self.app(scope, receive, send)
