"""``featx serve``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.options import settings_options, taken
from featx.cli.predict import opened
from featx.errors import MissingExtraError
from featx.model.settings import Loading
from featx.serving.settings import Serving


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@settings_options(Serving, Loading)
@common
def serve(console: Console, cache: Path, model: Path, **options: Any) -> None:  # noqa: ARG001
    """Answer over HTTP, with a page to drop photos on, until Ctrl-C or SIGTERM.

    \b
    featx serve model.featx
    featx serve model.onnx --port 8080 --token "$(openssl rand -hex 16)"
    curl -F image=@photo.jpg http://127.0.0.1:8000/predict

    Answers are those of featx predict --json. /healthz says whether it is there, /metrics is for Prometheus,
    /openapi.json for those who generate clients. Photos are decoded in processes of their own.
    """
    loading = taken(Loading, options)
    options["token"] = options["token"] or os.environ.get("FEATX_TOKEN")
    how = Serving(**options)
    try:
        from featx.serving.server import Server, is_local
    except ImportError as error:
        raise MissingExtraError.of(error.name or "uvicorn", "serve", "featx serve") from error
    if how.token is None and not is_local(how.host):
        console.note(f"Whoever reaches {how.host} may ask: there is no --token.")
    with Server(opened(model, loading), how) as server:
        console.result(
            {"address": server.address, "model": str(model), "pid": os.getpid()},
            f"{server.address} answers for {model}. Ctrl-C ends it.",
        )
        sys.stdout.flush()
        server.run()
    console.note("Ended; what was under way is answered.")
