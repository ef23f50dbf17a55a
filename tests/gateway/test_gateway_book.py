"""Waiting for the ends of records: nobody waits too long, too short, or is remembered for ever."""

import asyncio

import pytest

from gateway.book import TICK_S, Book, Item, wait_for_ends
from gateway.journal_format import Place
from tests.gateway.conftest import make_ballot

SLACK_S = 2.0  # of a machine with other work


def items_of(count: int) -> list[Item]:
    return [Item(make_ballot(n), n) for n in range(count)]


def end(item: Item) -> None:
    item.place = Place(1, bytes(32), bytes(32))
    item.wake()


@pytest.mark.parametrize("timeout_s", [0.001, TICK_S, 2.5 * TICK_S])
async def test_a_wait_in_vain_is_over_in_time_and_forgotten(timeout_s: float) -> None:
    loop, items = asyncio.get_running_loop(), items_of(3)
    end(items[0])
    began_s = loop.time()
    await asyncio.gather(*(wait_for_ends(items, timeout_s) for _ in range(5)))
    assert timeout_s <= loop.time() - began_s < timeout_s + TICK_S + SLACK_S
    assert all(item.waiters == [] for item in items)


async def test_a_wait_is_over_with_the_last_of_its_records() -> None:
    items = items_of(3)
    waiting = asyncio.create_task(wait_for_ends(items, 60))
    for item in items:
        await asyncio.sleep(0)
        assert not waiting.done()
        end(item)
    async with asyncio.timeout(SLACK_S):
        await waiting


async def test_who_gives_up_is_forgotten_and_the_others_wait_on() -> None:
    items = items_of(2)
    first, second = (asyncio.create_task(wait_for_ends(items, 60)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert [len(item.waiters) for item in items] == [1, 1]
    for item in items:
        end(item)
    async with asyncio.timeout(SLACK_S):
        await second


async def test_a_wait_without_end_ends_with_the_record() -> None:
    (item,) = items_of(1)
    waiting = asyncio.create_task(wait_for_ends([item], float("inf")))
    await asyncio.sleep(0)
    end(item)
    async with asyncio.timeout(SLACK_S):
        await waiting


def test_a_bounded_number_of_what_is_done_is_remembered_and_what_took_its_place_with_it() -> None:
    book, (refused, again, *others) = Book(recent_max=2), [Item(make_ballot(n), n) for n in (0, 0, 1, 2, 3)]
    refused.reason = "no"
    book.add(refused)
    for item in (again, *others):
        book.add(item)
    book.done(others)
    nullifiers = [item.record.nullifier for item in (again, *others)]  # type: ignore[union-attr]
    assert [book.ballot(nullifier) for nullifier in nullifiers] == [again, None, *others[1:]]
    assert [book.ballot_by_record_id(make_ballot(n).record_id) for n in range(4)] == [again, None, *others[1:]]
    assert book.pending_count == book.pending_ballots(1) == 1


def test_each_event_loop_has_deadlines_of_its_own() -> None:
    for _ in range(3):
        asyncio.run(wait_for_ends(items_of(1), 0.001))
