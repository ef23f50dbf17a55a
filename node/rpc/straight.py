"""Single calls and batches of the usual form: taken and answered where their bytes arrive."""

from typing import Any

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage
from multidict import istr

from node.rpc.dispatch import Dispatcher
from serving.connections import ConnectionGuard
from serving.hosts import Hosts
from serving.logs import REQUEST_ID, REQUEST_ID_HEADER, read_request_id
from serving.straight import StraightHandler, Taken

PATHS = frozenset(("/",))
_REQUEST_ID = istr(REQUEST_ID_HEADER)  # of the headers' own kind of text, which is not folded for each request


class Straight(StraightHandler):
    """aiohttp's handler of one connection, but for JSON-RPC that comes in one piece, under a name that is answered."""

    __slots__ = ("_body_bytes_max", "_dispatcher", "_hosts")

    def __init__(
        self,
        guard: ConnectionGuard,
        hosts: Hosts,
        dispatcher: Dispatcher,
        body_bytes_max: int,
        *arguments: Any,
        **settings: Any,
    ) -> None:
        super().__init__(guard, PATHS, *arguments, **settings)
        self._hosts, self._dispatcher, self._body_bytes_max = hosts, dispatcher, body_bytes_max

    def takes(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Take what is not too large."""
        if not self._hosts.allow(message.headers.get(hdrs.HOST)):
            return False
        body = self.take_body(message, payload, self._fitting)
        if body is None:
            return False
        taken = Taken(self, message)
        self.hold(taken, self._answered(taken, body))
        return True

    def _fitting(self, raw: bytes) -> bytes | None:
        return raw if len(raw) <= self._body_bytes_max else None

    async def _answered(self, taken: Taken, body: bytes) -> None:
        REQUEST_ID.set(read_request_id(taken.message.headers.get(_REQUEST_ID)))
        answer = await self._dispatcher.answer(body)
        if answer is None:
            raise web.HTTPNoContent
        self.answer(taken, 200, answer)
