"""Anchors as their owners see them: ids, status, listing in pages, statistics, retries and who is told of the end."""

import asyncio
import logging
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from typing import Any

from gateway.book import Item, anchor_order
from gateway.callbacks import Callbacks
from gateway.chain import Standing
from gateway.config import AnchorsConfig
from gateway.core import Core
from gateway.lookups import AnchorLookups
from gateway.models import show_batch_id, uuid_text
from gateway.problems import Problem
from gateway.records import Anchor
from gateway.shown import shown_time
from gateway.validators import NoValidator

log = logging.getLogger(__name__)

IDS_KEPT = 100_000
IDS_AT_HAND = 1_000
TIMES_KEPT = 1_000
WINDOW_S = 600.0  # throughput is that of the last ten minutes
ASK_AGAIN_S = 5.0
DENIALS_MAX = 60  # by a quorum, of an anchor that nobody here knows but the one who wants to be told of it
STATUSES = ("pending", "processing", "completed", "failed")


@lru_cache(IDS_AT_HAND)
def anchor_id(batch_id: bytes) -> str:
    """The anchor's id: the same from every gateway."""
    return _uuid5(batch_id[:16], b"psephos:anchor")


@lru_cache(IDS_AT_HAND)
def job_id(batch_id: bytes) -> str:
    """The id of the work of anchoring it, of which there is one."""
    return _uuid5(batch_id[:16], b"psephos:job")


def _uuid5(namespace: bytes, name: bytes) -> str:
    """The text of the UUIDv5 (RFC 9562, 5.5) of a name in the namespace of a UUID's 16 bytes.

    By hand, since four objects of the library's class cost a gateway 20 µs an anchor.
    """
    digest = bytearray(sha1(namespace + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50  # version
    digest[8] = digest[8] & 0x3F | 0x80  # variant
    return uuid_text(digest.hex())


def status_of(item: Item) -> str:
    """One of STATUSES."""
    if item.place is not None:
        return "completed"
    if item.reason is not None or item.failed is not None:
        return "failed"
    return "processing" if item.queued or item.attempts else "pending"


class BadCursor(ValueError):
    """A cursor that no page gave out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One anchor of a page: on the chain (`standing`), or waiting here (`item`)."""

    anchor: Anchor
    item: Item | None
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and times. `completed` is the chain's count, None while it has never been read."""

    pending: int
    processing: int
    failed: int
    completed: int | None
    stale: bool
    measured: int
    median_s: float | None
    p95_s: float | None
    completed_per_minute: float


class Anchorage:
    """Everything about anchors but their way to the chain."""

    def __init__(self, core: Core, config: AnchorsConfig, callbacks: Callbacks) -> None:
        self._core = core
        self._config = config
        self._callbacks = callbacks
        self._batches: OrderedDict[str, bytes] = OrderedDict()  # anchor id → batch id
        self._times_s: deque[float] = deque(maxlen=TIMES_KEPT)
        self._completions: deque[float] = deque(maxlen=IDS_KEPT)
        self._completed: int | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lookups = AnchorLookups(core.pool)
        core.delivery.on_end = self._ended

    async def start(self) -> None:
        for waiting in self._core.book.anchors():
            if isinstance(waiting.record, Anchor):
                self.remember(waiting.record.batch_id)
        self._spawn(self._retry_now_and_then())
        self._spawn(self._report_now_and_then())
        for batch_id in self._callbacks.waiting():
            item = self._core.book.anchor(batch_id)
            if item is None:  # it ended in an earlier life, in its last moment
                self._spawn(self._tell_from_chain(batch_id))
            elif not item.pending:
                self._ended(item)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lookups.stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def is_told(self, batch_id: bytes, within_s: float) -> bool | None:
        """Whether one validator says that there is an anchor of a batch; None where nobody says in time. Not proven."""
        return await self._lookups.is_told(batch_id, within_s)

    async def submit(self, anchor: Anchor, callback_url: str | None) -> tuple[Item, bool]:
        """Make the anchor of a batch durable, or find it; whether it is new. Raises Problem."""
        self.remember(anchor.batch_id)
        if callback_url is None:
            return await self._core.anchor(anchor)
        # Before the anchor, so that no end is missed; a caller who is refused changes nothing for one who was not.
        before = self._callbacks.url(anchor.batch_id)
        await self._callbacks.register(anchor.batch_id, callback_url)
        try:
            item, is_new = await self._core.anchor(anchor)
        except Problem:
            await self._callbacks.restore(anchor.batch_id, before)
            raise
        if status_of(item) in ("completed", "failed"):
            self._ended(item)  # it is over: say so at once
        return item, is_new

    async def tell_completed(self, standing: Standing, callback_url: str) -> None:
        """An anchor that was final before it was asked for."""
        if isinstance(standing.record, Anchor):
            await self._callbacks.register(standing.record.batch_id, callback_url)
            await self._tell(standing.record, "completed", standing, None)

    def remember(self, batch_id: bytes) -> None:
        """Note the anchor id of a batch, so that it can be found by it."""
        self._batches[anchor_id(batch_id)] = batch_id
        if len(self._batches) > IDS_KEPT:
            self._batches.popitem(last=False)

    def batch_id(self, given: bytes) -> bytes:
        """The batch id behind an anchor id that was seen lately; any other id is taken for a batch id."""
        return self._batches.get(show_batch_id(given), given)

    def _ended(self, item: Item) -> None:
        if not isinstance(item.record, Anchor):
            return
        if item.place is not None:
            self._times_s.append(max(time.time() - item.received_at_ms / 1000, 0.0))
            self._completions.append(time.monotonic())
        if self._callbacks.url(item.record.batch_id) is not None:
            self._spawn(self._tell(item.record, status_of(item), item, item.reason or item.failed))

    async def _tell(self, anchor: Anchor, status: str, known: Item | Standing, error: str | None) -> None:
        batch_id, place = anchor.batch_id, known.place
        body = {
            "event": f"anchor.{status}",
            "anchor_id": anchor_id(batch_id),
            "batch_id": show_batch_id(batch_id),
            "merkle_root": anchor.merkle_root.hex(),
            "product_count": anchor.leaf_count,
            "algorithm": anchor.algorithm or "unspecified",
            "status": status,
            "transaction_id": None if place is None else "0x" + place.transaction_hash.hex(),
            "block_number": None if place is None else place.block_number,
            "block_hash": None if place is None else "0x" + place.block_hash.hex(),
            "error": error,
            "job_id": job_id(batch_id),
        }
        may_change = isinstance(known, Item) and known.failed is not None
        await self._callbacks.tell(anchor.batch_id, body, ended=not may_change)

    async def _tell_from_chain(self, batch_id: bytes) -> None:
        denials = 0
        while denials < DENIALS_MAX:
            try:
                standing = await self._core.chain.anchor(batch_id, sure=True)
                denials += standing is None
            except NoValidator:
                standing = None
            if standing is not None and isinstance(standing.record, Anchor):
                await self._tell(standing.record, "completed", standing, None)
                return
            await asyncio.sleep(ASK_AGAIN_S)
        # Neither the journal nor the chain knows it: its anchor was never acknowledged.
        log.warning("nobody is told of batch %s, which was never anchored", show_batch_id(batch_id))
        await self._callbacks.forget(batch_id)

    async def _retry_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._config.retry_failed_s)
            failed = self._core.book.failed_anchors()
            if failed:
                log.info("trying %d failed anchors again", len(failed))
            for item in failed:
                self._core.delivery.again(item)

    async def _report_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._config.stats_refresh_s)
            log.info("anchors: %s", await self.stats())

    async def page(self, status: str | None, cursor: str | None, limit: int) -> tuple[list[Entry], str | None]:
        """Anchors, newest first: those that wait here, then those on the chain; and the cursor of the next page.

        Raises BadCursor, or NoValidator where the chain has to be asked and cannot be.
        """
        kind, waiting_below, index_below = _read_cursor(cursor)
        entries: list[Entry] = []
        if kind == "waiting" and status != "completed":
            waiting = [item for item in reversed(self._core.book.anchors()) if status in (None, status_of(item))]
            if waiting_below is not None:
                waiting = [item for item in waiting if anchor_order(item) < waiting_below]
            entries = [Entry(one.record, one, None) for one in waiting[:limit] if isinstance(one.record, Anchor)]
            if len(waiting) > limit:
                received_ms, batch_id = anchor_order(waiting[limit - 1])
                return entries, f"w.{received_ms}.{batch_id.hex()}"
        if status not in (None, "completed"):
            return entries, None
        room = limit - len(entries)
        top = await self._core.chain.anchor_count()
        top = top if index_below is None else min(index_below, top)
        first = max(top - room, 0)
        found = await self._core.chain.anchors(first, top - first) if top > first else []
        for standing in reversed(found):
            if isinstance(standing.record, Anchor):
                item = self._core.book.anchor(standing.record.batch_id)
                entries.append(Entry(standing.record, item, standing))
        return entries, f"c.{first}" if first > 0 else None

    async def stats(self) -> Stats:
        """Counts as they are now; times of the last anchors that went through this gateway."""
        counts = dict.fromkeys(STATUSES, 0)
        for item in self._core.book.anchors():
            counts[status_of(item)] += 1
        stale = False
        try:
            self._completed = await self._core.chain.anchor_count()
        except NoValidator:
            stale = True
        times = sorted(self._times_s)
        since = time.monotonic() - WINDOW_S
        recent = sum(when >= since for when in self._completions)
        return Stats(
            counts["pending"],
            counts["processing"],
            counts["failed"],
            self._completed,
            stale,
            len(times),
            round(statistics.median(times), 4) if times else None,
            round(times[min(int(len(times) * 0.95), len(times) - 1)], 4) if times else None,
            round(recent * 60 / WINDOW_S, 3),
        )


def _read_cursor(cursor: str | None) -> tuple[str, tuple[int, bytes] | None, int | None]:
    if cursor is None:
        return "waiting", None, None
    try:
        kind, *rest = cursor.split(".")
        if kind == "w" and cursor.isascii():
            received_ms, batch_id = rest
            return "waiting", (int(received_ms), bytes.fromhex(batch_id)), None
        (index,) = rest
        if kind == "c" and index.isascii() and index.isdecimal() and len(index) < 16:
            return "chain", None, int(index)
    except ValueError:
        pass
    raise BadCursor(f"cursor {cursor[:64]!r} is none that a page gave out")


def view(chain_id: int, anchor: Anchor, item: Item | None, standing: Standing | None) -> dict[str, Any]:
    """An anchor as its owner sees it. What only a journal knew is null once that is lost."""
    batch_id = anchor.batch_id
    final = shown_time(standing.timestamp) if standing is not None else None
    # A block's time is in whole seconds, so that it may lie before the moment in which the anchor came.
    updated_s = max(0 if item is None else item.updated_at_ms / 1000, 0 if standing is None else standing.timestamp)
    failed = item is not None and standing is None
    return {
        "anchor_id": anchor_id(batch_id),
        "id": anchor_id(batch_id),
        "batch_id": show_batch_id(batch_id),
        "merkle_root": anchor.merkle_root.hex(),
        "product_count": anchor.leaf_count,
        "status": "completed" if standing is not None or item is None else status_of(item),
        "transaction_id": "0x" + standing.place.transaction_hash.hex() if standing is not None else None,
        "block_number": standing.place.block_number if standing is not None else None,
        "gas_used": standing.gas_used if standing is not None else None,
        "gas_price_gwei": standing.gas_price / 10**9 if standing is not None else None,
        "network": f"psephos-{chain_id}",
        "error": (item.reason or item.failed) if failed and item is not None else None,
        "retry_count": None if item is None else item.attempts,
        "created_at": final if item is None else shown_time(item.received_at_ms / 1000),
        "updated_at": shown_time(updated_s) if updated_s else None,
        "anchored_at": final,
        "job_id": job_id(batch_id),
        "algorithm": anchor.algorithm or "unspecified",
    }
