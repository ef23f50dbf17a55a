"""The index of record ids answers as a dictionary of them would, across runs, restarts and blocks that were lost."""

import itertools
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.chain import keyspace
from node.chain.contracts import flatlog
from node.chain.errors import LedgerError
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


def records(numbers: range, log: int = 1) -> dict[bytes, bytes]:
    return {key: number.to_bytes(6, "big") for number in numbers for key in keys_of(number.to_bytes(32, "big"), log)}


def store(index: RecordIndex, database: CountingDatabase, height: int, writes: Mapping[bytes, bytes]) -> None:
    database.values.update(index.pack(height, dict(writes)))
    index.add(height)


# Ids of few different bytes, so that neighbours in a page, and ids that begin or end alike, are common.
IDS = st.lists(st.lists(st.sampled_from(b"\x00\x01\xff"), min_size=32, max_size=32).map(bytes), max_size=30)
OTHERS = st.dictionaries(st.binary(min_size=1, max_size=3).map(lambda key: b"q" + key), st.binary(max_size=3))
BLOCKS = st.lists(st.tuples(IDS, OTHERS, st.sampled_from(["stored", "lost", "restart", "fill"])), max_size=12)


@given(BLOCKS, st.integers(1, 40))
def test_it_answers_as_a_dictionary_does(blocks: list[tuple[list[bytes], dict[bytes, bytes], str]], run: int) -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=run)
    expected: dict[bytes, bytes] = {}
    numbers = itertools.count()
    filling: Iterator[None] = iter(())
    for height, (ids, others, what) in enumerate(blocks, 1):
        new = [id_ for id_ in dict.fromkeys(ids) if keys_of(id_)[0] not in expected]
        writes = {key: next(numbers).to_bytes(6, "big") for id_ in new for key in keys_of(id_)} | others
        packed = index.pack(height, dict(writes))
        assert not any(len(key) == KEY_BYTES and key[:1] == keyspace.RECORD for key in packed)
        if what != "lost":  # a process that died before its batch was synced
            database.values.update(packed)
            expected |= writes
        if what in ("stored", "fill"):
            index.add(height)
        else:
            index = RecordIndex(database, run_keys=run)
            filling = index.fill()
        if what == "fill":
            next(filling, None)
        asked = [*expected, *writes, *(key for id_ in ids for key in keys_of(id_, log=2))]
        assert [index.get(key) for key in asked] == [expected.get(key) for key in asked]
    for _ in filling:
        pass
    assert [index.get(key) for key in expected] == list(expected.values())


def test_what_is_stored_depends_on_the_blocks_alone() -> None:
    steady, restarted = CountingDatabase(), CountingDatabase()
    index = RecordIndex(steady, run_keys=100)
    for height in range(1, 40):
        block = records(range(17 * height, 17 * height + 17))
        store(index, steady, height, block)
        store(RecordIndex(restarted, run_keys=100), restarted, height, block)
    assert steady.values == restarted.values


def test_each_id_is_stored_once_in_a_page_or_with_its_block() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=64)
    for height in range(1, 30):
        store(index, database, height, records(range(10 * height, 10 * height + 10)))
    pages = [value for key, value in database.values.items() if key[:1] == keyspace.ID_RUN]
    recent = [value for key, value in database.values.items() if key[:1] == keyspace.RECENT_IDS]
    assert max(map(len, pages)) == PAGE_KEYS * 43
    assert sum(map(len, pages)) + sum(map(len, recent)) == 29 * 20 * 43
    assert sum(map(len, recent)) <= (64 + 2 * 20) * 43


def test_new_ids_are_hardly_ever_searched_for() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=2_000)
    for height in range(1, 101):  # 5 runs of 2,000 and more
        store(index, database, height, records(range(60 * height, 60 * height + 60)))
    database.searched = 0
    absent = records(range(1_000_000, 1_005_000))
    assert not any(map(index.get, absent))
    assert database.searched < 20  # a run of 2,000 keys sets a five-hundredth of the rows: nothing, but for bad luck


@pytest.mark.parametrize("again", [False, True])
def test_blocks_larger_than_a_run_make_no_search_either(again: bool) -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=100)
    for height in range(1, 12):  # 10 runs of 2,000
        store(index, database, height, records(range(1_000 * height, 1_000 * height + 1_000)))
    if again:
        index = RecordIndex(database, run_keys=100)
        for _ in index.fill():
            pass
    database.searched = 0
    absent = records(range(1_000_000, 1_001_000))
    assert not any(map(index.get, absent))
    assert database.searched < 100  # 20 of 20,000 filters asked, but for bad luck


def test_more_runs_than_a_group_has() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=2)
    for number in range(140):
        store(index, database, number + 1, records(range(number, number + 1)))
    again = RecordIndex(database, run_keys=2)
    for reader in (index, again):
        assert {key: reader.get(key) for key in records(range(140))} == records(range(140))
        assert not any(map(reader.get, records(range(140, 200))))
    for _ in again.fill():
        assert again.get(keys_of((70).to_bytes(32, "big"))[0]) == (70).to_bytes(6, "big")
    database.searched = 0
    assert not any(map(again.get, records(range(1_000, 1_100))))
    assert database.searched < 5
    assert {key: again.get(key) for key in records(range(140))} == records(range(140))


def test_filling_gives_way() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=1_000)
    for height in range(1, 4):
        store(index, database, height, records(range(1_000 * height, 1_000 * height + 1_000)))
    assert sum(1 for _ in RecordIndex(database, run_keys=1_000).fill()) > 10


def test_a_key_that_two_neighbours_spell_together_is_not_there() -> None:
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=1)
    head = flatlog.id_prefix(0)[1:]
    left, right = bytes(10) + head + b"\7" * 17, b"\1" * 32
    writes = {keyspace.RECORD + head + id_: b"\2" * 6 for id_ in (left, right)}
    store(index, database, 1, writes)
    store(index, database, 2, {})
    index = RecordIndex(database, run_keys=1)  # whose filters are empty: every run is searched
    (page,) = [value for key, value in database.values.items() if key[:1] == keyspace.ID_RUN]
    spelled = page[len(head) + 10 :][: KEY_BYTES - 1]
    assert spelled.startswith(head)
    assert page.find(spelled) > 0
    assert spelled > page[: len(spelled)], "else another page would be looked into"
    assert index.get(keyspace.RECORD + spelled) is None
    assert [index.get(key) for key in writes] == [b"\2" * 6] * 2


def test_a_run_that_is_gone_is_told() -> None:
    """Its ids would be taken for new ones."""
    database = CountingDatabase()
    index = RecordIndex(database, run_keys=2)
    for height in range(1, 5):
        store(index, database, height, records(range(height, height + 1)))
    for key in [key for key in database.values if key[:5] == keyspace.ID_RUN + (1).to_bytes(4, "big")]:
        del database.values[key]
    with pytest.raises(LedgerError, match="lacks run 1 of its index of ids, of 3: it is damaged; move it away"):
        list(RecordIndex(database, run_keys=2).fill())


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
