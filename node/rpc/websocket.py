"""JSON-RPC over one WebSocket: calls, answered as they finish, and notifications of what it has subscribed to."""

import asyncio
import logging

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from node.rpc.dispatch import Dispatcher
from node.rpc.limits import Limits
from node.rpc.subscriptions import Subscriptions, TooSlow

logger = logging.getLogger(__name__)

HEARTBEAT_S = 30.0  # a reader that is gone without a word is noticed after this
CLOSING_S = 5.0  # how long a closed connection may take to read the reason


class Connection:
    """One client. Nothing is queued for it: a call's answer and a notification wait for the socket, within limits."""

    def __init__(self, dispatcher: Dispatcher, subscriptions: Subscriptions, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._subscriptions = subscriptions
        self._limits = limits
        self._socket = web.WebSocketResponse(
            max_msg_size=limits.body_bytes_max, heartbeat=HEARTBEAT_S, timeout=CLOSING_S, compress=False
        )
        self._free = asyncio.Semaphore(limits.calls_at_once_max)
        self._calls: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade, and serve until either side has had enough."""
        await self._socket.prepare(request)
        reader = asyncio.create_task(self._read())
        teller = asyncio.create_task(self._tell())
        try:
            await asyncio.wait((reader, teller, self._end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, teller, *self._calls):
                task.cancel()
            await asyncio.gather(reader, teller, *self._calls, return_exceptions=True)
            await self._close(request)
        return self._socket

    def end(self, code: int, reason: str) -> None:
        """Close the connection, and tell the client why. Only the first reason counts."""
        if not self._end.done():
            self._end.set_result((code, reason))

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            await self._free.acquire()  # until one of its calls is done, no more is read of this client
            body = message.data if isinstance(message.data, bytes) else message.data.encode()
            call = asyncio.create_task(self._answer(body))
            self._calls.add(call)
            call.add_done_callback(self._done)

    def _done(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._free.release()
        if not call.cancelled() and (error := call.exception()) is not None:
            logger.debug("a WebSocket's answer could not be sent: %s", error)
            self.end(WSCloseCode.INTERNAL_ERROR, "the answer could not be sent")

    async def _answer(self, body: bytes) -> None:
        answer = await self._dispatcher.answer(body)
        if answer is not None:
            await self._send(answer)
        self._subscriptions.start()

    async def _tell(self) -> None:
        try:
            await self._subscriptions.run(self._notify)
        except TooSlow as reason:
            self.end(WSCloseCode.POLICY_VIOLATION, str(reason))
        except ConnectionError:
            self.end(WSCloseCode.GOING_AWAY, "the client is gone")
        except Exception:
            logger.exception("a WebSocket's subscriptions failed")
            self.end(WSCloseCode.INTERNAL_ERROR, "internal error")

    async def _notify(self, identifier: str, result: object) -> None:
        params = {"subscription": identifier, "result": result}
        await self._send(orjson.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}))

    async def _send(self, message: bytes) -> None:
        """Hand a message to the socket; waits while the client reads more slowly than we write."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except TimeoutError:
            reason = f"too slow: nothing was read for {self._limits.send_timeout_s:g} s"
            self.end(WSCloseCode.POLICY_VIOLATION, reason)

    async def _close(self, request: web.Request) -> None:
        code, reason = self._end.result() if self._end.done() else (WSCloseCode.OK, "")
        try:
            async with asyncio.timeout(CLOSING_S):
                # Not drained: the reason waits behind what was not read, for as long as the client is given.
                await self._socket.close(code=code, message=reason.encode()[:120], drain=False)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            if request.transport is not None and code != WSCloseCode.OK:
                request.transport.abort()
