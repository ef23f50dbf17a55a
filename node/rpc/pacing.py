"""Fairness on the event loop: long reads give way often, so that consensus never waits for a reader."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

SLICE_S = 0.004
READ_SLICE_S = 0.002  # each hop of a message between validators waits for one such slice while somebody reads much


class Pace:
    """Counts how long one caller has held the event loop since it last gave way."""

    __slots__ = ("_resume_s",)

    def __init__(self) -> None:
        self._resume_s = time.monotonic()

    async def breathe(self) -> None:
        """Let others run if this caller has held the loop for `SLICE_S`; cheap enough to call for each item."""
        if time.monotonic() - self._resume_s >= SLICE_S:
            await asyncio.sleep(0)
            self._resume_s = time.monotonic()


class Turn:
    """A long read's turn at the event loop."""

    __slots__ = ("_lock", "_resume_s", "is_held")

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._resume_s = time.monotonic()
        self.is_held = True

    async def breathe(self) -> None:
        """Let others run, and other long reads have their turn, if this one has lasted for `READ_SLICE_S`."""
        if time.monotonic() - self._resume_s < READ_SLICE_S:
            return
        await asyncio.sleep(0)  # before the turn is passed on: else all who come from here would have one in one pass
        self.is_held = False  # said first: whoever is cancelled below must not give back what it does not hold
        self._lock.release()
        await self._lock.acquire()  # behind those who wait
        self.is_held = True
        self._resume_s = time.monotonic()


class Turns:
    """Long reads take turns, one slice each: however many there are, nobody else waits for more than one of them.

    Each giving way by itself is not enough: the loop would run a slice of every reader between two of anybody else's.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()  # wakes those who wait in the order in which they came

    @property
    def is_free(self) -> bool:
        """Whether nobody has a turn now: what takes less than a slice need not wait for one."""
        return not self._lock.locked()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Turn]:
        """Wait for a turn, and hold it within the block. Turns do not nest."""
        await self._lock.acquire()
        turn = Turn(self._lock)
        try:
            yield turn
        finally:
            if turn.is_held:
                self._lock.release()


def encoded(view: object) -> orjson.Fragment:
    """A part of a long answer as JSON already: encoding all of it at the end would hold the loop for too long."""
    return orjson.Fragment(orjson.dumps(view))
