"""What the database is known not to hold, so that a new ballot's nullifier and record id are looked up without it.

LevelDB answers for an absent key from its Bloom filters, but counts the look-up against the first file that it had to
consider, and merges a file into the next level after some hundred of those. With two such look-ups a ballot it rewrote
the same files without an end: at 300,000 ballots that took 30 µs of CPU a ballot, and the look-ups 10 more. For the
same reason it is worth two bits a key: the few look-ups that one bit let pass nearly doubled what was rewritten at two
million ballots.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from node.chain import keyspace

BITS = 1 << 27  # 16 MiB, of which a small network touches few pages; 6 % are set by two million ballots
_KEY_BYTES = 38  # of the flat records by id: prefix, log (u32), "n" or "r", id (32)
_PREFIX = keyspace.RECORD[0]
_SLICE_KEYS = 256


class Database(Protocol):
    """What the filter needs of a key-value database."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class RecordFilter:
    """Reads a database, and knows of nearly all flat records that are not there. Never the other way round.

    A key has two bits, at places taken from Python's own hash of it: the key brings that along from the dictionaries it
    was looked up in before, and nobody who chooses ids can know it. Of what is not there, the database is asked for
    0.3 % at two million ballots; with one bit it was 3 %, and each took 20 µs.
    """

    def __init__(self, database: Database, *, is_new: bool, bits: int = BITS) -> None:
        """`is_new`: the database holds no flat records by id yet. Otherwise nothing is known before `fill` is done.

        `bits`: the filter's size, a power of two from 8 up.
        """
        self._database = database
        self._bits = bytearray(bits >> 3)
        self._mask = bits - 1
        self._shift = self._mask.bit_length()
        self._is_complete = is_new

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, as the database says."""
        if len(key) == _KEY_BYTES and key[0] == _PREFIX and self._is_complete:
            places, bits, mask = hash(key), self._bits, self._mask
            position = places & mask
            if not bits[position >> 3] >> (position & 7) & 1:
                return None
            position = places >> self._shift & mask
            if not bits[position >> 3] >> (position & 7) & 1:
                return None
        return self._database.get(key)

    def add(self, keys: Iterable[bytes]) -> None:
        """These keys are in the database now. Every flat record that is written must be told, before it is read."""
        bits, mask, shift = self._bits, self._mask, self._shift
        for key in keys:
            if len(key) == _KEY_BYTES and key[0] == _PREFIX:
                places = hash(key)
                position = places & mask
                bits[position >> 3] |= 1 << (position & 7)
                position = places >> shift & mask
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
