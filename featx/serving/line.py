"""`Line`: images that come one by one go through decoders and networks together, as many as are waiting."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from featx.errors import FeatxError, OptionError
from featx.images import DecodePool
from featx.model import Predictions
from featx.model.predictions import check_thresholds
from featx.model.settings import Thresholds
from featx.model.target_predictions import LabelPredictions, NumberPredictions
from featx.settings import part_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model import Model
    from featx.packing import PackedModel
    from featx.serving.settings import Serving

log = logging.getLogger("featx")

Found: TypeAlias = Predictions | LabelPredictions | NumberPredictions

#: Images that go through the networks together, at most: more only wait for each other.
BATCH = 32
#: Seconds after which a decoder that says nothing is taken for hung.
_DECODER_SECONDS = 10.0


class Busy(FeatxError):
    """More images wait than may."""


class Stopped(FeatxError):
    """The service is ending."""


@dataclass(eq=False)
class _Ticket:
    """An image under way, and who waits for what is said of it."""

    image: bytes
    done: Callable[[_Said | str | Exception], None]
    is_given_up: bool = False


#: Of one image: a row of probabilities or numbers (k,), and its familiarity, None where the model has none.
_Said: TypeAlias = tuple["NDArray[np.float64]", float | None]
#: Images with their pixels for each frame.
_Decoded: TypeAlias = tuple[list[_Ticket], list["NDArray[np.uint8]"]]


class Line:
    """A model that answers many who ask at the same time.

    Two threads share the work: one takes what waits, 32 images at most, and has it decoded in processes of their own;
    the other runs the networks on what the first has decoded before. Nobody waits for others to come: an image that
    comes alone goes alone, and those that come meanwhile go together.

    Parameters
    ----------
    model : Model or PackedModel
        Of images.
    how : Serving
    on_batch : callable, optional
        Is told how many images go through the networks together.

    Raises
    ------
    FeatxError
        If the model's networks cannot be opened here, or it is one of rows and not of images.
    """

    def __init__(
        self, model: Model | PackedModel, how: Serving, *, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        if getattr(model, "items", None) is not None:
            raise OptionError("The model predicts items of several images, which are not served: type featx predict.")
        self.model, self._how, self._on_batch = model, how, on_batch
        self._frames = model.frames
        self._waiting: deque[_Ticket] = deque()
        self._come = threading.Condition()
        self._ends = False
        self._decoded: queue.Queue[_Decoded | None] = queue.Queue(1)
        self._pools = self._opened()
        try:
            blank = [np.zeros((1, frame.height, frame.width, 3), np.uint8) for frame in self._frames]
            _, familiarity = self._answers(blank)  # opens the networks
            self._knows_familiarity = familiarity is not None
            check_thresholds(how, model.columns, model.outputs, known=self._knows_familiarity)
        except BaseException:
            self._close_pools()
            raise
        self._threads = [
            threading.Thread(target=self._decode, name="featx-decode"),
            threading.Thread(target=self._run, name="featx-network"),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def n_waiting(self) -> int:
        """Images that nobody has begun with."""
        return len(self._waiting)

    async def classify(self, images: Sequence[bytes], ids: Sequence[str]) -> Found:
        """Say what the model does of some images, with a reason for each that cannot be read.

        Parameters
        ----------
        images : sequence of bytes
            Whole files.
        ids : sequence of str
            What each is called.

        Raises
        ------
        Busy
            If they are more than may wait.
        Stopped
            If the service is ending.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[_Said | str]] = [loop.create_future() for _ in images]
        tickets = [_Ticket(image, _telling(loop, future)) for image, future in zip(images, futures, strict=True)]
        with self._come:
            if self._ends:
                raise Stopped("The service is ending. Ask again in a moment.")
            if self._waiting and len(self._waiting) + len(tickets) > self._how.queue:
                raise Busy(f"{len(self._waiting):,} images wait already. Ask again in a moment.")
            self._waiting.extend(tickets)
            self._come.notify()
        try:
            return self._together(await asyncio.gather(*futures), ids)
        finally:
            for ticket in tickets:
                ticket.is_given_up = True

    def close(self) -> None:
        """Answer what is under way, then end all threads and processes."""
        with self._come:
            self._ends = True
            self._come.notify()
        for thread in self._threads:
            thread.join()
        self._close_pools()

    def _opened(self) -> list[DecodePool]:
        pools: list[DecodePool] = []
        try:
            for frame in self._frames:
                pool = DecodePool(
                    frame,
                    n_workers=self._how.workers,
                    timeout=min(_DECODER_SECONDS, self._how.seconds),
                    max_pixels=self._how.max_pixels,
                )
                pools.append(pool)
        except BaseException:
            for pool in pools:
                pool.close()
            raise
        return pools

    def _close_pools(self) -> None:
        for pool in self._pools:
            pool.close()

    def _answers(self, pixels: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        how = self._how
        return self.model.answers(pixels, engine=how.engine, device=how.device, batch_size=how.batch_size)

    def _take(self) -> list[_Ticket]:
        """Wait for images, and return those that somebody still waits for; none when there will be no more."""
        while True:
            with self._come:
                self._come.wait_for(lambda: self._waiting or self._ends)
                taken = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            wanted = [ticket for ticket in taken if not ticket.is_given_up]
            if wanted or not taken:
                return wanted

    def _decode(self) -> None:
        while tickets := self._take():
            try:
                self._decoded.put(self._pixels(tickets))
            except Exception as error:
                log.exception("Decoding failed")
                _fail(tickets, error)
                self._close_pools()
                self._pools = self._opened()
        self._decoded.put(None)

    def _pixels(self, tickets: list[_Ticket]) -> _Decoded:
        """Return the images that can be read, with their pixels, and tell the others why not."""
        pixels, reasons = [], dict[int, str]()
        images = [ticket.image for ticket in tickets]
        for pool in self._pools:
            for slab in pool.batches([enumerate(images)], BATCH):
                pixels.append(slab.pixels.copy())
                reasons |= {place: str(error) for place, error in slab.errors.items()}
                pool.release(slab)
        for place, reason in reasons.items():
            tickets[place].done(reason)
        good = [place for place in range(len(tickets)) if place not in reasons]
        return [tickets[place] for place in good], [of_frame[good] for of_frame in pixels]

    def _run(self) -> None:
        while (decoded := self._decoded.get()) is not None:
            tickets, pixels = decoded
            if not tickets:
                continue
            try:
                said, familiarity = self._answers(pixels)
            except Exception as error:
                log.exception("The network failed")
                _fail(tickets, error)
                continue
            self._on_batch(len(tickets))
            for i, ticket in enumerate(tickets):
                ticket.done((said[i], None if familiarity is None else float(familiarity[i])))

    def _together(self, said: list[_Said | str], ids: Sequence[str]) -> Found:
        model, n = self.model, len(said)
        array, familiarity = np.full((n, len(model.columns)), np.nan), np.full(n, np.nan)
        reasons = {}
        for i, one in enumerate(said):
            if isinstance(one, str):
                reasons[i] = one
            else:
                array[i] = one[0]
                familiarity[i] = np.nan if one[1] is None else one[1]
        found: dict[str, Any] = {
            "ids": tuple(ids),
            "errors": reasons,
            "familiarity": familiarity if self._knows_familiarity else None,
            **vars(part_of(Thresholds, self._how)),
        }
        if model.outputs is None:
            return Predictions(classes=model.classes, probabilities=array, **found)
        kind = LabelPredictions if model.outputs.task == "multilabel" else NumberPredictions
        return kind(outputs=model.outputs, array=array, **found)


def _telling(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """Return a function that gives `future`, of another thread, its result."""

    def tell(result: Any) -> None:
        if future.done():  # nobody waits any more
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    return lambda result: _called(loop, tell, result)


def _called(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, argument)
    except RuntimeError:  # the loop has ended, and with it whoever waited
        log.debug("An answer came too late")


def _fail(tickets: list[_Ticket], error: Exception) -> None:
    for ticket in tickets:
        ticket.done(error)
