"""Takes and answers requests of the usual form where their bytes arrive, without aiohttp's request and response.

aiohttp still reads all requests, and serves each that is in any way unusual: one that asks to go on, comes in parts or
behind another, ends its connection, or is strange to whoever listens. What it takes for that (two tasks, three
futures, five objects, some sixty calls) is more than half of what a vote costs a gateway.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11, RawRequestMessage

from serving.connections import ConnectionGuard

log = logging.getLogger(__name__)

JSON = "application/json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_Read = TypeVar("_Read")
_REASONS = {200: "OK", 202: "Accepted"}


class Taken:
    """A request that was taken, and is to be answered: until then its connection is not idle."""

    __slots__ = ("connection", "message", "task")

    def __init__(self, handler: "StraightHandler", message: RawRequestMessage) -> None:
        self.connection = handler.guard.begin_over(handler.transport)
        self.message = message
        self.task: asyncio.Task[None] | None = None  # that answers it, where one does


class Rest(NamedTuple):
    """What is left to do of a request that was taken."""

    handle: Handler
    taken: Taken


class StraightHandler(web.RequestHandler):
    """aiohttp's handler of one connection, but for requests that `takes` takes.

    Args:
        paths: those of the requests that may be taken; they are POSTs of JSON.
    """

    __slots__ = ("_at_hand", "_paths", "guard", "rest")
    refusals: ClassVar[tuple[type[Exception], ...]] = (web.HTTPException,)  # all else is a mistake of ours

    def __init__(self, guard: ConnectionGuard, paths: Collection[str], *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.guard = guard
        self._paths = paths
        self._at_hand: Taken | None = None
        self.rest: Rest | None = None  # what is left to do of the request that aiohttp will now begin with

    @abstractmethod
    def takes(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Take a request of the usual form, and hold it until it is answered; where it is False, aiohttp serves it."""

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():  # a request is being served by aiohttp
            super().data_received(data)
            return
        self._waiter = None  # so that nobody is woken before it is clear who serves what came
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if self._messages and self._at_hand is None and not self._paused and not self._takes_first():
            waiter.set_result(None)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def _go_on(self) -> None:
        """Once an answer was given, and read: let aiohttp serve what waits, or end, where nothing more is taken."""
        waiter = self._waiter
        if self._at_hand is not None or self._paused or waiter is None or waiter.done():
            return
        if self._close:
            self.force_close()
        elif self._messages:
            waiter.set_result(None)

    def _takes_first(self) -> bool:
        """Take the one request that is there, if it is of the usual form."""
        message, payload = self._messages[0]
        if (
            len(self._messages) > 1
            or not isinstance(message, RawRequestMessage)
            or message.path not in self._paths
            or message.method != hdrs.METH_POST
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or message.compression
            or message.headers.get(hdrs.CONTENT_TYPE) != JSON
            or hdrs.EXPECT in message.headers
            or not payload.is_eof()
            or payload.exception() is not None
            or self._close
        ):
            return False
        return self.takes(message, payload)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading where it was paused; where it was not, as with each small body, nothing is parsed anew."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def take_body(
        self, message: RawRequestMessage, payload: StreamReader, read: Callable[[bytes], _Read | None]
    ) -> _Read | None:
        """What `read` makes of the body; then the request leaves the queue, and those behind it have its place.

        None where it makes nothing of it: the request stays, with its body.
        """
        raw = payload.read_nowait()
        found = read(raw)
        if found is None:
            self._messages[0] = (message, _refilled(raw, self))
            return None
        self._messages.clear()
        if self._parser is not None:
            self._parser.message_consumed()
        self._request_in_progress = True
        return found

    def hold(self, taken: Taken, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Let what comes behind it wait until it is answered, or handed over; by `work`, in a task, if by nobody else.

        Whatever `work` raises before it has answered is told in the usual way; a mistake of ours is logged even if its
        caller has gone. Where `work` is cancelled, the connection ends.
        """
        self._at_hand = taken
        if work is not None:
            taken.task = self._loop.create_task(self._done(taken, work))

    async def _done(self, taken: Taken, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:  # of what it waited for, if not its own: nobody would answer any more
            self.force_close()
            raise
        except Exception as error:
            if self._at_hand is not taken:
                log.exception("a request failed")
                self.force_close()
            elif not self.hand_over(taken, _raising(error)) and not isinstance(error, self.refusals):
                log.exception("a request failed, and its caller has gone")

    def answer(self, taken: Taken, status: int, body: bytes, headers: str = "") -> None:
        """Answer with JSON; `headers` are lines of one's own, each with its end."""
        self._at_hand = None
        self.guard.end(taken.connection)
        if self.transport is not None:
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {JSON}\r\n{headers}"
                f"Content-Length: {len(body)}\r\n{_dated(int(time.time()))}"
            )
            self.transport.write(head.encode() + body)
        self._request_in_progress = False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        self._go_on()

    def hand_over(self, taken: Taken, rest: Handler) -> bool:
        """Let aiohttp serve the rest: somebody is to be asked, or waited for, or a problem is to be told.

        False where the caller has gone, and nothing is left to do.
        """
        self._at_hand = None
        is_there = self.transport is not None and not self.transport.is_closing()
        if is_there and self._waiter is not None and not self._waiter.done():
            self.rest = Rest(rest, taken)
            self._messages.appendleft((taken.message, _refilled(b"", self)))
            self._waiter.set_result(None)
            return True
        self.guard.end(taken.connection)
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        return False

    def close(self) -> None:
        """Take no more requests; whoever waits for an answer, or reads one, still gets it, from aiohttp if need be."""
        if self._at_hand is None and not self._paused:
            super().close()
        else:
            self._close = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the signature is aiohttp's
        """End the connection, and with it, as aiohttp does, what has no answer when the time is over."""
        await super().shutdown(timeout)
        if self._at_hand is not None and self._at_hand.task is not None:
            self._at_hand.task.cancel()

    def _process_keepalive(self) -> None:
        if self._at_hand is None:
            super()._process_keepalive()
        else:  # it is not idle
            self._keepalive_handle = self._loop.call_later(self._keepalive_timeout, self._process_keepalive)


def rest_of(request: web.Request) -> Rest | None:
    """What is left to do, where a request was handed over; whoever is given it does that, and nothing else of it."""
    handler = request.protocol
    if not isinstance(handler, StraightHandler) or handler.rest is None:
        return None
    rest, handler.rest = handler.rest, None
    handler.guard.end(rest.taken.connection)  # not earlier: between two requests it may have to make room for others
    return rest


def _raising(error: Exception) -> Handler:
    async def rest(_: web.Request) -> web.StreamResponse:
        raise error

    return rest


def _refilled(raw: bytes, handler: StraightHandler) -> StreamReader:
    """A body that is there, for whoever reads it next."""
    payload = StreamReader(handler, len(raw), loop=handler._loop)  # a bound that it keeps: nothing is to be paused
    payload.feed_data(raw)
    payload.feed_eof()
    return payload


@lru_cache(maxsize=2)
def _dated(now_s: int) -> str:
    """The rest of an answer's head, which is the same for a second."""
    moment = time.gmtime(now_s)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.tm_wday]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[moment.tm_mon - 1]
    date = f"{day}, {moment.tm_mday:02d} {month} {moment.tm_year} {time.strftime('%H:%M:%S', moment)} GMT"
    return f"Date: {date}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"
