"""How a block lies in the database: header, transactions as they were signed, and who signed them; and its receipts.

A receipt's bloom of 256 bytes says nothing that its event logs do not: it is left out, and made again when it is read.
For a transfer that is half of all that is stored of it.
"""

from collections.abc import Sequence

import msgpack

from merkle import rlp
from node.chain import keyspace
from node.chain.errors import InvalidBlock, LedgerError
from node.chain.receipt import BLOOM_BYTES, EMPTY_BLOOM, event_log_of, logs_bloom
from node.chain.transaction import Transaction

_NO_LOGS = b"\xc0"


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


def unpack_receipts(data: bytes) -> list[bytes]:
    """The consensus encodings of what `pack_receipts` made. Raises LedgerError."""
    try:
        return [_with_bloom(cut) for cut in msgpack.unpackb(data, use_list=True, raw=False)]
    except (ValueError, IndexError, TypeError, msgpack.UnpackException, InvalidBlock) as error:
        raise LedgerError(f"stored receipts are damaged: {error}") from None


def _bloom_at(receipt: bytes) -> int:
    """Where the bloom begins in a receipt's encoding, whether it is there or left out."""
    at = 1 if receipt[0] < 0x80 else 0  # behind the transaction's type
    at += receipt[at] - 0xF7 + 2  # the list's header, whose length has bytes of its own, and the status
    gas = receipt[at]
    return at + (1 if gas < 0x80 else gas - 0x7F) + 3


def _with_bloom(cut: bytes) -> bytes:
    bloom = _bloom_at(cut)
    event_logs = cut[bloom:]
    if event_logs == _NO_LOGS:
        return cut[:bloom] + EMPTY_BLOOM + event_logs
    items = rlp.decode(event_logs)
    if not isinstance(items, list):
        raise rlp.RlpError("a receipt's logs are a list")
    return cut[:bloom] + logs_bloom(map(event_log_of, items)) + event_logs
