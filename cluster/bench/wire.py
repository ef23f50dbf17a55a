"""Raw HTTP/1.1 for the load generator: requests encoded beforehand, connections kept, answers parsed just enough."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import orjson

ANSWER_BYTES_MAX = 256 << 20
CONNECT_AT_ONCE = 64
CONNECT_TIMEOUT_S = 10.0

OnAnswer = Callable[["Connection", int, bytes], None]  # connection, status, body
OnLost = Callable[["Connection"], None]


class Endpoint(NamedTuple):
    """Where requests go: the parts of an http:// URL."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str, path: str = "") -> "Endpoint":
        """The endpoint of `url`, with `path` behind its own. Raises ValueError for anything but plain http."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"expected http://HOST:PORT, not {url!r}")
        return cls(parts.hostname, parts.port or 80, (parts.path.rstrip("/") + path) or "/")

    def post(self, body: bytes, *, headers: str = "") -> bytes:
        """The bytes of a POST of a JSON body; each of `headers` ends in CRLF."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
            f"{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One kept connection that has at most one request under way; `request` is its number, for whoever sent it."""

    __slots__ = ("_body_at", "_buffer", "_end_at", "_on_answer", "_on_lost", "_status", "_transport", "lane", "request")

    def __init__(self, on_answer: OnAnswer, on_lost: OnLost) -> None:
        self._on_answer, self._on_lost = on_answer, on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._status = self._body_at = 0
        self._end_at = -1  # where the answer ends in the buffer; -1 while its head is incomplete, 0 when chunked
        self.request = -1
        self.lane = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def send(self, request: int, data: bytes) -> None:
        """Write one request."""
        assert self._transport is not None
        self.request = request
        self._transport.write(data)

    def close(self) -> None:
        """Close without telling `on_lost`."""
        self._on_lost = _ignore
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if self._end_at < 0 and not self._read_head(buffer):
            return
        if self._end_at == 0:
            if not buffer.endswith(b"0\r\n\r\n"):
                return
            body = _unchunked(buffer[self._body_at :])
        elif len(buffer) < self._end_at:
            return
        else:
            body = buffer[self._body_at : self._end_at]
        self._buffer, self._end_at = b"", -1
        self._on_answer(self, self._status, body)

    def _read_head(self, buffer: bytes) -> bool:
        """Find status and length once the head is complete; whether it is. A broken answer ends the connection."""
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = buffer[:end].lower()
        self._status, self._body_at = int(head[9:12]), end + 4
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            length = int(head[at + 17 :].split(b"\r\n", 1)[0])
            if length > ANSWER_BYTES_MAX:
                self.close()
                return False
            self._end_at = end + 4 + length
        else:
            self._end_at = 0 if b"chunked" in head else end + 4
        return True


def _ignore(_connection: Connection) -> None:
    """Nobody wants to know."""


def _unchunked(data: bytes) -> bytes:
    """The body of a chunked answer (RFC 9112, 7.1)."""
    parts: list[bytes] = []
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(data[:length])
        data = data[length + 2 :]


async def connect(endpoint: Endpoint, on_answer: OnAnswer, on_lost: OnLost) -> Connection:
    """Open one connection. Raises OSError or TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, connection = await loop.create_connection(
            lambda: Connection(on_answer, on_lost), endpoint.host, endpoint.port
        )
    return connection


class RpcFailed(RuntimeError):
    """A JSON-RPC call that was refused or not answered."""


class Caller:
    """JSON-RPC calls one after the other over one kept connection, which is opened again when it was lost."""

    def __init__(self, url: str, *, timeout_s: float = 60.0) -> None:
        self.url = url
        self._endpoint = Endpoint.of(url)
        self._timeout_s = timeout_s
        self._connection: Connection | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._lock = asyncio.Lock()

    async def call(self, method: str, *params: object) -> Any:
        """The result of a call. Raises RpcFailed."""
        request = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = orjson.loads(await self._post(request))
            except (OSError, ValueError, TimeoutError) as error:
                self.close()
                raise RpcFailed(f"{self.url} {method}: {error!r}") from None
        if not isinstance(answer, dict) or answer.get("error") is not None or "result" not in answer:
            raise RpcFailed(f"{self.url} {method}: {str(answer)[:500]}")
        return answer["result"]

    async def _post(self, body: bytes) -> bytes:
        if self._connection is None:
            self._connection = await connect(self._endpoint, self._take, self._lose)
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(0, self._endpoint.post(body))
        return await self._answer

    def _take(self, _connection: Connection, _status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(body)

    def _lose(self, _connection: Connection) -> None:
        self._connection = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was closed"))

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
