"""Signed peer records, endpoints, and the address book that keeps them; no sockets, no clock."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.domain import Domain
from node.chain.signing import recover
from node.p2p.addressbook import PEERS_MAX, AddressBook, ForeignBook
from node.p2p.endpoint import InvalidEndpoint, parse_endpoint
from node.p2p.records import (
    InvalidRecord,
    PeerRecord,
    parse_record,
    record_digest,
    record_document,
    sign_record,
    verify_record,
)
from serving.endpoint import Endpoint
from tests.p2p.conftest import DOMAIN, key_of

endpoints = st.builds(
    lambda host, port: f"{host}:{port}",
    st.sampled_from(["a", "validator-1", "10.0.0.1", "host.example", "[2001:db8::1]", "_x"]),
    st.integers(1, 65535),
)
printable = st.text(st.characters(categories=["L", "N", "P"]), max_size=64)


def record_of(
    number: int, endpoint: str = "h:1", *, sequence: int = 1, expires_at_s: int = 100, domain: Domain = DOMAIN
) -> PeerRecord:
    return sign_record(
        key_of(number), domain, endpoints=(endpoint,), sequence=sequence, expires_at_s=expires_at_s, name="n"
    )


@given(
    st.lists(endpoints, min_size=1, max_size=4).map(tuple),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    printable,
    printable,
)
def test_a_record_comes_back_through_json(
    listed: tuple[str, ...], sequence: int, expires_at_s: int, name: str, rpc_url: str
) -> None:
    record = sign_record(
        key_of(1),
        DOMAIN,
        endpoints=listed,
        sequence=sequence,
        expires_at_s=expires_at_s,
        name=name,
        rpc_url=rpc_url,
    )
    assert parse_record(json.loads(json.dumps(record_document(record))), DOMAIN) == record


def test_the_digest_of_a_record() -> None:
    record = sign_record(
        key_of(1), DOMAIN, endpoints=("a:1", "b:2"), sequence=5, expires_at_s=6, name="v", rpc_url="http://c"
    )
    body = rlp.encode(
        [b"\x1e\x5a", bytes(range(32)), key_of(1).address, [b"a:1", b"b:2"], b"\x05", b"\x06", b"v", b"http://c"]
    )
    digest = keccak256(b"\x19psephos:record:1" + body)
    assert record_digest(record, DOMAIN) == digest
    assert recover(digest, record.signature) == key_of(1).address


@pytest.mark.parametrize(
    "change",
    [
        {"endpoints": ("evil:1",)},
        {"endpoints": ("h:1", "evil:1")},
        {"sequence": 2},
        {"expires_at_s": 101},
        {"name": "m"},
        {"rpc_url": "http://evil"},
        {"address": key_of(2).address},
        {"signature": bytes(65)},
        {"signature": record_of(2).signature},
    ],
)
def test_nothing_in_a_record_can_be_changed(change: dict[str, object]) -> None:
    record = record_of(1)
    verify_record(record, DOMAIN)
    with pytest.raises(InvalidRecord):
        verify_record(replace(record, **change), DOMAIN)  # type: ignore[arg-type]


def test_a_record_counts_on_one_network() -> None:
    for other in (Domain(7771, DOMAIN.genesis_hash), Domain(7770, bytes(32))):
        with pytest.raises(InvalidRecord, match="did not sign"):
            verify_record(record_of(1), other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "0x12"),
        ("address", "0x" + "zz" * 20),
        ("address", "1x" + "00" * 20),
        ("address", None),
        ("endpoints", []),
        ("endpoints", ["h:1"] * 5),
        ("endpoints", "h:1"),
        ("endpoints", [1]),
        ("endpoints", ["no port"]),
        ("sequence", -1),
        ("sequence", 2**64),
        ("sequence", True),
        ("sequence", 1.0),
        ("sequence", "1"),
        ("expiresAt", None),
        ("name", "x" * 65),
        ("name", "a\nb"),
        ("name", "\ud800"),
        ("name", 1),
        ("rpcUrl", "x" * 257),
        ("signature", "0x"),
    ],
)
def test_a_field_out_of_bounds_is_named(field: str, value: object) -> None:
    document = record_document(record_of(1)) | {field: value}
    with pytest.raises(InvalidRecord, match=field):
        parse_record(document, DOMAIN)


@pytest.mark.parametrize("document", [None, [], {}, record_document(record_of(1)) | {"more": 1}])
def test_what_is_no_record(document: object) -> None:
    with pytest.raises(InvalidRecord, match="exactly the fields"):
        parse_record(document, DOMAIN)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_any_field_is_fine_or_an_error(value: object) -> None:
    for field in record_document(record_of(1)):
        document = record_document(record_of(1)) | {field: value}
        try:
            assert record_document(parse_record(document, DOMAIN)) == record_document(record_of(1))
        except InvalidRecord:
            continue


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("validator-1:30303", Endpoint("validator-1", 30303)),
        ("127.0.0.1:1", Endpoint("127.0.0.1", 1)),
        ("[::1]:65535", Endpoint("::1", 65535)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:01",
        "a:-1",
        "a:1 ",
        " a:1",
        "a b:1",
        "::1:1",
        "[::1]",
        "[a]:1",
        "a" * 254 + ":1",
        "-a:1",
        "a/b:1",
        "a:١",
        "http://a:1",
        "a:99999999999999999999",
        "é:1",
        "a\n:1",
        "a:1\n",
    ],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(InvalidEndpoint):
        parse_endpoint(text)


@given(st.text(max_size=30))
def test_an_endpoint_is_written_as_it_was_read(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except InvalidEndpoint:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


def test_the_book_prefers_what_a_session_said_and_keeps_the_newest_record() -> None:
    book = AddressBook(DOMAIN)
    peer = key_of(1).address
    assert book.learn_record(record_of(1, "old:1", sequence=1))
    assert book.learn_record(record_of(1, "new:1", sequence=2))
    assert not book.learn_record(record_of(1, "old:1", sequence=1))
    assert not book.learn_record(record_of(1, "other:1", sequence=2))
    assert book.endpoints(peer) == ("new:1",)
    assert book.learn_endpoint(peer, "heard:1")
    assert not book.learn_endpoint(peer, "heard:1")
    assert not book.learn_endpoint(peer, "")
    assert book.endpoints(peer) == ("heard:1", "new:1")
    assert not book.learn_record(record_of(1, "heard:1", sequence=3))  # newer, but nothing new in it
    assert book.endpoints(peer) == ("heard:1",)


def test_the_book_comes_back_from_its_document() -> None:
    book = AddressBook(DOMAIN)
    book.learn_record(record_of(1, "a:1"))
    book.learn_endpoint(key_of(2).address, "b:2")
    book.learn_record(record_of(2, "c:3"))
    again = AddressBook(DOMAIN)
    again.load(json.loads(json.dumps(book.document())))
    assert again.document() == book.document()
    assert again.addresses() == {key_of(1).address, key_of(2).address}


def test_the_book_is_bounded() -> None:
    book = AddressBook(DOMAIN)
    for number in range(PEERS_MAX):
        assert book.learn_endpoint(number.to_bytes(20, "big"), "a:1")
    assert not book.learn_endpoint(PEERS_MAX.to_bytes(20, "big"), "a:1")
    assert len(book.addresses()) == PEERS_MAX


def test_a_foreign_or_forged_book_is_refused() -> None:
    forged = record_document(record_of(1)) | {"endpoints": ["evil:1"]}
    entry = {"address": "0x" + "11" * 20, "endpoint": "", "record": None}
    book = AddressBook(DOMAIN)
    good = book.document()
    for document in (
        None,
        good | {"version": 2},
        good | {"genesisHash": "0x00"},
        good | {"peers": {}},
        good | {"peers": [1]},
        good | {"peers": [{}]},
        good | {"peers": [entry | {"address": "0x11"}]},
        good | {"peers": [entry | {"endpoint": "nowhere"}]},
        good | {"peers": [entry | {"record": forged}]},
    ):
        with pytest.raises(ForeignBook):
            book.load(document)
    assert book.addresses() == set()
