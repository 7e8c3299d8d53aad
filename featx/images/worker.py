"""One decoding process: ``python -m featx.images.worker SETTINGS``, started by `featx.images.DecodePool`.

It finds jobs in its inbox where a socket says that there are any, decodes into shared memory and answers with what it
has decoded and what not. It keeps no results between jobs, so killing it loses nothing.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.images.decoder import IDLE, Inbox, decode_into, map_pixels
from featx.images.policy import Unread, limit_pixels
from featx.images.resizing import Resizer
from featx.machine import limit_memory
from featx.recipe import Frame


def main(settings: dict[str, Any]) -> None:
    """Serve jobs until the socket closes.

    Parameters
    ----------
    settings : dict
        ``frame``, ``memory_limit`` (bytes), ``n_images`` (to come, or None), ``max_pixels`` (or None), and the
        inherited file descriptors ``socket``, ``inbox`` and ``memory``.
    """
    limit_memory(settings["memory_limit"])
    if settings["max_pixels"] is not None:
        limit_pixels(settings["max_pixels"])
    warnings.simplefilter("ignore")
    fields = settings["frame"]
    frame = Frame(**fields | {"background": tuple(fields["background"])})
    inbox, resize = Inbox(settings["inbox"]), Resizer(settings["n_images"])
    memory = np.empty((0, frame.height, frame.width, 3), np.uint8)
    with socket.socket(fileno=settings["socket"]) as channel, channel.makefile("rb") as jobs:
        _silence_stderr()
        for line in jobs:
            job = json.loads(inbox.read(*json.loads(line)))
            first, parcels = job["first"], job["parcels"]
            if parcels and first + parcels[-1][0] >= len(memory):  # it has grown
                memory = map_pixels(settings["memory"], frame)
            answer = decode_into(memory[first:], _opened(inbox, parcels), frame, resize)
            channel.sendall(json.dumps(answer).encode() + b"\n")
            resize.settle()


def _opened(inbox: Inbox, parcels: list[list[Any]]) -> Iterator[tuple[int, Unread]]:
    """Yield place and image, and note which is in hand until the next is asked for."""
    for place, *parcel in parcels:
        inbox.progress = place
        yield place, inbox.get(parcel)
    inbox.progress = IDLE


def _silence_stderr() -> None:
    """Once imports have worked, what comes here is libtiff and libjpeg talking to themselves."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
