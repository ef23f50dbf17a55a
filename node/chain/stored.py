"""How a block lies in the database: header, transactions as they were signed, and who signed them; and its receipts.

A receipt's bloom of 256 bytes says nothing that its event logs do not: it is left out, and made again when it is read.
For a transfer that is half of all that is stored of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import msgpack

from merkle import rlp
from node.chain import keyspace
from node.chain.errors import LedgerError
from node.chain.receipt import BLOOM_BYTES, EMPTY_BLOOM, EventLog, event_log_of, logs_bloom
from node.chain.transaction import Transaction

_NO_LOGS = b"\xc0"
_DAMAGE = (ValueError, IndexError, TypeError, msgpack.UnpackException)


def block_key(height: int) -> bytes:
    """Where the block at `height` lies."""
    return keyspace.BLOCK + height.to_bytes(8, "big")


def pack_stored(header: bytes, transactions: Sequence[Transaction]) -> bytes:
    """The value there: header RLP, raw transactions, their senders one behind the other. Signatures are valid."""
    raws = [transaction.raw for transaction in transactions]
    return bytes(msgpack.packb([header, raws, b"".join([transaction.sender for transaction in transactions])]))


def unpack_stored(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Header RLP, raw transactions and senders (20 bytes each) of what `pack_stored` made. Raises LedgerError."""
    try:
        header, raws, senders = msgpack.unpackb(data, use_list=True, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise LedgerError(f"a stored block is damaged: {error}") from None
    return header, raws, senders


def pack_receipts(encoded: Sequence[bytes]) -> bytes:
    """The stored value of a block's receipts, from their consensus encodings."""
    cut = []
    for receipt in encoded:
        bloom = _bloom_at(receipt)
        cut.append(receipt[:bloom] + receipt[bloom + BLOOM_BYTES :])
    return bytes(msgpack.packb(cut))


def unpack_receipts(data: bytes, blooms: Sequence[bytes] | None = None) -> list[bytes]:
    """The consensus encodings of what `pack_receipts` made. Raises LedgerError.

    `blooms`: theirs, where somebody knows them. To make them takes 25 µs for a receipt of two event logs.
    """
    try:
        cuts = msgpack.unpackb(data, use_list=True, raw=False)
        known: Iterable[bytes | None] = repeat(None, len(cuts)) if blooms is None else blooms
        return [_with_bloom(cut, bloom) for cut, bloom in zip(cuts, known, strict=True)]
    except _DAMAGE as error:
        raise LedgerError(f"stored receipts are damaged: {error}") from None


def unpack_event_logs(data: bytes, count: int) -> Iterator[tuple[EventLog, ...]]:
    """The event logs of each of `count` receipts that lie there, decoded no sooner than they are asked for.

    Raises LedgerError.
    """
    try:
        cuts = msgpack.unpackb(data, use_list=True, raw=False)
        if len(cuts) != count:
            raise ValueError(f"there are {len(cuts)} of {count}")
        for cut in cuts:
            yield _event_logs(cut[_bloom_at(cut) :])
    except _DAMAGE as error:
        raise LedgerError(f"stored receipts are damaged: {error}") from None


def _bloom_at(receipt: bytes) -> int:
    """Where the bloom begins in a receipt's encoding, whether it is there or left out."""
    at = 1 if receipt[0] < 0x80 else 0  # behind the transaction's type
    at += receipt[at] - 0xF7 + 2  # the list's header, whose length has bytes of its own, and the status
    gas = receipt[at]
    return at + (1 if gas < 0x80 else gas - 0x7F) + 3


def _with_bloom(cut: bytes, bloom: bytes | None) -> bytes:
    at = _bloom_at(cut)
    encoded = cut[at:]
    if bloom is None:
        bloom = EMPTY_BLOOM if encoded == _NO_LOGS else logs_bloom(_event_logs(encoded))
    return cut[:at] + bloom + encoded


def _event_logs(encoded: bytes) -> tuple[EventLog, ...]:
    if encoded == _NO_LOGS:
        return ()
    items = rlp.decode(encoded)
    if not isinstance(items, list):
        raise rlp.RlpError("a receipt's logs are a list")
    return tuple(map(event_log_of, items))
