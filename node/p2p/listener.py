"""Accepts TCP connections and takes them through TLS; bounds how many strangers may be in that at a time."""

import asyncio
import logging
import socket
from collections.abc import Callable

from node.p2p.connection import Connection, monotonic_ms
from node.p2p.policy import NetworkPolicy
from node.p2p.tls import Credentials

BACKLOG = 128
REPORT_EVERY_MS = 10_000
ACCEPT_RETRY_S = 0.1
_log = logging.getLogger(__name__)


class Listener:
    """One listening socket. asyncio's own servers do not let us count connections before their handshake is done."""

    def __init__(
        self,
        bind: tuple[str, int],
        policy: NetworkPolicy,
        credentials: Callable[[], Credentials],
        greet: Callable[[], Connection],
    ) -> None:
        self._bind = bind
        self._policy = policy
        self._credentials = credentials
        self._greet = greet
        self._socket: socket.socket | None = None
        self.port = bind[1]
        """The TCP port that is listened on; known after `start` when the system chooses it."""
        self._resting: asyncio.TimerHandle | None = None  # until the next attempt, after one that failed
        self._handshakes: set[asyncio.Task[None]] = set()
        self._refusals = 0  # since the last one that was reported
        self._reported_ms: int | None = None

    async def start(self) -> None:
        """Bind and listen. Raises OSError when the address cannot be bound."""
        host, port = self._bind
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        self._socket = socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self._watch(self._socket)

    async def stop(self) -> None:
        """Listen no more, and end the handshakes that are under way."""
        if self._resting is not None:
            self._resting.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        await asyncio.sleep(0)  # a task that is cancelled before it began would leave its socket open
        tasks = list(self._handshakes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _watch(self, listening: socket.socket) -> None:
        self._resting = None
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # too many open files, or a connection that was gone before we took it
            self.refused(f"cannot accept a connection: {error}")
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            self._resting = loop.call_later(ACCEPT_RETRY_S, self._watch, listening)
            return
        if len(self._handshakes) >= self._policy.handshakes_max:
            accepted.close()
            self.refused(f"{len(self._handshakes)} handshakes are under way")
            return
        accepted.setblocking(False)
        task = asyncio.create_task(self._shake_hands(accepted))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._greet,
                accepted,
                ssl=self._credentials().server,
                ssl_handshake_timeout=self._policy.handshake_ms_max / 1000,
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are OSErrors
            self.refused(f"no TLS session: {error}")

    def refused(self, reason: str) -> None:
        """Report a refused connection; a flood of them makes one line in ten seconds."""
        self._refusals += 1
        now_ms = monotonic_ms()
        if self._reported_ms is not None and now_ms - self._reported_ms < REPORT_EVERY_MS:
            return
        _log.warning("refused %d connection(s), the last: %s", self._refusals, reason)
        self._refusals = 0
        self._reported_ms = now_ms
