"""The table: bounded, the newest record of each address, and reserved seats that strangers cannot take."""

import json
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootnode.config import LimitsConfig
from bootnode.table import ForeignTable, Outdated, Refused, Table
from node.chain.domain import Domain
from node.chain.signing import SigningKey
from node.p2p.discovery import ANSWER_BYTES_MAX
from node.p2p.records import (
    ENDPOINTS_MAX,
    NAME_CHARACTERS_MAX,
    RECORD_DOCUMENT_BYTES_MAX,
    U64_MAX,
    URL_CHARACTERS_MAX,
    InvalidRecord,
    PeerRecord,
    record_document,
    sign_record,
)
from serving.endpoint import HOST_CHARACTERS_MAX

DOMAIN = Domain(7770, bytes(range(32)))
NOW_S = 1_000
KEYS = [SigningKey(number.to_bytes(32, "big")) for number in range(1, 12)]
RESERVED = frozenset(key.address for key in KEYS[:3])


def record_of(number: int, *, sequence: int = 1, expires_at_s: int = 2_000, endpoint: str = "h:1") -> PeerRecord:
    return sign_record(KEYS[number], DOMAIN, endpoints=(endpoint,), sequence=sequence, expires_at_s=expires_at_s)


def empty(*, open_seats: int = 4) -> Table:
    return Table(DOMAIN, reserved=RESERVED, open_seats=open_seats, record_life_s_max=5_000)


def put(table: Table, record: PeerRecord) -> bool:
    return table.put(record_document(record), now_s=NOW_S)


def test_the_newest_record_stands() -> None:
    table = empty()
    assert put(table, record_of(0, sequence=5))
    assert not put(table, record_of(0, sequence=5))
    with pytest.raises(Outdated) as refusal:
        put(table, record_of(0, sequence=4))
    assert refusal.value.standing == 5
    with pytest.raises(Outdated):
        put(table, record_of(0, sequence=5, endpoint="other:1"))
    assert put(table, record_of(0, sequence=6, endpoint="new:1"))
    assert [record.endpoints for record in table.records()] == [("new:1",)]


def test_expiry_is_checked_on_the_way_in() -> None:
    table = empty()
    for expires_at_s in (NOW_S, NOW_S - 1, NOW_S + 5_001):
        with pytest.raises(Refused, match="expiresAt"):
            put(table, record_of(0, expires_at_s=expires_at_s))
    assert put(table, record_of(0, expires_at_s=NOW_S + 5_000))
    assert put(table, record_of(1, expires_at_s=NOW_S + 1))


def test_an_expired_record_is_still_a_hint() -> None:
    table = empty()
    put(table, record_of(0, expires_at_s=NOW_S + 1))
    table.put(record_document(record_of(1, expires_at_s=NOW_S + 3_000)), now_s=NOW_S + 2_000)
    assert {record.address for record in table.records()} == {KEYS[0].address, KEYS[1].address}
    again = empty()
    again.load(table.document())
    assert len(again) == 2


def test_a_forged_record_is_refused() -> None:
    with pytest.raises(InvalidRecord):
        put(empty(), replace(record_of(0), endpoints=("evil:1",)))


numbers = st.tuples(st.integers(0, len(KEYS) - 1), st.integers(1, 4))


@given(st.lists(numbers, max_size=60), st.integers(0, 5))
def test_against_a_model(puts: list[tuple[int, int]], open_seats: int) -> None:
    """Reserved ones are always kept with their newest record; of strangers, those who spoke last."""
    table = empty(open_seats=open_seats)
    newest: dict[int, int] = {}
    strangers: list[int] = []
    for number, sequence in puts:
        is_reserved = number < 3
        try:
            put(table, record_of(number, sequence=sequence))
        except Outdated:
            assert newest[number] > sequence
            continue
        except Refused:
            assert not is_reserved
            assert open_seats == 0
            continue
        if newest.get(number, 0) != sequence and not is_reserved:
            strangers = [other for other in strangers if other != number] + [number]
            for gone in strangers[: max(0, len(strangers) - open_seats)]:
                del newest[gone]
            strangers = strangers[-open_seats:]
        newest[number] = sequence
    assert {record.address: record.sequence for record in table.records()} == {
        KEYS[number].address: sequence for number, sequence in newest.items()
    }
    kept = table.records()
    assert [record.address in RESERVED for record in kept] == sorted(
        (record.address in RESERVED for record in kept), reverse=True
    )


def test_a_table_comes_back_from_its_document() -> None:
    table = empty()
    for number in range(6):
        put(table, record_of(number))
    again = empty()
    again.load(json.loads(json.dumps(table.document())))
    assert again.document() == table.document()


def test_a_foreign_or_forged_table_is_refused() -> None:
    good = empty().document()
    forged = record_document(replace(record_of(0), endpoints=("evil:1",)))
    foreign: tuple[object, ...] = (
        None,
        [],
        good | {"version": 2},
        good | {"genesisHash": "0x"},
        good | {"records": {}},
        good | {"records": [forged]},
    )
    for document in foreign:
        with pytest.raises(ForeignTable):
            empty().load(document)


def largest(number: int) -> PeerRecord:
    """A stranger's record, each field as long as it may be, and of the characters that take most bytes in JSON."""
    host = "h" * (HOST_CHARACTERS_MAX - 4) + f"{number:04}"
    return sign_record(
        SigningKey(number.to_bytes(32, "big")),
        DOMAIN,
        endpoints=tuple(f"{host}:{port}" for port in range(65_000, 65_000 + ENDPOINTS_MAX)),
        sequence=U64_MAX,
        expires_at_s=2_000,
        name="\U0001f4a3" * NAME_CHARACTERS_MAX,
        rpc_url="\U0001f4a3" * URL_CHARACTERS_MAX,
    )


def test_strangers_cannot_make_the_listing_longer_than_nodes_read() -> None:
    """Else they could cut everybody off from the bootnode; and one address is never listed twice."""
    assert len(orjson.dumps(record_document(largest(1)))) < RECORD_DOCUMENT_BYTES_MAX
    (at_most,) = [each.le for each in LimitsConfig.model_fields["open_seats"].metadata if hasattr(each, "le")]
    members = [largest(number) for number in range(1, 1 + 100 + 256)]  # validators, and those that the operator allows
    reserved = {record.address for record in members}
    table = Table(DOMAIN, reserved=reserved, open_seats=at_most, record_life_s_max=5_000)
    for record in (*members, *map(largest, range(1_000, 1_000 + at_most + 5))):
        put(table, record)
    assert len(table) == len(members) + at_most
    assert len(orjson.dumps(table.document())) < ANSWER_BYTES_MAX
    assert {record.address for record in table.records()[: len(members)]} == reserved
