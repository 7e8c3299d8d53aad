"""`Server`: a model on an address, until it is told to end; who sends too slowly is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from featx.errors import OptionError
from featx.serving.app import application
from featx.serving.line import Line
from featx.serving.metrics import Metrics

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from featx.model import Model
    from featx.packing import PackedModel
    from featx.serving.settings import Serving

#: Seconds and bytes that the head of a request may take.
_HEAD_SECONDS, _HEAD_BYTES = 10.0, 64 << 10
#: Seconds that an open connection may wait for its next request.
_IDLE_SECONDS = 65
#: Requests that are read at the same time; further ones are refused (503).
_AT_ONCE = 1024


class Server:
    """A model that answers over HTTP; a context manager, whose end answers what is under way.

    Parameters
    ----------
    model : Model or PackedModel
        Of images.
    how : Serving

    Raises
    ------
    OptionError
        If it cannot listen there.

    Examples
    --------
    ::

        with Server(featx.load("model.featx"), Serving()) as server:
            print(server.address)
            server.run()
    """

    def __init__(self, model: Model | PackedModel, how: Serving) -> None:
        self._how = how
        self._socket = _listening(how.host, how.port)
        try:
            metrics = Metrics()
            self._line = Line(model, how, on_batch=metrics.count_batch)
        except BaseException:
            self._socket.close()
            raise
        config = uvicorn.Config(
            application(self._line, how, metrics),
            http=_Patient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_AT_ONCE,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=int(2 * how.seconds) + 1,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # requests that are no HTTP are nobody's trouble
        self._server = uvicorn.Server(config)

    @property
    def address(self) -> str:
        """Where it listens: ``http://127.0.0.1:8000``."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Answer until SIGTERM or Ctrl-C, and then what is under way."""
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises when all is answered
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `run` from another thread, as SIGTERM does."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.close()
        self._socket.close()


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        hint = "Another program does? Take a free one: --port 0" if port else "Try --host 127.0.0.1"
        raise OptionError(f"Cannot listen on {host}, port {port} ({error.strerror}). {hint}") from error


class _Patient(HttpToolsProtocol):
    """HTTP with an end to patience: uvicorn waits for ever for the head of a request, and takes any number of bytes."""

    _timer: asyncio.TimerHandle | None = None
    _n_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        if self._timer is not None:
            self._n_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._n_bytes > _HEAD_BYTES:
            self._cut("431 Request Header Fields Too Large", f"more than {_HEAD_BYTES:,} bytes")

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._n_bytes = 0
        self._timer = self.loop.call_later(
            _HEAD_SECONDS, self._cut, "408 Request Timeout", f"not there after {_HEAD_SECONDS:g} s"
        )

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self, status: str, why: Any) -> None:
        self._arrived()
        if not self.transport.is_closing():
            text = f"The head of the request is {why}."
            self.transport.write(
                f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(text)}\r\n\r\n{text}".encode()
            )
            self.transport.close()
