"""Single votes and anchors of the usual form: taken and answered where their bytes arrive.

What is in any way unusual is aiohttp's: what comes from a web page, is refused, or repeated, or a vote whose ballot's
end is another than its place on the chain. An anchor has a task, since it is asked after before it is taken.
"""

import logging
import time
from collections.abc import Awaitable
from typing import Any

import orjson
from aiohttp import StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDictProxy, istr

from gateway.access import Need
from gateway.api import anchors
from gateway.api.common import CALLS, GATEWAY, GUARD, presented, problems, waiting_s
from gateway.api.pages import HOSTS, is_of_a_page
from gateway.api.unreadable import RequestHandler
from gateway.api.votes import shown_of, told
from gateway.book import Item, call_at_end
from gateway.casting import ballot_at_once
from gateway.plainvotes import Vote, read_plain_vote
from gateway.problems import Problem
from gateway.records import Anchor
from gateway.service import Gateway
from gateway.validators import NoValidator
from serving.connections import ConnectionGuard
from serving.logs import REQUEST_ID, REQUEST_ID_HEADER, new_request_id, read_request_id
from serving.straight import Handler, Taken, rest_of

log = logging.getLogger(__name__)

_REQUEST_ID = istr(REQUEST_ID_HEADER)


class Counter:
    """Where votes and anchors are handed in: what is the same for all connections."""

    def __init__(self, app: web.Application, path: str, anchor_path: str) -> None:
        """`path` and `anchor_path`: of the routes that take single votes and anchors, by POST."""
        self.gateway: Gateway = app[GATEWAY]
        self.guard: ConnectionGuard = app[GUARD]
        self.anchor_path = anchor_path
        self.paths = frozenset((path, anchor_path))
        self._hosts, self._calls = app[HOSTS], app[CALLS]
        self._routes = {one: f"{hdrs.METH_POST} {one}" for one in self.paths}
        self._body_bytes_max = self.gateway.config.limits.body_bytes_max

    def admits(self, headers: CIMultiDictProxy[str], need: Need = "vote") -> bool:
        """Whether nothing about the head of a request is unusual."""
        keeper = self.gateway.gatekeeper
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

    def note(self, one: "_Request") -> None:
        """A request was answered."""
        self._calls.note(self._routes[one.message.path], time.perf_counter() - one.began_s)


class Straight(RequestHandler):
    """aiohttp's handler of one connection, but for votes and anchors of the usual form."""

    __slots__ = ("_counter",)
    refusals = (*RequestHandler.refusals, Problem, NoValidator)

    def __init__(self, counter: Counter, *arguments: Any, **settings: Any) -> None:
        super().__init__(counter.guard, counter.paths, *arguments, **settings)
        self._counter = counter

    def takes(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Take a vote, or an anchor."""
        if message.path == self._counter.anchor_path:
            return self._takes_anchor(message, payload)
        return self._takes_vote(message, payload)

    def _takes_anchor(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        counter, began_s = self._counter, time.perf_counter()
        if not counter.admits(message.headers, "anchor"):
            return False
        found = self.take_body(message, payload, counter.anchor)
        if found is None:
            return False
        one = _Request(self, message, began_s)
        self.hold(one, self._serve_anchor(one, found))
        return True

    async def _serve_anchor(self, one: "_Request", anchor: Anchor) -> None:
        REQUEST_ID.set(one.request_id)  # for what is logged from here on, and for the validators that are asked
        self._answer(one, *await anchors.take(self._counter.gateway, anchor))

    def _takes_vote(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        counter, began_s, headers = self._counter, time.perf_counter(), message.headers
        wait_s = waiting_s(headers, counter.gateway)
        if wait_s <= 0 or not counter.admits(headers):
            return False
        found = self.take_body(message, payload, counter.take)
        if found is None:
            return False
        one = _Vote(self, message, began_s, found)
        self.hold(one)
        one.due = call_at_end(found[0], one, wait_s)
        return True

    def end(self, one: "_Vote") -> None:
        """Answer, or let aiohttp do so: the end of the ballot at hand is known, or its caller waits no longer."""
        item, vote, transaction_id = one.found
        gateway = self._counter.gateway
        if item.reason is None and item.durable:
            self._answer(one, *shown_of(gateway, item, vote.election_id, transaction_id))
        else:

            async def rest(_: web.Request) -> web.StreamResponse:
                return await told(gateway, item, vote.election_id, transaction_id)

            self.hand_over(one, rest)

    def _answer(self, one: "_Request", document: dict[str, Any], status: int) -> None:
        self.answer(one, status, orjson.dumps(document), f"{REQUEST_ID_HEADER}: {one.request_id}\r\n")
        self._counter.note(one)


def all_or_rest(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """What answers a request: `problems` around its handler, or around what is left to do of it."""
    rest = rest_of(request)
    if rest is None:
        return problems(request, handler)
    if not isinstance(rest.taken, _Request):
        raise TypeError(f"a {type(rest.taken).__name__} was taken here, expected a request")
    return problems(request, rest.handle, rest.taken.began_s, rest.taken.request_id)


class _Request(Taken):
    """One that was taken, when that was, and the id that it has."""

    __slots__ = ("_request_id", "began_s")

    def __init__(self, handler: Straight, message: RawRequestMessage, began_s: float) -> None:
        super().__init__(handler, message)
        self.began_s = began_s
        self._request_id: str | None = None

    @property
    def request_id(self) -> str:
        """The caller's, or one of ours."""
        if self._request_id is None:
            self._request_id = read_request_id(self.message.headers.get(_REQUEST_ID)) or new_request_id()
        return self._request_id


class _Vote(_Request):
    """A vote that waits for its ballot's end."""

    __slots__ = ("_handler", "due", "found")

    def __init__(
        self, handler: Straight, message: RawRequestMessage, began_s: float, found: tuple[Item, Vote, str]
    ) -> None:
        super().__init__(handler, message, began_s)
        self._handler, self.found = handler, found
        self.due: set[Any] = set()

    def one_less(self) -> None:
        """The ballot's end is known."""
        self.due.discard(self)
        self._tell()

    def over(self) -> None:
        """The caller waits no longer."""
        self.due = set()  # else they held each other
        self.found[0].waiters.remove(self)
        self._tell()

    def _tell(self) -> None:
        try:
            self._handler.end(self)
        except Exception:  # whoever told us of the end has others to tell
            log.exception("a request failed")
            self._handler.force_close()
