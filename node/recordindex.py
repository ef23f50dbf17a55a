"""Where the ids of log entries lie in the database: sorted runs of them, of which a new id need not look into any.

Ids are random: as keys of their own they made LevelDB merge everything again and again, at two million ballots for 5 to
8 µs of CPU a ballot. So a block's ids are one value, under its height. As soon as there are RUN_KEYS of them since the
last run, the next block's batch sorts them into a run: pages of PAGE_KEYS under run and first key, written once and
never merged with other ids. What is not in a run yet is in memory as well, and read back at the start.

Bloom filters tell which runs may hold a key: one for each run, and one for RUNS_A_GROUP runs together, so that a new id
is looked for in none of them 999 times of 1,000. They hash as Python does, by a secret of the process, so nobody can
choose ids that collide. They are not stored: after a start, a run whose filter is not there yet is searched.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Protocol

from rbloom import Bloom

from node.chain import keyspace
from node.chain.errors import LedgerError

RUN_KEYS = 1 << 16
PAGE_KEYS = 32
KEY_BYTES = 38  # prefix, log (u32), "n" or "r", id (32)
VALUE_BYTES = 6
_ENTRY_BYTES = KEY_BYTES - 1 + VALUE_BYTES  # without the prefix, which all have
_PREFIX = keyspace.RECORD[0]
_STATE = keyspace.META + b"index"  # → how many runs there are (u32) ‖ height of the first block behind them (u64)
RUNS_A_GROUP = 64
_FALSE_POSITIVES = 0.001  # of every filter: 14 bits a key; more of a group's if its runs are longer than usual
_PAGES_A_SLICE = 8
_BEHIND_ALL = b"\xff" * KEY_BYTES


class Database(Protocol):
    """What the index needs of a key-value database."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class _Run:
    """A run as it is searched: what its keys begin with in the database, and its filter, None when not read yet."""

    __slots__ = ("filter", "start")

    def __init__(self, number: int, filter_: Bloom | None) -> None:
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
    """What the block at `height` adds: by key, and as it is stored."""

    height: int
    pairs: dict[bytes, bytes]
    block: bytes
    closes_run: bool


class RecordIndex:
    """Reads a database as if every id were a key in it. Blocks are packed, written by the caller, then added."""

    def __init__(self, database: Database, *, run_keys: int = RUN_KEYS) -> None:
        """Read back what is in no run yet. `run_keys`: how many keys make a run."""
        self._database = database
        self._run_keys = run_keys
        state = database.get(_STATE) or bytes(12)
        self._runs = int.from_bytes(state[:4], "big")
        self._groups = [_Group(run_keys)]
        for number in range(self._runs):
            self._append(_Run(number, None))
        self._recent: dict[bytes, bytes] = {}  # what the next run will hold; the last group's filter has it already
        self._blocks: dict[int, bytes] = {}  # by height, what each added since the last run, sorted
        self._packed: _Packed | None = None
        for key, block in database.scan(keyspace.RECENT_IDS + state[4:], keyspace.RECENT_IDS + _BEHIND_ALL):
            pairs = {keyspace.RECORD + entry[:-VALUE_BYTES]: entry[-VALUE_BYTES:] for entry in _entries(block)}
            self._keep(int.from_bytes(key[1:], "big"), block, pairs)

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
                        value = self._search(run, key[1:])
                        if value is not None:
                            return value
        return None

    def pack(self, height: int, writes: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Turn a block's `writes`, in place, into what the database is to hold; `add` follows once it does.

        Raises ValueError for an id whose value has not VALUE_BYTES.
        """
        pairs = {key: value for key, value in writes.items() if len(key) == KEY_BYTES and key[0] == _PREFIX}
        block = b"".join(sorted([key[1:] + value for key, value in pairs.items()]))
        if len(block) != len(pairs) * _ENTRY_BYTES:
            raise ValueError(f"a record by id in block {height} has a value of other than {VALUE_BYTES} bytes")
        for key in pairs:
            del writes[key]
        is_run_due = len(self._recent) >= self._run_keys
        if is_run_due:
            writes |= self._run()
            writes[_STATE] = (self._runs + 1).to_bytes(4, "big") + height.to_bytes(8, "big")
        if pairs:
            writes[_block_key(height)] = block
        self._packed = _Packed(height, pairs, block, is_run_due)
        return writes

    def add(self, height: int) -> None:
        """What `pack` made of the block at `height` is in the database now. Raises ValueError for another block."""
        packed, self._packed = self._packed, None
        if packed is None or packed.height != height:
            raise ValueError(f"block {height} was not packed last")
        if packed.closes_run:
            self._append(_Run(self._runs, _filter(self._recent)))
            self._runs += 1
            self._recent, self._blocks = {}, {}
        if packed.pairs:
            self._keep(height, packed.block, packed.pairs)

    def fill(self) -> Iterator[None]:
        """Learn the stored runs, a little between any two yields, so that new ids need not be looked for in them.

        Raises LedgerError when one is not there.
        """
        for group in self._groups:
            for run in group.runs:
                if run.filter is not None:
                    return  # it came after the start, and so did all behind it
                keys: list[bytes] = []
                for count, (_, page) in enumerate(self._database.scan(run.start, run.start + _BEHIND_ALL)):
                    if count % _PAGES_A_SLICE == 0:
                        yield
                    found = [keyspace.RECORD + entry[:-VALUE_BYTES] for entry in _entries(page)]
                    group.filter.update(found)
                    keys += found
                yield
                if not keys:
                    number = int.from_bytes(run.start[1:], "big")
                    raise LedgerError(
                        f"the database lacks run {number} of its index of ids, of {self._runs}: it is damaged; move it "
                        "away and start again: the node fetches the chain from its peers"
                    )
                run.filter = _filter(keys)
                group.unread_count -= 1

    def _append(self, run: _Run) -> None:
        group = self._groups[-1]
        group.runs.append(run)
        group.unread_count += run.filter is None
        if len(group.runs) == RUNS_A_GROUP:
            self._groups.append(_Group(self._run_keys))

    def _keep(self, height: int, block: bytes, pairs: Mapping[bytes, bytes]) -> None:
        """Have what a final block added at hand, and in the filters as what the next run will hold."""
        self._recent.update(pairs)
        self._blocks[height] = block
        self._groups[-1].filter.update(pairs)

    def _run(self) -> dict[bytes, bytes]:
        """Everything recent as a run, and the blocks' values emptied."""
        entries = sorted(entry for block in self._blocks.values() for entry in _entries(block))
        start = _Run(self._runs, None).start
        writes = dict.fromkeys(map(_block_key, self._blocks), b"")
        for at in range(0, len(entries), PAGE_KEYS):
            page = entries[at : at + PAGE_KEYS]
            writes[start + page[0][:-VALUE_BYTES]] = b"".join(page)
        return writes

    def _search(self, run: _Run, key: bytes) -> bytes | None:
        """The value of `key`, without its prefix, in one run."""
        for _, page in self._database.scan(run.start, run.start + key + b"\0", reverse=True):
            at = page.find(key)
            while at >= 0:
                if at % _ENTRY_BYTES == 0:
                    return page[at + len(key) : at + _ENTRY_BYTES]
                at = page.find(key, at + 1)
            break  # the last page that begins at or before the key is the one that would hold it
        return None


def _filter(keys: Collection[bytes]) -> Bloom:
    """A run's own filter, for as many keys as it has: a large block makes a run longer than RUN_KEYS."""
    filter_ = Bloom(len(keys), _FALSE_POSITIVES)
    filter_.update(keys)
    return filter_


def _entries(block: bytes) -> list[bytes]:
    return [block[at : at + _ENTRY_BYTES] for at in range(0, len(block), _ENTRY_BYTES)]


def _block_key(height: int) -> bytes:
    return keyspace.RECENT_IDS + height.to_bytes(8, "big")
