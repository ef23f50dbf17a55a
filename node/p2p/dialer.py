"""Keeps dialling the members that are not connected, and remembers on disk where they were found."""

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path

from node.chain.domain import Domain
from node.p2p.addressbook import AddressBook
from node.p2p.connection import Connection, monotonic_ms
from node.p2p.dialplan import DialPlan
from node.p2p.endpoint import parse_endpoint
from node.p2p.peersfile import load_peers, save_peers
from node.p2p.policy import NetworkPolicy
from node.p2p.records import PeerRecord
from node.p2p.tls import Credentials

_log = logging.getLogger(__name__)


class Dialer:
    """The outgoing half of the network: an address book, a plan of when to dial, and the attempts under way."""

    def __init__(
        self,
        domain: Domain,
        policy: NetworkPolicy,
        *,
        credentials: Callable[[], Credentials],
        connect: Callable[[bytes], Connection],
        is_wanted: Callable[[bytes], bool],
        peers_file: Path | None,
    ) -> None:
        """`connect` makes the protocol that is to reach an address; `is_wanted` says who is to be dialled at all."""
        self._policy = policy
        self._credentials = credentials
        self._connect = connect
        self._is_wanted = is_wanted
        self._peers_file = peers_file
        self._book = AddressBook(domain)
        self._book_has_news = False
        self._saving: asyncio.Task[None] | None = None
        self._plan = DialPlan(policy.dial)
        self._attempts: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Read the peers of an earlier life."""
        if self._peers_file is not None:
            load_peers(self._peers_file, self._book)

    async def stop(self) -> None:
        """End the attempts under way and write what is new."""
        for task in self._attempts:
            task.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        if self._saving is not None:
            await self._saving
        if self._book_has_news:
            await self._save()

    def learn_record(self, record: PeerRecord) -> None:
        """A verified record of a peer; it counts only if we want that peer."""
        if self._is_wanted(record.address) and self._book.learn_record(record):
            self._book_has_news = True
            self._plan.hurry(record.address, now_ms=monotonic_ms())

    def opened(self, peer: bytes, endpoint: str) -> None:
        """A session with the peer is open, whoever dialled, and it says to be found at `endpoint`."""
        self._plan.opened(peer, now_ms=monotonic_ms())
        if self._book.learn_endpoint(peer, endpoint):
            self._book_has_news = True

    def closed(self, peer: bytes) -> None:
        """The session with the peer is over."""
        self._plan.closed(peer, now_ms=monotonic_ms(), jitter=random.random())  # nosec B311 # no secret

    def tick(self) -> None:
        """Begin the attempts that are due, and write the book when there is news; call it a few times a second."""
        now_ms = monotonic_ms()
        self._plan.want({peer for peer in self._book.addresses() if self._is_wanted(peer)}, now_ms=now_ms)
        for peer, attempt in self._plan.take_due(now_ms=now_ms):
            endpoints = self._book.endpoints(peer)
            task = asyncio.create_task(self._dial(peer, endpoints[attempt % len(endpoints)]))
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)
        if self._book_has_news and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save())

    async def _dial(self, peer: bytes, text: str) -> None:
        endpoint = parse_endpoint(text)
        connection = self._connect(peer)
        try:
            async with asyncio.timeout(self._policy.handshake_ms_max / 1000):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    endpoint.host,
                    endpoint.port,
                    ssl=self._credentials().client,
                    server_hostname="",
                )
            is_open = await connection.settled
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
            _log.debug("cannot reach 0x%s at %s: %s", peer.hex(), text, error)
            is_open = False
        if is_open:
            self._plan.ended(peer)
        else:
            self._plan.failed(peer, now_ms=monotonic_ms(), jitter=random.random())  # nosec B311 # no secret

    async def _save(self) -> None:
        self._book_has_news = False
        if self._peers_file is None:
            return
        try:
            await asyncio.to_thread(save_peers, self._peers_file, self._book.document())
        except OSError as error:
            _log.warning("cannot write %s: %s", self._peers_file, error)
