"""RFC 6962 logs as flat records: their entries, the indexes over them and their nodes, beside the state trie.

A log has a number: 0 for the anchors, n + 1 for the n-th election that was created. Keys, behind the key space's prefix
and the number as a u32 (all integers are big-endian):

    "n" ‖ id (32)                     → index (6)
    "r" ‖ record id (32)              → index (6); elections only
    "w" ‖ row (8)                     → entries row × 64 and on, up to 64
    "t" ‖ level (1) ‖ tile (8)        → hashes of the complete subtrees over 64^level leaves (level 1 and up) from
                                        tile × 64 on, up to 64
    "f"                               → the frontier of the head's log

An entry is its id (32), its record id (32; elections only), the contract's own body, and its leaf hash (32). Entries
are only ever added, so what was true at a past height is found by the log's size then, which the contract's storage
holds: an index at or above it did not exist. Ids are random, and a database would sort them again and again: so "n" and
"r" are no keys of it; `node.recordindex` answers for them, out of the rows. Rows and tiles (as in Certificate
Transparency's tiled logs) make a ballot cost a 64th of a record, where a record for each node and each position would
make five. Rows are a log's last keys, behind what is small, so that LevelDB can mostly leave them where they are.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import chain

from merkle.log import Frontier
from node.chain import keyspace
from node.chain.contracts.context import Appended
from node.chain.errors import LedgerError
from node.chain.state import State

ANCHORS_LOG = 0
ROW_ENTRIES = 64
TILE_LEVELS = 6  # 2^6 = ROW_ENTRIES
HASH_BYTES = 32
INDEX_BYTES = 6
ANCHOR_ENTRY_BYTES = 143  # without the leaf hash, as the contracts make them
BALLOT_ENTRY_BYTES = 76
_ID, _RECORD_ID, _FRONTIER = b"n", b"r", b"f"

Get = Callable[[bytes], bytes | None]  # of a database, by a key of `node.chain.keyspace`


def id_prefix(log: int) -> bytes:
    """What stands before an id in the key of its index."""
    return _key(log, _ID)


def record_id_prefix(log: int) -> bytes:
    """What stands before a record id in the key of its index."""
    return _key(log, _RECORD_ID)


def index_of(state: State, log: int, id_: bytes, size: int) -> int | None:
    """Where the entry with this id stands among the first `size`; None when it is not there."""
    value = state.record(id_prefix(log) + id_)
    if value is None:
        return None
    index = int.from_bytes(value, "big")
    return index if index < size else None


def entry_at(state: State, log: int, index: int) -> bytes:
    """The entry at an index below the log's size in a final block, id first. Raises LedgerError when it is missing."""
    return _entry(state.record(_row_key(log, index // ROW_ENTRIES)), log, index)


def node_reader(state: State, log: int) -> Callable[[int, int], bytes]:
    """`get_node(level, index)` for `merkle.log`'s proofs: a stored hash, or what at most 31 hashings make of them.

    It raises LedgerError for a subtree that the stored log does not complete.
    """

    def get_node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_LEVELS)
        tile, offset = divmod(index << height, ROW_ENTRIES)
        if tile_level == 0:
            stored = state.record(_row_key(log, tile)) or b""
            leaf, size = _entry_bytes(log), _entry_bytes(log) + HASH_BYTES
            places = range(offset * size, (offset + (1 << height)) * size, size)
            row = b"".join([stored[at + leaf : at + size] for at in places])
        else:
            stored = state.record(_tile_key(log, tile_level, tile)) or b""
            row = stored[offset * HASH_BYTES : (offset + (1 << height)) * HASH_BYTES]
        if len(row) != HASH_BYTES << height:
            raise LedgerError(f"log {log} has no stored node at level {level}, index {index}")
        for _ in range(height):
            row = b"".join(sha256(b"\x01" + row[at : at + 64]).digest() for at in range(0, len(row), 64))
        return row

    return get_node


def grown_logs(writes: Mapping[bytes, bytes]) -> Iterator[tuple[int, int]]:
    """The logs that a block's writes append to, each with its size behind the block."""
    for key, value in writes.items():
        if len(key) == 6 and key[0] == keyspace.RECORD[0] and key[5] == _FRONTIER[0]:
            yield int.from_bytes(key[1:5], "big"), Frontier.decode(value).size


def stored_size(get: Get, log: int) -> int:
    """How many entries of a log are in the database."""
    frontier = get(_key(log, _FRONTIER))
    return 0 if frontier is None else Frontier.decode(frontier).size


def stored_ids(get: Get, log: int, first: int, end: int) -> Iterator[dict[bytes, bytes]]:
    """The ids of first ≤ index < end as the records that they are, by key: a row's at a time. Raises LedgerError."""
    kinds = (_ID,) if log == ANCHORS_LOG else (_ID, _RECORD_ID)
    prefixes = [_key(log, kind) for kind in kinds]
    while first < end:
        row, behind = first // ROW_ENTRIES, min(end, first - first % ROW_ENTRIES + ROW_ENTRIES)
        stored = get(_row_key(log, row))
        found = {}
        for index in range(first, behind):
            entry, value = _entry(stored, log, index), index.to_bytes(INDEX_BYTES, "big")
            for number, prefix in enumerate(prefixes):
                found[prefix + entry[HASH_BYTES * number : HASH_BYTES * number + HASH_BYTES]] = value
        yield found
        first = behind


def is_stored_at(get: Get, key: bytes, index: int) -> bool:
    """Whether `key`, of an id's record, is that of the entry at `index` of its log. Raises LedgerError."""
    log = int.from_bytes(key[1:5], "big")
    entry = _entry(get(_row_key(log, index // ROW_ENTRIES)), log, index)
    begin = HASH_BYTES if key[5:6] == _RECORD_ID else 0
    return entry[begin : begin + HASH_BYTES] == key[6:]


def append(state: State, log: int, appended: Appended) -> bytes:
    """Write rows, tiles and frontier for what a block appended to a log. Returns the log's new root."""
    frontier_key = _key(log, _FRONTIER)
    stored = state.record(frontier_key)
    frontier = Frontier() if stored is None else Frontier.decode(stored)
    first = appended.first_index
    if frontier.size != first:
        raise LedgerError(f"log {log} is stored up to {frontier.size}, and the state says {first}: not the head")
    completed = frontier.extend(appended.leaf_hashes)
    _extend_rows(state, partial(_row_key, log), first, appended.entries, appended.leaf_hashes)
    for level, index, hashes in completed:
        tile_level, is_between = divmod(level, TILE_LEVELS)
        if not is_between:
            _extend_rows(state, partial(_tile_key, log, tile_level), index, hashes)
    state.set_record(frontier_key, frontier.encode())
    return frontier.root()


def _extend_rows(state: State, key: Callable[[int], bytes], first: int, *columns: list[bytes]) -> None:
    """Append items, each made of one part from every column, to rows of ROW_ENTRIES.

    The first goes to position `first` of the whole sequence. Parts of one column have one length.
    """
    row, offset = divmod(first, ROW_ENTRIES)
    item_bytes = sum(len(column[0]) for column in columns)
    begin = 0
    while begin < len(columns[0]):
        end = begin + ROW_ENTRIES - offset
        before = state.record(key(row)) if offset else b""
        size = offset * item_bytes
        if before is None or len(before) < size:
            raise LedgerError(f"a row of a log has fewer than its {offset} items")
        items = chain.from_iterable(zip(*[column[begin:end] for column in columns], strict=True))
        state.set_record(key(row), before[:size] + b"".join(items))
        begin, row, offset = end, row + 1, 0


def _entry_bytes(log: int) -> int:
    """How long each entry of a log is, without its leaf hash."""
    return ANCHOR_ENTRY_BYTES if log == ANCHORS_LOG else BALLOT_ENTRY_BYTES


def _entry(row: bytes | None, log: int, index: int) -> bytes:
    """The entry at `index`, without its leaf hash, of the row that holds it. Raises LedgerError where it does not."""
    length = _entry_bytes(log)
    begin = index % ROW_ENTRIES * (length + HASH_BYTES)
    entry = (row or b"")[begin : begin + length]
    if len(entry) != length:
        raise LedgerError(f"log {log} has no entry stored at index {index}")
    return entry


def _row_key(log: int, row: int) -> bytes:
    return _key(log, b"w") + row.to_bytes(8, "big")


def _tile_key(log: int, tile_level: int, tile: int) -> bytes:
    return _key(log, b"t") + bytes((tile_level,)) + tile.to_bytes(8, "big")


def _key(log: int, kind: bytes) -> bytes:
    return keyspace.RECORD + log.to_bytes(4, "big") + kind
