"""The p2p payloads beside consensus messages: strict msgpack lists, decoded into plain tuples or refused.

Each `pack_…` has an `unpack_…` that raises BadPayload on anything the other would not have written.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgpack

from node.chain.block import Block, Decode, unpack_block
from node.chain.errors import PeerError
from node.chain.transaction import Transaction, decode_transaction
from node.consensus.certificate import Certificate, unpack_certificate
from node.p2p.kinds import Kind

HASHES_MAX = 4_096
TRANSACTIONS_MAX = 4_096
BLOCKS_MAX = 64
GOSSIP_RAW_BYTES_MAX = 1_024  # a transaction up to this size is sent without being asked for
GOSSIP_BATCH = 1_024  # such transactions in one message, which then has a megabyte at most
BATCH_BYTES_MAX = 1 << 20  # of a batch of transactions; a single one always fits
BLOCKS_BYTES_MAX = 4 << 20  # of an answer, where blocks may be as large; one block always fits


class BadPayload(PeerError):
    """A peer's payload is not what its kind says."""


def _pack(value: object) -> bytes:
    return bytes(msgpack.packb(value))


def _unpack(payload: bytes, length: int | None = None) -> list[Any]:
    try:
        value = msgpack.unpackb(payload, use_list=True, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadPayload(f"not msgpack: {error}") from None
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise BadPayload(f"expected a list{'' if length is None else f' of {length}'}")
    return value


def _height(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise BadPayload("expected a height")
    return value


def _byte_strings(values: list[Any], *, count_max: int, length: int | None = None) -> list[bytes]:
    if len(values) > count_max:
        raise BadPayload(f"{len(values)} items, at most {count_max}")
    if not all(isinstance(value, bytes) and (length is None or len(value) == length) for value in values):
        raise BadPayload("expected byte strings" + ("" if length is None else f" of {length} bytes"))
    return values


def pack_status(height: int, block_hash: bytes) -> bytes:
    """This node's head: its height and block hash."""
    return _pack([height, block_hash])


def unpack_status(payload: bytes) -> tuple[int, bytes]:
    """(height, block hash) of a peer's head."""
    height, block_hash = _unpack(payload, 2)
    return _height(height), _byte_strings([block_hash], count_max=1, length=32)[0]


def pack_hashes(hashes: Sequence[bytes]) -> bytes:
    """Transaction hashes: announced, or asked for."""
    return _pack(list(hashes))


def unpack_hashes(payload: bytes) -> list[bytes]:
    """Transaction hashes, 32 bytes each."""
    return _byte_strings(_unpack(payload), count_max=HASHES_MAX, length=32)


def pack_gossip(transactions: Iterable[Transaction]) -> Iterator[tuple[Kind, bytes]]:
    """The messages that tell peers of new transactions: small ones as they are, of large ones the hashes.

    A small one costs less to send twice than to ask for; large ones, batches of ballots, mostly reach every validator
    from the gateway itself.
    """
    small, hashes = [], []
    for transaction in transactions:
        if len(transaction.raw) <= GOSSIP_RAW_BYTES_MAX:
            small.append(transaction.raw)
        else:
            hashes.append(transaction.hash)
    for start in range(0, len(small), GOSSIP_BATCH):
        yield Kind.TRANSACTIONS, pack_transactions(small[start : start + GOSSIP_BATCH])
    for start in range(0, len(hashes), HASHES_MAX):
        yield Kind.TRANSACTION_HASHES, pack_hashes(hashes[start : start + HASHES_MAX])


def pack_transactions(raws: Sequence[bytes]) -> bytes:
    """Raw transactions."""
    return _pack(list(raws))


def unpack_transactions(payload: bytes) -> list[bytes]:
    """Raw transactions, not decoded."""
    return _byte_strings(_unpack(payload), count_max=TRANSACTIONS_MAX)


def pack_get_blocks(from_height: int, count: int) -> bytes:
    """Ask for `count` final blocks with their certificates."""
    return _pack([from_height, count])


def unpack_get_blocks(payload: bytes) -> tuple[int, int]:
    """(first height, how many, at most BLOCKS_MAX)."""
    from_height, count = _unpack(payload, 2)
    return _height(from_height), min(_height(count), BLOCKS_MAX)


def pack_blocks(items: Iterable[tuple[bytes, list[bytes], object]]) -> bytes:
    """Final blocks: (header RLP, raw transactions, packed certificate) each."""
    return _pack([[[header, raws], certificate] for header, raws, certificate in items])


def unpack_blocks(payload: bytes, decode: Decode = decode_transaction) -> list[tuple[Block, Certificate]]:
    """Blocks and certificates; nothing is verified yet. Raises PeerError of some kind when malformed.

    `decode` is as in `unpack_block`.
    """
    items = _unpack(payload)
    if len(items) > BLOCKS_MAX:
        raise BadPayload(f"{len(items)} blocks, at most {BLOCKS_MAX}")
    pairs = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2:
            raise BadPayload("expected [block, certificate]")
        pairs.append((unpack_block(item[0], decode), unpack_certificate(item[1])))
    return pairs
