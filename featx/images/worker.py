"""One decoding process: ``python -m featx.images.worker SETTINGS``, started by `featx.images.DecodePool`.

It reads jobs from a socket, one line of JSON each, decodes into shared memory and answers with what could
not be decoded. It keeps no results between jobs, so killing it loses nothing.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from typing import Any

from featx.errors import ImageError
from featx.images.decoder import IDLE, Answer, Parcel, Slot, warned
from featx.images.resizing import Resize, Resizer, prepare
from featx.machine import limit_memory
from featx.recipe import Frame

_REASON_LENGTH = 300


def main(settings: dict[str, Any]) -> None:
    """Serve jobs until the socket closes.

    Parameters
    ----------
    settings : dict
        ``frame``, ``batch_size``, ``memory_limit`` (bytes), and the inherited file descriptors ``socket``
        and ``slots``.
    """
    limit_memory(settings["memory_limit"])
    warnings.simplefilter("ignore")
    fields = settings["frame"]
    frame = Frame(**fields | {"background": tuple(fields["background"])})
    size = {"batch_size": settings["batch_size"], "height": frame.height, "width": frame.width}
    slots = [Slot(fd, **size) for fd in settings["slots"]]
    resize = Resizer()
    with socket.socket(fileno=settings["socket"]) as channel, channel.makefile("rb") as jobs:
        _silence_stderr()
        for line in jobs:
            job = json.loads(line)
            answer = _decode(slots[job["slot"]], [Parcel(*fields) for fields in job["parcels"]], frame, resize)
            channel.sendall(json.dumps(answer).encode() + b"\n")
            resize.settle()


def _decode(slot: Slot, parcels: list[Parcel], frame: Frame, resize: Resize) -> Answer:
    """Decode a batch into its slot; return what is to be said of its images."""
    failures, doubts = [], []
    for parcel in parcels:
        slot.progress = parcel.position
        try:
            with warned() as said:
                slot.pixels[parcel.position] = prepare(slot.get(parcel), frame, resize)
            doubts += [(parcel.position, text) for text in said]
        except ImageError as error:
            failures.append((parcel.position, str(error)[:_REASON_LENGTH], error.transient))
        except MemoryError:
            failures.append((parcel.position, "decoding needs more memory than a decoder may use", True))
    slot.progress = IDLE
    return Answer(failures, doubts)


def _silence_stderr() -> None:
    """Once imports have worked, what comes here is libtiff and libjpeg talking to themselves."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
