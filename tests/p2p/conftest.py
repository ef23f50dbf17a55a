"""What the tests of the network share: both event loops, networks with recorders, and peers made by hand."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest_asyncio
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.chain.domain import Domain
from node.chain.signing import SigningKey
from node.p2p.addressbook import AddressBook
from node.p2p.dialplan import DialPolicy
from node.p2p.events import Connected, Disconnected, PeerEvent, Received
from node.p2p.framing import encode_frame
from node.p2p.kinds import Kind
from node.p2p.network import Network
from node.p2p.peersfile import save_peers
from node.p2p.policy import NetworkPolicy
from node.p2p.session import Hello, SessionLimits, encode_hello
from node.p2p.tls import make_context, make_credentials

DOMAIN = Domain(7770, bytes(range(32)))
DEADLINE_S = 10.0
QUICK = NetworkPolicy(
    session=SessionLimits(hello_ms_max=700, ping_after_ms=100, silence_ms_max=600, frame_ms_max=700),
    dial=DialPolicy(first_ms=20, cap_ms=200, steady_ms=500),
    tick_ms=20,
    stall_ms_max=500,
    announce_first_ms=20,
    announce_cap_ms=200,
)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def key_of(number: int) -> SigningKey:
    return SigningKey(number.to_bytes(32, "big"))


async def until(condition: Callable[[], object], *, within_s: float = DEADLINE_S) -> None:
    """Wait for a condition; AssertionError when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@dataclass
class Node:
    """One network with everything that it told."""

    key: SigningKey
    network: Network
    events: list[PeerEvent] = field(default_factory=list)

    @property
    def address(self) -> bytes:
        return self.key.address

    @property
    def port(self) -> int:
        return int(self.network.endpoint.rpartition(":")[2])

    def connected_to(self) -> set[bytes]:
        return {peer.address for peer in self.network.peers()}

    def received(self) -> list[tuple[Kind, bytes]]:
        return [(event.kind, event.payload) for event in self.events if isinstance(event, Received)]

    def lost(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Disconnected)]

    def sessions_opened(self) -> int:
        return sum(isinstance(event, Connected) for event in self.events)


class Crowd:
    """Makes networks that know each other as members, and stops them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members: set[bytes] = {key_of(number).address for number in range(1, 8)}
        self.nodes: list[Node] = []

    async def start(
        self,
        number: int,
        *,
        port: int = 0,
        domain: Domain = DOMAIN,
        policy: NetworkPolicy = QUICK,
        knows: Iterable[tuple[bytes, str]] = (),
        bootnodes: Iterable[str] = (),
        remembers: bool = True,
        on_event: Callable[[PeerEvent], None] | None = None,
    ) -> Node:
        """A running network with the key `number`; `knows` are endpoints that it remembers from an earlier life."""
        key = key_of(number)
        events: list[PeerEvent] = []
        peers_file = self.folder / f"peers-{number}.json" if remembers else None
        if knows and peers_file is not None:
            book = AddressBook(domain)
            for address, endpoint in knows:
                book.learn_endpoint(address, endpoint)
            save_peers(peers_file, book.document())

        def record(event: PeerEvent) -> None:
            events.append(event)
            if on_event is not None:
                on_event(event)

        network = Network(
            key=key,
            domain=domain,
            bind=("127.0.0.1", port),
            advertise="",
            name=f"validator-{number}",
            is_member=lambda address: address in self.members,
            on_event=record,
            head_height=lambda: number * 100,
            bootnodes=tuple(bootnodes),
            peers_file=peers_file,
            policy=policy,
        )
        await network.start()
        node = Node(key, network, events)
        self.nodes.append(node)
        return node

    async def stop(self, node: Node) -> None:
        self.nodes.remove(node)
        await node.network.stop()


@pytest_asyncio.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Crowd]:
    crowd = Crowd(tmp_path)
    yield crowd
    for node in list(crowd.nodes):
        await crowd.stop(node)


def client_context(number: int, domain: Domain = DOMAIN) -> ssl.SSLContext:
    """A context that shows a good leaf of key `number` and takes whatever server it meets."""
    credentials = make_credentials(key_of(number), Ed25519PrivateKey.generate(), domain, now_s=int(time.time()))
    credentials.client.verify_mode = ssl.CERT_NONE  # so that it is the server that refuses
    return credentials.client


def leaf_context(leaf: bytes, session_key: Ed25519PrivateKey) -> ssl.SSLContext:
    """A context that shows a certificate made by hand."""
    context = make_context(leaf, session_key, DOMAIN, server_side=False)
    context.verify_mode = ssl.CERT_NONE
    return context


def hello_frame(version_min: int = 1, version_max: int = 1) -> bytes:
    return encode_frame(Kind.HELLO, encode_hello(Hello(version_min, version_max, 5, "by hand", "", "test")))


class HandMadePeer:
    """A peer over a blocking socket, for threads: it says and reads just what a test wants."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out) if context else None

    def begin(self, data: bytes) -> None:
        """Shake hands, and send `data` in one write with the handshake's last message."""
        if self._tls is None:
            self._socket.sendall(data)
            return
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._socket.sendall(self._out.read())
                self._take()
        self.send(data)

    def send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._out.read()
        self._socket.sendall(data)

    def read_to_end(self) -> bytes:
        """Everything until the server ends the connection, however it does that."""
        said = b""
        try:
            while True:
                said += self.read()
        except (EOFError, ssl.SSLError, ConnectionError):
            return said

    def read(self) -> bytes:
        """The next bytes. Raises EOFError, ConnectionError or ssl.SSLError at the end."""
        if self._tls is None:
            data = self._socket.recv(65_536)
            if not data:
                raise EOFError
            return data
        while True:
            try:
                data = self._tls.read(65_536)
                if not data:
                    raise EOFError
                return data
            except ssl.SSLWantReadError:
                self._take()

    def _take(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise EOFError
        self._in.write(data)

    def close(self) -> None:
        self._socket.close()
