"""One TLS connection: who is there, then the session's frames in and the send queue out."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Protocol, cast

from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.p2p.events import PeerInfo
from node.p2p.identity import Identity, InvalidIdentity
from node.p2p.kinds import URGENT_KINDS, Kind
from node.p2p.outbox import Outbox
from node.p2p.policy import NetworkPolicy
from node.p2p.session import Hello, Session
from node.p2p.tls import identify


class Host(Protocol):
    """What a connection needs of the network that owns it."""

    domain: Domain
    policy: NetworkPolicy
    caps: Mapping[Kind, int]

    def hello(self) -> Hello:
        """Our first message, now."""
        ...

    def admit(self, connection: "Connection", identity: Identity) -> None:
        """Raise a PeerError when this identity may not connect."""
        ...

    def opened(self, connection: "Connection") -> None:
        """The peer's hello has come. The host may end the connection."""
        ...

    def received(self, connection: "Connection", kind: Kind, payload: bytes) -> None:
        """A message of an open session."""
        ...

    def ended(self, connection: "Connection", reason: str) -> None:
        """The connection is over; called once, at once, also for one that never opened."""
        ...

    def released(self, connection: "Connection") -> None:
        """The socket is closed; nothing comes after this."""
        ...


def monotonic_ms() -> int:
    """A clock that never goes back."""
    return time.monotonic_ns() // 1_000_000


class Connection(asyncio.Protocol):
    """An asyncio protocol above TLS. Every way out is `end`, which aborts: a stranger is owed no farewell."""

    def __init__(self, host: Host, *, dialled: bytes | None) -> None:
        """`dialled`: the address that we mean to reach, None when the peer came to us."""
        self._host = host
        self.dialled = dialled
        self.identity: Identity | None = None
        self.settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True once the session has opened, False when the connection ended before."""
        self._is_over = False
        self.bytes_received = 0
        self.bytes_sent = 0
        self._connected_at_s = 0
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._outbox = Outbox(lane_bytes_max=host.policy.lane_bytes_max, lane_frames_max=host.policy.lane_frames_max)
        self._flush_is_due = False
        self._resting = False
        self._blocked_at_ms: int | None = None  # since when the transport takes no more

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        try:
            self.identity = self._identify(self._transport)
            self._host.admit(self, self.identity)
        except PeerError as error:
            self.end(str(error))
            return
        policy = self._host.policy
        self._session = Session(self._host.hello(), self._host.caps, policy.session, now_ms=monotonic_ms())
        self._transport.set_write_buffer_limits(high=policy.write_buffer_bytes_max)
        self._queue(self._session.opening(), urgent=True)

    def _identify(self, transport: asyncio.Transport) -> Identity:
        channel = transport.get_extra_info("ssl_object")
        if not isinstance(channel, ssl.SSLObject):
            raise InvalidIdentity("the connection is not encrypted")
        identity = identify(channel, self._host.domain)
        if self.dialled is not None and identity.address != self.dialled:
            raise InvalidIdentity(f"dialled 0x{self.dialled.hex()} and reached 0x{identity.address.hex()}")
        return identity

    def data_received(self, data: bytes) -> None:
        # Bytes that came along with the handshake are delivered even after connection_made has aborted.
        if self.is_over() or self._session is None:
            return
        self.bytes_received += len(data)
        try:
            incoming = self._session.receive(data, now_ms=monotonic_ms())
            if incoming.opened:
                self._connected_at_s = int(time.time())
                self._host.opened(self)
                if not self.settled.done():
                    self.settled.set_result(not self.is_over())
            if incoming.answer:
                self._queue(incoming.answer, urgent=True)
            for kind, payload in incoming.messages:
                if self.is_over():
                    return
                self._host.received(self, kind, payload)
        except PeerError as error:
            self.end(str(error))
            return
        if incoming.wait_ms:
            self._rest(incoming.wait_ms)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"connection lost: {exc}" if exc else "closed by the peer")
        self._host.released(self)

    def pause_writing(self) -> None:
        self._blocked_at_ms = monotonic_ms()

    def resume_writing(self) -> None:
        self._blocked_at_ms = None
        self._flush()

    # What the network calls

    def is_over(self) -> bool:
        """Whether the connection has ended; the socket may still be open for a turn of the loop."""
        return self._is_over

    def end(self, reason: str) -> None:
        """Abort the connection, for good; what is queued is gone."""
        if self.is_over():
            return
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()
        if not self.settled.done():
            self.settled.set_result(False)
        self._host.ended(self, reason)

    def send_frame(self, frame: bytes, kind: Kind) -> bool:
        """Queue a frame; False when there is no room. Too much that is urgent ends the connection."""
        return not self.is_over() and self._queue(frame, urgent=kind in URGENT_KINDS)

    def tick(self) -> None:
        """Look at the deadlines."""
        if self.is_over() or self._session is None:
            return
        now_ms = monotonic_ms()
        if self._blocked_at_ms is not None and now_ms - self._blocked_at_ms > self._host.policy.stall_ms_max:
            self.end(f"has read nothing for {now_ms - self._blocked_at_ms} ms; {self._outbox.bytes_count} bytes wait")
            return
        try:
            ping = self._session.tick(now_ms=now_ms)
        except PeerError as error:
            self.end(str(error))
            return
        if ping:
            self._queue(ping, urgent=True)

    def is_of(self, address: bytes) -> bool:
        """Whether the peer has proven this address."""
        return self.identity is not None and self.identity.address == address

    def info(self) -> PeerInfo:
        """The open session as others may see it."""
        session, identity = self._session, self.identity
        if session is None or identity is None or session.peer_hello is None:
            raise RuntimeError("the session is not open")
        return PeerInfo(
            address=identity.address,
            name=session.peer_hello.name,
            endpoint=session.peer_hello.endpoint,
            direction="in" if self.dialled is None else "out",
            connected_at_s=self._connected_at_s,
            head_height=session.peer_hello.head_height,
            protocol_version=session.version,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            round_trip_ms=session.round_trip_ms,
        )

    # Writing

    def _queue(self, frame: bytes, *, urgent: bool) -> bool:
        if not self._outbox.push(frame, urgent=urgent):
            if urgent:
                self.end(f"does not keep up: its send queue is full, {self._outbox.bytes_count} bytes wait")
            return False
        if not self._flush_is_due and self._blocked_at_ms is None:
            self._flush_is_due = True  # what is queued in this turn of the loop leaves in one write
            asyncio.get_running_loop().call_soon(self._flush)
        return True

    def _flush(self) -> None:
        self._flush_is_due = False
        transport = self._transport
        if transport is None:
            return
        while not self.is_over() and self._blocked_at_ms is None:
            data = self._outbox.take(self._host.policy.write_bytes_max)
            if not data:
                return
            self.bytes_sent += len(data)
            transport.write(data)

    def _rest(self, wait_ms: int) -> None:
        """Read nothing for a while; TCP makes the peer wait."""
        if self._transport is None or self.is_over() or self._resting:
            return
        self._resting = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(wait_ms / 1000, self._read_on)

    def _read_on(self) -> None:
        self._resting = False
        if self._transport is not None and not self.is_over() and not self._transport.is_closing():
            self._transport.resume_reading()
