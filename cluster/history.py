"""Checks what callers of a gateway were told against what the validators' disks hold: the rules a network must keep.

A history is every request of every caller, with its beginning, its end and its outcome. A disk is what one validator
keeps, read while it is stopped. Times are seconds on one clock; heights are block numbers.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, NamedTuple

# ok: said to be final. pending: acknowledged. refused: will not count. absent: said to be unknown to the network.
# unknown: no answer came, or none that binds (429, 5xx).
Outcome = Literal["ok", "pending", "refused", "absent", "unknown"]
ACKNOWLEDGED: tuple[Outcome, ...] = ("ok", "pending")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ballot stands on the chain, as a receipt tells it."""

    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request about one ballot: a submission, or a question what became of it. `place` comes with `ok` alone."""

    kind: Literal["submit", "ask"]
    record_id: bytes
    nullifier: bytes
    content: bytes
    started_s: float
    ended_s: float
    outcome: Outcome
    place: Place | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TallyRead:
    """One reading of the tally: the count of each option, and the height that they are of."""

    started_s: float
    ended_s: float
    block_number: int
    block_hash: bytes
    counts: tuple[int, ...]


class Ballot(NamedTuple):
    """A ballot in the log of one validator."""

    nullifier: bytes
    record_id: bytes
    content: bytes
    block_number: int
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class Disk:
    """What one validator keeps: block hashes by height, the election's log in order, and the contract's tally."""

    name: str
    hashes: tuple[bytes, ...]
    ballots: tuple[Ballot, ...]
    counts: tuple[int, ...]
    faults: tuple[str, ...] = ()  # what the reading itself found wrong


class Violation(NamedTuple):
    """A rule that was broken, and where."""

    rule: str
    detail: str


Found = Iterator[str]


def check(requests: Sequence[Request], tallies: Sequence[TallyRead], disks: Sequence[Disk]) -> list[Violation]:
    """Every breach of every rule; an empty list is the proof that none was found."""
    rules: list[tuple[str, Callable[[], Iterable[str]]]] = [
        ("a disk can be read and proves itself", lambda: _readable(disks)),
        ("validators hold one chain", lambda: _one_chain(disks)),
        ("each voter and each record counts once", lambda: _unique(disks)),
        ("the tally is the count of the log", lambda: _counted(disks)),
        ("nothing is there that nobody sent", lambda: _sent(requests, disks)),
        ("acknowledged is there exactly once", lambda: _acknowledged(requests, disks)),
        ("refused is not there", lambda: _refused(requests, disks)),
        ("a receipt says where the record stands", lambda: _receipts(requests, disks)),
        ("what was acknowledged is never denied", lambda: _never_denied(requests)),
        ("confirmed before another began is not in a later block", lambda: _ordered(requests, disks)),
        ("tallies only grow", lambda: _growing(tallies)),
        ("a tally that was told is that of its block", lambda: _tallies_told(tallies, disks)),
    ]
    return [Violation(rule, detail) for rule, broken in rules for detail in broken()]


def _short(data: bytes) -> str:
    return f"0x{data.hex()[:16]}…"


def _readable(disks: Sequence[Disk]) -> Found:
    if not disks:
        yield "no disk was read"
    for disk in disks:
        for fault in disk.faults:
            yield f"{disk.name}: {fault}"


def _one_chain(disks: Sequence[Disk]) -> Found:
    """The same block at each height on all disks; one may be shorter, having been stopped earlier."""
    for disk in disks[1:]:
        first = disks[0]
        for height, (one, other) in enumerate(zip(first.hashes, disk.hashes, strict=False)):
            if one != other:
                yield f"height {height}: {first.name} holds {_short(one)}, {disk.name} holds {_short(other)}"
                break  # all that follows differs with it


def _unique(disks: Sequence[Disk]) -> Found:
    for disk in disks:
        for what, values in (
            ("voter", Counter(ballot.nullifier for ballot in disk.ballots)),
            ("record", Counter(ballot.record_id for ballot in disk.ballots)),
        ):
            for value, count in values.items():
                if count > 1:
                    yield f"{disk.name}: {what} {_short(value)} is in the log {count} times"


def _counts(ballots: Iterable[Ballot], options: int) -> tuple[int, ...]:
    """How many ballots name each option; one that names none is counted nowhere, and is found by `_sent`."""
    counted = Counter(ballot.content for ballot in ballots)
    return tuple(counted[bytes((option,))] for option in range(options))


def _counted(disks: Sequence[Disk]) -> Found:
    for disk in disks:
        counts = _counts(disk.ballots, len(disk.counts))
        if counts != disk.counts:
            yield f"{disk.name}: the contract says {disk.counts}, the log counts {counts}"


def _sent(requests: Sequence[Request], disks: Sequence[Disk]) -> Found:
    sent = {(request.nullifier, request.record_id, request.content) for request in requests if request.kind == "submit"}
    for disk in disks:
        for ballot in disk.ballots:
            if (ballot.nullifier, ballot.record_id, ballot.content) not in sent:
                yield f"{disk.name}: record {_short(ballot.record_id)} with content {ballot.content.hex()}"


def _acknowledged(requests: Sequence[Request], disks: Sequence[Disk]) -> Found:
    """`ok` is there; `pending` is there too, unless another ballot of the same voter stands in its place."""
    told = {request.record_id: request for request in requests if request.outcome == "pending"}
    told |= {request.record_id: request for request in requests if request.outcome == "ok"}
    for disk in disks:
        records = Counter(ballot.record_id for ballot in disk.ballots)
        voters = {ballot.nullifier for ballot in disk.ballots}
        for record_id, request in told.items():
            if records[record_id] == 1 or (request.outcome == "pending" and request.nullifier in voters):
                continue
            yield (
                f"{disk.name}: record {_short(record_id)}, answered {request.outcome} at {request.ended_s:.3f} s, "
                f"is there {records[record_id]} times"
            )


def _refused(requests: Sequence[Request], disks: Sequence[Disk]) -> Found:
    refused = {request.record_id: request for request in requests if request.outcome == "refused"}
    for disk in disks:
        for ballot in disk.ballots:
            if (request := refused.get(ballot.record_id)) is not None:
                yield (
                    f"{disk.name}: record {_short(ballot.record_id)}, refused at {request.ended_s:.3f} s "
                    f"({request.detail}), is in block {ballot.block_number}"
                )


def _receipts(requests: Sequence[Request], disks: Sequence[Disk]) -> Found:
    for request in requests:
        if request.outcome != "ok":
            continue
        place = request.place
        if place is None:
            yield f"record {_short(request.record_id)} was confirmed at {request.ended_s:.3f} s without a place"
            continue
        for disk in disks:
            wrong = _misplaced(request.record_id, place, disk)
            if wrong:
                yield f"{disk.name}: record {_short(request.record_id)}: {wrong}"


def _misplaced(record_id: bytes, place: Place, disk: Disk) -> str:
    if not 0 <= place.block_number < len(disk.hashes):
        return f"the receipt names block {place.block_number}, and the chain ends at {len(disk.hashes) - 1}"
    if disk.hashes[place.block_number] != place.block_hash:
        return f"the receipt names another block {place.block_number} than the chain has"
    if not 0 <= place.index < len(disk.ballots) or disk.ballots[place.index].record_id != record_id:
        return f"index {place.index} of the log, which the receipt names, is another record or none"
    ballot = disk.ballots[place.index]
    if (ballot.block_number, ballot.transaction_hash) != (place.block_number, place.transaction_hash):
        return f"it came with block {ballot.block_number} and another transaction than the receipt names"
    return ""


def _never_denied(requests: Sequence[Request]) -> Found:
    """No answer denies a record that was acknowledged before, nor refuses one that was final before."""
    acknowledged: dict[bytes, float] = {}
    final: dict[bytes, float] = {}
    for request in requests:
        if request.outcome in ACKNOWLEDGED:
            before = acknowledged.get(request.record_id, request.ended_s)
            acknowledged[request.record_id] = min(before, request.ended_s)
        if request.outcome == "ok":
            final[request.record_id] = min(final.get(request.record_id, request.ended_s), request.ended_s)
    for request in requests:
        known_s = {"absent": acknowledged, "refused": final}.get(request.outcome, {}).get(request.record_id)
        if known_s is not None and known_s < request.started_s:
            yield (
                f"record {_short(request.record_id)} was acknowledged at {known_s:.3f} s, and {request.outcome} "
                f"to who asked at {request.started_s:.3f} s ({request.detail})"
            )


def _ordered(requests: Sequence[Request], disks: Sequence[Disk]) -> Found:
    """If a ballot was confirmed before another was first sent, its block is the other's or an earlier one."""
    begun: dict[bytes, float] = {}
    for request in requests:
        if request.kind == "submit":
            begun[request.record_id] = min(begun.get(request.record_id, request.started_s), request.started_s)
    confirmed = sorted(
        (request.ended_s, request.place.block_number, request.record_id)
        for request in requests
        if request.outcome == "ok" and request.place is not None
    )
    for disk in disks:
        blocks = {ballot.record_id: ballot.block_number for ballot in disk.ballots}
        position, highest, holder = 0, -1, b""
        for record_id, started_s in sorted(begun.items(), key=lambda item: item[1]):
            while position < len(confirmed) and confirmed[position][0] < started_s:
                if confirmed[position][1] > highest:
                    _, highest, holder = confirmed[position]
                position += 1
            block = blocks.get(record_id)
            if block is not None and block < highest:
                yield (
                    f"{disk.name}: record {_short(record_id)}, first sent at {started_s:.3f} s, is in block {block}, "
                    f"although {_short(holder)} in block {highest} was confirmed before"
                )


def _growing(tallies: Sequence[TallyRead]) -> Found:
    """No reading that began after another had ended shows less, or an earlier height."""
    by_end = sorted(tallies, key=lambda tally: tally.ended_s)
    most: list[int] = []
    height, position = -1, 0
    for tally in sorted(tallies, key=lambda tally: tally.started_s):
        while position < len(by_end) and by_end[position].ended_s < tally.started_s:
            earlier = by_end[position]
            most = [max(pair) for pair in zip_longest(most, earlier.counts, fillvalue=0)]
            height = max(height, earlier.block_number)
            position += 1
        shrunk = len(tally.counts) < len(most)
        if shrunk or any(now < before for now, before in zip(tally.counts, most, strict=False)):
            yield f"{tally.counts} was told at {tally.started_s:.3f} s after {tuple(most)}"
        if tally.block_number < height:
            yield f"the tally of block {tally.block_number} was told at {tally.started_s:.3f} s after that of {height}"


def _tallies_told(tallies: Sequence[TallyRead], disks: Sequence[Disk]) -> Found:
    for disk in disks:
        ballots: dict[int, list[Ballot]] = defaultdict(list)
        for ballot in disk.ballots:
            ballots[ballot.block_number].append(ballot)
        counts, height = [0] * len(disk.counts), -1
        for tally in sorted(tallies, key=lambda tally: tally.block_number):
            if tally.block_number >= len(disk.hashes):
                yield f"{disk.name} has no block {tally.block_number}, whose tally was told"
                continue
            while height < tally.block_number:
                height += 1
                counts = [a + b for a, b in zip(counts, _counts(ballots[height], len(counts)), strict=True)]
            if disk.hashes[tally.block_number] != tally.block_hash:
                yield f"{disk.name} has another block {tally.block_number} than the one whose tally was told"
            elif tuple(counts) != tally.counts:
                yield f"{disk.name}: block {height} counts {tuple(counts)}, and {tally.counts} was told of it"
