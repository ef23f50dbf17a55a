"""The bytes of the journal, pure: frames of one group commit each, chained by SHA-256, and the entries inside them.

A segment is a row of frames. A frame is `"PSJ1" ‖ body length (u32) ‖ CRC-32 of the body (u32) ‖ body ‖ link (32)`,
where link = SHA-256(link of the frame before ‖ body), so nobody changes, drops or swaps a frame unseen. A body is a row
of entries `type (u8) ‖ length (u32) ‖ payload`. Integers are big-endian. The first frame of a segment holds one START
entry and is synced before anything follows it. Its `link` is that of the frame of the segment before which it follows:
frames behind that one were never acknowledged (their sync failed, or a crash tore them) and count for nothing. Files
are only ever appended to, or deleted whole.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import starmap
from typing import NamedTuple

from gateway.records import Anchor, Ballot, Call, MalformedRecord, Record, unpack_ballots
from node.chain.domain import Domain

MAGIC = b"PSJ1"
FRAME_BODY_BYTES_MAX = 64 << 20
FIRST_LINK = bytes(32)

_FRAME = struct.Struct(">4sII")
_ENTRY = struct.Struct(">BI")
_START = struct.Struct(">Q32sQQI32s")  # chain id, genesis hash, segment number, first sequence, salt, link before
_BALLOT = struct.Struct(">32sQ")  # election, received at (ms)
_BALLOT_ENTRY = struct.Struct(">BI32sQ")  # _ENTRY and _BALLOT: the one that there are many of
_ANCHOR = struct.Struct(">32s32sQQ")  # batch id, root, leaf count, received at (ms)
_CALL = struct.Struct(">20sQ")  # to, received at (ms)
_PLACE = struct.Struct(">Q32s32s")  # block number, block hash, transaction hash
_SETTLED = struct.Struct(">QBQ")  # sequence, outcome, index in the log
_REJECTED = struct.Struct(">Q")  # sequence

FRAME_OVERHEAD_BYTES = _FRAME.size + 32
START_FRAME_BYTES = FRAME_OVERHEAD_BYTES + _ENTRY.size + _START.size


class JournalCorrupt(RuntimeError):
    """A journal damaged elsewhere than at its very end, or of another network. It is never repaired silently."""


class EntryType(IntEnum):
    """The first byte of an entry."""

    START = 0
    BALLOT = 1
    ANCHOR = 2
    CALL = 3
    SETTLED = 4
    REJECTED = 5


@dataclass(frozen=True, slots=True)
class Start:
    """What a segment begins with. Accepted entries are numbered on from `first_sequence`.

    `salt` (32 random bits) is what the CRC-32 of the segment's other frames starts from: without it a voter could send
    a sealed ballot whose bytes look like a frame, and a torn tail that holds it would look like damage in the middle.
    """

    domain: Domain
    segment: int
    first_sequence: int
    salt: int
    link: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """One record that the gateway took responsibility for. `received_at_ms` is wall-clock time since 1970."""

    sequence: int
    received_at_ms: int
    record: Record


class Place(NamedTuple):
    """Where on the chain a record is: block number and hash, and the hash of the transaction that carried it."""

    block_number: int
    block_hash: bytes
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """Records whose end is final: (sequence, outcome byte, index in its log or 0) of each."""

    place: Place
    items: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the chain will not take, and why."""

    sequence: int
    reason: str


_BALLOT_TYPE = int(EntryType.BALLOT)  # an enumeration's member takes as long to find as the entry to pack
Entry = Start | Accepted | Settled | Rejected


def _entry(kind: EntryType, payload: bytes) -> bytes:
    return _ENTRY.pack(kind, len(payload)) + payload


def encode_start(start: Start) -> bytes:
    domain = start.domain
    numbers = (start.segment, start.first_sequence, start.salt)
    return _entry(EntryType.START, _START.pack(domain.chain_id, domain.genesis_hash, *numbers, start.link))


def encode_accepted(record: Record, received_at_ms: int) -> bytes:
    """The entry of a record; its sequence is its place among the accepted entries and not written."""
    if isinstance(record, Ballot):
        packed = record.packed()
        election = record.election.to_bytes(32, "big")
        return _BALLOT_ENTRY.pack(_BALLOT_TYPE, _BALLOT.size + len(packed), election, received_at_ms) + packed
    if isinstance(record, Anchor):
        packed = _ANCHOR.pack(record.batch_id, record.merkle_root, record.leaf_count, received_at_ms)
        return _entry(EntryType.ANCHOR, packed + record.algorithm.encode())
    return _entry(EntryType.CALL, _CALL.pack(record.to, received_at_ms) + record.data)


def encode_settled(settled: Settled) -> bytes:
    return _entry(EntryType.SETTLED, _PLACE.pack(*settled.place) + b"".join(starmap(_SETTLED.pack, settled.items)))


def encode_rejected(rejected: Rejected) -> bytes:
    return _entry(EntryType.REJECTED, _REJECTED.pack(rejected.sequence) + rejected.reason.encode())


def frame(entries: Iterable[bytes], link: bytes, salt: int) -> tuple[bytes, bytes]:
    """One frame of encoded entries after the frame whose link is `link`; the frame's bytes and its own link.

    `salt` is 0 for the frame that holds the START.
    """
    body = b"".join(entries)
    if not 0 < len(body) <= FRAME_BODY_BYTES_MAX:
        raise ValueError(f"a frame's body has {len(body)} bytes, expected 1 to {FRAME_BODY_BYTES_MAX}")
    after = next_link(link, body)
    return _FRAME.pack(MAGIC, len(body), zlib.crc32(body, salt)) + body + after, after


def next_link(link: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256(link)
    digest.update(body)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a segment: its START, and the bodies and links of its frames, the START's first."""

    start: Start
    frames: tuple[tuple[bytes, bytes], ...]


def scan(data: bytes, name: str) -> Scan | None:
    """Find the frames of one segment's bytes and check that each follows the one before; None: its START is torn.

    Bytes that are no frame are torn off where no sound frame follows them: that is how a crash in the middle of the
    last write leaves it. A sound frame behind them means damage in the middle: raises JournalCorrupt.
    """
    first = _frame_at(data, 0, 0)
    if first is None:
        if len(data) > START_FRAME_BYTES:  # the START is synced before anything is written behind it
            raise JournalCorrupt(f"journal segment {name} is damaged: its START is not sound; restore the file")
        return None
    start = next(decode_body(first[0], 0, name), None)
    if not isinstance(start, Start):
        raise JournalCorrupt(f"journal segment {name} does not begin with a START")
    frames, offset = [first], len(first[0]) + FRAME_OVERHEAD_BYTES
    while (found := _frame_at(data, offset, start.salt)) is not None:
        frames.append(found)
        offset += len(found[0]) + FRAME_OVERHEAD_BYTES
    later = offset
    while offset < len(data) and (later := data.find(MAGIC, later + 1)) >= 0:
        if _frame_at(data, later, start.salt) is not None:
            raise JournalCorrupt(
                f"journal segment {name} is damaged at byte {offset}: a sound frame follows at byte {later}; "
                "restore the file, or move it away and accept the loss of what it holds"
            )
    link = start.link
    for position, (body, stored) in enumerate(frames):
        link = next_link(link, body)
        if link != stored:
            raise JournalCorrupt(f"journal segment {name} is no chain: frame {position} does not follow the one before")
    return Scan(start, tuple(frames))


def _frame_at(data: bytes, offset: int, salt: int) -> tuple[bytes, bytes] | None:
    """Body and link of the sound frame at `offset`, or None."""
    if len(data) - offset < FRAME_OVERHEAD_BYTES:
        return None
    magic, length, checksum = _FRAME.unpack_from(data, offset)
    begin = offset + _FRAME.size
    if magic != MAGIC or not 0 < length <= FRAME_BODY_BYTES_MAX or begin + length + 32 > len(data):
        return None
    body = data[begin : begin + length]
    if zlib.crc32(body, salt) != checksum:
        return None
    return body, data[begin + length : begin + length + 32]


def decode_body(body: bytes, sequence: int, name: str) -> Iterator[Entry]:
    """The entries of one frame; accepted ones are numbered from `sequence` on. Raises JournalCorrupt when malformed."""
    offset = 0
    try:
        while offset < len(body):
            kind, length = _ENTRY.unpack_from(body, offset)
            offset += _ENTRY.size
            payload = body[offset : offset + length]
            if len(payload) != length:
                raise ValueError(f"an entry of {length} bytes has only {len(payload)}")
            offset += length
            entry = _decode_entry(EntryType(kind), payload, sequence)
            if isinstance(entry, Accepted):
                sequence += 1
            yield entry
    except (ValueError, struct.error) as error:
        raise JournalCorrupt(
            f"journal segment {name} holds a frame that is sound but makes no sense: {error}"
        ) from None


def _decode_entry(kind: EntryType, payload: bytes, sequence: int) -> Entry:
    if kind is EntryType.START:
        chain_id, genesis_hash, segment, first_sequence, salt, link = _START.unpack(payload)
        return Start(Domain(chain_id, genesis_hash), segment, first_sequence, salt, link)
    if kind is EntryType.BALLOT:
        election, received = _BALLOT.unpack_from(payload)
        ballots = list(unpack_ballots(int.from_bytes(election, "big"), payload[_BALLOT.size :]))
        if len(ballots) != 1:
            raise MalformedRecord(f"expected one ballot, found {len(ballots)}")
        return Accepted(sequence, received, ballots[0])
    if kind is EntryType.ANCHOR:
        batch_id, root, count, received = _ANCHOR.unpack_from(payload)
        return Accepted(sequence, received, Anchor(batch_id, root, count, payload[_ANCHOR.size :].decode()))
    if kind is EntryType.CALL:
        to, received = _CALL.unpack_from(payload)
        return Accepted(sequence, received, Call(to, payload[_CALL.size :]))
    if kind is EntryType.SETTLED:
        place = Place(*_PLACE.unpack_from(payload))
        return Settled(place, tuple(_SETTLED.iter_unpack(payload[_PLACE.size :])))
    (sequence,) = _REJECTED.unpack_from(payload)
    return Rejected(sequence, payload[_REJECTED.size :].decode())
