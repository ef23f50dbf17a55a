"""The bounded queue in front of the runtime: consensus before bulk, and each peer in turn with room of its own."""

import asyncio
from collections import deque
from typing import TypeAlias

from node.p2p.events import Connected, Disconnected, Received
from node.p2p.kinds import URGENT_KINDS

URGENT_MAX = 4_096  # messages of one peer
BULK_MAX = 256
GIVE_WAY_AFTER_S = 0.004  # as long as a reader of JSON-RPC holds the loop at a time
LANE_BYTES_MAX = 32 << 20  # of one peer's messages in one lane; a single one always fits


class Woken:
    """Nothing came from a peer: the mempool has work, or a deadline is over."""


WOKEN = Woken()
InboxEvent: TypeAlias = Connected | Disconnected | Received | Woken


class InboxFull(RuntimeError):
    """No room for another message of this peer and kind; a sender that matters says it again."""


class _Lane:
    """A queue for each peer, served in turn: whoever floods it waits behind its own messages and nobody else does."""

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[Connected | Disconnected | Received]] = {}  # the first is served next
        self._bytes_counts: dict[bytes, int] = {}

    def put(self, event: Connected | Disconnected | Received, count_max: int) -> None:
        peer = event.peer
        queue = self._queues.get(peer, ())
        if isinstance(event, Received):
            bytes_count = self._bytes_counts.get(peer, 0) + len(event.payload)
            if queue and (len(queue) >= count_max or bytes_count > LANE_BYTES_MAX):
                raise InboxFull(f"{len(queue)} messages of 0x{peer.hex()} wait already")
            self._bytes_counts[peer] = bytes_count
        self._queues.setdefault(peer, deque()).append(event)

    def take(self) -> Connected | Disconnected | Received | None:
        peer = next(iter(self._queues), None)
        if peer is None:
            return None
        queue = self._queues.pop(peer)
        event = queue.popleft()
        if queue:
            self._queues[peer] = queue
            if isinstance(event, Received):
                self._bytes_counts[peer] -= len(event.payload)
        else:
            self._bytes_counts.pop(peer, None)
        return event


class Inbox:
    """What waits for the runtime, all in one event loop."""

    def __init__(self) -> None:
        self._urgent = _Lane()
        self._bulk = _Lane()
        self._filled = asyncio.Event()
        self._is_woken = False
        self._gave_way_at_s = 0.0

    def put(self, event: Connected | Disconnected | Received) -> None:
        """Queue an event. Raises InboxFull; comings and goings of peers always fit."""
        if isinstance(event, Received) and event.kind not in URGENT_KINDS:
            self._bulk.put(event, BULK_MAX)
        else:
            self._urgent.put(event, URGENT_MAX)
        self._filled.set()

    def wake(self) -> None:
        """Have the runtime look at the mempool and its deadlines; many wakes are one."""
        self._is_woken = True
        self._filled.set()

    async def get(self, timeout_s: float | None) -> InboxEvent:
        """The next event; WOKEN when `wake` was called or the time is over first.

        No time left is as good as a wake: whatever a peer keeps the queue of bulk filled with, deadlines are looked at.
        Sockets and callers of JSON-RPC have their turn every GIVE_WAY_AFTER_S, however much waits here; not before
        each event, since busy readers would then hold back a round, which takes many of them.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._gave_way_at_s >= GIVE_WAY_AFTER_S:
            await asyncio.sleep(0)
            self._gave_way_at_s = loop.time()
        event = self.take(is_late=timeout_s is not None and timeout_s <= 0)
        if event is not None:
            return event
        self._filled.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        except TimeoutError:
            return WOKEN
        finally:
            self._gave_way_at_s = loop.time()
        return self.take() or WOKEN

    def take(self, *, is_late: bool = False) -> InboxEvent | None:
        """The next event if one waits: consensus first, then a wake, then bulk. `is_late`: a deadline is over."""
        urgent = self._urgent.take()
        if urgent is not None:
            return urgent
        if self._is_woken or is_late:
            self._is_woken = False
            return WOKEN
        return self._bulk.take()
