"""The bounded queue in front of the runtime: consensus before bulk, and a peer that floods it is told apart."""

import asyncio
from collections import deque
from typing import TypeAlias

from node.p2p.events import Connected, Disconnected, Received
from node.p2p.kinds import URGENT_KINDS

URGENT_MAX = 16_384
BULK_MAX = 256


class Woken:
    """Nothing came from a peer: the mempool has work, or a deadline is over."""


WOKEN = Woken()
InboxEvent: TypeAlias = Connected | Disconnected | Received | Woken


class InboxFull(RuntimeError):
    """No room for another message of this kind; a sender that matters says it again."""


class Inbox:
    """What waits for the runtime, all in one event loop."""

    def __init__(self) -> None:
        self._urgent: deque[InboxEvent] = deque()
        self._bulk: deque[InboxEvent] = deque()
        self._filled = asyncio.Event()
        self._is_woken = False

    def put(self, event: Connected | Disconnected | Received) -> None:
        """Queue an event. Raises InboxFull; comings and goings of peers always fit."""
        if isinstance(event, Received) and event.kind not in URGENT_KINDS:
            if len(self._bulk) >= BULK_MAX:
                raise InboxFull(f"{BULK_MAX} bulk messages wait already")
            self._bulk.append(event)
        else:
            if isinstance(event, Received) and len(self._urgent) >= URGENT_MAX:
                raise InboxFull(f"{URGENT_MAX} consensus messages wait already")
            self._urgent.append(event)
        self._filled.set()

    def wake(self) -> None:
        """Have the runtime look at the mempool and its deadlines; many wakes are one."""
        self._is_woken = True
        self._filled.set()

    async def get(self, timeout_s: float | None) -> InboxEvent:
        """The next event; WOKEN when `wake` was called or the time is over first."""
        event = self.take()
        if event is not None:
            return event
        self._filled.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        except TimeoutError:
            return WOKEN
        return self.take() or WOKEN

    def take(self) -> InboxEvent | None:
        """The next event if one waits: consensus first, then a wake, then bulk."""
        if self._urgent:
            return self._urgent.popleft()
        if self._is_woken:
            self._is_woken = False
            return WOKEN
        return self._bulk.popleft() if self._bulk else None
