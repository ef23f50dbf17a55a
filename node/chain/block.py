"""London's sixteen-field headers, and blocks: `hash == keccak256(rlp(header))` with nothing left out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from merkle import rlp
from merkle.keccak import keccak256
from merkle.patricia import ordered_root
from node.chain.errors import InvalidBlock
from node.chain.transaction import Transaction, decode_transaction

EMPTY_UNCLES_HASH = keccak256(rlp.encode([]))
DIFFICULTY = 1
NONCE = bytes(8)
MIX_HASH = bytes(32)

Decode: TypeAlias = Callable[[bytes], Transaction]

# (name, RLP length of a byte string, or 0 for an integer), in the order of the encoding.
_FIELDS = (
    ("parent_hash", 32),
    ("uncles_hash", 32),
    ("miner", 20),
    ("state_root", 32),
    ("transactions_root", 32),
    ("receipts_root", 32),
    ("logs_bloom", 256),
    ("difficulty", 0),
    ("number", 0),
    ("gas_limit", 0),
    ("gas_used", 0),
    ("timestamp", 0),
    ("extra_data", 32),
    ("mix_hash", 32),
    ("nonce", 8),
    ("base_fee_per_gas", 0),
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """A block header (yellow paper 4.4.3, with EIP-1559's base fee). Byte fields are bytes; `timestamp` is in seconds.

    `extra_data` is keccak-256 of the concatenated sorted addresses of the validators of the next height.
    """

    parent_hash: bytes
    miner: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra_data: bytes
    base_fee_per_gas: int = 0
    uncles_hash: bytes = EMPTY_UNCLES_HASH
    difficulty: int = DIFFICULTY
    mix_hash: bytes = MIX_HASH
    nonce: bytes = NONCE

    @cached_property
    def encoded(self) -> bytes:
        """The RLP encoding."""
        parts: list[bytes] = []
        for name, length in _FIELDS:
            value = getattr(self, name)
            parts.append(value if length else rlp.encode_int(value))
        return rlp.encode(parts)

    @cached_property
    def hash(self) -> bytes:
        """The block's hash, 32 bytes."""
        return keccak256(self.encoded)


def decode_header(data: bytes) -> Header:
    """The header of these RLP bytes. Raises InvalidBlock when they are not sixteen canonical fields."""
    try:
        items = rlp.decode(data)
        if not isinstance(items, list) or len(items) != len(_FIELDS):
            raise rlp.RlpError(f"a header has {len(_FIELDS)} fields")
        values: dict[str, object] = {}
        for (name, length), item in zip(_FIELDS, items, strict=True):
            if length == 0:
                values[name] = rlp.decode_int(item, bits_max=64)
            elif isinstance(item, bytes) and len(item) == length:
                values[name] = item
            else:
                raise rlp.RlpError(f"header field '{name}' is not {length} bytes")
    except rlp.RlpError as error:
        raise InvalidBlock(str(error)) from None
    header = Header(**values)  # type: ignore[arg-type]
    header.__dict__["encoded"] = data  # canonical, so these are the bytes that `encoded` would make
    return header


@dataclass(frozen=True)
class Block:
    """A header and the transactions under it. Nothing here says whether it is valid or final."""

    header: Header
    transactions: tuple[Transaction, ...] = field(default=())

    @property
    def hash(self) -> bytes:
        return self.header.hash

    @property
    def number(self) -> int:
        return self.header.number

    @cached_property
    def transactions_root(self) -> bytes:
        """The root of the transactions that are here, which a peer may have chosen: the header may name another."""
        return ordered_root([transaction.raw for transaction in self.transactions])

    @cached_property
    def bytes_count(self) -> int:
        """Bytes of the header and all transactions, which genesis bounds."""
        return len(self.header.encoded) + sum(len(transaction.raw) for transaction in self.transactions)


def pack_block(block: Block) -> list[object]:
    """The plain lists and bytes that msgpack carries: [header RLP, [raw transactions]]."""
    return [block.header.encoded, [transaction.raw for transaction in block.transactions]]


def unpack_block(packed: object, decode: Decode = decode_transaction) -> Block:
    """The block of what `pack_block` made. Raises InvalidBlock or InvalidTransaction; signatures are not checked.

    `decode` makes the transactions of their bytes; `KnownTransactions.decode` spares what has come before.
    """
    if not isinstance(packed, (list, tuple)) or len(packed) != 2:
        raise InvalidBlock("a packed block is [header, transactions]")
    header, transactions = packed
    if not isinstance(header, bytes) or not isinstance(transactions, (list, tuple)):
        raise InvalidBlock("a packed block is [header bytes, list of transaction bytes]")
    if not all(isinstance(raw, bytes) for raw in transactions):
        raise InvalidBlock("a packed block's transactions are byte strings")
    return Block(decode_header(header), tuple(map(decode, transactions)))
