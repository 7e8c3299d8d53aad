"""What a request brings: files in a form, base64 in JSON, or one image as it is; never more than is allowed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from featx.errors import FeatxError

if TYPE_CHECKING:
    from starlette.requests import Request

    from featx.serving.settings import Serving

#: How to ask, for those who asked in another way.
_HOW = (
    "Send images as multipart/form-data, one as the body itself (Content-Type: image/jpeg), or JSON such as "
    '{"images": ["<base64>", {"id": "a.jpg", "data": "<base64>"}]}.'
)


class Refused(FeatxError):
    """A request that is not answered: `status` is the number of HTTP, the message a sentence for whoever asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Images:
    """The images of a request, and what each is called."""

    ids: list[str]
    files: list[bytes]


async def read_images(request: Request, how: Serving) -> Images:
    """Read the images of a request.

    Parameters
    ----------
    request : Request
    how : Serving

    Raises
    ------
    Refused
        If there are none or too many, the body is too large, comes too slowly, or is none of the three kinds.
    """
    try:
        async with asyncio.timeout(how.seconds):
            found = await _read(request, how)
    except TimeoutError as error:
        raise Refused(408, f"The request did not arrive within {how.seconds:g} s. Send less, or faster.") from error
    if not found.files:
        raise Refused(400, f"The request brings no image. {_HOW}")
    if len(found.files) > how.max_images:
        n = len(found.files)
        raise Refused(413, f"The request brings {n:,} images, more than {how.max_images:,}. Send them in parts.")
    return found


async def _read(request: Request, how: Serving) -> Images:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request, how)
    if kind == "application/json":
        return _of_json(await _whole(request, how))
    if kind.startswith("image/") or kind == "application/octet-stream":
        data = await _whole(request, how)
        return Images(["image"] if data else [], [data] if data else [])
    raise Refused(415, f"Content-Type is {kind or 'not said'}. {_HOW}")


async def _limited(request: Request, how: Serving) -> AsyncGenerator[bytes, None]:
    too_large = Refused(413, f"The request has more than {how.n_bytes:,} bytes. Send fewer or smaller images.")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > how.n_bytes:
        raise too_large
    n_bytes = 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > how.n_bytes:
            raise too_large
        yield chunk


async def _whole(request: Request, how: Serving) -> bytes:
    return b"".join([chunk async for chunk in _limited(request, how)])


async def _of_form(request: Request, how: Serving) -> Images:
    parser = MultiPartParser(
        request.headers, _limited(request, how), max_files=how.max_images + 1, max_part_size=how.n_bytes
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError, AttributeError) as error:  # without a boundary, for example
        if "Too many files" in str(error):
            raise Refused(413, f"More than {how.max_images:,} images. Send them in parts.") from error
        raise Refused(400, f"The form cannot be read ({error}). {_HOW}") from error
    ids, files = [], []
    try:
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                files.append(await part.read())
                ids.append(part.filename or name)
    finally:
        await form.close()
    return Images(ids, files)


def _of_json(body: bytes) -> Images:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON. {_HOW}") from error
    given = said.get("images") if isinstance(said, dict) else None
    if not isinstance(given, list):
        raise Refused(400, f"The JSON has no list of images. {_HOW}")
    ids, files = [], []
    for number, one in enumerate(given, start=1):
        name, data = (one.get("id"), one.get("data")) if isinstance(one, dict) else (None, one)
        if not isinstance(data, str) or not isinstance(name, str | None):
            raise Refused(400, f"Image {number} is no base64. {_HOW}")
        ids.append(f"image {number}" if name is None else name)
        files.append(_decoded(data, number))
    return Images(ids, files)


def _decoded(text: str, number: int) -> bytes:
    if text.startswith("data:"):  # as browsers have it
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"Image {number} is no base64 ({error}). {_HOW}") from error


def number_of(request: Request, name: str, default: int) -> int:
    """Return a whole number above 0 from the address of a request: ``?top=3``.

    Raises
    ------
    Refused
    """
    text: Any = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0) or len(text) > 9:
        raise Refused(400, f"?{name}= takes a whole number above 0, got {text[:20]!r}.")
    return int(text)
