"""The kinds of p2p messages, how large each may be, and which go ahead of the others."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
BLOCK_BYTES_MAX_DEFAULT = 8 * MEBIBYTE
CERTIFICATES_BYTES_MAX = MEBIBYTE  # what may travel beside one block: a certificate, a justification, packing


class Kind(IntEnum):
    """The byte after a frame's length. The network itself speaks the first three; the rest is opaque to it."""

    HELLO = 0
    PING = 1
    PONG = 2
    STATUS = 16
    CONSENSUS = 17
    TRANSACTIONS = 32
    GET_BLOCKS = 33
    BLOCKS = 34
    TRANSACTION_HASHES = 35
    GET_TRANSACTIONS = 36


OWN_KINDS = frozenset({Kind.HELLO, Kind.PING, Kind.PONG})
"""Kinds that sessions exchange themselves and that no handler sees."""

URGENT_KINDS = frozenset({Kind.HELLO, Kind.PING, Kind.PONG, Kind.STATUS, Kind.CONSENSUS})
"""Kinds that overtake everything else in the send queue, so that a full mempool does not delay a round."""


def payload_bytes_max(block_bytes_max: int) -> Mapping[Kind, int]:
    """The largest payload of each kind, in bytes, in a network whose blocks have at most `block_bytes_max` bytes."""
    block = block_bytes_max + CERTIFICATES_BYTES_MAX
    return MappingProxyType(
        {
            Kind.HELLO: 4 * KIBIBYTE,
            Kind.PING: 8,
            Kind.PONG: 8,
            Kind.STATUS: 64 * KIBIBYTE,
            Kind.CONSENSUS: block,
            Kind.TRANSACTIONS: block,
            Kind.GET_BLOCKS: 4 * KIBIBYTE,
            Kind.BLOCKS: block,
            Kind.TRANSACTION_HASHES: 256 * KIBIBYTE,
            Kind.GET_TRANSACTIONS: 256 * KIBIBYTE,
        }
    )
