"""Carries durable records to the chain: gathers ballots into batches, and judges what came back from a final block."""

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Protocol, TypeVar

from gateway import calls
from gateway.book import Book, Item
from gateway.chain import Chain, Standing
from gateway.config import AnchorsConfig, BatchConfig
from gateway.journal_format import Place
from gateway.problems import Problem
from gateway.records import Anchor, Ballot, Call
from gateway.sender import Included, Parcel, Sender
from gateway.validators import NoValidator
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import Outcome
from node.chain.receipt import Receipt
from node.chain.transaction import TRANSACTION_BYTES_MAX
from serving.distribution import Distribution

T = TypeVar("T")

log = logging.getLogger(__name__)

ATTEMPTS_MAX = 5
GATHER_STRETCH_MAX = 4
ASK_AGAIN_S = 0.3
WOKEN_AT_ONCE = 32
ASKING_MAX = 16  # questions after standing records at a time
REASON_CHARS_MAX = 500  # of a refusal, which is in a validator's words and goes into the journal
# Refusals that say something of the whole election or caller, not of one record in the batch.
_WHOLE = ("ElectionNotOpen", "NotRegistrar", "UnknownElection", "NotGateway", "NotAllowedToCreate", "NotCreator")
# Refusals of an anchor that no later attempt can change.
_NEVER = ("AnchorExists", "InvalidAnchor")
_ACCEPTED = int(Outcome.ACCEPTED)


class Settling(Protocol):
    """Who is told of the end of records."""

    def settle(self, place: Place, items: list[Item]) -> None: ...

    def reject(self, item: Item) -> None: ...


class Delivery:
    """Everything durable and not settled goes through here, in the order in which it came.

    `make_election` is told of an unknown election that ballots wait for, and says if there is one now; `casts` says
    whether the key at hand is the election's (None: it was never seen). Where it is not, a voter could count twice.
    """

    def __init__(
        self,
        sender_address: bytes,
        book: Book,
        durability: Settling,
        chain: Chain,
        batch: BatchConfig,
        anchors: AnchorsConfig,
        *,
        make_election: Callable[[int], Awaitable[bool]],
        casts: Callable[[int], bool | None],
    ) -> None:
        self._address = sender_address
        self._book, self._durability, self._chain = book, durability, chain
        self._gather_s, self._ballots_max, self._bytes_max = batch.gather_ms / 1000, batch.ballots_max, batch.bytes_max
        self._anchors = anchors
        self.on_end: Callable[[Item], None] = lambda item: None  # told of each anchor that is final, refused or failed
        self._make_election, self._casts = make_election, casts
        self._calls: deque[Item] = deque()  # one transaction each; before all else, for ballots may need what they make
        self._anchors_waiting: deque[Item] = deque()  # one transaction each
        self._ballots_turn = False
        self._looking: set[int] = set()  # elections that were never seen, and are being looked for
        self._missing: set[int] = set()  # that were not found: the chain shall say so
        self._ballots: dict[int, deque[Item]] = {}  # by election
        self._since_s: dict[int, float] = {}  # when the first waiting ballot of an election came
        self._again: deque[Parcel] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Semaphore(ASKING_MAX)
        self._ended: deque[Item] = deque()  # whose callers are still to be woken
        self._someone_ended = asyncio.Event()
        self.ends: Counter[tuple[str, str]] = Counter()  # (kind, outcome) of the records whose end is known
        self.finality = Distribution()  # seconds from acceptance to verified finality

    async def start(self, sender: Sender) -> None:
        self._spawn(self._run(sender))
        self._spawn(self._wake_callers())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def enqueue(self, items: Iterable[Item]) -> None:
        """Take durable items, in order."""
        now = asyncio.get_running_loop().time()
        for item in items:
            item.queued = True
            if isinstance(item.record, Ballot):
                election = item.record.election
                queue = self._ballots.get(election)
                if queue is None:
                    queue = self._ballots[election] = deque()
                    self._since_s[election] = now
                queue.append(item)
            else:
                queue = self._anchors_waiting if isinstance(item.record, Anchor) else self._calls
                queue.append(item)
        self._wake.set()

    async def _wake_callers(self) -> None:
        """Tell callers of their records' ends, some at a time.

        A block may end thousands of requests. Were they all answered at once, a new one would wait behind all of them.
        """
        while True:
            await self._someone_ended.wait()
            self._someone_ended.clear()
            while self._ended:
                for _ in range(min(WOKEN_AT_ONCE, len(self._ended))):
                    self._ended.popleft().wake()
                await asyncio.sleep(0)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, sender: Sender) -> None:
        while True:
            if not sender.has_room:
                sender.roomier.clear()
                await sender.roomier.wait()
                continue
            parcel, due_s = self._next_parcel(sender.in_flight_count)
            if parcel is not None:
                sender.submit(parcel)
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await self._wake.wait()

    def _next_parcel(self, flying: int = 0) -> tuple[Parcel | None, float | None]:
        """What to send now; or None, and the seconds until something is due (None: when something comes).

        `flying`: how many transactions are sent and not final.
        """
        if self._again:
            return self._again.popleft(), None
        if self._calls:
            return self._parcel_of(self._calls.popleft()), None
        election, wait_s = self._due_election(flying) if self._ballots else (None, None)
        if self._anchors_waiting and (election is None or not self._ballots_turn):  # they take turns
            self._ballots_turn = True
            return self._parcel_of(self._anchors_waiting.popleft()), None
        if election is None:
            return None, wait_s
        self._ballots_turn = False
        return self._batch(election, self._ballots[election]), None

    def _due_election(self, flying: int) -> tuple[int | None, float | None]:
        """The election whose ballots have gathered long enough; or None, and the seconds until there is one."""
        now, wait_s = asyncio.get_running_loop().time(), None
        # Where transactions of ours wait for the next block already, one more gains little by being there at once.
        gather_s = self._gather_s * min(1 + flying, GATHER_STRETCH_MAX)
        for election, queue in list(self._ballots.items()):
            left_s = self._since_s[election] + gather_s - now
            if left_s > 0 and len(queue) < self._ballots_max:
                wait_s = left_s if wait_s is None else min(wait_s, left_s)
            elif self._may_cast(election):
                return election, None
        return None, wait_s

    def _may_cast(self, election: int) -> bool:
        """Whether ballots may go out now. Those that were taken unseen, in an outage, wait for the key's comparison."""
        casts = self._casts(election)
        if casts is False:
            del self._since_s[election]
            for item in self._ballots.pop(election):
                self._reject(item, "KeyMismatch: this gateway has not the key that the election was created with")
        elif casts is None and election not in self._missing:
            if election not in self._looking:
                self._looking.add(election)
                self._spawn(self._look_for(election))
            return False
        return casts is not False

    async def _look_for(self, election: int) -> None:
        if not await self._asked(lambda: self._make_election(election)):
            self._missing.add(election)
        self._looking.discard(election)
        self._wake.set()

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, asked for until there is one: records wait for it, and nobody else would ask again."""
        while True:
            try:
                async with self._asking:
                    return await ask()
            except (NoValidator, Problem) as fault:
                log.debug("asking again: %s", fault)
            except Exception:
                log.exception("what records wait for could not be asked; asking again")
            await asyncio.sleep(ASK_AGAIN_S)

    def _batch(self, election: int, queue: deque[Item]) -> Parcel:
        items: list[Item] = []
        packed: list[bytes] = []
        size = 0
        while queue and len(items) < self._ballots_max:
            record = queue[0].record
            assert isinstance(record, Ballot)  # only ballots are put into these queues
            data = record.packed()
            if items and size + len(data) > self._bytes_max:
                break
            size += len(data)
            packed.append(data)
            items.append(queue.popleft())
        self._missing.discard(election)
        # Elections take turns: what is left goes behind the others, and has gathered long enough already.
        del self._ballots[election]
        if queue:
            self._ballots[election] = queue
        else:
            del self._since_s[election]
        calldata = calls.cast_batch(election, packed)
        return Parcel(ELECTIONS, calldata, calls.cast_batch_gas(calldata, len(items)), items)

    def _parcel_of(self, item: Item) -> Parcel:
        record = item.record
        if isinstance(record, Anchor):
            data = calls.anchor_call(record)
            return Parcel(ANCHORS, data, calls.call_gas(data), [item])
        assert isinstance(record, Call)  # ballots have queues of their own
        return Parcel(record.to, record.data, calls.call_gas(record.data), [item])

    def on_included(self, included: Included) -> None:
        """Judge a parcel whose transaction is in a final block that was checked."""
        parcel, header = included.parcel, included.block.header
        place = Place(header.number, header.hash, included.transaction.hash)
        item = parcel.items[0]
        if isinstance(item.record, Anchor):
            index = calls.anchored_index(included.encoded_receipt, item.record.batch_id)
            if index is not None:
                self._settle(place, [item], Outcome.ACCEPTED, index)
                return
        receipt = included.receipt
        if not receipt.succeeded:
            self._spawn(self._find_reason(included))
        elif isinstance(item.record, Ballot):
            self._judge_batch(parcel, receipt, place)
        else:
            self._settle(place, [item], Outcome.ACCEPTED, 0)

    def _judge_batch(self, parcel: Parcel, receipt: Receipt, place: Place) -> None:
        cast = calls.read_cast(receipt)
        if cast is None or len(cast.outcomes) != len(parcel.items):
            raise RuntimeError(f"block {place.block_number}: a certified batch has no fitting BallotsCast")
        accepted: list[Item] = []
        for item, code in zip(parcel.items, cast.outcomes, strict=True):
            if code == _ACCEPTED:
                accepted.append(item)
            elif code == Outcome.REPEATED:
                assert isinstance(item.record, Ballot)  # of a batch
                self._spawn(self._find_standing(item, item.record))
            else:
                outcome = Outcome(code)
                self._reject(item, f"{outcome.name}: {calls.OUTCOME_REASONS[outcome]}", outcome)
        if accepted:
            self._settle(place, accepted, Outcome.ACCEPTED, cast.first_index)

    def _settle(self, place: Place, items: list[Item], outcome: Outcome, first_index: int) -> None:
        """Items of one transaction stand on the chain, one behind the other in their log."""
        for index, item in enumerate(items, first_index):
            item.outcome, item.index, item.place = outcome, index, place
        self._done(items)
        self._durability.settle(place, items)
        first = items[0]  # it waited longest
        self.ends[type(first.record).__name__.lower(), outcome.name.lower()] += len(items)
        self.finality.observe(max(0, first.updated_at_ms - first.received_at_ms) / 1000, len(items))

    def _reject(self, item: Item, reason: str, outcome: Outcome | None = None) -> None:
        item.outcome, item.reason = outcome, reason[:REASON_CHARS_MAX]
        self._done([item])
        self._durability.reject(item)
        self.ends[type(item.record).__name__.lower(), outcome.name.lower() if outcome else "refused"] += 1

    def _done(self, items: list[Item]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for item in items:
            item.failed, item.updated_at_ms = None, now_ms
        self._book.done(items)
        self._ended += items
        self._someone_ended.set()
        for item in items:
            if isinstance(item.record, Anchor):
                self.on_end(item)

    def _back_off(self, item: Item, reason: str) -> None:
        """Validators refuse an anchor now; that may pass. Try again later each time, and in the end call it failed."""
        item.attempts += 1
        item.updated_at_ms = time.time_ns() // 1_000_000
        item.queued = False
        if item.attempts >= self._anchors.attempts_max:
            item.failed = reason[:REASON_CHARS_MAX]
            log.warning("an anchor was refused %d times: %s", item.attempts, reason)
            item.wake()
            self.on_end(item)
            return
        pause_s = self._anchors.backoff_ms / 1000 * 2 ** (item.attempts - 1)
        self._spawn(self._later(item, pause_s))

    async def _later(self, item: Item, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        self.enqueue([item])

    def again(self, item: Item) -> None:
        """Send a failed anchor once more, as if it were new."""
        item.failed, item.attempts = None, 0
        item.updated_at_ms = time.time_ns() // 1_000_000
        self.enqueue([item])

    async def _find_standing(self, item: Item, ballot: Ballot) -> None:
        """A ballot that stands already, from an earlier sending or another gateway: find where, and settle it there."""

        async def ask() -> Standing:
            standing = await self._chain.ballot(ballot.election, nullifier=ballot.nullifier)
            if standing is None:
                raise NoValidator("it is in a final block, and nobody who answers knows it")
            return standing

        standing = await self._asked(ask)
        if isinstance(standing.record, Ballot):
            self._book.stands_as(item, standing.record)
        self._settle(standing.place, [item], Outcome.REPEATED, standing.index)

    async def _find_anchor(self, item: Item, anchor: Anchor) -> None:
        """A validator says that a batch is anchored already: find where, and judge by that. It may have lied."""
        standing = await self._asked(lambda: self._chain.anchor(anchor.batch_id, sure=True))
        if standing is None:
            self._back_off(item, "a validator says that the batch is anchored, and a quorum knows no such anchor")
        elif getattr(standing.record, "merkle_root", b"") != anchor.merkle_root:
            self._reject(item, "AnchorExists: the batch is anchored with another root")
        else:
            self._settle(standing.place, [item], Outcome.REPEATED, standing.index)

    async def _judge_late(self, parcel: Parcel, reason: str) -> None:
        """The election is over: a ballot that was cast before, and came again unseen, stands all the same."""
        for item in parcel.items:
            ballot = item.record
            assert isinstance(ballot, Ballot)  # of a batch
            ask = partial(self._chain.ballot, ballot.election, nullifier=ballot.nullifier, sure=True)
            standing = await self._asked(ask)
            if standing is None or not isinstance(standing.record, Ballot):
                self._reject(item, reason)
            elif (standing.record.kind, standing.record.content) == (ballot.kind, ballot.content):
                self._book.stands_as(item, standing.record)
                self._settle(standing.place, [item], Outcome.REPEATED, standing.index)
            else:
                used = Outcome.NULLIFIER_USED
                self._reject(item, f"{used.name}: {calls.OUTCOME_REASONS[used]}", used)

    async def _find_reason(self, included: Included) -> None:
        """A transaction that failed in its block: ask why, and do what that calls for."""
        parcel = included.parcel
        if included.gas_used >= parcel.gas_limit:
            parcel.gas_limit *= 2
            self._retry(parcel, "it ran out of gas")
            return
        height = included.block.header.number
        data: bytes | None = None
        for _ in range(ATTEMPTS_MAX):
            try:
                data = await self._chain.refusal(self._address, parcel.to, parcel.data, height)
                break
            except NoValidator as fault:
                log.debug("asking again: %s", fault)
            except Exception:
                log.exception("why a transaction failed could not be asked")
            await asyncio.sleep(ASK_AGAIN_S)
        if data is None:
            self._retry(parcel, "it failed, and the same call passes now")
            return
        reason = calls.explain_revert(data)
        name, record = reason.partition("(")[0], parcel.items[0].record  # the name is one validator's word
        if name == "AnchorExists" and isinstance(record, Anchor):
            await self._find_anchor(parcel.items[0], record)
        elif name == "ElectionNotOpen" and isinstance(record, Ballot):
            await self._judge_late(parcel, reason)
        elif (
            name == "UnknownElection"
            and isinstance(record, Ballot)
            and await self._asked(lambda: self._make_election(record.election))
        ):
            self._retry(parcel, reason)
        elif name in _WHOLE or len(parcel.items) == 1:
            self._reject_all(parcel, reason)
        else:
            self._bisect(parcel)

    def on_refused(self, parcel: Parcel, reason: str) -> None:
        """Judge a parcel that a quorum of validators will not take into a block."""
        if len(parcel.items) > 1:
            self._bisect(parcel)
        else:
            self._reject_all(parcel, f"Refused: {reason}")

    def _retry(self, parcel: Parcel, reason: str) -> None:
        parcel.attempts += 1
        if parcel.attempts >= ATTEMPTS_MAX:
            if len(parcel.items) > 1:
                self._bisect(parcel)
            else:
                self._reject_all(parcel, reason)
            return
        log.debug("sending a transaction again: %s", reason)
        self._again.append(parcel)
        self._wake.set()

    def _bisect(self, parcel: Parcel) -> None:
        """Send a batch again in two halves, so that what is wrong with one record does not cost the others."""
        middle = len(parcel.items) // 2
        for items in (parcel.items[:middle], parcel.items[middle:]):
            ballots = [item.record for item in items if isinstance(item.record, Ballot)]
            calldata = calls.cast_batch(ballots[0].election, [ballot.packed() for ballot in ballots])
            self._again.append(Parcel(ELECTIONS, calldata, calls.cast_batch_gas(calldata, len(items)), items))
        self._wake.set()

    def _reject_all(self, parcel: Parcel, reason: str) -> None:
        for item in parcel.items:
            if isinstance(item.record, Anchor) and not reason.startswith(_NEVER):
                self._back_off(item, reason)
            else:
                self._reject(item, reason)


# One sealed ballot of the largest size always fits a transaction.
assert TRANSACTION_BYTES_MAX > 65_536 + 4096
