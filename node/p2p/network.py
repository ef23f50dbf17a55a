"""The network shell: listens, dials, keeps one session with each member, and hands messages to the runtime."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.signing import SigningKey
from node.p2p.connection import Connection
from node.p2p.dialer import Dialer
from node.p2p.discovery import Discovery
from node.p2p.endpoint import parse_endpoint
from node.p2p.events import Connected, Disconnected, PeerEvent, PeerInfo, Received
from node.p2p.identity import Identity
from node.p2p.kinds import BLOCK_BYTES_MAX_DEFAULT, Kind, payload_bytes_max
from node.p2p.listener import Listener
from node.p2p.policy import NetworkPolicy
from node.p2p.records import PeerRecord
from node.p2p.session import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Hello, message_frame
from node.p2p.tls import Credentials, make_credentials
from serving.endpoint import Endpoint, is_wildcard

CLIENT = "psephos/1"
STOP_S_MAX = 2.0
STOPPING = "we are stopping"
SPARE = "another connection of this pair is kept"
_log = logging.getLogger(__name__)


class NotAdmitted(PeerError):
    """The peer has proven an address that may not connect, or may not connect again now."""


class Network:
    """Mutually authenticated sessions with the members of one network. All calls belong to one event loop.

    `bind` is (host, port), port 0 lets the system choose. `advertise` is the `host:port` that peers are told to dial;
    empty means the bound address. `is_member` answers, now, whether an address may connect. `on_event` is called in
    the event loop, never from within a call of ours, and must be quick. `head_height` goes into our hello.
    `bootnodes` are http(s) URLs; `peers_file` remembers peers across restarts.
    """

    def __init__(
        self,
        *,
        key: SigningKey,
        domain: Domain,
        bind: tuple[str, int],
        advertise: str,
        name: str,
        is_member: Callable[[bytes], bool],
        on_event: Callable[[PeerEvent], None],
        head_height: Callable[[], int],
        block_bytes_max: int = BLOCK_BYTES_MAX_DEFAULT,
        bootnodes: Sequence[str] = (),
        peers_file: Path | None = None,
        rpc_url: str = "",
        policy: NetworkPolicy | None = None,
    ) -> None:
        self.domain = domain
        self.policy = policy or NetworkPolicy()
        self.caps = payload_bytes_max(block_bytes_max)
        self._key = key
        self._bind = bind
        self._advertise = parse_endpoint(advertise) if advertise else None
        if self._advertise is None and is_wildcard(bind[0]):
            raise ValueError(f"p2p.advertise is needed, since nobody can dial the bound address {bind[0]!r}")
        self._name = name
        self._is_member = is_member
        self._on_event = on_event
        self._head_height = head_height
        self._session_key = Ed25519PrivateKey.generate()  # lives as long as the process
        self._credentials: Credentials | None = None
        self._connections: set[Connection] = set()  # every one whose TLS handshake is done and whose socket is open
        self._all_released = asyncio.Event()
        self._peers: dict[bytes, Connection] = {}  # the open sessions
        self._gone: list[Disconnected] = []  # to be told in the next turn of the loop, or before the next Connected
        self._ticking: asyncio.Task[None] | None = None
        self._running = False
        self._listener = Listener(bind, self.policy, self._current_credentials, lambda: Connection(self, dialled=None))
        self._dialer = Dialer(
            domain,
            self.policy,
            credentials=self._current_credentials,
            connect=lambda peer: Connection(self, dialled=peer),
            is_wanted=lambda peer: peer != key.address and is_member(peer),
            peers_file=peers_file,
        )
        self._discovery = Discovery(
            key, domain, self.policy, name=name, rpc_url=rpc_url, bootnodes=bootnodes, learn=self._learn
        )

    async def start(self) -> None:
        """Bind and begin to dial. Raises OSError when the address cannot be bound."""
        await self._listener.start()
        self._running = True
        self._dialer.start()
        self._discovery.start(self.endpoint)
        self._ticking = asyncio.create_task(self._tick_forever())
        _log.info("listening for peers on %s:%d, advertised as %s", self._bind[0], self._listener.port, self.endpoint)

    async def stop(self) -> None:
        """End every session and task; no event comes from now on."""
        self._running = False
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self._discovery.stop()
        await self._listener.stop()
        for connection in list(self._connections):
            connection.end(STOPPING)
        await self._dialer.stop()
        if self._connections:  # each leaves when its socket is closed, in one of the next turns of the loop
            self._all_released.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S_MAX):
                    await self._all_released.wait()

    @property
    def endpoint(self) -> str:
        """The `host:port` that peers are told to dial; known after `start`."""
        return str(self._advertise or Endpoint(self._bind[0], self._listener.port))

    # What the runtime calls

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool:
        """Queue one message. False: not connected, or no room (bulk is refused, an urgent overflow drops the peer)."""
        connection = self._peers.get(peer)
        return connection is not None and connection.send_frame(message_frame(kind, payload, self.caps), kind)

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """Queue one message for every connected peer; it is framed once."""
        frame = message_frame(kind, payload, self.caps)
        for connection in list(self._peers.values()):
            connection.send_frame(frame, kind)

    def peers(self) -> list[PeerInfo]:
        """The open sessions, ordered by address."""
        return [connection.info() for _, connection in sorted(self._peers.items())]

    def drop(self, peer: bytes, reason: str) -> None:
        """End the session with `peer`, if there is one; Disconnected follows. It may connect again later."""
        connection = self._peers.get(peer)
        if connection is not None:
            connection.end(reason)

    def members_changed(self) -> None:
        """Drop the peers for which `is_member` no longer holds, and dial those for which it now does."""
        for peer, connection in list(self._peers.items()):
            if not self._is_member(peer):
                connection.end("is no longer a member")
        if self._running:
            self._dialer.tick()

    # What connections call

    def hello(self) -> Hello:
        """Our first message, now."""
        height = self._head_height()
        return Hello(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, height, self._name, self.endpoint, CLIENT)

    def admit(self, connection: Connection, identity: Identity) -> None:
        """Raise NotAdmitted when this identity may not connect."""
        self._connections.add(connection)
        if not self._running:
            raise NotAdmitted(STOPPING)
        if identity.address == self._key.address:
            raise NotAdmitted("the peer has our own key")
        if not self._is_member(identity.address):
            raise NotAdmitted(f"0x{identity.address.hex()} is no member")
        waiting = sum(_waits_for_hello(other, identity.address) for other in self._connections)
        if waiting > self.policy.unopened_per_peer_max:
            raise NotAdmitted(f"0x{identity.address.hex()} has {waiting} connections without a hello")

    def opened(self, connection: Connection) -> None:
        """The peer's hello has come: keep one session of each pair."""
        info = connection.info()
        peer = info.address
        standing = self._peers.get(peer)
        if standing is not None:
            if not self._is_preferred(connection, standing):
                connection.end(SPARE)
                return
            standing.end("replaced by another connection of this pair")
        self._peers[peer] = connection
        self._dialer.opened(peer, info.endpoint)
        self._tell_gone()
        _log.info("connected to %s 0x%s, %s, head %d", info.name, peer.hex(), info.direction, info.head_height)
        self._tell(Connected(peer, info))

    def _is_preferred(self, new: Connection, standing: Connection) -> bool:
        """Which of two open connections of one pair stays. Both sides come to the same answer."""
        assert new.identity is not None
        assert standing.identity is not None
        if new.identity.process != standing.identity.process:
            return True  # the peer was restarted
        if (new.dialled is None) == (standing.dialled is None):
            return True  # its dialler has given the old one up
        dialler_is_lower = self._key.address < new.identity.address
        return (new.dialled is not None) == dialler_is_lower

    def received(self, connection: Connection, kind: Kind, payload: bytes) -> None:
        """Hand a message on."""
        assert connection.identity is not None
        self._tell(Received(connection.identity.address, kind, payload))

    def ended(self, connection: Connection, reason: str) -> None:
        """Forget a connection; tell of it when it was the session with its peer."""
        peer = connection.identity.address if connection.identity else connection.dialled
        if peer is None or self._peers.get(peer) is not connection:
            if connection.dialled is None and reason not in (STOPPING, SPARE):
                self._listener.refused(reason)
            else:
                _log.debug("a connection ended unused: %s", reason)
            return
        del self._peers[peer]
        if not self._running:
            return
        self._dialer.closed(peer)
        self._discovery.hurry()
        _log.info("disconnected from 0x%s: %s", peer.hex(), reason)
        self._gone.append(Disconnected(peer, reason))
        asyncio.get_running_loop().call_soon(self._tell_gone)

    def released(self, connection: Connection) -> None:
        """The socket is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_released.set()

    def _tell(self, event: PeerEvent) -> None:
        if self._running:
            self._on_event(event)

    def _tell_gone(self) -> None:
        gone, self._gone = self._gone, []
        for event in gone:
            self._tell(event)

    # The rest

    async def _tick_forever(self) -> None:
        while True:
            self.members_changed()
            for connection in list(self._connections):
                connection.tick()
            await asyncio.sleep(self.policy.tick_ms / 1000)

    def _learn(self, record: PeerRecord) -> None:
        self._dialer.learn_record(record)
        if self._running:
            self._dialer.tick()

    def _current_credentials(self) -> Credentials:
        """Contexts with a leaf that is far from its end. Sessions that are open keep theirs."""
        now_s = int(time.time())
        if self._credentials is None or now_s >= self._credentials.renew_at_s:
            self._credentials = make_credentials(self._key, self._session_key, self.domain, now_s=now_s)
        return self._credentials


def _waits_for_hello(connection: Connection, address: bytes) -> bool:
    return not connection.is_over() and not connection.settled.done() and connection.is_of(address)
