"""How a block lies in the database: its header, its transactions as they were signed, and who signed them."""

from collections.abc import Sequence

import msgpack

from node.chain import keyspace
from node.chain.errors import LedgerError
from node.chain.transaction import Transaction


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
