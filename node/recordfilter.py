"""What the database is known not to hold, so that a new ballot's nullifier and record id are looked up without it.

LevelDB answers for an absent key from its Bloom filters, but counts the look-up against the first file that it had to
consider, and merges a file into the next level after some hundred of those. With two such look-ups a ballot it rewrote
the same files without an end: at 300,000 ballots that took 30 µs of CPU a ballot, and the look-ups 10 more.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol
from zlib import crc32

from node.chain import keyspace

BITS = 1 << 27  # 16 MiB, of which a small network touches few pages; 3 % are set by two million ballots
_KEY_BYTES = 38  # of the flat records by id: prefix, log (u32), "n" or "r", id (32)
_PREFIX = keyspace.RECORD[0]
_SLICE_KEYS = 256


class Database(Protocol):
    """What the filter needs of a key-value database."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class RecordFilter:
    """Reads a database, and knows of many flat records that they are not there. Never the other way round.

    Who chooses ids whose checksums agree slows his own look-ups down, and nothing else.
    """

    def __init__(self, database: Database, *, is_new: bool, bits: int = BITS) -> None:
        """`is_new`: the database holds no flat records by id yet. Otherwise nothing is known before `fill` is done.

        `bits`: the filter's size, a power of two from 8 up.
        """
        self._database = database
        self._bits = bytearray(bits >> 3)
        self._mask = bits - 1
        self._is_complete = is_new

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, as the database says."""
        if len(key) == _KEY_BYTES and key[0] == _PREFIX and self._is_complete:
            position = crc32(key) & self._mask
            if not self._bits[position >> 3] >> (position & 7) & 1:
                return None
        return self._database.get(key)

    def add(self, keys: Iterable[bytes]) -> None:
        """These keys are in the database now. Every flat record that is written must be told, before it is read."""
        bits = self._bits
        for key in keys:
            if len(key) == _KEY_BYTES and key[0] == _PREFIX:
                position = crc32(key) & self._mask
                bits[position >> 3] |= 1 << (position & 7)

    def fill(self) -> Iterator[None]:
        """Learn what the database holds, a little between any two yields; what is added meanwhile is known as well."""
        if self._is_complete:
            return
        keys: list[bytes] = []
        for key, _ in self._database.scan(keyspace.RECORD, bytes((_PREFIX + 1,))):
            keys.append(key)
            if len(keys) == _SLICE_KEYS:
                self.add(keys)
                keys.clear()
                yield
        self.add(keys)
        self._is_complete = True
