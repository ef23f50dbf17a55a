"""The index of record ids answers as a dictionary of them would, across runs, restarts and blocks that were lost."""

from collections.abc import Iterable, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkle.patricia import EMPTY_ROOT
from node.chain import keyspace
from node.chain.contracts import flatlog
from node.chain.contracts.context import Appended
from node.chain.errors import LedgerError
from node.chain.state import State
from node.recordindex import KEY_BYTES, PAGE_KEYS, RecordIndex


class CountingDatabase:
    """A dictionary in key order that counts how often it is searched."""

    def __init__(self, values: Mapping[bytes, bytes] = {}) -> None:
        self.values = dict(values)
        self.searched = 0

    def get(self, key: bytes) -> bytes | None:
        assert len(key) != KEY_BYTES or key[:1] != keyspace.RECORD, "records by id are no keys of the database"
        return self.values.get(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.searched += 1
        keys = sorted((key for key in self.values if start <= key < stop), reverse=reverse)
        return iter([(key, self.values[key]) for key in keys])


def keys_of(id_: bytes, log: int = 1) -> tuple[bytes, bytes]:
    return flatlog.id_prefix(log) + id_, flatlog.record_id_prefix(log) + id_[::-1]


def block_of(database: CountingDatabase, ids: Iterable[bytes], logs: Iterable[int] = (1,)) -> dict[bytes, bytes]:
    """The writes of a block that appends entries with these ids to each of the logs."""
    state = State(database, EMPTY_ROOT)
    ids = list(ids)
    for log in logs if ids else ():
        first = flatlog.stored_size(database.get, log)
        for index, id_ in enumerate(ids, first):
            for key in keys_of(id_, log)[: 2 if log else 1]:
                state.set_record(key, index.to_bytes(6, "big"))
        entries = [(id_ + id_[::-1] + bytes(12) if log else id_.ljust(143, b"\7")) for id_ in ids]
        flatlog.append(state, log, Appended(first, entries, [bytes(32)] * len(ids)))
    return state.commit()[1]


def numbered(numbers: Iterable[int]) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in numbers]


def store(index: RecordIndex, database: CountingDatabase, height: int, ids: Iterable[bytes]) -> dict[bytes, bytes]:
    """Append a block of these ids; what the index must answer for them."""
    writes = block_of(database, ids)
    database.values.update(index.pack(height, dict(writes)))
    index.add(height)
    return {key: value for key, value in writes.items() if is_of_id(key)}


def is_of_id(key: bytes) -> bool:
    return len(key) == KEY_BYTES and key[:1] == keyspace.RECORD


# Ids of few different halves, so that neighbours in a page, and ids that begin or end alike, are common.
HALVES = (bytes(16), b"\xff" * 16, b"\1" * 16, bytes(15) + b"\1", b"\1" + bytes(15), bytes(12) + b"\1\0\0\0")
IDS = st.lists(st.tuples(st.sampled_from(HALVES), st.sampled_from(HALVES)).map(b"".join), max_size=30)
OTHERS = st.dictionaries(st.binary(min_size=1, max_size=3).map(lambda key: b"q" + key), st.binary(max_size=3))
BLOCKS = st.lists(st.tuples(IDS, OTHERS, st.sampled_from(["stored", "lost", "restart", "fill"])), max_size=12)


@settings(deadline=None)  # the stand-in for a database sorts all its keys whenever it is searched
@given(BLOCKS, st.integers(1, 40), st.lists(st.sampled_from([0, 1, 7]), min_size=1, max_size=3, unique=True))
def test_it_answers_as_a_dictionary_does(
    blocks: list[tuple[list[bytes], dict[bytes, bytes], str]], run: int, logs: list[int]
) -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=run)
    expected: dict[bytes, bytes] = {}
    filling: Iterator[None] = iter(())
    for height, (ids, others, what) in enumerate(blocks, 1):
        new = [id_ for id_ in dict.fromkeys(ids) if keys_of(id_, logs[0])[0] not in expected]
        writes = block_of(database, new, logs) | others
        packed = index.pack(height, dict(writes))
        assert not any(map(is_of_id, packed))
        if what != "lost":  # a process that died before its batch was synced
            database.values.update(packed)
            expected |= {key: value for key, value in writes.items() if is_of_id(key) or key in others}
        if what in ("stored", "fill"):
            index.add(height)
        else:
            index = RecordIndex(database, run_keys=run)
            filling = index.fill()
        if what == "fill":
            next(filling, None)
        asked = [*expected, *filter(is_of_id, writes), *(key for id_ in ids for key in keys_of(id_, log=2))]
        assert [index.get(key) for key in asked] == [expected.get(key) for key in asked]
    for _ in filling:
        pass
    assert [index.get(key) for key in expected] == list(expected.values())


def test_what_is_stored_depends_on_the_blocks_alone() -> None:
    steady, restarted = CountingDatabase(), CountingDatabase()
    index = RecordIndex(steady, run_keys=100)
    for height in range(1, 40):
        ids = numbered(range(17 * height, 17 * height + 17))
        store(index, steady, height, ids)
        store(RecordIndex(restarted, run_keys=100), restarted, height, ids)
    assert steady.values == restarted.values


def test_an_id_is_stored_once_in_its_entry() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=160)
    ids = [bytes([number]) * 20 + b"123456789012" for number in range(1, 201)]
    for height in range(1, 21):
        store(index, database, height, ids[10 * height - 10 : 10 * height])
    pages = [value for key, value in database.values.items() if key[:1] == keyspace.ID_RUN]
    assert max(map(len, pages)) == PAGE_KEYS * 10
    assert [sum(map(len, pages)), len(pages)] == [2 * 160 * 10, 2 * 2 * 2], "two runs, of both kinds of id, 80 of each"
    everything = b"".join(database.values.values())
    assert [everything.count(id_) for id_ in ids] == [1] * 200


def test_new_ids_are_hardly_ever_searched_for() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=2_000)
    for height in range(1, 101):  # 5 runs of 2,000 and more
        store(index, database, height, numbered(range(60 * height, 60 * height + 60)))
    database.searched = 0
    absent = [key for id_ in numbered(range(1_000_000, 1_005_000)) for key in keys_of(id_)]
    assert not any(map(index.get, absent))
    assert database.searched < 20  # one filter in a thousand answers wrongly, and 10,000 ids ask one of a group


@pytest.mark.parametrize("again", [False, True])
def test_blocks_larger_than_a_run_make_no_search_either(again: bool) -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=100)
    for height in range(1, 12):  # 10 runs of 2,000
        store(index, database, height, numbered(range(1_000 * height, 1_000 * height + 1_000)))
    if again:
        index = RecordIndex(database, run_keys=100)
        for _ in index.fill():
            pass
    database.searched = 0
    absent = [key for id_ in numbered(range(1_000_000, 1_001_000)) for key in keys_of(id_)]
    assert not any(map(index.get, absent))
    assert database.searched < 100  # 20 of 20,000 filters asked, but for bad luck


def test_more_runs_than_a_group_has() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=2)
    expected: dict[bytes, bytes] = {}
    for number in range(140):
        expected |= store(index, database, number + 1, numbered([number]))
    absent = [key for id_ in numbered(range(140, 200)) for key in keys_of(id_)]
    again = RecordIndex(database, run_keys=2)
    for reader in (index, again):
        assert {key: reader.get(key) for key in expected} == expected
        assert not any(map(reader.get, absent))
    for _ in again.fill():
        assert again.get(keys_of((70).to_bytes(32, "big"))[0]) == (70).to_bytes(6, "big")
    database.searched = 0
    assert not any(map(again.get, absent))
    assert database.searched < 5
    assert {key: again.get(key) for key in expected} == expected


def test_filling_gives_way() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=1_000)
    for height in range(1, 4):
        store(index, database, height, numbered(range(1_000 * height, 1_000 * height + 1_000)))
    assert sum(1 for _ in RecordIndex(database, run_keys=1_000).fill()) > 10


def test_ids_that_end_alike_are_told_apart_by_their_entries() -> None:
    """A page has only their ends, and such that its items spell together are none at all."""
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=1)
    ids = [bytes([number]) * 16 + bytes([number]) * 14 + b"\0\0" for number in range(1, 101)]  # ends like an index
    ids += [bytes([number]) * 16 + b"the same end" + b"...." for number in range(101, 201)]
    expected = store(index, database, 1, ids)
    store(index, database, 2, [])
    index = RecordIndex(database, run_keys=1)  # whose filters are empty: every run is searched
    assert {key: index.get(key) for key in expected} == expected
    absent = [b"\5" * 16 + b"the same end....", b"\0" * 32, *(id_[:-1] + b"\1" for id_ in ids)]
    assert not any(index.get(key) for id_ in absent for key in keys_of(id_))


@pytest.mark.parametrize("lost", ["a page", "all pages", "what it spans"])
def test_a_run_that_is_not_whole_is_told(lost: str) -> None:
    """Its ids would be taken for new ones."""
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=100)
    for height in range(1, 5):
        store(index, database, height, numbered(range(100 * height, 100 * height + 100)))
    pages = [key for key in database.values if key[:5] == keyspace.ID_RUN + (1).to_bytes(4, "big")]
    spans = [key for key in database.values if key == keyspace.META + b"run" + (1).to_bytes(4, "big")]
    assert (len(pages), len(spans)) == (4, 1)
    for key in {"a page": pages[:1], "all pages": pages, "what it spans": spans}[lost]:
        del database.values[key]
    with pytest.raises(LedgerError, match=r"run 1 of the index of ids, of 3, has .* damaged; move it away"):
        list(RecordIndex(database, run_keys=100).fill())


def test_a_row_that_is_gone_is_told() -> None:
    database = CountingDatabase()
    store(RecordIndex(database), database, 1, numbered(range(100)))
    (row,) = [key for key in database.values if key[:1] == keyspace.RECORD and key[5:] == b"w" + bytes(7) + b"\1"]
    del database.values[row]
    with pytest.raises(LedgerError, match=r"log 1 has no entry stored at index 64: .* damaged; move it away"):
        RecordIndex(database)


def test_misuse_is_refused() -> None:
    index = RecordIndex(CountingDatabase())
    key = keys_of(bytes(32))[0]
    with pytest.raises(ValueError, match="value of other than 6 bytes"):
        index.pack(1, {key: b"12345"})
    with pytest.raises(ValueError, match="block 2 was not packed last"):
        index.add(2)
    index.pack(1, {key: b"123456"})
    with pytest.raises(ValueError, match="block 2 was not packed last"):
        index.add(2)
