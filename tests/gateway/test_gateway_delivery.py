"""What goes out when: nothing starves, nothing goes before what it needs, and no voter counts twice by a wrong key."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.book import Book, Item
from gateway.calls import ANCHORS_ABI, ELECTIONS_ABI
from gateway.config import AnchorsConfig, BatchConfig, ElectionsConfig
from gateway.delivery import WOKEN_AT_ONCE, Delivery
from gateway.journal_format import Place
from gateway.records import Anchor, Call, Record
from gateway.sender import Parcel
from gateway.validators import NoValidator
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import Outcome
from tests.gateway.conftest import make_ballot
from tests.gateway.gateway_network import Network, until


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
    delivery._settle(Place(1, bytes(32), bytes(32)), items, Outcome.ACCEPTED, 0)
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
    book.done([items[0]])
    book.remove(items[3])
    assert [book.pending_ballots(n) for n in range(3)] == [1, 3, 3]
    assert book.pending_count == 7


class Told:
    """A chain of which one validator tells why a transaction failed; a quorum knows no anchor."""

    def __init__(self, reason: bytes) -> None:
        self.reason = reason

    async def refusal(self, *_: object) -> bytes:
        return self.reason

    async def anchor(self, batch_id: bytes, *, sure: bool = False) -> None:
        assert sure, "one validator's word is not enough"


async def failed(delivery: Delivery, items: list[Item], to: bytes) -> None:
    """A parcel's transaction is in a final block, and failed there."""
    block = SimpleNamespace(header=SimpleNamespace(number=7, hash=bytes(32)))
    parcel = Parcel(to, b"data", 1_000, items)
    delivery.on_included(
        SimpleNamespace(  # type: ignore[arg-type]
            parcel=parcel,
            block=block,
            transaction=SimpleNamespace(hash=bytes(32)),
            receipt=SimpleNamespace(succeeded=False),
            encoded_receipt=b"",
            gas_used=1,
        )
    )


def pending_items(book: Book, records: list[Record]) -> list[Item]:
    items = [Item(record, number) for number, record in enumerate(records)]
    for item in items:
        book.add(item)
    return items


async def test_nothing_is_lost_when_nobody_can_say_whether_the_election_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.delivery.ASK_AGAIN_S", 0.001)
    book = Book()
    delivery = make_delivery(book)
    delivery._chain = Told(ELECTIONS_ABI.revert("UnknownElection", 1).data)  # type: ignore[assignment]
    asked: list[int] = []

    async def make(election: int) -> bool:
        asked.append(election)
        if len(asked) < 3:
            raise NoValidator("all are gone")
        return False

    delivery._make_election = make
    items = pending_items(book, [make_ballot(n) for n in range(4)])
    await failed(delivery, items, ELECTIONS)
    await until(lambda: book.pending_count == 0, "their end is known")
    assert {(item.reason or "").partition("(")[0] for item in items} == {"UnknownElection"}
    assert len(asked) == 3
    await delivery.stop()


@pytest.mark.parametrize("kind", ["ballots", "anchor"])
async def test_a_reason_that_somebody_made_up_leaves_no_record_behind(kind: str) -> None:
    book = Book()
    delivery = make_delivery(book)
    delivery._chain = Told(ANCHORS_ABI.revert("AnchorExists", bytes(32), bytes(32)).data)  # type: ignore[assignment]
    anchor = Anchor(b"\x01" * 32, bytes(32), 1, "")
    items = pending_items(book, [make_ballot(n) for n in range(4)] if kind == "ballots" else [anchor])
    await failed(delivery, items, ELECTIONS if kind == "ballots" else ANCHORS)
    if kind == "anchor":
        await until(lambda: items[0].attempts == 1, "it backs off")
        assert items[0].pending, "and is tried again"
    else:
        again = delivery._again
        await until(lambda: sum(len(parcel.items) for parcel in again) == 4, "all of them go again, in halves")
    await delivery.stop()


async def test_a_reason_is_short_whatever_a_validator_says() -> None:
    book = Book()
    delivery = make_delivery(book)
    (item,) = pending_items(book, [make_ballot(1)])
    delivery.on_refused(Parcel(ELECTIONS, b"", 1, [item]), "no " * 1_000_000)
    assert 0 < len(item.reason or "") <= 500
