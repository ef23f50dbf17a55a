"""Transaction receipts, event logs and their bloom filter (yellow paper 4.3.1; typed receipts: EIP-2718)."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.errors import InvalidBlock

BLOOM_BYTES = 256
EMPTY_BLOOM = bytes(BLOOM_BYTES)
_THREE_PAIRS = Struct(">HHH")


class EventLog(NamedTuple):
    """What a contract emitted: its 20-byte address, up to four 32-byte topics, and ABI-encoded data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class Receipt(NamedTuple):
    """The outcome of one transaction. `cumulative_gas_used` counts the block up to and with this transaction."""

    type: int
    succeeded: bool
    cumulative_gas_used: int
    event_logs: tuple[EventLog, ...] = ()
    bloom: bytes = EMPTY_BLOOM

    def encoded(self) -> bytes:
        """The consensus encoding: RLP, behind the type byte where the type is not 0."""
        logs: list[rlp.Item] = [[log.address, list(log.topics), log.data] for log in self.event_logs]
        status = rlp.encode_int(int(self.succeeded))
        body = rlp.encode([status, rlp.encode_int(self.cumulative_gas_used), self.bloom, logs])
        return body if self.type == 0 else bytes((self.type,)) + body


def make_receipt(type_: int, succeeded: bool, cumulative_gas_used: int, event_logs: Sequence[EventLog]) -> Receipt:
    """A receipt with its bloom computed."""
    bloom = logs_bloom(event_logs) if event_logs else EMPTY_BLOOM
    return Receipt(type_, succeeded, cumulative_gas_used, tuple(event_logs), bloom)


def decode_receipt(data: bytes, *, is_certified: bool = False) -> Receipt:
    """The receipt of its consensus encoding. Raises InvalidBlock when malformed or when the bloom does not fit.

    `is_certified`: it has been checked against the root of a certified header, so its bloom need not be made again.
    """
    try:
        kind = data[0] if data and data[0] < 0x80 else 0
        fields = rlp.decode(data[1:] if kind else data)
        if not isinstance(fields, list) or len(fields) != 4:
            raise rlp.RlpError("a receipt is [status, gas, bloom, logs]")
        status, gas, bloom, logs = fields
        if not isinstance(logs, list):
            raise rlp.RlpError("a receipt's logs are a list")
        event_logs = [event_log_of(log) for log in logs]
        succeeded = bool(rlp.decode_int(status, bits_max=8))
        gas_used = rlp.decode_int(gas, bits_max=64)
        if is_certified and isinstance(bloom, bytes):
            return Receipt(kind, succeeded, gas_used, tuple(event_logs), bloom)
        receipt = make_receipt(kind, succeeded, gas_used, event_logs)
        if receipt.bloom != bloom or receipt.encoded() != data:
            raise rlp.RlpError("a receipt's bloom or encoding is not canonical")
    except rlp.RlpError as error:
        raise InvalidBlock(str(error)) from None
    return receipt


def event_log_of(item: rlp.Decoded) -> EventLog:
    """The event log of its decoded RLP. Raises RlpError."""
    if not isinstance(item, list) or len(item) != 3:
        raise rlp.RlpError("an event log is [address, topics, data]")
    address, topics, data = item
    if not isinstance(address, bytes) or not isinstance(data, bytes) or not isinstance(topics, list):
        raise rlp.RlpError("an event log is [address bytes, topics list, data bytes]")
    if len(address) != 20 or not all(isinstance(topic, bytes) and len(topic) == 32 for topic in topics):
        raise rlp.RlpError("an event log has an address of 20 bytes and topics of 32")
    return EventLog(address, tuple(topic for topic in topics if isinstance(topic, bytes)), data)


def logs_bloom(event_logs: Iterable[EventLog]) -> bytes:
    """The 2,048-bit bloom over addresses and topics."""
    return logs_bits(event_logs).to_bytes(BLOOM_BYTES, "big")


def logs_bits(event_logs: Iterable[EventLog]) -> int:
    """The same as an integer mask: the bloom of a block is the union of its receipts'."""
    bits = 0
    for address, topics, _ in event_logs:
        bits |= _recurring_bits(address)
        if topics:
            bits |= _recurring_bits(topics[0])
        for topic in topics[1:]:
            bits |= bloom_bits(topic)
    return bits


def bloom_bits(entry: bytes) -> int:
    """The three bits that `entry` sets, as an integer mask."""
    first, second, third = _THREE_PAIRS.unpack_from(keccak256(entry))
    mask: int = 1 << (first & 2047) | 1 << (second & 2047) | 1 << (third & 2047)
    return mask


_recurring_bits = lru_cache(maxsize=1024)(bloom_bits)  # of addresses and event ids
