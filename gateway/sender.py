"""Gets transactions into blocks: nonces, the same bytes to every validator, sending again, signing anew."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from gateway.book import Item
from gateway.follower import Follower
from gateway.jsonrpc import RpcError, RpcFailure, hex_bytes
from gateway.lane import Lane
from gateway.validators import NoValidator, Pool, Validator
from gateway.verify import FinalBlock, account_from_proof, receipt_at
from node.chain.domain import Domain
from node.chain.receipt import Receipt, decode_receipt
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.consensus.quorum import quorum

log = logging.getLogger(__name__)

POST_BYTES_MAX = 4 << 20
POST_COUNT_MAX = 500
BUSY_PAUSE_S = 0.3
GATHER_S = 0.01  # after a post of several: where many come, few posts carry them, each of which costs as much as three
STALLED_S = 5.0
_TRANSIENT_CODES = (-32603, -32005, -32029)  # internal error; limit exceeded


@dataclass(eq=False, slots=True)
class Parcel:
    """One transaction's worth of records: calldata for the 20-byte address `to`, and the items that it carries."""

    to: bytes
    data: bytes
    gas_limit: int
    items: list[Item] = field(default_factory=list)
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Included:
    """A parcel's transaction in a final block that was checked."""

    parcel: Parcel
    transaction: Transaction
    block: FinalBlock
    position: int

    @property
    def encoded_receipt(self) -> bytes:
        """The receipt as it stands in the block."""
        return self.block.receipts[self.position]

    @property
    def receipt(self) -> Receipt:
        """The receipt, decoded at each use."""
        return decode_receipt(self.encoded_receipt, is_certified=True)

    @property
    def gas_used(self) -> int:
        """Gas that this transaction alone used."""
        return receipt_at(self.block, self.position)[1]


@dataclass(eq=False, slots=True)
class _Sent:
    """A signed transaction that is not final."""

    parcel: Parcel
    transaction: Transaction
    signed_at: float
    text: str  # the transaction as JSON-RPC takes it: made once for all validators
    taken: bool = False  # by a validator
    refused: dict[Validator, str] = field(default_factory=dict)


class Sender:
    """Owns the gateway account's nonces. Whatever it is given comes back once: included, or refused for good.

    Sending a record twice is harmless, since the chain takes each nullifier and batch id once. So whenever it is
    unclear what became of a transaction, its parcel is signed anew, and nothing is ever waited for in vain.
    """

    def __init__(
        self,
        key: SigningKey,
        domain: Domain,
        pool: Pool,
        follower: Follower,
        *,
        resend_s: float,
        in_flight_max: int,
        in_flight_bytes_max: int,
        on_included: Callable[[Included], None],
        on_refused: Callable[[Parcel, str], None],
    ) -> None:
        self._key, self._domain = key, domain
        self._pool, self._follower = pool, follower
        self._in_flight_max, self._bytes_max = in_flight_max, in_flight_bytes_max
        self._on_included, self._on_refused = on_included, on_refused
        self._in_flight: dict[int, _Sent] = {}
        self._by_raw: dict[bytes, _Sent] = {}
        self._bytes = 0
        self._next_nonce: int | None = None  # None until the final nonce has been read and proven
        self._floor = 0  # above the highest nonce of ours that was seen in a block
        self._holes: list[int] = []  # nonces below the next one that nothing of ours has
        self._moved_at = 0.0  # when a transaction of ours was last seen in a block
        self._doubt = asyncio.Event()
        self._doubt_at_next_block = False
        self._wakes = {validator: asyncio.Event() for validator in pool.validators}
        self._lanes: dict[Validator, Lane[_Sent]] = {validator: Lane(resend_s) for validator in pool.validators}
        self._supplies = [(self._lanes[validator], self._wakes[validator]) for validator in pool.validators]
        self._tasks: list[asyncio.Task[None]] = []
        self.roomier = asyncio.Event()  # set when something left the flight

    async def start(self) -> None:
        self._doubt.set()
        self._tasks = [asyncio.create_task(self._push(validator)) for validator in self._pool.validators]
        self._tasks.append(asyncio.create_task(self._settle_doubts(), name="nonces"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def has_room(self) -> bool:
        """Whether another parcel may be sent now."""
        flying = len(self._in_flight)
        return self._next_nonce is not None and flying < self._in_flight_max and self._bytes < self._bytes_max

    @property
    def in_flight_count(self) -> int:
        return len(self._in_flight)

    def oldest_age_s(self) -> float:
        """How long the oldest transaction has waited to become final."""
        oldest = next(iter(self._in_flight.values()), None)  # they stand in the order in which they were signed
        return 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest.signed_at

    @property
    def stalled(self) -> bool:
        """Whether transactions wait and none has become final for long: many may wait, as long as it is their turn."""
        moved_s = asyncio.get_running_loop().time() - self._moved_at
        return moved_s > STALLED_S and self.oldest_age_s() > STALLED_S  # asked for each record: seldom both

    def submit(self, parcel: Parcel) -> None:
        """Sign a parcel under the next nonce and send it to every validator. `has_room` must hold."""
        if self._next_nonce is None:
            raise RuntimeError("the final nonce is not known yet")
        if self._holes:
            nonce = heappop(self._holes)
        else:
            nonce = self._next_nonce
            self._next_nonce += 1
        transaction = sign_transaction(
            self._key,
            chain_id=self._domain.chain_id,
            nonce=nonce,
            to=parcel.to,
            gas_limit=parcel.gas_limit,
            data=parcel.data,
        )
        sent = _Sent(parcel, transaction, asyncio.get_running_loop().time(), "0x" + transaction.raw.hex())
        self._in_flight[nonce] = sent
        self._by_raw[transaction.raw] = sent
        self._bytes += len(transaction.raw)
        for lane, wake in self._supplies:
            lane.put(sent)
            wake.set()

    @property
    def wants_blocks(self) -> bool:
        """Whether `on_block` would do anything: else nobody needs to look into a block."""
        return bool(self._in_flight) or self._doubt_at_next_block

    def on_block(self, block: FinalBlock) -> None:
        """Hand back what a checked block includes."""
        now = asyncio.get_running_loop().time()
        for position, raw in enumerate(block.transactions):
            sent = self._by_raw.get(raw)
            if sent is None:
                continue
            self._forget(sent)
            self._moved_at = now
            self._floor = max(self._floor, sent.transaction.nonce + 1)
            if sent.parcel.items:
                self._on_included(Included(sent.parcel, sent.transaction, block, position))
        if self._doubt_at_next_block or self.oldest_age_s() > STALLED_S:
            self._doubt_at_next_block = False
            self._doubt.set()

    def on_jump(self) -> None:
        """Blocks were passed over: what was in flight may be in one of them."""
        self._doubt.set()

    def _forget(self, sent: _Sent) -> None:
        del self._in_flight[sent.transaction.nonce]
        del self._by_raw[sent.transaction.raw]
        self._bytes -= len(sent.transaction.raw)
        for lane, _ in self._supplies:
            lane.forget(sent)
        self.roomier.set()

    async def _settle_doubts(self) -> None:
        """Read the final nonce, proven, whenever it is unclear, and sign anew what can no longer be included."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            try:
                nonce = await self._final_nonce()
            except NoValidator as error:
                log.debug("the final nonce cannot be read: %s", error)
                self._doubt.set()
            else:
                self._apply_nonce(nonce)
            await asyncio.sleep(BUSY_PAUSE_S)

    async def _final_nonce(self) -> int:
        header = self._follower.head.header
        parameters: tuple[object, ...] = ("0x" + self._key.address.hex(), [], hex(header.number))

        def check(answer: Any) -> int:
            proof = [hex_bytes(node) for node in answer["accountProof"]]
            return account_from_proof(header.state_root, self._key.address, proof).nonce

        return await self._pool.ask_checked("eth_getProof", parameters, check)

    def _apply_nonce(self, nonce: int) -> None:
        """Everything of ours in blocks up to the head has been handed back; what has a lower nonce still is dead."""
        nonce = max(nonce, self._floor)  # blocks came while the nonce was being read
        dead = [sent for sent in self._in_flight.values() if sent.transaction.nonce < nonce]
        for sent in dead:
            self._forget(sent)
        first = self._next_nonce is None
        self._next_nonce = max(nonce, max(self._in_flight, default=nonce - 1) + 1)
        self._holes = [hole for hole in range(nonce, self._next_nonce) if hole not in self._in_flight]
        if dead:
            log.info("signing %d transactions anew from nonce %d", len(dead), nonce)
        for sent in dead:
            self.submit(sent.parcel)
        self._fill_holes()
        if first:
            self.roomier.set()

    def _fill_holes(self) -> None:
        """Spend nonces that would keep later transactions waiting, on transfers of nothing to ourselves."""
        while self._holes:
            self.submit(Parcel(self._key.address, b"", 21_000))

    async def _push(self, validator: Validator) -> None:
        """Keep one validator supplied with everything in flight."""
        wake, lane, loop = self._wakes[validator], self._lanes[validator], asyncio.get_running_loop()
        while True:
            if validator.probed and not validator.reachable:
                lane.restart(self._in_flight.values())
                await self._pool.changed()
                continue
            now = loop.time()
            due = lane.due(self._in_flight, now, count_max=POST_COUNT_MAX, bytes_max=POST_BYTES_MAX)
            if not due:
                wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(lane.next_s(now) - now, 0.01)):
                        await wake.wait()
                continue
            try:
                calls = [("eth_sendRawTransaction", (sent.text,)) for sent in due]
                answers = await self._pool.batch(validator, calls)
            except RpcFailure as failure:
                log.debug("%s: %s", validator.node.node_id, failure)
                lane.restart(self._in_flight.values())
                await asyncio.sleep(BUSY_PAUSE_S)
                continue
            self._note_answers(validator, due, answers)
            if len(due) > 1:
                await asyncio.sleep(GATHER_S)

    def _note_answers(self, validator: Validator, due: Sequence[_Sent], answers: Sequence[object]) -> None:
        now = asyncio.get_running_loop().time()
        again: list[_Sent] = []
        for sent, answer in zip(due, answers, strict=True):
            known = isinstance(answer, RpcError) and answer.message.startswith("already known")
            refusal = answer if isinstance(answer, RpcError) and not known else None
            if refusal is None and not sent.taken:
                sent.taken = True
                for item in sent.parcel.items:
                    item.taken_by = item.taken_by or validator.node.node_id
            if self._in_flight.get(sent.transaction.nonce) is not sent:
                continue  # final, or given up, meanwhile
            if refusal is None:
                again.append(sent)
            else:
                self._note_refusal(validator, sent, refusal, now)
        self._lanes[validator].sent_at(again, now)

    def _note_refusal(self, validator: Validator, sent: _Sent, refusal: RpcError, now: float) -> None:
        pause_s: float | None = None
        if refusal.message.startswith("nonce too low"):
            self._doubt.set()  # it is in a block that we have not seen yet, or another transaction has its nonce
        elif "underpriced" in refusal.message:
            self._doubt_at_next_block = True  # another one with its nonce waits there, from before a restart
        elif refusal.code in _TRANSIENT_CODES or refusal.message.startswith(("txpool is full", "nonce too high")):
            pause_s = BUSY_PAUSE_S
        else:
            sent.refused[validator] = refusal.message
            if len(sent.refused) >= quorum(self._pool.set_size):
                self._refuse(sent, refusal.message)
                return
        self._lanes[validator].sent_at((sent,), now, pause_s)

    def _refuse(self, sent: _Sent, reason: str) -> None:
        self._forget(sent)
        heappush(self._holes, sent.transaction.nonce)
        if sent.parcel.items:
            self._on_refused(sent.parcel, reason)
        if self._in_flight and max(self._in_flight) > sent.transaction.nonce:
            self._fill_holes()
