"""`serve`: the page of a session on this machine alone, until it is stopped."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from typing import TYPE_CHECKING

from featx.errors import FeatxError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.exploring.session import Session

HOST = "127.0.0.1"


def check_installed() -> None:
    """Refuse to begin what could not be served.

    Raises
    ------
    MissingExtraError
        If Starlette or uvicorn is missing.
    """
    try:
        import starlette
        import uvicorn

        del starlette, uvicorn
    except ImportError as error:
        raise MissingExtraError.of(str(error.name), "explore", "featx explore") from error


def listen(port: int) -> socket.socket:
    """Return a socket on 127.0.0.1; port 0 takes a free one.

    Raises
    ------
    FeatxError
        If the port is taken.
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((HOST, port))
    except OSError as error:
        one.close()
        raise FeatxError(f"Port {port} is taken ({error.strerror}). Name another: --port 0 takes a free one") from error
    return one


def serve(session: Session, *, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve a session until SIGINT or SIGTERM.

    Parameters
    ----------
    session : Session
    port : int
        0 for a free one.
    browser : bool
        Open the page.
    say : callable
        Takes the address when it answers.
    """
    import uvicorn

    from featx.exploring.app import make_app
    from featx.exploring.guard import Guard

    with listen(port) as one:
        number, token = one.getsockname()[1], secrets.token_urlsafe(18)
        address = f"http://{HOST}:{number}/{token}/"
        config = uvicorn.Config(
            Guard(make_app(session), token, number), log_level="critical", access_log=False, lifespan="off",
            timeout_graceful_shutdown=1, server_header=False, proxy_headers=False,
        )  # fmt: skip
        one.listen(128)
        session.start()
        say(address)
        if browser:
            webbrowser.open(address)
        try:
            uvicorn.Server(config).run(sockets=[one])
        finally:
            session.close()
