"""Receipts: what is honest verifies, also over changes of the validators; whatever is altered is refused."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway
from gateway.receipt import (
    HEAD_FORMAT,
    InvalidReceipt,
    LogHead,
    Receipt,
    encode,
    head_document,
    parse,
    receipt_document,
    without_record,
)
from gateway.receipt_check import check_head, check_receipt, verify_head, verify_receipt
from node.chain.domain import Domain
from tests.gateway.receipt_world import FIRST, KEYS, World, make_anchor, make_ballot, small_world

SCHEMA = json.loads((Path(gateway.__path__[0]) / "schemas" / "receipt-v1.schema.json").read_text())
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)


@cache
def world() -> World:
    return small_world()


@cache
def receipts() -> dict[str, Receipt]:
    one = world()
    return {
        "before any change": one.receipt(make_ballot(1, 3), 3, 3),
        "at the block of the first change": one.receipt(make_ballot(1, 3), 3, 4),
        "sealed, a large election id": one.receipt(make_ballot(1 << 200, 2, 1, b"ciphertext"), 1, 5),
        "an old ballot later": one.receipt(make_ballot(1, 0), 0),
        "the last ballot": one.receipt(make_ballot(1, 5, 1, b"more"), 5),
        "an anchor": one.receipt(make_anchor(2), 1),
        "the only one": one.receipt(make_anchor(1), 0, 7),
    }


def check(document: object, domain: Domain, checkpoint: bytes | None = None) -> None:
    found = parse(document)
    if isinstance(found, Receipt):
        verify_receipt(found, domain, checkpoint=checkpoint)
    else:
        verify_head(found, domain, checkpoint=checkpoint)


@pytest.mark.parametrize("name", receipts())
def test_receipts_verify_and_survive_being_written_down(name: str) -> None:
    receipt = receipts()[name]
    document = receipt_document(receipt)
    VALIDATOR.validate(document)
    assert parse(document) == parse(encode(document)) == receipt
    steps = verify_receipt(receipt, world().domain)
    assert len(steps) == 6 + 2 * (len(receipt.head.sets) - 1)
    assert all(step.words.endswith(".") for step in steps)


def test_what_the_steps_say() -> None:
    words = [step.words for step in verify_receipt(receipts()["before any change"], world().domain)]
    assert words == [
        "It belongs to the network that you named, chain 7770.",
        "The network began with 3 validators.",
        "Block 3 is final: 2 of its 3 validators sealed it, and 2 are enough.",
        "That block says that the list of ballots of election 1 has 5 entries.",
        "Entry 3 of that list is the ballot with the fingerprint below.",
        "That fingerprint is of an open ballot for option 1 (the first is 0).",
    ]
    words = [step.words for step in verify_receipt(receipts()["an anchor"], world().domain)]
    assert words[2:6] == [
        "Block 4 is final: 2 of its 3 validators sealed it, and 2 are enough.",
        "That block names 4 validators for what follows.",
        "Block 6 is final: 3 of its 4 validators sealed it, and 3 are enough.",
        "That block names 3 validators for what follows.",
    ]
    assert "02020202-0202-0202-0202-020202020202" in words[-1]


@pytest.mark.parametrize("election", [1, 1 << 200, None])
def test_log_heads_verify(election: int | None) -> None:
    head = world().head(election)
    document = head_document(head)
    VALIDATOR.validate(document)
    assert document["format"] == HEAD_FORMAT
    assert parse(encode(document)) == head
    assert len(verify_head(head, world().domain)) == 4 + 2 * 2


def test_a_receipt_without_the_record_shows_nothing_of_it() -> None:
    receipt = receipts()["before any change"]
    ballot = make_ballot(1, 3)
    hidden = encode(receipt_document(without_record(receipt)))
    assert len(verify_receipt(without_record(receipt), world().domain)) == 5
    assert ballot.nullifier.hex() not in hidden.decode()
    assert ballot.record_id.hex() not in hidden.decode()
    VALIDATOR.validate(json.loads(hidden))


def test_another_choice_has_another_fingerprint() -> None:
    receipt = receipts()["before any change"]
    assert receipt.record is not None
    lie = replace(receipt, record=make_ballot(1, 3, content=b"\x00"))
    with pytest.raises(InvalidReceipt, match="the record: its fingerprint"):
        verify_receipt(lie, world().domain)


def test_another_network_is_refused_whoever_sealed() -> None:
    receipt = receipts()["before any change"]
    for domain in (Domain(7771, world().domain.genesis_hash), Domain(7770, bytes(32))):
        with pytest.raises(InvalidReceipt, match="the network"):
            verify_receipt(receipt, domain)
        moved = replace(receipt, head=replace(receipt.head, chain_id=domain.chain_id, genesis_hash=domain.genesis_hash))
        with pytest.raises(InvalidReceipt):
            verify_receipt(moved, domain)


def forged(change: Callable[[World, LogHead], LogHead]) -> tuple[World, Receipt]:
    one = world()
    receipt = receipts()["an old ballot later"]
    return one, replace(receipt, head=change(one, receipt.head))


def _resealed(one: World, head: LogHead, sealers: tuple[bytes, ...]) -> LogHead:
    return replace(head, certificate=one.seal(head.header, sealers))


EVERYBODY = tuple(sorted(KEYS))
FORGERIES: dict[str, tuple[str, Callable[[World, LogHead], LogHead]]] = {
    "too few seals": ("1 seals", lambda one, head: _resealed(one, head, EVERYBODY[2:3])),
    "a seal twice": ("twice", lambda one, head: _resealed(one, head, (EVERYBODY[2], EVERYBODY[2]))),
    "a stranger's seal": ("is no validator", lambda one, head: _resealed(one, head, (EVERYBODY[2], EVERYBODY[7]))),
    "those who were validators before": (
        "is no validator",
        lambda one, head: _resealed(one, head, EVERYBODY[:2]),
    ),
    "seals of another round": (
        "is no validator",
        lambda one, head: replace(head, certificate=replace(head.certificate, round=1)),
    ),
    "no first set": ("block 0", lambda one, head: replace(head, sets=head.sets[1:])),
    "no change": ("seal", lambda one, head: replace(head, sets=head.sets[:1])),
    "changes in another order": (
        "seal",
        lambda one, head: replace(head, sets=(head.sets[0], head.sets[2], head.sets[1])),
    ),
    "a change twice": ("out of order", lambda one, head: replace(head, sets=(*head.sets, head.sets[2]))),
    "a change without a certificate": (
        "no certificate",
        lambda one, head: replace(head, sets=(*head.sets[:2], replace(head.sets[2], certificate=None))),
    ),
    "other validators than the header names": (
        "are not those",
        lambda one, head: replace(
            head, sets=(*head.sets[:2], replace(head.sets[2], validators=tuple(sorted(EVERYBODY[1:4]))))
        ),
    ),
    "other first validators": (
        "the first validators",
        lambda one, head: replace(
            head, sets=(replace(head.sets[0], validators=tuple(sorted(EVERYBODY[1:4]))), *head.sets[1:])
        ),
    ),
    "a smaller log": ("size and root", lambda one, head: replace(head, size=head.size - 1)),
    "another root": ("size and root", lambda one, head: replace(head, root=bytes(32))),
    "the state of another contract": ("does not keep", lambda one, head: replace(head, storage=one.head(None).storage)),
    "the state of another block": ("node 0", lambda one, head: replace(head, storage=one.head(1, 3).storage)),
    "another election's slots": ("slot", lambda one, head: replace(head, storage=one.head(1 << 200).storage)),
    "an account of the forger's": (
        "is not what its proof shows",
        lambda one, head: replace(head, storage=replace(head.storage, balance=1)),
    ),
    "a block before the last change": (
        "out of order",
        lambda one, head: replace(one.head(1, 5), sets=head.sets),
    ),
    "a header of the forger's": (
        "seal",
        lambda one, head: replace(head, header=replace(head.header, state_root=bytes(32))),
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_refused_for_its_own_reason(name: str) -> None:
    words, change = FORGERIES[name]
    one, receipt = forged(change)
    with pytest.raises(InvalidReceipt, match=words):
        verify_receipt(receipt, one.domain)


def test_seals_cover_the_network() -> None:
    """The same validators on another network cannot be made to vouch for this one."""
    one = world()
    receipt = receipts()["before any change"]
    elsewhere = World(replace(one.genesis, timestamp=1))
    lie = replace(receipt, head=replace(receipt.head, certificate=elsewhere.seal(receipt.head.header, FIRST[:2])))
    with pytest.raises(InvalidReceipt, match="the seals of the block"):
        verify_receipt(lie, one.domain)


def test_checkpoints() -> None:
    one = world()
    receipt = receipts()["an old ballot later"]
    assert any(
        "very block" in step.words for step in verify_receipt(receipt, one.domain, checkpoint=one.headers[-1].hash)
    )
    by_set = verify_receipt(receipt, one.domain, checkpoint=one.headers[6].hash)
    assert any("follow from block 6" in step.words for step in by_set)
    for other in (one.headers[-2].hash, bytes(32)):
        with pytest.raises(InvalidReceipt, match="the checkpoint"):
            verify_receipt(receipt, one.domain, checkpoint=other)


def test_the_honest_limit_and_its_cure() -> None:
    """A quorum of a past set forges what comes after it; naming a later block from elsewhere refuses the forgery."""
    one = world()
    branch = World(one.genesis)
    branch.create(1)
    branch.cast(*(make_ballot(1, number, content=b"\x00") for number in range(5)))
    branch.block()
    forgery = branch.receipt(make_ballot(1, 3, content=b"\x00"), 3)
    verify_receipt(forgery, one.domain)  # two of the first three validators are enough to lie about what followed
    with pytest.raises(InvalidReceipt, match="the checkpoint"):
        verify_receipt(forgery, one.domain, checkpoint=one.headers[6].hash)
    verify_receipt(one.receipt(make_ballot(1, 3), 3), one.domain, checkpoint=one.headers[6].hash)


def test_a_re_proposed_block_is_final_in_its_later_round() -> None:
    one = World()
    one.create(1)
    one.cast(make_ballot(1, 1))
    header = one.block(round_=0)
    later = replace(one.head(1), certificate=one.seal(header, FIRST[1:], 5))
    assert verify_head(later, one.domain)
    one.block(round_=2)
    early = replace(one.head(1), certificate=one.seal(one.headers[-1], FIRST[1:], 1))
    with pytest.raises(InvalidReceipt, match="no proposer"):
        verify_head(early, one.domain)


def test_it_holds_after_a_long_chain() -> None:
    """Heights far apart change nothing: only sets and the block itself are in a receipt."""
    one = World()
    one.create(1)
    one.cast(make_ballot(1, 1))
    receipt = one.receipt(make_ballot(1, 1), 0)
    for number in range(40):
        one.block(change_to=[address for at, address in enumerate(EVERYBODY) if at != number % 8])
    one.cast(make_ballot(1, 2))
    verify_receipt(receipt, one.domain)
    late = one.receipt(make_ballot(1, 1), 0)
    assert len(late.head.sets) == 41
    verify_receipt(late, one.domain)


@cache
def texts() -> list[bytes]:
    documents = [receipt_document(receipt) for receipt in receipts().values()]
    documents += [receipt_document(without_record(receipts()["an anchor"])), head_document(world().head(None))]
    return [encode(document) for document in documents] + [json.dumps(document).encode() for document in documents]


def refused(text: bytes) -> None:
    with pytest.raises(InvalidReceipt):
        check(text, world().domain)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_single_bit_can_change(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from(texts())))
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused(bytes(text))


def test_no_part_of_a_receipt_can_change() -> None:
    """Some bit of every seventh byte, so that no field is left out; hypothesis draws the rest."""
    text = texts()[0]
    assert len(text) > 5_000
    for position in range(0, len(text), 7):
        mutated = bytearray(text)
        mutated[position] ^= 1 << (position % 8)
        refused(bytes(mutated))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("0x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*at, key))
    if isinstance(value, list):
        for key, item in enumerate(value):
            yield from paths(item, (*at, key))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_refused_without_a_crash(data: st.DataObject) -> None:
    document: Any = json.loads(data.draw(st.sampled_from(texts())))
    path = data.draw(st.sampled_from(list(paths(document))[1:]))
    part = document
    for key in path[:-1]:
        part = part[key]
    old, new = part[path[-1]], data.draw(values)
    if json.dumps(old) == json.dumps(new) or (path == ("record",) and new is None):
        return
    if data.draw(st.booleans()):
        part[path[-1]] = new
    else:
        del part[path[-1]]
    with pytest.raises(InvalidReceipt):
        check(document, world().domain)
    if not VALIDATOR.is_valid(document):  # what the schema refuses, reading refuses: one format, not two
        with pytest.raises(InvalidReceipt):
            parse(document)


def test_a_field_that_nothing_reads_is_refused_everywhere() -> None:
    for text in texts():
        document: Any = json.loads(text)
        for path in list(paths(document)):
            part: Any = document
            for key in path:
                part = part[key]
            if isinstance(part, dict):
                part["note"] = 1
                with pytest.raises(InvalidReceipt, match="is not a field of this format"):
                    parse(document)
                assert not VALIDATOR.is_valid(document)
                del part["note"]
        parse(document)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_reading_never_crashes(text: bytes) -> None:
    with pytest.raises(InvalidReceipt):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 65, "nested too deep"),
        (b'{"a": "' + b"[" * 100 + b'"}', "'format' is missing"),
        (b'{"a": "\\"' + b"[" * 100 + b'"}', "'format' is missing"),
        (b'{"format": "psephos-receipt", "format": "psephos-receipt"}', "one name twice"),
        (b'{"format": NaN}', "NaN is no JSON"),
        (b"\xff", "not UTF-8"),
        (b"{}", "'format' is missing"),
        (b'{"format": "psephos-receipt", "version": 2}', "reads version 1"),
        (b'{"format": "psephos-receipt", "version": 1, "log": 3}', "log is not an object"),
        (b'{"format": "\\ud800"}', "'format' is not what it should be"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_wrong_is_named(text: bytes, words: str) -> None:
    with pytest.raises(InvalidReceipt, match=words):
        parse(text)


def test_the_check_stops_where_it_fails() -> None:
    """Steps come out one by one, so that a reader sees how far the receipt held."""
    receipt = replace(receipts()["an anchor"], leaf_hash=bytes(32))
    steps = check_receipt(receipt, world().domain)
    for held in check_head(receipt.head, world().domain):
        assert next(steps) == held
    with pytest.raises(InvalidReceipt, match="the place in the log"):
        next(steps)


def test_a_seal_with_a_high_s_is_refused() -> None:
    """The other signature of the same key and digest: a second form of the same receipt would be."""
    receipt = receipts()["before any change"]
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    seal, *others = receipt.head.certificate.seals
    high = seal[:32] + (order - int.from_bytes(seal[32:64], "big")).to_bytes(32, "big") + bytes([1 - seal[64]])
    certificate = replace(receipt.head.certificate, seals=(high, *others))
    with pytest.raises(InvalidReceipt, match="the seals of the block"):
        verify_receipt(replace(receipt, head=replace(receipt.head, certificate=certificate)), world().domain)
