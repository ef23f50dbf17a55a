"""Guards a listening socket: bounds connections, and ends those that send too slowly, read nothing or stay idle.

aiohttp's own timeouts begin when a request's head is there: who sends half a head, or reads no answer, stays for ever.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, cast

from aiohttp import web

from serving.frames import Frames

SWEEP_S = 0.5
TURNS_TO_END = 4  # of the event loop, for who has just been accepted: a transport, its protocol, the refusal, the end
BYTES_MAX = 256 << 20


class Guarded(asyncio.Protocol):
    """One connection: passes everything on to the HTTP protocol, and notes when it last got anywhere."""

    __slots__ = (
        "_guard", "_inner", "address", "frames", "is_ending", "paused_at", "received_bytes", "requests", "since",
        "started", "transport",
    )  # fmt: skip

    def __init__(self, guard: "ConnectionGuard", inner: asyncio.Protocol) -> None:
        self._guard, self._inner = guard, inner
        self.transport: asyncio.Transport | None = None
        self.requests = 0  # under way
        self.since = time.monotonic()  # when the last request ended, or its successor began to arrive
        self.started = True  # a request is on its way in, if only because none ever came
        self.received_bytes = 0  # of what is on its way in, or being answered
        self.paused_at: float | None = None
        self.address = ""  # the peer's, without its port
        self.is_ending = False  # its end was asked for, and has not come yet
        self.frames: Frames | None = None  # of a WebSocket, whose own rules say how slowly it may read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        if not self._guard.admit(self):
            self.transport.abort()
            return
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._guard.arrived(self, len(data))
        if self.frames is not None:
            self._follow(self.frames, data)
        elif not self.requests and not self.started:
            self.started, self.since = True, time.monotonic()
        if self._guard.holds(self):
            self._inner.data_received(data)

    def upgrade(self, early: bytes) -> None:
        """A WebSocket from now on; `early` came behind the request, before it was answered."""
        self.frames = Frames()
        self._follow(self.frames, early)

    def _follow(self, frames: Frames, data: bytes) -> None:
        """Note when the message began that is on its way in, if one is."""
        messages = frames.messages
        frames.feed(data)
        if frames.messages != messages or not frames.is_inside:
            self._guard.forget(self)
            self.started = False
        if frames.is_inside and not self.started:
            self.started, self.since = True, time.monotonic()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._guard.holds(self) else None

    def connection_lost(self, error: Exception | None) -> None:
        if self._guard.release(self):
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self.paused_at = time.monotonic()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.paused_at = None
        self._inner.resume_writing()

    def is_due(self, now: float, sender_s: float, idle_s: float) -> bool:
        """Whether its time is over."""
        if self.frames is not None:
            if self.transport is not None and not self.transport.is_reading():
                self.since = now  # it is not read: its calls are being answered
            return self.started and now - self.since > sender_s
        if self.paused_at is not None and now - self.paused_at > sender_s:
            return True  # it does not read what it asked for
        if self.requests:
            return False
        return now - self.since > (sender_s if self.started else idle_s)


class ConnectionGuard:
    """Makes the guarded protocols of one server.

    Args:
        connections_max: how many there may be.
        per_address_max: how many of them may come from one address; as many as there may be, when left out.
        sender_s: how long a request's head may take to arrive, and an unread answer may wait.
        idle_s: how long a connection is kept between two requests.
        bytes_max: how many bytes of requests may be on their way in, or being answered, over all connections.
    """

    def __init__(
        self,
        *,
        connections_max: int,
        sender_s: float,
        idle_s: float,
        per_address_max: int | None = None,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._max, self._sender_s, self._idle_s = connections_max, sender_s, idle_s
        self._per_address_max = connections_max if per_address_max is None else per_address_max
        self._bytes_max = bytes_max
        self.received_bytes = 0
        self._connections: dict[Guarded, None] = {}
        self._counts: Counter[str] = Counter()  # by address
        self._by_transport: dict[asyncio.BaseTransport, Guarded] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def __len__(self) -> int:
        return len(self._connections)

    def factory(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], Guarded]:
        """Wrap what makes HTTP protocols."""
        return lambda: Guarded(self, make())

    async def start(self) -> None:
        self._task = asyncio.create_task(self._sweep(), name="connections")

    async def stop(self) -> None:
        """End every connection that is left; who came as the listening socket was closed is let in no more."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for connection in list(self._connections):
            self._end(connection)
        for _ in range(TURNS_TO_END):
            await asyncio.sleep(0)

    def admit(self, connection: Guarded) -> bool:
        """Take in a connection; where there is no room, the one that has been idle longest makes some."""
        if self._is_over:
            return False
        if self._counts[connection.address] >= self._per_address_max:
            if not self._make_room(one for one in self._connections if one.address == connection.address):
                return False
        elif len(self._connections) >= self._max and not self._make_room(self._connections):
            return False
        self._connections[connection] = None
        self._counts[connection.address] += 1
        if connection.transport is not None:
            self._by_transport[connection.transport] = connection
        return True

    def _make_room(self, connections: Iterable[Guarded]) -> bool:
        """End the one of these that has been idle longest; whether there was one.

        It is gone a moment later: whoever comes until then needs another one to make room.
        """
        waiting = (one for one in connections if not one.requests and not one.is_ending)
        idle = min(waiting, key=lambda one: one.since, default=None)
        if idle is None:
            return False
        self._end(idle)
        return True

    def holds(self, connection: Guarded) -> bool:
        return connection in self._connections

    def release(self, connection: Guarded) -> bool:
        """Forget a connection; whether it had been admitted."""
        if connection.transport is not None:
            self._by_transport.pop(connection.transport, None)
        self.forget(connection)
        if connection not in self._connections:
            return False
        del self._connections[connection]
        self._counts[connection.address] -= 1
        if not self._counts[connection.address]:
            del self._counts[connection.address]
        return True

    def begin(self, request: web.Request) -> Guarded | None:
        """A request's head has arrived."""
        return self.begin_over(request.transport)

    def begin_over(self, transport: asyncio.BaseTransport | None) -> Guarded | None:
        """A request's head has arrived over this connection."""
        connection = self._by_transport.get(transport) if transport is not None else None
        if connection is not None:
            connection.requests += 1
        return connection

    def arrived(self, connection: Guarded, count: int) -> None:
        """Bytes of a request are here; where all have too many, the connection with the most is ended."""
        connection.received_bytes += count
        self.received_bytes += count
        if self.received_bytes > self._bytes_max:
            self._end(max(self._connections, key=lambda one: one.received_bytes, default=connection))

    def forget(self, connection: Guarded) -> None:
        """What it sent is answered, or in other hands."""
        self.received_bytes -= connection.received_bytes
        connection.received_bytes = 0

    def left_s(self, request: web.Request) -> float:
        """How long the rest of a request may take to arrive: head and body share one time."""
        connection = self._by_transport.get(request.transport) if request.transport is not None else None
        return self._sender_s - (time.monotonic() - connection.since if connection is not None else 0)

    def upgraded(self, request: web.Request) -> None:
        """The connection is a WebSocket from now on: only its messages are to arrive in time, each as a request is."""
        connection = self._by_transport.get(request.transport) if request.transport is not None else None
        if connection is not None:
            connection.upgrade(getattr(request.protocol, "_message_tail", b""))  # aiohttp keeps it there until then

    def end(self, connection: Guarded | None) -> None:
        """Its answer is made."""
        if connection is not None:
            connection.requests -= 1
            self.forget(connection)
            connection.started, connection.since = False, time.monotonic()

    def _end(self, connection: Guarded) -> None:
        connection.is_ending = True
        self.forget(connection)
        if connection.transport is not None:
            connection.transport.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for connection in list(self._connections):
                if connection.is_due(now, self._sender_s, self._idle_s):
                    self._end(connection)


async def stop_listening(server: asyncio.Server) -> None:
    """Close a listening socket, once what was accepted in this turn of the loop has its protocol.

    asyncio forgets such a connection otherwise, and leaves its socket open (python/cpython, gh-109564).
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())  # uvloop watches it in a way of its own, which is closed with the server
    await asyncio.sleep(0)
    server.close()


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it; how many these are."""
    import resource  # not everywhere, and needed by servers alone

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit: Any = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return int(limit) if limit != resource.RLIM_INFINITY else 1 << 20
