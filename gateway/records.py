"""What the gateway takes responsibility for, as plain data: ballots, anchors, other calls, and packed bytes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_HEAD = struct.Struct(">32s32sBI")  # nullifier, record id, kind, length of the content
PACKED_HEAD_BYTES = _HEAD.size


class MalformedRecord(ValueError):
    """Packed bytes that hold no whole number of ballots."""


class Ballot(NamedTuple):
    """One ballot as it goes to the chain. `election` is a uint256; the ids have 32 bytes.

    A tuple, since there are many: a frozen dataclass takes three times as long to make.
    """

    election: int
    nullifier: bytes
    record_id: bytes
    kind: int
    content: bytes

    def packed(self) -> bytes:
        """nullifier ‖ record id ‖ kind ‖ content length (u32 BE) ‖ content: what `castBatch` takes."""
        return _HEAD.pack(self.nullifier, self.record_id, self.kind, len(self.content)) + self.content


@dataclass(frozen=True, slots=True)
class Anchor:
    """One Merkle root to keep. `batch_id` is a UUID's 16 bytes and 16 zeros; an empty algorithm is unspecified."""

    batch_id: bytes
    merkle_root: bytes
    leaf_count: int
    algorithm: str


@dataclass(frozen=True, slots=True)
class Call:
    """Any other transaction that the gateway was asked for: calldata for the 20-byte address `to`."""

    to: bytes
    data: bytes


Record = Ballot | Anchor | Call


def unpack_ballots(election: int, data: bytes) -> Iterator[Ballot]:
    """The ballots of packed bytes, in order. Raises MalformedRecord where the bytes end inside one."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < PACKED_HEAD_BYTES:
            raise MalformedRecord(f"{end - offset} bytes at {offset} are less than a ballot's head")
        nullifier, record_id, kind, length = _HEAD.unpack_from(data, offset)
        offset += PACKED_HEAD_BYTES
        if end - offset < length:
            raise MalformedRecord(f"a ballot's content of {length} bytes has only {end - offset} at {offset}")
        yield Ballot(election, nullifier, record_id, kind, data[offset : offset + length])
        offset += length
