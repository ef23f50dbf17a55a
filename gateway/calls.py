"""Calldata that the gateway sends and event logs that it reads, pure; by hand where ballots are many."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.records import Anchor, Ballot, MalformedRecord, unpack_ballots
from node.chain.contracts import anchors, ballots, elections, validators
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import CAST_GAS, RECORD_GAS
from node.chain.contracts.context import Revert
from node.chain.receipt import Receipt

ELECTIONS_ABI = elections.ABI
ANCHORS_ABI = anchors.ABI

_CAST_BATCH = ELECTIONS_ABI.functions["castBatch"].id
_CAST = ELECTIONS_ABI.functions["cast"].id
_BALLOTS_CAST = ELECTIONS_ABI.events["BallotsCast"].id
_ANCHOR = ANCHORS_ABI.functions["anchor"].id
_ANCHORED = ANCHORS_ABI.events["Anchored"].id
_WORD = b"\xa0"  # in RLP: 32 bytes follow
_ANCHORED_BEGINS = b"\x94" + ANCHORS + b"\xf8\x63" + _WORD + _ANCHORED + _WORD  # in RLP: the address, and three topics
_BYTES_GAS = 16  # of a non-zero byte of calldata (EIP-2028)
_BASE_GAS = 21_000
_SPARE_GAS = 300_000


@dataclass(frozen=True, slots=True)
class Cast:
    """What BallotsCast says of a batch: index of the first accepted, how many, and an outcome byte for each record."""

    election: int
    first_index: int
    count: int
    outcomes: bytes


def cast_batch(election: int, packed: Sequence[bytes]) -> bytes:
    """Calldata of `castBatch(uint256, bytes)` for packed ballots."""
    data = b"".join(packed)
    padding = bytes(-len(data) % 32)
    words = (election, 64, len(data))
    return _CAST_BATCH + b"".join(word.to_bytes(32, "big") for word in words) + data + padding


def cast_batch_gas(calldata: bytes, count: int) -> int:
    """A gas limit that covers a batch of `count` ballots, not much more."""
    return _BASE_GAS + _BYTES_GAS * len(calldata) + CAST_GAS + RECORD_GAS * count + 10_000


def call_gas(calldata: bytes) -> int:
    """A gas limit that covers any other call of ours."""
    return _BASE_GAS + _BYTES_GAS * len(calldata) + 100 * len(calldata) + _SPARE_GAS


def anchor_call(anchor: Anchor) -> bytes:
    """Calldata of `anchor(bytes32,bytes32,uint64,string)`."""
    algorithm = anchor.algorithm.encode()
    words = anchor.leaf_count, 4 * 32, len(algorithm)
    packed = b"".join(word.to_bytes(32, "big") for word in words)
    return _ANCHOR + anchor.batch_id + anchor.merkle_root + packed + algorithm + bytes(-len(algorithm) % 32)


def read_cast(receipt: Receipt) -> Cast | None:
    """The BallotsCast of a receipt, or None. A certificate vouches for the receipt, so the event's form is right."""
    for log in receipt.event_logs:
        if log.address == ELECTIONS and log.topics[0] == _BALLOTS_CAST:
            first, count, _, length = (int.from_bytes(log.data[at : at + 32], "big") for at in (0, 32, 64, 96))
            return Cast(int.from_bytes(log.topics[1], "big"), first, count, log.data[128 : 128 + length])
    return None


def read_anchored(receipt: Receipt) -> tuple[bytes, int] | None:
    """Batch id and index of the Anchored of a receipt, or None."""
    for log in receipt.event_logs:
        if log.address == ANCHORS and log.topics[0] == _ANCHORED:
            return log.topics[1], int.from_bytes(log.topics[2], "big")
    return None


def anchored_index(receipt: bytes, batch_id: bytes) -> int | None:
    """The index of the Anchored of a batch in the encoded receipt of its own transaction; None where it has none.

    A certificate vouches for the receipt, which therefore need not be decoded, at fourteen times the cost: what its one
    event log begins with is found nowhere else in it, and a transaction that failed has none.
    """
    at = receipt.find(_ANCHORED_BEGINS + batch_id + _WORD)
    if at < 0:
        return None
    begin = at + len(_ANCHORED_BEGINS) + len(batch_id) + len(_WORD)
    return int.from_bytes(receipt[begin : begin + 32], "big")


def ballots_of(to: bytes, calldata: bytes) -> list[Ballot]:
    """The ballots that a transaction of anybody's casts, in order; empty when it is no well-formed cast."""
    election = int.from_bytes(calldata[4:36], "big")
    try:
        if to == ELECTIONS and calldata[:4] == _CAST_BATCH:
            begin, end = ELECTIONS_ABI.tail_bytes(calldata, 2)
            return list(unpack_ballots(election, calldata[begin:end]))
        if to == ELECTIONS and calldata[:4] == _CAST:
            begin, end = ELECTIONS_ABI.tail_bytes(calldata, 5)
            kind = int.from_bytes(calldata[100:132], "big")
            return [Ballot(election, calldata[36:68], calldata[68:100], kind, calldata[begin:end])]
    except (Revert, MalformedRecord):  # the chain refused it, too
        return []
    return []


def accepted_index(cast: Cast, position: int) -> int:
    """The index in the log of the accepted record at `position` of a batch."""
    return cast.first_index + cast.outcomes[:position].count(0)


def explain_revert(data: bytes) -> str:
    """The named reason in revert data, for people: "ElectionNotOpen(1, 4)"."""
    for abi in (ELECTIONS_ABI, ANCHORS_ABI, validators.ABI):
        decoded = abi.decode_error(data)
        if decoded is not None:
            name, arguments = decoded
            return f"{name}({', '.join(_shown(argument) for argument in arguments)})"
    return "the contract refused the call without a reason"


def _shown(argument: object) -> str:
    return f"0x{argument.hex()}" if isinstance(argument, bytes) else str(argument)


OUTCOME_REASONS = {
    ballots.Outcome.NULLIFIER_USED: "the voter has cast another ballot in this election",
    ballots.Outcome.RECORD_ID_TAKEN: "another voter's ballot has this transaction id",
    ballots.Outcome.CHOICE_OUTSIDE: "the choice is none of the election's options",
    ballots.Outcome.NOT_ALLOWED: "the election does not take this kind of ballot, or the ballot is empty or too large",
}
