"""Makes records durable before anything is said of them: group commits to the journal, to the spool when that fails."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum

from gateway.book import Commit, Item, NotDurable, item_of
from gateway.journal import Journal, RecordKey, Replayed, other_ids
from gateway.journal_format import Place, Rejected, Settled, encode_accepted, encode_rejected, encode_settled
from node.chain.contracts.ballots import Outcome

log = logging.getLogger(__name__)

GROUP_BYTES_MAX = 8 << 20
RECOVER_INTERVAL_S = 5.0
RETRY_INTERVAL_S = 1.0


class Storage(Enum):
    """Where what is accepted now becomes durable."""

    JOURNAL = "journal"
    SPOOL = "spool"
    NONE = "none"


@dataclass(slots=True)
class _Group:
    """What waits for the next sync."""

    accepted: list[Item] = field(default_factory=list)
    settled: list[tuple[Place, list[Item]]] = field(default_factory=list)
    rejected: list[Item] = field(default_factory=list)
    commit: Commit = field(default_factory=Commit)

    def __bool__(self) -> bool:
        return bool(self.accepted or self.settled or self.rejected)


class Durability:
    """The one writer of journal and spool. `on_durable` gets accepted items, in order, once they are synced."""

    def __init__(self, journal: Journal, spool: Journal, on_durable: Callable[[Sequence[Item]], None]) -> None:
        self._journal, self._spool = journal, spool
        self._on_durable = on_durable
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._group = _Group()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsettled: dict[Item, None] = {}  # durable and not settled, in order
        self._retry_at = 0.0
        self._stopping = False
        self._is_told = False  # that nothing durable is left
        self.storage = Storage.JOURNAL
        self.last_error: str | None = None
        self.accepted_count = 0  # records synced since this process started

    def oldest_received_at_ms(self) -> int | None:
        """When the oldest durable record came that is not settled (Unix milliseconds); None when none waits."""
        oldest = next(iter(self._unsettled), None)
        return None if oldest is None else oldest.received_at_ms

    def recover(self) -> list[Item]:
        """All items that journal and spool still know, in order. Call once, before `start`."""
        merged: dict[RecordKey, Replayed] = dict(self._journal.replay.records)
        for key, spooled in self._spool.replay.records.items():
            known = merged.get(key)
            if known is None or _rank(spooled) >= _rank(known):
                merged[key] = spooled
                if known is not None:  # the journal alone may say under which id it came
                    others = (*other_ids(known, spooled.accepted.record), *spooled.others)
                    spooled.others = tuple(dict.fromkeys(others))
        items = [item_of(replayed) for replayed in merged.values()]
        self._unsettled = {item: None for item in items if item.pending}
        if self._spool.replay.records:
            self.storage = Storage.NONE  # until the loop has written all of it into one of the two
        return items

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="journal")
        if self.storage is Storage.NONE:
            self._wake.set()

    async def stop(self) -> None:
        """Sync what waits, and end."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()
        self._journal.close()
        self._spool.close()

    def accept(self, item: Item) -> Commit:
        """Put an item into the next group. Wait for the commit before saying anything about the item."""
        if self._stopping:
            raise NotDurable("the gateway is stopping")
        item.commit = self._group.commit
        self._group.accepted.append(item)
        self._wake.set()
        return item.commit

    def settle(self, place: Place, items: list[Item]) -> None:
        """Note where durable items stand on the chain. The chain is what makes it so; this need not be waited for."""
        self._group.settled.append((place, items))
        self._wake.set()

    def reject(self, item: Item) -> None:
        """Note that the chain will not take an item, for the `reason` in it."""
        self._group.rejected.append(item)
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping or self._group:
            if self.storage is Storage.JOURNAL:
                await self._wake.wait()
            else:
                interval_s = RECOVER_INTERVAL_S if self.storage is Storage.SPOOL else RETRY_INTERVAL_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await self._wake.wait()
            self._wake.clear()
            if self.storage is not Storage.JOURNAL and (loop.time() >= self._retry_at or self._stopping):
                self._retry_at = loop.time() + RETRY_INTERVAL_S
                await self._find_storage(loop)
            group, self._group = self._group, _Group()
            if group:
                await self._commit(group, loop)
            if self._stopping and self.storage is Storage.NONE:
                break

    async def _commit(self, group: _Group, loop: asyncio.AbstractEventLoop) -> None:
        if self.storage is not Storage.NONE and not await self._try(self._write, group, loop=loop):
            # What a failed sync left behind is unknown: all that is not settled is written down anew, elsewhere first.
            failed, self.storage = self.storage, Storage.NONE
            log.error("the %s failed (%s); writing elsewhere what is not final", failed.value, self.last_error)
            self._retry_at = loop.time() + RETRY_INTERVAL_S
            await self._find_storage(loop, spool_first=failed is Storage.JOURNAL)
            if self.storage is not Storage.NONE and not await self._try(self._write, group, loop=loop):
                self.storage = Storage.NONE
        if self.storage is Storage.NONE:
            if not self._is_told:  # once, and not for each record: the log may be on the disk that is full
                self._is_told = True
                log.error("nothing durable is left (%s); refusing new records", self.last_error)
            group.commit.finish(f"neither the journal nor the spool can be written: {self.last_error}")
            for item in group.accepted:
                item.wake()
            # The ends that could not be written are tried again with the next group, before newer ones.
            self._group.settled[:0] = group.settled
            self._group.rejected[:0] = group.rejected
            return
        for item in group.accepted:
            self._unsettled[item] = None
        for item in [item for _, items in group.settled for item in items] + group.rejected:
            self._unsettled.pop(item, None)
        group.commit.finish()
        self.accepted_count += len(group.accepted)
        if group.accepted:
            self._on_durable(group.accepted)

    async def _find_storage(self, loop: asyncio.AbstractEventLoop, *, spool_first: bool = False) -> None:
        """Write all that is not settled to the journal, or else to the spool, and go on there."""
        before = self.storage
        order = [self._spool, self._journal] if spool_first else [self._journal, self._spool]
        for journal in order:
            if before is Storage.SPOOL and journal is self._spool:
                return  # the spool is still sound, and holds everything already
            if await self._try(self._move, journal, loop=loop):
                break
        else:
            return
        self.storage = Storage.JOURNAL if journal is self._journal else Storage.SPOOL
        self._is_told = False
        log.warning("what is accepted goes to the %s now (before: %s)", self.storage.value, before.value)
        if self.storage is Storage.JOURNAL:
            await self._try(self._spool.clear, loop=loop)

    async def _try(self, function: Callable[..., None], *arguments: object, loop: asyncio.AbstractEventLoop) -> bool:
        """Run blocking file work in the one thread for it; False when the disk refused."""
        try:
            await loop.run_in_executor(self._thread, function, *arguments)
        except OSError as error:
            self.last_error = error.strerror or str(error)
            return False
        return True

    def _active(self) -> Journal:
        return self._journal if self.storage is Storage.JOURNAL else self._spool

    def _move(self, journal: Journal) -> None:
        first = journal.next_sequence
        for chunk in _chunks(list(self._unsettled)):
            _write_accepted(journal, *chunk)
        journal.forget_unsettled(before=first)  # not earlier: its old segments may hold the only copy of a later chunk

    def _write(self, group: _Group) -> None:
        journal = self._active()
        # Those that turned out to stand under another record id, which a restart would not know: once more, as it is.
        renamed = [item for _, items in group.settled for item in items if item.others]
        for items, entries in _chunks(renamed):
            _write_accepted(journal, items, entries, (), [item.sequence for item in items])
        last: tuple[Sequence[Item], Sequence[bytes]] = ((), ())
        for chunk in _chunks(group.accepted):  # one at a time: encoded, a group takes as much memory again
            if last[0]:
                _write_accepted(journal, *last)
            last = chunk
        ends: list[bytes] = []
        done: list[int] = []
        size = 0
        for end, sequences in _ends(group):
            ends.append(end)
            done += sequences
            size += len(end)
            if size >= GROUP_BYTES_MAX:
                journal.write(ends, accepted=0, settled=done)
                ends, done, size = [], [], 0
        if last[0] or ends:
            _write_accepted(journal, *last, ends, done)  # one sync for both, as long as the group fits a frame


def _rank(replayed: Replayed) -> int:
    """Which of two accounts of one record holds: on the chain before waiting, waiting before refused."""
    if replayed.place is not None and replayed.outcome in (Outcome.ACCEPTED, Outcome.REPEATED):
        return 2
    return 1 if replayed.pending else 0


def _ends(group: _Group) -> Iterator[tuple[bytes, list[int]]]:
    """The ends of a group, encoded, and the sequences that each of them is of."""
    for place, items in group.settled:
        ends = tuple([(item.sequence, item.outcome or 0, item.index) for item in items])
        yield encode_settled(Settled(place, ends)), [item.sequence for item in items]
    for item in group.rejected:
        yield encode_rejected(Rejected(item.sequence, item.reason or "")), [item.sequence]


def _chunks(items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], Sequence[bytes]]]:
    """The items and their entries, in runs of not many more than GROUP_BYTES_MAX bytes each."""
    entries: list[bytes] = []
    begin = size = 0
    for end, item in enumerate(items, 1):
        entry = encode_accepted(item.record, item.received_at_ms)
        entries.append(entry)
        size += len(entry)
        if size >= GROUP_BYTES_MAX:
            yield items[begin:end], entries
            entries, begin, size = [], end, 0
    if entries:
        yield items[begin:], entries


def _write_accepted(
    journal: Journal,
    items: Sequence[Item],
    entries: Sequence[bytes],
    ends: Sequence[bytes] = (),
    settled: Sequence[int] = (),
) -> None:
    """Append the entries of items and, behind them, the ends of earlier ones, which have the `settled` sequences."""
    first = journal.next_sequence
    journal.write([*entries, *ends], accepted=len(items), settled=settled)
    for sequence, item in enumerate(items, first):
        item.sequence = sequence
