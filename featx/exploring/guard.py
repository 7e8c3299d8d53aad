"""`Guard`: only this machine's own page, with the token in its address, gets an answer."""

from __future__ import annotations

import hmac
from typing import Any

#: What the page may do: load from its own origin, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
#: A header that no page of another origin can send without asking first, which is refused.
OWN = "x-featx"
_MOST_BYTES = 64 << 20


class Guard:
    """An ASGI application around another, which it hides from all but its own page.

    A request must name a host of this machine with the port (no name that another site has bent to 127.0.0.1), carry
    the token in its path, come from no other origin and, if it changes anything, have a header of ours.

    Parameters
    ----------
    app : ASGI application
        Sees the path behind the token.
    token : str
    port : int
    """

    def __init__(self, app: Any, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused:
            headers = [(b"content-type", b"text/plain"), *_encoded()]
            await send({"type": "http.response.start", "status": refused, "headers": headers})
            await send({"type": "http.response.body", "body": b"Refused.\n"})
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_encoded()]
            await send(message)

        path = "/" + scope["path"].split("/", 2)[2]
        await self._app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, guarded)

    def _refusal(self, scope: Any) -> int:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"")
        if host not in self._hosts:
            return 421
        parts = scope["path"].split("/", 2)
        if len(parts) < 3 or not hmac.compare_digest(parts[1].encode(), self._token):
            return 404
        if headers.get(b"origin", b"http://" + host) != b"http://" + host:
            return 403
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            return 403
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405
        if scope["method"] == "POST":
            length = headers.get(b"content-length", b"")
            if not length.isdigit() or int(length) > _MOST_BYTES:
                return 413
            if headers.get(OWN.encode()) != b"1":
                return 403
        return 0


def _encoded() -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
