"""The judge of `psephos chaos` before histories made by hand: each bad one is found, and what it breaks is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.history import Ballot, Disk, Outcome, Place, Request, TallyRead, check

HASHES = tuple(bytes([height]) * 32 for height in range(1, 8))


def id_of(name: str, kind: str) -> bytes:
    return f"{kind} {name}".encode().ljust(32, b".")


def ballot(name: str, block: int, choice: int = 0, *, voter: str = "") -> Ballot:
    return Ballot(id_of(voter or name, "voter"), id_of(name, "record"), bytes((choice,)), block, bytes([block]) * 32)


def request(
    name: str, times: tuple[float, float], outcome: Outcome, place: Place | None = None, **more: str
) -> Request:
    kind = more.get("kind", "submit")
    return Request(
        kind="ask" if kind == "ask" else "submit",
        record_id=id_of(name, "record"),
        nullifier=id_of(more.get("voter", name), "voter"),
        content=bytes((int(more.get("choice", "0")),)),
        started_s=times[0],
        ended_s=times[1],
        outcome=outcome,
        place=place,
    )


def place(block: int, index: int) -> Place:
    return Place(bytes([block]) * 32, block, HASHES[block], index)


class Run:
    """A history and three disks in which everything is as it should be; each test spoils one thing."""

    def __init__(self) -> None:
        self.requests = [
            request("a", (0.0, 1.0), "ok", place(1, 0)),
            request("b", (0.5, 1.5), "pending"),
            request("c", (1.2, 1.3), "unknown"),  # it is there all the same
            request("d", (1.2, 1.4), "unknown"),  # it is not
            request("a", (1.5, 1.6), "ok", place(1, 0)),  # a retry
            request("e", (1.7, 1.8), "refused", voter="a", choice="1"),  # the second ballot of one voter
            request("f", (2.0, 2.1), "pending", voter="c", choice="2"),  # the same, told only later
            request("f", (3.0, 3.1), "refused", voter="c", choice="2", kind="ask"),
            request("g", (2.5, 3.0), "ok", place(4, 3), choice="2"),
            request("g", (3.2, 3.3), "ok", place(4, 3), choice="2", kind="ask"),
            request("h", (3.4, 3.5), "absent", kind="ask"),
        ]
        self.ballots = [ballot("a", 1), ballot("c", 2), ballot("b", 3), ballot("g", 4, 2)]
        self.counts = (3, 0, 1)
        self.tallies = [
            TallyRead(0.0, 0.1, 0, HASHES[0], (0, 0, 0)),
            TallyRead(1.0, 1.1, 1, HASHES[1], (1, 0, 0)),
            TallyRead(1.05, 1.2, 2, HASHES[2], (2, 0, 0)),
            TallyRead(3.5, 3.6, 4, HASHES[4], (3, 0, 1)),
        ]
        self.others = [self.disk("validator-2"), replace(self.disk("validator-3"), hashes=HASHES[:5])]

    def disk(self, name: str) -> Disk:
        return Disk(name, HASHES, tuple(self.ballots), self.counts)

    def broken(self) -> set[str]:
        """The rules that the checker finds broken."""
        found = check(self.requests, self.tallies, [self.disk("validator-1"), *self.others])
        assert all(violation.detail for violation in found)
        return {violation.rule for violation in found}


def test_a_good_history_passes() -> None:
    assert Run().broken() == set()


def test_no_disk_is_no_proof() -> None:
    run = Run()
    assert [violation.rule for violation in check(run.requests, [], [])] == ["a disk can be read and proves itself"]


ACKNOWLEDGED = "acknowledged is there exactly once"
UNIQUE = "each voter and each record counts once"
SENT = "nothing is there that nobody sent"
COUNTED = "the tally is the count of the log"
REFUSED = "refused is not there"
RECEIPT = "a receipt says where the record stands"
DENIED = "what was acknowledged is never denied"
ORDER = "confirmed before another began is not in a later block"
GROW = "tallies only grow"
TOLD = "a tally that was told is that of its block"
ONE = "validators hold one chain"


def _drop_confirmed(run: Run) -> None:
    run.ballots[3:], run.counts, run.tallies[3:] = [], (3, 0, 0), []


def _drop_pending(run: Run) -> None:
    run.ballots[2:3], run.counts, run.tallies[3:] = [], (2, 0, 1), []
    run.requests[8:10] = [request("g", (2.5, 3.0), "ok", place(4, 2), choice="2")]


def _twice(run: Run) -> None:
    run.ballots.append(ballot("a", 5))
    run.counts = (4, 0, 1)


def _record_under_two_voters(run: Run) -> None:
    run.ballots.append(ballot("a", 5, voter="x"))
    run.counts = (4, 0, 1)
    run.requests.append(request("a", (0.0, 9.0), "unknown", voter="x"))


def _phantom(run: Run) -> None:
    run.ballots.append(ballot("x", 5))
    run.counts = (4, 0, 1)


def _changed_content(run: Run) -> None:
    run.ballots[1] = ballot("c", 2, 1)
    run.counts, run.tallies[2:] = (2, 1, 1), []


def _wrong_counts(run: Run) -> None:
    run.counts = (3, 1, 1)


def _refused_is_there(run: Run) -> None:
    run.requests.append(request("i", (4.0, 4.1), "refused"))
    run.ballots.append(ballot("i", 5))
    run.counts = (4, 0, 1)


def _receipt_names(**wrong: object) -> Callable[[Run], None]:
    def spoil(run: Run) -> None:
        run.requests[0] = replace(run.requests[0], place=replace(place(1, 0), **wrong))  # type: ignore[arg-type]

    return spoil


def _no_receipt(run: Run) -> None:
    run.requests[8] = replace(run.requests[8], place=None)


def _denied(run: Run) -> None:
    run.requests.append(request("b", (1.6, 1.7), "absent", kind="ask"))


def _refused_after_final(run: Run) -> None:
    run.requests.append(request("g", (3.4, 3.6), "refused", choice="2", kind="ask"))


def _out_of_order(run: Run) -> None:
    """`g` was first sent after `a` was confirmed in block 4, and stands in block 3."""
    run.ballots = [ballot("c", 2), ballot("g", 3, 2), ballot("a", 4), ballot("b", 4)]
    run.requests[0] = run.requests[4] = request("a", (0.0, 1.0), "ok", place(4, 2))
    run.requests[8:10] = [request("g", (2.5, 3.0), "pending", choice="2")]
    run.tallies = []


def _shrinking_count(run: Run) -> None:
    run.tallies[3:] = [TallyRead(3.5, 3.6, 4, HASHES[4], (1, 0, 1))]


def _shrinking_height(run: Run) -> None:
    run.tallies.append(TallyRead(4.0, 4.1, 3, HASHES[3], (3, 0, 0)))


def _tally_of_another_block(run: Run) -> None:
    run.tallies[1] = replace(run.tallies[1], block_hash=HASHES[6])


def _early_tally(run: Run) -> None:
    run.tallies[1] = replace(run.tallies[1], counts=(2, 0, 0))


def _tally_beyond_the_chain(run: Run) -> None:
    run.tallies.append(TallyRead(4.0, 4.1, 50, HASHES[6], (3, 0, 1)))


def _fork(run: Run) -> None:
    run.others[0] = replace(run.others[0], hashes=(*HASHES[:6], bytes(32)))


def _unreadable(run: Run) -> None:
    run.others[0] = replace(run.others[0], faults=("block 3 has no certificate",))


@pytest.mark.parametrize(
    ("spoil", "rules"),
    [
        (_drop_confirmed, {ACKNOWLEDGED, RECEIPT}),
        (_drop_pending, {ACKNOWLEDGED}),
        (_twice, {ACKNOWLEDGED, UNIQUE}),
        (_record_under_two_voters, {ACKNOWLEDGED, UNIQUE}),
        (_phantom, {SENT}),
        (_changed_content, {SENT}),
        (_wrong_counts, {COUNTED}),
        (_refused_is_there, {REFUSED}),
        (_receipt_names(block_number=2), {RECEIPT}),
        (_receipt_names(block_number=99), {RECEIPT, ORDER}),
        (_receipt_names(block_hash=HASHES[3]), {RECEIPT}),
        (_receipt_names(index=1), {RECEIPT}),
        (_receipt_names(transaction_hash=bytes(32)), {RECEIPT}),
        (_no_receipt, {RECEIPT}),
        (_denied, {DENIED}),
        (_refused_after_final, {DENIED, REFUSED}),
        (_out_of_order, {ORDER}),
        (_shrinking_count, {GROW, TOLD}),
        (_shrinking_height, {GROW}),
        (_tally_of_another_block, {TOLD}),
        (_early_tally, {TOLD}),
        (_tally_beyond_the_chain, {TOLD}),
        (_fork, {ONE}),
        (_unreadable, {"a disk can be read and proves itself"}),
    ],
)
def test_each_bad_history_is_found_and_named(spoil: Callable[[Run], None], rules: set[str]) -> None:
    run = Run()
    spoil(run)
    run.others = [replace(disk, ballots=tuple(run.ballots), counts=run.counts) for disk in run.others]
    assert run.broken() == rules


def test_a_loss_on_one_disk_alone_is_found() -> None:
    run = Run()
    run.others[1] = replace(run.others[1], ballots=tuple(run.ballots[:3]), counts=(3, 0, 0))
    assert ACKNOWLEDGED in run.broken()
    details = [violation.detail for violation in check(run.requests, [], [run.disk("validator-1"), *run.others])]
    assert all(detail.startswith("validator-3") for detail in details)
