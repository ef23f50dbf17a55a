"""What a stored block says of ballots and anchors: read from calldata and event logs, never from the state."""

from dataclasses import dataclass

from node.chain.contracts import anchors, ballots
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.elections import ABI
from node.chain.errors import LedgerError
from node.chain.receipt import Receipt
from node.chain.transaction import Transaction

_CAST = ABI.functions["cast"].id
_CAST_BATCH = ABI.functions["castBatch"].id


@dataclass(frozen=True, slots=True)
class CastRecord:
    """One ballot as it was cast: nullifier and record id have 32 bytes; `kind` is 0 for open and 1 for sealed."""

    nullifier: bytes
    record_id: bytes
    kind: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Cast:
    """One transaction's ballots; accepted ones stand in the log one after the other, from `first_index` on."""

    election: int
    first_index: int
    records: tuple[CastRecord, ...]
    outcomes: tuple[ballots.Outcome, ...]


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
    data = transaction.data
    if transaction.to != ELECTIONS or not receipt.succeeded or data[:4] not in (_CAST, _CAST_BATCH):
        return None
    records = _records(data)
    decoded = ABI.decode_event(receipt.event_logs[0]) if receipt.event_logs else None
    if decoded is None or decoded[0] != "BallotsCast" or len(decoded[1][3]) != len(records):
        raise LedgerError(f"transaction 0x{transaction.hash.hex()} casts without a fitting BallotsCast event")
    _, first, count, codes = decoded[1]
    outcomes = tuple(map(ballots.Outcome, codes))
    if outcomes.count(ballots.Outcome.ACCEPTED) != count:
        raise LedgerError(f"transaction 0x{transaction.hash.hex()}: its event tells of {count} ballots, not as many")
    return Cast(int.from_bytes(data[4:36], "big"), first, records, outcomes)


def read_anchored(receipt: Receipt) -> list[Anchored]:
    """The anchors that a transaction's event logs tell of."""
    found = []
    for event in receipt.event_logs:
        decoded = anchors.ABI.decode_event(event) if event.address == ANCHORS else None
        if decoded is not None and decoded[0] == "Anchored":
            batch_id, index, merkle_root, leaf_count, algorithm = decoded[1]
            found.append(Anchored(batch_id, index, merkle_root, leaf_count, algorithm))
    return found


def _records(data: bytes) -> tuple[CastRecord, ...]:
    if data[:4] == _CAST:
        begin, end = ABI.tail_bytes(data, 5)
        return (CastRecord(data[36:68], data[68:100], data[131], data[begin:end]),)
    begin, end = ABI.tail_bytes(data, 2)
    packed = data[begin:end]
    head = ballots.RECORD_HEAD_BYTES
    return tuple(
        CastRecord(
            packed[start : start + 32], packed[start + 32 : start + 64], packed[start + 64], packed[start + head : stop]
        )
        for start, stop in ballots.unpack_records(packed)
    )
