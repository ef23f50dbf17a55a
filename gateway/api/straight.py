"""Takes and answers single votes and anchors of the usual form where their bytes arrive, without request and response.

aiohttp still reads all requests, and serves each that is in any way unusual: one that asks to go on, comes in parts or
from a web page, is refused, or repeated, or whose ballot's end is another than its place on the chain. What it takes
for that (a task, three futures, five objects, some sixty calls) is more than half of what a vote costs a gateway.
An anchor has a task, since it is asked after before it is taken.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import orjson
from aiohttp import StreamReader, hdrs, web
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11, RawRequestMessage
from multidict import CIMultiDictProxy, istr

from gateway.access import Need
from gateway.api import anchors
from gateway.api.common import CALLS, GATEWAY, GUARD, Handler, presented, problems, waiting_s
from gateway.api.pages import HOSTS, JSON, is_of_a_page
from gateway.api.unreadable import RequestHandler
from gateway.api.votes import shown_of, told
from gateway.book import Item, call_at_end
from gateway.casting import ballot_at_once
from gateway.plainvotes import Vote, read_plain_vote
from gateway.problems import Problem
from gateway.records import Anchor
from gateway.service import Gateway
from serving.connections import ConnectionGuard, Guarded
from serving.logs import REQUEST_ID, REQUEST_ID_HEADER, new_request_id, read_request_id

log = logging.getLogger(__name__)


class Rest(NamedTuple):
    """What is left to do of a request that was taken."""

    handle: Handler
    one: "_Request"


_Taken = TypeVar("_Taken")
_REQUEST_ID = istr(REQUEST_ID_HEADER)
_REASONS = {200: "OK", 202: "Accepted"}


class Counter:
    """Where votes and anchors are handed in: what is the same for all connections."""

    def __init__(self, app: web.Application, path: str, anchor_path: str) -> None:
        """`path` and `anchor_path`: of the routes that take single votes and anchors, by POST."""
        self.gateway: Gateway = app[GATEWAY]
        self.guard: ConnectionGuard = app[GUARD]
        self.path, self.anchor_path = path, anchor_path
        self._hosts, self._calls = app[HOSTS], app[CALLS]
        self._routes = {one: f"{hdrs.METH_POST} {one}" for one in (path, anchor_path)}
        self._tasks: set[asyncio.Task[None]] = set()
        self._body_bytes_max = self.gateway.config.limits.body_bytes_max

    def admits(self, headers: CIMultiDictProxy[str], need: Need = "vote") -> bool:
        """Whether nothing about the head of a request is unusual."""
        keeper = self.gateway.gatekeeper
        if headers.get(hdrs.CONTENT_TYPE) != JSON or hdrs.EXPECT in headers:
            return False
        if keeper.bounds_rates:  # what is refused in the end is to be counted once
            return False
        if keeper.asks_for_keys:
            try:
                keeper.admit(presented(headers), "", need)
            except Problem:
                return False
            return True
        return self._hosts.allow(headers.get(hdrs.HOST)) and not is_of_a_page(headers)

    def take(self, raw: bytes) -> tuple[Item, Vote, str] | None:
        """The item of a new ballot, its vote and transaction id; None where there is anything to say about it."""
        if len(raw) > self._body_bytes_max:
            return None
        try:
            vote = read_plain_vote(orjson.loads(raw))
        except orjson.JSONDecodeError:
            return None
        if vote is None:
            return None
        try:
            made = ballot_at_once(self.gateway, vote)
            if made is None or (item := self.gateway.keep_new(made[0])) is None:
                return None
            return item, vote, made[1]
        except Problem:
            return None
        except Exception:
            log.exception("a vote could not be taken where it arrived")
            return None

    def anchor(self, raw: bytes) -> Anchor | None:
        """The anchor of a body; None where there is anything to say about it."""
        if len(raw) > self._body_bytes_max:
            return None
        try:
            return anchors.read_plain_anchor(orjson.loads(raw))
        except orjson.JSONDecodeError:
            return None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Serve a request in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def note(self, one: "_Request") -> None:
        """A request was answered."""
        self._calls.note(self._routes[one.message.path], time.perf_counter() - one.began_s)


class Straight(RequestHandler):
    """aiohttp's handler of one connection, but for votes and anchors of the usual form."""

    __slots__ = ("_at_hand", "_counter", "rest")

    def __init__(self, counter: Counter, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._counter = counter
        self._at_hand: _Request | None = None
        self.rest: Rest | None = None  # what is left to do of the request that aiohttp will now begin with

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
        if self._messages and self._at_hand is None and not self._takes():
            waiter.set_result(None)

    def _takes(self) -> bool:
        """Take the one request that is there, if it is of the usual form."""
        counter, (message, payload) = self._counter, self._messages[0]
        if (
            len(self._messages) > 1
            or not isinstance(message, RawRequestMessage)
            or message.path not in (counter.path, counter.anchor_path)
            or message.method != hdrs.METH_POST
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or message.compression
            or not payload.is_eof()
            or payload.exception() is not None
            or self._paused  # the last answer was not read yet
            or self._close
        ):
            return False
        if message.path == counter.anchor_path:
            return self._takes_anchor(message, payload)
        return self._takes_vote(message, payload)

    def _takes_anchor(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        counter, began_s = self._counter, time.perf_counter()
        if not counter.admits(message.headers, "anchor"):
            return False
        taken = self._taken(message, payload, counter.anchor)
        if taken is None:
            return False
        self._at_hand = one = _Request(counter.guard.begin_over(self.transport), message, began_s)
        counter.spawn(self._serve_anchor(one, taken))
        return True

    async def _serve_anchor(self, one: "_Request", anchor: Anchor) -> None:
        REQUEST_ID.set(one.request_id)  # for what is logged from here on, and for the validators that are asked
        try:
            shown = await anchors.take(self._counter.gateway, anchor)
        except Exception as error:
            self._hand_over(one, _raising(error))  # it is told in the usual way
            return
        try:
            self._answer(one, *shown)
        except Exception:
            log.exception("a request failed")
            self.force_close()

    def _takes_vote(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        counter, began_s, headers = self._counter, time.perf_counter(), message.headers
        wait_s = waiting_s(headers, counter.gateway)
        if wait_s <= 0 or not counter.admits(headers):
            return False
        taken = self._taken(message, payload, counter.take)
        if taken is None:
            return False
        connection = counter.guard.begin_over(self.transport)
        self._at_hand = one = _AtHand(self, connection, message, taken, began_s)
        one.due = call_at_end(taken[0], one, wait_s)
        return True

    def _taken(
        self, message: RawRequestMessage, payload: StreamReader, read: Callable[[bytes], _Taken | None]
    ) -> _Taken | None:
        """What `read` makes of the body; then the request leaves the queue, and those behind it have its place.

        None where it makes nothing of it: the request stays, with its body.
        """
        raw = payload.read_nowait()
        taken = read(raw)
        if taken is None:
            self._messages[0] = (message, _refilled(raw, self))
            return None
        self._messages.clear()
        if self._parser is not None:
            self._parser.message_consumed()
        self._request_in_progress = True
        return taken

    def end(self, one: "_AtHand") -> None:
        """Answer, or let aiohttp do so: the end of the ballot at hand is known, or its caller waits no longer."""
        item, vote, transaction_id = one.taken
        if item.reason is None and item.durable:
            self._answer(one, *shown_of(self._counter.gateway, item, vote.election_id, transaction_id))
        else:
            gateway = self._counter.gateway

            async def rest(_: web.Request) -> web.StreamResponse:
                return await told(gateway, item, vote.election_id, transaction_id)

            self._hand_over(one, rest)

    def _answer(self, one: "_Request", document: dict[str, Any], status: int) -> None:
        if self.transport is not None:
            body = orjson.dumps(document)
            self.transport.write(
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {JSON}\r\n"
                f"{REQUEST_ID_HEADER}: {one.request_id}\r\n"
                f"Content-Length: {len(body)}\r\n{_dated(int(time.time()))}".encode()
                + body
            )
        self._counter.note(one)
        self._counter.guard.end(one.connection)
        self._at_hand = None
        self._request_in_progress = False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        if self._close:
            self.force_close()
        elif self._messages and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hand_over(self, one: "_Request", rest: Handler) -> None:
        """Let aiohttp serve the rest: somebody is to be asked, or waited for, or a problem is to be told."""
        self._at_hand = None
        is_there = self.transport is not None and not self.transport.is_closing()
        if is_there and self._waiter is not None and not self._waiter.done():
            self.rest = Rest(rest, one)
            self._messages.appendleft((one.message, _refilled(b"", self)))
            self._waiter.set_result(None)
        else:
            self._counter.guard.end(one.connection)
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)

    def close(self) -> None:
        """Take no more requests; whoever waits for an answer still gets it, from aiohttp if need be."""
        if self._at_hand is None:
            super().close()
        else:
            self._close = True

    def _process_keepalive(self) -> None:
        if self._at_hand is None:
            super()._process_keepalive()
        else:  # it is not idle
            self._keepalive_handle = self._loop.call_later(self._keepalive_timeout, self._process_keepalive)


def all_or_rest(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """What answers a request: `problems` around its handler, or around what is left to do of it."""
    connection = request.protocol
    if not isinstance(connection, Straight) or connection.rest is None:
        return problems(request, handler)
    (handle, one), connection.rest = connection.rest, None
    request.app[GUARD].end(one.connection)  # not earlier: between two requests it may have to make room for others
    return problems(request, handle, one.began_s, one.request_id)


class _Request:
    """One that was taken, and is to be answered."""

    __slots__ = ("_request_id", "began_s", "connection", "message")

    def __init__(self, connection: Guarded | None, message: RawRequestMessage, began_s: float) -> None:
        self.connection, self.message, self.began_s = connection, message, began_s
        self._request_id: str | None = None

    @property
    def request_id(self) -> str:
        """The caller's, or one of ours."""
        if self._request_id is None:
            self._request_id = read_request_id(self.message.headers.get(_REQUEST_ID)) or new_request_id()
        return self._request_id


class _AtHand(_Request):
    """A vote that waits for its ballot's end."""

    __slots__ = ("_handler", "due", "taken")

    def __init__(
        self,
        handler: Straight,
        connection: Guarded | None,
        message: Any,
        taken: tuple[Item, Vote, str],
        began_s: float,
    ) -> None:
        super().__init__(connection, message, began_s)
        self._handler, self.taken = handler, taken
        self.due: set[Any] = set()

    def one_less(self) -> None:
        """The ballot's end is known."""
        self.due.discard(self)
        self._tell()

    def over(self) -> None:
        """The caller waits no longer."""
        self.due = set()  # else they held each other
        self.taken[0].waiters.remove(self)
        self._tell()

    def _tell(self) -> None:
        try:
            self._handler.end(self)
        except Exception:  # whoever told us of the end has others to tell
            log.exception("a request failed")
            self._handler.force_close()


def _raising(error: Exception) -> Handler:
    async def rest(_: web.Request) -> web.StreamResponse:
        raise error

    return rest


def _refilled(raw: bytes, handler: Straight) -> StreamReader:
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
