"""What the page asks a `Session` for, as HTTP: JSON, arrays of numbers as they are, and pictures."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from featx.errors import DataError, FeatxError
from featx.exploring import maps, questions
from featx.features.label_log import standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from featx.exploring.session import Session

PAGE = Path(__file__).parent / "page"
#: Seconds that a window is kept waiting for news, and between two looks.
_WAIT, _TICK = 20.0, 0.04
_MOST = 2000
_CACHED = {"cache-control": "private, max-age=86400"}


def make_app(session: Session) -> Starlette:
    """Return the ASGI application of a session; `featx.exploring.guard.Guard` goes around it."""
    answers = {
        "start": _start, "label": _label, "keep": _keep, "undo": _undo, "search": _search, "photo": _photo,
        "next": _next, "doubts": _doubts, "duplicates": _duplicates, "outliers": _outliers, "slices": _slices,
        "column": _column, "rows": _rows, "find": _find,
    }  # fmt: skip
    routes: list[Any] = [Route("/", _page), Route("/api/changes", _changes)]
    routes += [Route(f"/api/{name}", _answer(answer), methods=["POST"]) for name, answer in answers.items()]
    routes += [Route("/api/array/{name}", _array), Route("/api/page/{number:int}.jpg", _sheet)]
    routes += [Route("/api/image/{row:int}.jpg", _image), Mount("/page", StaticFiles(directory=PAGE))]
    app = Starlette(routes=routes, exception_handlers={FeatxError: _explain})
    app.state.session = session
    return app


async def _page(request: Request) -> Response:
    del request
    headers = {"cache-control": "no-store"}
    return Response((PAGE / "index.html").read_bytes(), media_type="text/html; charset=utf-8", headers=headers)


def _answer(answer: Callable[[Session, Any], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        body = await request.body()
        try:
            asked = body if answer is _photo else json.loads(body or b"{}")
        except ValueError as error:
            raise DataError("The request is no JSON.") from error
        if answer is not _photo and not isinstance(asked, dict):
            raise DataError("The request is no JSON object.")
        return JSONResponse(await run_in_threadpool(answer, request.app.state.session, asked))

    return handle


async def _explain(request: Request, error: Exception) -> Response:
    del request
    return JSONResponse({"error": str(error)}, status_code=400)


async def _changes(request: Request) -> Response:
    """Answer when something has changed after a revision that the window knows, or after twenty seconds."""
    session: Session = request.app.state.session
    after = int(request.query_params.get("after", "0"))
    wait = min(_WAIT, float(request.query_params.get("wait", _WAIT)))
    for _ in range(int(wait / _TICK)):
        if session.revision > after or await request.is_disconnected():
            break
        await asyncio.sleep(_TICK)
    return JSONResponse(await run_in_threadpool(session.changes, after))


async def _array(request: Request) -> Response:
    return Response(
        await run_in_threadpool(_bytes_of, request.app.state.session, request.path_params["name"]),
        media_type="application/octet-stream",
        headers={"cache-control": "no-store"},
    )


def _bytes_of(session: Session, name: str) -> bytes:
    makers: dict[str, Callable[[], Any]] = {
        "map-principal": lambda: session.maps["principal"], "map-learned": lambda: session.maps.get("learned"),
        "map-umap": lambda: _umap(session), "rank": lambda: session.rank,
        "label": lambda: session.y.astype(np.int16), "touched": lambda: session.touched.astype(np.uint8),
        "prediction": session.prediction, "unsure": session.unsure, "doubt": session.doubt,
    }  # fmt: skip
    found = makers[name]() if name in makers else None
    if found is None:
        raise DataError(f"There is nothing called {name} yet.")
    return np.ascontiguousarray(found).tobytes()


def _umap(session: Session) -> Any:
    if "umap" not in session.maps:
        if not maps.has_umap():
            raise DataError("UMAP is not installed: pip install 'featx[umap]'")
        session.maps["umap"] = maps.umap(session.table)
    return session.maps["umap"]


async def _sheet(request: Request) -> Response:
    session, number = request.app.state.session, request.path_params["number"]
    if number >= session.pictures.n_pages:
        return Response(status_code=404)
    return Response(await run_in_threadpool(session.pictures.page, number), media_type="image/jpeg", headers=_CACHED)


async def _image(request: Request) -> Response:
    session, row = request.app.state.session, request.path_params["row"]
    if row >= len(session.table):
        return Response(status_code=404)
    try:
        data = await run_in_threadpool(session.pictures.large, row)
    except FeatxError:
        return Response(status_code=404)
    return Response(data, media_type="image/jpeg", headers=_CACHED)


def _start(session: Session, asked: Any) -> Any:
    del asked
    table = session.table
    columns = {name: column.values for name, column in session.columns.items()}
    kinds = ["principal", "learned", *(["umap"] if maps.has_umap() else [])]
    about = {
        "n": len(table),
        "d": int(np.prod(table.shape[1:])),
        "title": re.sub("-[0-9a-f]{8}$", "", table.dataset) or "table",
        "maps": kinds,
    }
    about |= {"log": str(session.log.path), "by": session.log.by, "columns": columns, "notes": session.notes}
    return about | session.changes(0) | {"rows": [], "labels": [], "touched": [], "learned": session.learned}


def _numbers(session: Session, asked: Any, name: str = "rows") -> list[int]:
    rows = asked.get(name)
    n = len(session.table)
    if not isinstance(rows, list) or not all(isinstance(row, int) and 0 <= row < n for row in rows):
        raise DataError(f"{name} are numbers of 0 … {n - 1:,}.")
    return list(dict.fromkeys(rows))


def _count(asked: Any, name: str, default: int) -> int:
    return max(1, min(_MOST, int(asked.get(name, default))))


def _label(session: Session, asked: Any) -> Any:
    label = asked.get("label")
    if not isinstance(label, str | None):
        raise DataError("A label is a text, or null for none.")
    rows = session.label(_numbers(session, asked), label.strip() if label is not None else None)
    return {"rows": rows, "revision": session.revision}


def _keep(session: Session, asked: Any) -> Any:
    session.keep(_numbers(session, asked))
    return {"revision": session.revision}


def _undo(session: Session, asked: Any) -> Any:
    del asked
    return {"undone": session.undo(), "revision": session.revision}


def _search(session: Session, asked: Any) -> Any:
    like, unlike = asked.get("like", []), asked.get("unlike", [])
    if not isinstance(like, list) or not isinstance(unlike, list):
        raise DataError("like and unlike are lists.")
    return questions.alike(session, like, unlike, _count(asked, "k", 200))


def _photo(session: Session, body: bytes) -> Any:
    return {"photo": session.vector(body)}


def _next(session: Session, asked: Any) -> Any:
    return questions.next_to_label(session, _count(asked, "n", 48))


def _doubts(session: Session, asked: Any) -> Any:
    return questions.doubted(session, _count(asked, "n", 100))


def _duplicates(session: Session, asked: Any) -> Any:
    return questions.twice_there(session, float(asked.get("near", 0.98)))


def _outliers(session: Session, asked: Any) -> Any:
    return questions.odd(session, _count(asked, "n", 100))


def _slices(session: Session, asked: Any) -> Any:
    return questions.slices(session, str(asked.get("column", "label")))


def _column(session: Session, asked: Any) -> Any:
    codes, values = questions.column_codes(session, str(asked.get("name")))
    return {"values": values, "codes": codes.tolist()}


def _find(session: Session, asked: Any) -> Any:
    text = str(asked.get("text", "")).lower()
    return {"rows": [row for row, (name, _) in enumerate(session.places.names) if text in name.lower()]}


def _rows(session: Session, asked: Any) -> Any:
    """Return what is known of rows: names, probable classes, and who labelled them when."""
    p, found = session.head.honest, []
    rows = _numbers(session, asked)[:_MOST]
    said = (
        {entry.item_id or f"id {entry.id}": entry for entry in standing(session.log.entries())}
        if len(rows) == 1
        else {}
    )
    for row in rows:
        name, item = session.places.names[row]
        one: dict[str, Any] = {"id": name, "split": str(session.table.splits[row])}
        if p.shape[1]:
            best = np.argsort(-p[row], kind="stable")[:3].tolist()
            one["top"] = [[session.classes[c], round(float(p[row, c]), 4)] for c in best]
        if entry := said.get(item or f"id {name}"):
            one |= {"by": entry.by, "when": entry.when}
        found.append(one)
    return {"rows": found}
