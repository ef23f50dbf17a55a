"""What a stored block says of ballots and anchors: read from calldata and event logs, never from the state."""

from dataclasses import dataclass

from gateway import calls
from gateway.records import Ballot
from node.chain.contracts import anchors
from node.chain.contracts.addresses import ANCHORS
from node.chain.contracts.ballots import Outcome
from node.chain.errors import LedgerError
from node.chain.receipt import Receipt
from node.chain.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Cast:
    """One transaction's ballots; accepted ones stand in the log one after the other, from `first_index` on."""

    election: int
    first_index: int
    records: tuple[Ballot, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Anchored:
    """One anchor as its event tells of it."""

    batch_id: bytes
    index: int
    merkle_root: bytes
    leaf_count: int
    algorithm: str


def read_cast(transaction: Transaction, receipt: Receipt) -> Cast | None:
    """The ballots of a transaction that cast some. Raises LedgerError where its event does not fit them."""
    if not receipt.succeeded:
        return None
    ballots, event = tuple(calls.ballots_of(transaction.to, transaction.data)), calls.read_cast(receipt)
    if not ballots and event is None:
        return None
    if event is None or len(event.outcomes) != len(ballots) or event.outcomes.count(Outcome.ACCEPTED) != event.count:
        raise LedgerError(f"transaction 0x{transaction.hash.hex()} casts without a fitting BallotsCast event")
    return Cast(event.election, event.first_index, ballots, tuple(map(Outcome, event.outcomes)))


def read_anchored(receipt: Receipt) -> list[Anchored]:
    """The anchors that a transaction's event logs tell of."""
    found = []
    for event in receipt.event_logs:
        decoded = anchors.ABI.decode_event(event) if event.address == ANCHORS else None
        if decoded is not None and decoded[0] == "Anchored":
            batch_id, index, merkle_root, leaf_count, algorithm = decoded[1]
            found.append(Anchored(batch_id, index, merkle_root, leaf_count, algorithm))
    return found
