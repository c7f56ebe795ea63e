"""The web application: its routes, limits and errors. Starlette is imported when it is built."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnbackend.errors import ArgumentError, NNBackendError
from nnbackend.model.model import Model
from nnbackend.serving.description import described_model, openapi, page
from nnbackend.serving.rows import Predictor, TooManyRowsError, rows_of_csv, rows_of_json

logger = logging.getLogger("nnbackend")
READERS = {"application/json": rows_of_json, "text/csv": rows_of_csv}


@dataclass(frozen=True)
class Limits:
    """The largest request: rows, and bytes of its body."""

    rows: int = 10_000
    size: int = 10_000_000


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def new_app(
    model: Model, title: str, limits: Limits = Limits(), hosts: Sequence[str] = ("*",)
) -> Any:
    """Return the ASGI application of a model, for uvicorn and other servers.

    hosts: the accepted values of the header Host; "*" accepts all.
    One request is predicted at a time; others wait, and /health still answers.
    Raises: ArgumentError if Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse, JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise ArgumentError(
            f"Serving needs Starlette and uvicorn. Received: {error}. "
            'Install them with: pip install "nnbackend[serve]"'
        ) from error

    async def predict(request: Any) -> Any:
        status, answer = await _predict(request, predictor, limits)
        return JSONResponse(answer, status)

    def constant(value: Any) -> Any:
        async def answer(request: Any) -> Any:
            return HTMLResponse(value) if isinstance(value, str) else JSONResponse(value)

        return answer

    predictor = Predictor(model)
    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/", constant(page(model, title))),
            Route("/health", constant({"status": "ok"})),
            Route("/model", constant(described_model(model))),
            Route("/openapi.json", constant(openapi(model, title))),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


async def _predict(request: Any, predictor: Predictor, limits: Limits) -> tuple[int, Any]:
    """Return the status and the answer of a request for predictions."""
    from starlette.concurrency import run_in_threadpool

    def predicted(kind: str, content: bytes) -> dict[str, Any]:
        return predictor.answer(READERS[kind](content, predictor.model, limits.rows))

    try:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in READERS:
            expected = " or ".join(READERS)
            raise _RefusedError(415, f"Content-Type must be {expected}. Received: {kind!r}.")
        content = await _body(request, limits.size)
        return 200, await run_in_threadpool(predicted, kind, content)
    except TooManyRowsError as error:
        text = f"A request may have {limits.rows} rows. Received: {error.args[0]}. Send fewer."
        return 413, {"error": text}
    except _RefusedError as error:
        return error.status, {"error": str(error)}
    except NNBackendError as error:
        is_syntax = str(error).startswith("The request must be JSON")
        return 400 if is_syntax else 422, {"error": str(error)}
    except Exception:
        logger.exception("a request failed")
        return 500, {"error": "The service failed; its log has the reason."}


async def _body(request: Any, most: int) -> bytes:
    """Return the body of a request; read no more than `most` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _RefusedError(413, f"A request may have {most} bytes. Received: more.")
        parts.append(part)
    return b"".join(parts)
