"""Where the ids of log entries stand in their logs: sorted runs of them, of which a new id need not look into any.

Ids are random: as keys of their own they made LevelDB merge everything again and again, at two million ballots for 5
to 8 µs of CPU a ballot. So an id is stored once, in its entry (`node.chain.contracts.flatlog`), and a database that is
read through this index answers as if it were a key. As soon as there are RUN_KEYS of them since the last run, the next
block's batch sorts them into a run: pages of PAGE_KEYS under run and first key, each id as four of its bytes and its
index, written once and never merged with other ids. What is not in a run yet is in memory; a start reads it out of the
logs, of which a small value says from where to where.

Bloom filters tell which runs may hold a key: one for each run, and one for RUNS_A_GROUP runs together, so that a new id
is looked for in none of them 999 times of 1,000. They hash as Python does, by a secret of the process, so nobody can
choose ids that collide. They are not stored: after a start, a run whose filter is not there yet is searched.
"""

from bisect import bisect
from collections.abc import Collection, Iterator, Mapping
from struct import Struct
from typing import NamedTuple, Protocol

from rbloom import Bloom

from node.chain import keyspace
from node.chain.contracts import flatlog
from node.chain.errors import LedgerError

RUN_KEYS = 1 << 16
PAGE_KEYS = 64
KEY_BYTES = 38  # prefix, log (u32), "n" or "r", id (32)
VALUE_BYTES = 6
_PAIR_BYTES = KEY_BYTES - 1 + VALUE_BYTES  # without the prefix, which all have
_KIND_BYTES = 5  # of these: log, "n" or "r"; all keys of a page have the same
_MARK_BYTES = 4  # of an id, its last: a page whose marks are others does not hold it
_ITEM_BYTES = _MARK_BYTES + VALUE_BYTES
_PREFIX = keyspace.RECORD[0]
_STATE = keyspace.META + b"index"  # → how many runs there are (u32) ‖ the spans that are in none of them
_RUN_SPANS = keyspace.META + b"run"  # ‖ number (u32) → the spans whose ids it holds
_SPAN = Struct(">IQQ")  # a log, and from which index up to which
RUNS_A_GROUP = 64
_FALSE_POSITIVES = 0.001  # of every filter: 14 bits a key; more of a group's if its runs are longer than usual
_PAGES_A_SLICE = 8
_ROWS_A_SLICE = 2
_BEHIND_ALL = b"\xff" * KEY_BYTES
_DAMAGED = "the database is damaged; move it away and start again: the node fetches the chain from its peers"


class Database(Protocol):
    """What the index needs of a key-value database."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


Spans = dict[int, tuple[int, int]]  # of each log, from which index up to which


class _Run:
    """A run as it is searched: what its keys begin with in the database, and its filter, None when not read yet."""

    __slots__ = ("filter", "number", "start")

    def __init__(self, number: int, filter_: Bloom | None) -> None:
        self.number = number
        self.start = keyspace.ID_RUN + number.to_bytes(4, "big")
        self.filter = filter_


class _Group:
    """The filter of some neighbouring runs, and these runs."""

    __slots__ = ("filter", "runs", "unread_count")

    def __init__(self, run_keys: int) -> None:
        self.filter = Bloom(RUNS_A_GROUP * run_keys, _FALSE_POSITIVES)
        self.runs: list[_Run] = []
        self.unread_count = 0


class _Packed(NamedTuple):
    """What the block at `height` adds, and what is in no run behind it."""

    height: int
    pairs: dict[bytes, bytes]
    block: bytes
    spans: Spans
    closes_run: bool


class RecordIndex:
    """Reads a database as if every id were a key in it. Blocks are packed, written by the caller, then added."""

    def __init__(self, database: Database, *, run_keys: int = RUN_KEYS) -> None:
        """Read back what is in no run yet. `run_keys`: how many keys make a run. Raises LedgerError."""
        self._database = database
        self._run_keys = run_keys
        state = database.get(_STATE) or bytes(4)
        self._runs = int.from_bytes(state[:4], "big")
        self._groups = [_Group(run_keys)]
        for number in range(self._runs):
            self._append(_Run(number, None))
        self._recent: dict[bytes, bytes] = {}  # what the next run will hold; the last group's filter has it already
        self._blocks: list[bytes] = []  # the same as each block added it, sorted
        self._spans = _unpack(state[4:])  # where these stand
        self._packed: _Packed | None = None
        for pairs in self._stored_ids(self._spans):
            self._keep(pairs, _sorted(pairs))

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`: found in the index where it is an id's, as the database says otherwise."""
        if len(key) != KEY_BYTES or key[0] != _PREFIX:
            return self._database.get(key)
        value = self._recent.get(key)
        if value is not None:
            return value
        for group in self._groups:
            if key in group.filter or group.unread_count:
                for run in group.runs:
                    if run.filter is None or key in run.filter:
                        value = self._search(run, key)
                        if value is not None:
                            return value
        return None

    def pack(self, height: int, writes: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Turn a block's `writes`, in place, into what the database is to hold; `add` follows once it does.

        Raises ValueError for an id whose value has not VALUE_BYTES.
        """
        pairs = {key: value for key, value in writes.items() if len(key) == KEY_BYTES and key[0] == _PREFIX}
        block = _sorted(pairs)
        if len(block) != len(pairs) * _PAIR_BYTES:
            raise ValueError(f"a record by id in block {height} has a value of other than {VALUE_BYTES} bytes")
        for key in pairs:
            del writes[key]
        is_run_due = len(self._recent) >= self._run_keys
        spans = {} if is_run_due else dict(self._spans)
        for log, end in flatlog.grown_logs(writes):
            first, _ = spans.get(log) or (flatlog.stored_size(self._database.get, log), 0)
            spans[log] = first, end
        if is_run_due:
            writes |= self._run()
        if is_run_due or pairs:
            writes[_STATE] = (self._runs + is_run_due).to_bytes(4, "big") + _pack(spans)
        self._packed = _Packed(height, pairs, block, spans, is_run_due)
        return writes

    def add(self, height: int) -> None:
        """What `pack` made of the block at `height` is in the database now. Raises ValueError for another block."""
        packed, self._packed = self._packed, None
        if packed is None or packed.height != height:
            raise ValueError(f"block {height} was not packed last")
        if packed.closes_run:
            self._append(_Run(self._runs, _filter(self._recent)))
            self._runs += 1
            self._recent, self._blocks = {}, []
        self._spans = packed.spans
        self._keep(packed.pairs, packed.block)

    def fill(self) -> Iterator[None]:
        """Learn the stored runs, a little between any two yields, so that new ids need not be looked for in them.

        Raises LedgerError when one is not there.
        """
        for group in self._groups:
            for run in group.runs:
                if run.filter is not None:
                    return  # it came after the start, and so did all behind it
                keys: list[bytes] = []
                spans = _unpack(self._database.get(_spans_key(run.number)) or b"")
                for count, found in enumerate(self._stored_ids(spans)):
                    if count % _ROWS_A_SLICE == 0:
                        yield
                    group.filter.update(found)
                    keys += found
                yield
                in_pages = 0
                for count, (_, page) in enumerate(self._database.scan(run.start, run.start + _BEHIND_ALL)):
                    if count % _PAGES_A_SLICE == 0:
                        yield
                    in_pages += len(page) // _ITEM_BYTES
                if not keys or in_pages != len(keys):  # its ids would be taken for new ones
                    raise LedgerError(
                        f"run {run.number} of the index of ids, of {self._runs}, has {in_pages} ids, and its logs have "
                        f"{len(keys)}: {_DAMAGED}"
                    )
                run.filter = _filter(keys)
                group.unread_count -= 1

    def _stored_ids(self, spans: Spans) -> Iterator[dict[bytes, bytes]]:
        for log, (first, end) in spans.items():
            try:
                yield from flatlog.stored_ids(self._database.get, log, first, end)
            except LedgerError as error:
                raise LedgerError(f"{error}: {_DAMAGED}") from error

    def _append(self, run: _Run) -> None:
        group = self._groups[-1]
        group.runs.append(run)
        group.unread_count += run.filter is None
        if len(group.runs) == RUNS_A_GROUP:
            self._groups.append(_Group(self._run_keys))

    def _keep(self, pairs: Mapping[bytes, bytes], block: bytes) -> None:
        """Have ids at hand, and in the filters as what the next run will hold."""
        self._recent.update(pairs)
        self._blocks.append(block)
        self._groups[-1].filter.update(pairs)

    def _run(self) -> dict[bytes, bytes]:
        """Everything recent as a run."""
        items = sorted(
            [block[at : at + _PAIR_BYTES] for block in self._blocks for at in range(0, len(block), _PAIR_BYTES)]
        )
        start = _Run(self._runs, None).start
        writes = {_spans_key(self._runs): _pack(self._spans)}
        at = 0
        while at < len(items):
            kind_ends = items[at][:_KIND_BYTES] + _BEHIND_ALL
            page = items[at : bisect(items, kind_ends, at, min(at + PAGE_KEYS, len(items)))]
            writes[start + page[0][:-VALUE_BYTES]] = b"".join([item[-_ITEM_BYTES:] for item in page])
            at += len(page)
        return writes

    def _search(self, run: _Run, key: bytes) -> bytes | None:
        """The value of `key` in one run."""
        mark = key[-_MARK_BYTES:]
        kind = run.start + key[1 : 1 + _KIND_BYTES]
        for _, page in self._database.scan(kind, run.start + key[1:] + b"\0", reverse=True):
            at = page.find(mark)
            while at >= 0:
                if at % _ITEM_BYTES == 0:
                    value = page[at + _MARK_BYTES : at + _ITEM_BYTES]
                    if flatlog.is_stored_at(self._database.get, key, int.from_bytes(value, "big")):
                        return value
                at = page.find(mark, at + 1)
            break  # the last page that begins at or before the key is the one that would hold it
        return None


def _sorted(pairs: Mapping[bytes, bytes]) -> bytes:
    return b"".join(sorted([key[1:] + value for key, value in pairs.items()]))


def _filter(keys: Collection[bytes]) -> Bloom:
    """A run's own filter, for as many keys as it has: a large block makes a run longer than RUN_KEYS."""
    filter_ = Bloom(len(keys), _FALSE_POSITIVES)
    filter_.update(keys)
    return filter_


def _spans_key(number: int) -> bytes:
    return _RUN_SPANS + number.to_bytes(4, "big")


def _pack(spans: Spans) -> bytes:
    return b"".join([_SPAN.pack(log, first, end) for log, (first, end) in sorted(spans.items())])


def _unpack(spans: bytes) -> Spans:
    return {log: (first, end) for log, first, end in _SPAN.iter_unpack(spans)}
