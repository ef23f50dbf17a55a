"""The gateway's memory of its records: all that wait and a bounded number of those that are done."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from gateway.journal import RecordKey, Replayed, record_key
from gateway.journal_format import Place
from gateway.records import Anchor, Ballot, Record
from node.chain.contracts.ballots import Outcome

RECENT_MAX = 50_000
FOREVER_S = 1e9
TICK_S = 0.02  # by so much may a wait be longer than was asked for


class NotDurable(RuntimeError):
    """Neither the journal nor the spool could keep the record; nothing was promised."""


class Commit:
    """Tells any number of waiters that a group was synced, or that it could not be."""

    __slots__ = ("_done", "_error", "succeeded")

    def __init__(self) -> None:
        self._done = asyncio.Event()
        self._error: str | None = None
        self.succeeded = False

    def finish(self, error: str | None = None) -> None:
        self._error, self.succeeded = error, error is None
        self._done.set()

    async def wait(self) -> None:
        """Return once the group is durable. Raises NotDurable. One waiter's cancellation does not touch the others."""
        if not self._done.is_set():
            await self._done.wait()
        if self._error is not None:
            raise NotDurable(self._error)


class Waiter(Protocol):
    """Who waits for the ends of records."""

    def one_less(self) -> None:
        """One of the ends is known."""

    def over(self) -> None:
        """The time is over."""


class Item:
    """One record and all that is known of it. Compared by identity.

    It waits while it has neither `place` nor `reason`. A `place` is where it stands on the chain, checked by us, with
    the outcome byte and its index in the log; a `reason` is why the chain will not take it. An anchor that was refused
    too often has `failed`: the reason, until it is tried again; it still waits, in the journal, too.
    """

    __slots__ = (
        "attempts",
        "commit",
        "failed",
        "index",
        "others",
        "outcome",
        "place",
        "queued",
        "reason",
        "received_at_ms",
        "record",
        "sequence",
        "taken_by",
        "updated_at_ms",
        "waiters",
    )

    def __init__(self, record: Record, received_at_ms: int) -> None:
        self.record = record
        self.others: tuple[bytes, ...] = ()  # record ids that a ballot came under before an equal one was found
        self.received_at_ms = received_at_ms
        self.sequence = -1
        self.commit: Commit | None = None  # None: found in the journal at start, durable long since
        self.place: Place | None = None
        self.outcome: Outcome | None = None
        self.index = 0
        self.reason: str | None = None
        self.failed: str | None = None
        self.attempts = 0  # refusals since it came, or since somebody asked for it again
        self.queued = False  # on its way to the chain
        self.updated_at_ms = received_at_ms
        self.taken_by: str | None = None
        self.waiters: list[Waiter] = []

    @property
    def pending(self) -> bool:
        return self.place is None and self.reason is None

    @property
    def durable(self) -> bool:
        return self.commit is None or self.commit.succeeded

    def wake(self) -> None:
        """Let everyone who waits for the end look again."""
        if self.waiters:
            waiters, self.waiters = self.waiters, []
            for waiter in waiters:
                waiter.one_less()

    async def wait(self, timeout_s: float) -> None:
        """Return when the record's end is known, or the time is over."""
        await wait_for_ends((self,), timeout_s)


class _Ends:
    """Counts down the records whose ends one caller waits for: one future however many they are."""

    __slots__ = ("future", "left")

    def __init__(self, future: asyncio.Future[None], left: int) -> None:
        self.future, self.left = future, left

    def one_less(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.over()

    def over(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class _Deadlines:
    """Ends waits whose time is over, up to a tick late: one timer for all that end in one tick.

    Thousands of callers wait at a time, nearly all of them in vain for their timers, and each timer of its own costs
    several microseconds.
    """

    def __init__(self) -> None:
        self._due: dict[int, set[Waiter]] = {}  # by tick

    def add(self, ends: Waiter, over_at_s: float) -> set[Waiter]:
        """Take in a wait that ends at this time of the running loop; what to discard it from if it ends before."""
        tick = int(over_at_s / TICK_S) + 1
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = set()
            asyncio.get_running_loop().call_at(tick * TICK_S, self._over, tick)
        due.add(ends)
        return due

    def _over(self, tick: int) -> None:
        for ends in self._due.pop(tick):
            ends.over()


_DEADLINES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Deadlines] = WeakKeyDictionary()


def _over_in(waiter: Waiter, timeout_s: float) -> set[Waiter]:
    """Let a waiter know when its time is over; what to discard it from if it ends before."""
    loop = asyncio.get_running_loop()
    deadlines = _DEADLINES.get(loop)
    if deadlines is None:
        deadlines = _DEADLINES[loop] = _Deadlines()
    return deadlines.add(waiter, loop.time() + min(timeout_s, FOREVER_S))


def call_at_end(item: Item, waiter: Waiter, timeout_s: float) -> set[Waiter]:
    """Tell a waiter of the end of a waiting record, or that its time is over.

    What is returned holds the waiter until then: who is told of the end discards itself from it.
    """
    item.waiters.append(waiter)
    return _over_in(waiter, timeout_s)


async def wait_for_ends(items: Sequence[Item], timeout_s: float) -> None:
    """Return when the ends of all these records are known, or the time is over."""
    waiting = [item for item in items if item.pending]
    if not waiting or timeout_s <= 0:
        return
    ends = _Ends(asyncio.get_running_loop().create_future(), len(waiting))
    for item in waiting:
        item.waiters.append(ends)
    due = _over_in(ends, timeout_s)
    try:
        await ends.future
    finally:
        due.discard(ends)
        if ends.left > 0:  # given up; where all have ended, none remembers who waited
            for item in waiting:
                if ends in item.waiters:
                    item.waiters.remove(ends)


def item_of(replayed: Replayed) -> Item:
    """The item of a record found in the journal."""
    item = Item(replayed.accepted.record, replayed.accepted.received_at_ms)
    item.sequence, item.others = replayed.accepted.sequence, replayed.others
    item.place, item.index, item.reason = replayed.place, replayed.index, replayed.reason
    item.outcome = None if replayed.outcome is None else Outcome(replayed.outcome)
    return item


class Book:
    """All waiting items, and the `recent_max` last ones that are done."""

    def __init__(self, recent_max: int = RECENT_MAX) -> None:
        self._items: dict[RecordKey, Item] = {}
        self._by_record_id: dict[bytes, Item] = {}
        self._anchors: dict[bytes, Item] = {}  # those that are not on the chain, by batch id
        self._aliases: OrderedDict[bytes, Item] = OrderedDict()  # other record ids of equal ballots
        self._done: deque[Item] = deque()  # oldest first; some may have been dropped since
        self._recent_max = recent_max
        self._pending_ballots: Counter[int] = Counter()  # by election
        self.pending_bytes = 0
        self.pending_count = 0

    def add(self, item: Item) -> None:
        """Take in a new item; it takes the place of a refused one under the same key."""
        record = item.record
        key = record_key(record)
        old = self._items.get(key)
        if old is not None:
            self._drop(old)
        self._items[key] = item
        if isinstance(record, Ballot):
            self._by_record_id[record.record_id] = item
            for other in item.others:
                self.alias(other, item)
        elif isinstance(record, Anchor) and item.place is None:
            self._anchors[record.batch_id] = item
        if item.pending:
            self._count(record, 1)
        else:
            self._remember((item,))

    def remove(self, item: Item) -> None:
        """Forget an item that never became durable."""
        if item.pending:
            self._count(item.record, -1)
        self._drop(item)

    def done(self, items: Sequence[Item]) -> None:
        """Note that waiting items have got their `place` or `reason` just now. Who waits is still to be woken."""
        for item in items:
            self._count(item.record, -1)
            if item.place is not None:
                self._forget_anchor(item)
        self._remember(items)

    def _count(self, record: Record, by: int) -> None:
        self.pending_count += by
        self.pending_bytes += by * _weight(record)
        if isinstance(record, Ballot):
            left = self._pending_ballots[record.election] + by
            if left:
                self._pending_ballots[record.election] = left
            else:
                del self._pending_ballots[record.election]

    def _remember(self, items: Sequence[Item]) -> None:
        self._done.extend(items)
        while len(self._done) > self._recent_max:
            self._drop(self._done.popleft())

    def _forget_anchor(self, item: Item) -> None:
        if isinstance(item.record, Anchor) and self._anchors.get(item.record.batch_id) is item:
            del self._anchors[item.record.batch_id]

    def _drop(self, item: Item) -> None:
        self._forget_anchor(item)
        record = item.record
        key = record_key(record)
        if self._items.get(key) is item:
            del self._items[key]
        if isinstance(record, Ballot) and self._by_record_id.get(record.record_id) is item:
            del self._by_record_id[record.record_id]

    def find(self, key: RecordKey) -> Item | None:
        return self._items.get(key)

    def find_same(self, item: Item) -> bool:
        """Whether this very item is in the book."""
        return self._items.get(record_key(item.record)) is item

    def ballot(self, nullifier: bytes) -> Item | None:
        return self._items.get(nullifier)

    def ballot_by_record_id(self, record_id: bytes) -> Item | None:
        return self._by_record_id.get(record_id)

    def alias(self, record_id: bytes, item: Item) -> None:
        """An equal ballot of the same voter came under another transaction id: it is this one, as long as we remember.

        The chain keeps the first id alone; whoever sends the vote again is told of the record that stands.
        """
        if record_id not in self._by_record_id:
            self._aliases[record_id] = item
            if len(self._aliases) > self._recent_max:
                self._aliases.popitem(last=False)

    def stands_as(self, item: Item, record: Ballot) -> None:
        """An equal ballot of the same voter stands under this record id already: the item is that record.

        Its end has to be written into the journal after this, which then writes the record down anew.
        """
        own = item.record
        if not isinstance(own, Ballot) or own.record_id == record.record_id:
            return
        if self._by_record_id.get(own.record_id) is item:
            del self._by_record_id[own.record_id]
        item.record, item.others = record, (*item.others, own.record_id)
        self._by_record_id.setdefault(record.record_id, item)
        self.alias(own.record_id, item)

    def by_alias(self, record_id: bytes) -> Item | None:
        """The ballot that a transaction id belongs to, its own or that of an equal ballot."""
        return self._by_record_id.get(record_id) or self._aliases.get(record_id)

    def anchors(self) -> list[Item]:
        """The anchors that are not on the chain, oldest first."""
        return sorted(self._anchors.values(), key=anchor_order)

    def failed_anchors(self) -> list[Item]:
        """Those of them that were refused too often."""
        return [item for item in self._anchors.values() if item.failed is not None]

    def anchor(self, batch_id: bytes) -> Item | None:
        return self._items.get(("anchor", batch_id, b""))

    def pending(self) -> Iterator[Item]:
        """The waiting items in the order in which they came."""
        return (item for item in self._items.values() if item.pending)

    def pending_ballots(self, election: int) -> int:
        """How many ballots of an election wait here."""
        return self._pending_ballots[election]


def anchor_order(item: Item) -> tuple[int, bytes]:
    """What listings sort waiting anchors by: the same in each life of the process."""
    return item.received_at_ms, item.record.batch_id if isinstance(item.record, Anchor) else b""


def _weight(record: Record) -> int:
    """Bytes that a waiting record holds on to, about."""
    if isinstance(record, Ballot):
        return 600 + len(record.content)
    return 700 if isinstance(record, Anchor) else 600 + len(record.data)
