"""What goes out when: nothing starves, nothing goes before what it needs, and no voter counts twice by a wrong key."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.book import Book, Item
from gateway.config import AnchorsConfig, BatchConfig, ElectionsConfig
from gateway.delivery import WOKEN_AT_ONCE, Delivery
from gateway.journal_format import Place
from gateway.records import Anchor, Call
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import Outcome
from tests.gateway.conftest import make_ballot
from tests.gateway.gateway_network import Network, until


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        one = Network(tmp_path, client)
        await one.start()
        yield one
        await one.stop()


class Nobody:
    """Is told of ends, and remembers none."""

    def settle(self, place: Place, items: list[Item]) -> None:
        """Nothing to do."""

    def reject(self, item: Item) -> None:
        """Nothing to do."""


def make_delivery(book: Book) -> Delivery:
    async def never(_: int) -> bool:
        raise AssertionError("this election is known")

    chain: Any = None
    config = BatchConfig(gather_ms=0, ballots_max=2)
    return Delivery(
        bytes(20), book, Nobody(), chain, config, AnchorsConfig(), make_election=never, casts=lambda _: True
    )


async def test_a_newcomer_does_not_wait_behind_a_whole_block_of_answers() -> None:
    book = Book()
    delivery = make_delivery(book)
    items = [Item(make_ballot(n), n) for n in range(2_000)]
    done: list[int] = []

    async def caller(number: int) -> None:
        await items[number].wait(60)
        done.append(number)

    for item in items:
        book.add(item)
    callers = [asyncio.create_task(caller(number)) for number in range(len(items))]
    waker = asyncio.create_task(delivery._wake_callers())
    await until(lambda: all(item.waiters for item in items), "all wait")
    delivery._settle(Place(1, bytes(32), bytes(32)), [(item, Outcome.ACCEPTED, n) for n, item in enumerate(items)])
    for _ in range(5):  # as often as a handler gives way
        await asyncio.sleep(0)
    assert len(done) <= 5 * WOKEN_AT_ONCE
    await asyncio.gather(*callers)
    assert done == list(range(2_000))
    waker.cancel()


async def test_anchors_and_ballots_take_turns_behind_calls() -> None:
    delivery = make_delivery(Book())
    anchors = [Item(Anchor(bytes([n]) * 32, bytes(32), 1, ""), n) for n in range(50)]
    ballots = [Item(make_ballot(n), n) for n in range(6)]
    delivery.enqueue([*anchors, *ballots, Item(Call(ELECTIONS, b"create"), 99)])
    sent = []
    while (parcel := delivery._next_parcel()[0]) is not None:
        kind = {ANCHORS: "anchor", ELECTIONS: "ballots"}[parcel.to]
        sent.append("call" if parcel.data == b"create" else kind)
    assert sent[:7] == ["call", "anchor", "ballots", "anchor", "ballots", "anchor", "ballots"]
    assert (sent.count("anchor"), sent.count("ballots")) == (50, 3)


async def test_ballots_taken_unseen_under_a_wrong_key_are_never_cast(network: Network) -> None:
    """A gateway that starts in an outage cannot compare its key: it takes the ballot, and compares before it sends."""
    async with network.gateway("one") as (_, api):
        assert (await api.vote("ann", 1, wait=20)).status_code == 200
    network.kill_all()
    async with network.gateway("two", secret=bytes([6] * 32)) as (gateway, api):
        unseen = await api.vote("ann", 0, transaction_id="again", wait=0)
        assert (unseen.status_code, unseen.json()["status"]) == (202, "pending")
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "its end is known", 20)
        status = await api.get("/api/votes/transaction-status", election_id=1, transaction_id="again")
        assert status.json()["status"] == "rejected"
        assert status.json()["reason"].startswith("KeyMismatch")
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert (result["total"], result["pending"]) == (1, 0)


async def test_ballots_taken_unseen_for_an_election_that_is_none_are_refused_by_name(network: Network) -> None:
    network.kill_all()
    async with network.gateway(elections=ElectionsConfig()) as (gateway, api):
        unseen = await api.vote("ann", 0, transaction_id="nowhere", wait=0)
        assert unseen.status_code == 202
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "its end is known", 20)
        status = await api.get("/api/votes/transaction-status", election_id=1, transaction_id="nowhere")
        assert (status.json()["status"], status.json()["reason"].partition("(")[0]) == ("rejected", "UnknownElection")


def test_what_waits_is_counted_by_election() -> None:
    book = Book()
    items = [Item(make_ballot(n, election=n % 3), n) for n in range(9)]
    for item in items:
        book.add(item)
    assert [book.pending_ballots(n) for n in range(4)] == [3, 3, 3, 0]
    items[0].reason = "no"
    book.done(items[0])
    book.remove(items[3])
    assert [book.pending_ballots(n) for n in range(3)] == [1, 3, 3]
    assert book.pending_count == 7
