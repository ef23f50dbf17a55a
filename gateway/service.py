"""One gateway put together: journal, follower, sender and delivery, and the promises that are made with them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

import httpx

from gateway.book import Book, Item, NotDurable
from gateway.chain import Chain
from gateway.config import GatewayConfig
from gateway.delivery import Delivery
from gateway.disk import Disk, FolderLock
from gateway.durability import Durability, Storage
from gateway.elections import Elections
from gateway.follower import Follower
from gateway.journal import Journal
from gateway.jsonrpc import RpcClient
from gateway.problems import Problem
from gateway.records import Anchor, Ballot, Call, Record
from gateway.sender import STALLED_S, Sender
from gateway.state import load_state
from gateway.validators import Pool, ValidatorNode
from gateway.verify import FinalBlock
from node.chain.genesis import Genesis, domain_of
from node.chain.signing import SigningKey

log = logging.getLogger(__name__)

SAVE_INTERVAL_S = 2.0
FIRST_PROBE_S = 1.0
LEVELS = {
    1: "all validators",
    2: "a quorum of validators",
    3: "no quorum of validators: records wait in the journal",
    4: "the journal's disk fails: records wait in the spool",
    5: "nothing durable is left: no records are taken",
}


class Gateway:
    """Everything behind the HTTP API."""

    def __init__(
        self,
        config: GatewayConfig,
        genesis: Genesis,
        key: SigningKey,
        secret: bytes,
        *,
        disk: Disk | None = None,
    ) -> None:
        """Reads journal, spool and state; `secret` is the gateways' master secret.

        Raises FolderInUse, JournalCorrupt or OSError.
        """
        self.config = config
        self.domain = domain_of(genesis)
        self.address = key.address
        disk = disk or Disk()
        self._locks = [FolderLock(config.journal), FolderLock(config.spool)]
        self._state = load_state(config.state, self.domain, genesis)
        self.book = Book()
        self._durability = Durability(
            Journal(config.journal, self.domain, disk=disk),
            Journal(config.spool, self.domain, disk=disk),
            self._on_durable,
        )
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
        self._http = httpx.AsyncClient(limits=limits, trust_env=False)
        nodes = [ValidatorNode(one.name, one.rpc_url, one.p2p_url) for one in config.validators]
        self.pool = Pool(
            nodes,
            RpcClient(self._http),
            self.domain,
            timeout_s=config.rpc.timeout_ms / 1000,
            probe_interval_s=config.rpc.probe_interval_ms / 1000,
        )
        self.follower = Follower(
            self.pool,
            self.domain,
            self._state.head,
            self._state.sets,
            poll_s=config.rpc.poll_ms / 1000,
            on_block=self._on_block,
            on_jump=self._on_jump,
        )
        self.chain = Chain(self.pool, self.follower)
        self.elections = Elections(
            self.chain,
            self._state,
            self.domain,
            secret,
            self.book,
            self.accept,
            auto_create=config.elections.auto_create,
            auto_create_options=config.elections.auto_create_options,
        )
        self._delivery = Delivery(
            key.address,
            self.book,
            self._durability,
            self.chain,
            gather_s=config.batch.gather_ms / 1000,
            ballots_max=config.batch.ballots_max,
            bytes_max=config.batch.bytes_max,
            make_election=self.elections.ensure,
        )
        self._sender = Sender(
            key,
            self.domain,
            self.pool,
            self.follower,
            resend_s=config.rpc.resend_ms / 1000,
            in_flight_max=config.batch.in_flight_max,
            in_flight_bytes_max=config.batch.in_flight_bytes_max,
            on_included=self._delivery.on_included,
            on_refused=self._delivery.on_refused,
        )
        self._saver: asyncio.Task[None] | None = None
        self._logged_level = 0

    async def start(self) -> None:
        """Take up what the journal holds, and go on. Needs no validator."""
        items = self._durability.recover()
        for item in items:
            self.book.add(item)
        waiting = [item for item in items if item.pending]
        if waiting:
            log.info("the journal holds %d records that are not final yet", len(waiting))
        await self._durability.start()
        # The first callers should not be told that no quorum is known because nobody has looked yet.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_PROBE_S):
                await self.pool.probe_all()
        await self.pool.start()
        await self.follower.start()
        self._delivery.enqueue(waiting)
        await self._sender.start()
        await self._delivery.start(self._sender)
        self._saver = asyncio.create_task(self._save_now_and_then(), name="state")

    async def stop(self) -> None:
        """Sync what was accepted and end. What is not final is in the journal."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        await self._delivery.stop()
        await self._sender.stop()
        await self.follower.stop()
        await self.pool.stop()
        await self._durability.stop()
        with contextlib.suppress(OSError):
            self._save()
        await self._http.aclose()
        for lock in self._locks:
            lock.release()

    def level(self) -> int:
        """1 to 5, as LEVELS words them."""
        if self._durability.storage is Storage.NONE:
            return 5
        if self._durability.storage is Storage.SPOOL:
            return 4
        # Validators answer and nothing becomes final: they do not reach each other.
        stalled = self._sender.oldest_age_s() > STALLED_S
        return 3 if stalled else self.pool.level()

    def warning(self) -> str | None:
        """What a caller should know about the level, or None at levels 1 and 2."""
        level = self.level()
        return LEVELS[level] if level >= 3 else None

    def default_wait_s(self) -> float:
        """How long a caller waits who names no time: not at all while no quorum is known."""
        return self.config.limits.wait_s if self.level() <= 2 else 0.0

    async def cast(self, ballot: Ballot) -> Item:
        """Make a ballot durable, or find that it is already. Raises Problem 409 where another one stands."""
        standing = self.book.ballot(ballot.nullifier)
        if standing is not None and standing.reason is None:
            if not _same_ballot(standing.record, ballot):
                raise conflict(standing)
            return await self._durable(standing)
        other = self.book.ballot_by_record_id(ballot.record_id)
        if other is not None and other.reason is None:
            raise Problem(409, "record-id-taken", "This transaction_id belongs to another voter's ballot.")
        return await self.accept(ballot)

    async def anchor(self, anchor: Anchor) -> tuple[Item, bool]:
        """Make an anchor durable, or find it; whether it is new. Raises Problem 409 for another root."""
        standing = self.book.anchor(anchor.batch_id)
        if standing is not None and standing.reason is None:
            if getattr(standing.record, "merkle_root", None) != anchor.merkle_root:
                raise Problem(409, "anchor-exists", "This batch is anchored with another Merkle root.")
            return await self._durable(standing), False
        return await self.accept(anchor), True

    async def call(self, call: Call) -> Item:
        """Make another transaction durable, or find the same one waiting."""
        standing = self.book.find(("call", call.to, call.data))
        if standing is not None and standing.pending:
            return await self._durable(standing)
        return await self.accept(call)

    async def accept(self, record: Record) -> Item:
        """Journal a record. When this returns, it is durable. Raises Problem 503 when it cannot be kept."""
        limits = self.config.limits
        if self.book.pending_count >= limits.pending_max or self.book.pending_bytes >= limits.pending_bytes_max:
            raise Problem(503, "journal-full", "Too many records wait to become final; try again later.")
        item = Item(record, time.time_ns() // 1_000_000)
        self.book.add(item)
        try:
            self._durability.accept(item)
        except NotDurable as error:
            self.book.remove(item)
            raise Problem(503, "not-durable", f"The record was not taken: {error}.") from None
        return await self._durable(item)

    async def _durable(self, item: Item) -> Item:
        if item.commit is None:
            return item
        try:
            await item.commit.wait()
        except NotDurable as error:
            if self.book.find_same(item):
                self.book.remove(item)
            raise Problem(503, "not-durable", f"The record was not taken: {error}.", level=5) from None
        return item

    def _on_durable(self, items: Sequence[Item]) -> None:
        self._delivery.enqueue(items)

    def _on_block(self, block: FinalBlock) -> None:
        self._sender.on_block(block)
        self._log_level()

    def _on_jump(self) -> None:
        self._sender.on_jump()

    def _log_level(self) -> None:
        level = self.level()
        if level != self._logged_level:
            self._logged_level = level
            log.log(logging.INFO if level <= 2 else logging.WARNING, "level %d: %s", level, LEVELS[level])

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            self._log_level()
            try:
                await asyncio.to_thread(self._save)
            except OSError as error:
                log.warning("%s cannot be written: %s", self.config.state, error)

    def _save(self) -> None:
        self._state.head, self._state.sets = self.follower.head, self.follower.sets
        self._state.save()


def _same_ballot(record: Record, ballot: Ballot) -> bool:
    return isinstance(record, Ballot) and (record.kind, record.content) == (ballot.kind, ballot.content)


def conflict(standing: Item) -> Problem:
    """The answer to a second, different ballot of one voter: what stands, without showing what it chose."""
    record = standing.record
    shown: dict[str, object] = {"status": "pending" if standing.place is None else "confirmed"}
    if isinstance(record, Ballot):
        shown["record_id"] = "0x" + record.record_id.hex()
    if standing.place is not None:
        shown |= {
            "transaction_hash": "0x" + standing.place.transaction_hash.hex(),
            "block_number": standing.place.block_number,
            "block_hash": "0x" + standing.place.block_hash.hex(),
            "ballot_index": standing.index,
        }
    detail = "This voter has cast another ballot in this election; the first one stands."
    return Problem(409, "already-cast", detail, standing=shown)
