"""What takes records to the chain and reads them back, proven: the same for the gateway and for the client library."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.book import Book, Commit, Item, NotDurable
from gateway.chain import Chain
from gateway.config import AnchorsConfig, BatchConfig, ElectionsConfig, RpcConfig
from gateway.delivery import Delivery
from gateway.electionkeys import ElectionKeys
from gateway.elections import Elections
from gateway.follower import Follower
from gateway.journal_format import Place
from gateway.jsonrpc import RpcClient
from gateway.problems import Problem
from gateway.records import Anchor, Ballot, Call, Record
from gateway.sender import Sender
from gateway.state import VerifiedState
from gateway.validators import Pool, ValidatorNode
from gateway.verify import FinalBlock
from node.chain.domain import Domain
from node.chain.signing import SigningKey
from serving.logs import fields

log = logging.getLogger(__name__)

FIRST_PROBE_S = 1.0
CONNECTIONS_MAX = 256
LOOKED_FOR_AT_ONCE = 16  # ballots that came behind their election's end
LEVELS = {
    1: "all validators",
    2: "a quorum of validators",
    3: "no quorum of validators: records wait in the journal",
    4: "the journal's disk fails: records wait in the spool",
    5: "nothing durable is left: no records are taken",
}


class Keeper(Protocol):
    """What answers for accepted records until they are final: the journal, or the memory of a client."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def accept(self, item: Item) -> Commit:
        """Keep an item, and hand it on once it is kept. Raises NotDurable."""

    def settle(self, place: Place, items: list[Item]) -> None: ...

    def reject(self, item: Item) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Who a core is, whom it talks to and how; `pending_max` and `pending_bytes_max` bound what it answers for."""

    domain: Domain
    key: SigningKey
    secret: bytes
    nodes: tuple[ValidatorNode, ...]
    rpc: RpcConfig
    batch: BatchConfig
    elections: ElectionsConfig
    anchors: AnchorsConfig
    pending_max: int
    pending_bytes_max: int
    election_keys: Path | None = None  # where random keys of elections are kept


class Core:
    """Pool, follower, chain, elections, sender and delivery, put together."""

    levels: Mapping[int, str] = LEVELS  # what a level means here, in words

    def __init__(self, plan: Plan, state: VerifiedState, keeper: Callable[[Callable[[Sequence[Item]], None]], Keeper]):
        """`keeper` is given what to call with items once they are kept, and returns what keeps them."""
        self._plan = plan
        self._state = state
        self.domain = plan.domain
        self.address = plan.key.address
        self.book = Book()
        self.keeper = keeper(self._on_durable)
        self._rpc = RpcClient(connections_max=CONNECTIONS_MAX, hosts=len(plan.nodes))
        self.pool = Pool(
            plan.nodes,
            self._rpc,
            plan.domain,
            timeout_s=plan.rpc.timeout_ms / 1000,
            probe_interval_s=plan.rpc.probe_interval_ms / 1000,
        )
        self.follower = Follower(
            self.pool,
            plan.domain,
            state.head,
            state.sets,
            state.first_header,
            poll_s=plan.rpc.poll_ms / 1000,
            on_block=self._on_block,
            on_jump=self._on_jump,
            wants_blocks=lambda: self._sender.wants_blocks,
        )
        self.chain = Chain(self.pool, self.follower)
        keys = ElectionKeys(plan.secret, plan.domain, plan.election_keys)
        self.elections = Elections(self.chain, state, keys, self.book, self.accept, plan.elections)
        self.delivery = self._make_delivery()
        self._sender = self._make_sender()
        self.touched: set[int] = set()  # elections that ballots came for since their tallies were looked at
        # A crowd that comes too late would else take all connections to the validators, and they would seem to be gone.
        self.looking_late = asyncio.Semaphore(LOOKED_FOR_AT_ONCE)
        self._watcher: asyncio.Task[None] | None = None
        self._logged_level = 0

    def _make_delivery(self) -> Delivery:
        return Delivery(
            self.address,
            self.book,
            self.keeper,
            self.chain,
            self._plan.batch,
            self._plan.anchors,
            make_election=self.elections.ensure,
            casts=self.elections.casts,
        )

    def _make_sender(self) -> Sender:
        plan = self._plan
        return Sender(
            plan.key,
            plan.domain,
            self.pool,
            self.follower,
            resend_s=plan.rpc.resend_ms / 1000,
            in_flight_max=plan.batch.in_flight_max,
            in_flight_bytes_max=plan.batch.in_flight_bytes_max,
            on_included=self.delivery.on_included,
            on_refused=self.delivery.on_refused,
        )

    async def begin(self, waiting: Iterable[Item] = ()) -> None:
        """Look for validators and begin to deliver. Needs no validator."""
        # The first callers should not be told that no quorum is known because nobody has looked yet.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_PROBE_S):
                await self.pool.probe_all()
        await self.pool.start()
        await self.follower.start()
        self.delivery.enqueue(waiting)
        await self._sender.start()
        await self.delivery.start(self._sender)
        self._watcher = asyncio.create_task(self._watch_level(), name="level")

    async def end(self) -> None:
        """Stop everything but the keeper."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.delivery.stop()
        await self._sender.stop()
        await self.follower.stop()
        await self.pool.stop()

    async def close_connections(self) -> None:
        """The last thing to do."""
        await self._rpc.close()

    @property
    def sender(self) -> Sender:
        """What is on its way to the chain."""
        return self._sender

    def level(self) -> int:
        """1 to 3, as LEVELS words them."""
        # Validators answer and nothing becomes final: they do not reach each other.
        return 3 if self._sender.stalled else self.pool.level()

    def warning(self) -> str | None:
        """What a caller should know about the level, or None at levels 1 and 2."""
        level = self.level()
        return self.levels[level] if level >= 3 else None

    async def cast(self, ballot: Ballot) -> Item:
        """Make a ballot durable, or find that it is already. Raises Problem 409 where another one stands."""
        try:
            return await self.durable(self.keep(ballot))
        except Conflict as found:
            raise await self.stands(found) from None

    def keep(self, ballot: Ballot) -> Item:
        """As `cast`, but not durable yet: say nothing of the item before `durable` has returned it.

        Raises Conflict, which is to be told by `stands`, and Problem 503.
        """
        self.touched.add(ballot.election)
        standing = self.book.ballot(ballot.nullifier)
        if standing is not None and standing.reason is None:
            if not same_ballot(standing.record, ballot):
                raise conflict(standing)
            self.book.alias(ballot.record_id, standing)
            return standing
        other = self.book.ballot_by_record_id(ballot.record_id)
        if other is not None and other.reason is None:
            raise Conflict(other, "record-id-taken", "This transaction_id belongs to another voter's ballot.")
        return self._take(ballot)

    def keep_new(self, ballot: Ballot) -> Item | None:
        """As `keep`, for a ballot that nothing is known of; None where something is. Raises Problem 503."""
        if self.book.ballot(ballot.nullifier) is None and self.book.ballot_by_record_id(ballot.record_id) is None:
            self.touched.add(ballot.election)
            return self._take(ballot)
        return None

    async def stands(self, found: "Conflict") -> Problem:
        """The conflict, once what stands is durable. Raises Problem 503 where it could not be kept, so nothing stands.

        Else a crash between the two would leave a voter who was told of a ballot that nobody has.
        """
        await self.durable(found.item)
        return found

    async def anchor(self, anchor: Anchor) -> tuple[Item, bool]:
        """Make an anchor durable, or find it; whether it is new. Raises Problem 409 for another root."""
        standing = self.book.anchor(anchor.batch_id)
        if standing is not None and standing.reason is None:
            if getattr(standing.record, "merkle_root", None) != anchor.merkle_root:
                await self.durable(standing)
                raise Problem(409, "anchor-exists", "This batch is anchored with another Merkle root.")
            return await self.durable(standing), False
        return await self.accept(anchor), True

    async def call(self, call: Call) -> Item:
        """Make another transaction durable, or find the same one waiting."""
        standing = self.book.find(("call", call.to, call.data))
        if standing is not None and standing.pending:
            return await self.durable(standing)
        return await self.accept(call)

    async def accept(self, record: Record) -> Item:
        """Keep a record. When this returns, it is durable. Raises Problem 503 when it cannot be kept."""
        return await self.durable(self._take(record))

    def _take(self, record: Record) -> Item:
        plan = self._plan
        if self.book.pending_count >= plan.pending_max or self.book.pending_bytes >= plan.pending_bytes_max:
            raise Problem(503, "journal-full", "Too many records wait to become final; try again later.")
        item = Item(record, time.time_ns() // 1_000_000)
        self.book.add(item)
        try:
            item.commit = self.keeper.accept(item)
        except NotDurable as error:
            self.book.remove(item)
            raise Problem(503, "not-durable", f"The record was not taken: {error}.") from None
        return item

    async def durable(self, item: Item) -> Item:
        """Return the item once it is durable. Raises Problem 503 when it could not be kept."""
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
        self.delivery.enqueue(items)

    def _on_block(self, block: FinalBlock) -> None:
        self._sender.on_block(block)

    def _on_jump(self) -> None:
        self._sender.on_jump()

    def log_level(self) -> None:
        """Say at which level it is, when that has changed."""
        level = self.level()
        if level != self._logged_level:
            before, self._logged_level = self._logged_level, level
            changed = f" (before: {before})" if before else ""
            importance = logging.INFO if level <= 2 else logging.WARNING
            extra = fields(event="level", gateway_level=level, before=before or None)
            log.log(importance, "level %d: %s%s", level, self.levels[level], changed, extra=extra)

    async def _watch_level(self) -> None:
        while True:
            self.log_level()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.pool.changed()


def warning_at(level: int) -> str | None:
    """What a caller should know about a level, or None at levels 1 and 2."""
    return LEVELS[level] if level >= 3 else None


def same_ballot(record: Record, ballot: Ballot) -> bool:
    """Whether a record is a ballot that is cast alike."""
    return isinstance(record, Ballot) and (record.kind, record.content) == (ballot.kind, ballot.content)


class Conflict(Problem):
    """A 409 because of an item, which may not be durable yet."""

    def __init__(self, item: Item, code: str, detail: str, **extra: object) -> None:
        super().__init__(409, code, detail, **extra)
        self.item = item


def conflict(standing: Item) -> Conflict:
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
    return Conflict(standing, "already-cast", detail, standing=shown)
