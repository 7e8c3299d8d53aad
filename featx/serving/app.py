"""The service as an ASGI application: predictions, health, metrics, its description, and a page for a photo."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from featx.images.policy import BOMB
from featx.serving.bodies import Refused, number_of, read_images
from featx.serving.line import Busy, Line, Stopped
from featx.serving.metrics import Metrics
from featx.serving.openapi import description

if TYPE_CHECKING:
    from featx.serving.line import Found
    from featx.serving.settings import Serving

log = logging.getLogger("featx")

#: The page asks nobody else for anything, and nobody may frame it.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
#: What nobody reads to its end is not waited for: whoever sends it is cut off.
_CLOSE = {"Connection": "close"}


def application(line: Line, how: Serving, metrics: Metrics | None = None) -> Starlette:
    """Return the application of a `Line`.

    Parameters
    ----------
    line : Line
    how : Serving
    metrics : Metrics, optional
        Those that the line counts its batches in.
    """
    service = _Service(line, how, metrics or Metrics())
    return Starlette(
        routes=[
            Route("/predict", service.predict, methods=["POST"]),
            Route("/healthz", service.health),
            Route("/metrics", service.measures),
            Route("/openapi.json", service.describe),
            Route("/", service.page),
        ]
    )


class _Service:
    def __init__(self, line: Line, how: Serving, metrics: Metrics) -> None:
        self._line, self._how, self._metrics = line, how, metrics
        metrics.watch(lambda: line.n_waiting)
        self._about = json.dumps(description(line.model, how), ensure_ascii=False).encode()
        self._html = resources.files("featx.serving").joinpath("page.html").read_text()

    async def predict(self, request: Request) -> Response:
        """``POST /predict``."""
        start = time.perf_counter()
        try:
            response = await self._predicted(request)
        except ClientDisconnect:
            response = _refusal(499, "Disconnected", "Whoever asked has left.")
        except Refused as error:
            response = _refusal(error.status, "Refused", str(error))
        except Busy as error:
            response = _refusal(429, "Busy", str(error), {"Retry-After": "1"})
        except Stopped as error:
            response = _refusal(503, "Stopped", str(error), {"Retry-After": "1"})
        except Exception as error:  # one request must not end the others
            log.exception("A request failed")
            response = _refusal(500, type(error).__name__, "Something failed here; the service's log has what.")
        self._metrics.count_request(response.status_code, time.perf_counter() - start)
        return response

    async def _predicted(self, request: Request) -> Response:
        self._check_token(request)
        k = number_of(request, "top", 5)
        images = await read_images(request, self._how)
        try:
            async with asyncio.timeout(self._how.seconds):
                found = await self._line.classify(images.files, images.ids)
        except TimeoutError as error:
            raise Refused(503, f"There was no answer within {self._how.seconds:g} s. Ask again later.") from error
        self._metrics.count_images(len(found) - len(found.errors), len(found.errors))
        return Response(_text(found.to_dict(k)), _status(found), media_type="application/json")

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        """``GET /healthz``."""
        said = {"status": "ok", "model": repr(self._line.model).strip("<>"), "waiting": self._line.n_waiting}
        return JSONResponse(said)

    async def measures(self, request: Request) -> Response:
        """``GET /metrics``."""
        try:
            self._check_token(request)
        except Refused as error:
            return _refusal(error.status, "Refused", str(error))
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def describe(self, request: Request) -> Response:  # noqa: ARG002
        """``GET /openapi.json``."""
        return Response(self._about, media_type="application/json")

    async def page(self, request: Request) -> Response:  # noqa: ARG002
        """``GET /``."""
        return HTMLResponse(self._html, headers=_PAGE_HEADERS)

    def _check_token(self, request: Request) -> None:
        if self._how.token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._how.token.encode()):
            raise Refused(401, "The token is missing or wrong. Send it as a header: Authorization: Bearer TOKEN")


def _status(found: Found) -> int:
    """Return 200 as soon as an image could be read; else whether what came was too large, or no image."""
    if len(found.errors) < len(found):
        return 200
    return 413 if all(reason.startswith(BOMB) for reason in found.errors.values()) else 422


def _refusal(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> Response:
    told = dict(headers or {})
    if status == 401:
        told["WWW-Authenticate"] = "Bearer"
    said = {"error": {"type": kind, "message": message}}
    return Response(_text(said), status, headers=told | _CLOSE, media_type="application/json")


def _text(said: dict[str, Any]) -> bytes:
    return json.dumps(said, allow_nan=False).encode()
