"""RFC 6962 logs as flat records: their entries, the indexes over them and their nodes, beside the state trie.

A log has a number: 0 for the anchors, n + 1 for the n-th election that was created. Keys, behind the key space's prefix
and the number as a u32 (all integers are big-endian):

    "n" ‖ id (32)                     → index (6)
    "r" ‖ record id (32)              → index (6); elections only
    "e" ‖ page (8)                    → entries page × 64 and on, up to 64: id (32) ‖ the contract's own body
    "t" ‖ level (1) ‖ tile (8)        → hashes of the complete subtrees over 64^level leaves from tile × 64 on, up to 64
    "f"                               → the frontier of the head's log

Entries are only ever added, so what was true at a past height is found by the log's size then, which the contract's
storage holds: an index at or above it did not exist. What has a random key is short and of one length, since a
database has to sort it; the rest lies in the order in which it came. Pages and tiles (as in Certificate
Transparency's tiled logs) make a ballot cost two records, where a record for each node and each position would make
five.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256

from merkle.log import Frontier
from node.chain import keyspace
from node.chain.contracts.context import Appended
from node.chain.errors import LedgerError
from node.chain.state import State

ANCHORS_LOG = 0
PAGE_ENTRIES = 64
TILE_LEVELS = 6  # 2^6 = PAGE_ENTRIES
HASH_BYTES = 32
INDEX_BYTES = 6


def id_prefix(log: int) -> bytes:
    """What stands before an id in the key of its entry."""
    return _key(log, b"n")


def record_id_prefix(log: int) -> bytes:
    """What stands before a record id in the key of its index."""
    return _key(log, b"r")


def index_of(state: State, log: int, id_: bytes, size: int) -> int | None:
    """Where the entry with this id stands among the first `size`; None when it is not there."""
    value = state.record(id_prefix(log) + id_)
    if value is None:
        return None
    index = int.from_bytes(value, "big")
    return index if index < size else None


def entry_at(state: State, log: int, index: int, entry_bytes: int) -> bytes:
    """The entry at an index below the log's size in a final block, id first. Raises LedgerError when it is missing.

    `entry_bytes`: how long each entry of this log is.
    """
    page, offset = divmod(index, PAGE_ENTRIES)
    entries = state.record(_page_key(log, page)) or b""
    entry = entries[offset * entry_bytes : (offset + 1) * entry_bytes]
    if len(entry) != entry_bytes:
        raise LedgerError(f"log {log} has no entry stored at index {index}")
    return entry


def node_reader(state: State, log: int) -> Callable[[int, int], bytes]:
    """`get_node(level, index)` for `merkle.log`'s proofs: a stored hash, or what at most 31 hashings make of them.

    It raises LedgerError for a subtree that the stored log does not complete.
    """

    def get_node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_LEVELS)
        tile, offset = divmod(index << height, PAGE_ENTRIES)
        stored = state.record(_tile_key(log, tile_level, tile)) or b""
        row = stored[offset * HASH_BYTES : (offset + (1 << height)) * HASH_BYTES]
        if len(row) != HASH_BYTES << height:
            raise LedgerError(f"log {log} has no stored node at level {level}, index {index}")
        for _ in range(height):
            row = b"".join(sha256(b"\x01" + row[at : at + 64]).digest() for at in range(0, len(row), 64))
        return row

    return get_node


def append(state: State, log: int, appended: Appended) -> bytes:
    """Write pages, tiles and frontier for what a block appended to a log. Returns the log's new root."""
    frontier_key = _key(log, b"f")
    stored = state.record(frontier_key)
    frontier = Frontier() if stored is None else Frontier.decode(stored)
    first = appended.first_index
    if frontier.size != first:
        raise LedgerError(f"log {log} is stored up to {frontier.size}, and the state says {first}: not the head")
    completed = frontier.extend(appended.leaf_hashes)
    _extend_rows(state, partial(_page_key, log), first, appended.entries)
    for level, index, hashes in ((0, first, appended.leaf_hashes), *completed):
        tile_level, is_between = divmod(level, TILE_LEVELS)
        if not is_between:
            _extend_rows(state, partial(_tile_key, log, tile_level), index, hashes)
    state.set_record(frontier_key, frontier.encode())
    return frontier.root()


def _extend_rows(state: State, key: Callable[[int], bytes], first: int, items: list[bytes]) -> None:
    """Append items of one length to rows of PAGE_ENTRIES; the first goes to position `first` of the whole sequence."""
    row, offset = divmod(first, PAGE_ENTRIES)
    begin = 0
    while begin < len(items):
        end = begin + PAGE_ENTRIES - offset
        before = state.record(key(row)) if offset else b""
        size = offset * len(items[0])
        if before is None or len(before) < size:
            raise LedgerError(f"a row of a log has fewer than its {offset} items")
        state.set_record(key(row), before[:size] + b"".join(items[begin:end]))
        begin, row, offset = end, row + 1, 0


def _page_key(log: int, page: int) -> bytes:
    return _key(log, b"e") + page.to_bytes(8, "big")


def _tile_key(log: int, tile_level: int, tile: int) -> bytes:
    return _key(log, b"t") + bytes((tile_level,)) + tile.to_bytes(8, "big")


def _key(log: int, kind: bytes) -> bytes:
    return keyspace.RECORD + log.to_bytes(4, "big") + kind
