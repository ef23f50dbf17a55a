"""A deadline for calls that costs those nothing that end without waiting, as almost all do; a timer takes 3 µs."""

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def until(deadline_s: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Raises TimeoutError where it still waits for something at that time of the loop's clock.

    It runs within the caller's task from the start, and the timer is set when it first waits.
    """
    try:
        awaited = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    async with asyncio.timeout_at(deadline_s):
        return await _Rest(work, awaited)


class _Rest(Awaitable[T]):
    """The rest of a coroutine that has begun, and waits for `awaited`, which the task is to be given."""

    def __init__(self, work: Coroutine[Any, Any, T], awaited: object) -> None:
        self._work = work
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        awaited = self._awaited
        try:
            while True:
                try:
                    answer = yield awaited
                except BaseException as error:  # a cancellation, say: it is the coroutine's own affair
                    awaited = self._work.throw(error)
                else:
                    awaited = self._work.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
