"""A deadline that costs nothing where nothing waits, and is one where something does."""

import asyncio

import pytest

from node.rpc.until import until


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_who_does_not_wait_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        return 7

    monkeypatch.setattr(asyncio, "timeout_at", None)
    assert await until(soon(-1), work()) == 7


async def test_who_waits_gets_what_it_waits_for_and_ends_as_it_ends() -> None:
    async def work(fails: bool) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "there")
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            found = await future
        if fails:
            raise LookupError(found)
        return found

    assert await until(soon(5), work(False)) == "there"
    with pytest.raises(LookupError, match="there"):
        await until(soon(5), work(True))


async def test_an_error_before_the_first_wait_is_the_callers() -> None:
    async def work() -> None:
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once"):
        await until(soon(5), work())


async def test_who_waits_too_long_is_ended_and_cleans_up() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    with pytest.raises(TimeoutError):
        await until(soon(0.01), work())
    assert ended == ["cancelled", "cleaned up"]


async def test_a_caller_that_is_cancelled_cancels_the_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    caller = asyncio.create_task(until(soon(5), work()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
