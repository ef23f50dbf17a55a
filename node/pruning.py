"""Forgets the states of old blocks: deletes the trie nodes that no kept state reaches, while nothing else writes.

Marked and swept, never counted: a node lies once under its hash, however many tries and states share it, and one that
was let go may come back. What is marked is what the kept roots reach; whatever else is in the database goes. Killed
anywhere, the node opens: the horizon is synced before the first deletion, and the next start sweeps what is left.
Blocks, receipts, event logs, certificates and the contracts' records stay, so a pruned node serves whoever syncs.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from merkle.patricia import EMPTY_ROOT, MissingNode, references
from node.chain import keyspace
from node.chain.block import Header
from node.chain.errors import LedgerError
from node.chain.state import decode_account

log = logging.getLogger(__name__)

KEEP_MIN = 128  # states; whoever follows the head, a gateway that checks a receipt above all, is no further behind
DELETED_AT_ONCE = 10_000
TOLD_EVERY_S = 5.0
_OLDEST = keyspace.META + b"oldest state"
_SWEEPING = keyspace.META + b"sweeping"
_NODES = (keyspace.TRIE_NODE, bytes((keyspace.TRIE_NODE[0] + 1,)))


class Database(Protocol):
    """What pruning needs of a key-value database."""

    def get(self, key: bytes) -> bytes | None: ...

    def write(self, puts: Mapping[bytes, bytes]) -> None: ...

    def delete(self, keys: Iterable[bytes]) -> None:
        """Delete keys in one batch."""

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class Chain(Protocol):
    """Whose states they are."""

    @property
    def head(self) -> Header: ...

    def header(self, height: int) -> Header | None: ...


class Reader(Protocol):
    """A key-value database to read from."""

    def get(self, key: bytes) -> bytes | None: ...


def oldest_state(database: Reader) -> int:
    """The first height whose state is kept; 0 in an archive."""
    return int.from_bytes(database.get(_OLDEST) or b"", "big")


def kept_nodes(database: Reader, chain: Chain) -> int:
    """How many trie nodes the kept states have. Raises LedgerError when one of these states is not whole."""
    return len(_reached(database, _roots(chain, oldest_state(database))))


def prune(database: Database, chain: Chain, keep_states: int) -> int:
    """Keep the states after the newest `keep_states` blocks, 0: all that are there. The first height whose is kept.

    Raises LedgerError, and deletes nothing, when a state that is to be kept is not whole.
    """
    before = oldest_state(database)
    oldest = max(before, chain.head.number + 1 - keep_states) if keep_states else before
    if oldest == before and not database.get(_SWEEPING):
        return before
    kept = _reached(database, _roots(chain, oldest))
    database.write({_OLDEST: oldest.to_bytes(8, "big"), _SWEEPING: b"\1"})
    deleted = _sweep(database, kept)
    database.write({_SWEEPING: b""})
    log.info("pruned states below height %d: %d trie nodes deleted, %d kept", oldest, deleted, len(kept))
    return oldest


def _roots(chain: Chain, oldest: int) -> Iterator[bytes]:
    told_s = time.monotonic()
    for height in range(oldest, chain.head.number + 1):
        header = chain.header(height)
        if header is None:
            raise LedgerError(f"the database lacks block {height}, which lies below its head")
        if time.monotonic() - told_s > TOLD_EVERY_S:
            told_s = time.monotonic()
            log.info("pruning: marking the state of block %d of %d", height, chain.head.number)
        yield header.state_root


def _reached(database: Reader, roots: Iterable[bytes]) -> set[bytes]:
    """The hashes of all nodes of the state tries under `roots`, and of the storage tries of their accounts."""
    reached: set[bytes] = set()
    for root in roots:
        storages = _walk(database, root, reached)
        for account in storages:
            _walk(database, decode_account(account).storage_root, reached)
    return reached


def _walk(database: Reader, root: bytes, reached: set[bytes]) -> list[bytes]:
    """Add the nodes of one trie that are not in `reached` yet; the values that these hold.

    What is in there already was walked before, and all that it refers to. Nodes of state tries and storage tries
    cannot be mixed up: their values are RLP of a list there, of a string here.
    """
    values: list[bytes] = []
    waiting = [] if root == EMPTY_ROOT or root in reached else [root]
    while waiting:
        node_hash = waiting.pop()
        if node_hash in reached:
            continue
        node = database.get(keyspace.TRIE_NODE + node_hash)
        if node is None:
            raise LedgerError(f"a state that is kept is not whole: {MissingNode(node_hash)}")
        reached.add(node_hash)
        inner, held = references(node)
        waiting += inner
        values += held
    return values


def _sweep(database: Database, kept: set[bytes]) -> int:
    deleted, told_s = 0, time.monotonic()
    doomed: list[bytes] = []
    for key, _ in database.scan(*_NODES):
        if key[1:] not in kept:
            doomed.append(key)
        if len(doomed) >= DELETED_AT_ONCE:
            database.delete(doomed)
            deleted += len(doomed)
            doomed = []
            if time.monotonic() - told_s > TOLD_EVERY_S:
                told_s = time.monotonic()
                log.info("pruning: %d trie nodes deleted", deleted)
    database.delete(doomed)
    return deleted + len(doomed)
