"""A ballot that is equal to one which stands already is that one, also behind a restart, under whichever id it came."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from gateway.book import Book, Item
from gateway.durability import Durability
from gateway.journal import Journal
from gateway.journal_format import Place
from gateway.records import Ballot
from node.chain.contracts.ballots import Outcome
from tests.gateway.conftest import DOMAIN, FragileDisk, make_ballot
from tests.gateway.gateway_network import Network

FOLDERS = (Path("/journal"), Path("/spool"))
PLACE = Place(7, b"\x07" * 32, b"\x08" * 32)
OWN = make_ballot(1)
STANDING = OWN._replace(record_id=b"\x55" * 32)


async def test_a_restart_remembers_which_record_stands(network: Network) -> None:
    async def known(api: Any, transaction_id: str) -> tuple[Any, ...]:
        answer = await api.get("/api/votes/transaction-status", election_id=1, transaction_id=transaction_id)
        shown = answer.json()
        return shown["status"], shown.get("record_id"), shown.get("ballot_index"), shown.get("transaction_hash")

    async with network.gateway("first") as (_, api):
        first = (await api.vote("ann", 1, wait=30, transaction_id="one")).json()
    stands = ("confirmed", first["record_id"], 0, first["transaction_hash"])
    async with network.gateway("second") as (_, api):
        again = (await api.vote("ann", 1, wait=30, transaction_id="two")).json()
        assert (again["status"], again["record_id"], again["ballot_index"]) == stands[:3]
        assert await known(api, "two") == stands
    for _ in range(2):  # what is written down at a restart is read at the next one
        async with network.gateway("second") as (_, api):
            assert await known(api, "two") == stands
            assert await known(api, "one") == stands
            repeated = (await api.vote("ann", 1, wait=30, transaction_id="two")).json()
            assert (repeated["status"], repeated["record_id"], repeated["ballot_index"]) == stands[:3]
            other = await api.vote("ann", 0, wait=30, transaction_id="three")
            assert (other.status_code, other.json()["standing"]["record_id"]) == (409, first["record_id"])


def open_on(disk: FragileDisk, sent: list[Item]) -> Durability:
    def note(items: Sequence[Item]) -> None:
        sent.extend(items)

    first, second = (Journal(one, DOMAIN, disk=disk, segments_kept=0, salt=lambda: 1) for one in FOLDERS)
    return Durability(first, second, note)


def recovered(disk: FragileDisk) -> tuple[Item, Book]:
    (item,) = open_on(disk, []).recover()
    book = Book()
    book.add(item)
    return item, book


async def settle_as_standing(disk: FragileDisk) -> Durability:
    """One ballot accepted, and settled where an equal one stands under another record id."""
    durability = open_on(disk, [])
    await durability.start()
    book, item = Book(), Item(OWN, 1)
    book.add(item)
    await durability.accept(item).wait()
    book.stands_as(item, STANDING)
    item.outcome, item.index, item.place = Outcome.REPEATED, 3, PLACE
    book.done([item])
    durability.settle(PLACE, [item])
    await durability.stop()
    return durability


async def test_the_record_that_stands_is_written_down() -> None:
    disk = FragileDisk()
    durability = await settle_as_standing(disk)
    assert not any(durability._journal._unsettled.values()), "no segment is kept for its sake"
    item, book = recovered(disk)
    assert (item.record, item.outcome, item.index, item.place) == (STANDING, Outcome.REPEATED, 3, PLACE)
    assert book.by_alias(STANDING.record_id) is item
    assert book.by_alias(OWN.record_id) is item
    assert book.pending_count == 0


async def test_the_id_it_came_under_is_known_where_the_journal_failed_before_its_end_was_written() -> None:
    failing = False
    disk = FragileDisk(refuse=lambda operation, count, path: failing and path.parts[1] == "journal")
    durability = open_on(disk, [])
    await durability.start()
    book, item = Book(), Item(OWN, 1)
    book.add(item)
    await durability.accept(item).wait()
    failing = True
    book.stands_as(item, STANDING)
    item.outcome, item.index, item.place = Outcome.REPEATED, 3, PLACE
    durability.settle(PLACE, [item])
    await durability.stop()
    item, book = recovered(disk)
    assert (item.record, item.place) == (STANDING, PLACE)
    assert item.others == (OWN.record_id,)
    assert book.by_alias(OWN.record_id) is item


class Watched(FragileDisk):
    """A disk that remembers what it held before each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[FragileDisk] = []

    def _step(self, operation: str, path: Path, partly: Callable[[], None] = lambda: None) -> None:
        self.states.append(FragileDisk(files=deepcopy(self.files)))
        super()._step(operation, path, partly)


async def test_wherever_the_power_goes_the_ballot_is_there_once() -> None:
    disk = Watched()
    await settle_as_standing(disk)
    seen: list[tuple[bool, bool]] = []
    for state in (*disk.states, disk):
        if not open_on(state, []).recover():
            assert not seen, "before it was acknowledged"
            continue
        item, book = recovered(state)
        assert isinstance(item.record, Ballot)
        assert book.by_alias(OWN.record_id) is item
        seen.append((item.record.record_id == OWN.record_id, item.pending))
    assert list(dict.fromkeys(seen)) == [(True, True), (False, True), (False, False)]
