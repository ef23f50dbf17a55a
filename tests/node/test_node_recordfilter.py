"""The record filter never hides what the database holds, and spares the database most of what it does not."""

from collections.abc import Iterator, Mapping

from hypothesis import given
from hypothesis import strategies as st

from node.chain import keyspace
from node.chain.contracts import flatlog
from node.recordfilter import RecordFilter


class CountingDatabase:
    """A dictionary that counts how often it is asked."""

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        self.values = dict(values)
        self.asked = 0

    def get(self, key: bytes) -> bytes | None:
        self.asked += 1
        return self.values.get(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted((key for key in self.values if start <= key < stop), reverse=reverse)
        return iter([(key, self.values[key]) for key in keys])


def keys_of(log: int, id_: bytes) -> tuple[bytes, bytes]:
    return (
        keyspace.RECORD + flatlog.id_prefix(log) + id_,
        keyspace.RECORD + flatlog.record_id_prefix(log) + id_[::-1],
    )


IDS = st.lists(st.binary(min_size=32, max_size=32), max_size=60, unique=True)
OTHERS = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=3), max_size=20)


@given(IDS, IDS, IDS, OTHERS, st.sampled_from([8, 64, 1 << 14]))
def test_nothing_that_is_stored_is_ever_hidden(
    before: list[bytes], during: list[bytes], after: list[bytes], others: dict[bytes, bytes], bits: int
) -> None:
    database = CountingDatabase(others | {key: b"old" for id_ in before for key in keys_of(1, id_)})
    reader = RecordFilter(database, is_new=False, bits=bits)

    def store(ids: list[bytes]) -> None:
        writes = {key: b"new" for id_ in ids for key in keys_of(2, id_)}
        database.values.update(writes)
        reader.add(writes)

    def check() -> None:
        asked = [*others, *(key for id_ in (*before, *during, *after) for log in (1, 2) for key in keys_of(log, id_))]
        assert [reader.get(key) for key in asked] == [database.values.get(key) for key in asked]

    check()
    filling = reader.fill()
    store(during[:1])
    next(filling, None)
    check()
    store(during[1:])
    check()
    assert list(filling) == []
    check()
    store(after)
    check()


def test_a_new_database_is_not_asked_for_ballots_that_nobody_cast() -> None:
    database = CountingDatabase({})
    reader = RecordFilter(database, is_new=True)
    ids = [number.to_bytes(32, "big") for number in range(1, 2_001)]
    reader.add(key for id_ in ids[:1_000] for key in keys_of(1, id_))
    for id_ in ids[1_000:]:
        assert reader.get(keys_of(1, id_)[0]) is None
    assert database.asked < 20
    assert reader.get(keyspace.META + b"head") is None
    assert reader.get(keys_of(1, ids[0])[0]) is None
    assert database.asked >= 2  # what may be there, and what is no record by id, is asked for


def test_filling_gives_way_and_then_spares_the_database() -> None:
    stored = {key: b"" for number in range(600) for key in keys_of(1, number.to_bytes(32, "big"))}
    database = CountingDatabase(stored)
    reader = RecordFilter(database, is_new=False)
    absent = keys_of(1, bytes(range(32)))[0]
    assert reader.get(absent) is None
    assert database.asked == 1  # nothing is known yet
    assert sum(1 for _ in reader.fill()) >= 2
    assert reader.get(absent) is None
    assert database.asked == 1
    assert list(reader.fill()) == []


def test_a_filter_that_fills_up_still_spares_the_database_most_look_ups() -> None:
    database = CountingDatabase({})
    reader = RecordFilter(database, is_new=True, bits=1 << 14)
    ids = [number.to_bytes(32, "big") for number in range(1, 5_001)]
    reader.add(keys_of(1, id_)[0] for id_ in ids[:1_000])
    for id_ in ids[1_000:]:
        assert reader.get(keys_of(1, id_)[0]) is None
    assert database.asked < 110  # some 53 with two bits a key, which set 11 % of all; 236 with one
