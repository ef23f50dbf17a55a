"""What is signed, what is sent, and what a certificate proves."""

import contextlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import rlp
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from node.chain.domain import Domain
from node.chain.errors import InvalidSignature, PeerError
from node.consensus.certificate import (
    Certificate,
    InvalidCertificate,
    pack_certificate,
    unpack_certificate,
    verify_certificate,
)
from node.consensus.codec import decode_message, encode_message
from node.consensus.evidence import Evidence, conflict, pack_evidence, unpack_evidence, verify_evidence
from node.consensus.messages import InvalidMessage, Kind, Message, SignedStatement, Statement, Unsigned, authenticate
from node.consensus.quorum import crash_tolerance, proposed_by_round, proposer, quorum, tolerance

from .conftest import RECOVER, Council, make_domain

hashes = st.binary(min_size=32, max_size=32)
heights = st.integers(1, 2**63 - 1)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    kind = draw(st.sampled_from(Kind))
    if kind is not Kind.ROUND_CHANGE:
        return Statement(kind, draw(heights), draw(st.integers(0, 2**32 - 1)), draw(hashes))
    round_ = draw(st.integers(1, 2**32 - 1))
    if draw(st.booleans()):
        return Statement(kind, draw(heights), round_, None)
    return Statement(kind, draw(heights), round_, draw(hashes), draw(st.integers(0, round_ - 1)))


@given(statements(), st.binary(min_size=65, max_size=65))
def test_statements_survive_the_wire(statement: Statement, signature: bytes) -> None:
    message = Message(SignedStatement(statement, signature))
    assert decode_message(encode_message(message)) == message


def test_messages_with_attachments_survive_the_wire(council: Council) -> None:
    block = council.block(0)
    round_changes = tuple(council.round_change(i, 2, (1, block)).signed for i in range(3))
    for message in (
        council.proposal(0, block),
        council.proposal(2, block, round_changes, council.prepares(1, block)),
        council.round_change(0, 2, (1, block)),
    ):
        assert decode_message(encode_message(message)) == message
        assert message.bytes_count > len(encode_message(message)) // 2


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_peers_error(data: bytes) -> None:
    with contextlib.suppress(PeerError):
        decode_message(data)


@given(st.data())
def test_damaged_messages_are_a_message_or_a_peers_error(data: st.DataObject) -> None:
    council = Council(4)
    raw = bytearray(encode_message(council.round_change(0, 2, (1, council.block(0)))))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PeerError):
        decode_message(bytes(raw))


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 0), (0, 5), (0, True), (1, 0), (1, 2**63), (1, -1), (2, 2**32), (2, 1.0), (3, b"x" * 31), (4, 1), (5, b"")],
)
def test_a_wrong_field_is_refused(council: Council, field: int, value: object) -> None:
    packed: list[Any] = msgpack.unpackb(encode_message(council.say(0, Kind.PREPARE, 0, bytes(32))))
    packed[0][field] = value
    with pytest.raises(InvalidMessage):
        decode_message(msgpack.packb(packed))


def test_attachments_out_of_place_are_refused(council: Council) -> None:
    block = council.block(0)
    prepare = council.say(0, Kind.PREPARE, 0, block.hash)
    proposal = council.proposal(0, block)
    change = council.round_change(0, 2, (1, block))
    for wrong in (
        Message(prepare.signed, proposal.attachments),
        Message(change.signed, replace(change.attachments, block=None)),
        Message(change.signed, replace(change.attachments, round_changes=(change.signed,))),
        Message(change.signed, replace(change.attachments, prepares=(change.signed,))),
        Message(change.signed, replace(change.attachments, block=council.block(1))),
    ):
        with pytest.raises(InvalidMessage):
            decode_message(encode_message(wrong))


@given(statements())
def test_what_is_signed_is_as_documented(statement: Statement) -> None:
    domain = make_domain()
    items: list[object] = [int(statement.kind), domain.chain_id, domain.genesis_hash, statement.height, statement.round]
    if statement.kind is Kind.ROUND_CHANGE:
        items.append(0 if statement.prepared_round is None else statement.prepared_round + 1)
    items.append(statement.block_hash or b"")
    assert statement.digest(domain) == keccak(b"\x19psephos" + rlp.encode(items))


@given(statements(), statements())
def test_different_statements_and_networks_have_different_digests(one: Statement, other: Statement) -> None:
    domain = make_domain()
    assert (one.digest(domain) == other.digest(domain)) == (one == other)
    assert one.digest(domain) != one.digest(Domain(domain.chain_id + 1, domain.genesis_hash))
    assert one.digest(domain) != one.digest(Domain(domain.chain_id, bytes(32)))


def test_a_signature_names_its_signer(council: Council) -> None:
    unsigned = Unsigned(Statement(Kind.COMMIT, 1, 0, bytes(32)))
    message = unsigned.signed(council.keys[2].sign(unsigned.digest(council.domain)))
    assert authenticate(council.domain, message) == council.validators[2]
    high_s = Message(SignedStatement(unsigned.statement, message.signed.signature[:32] + b"\xff" * 32 + b"\x00"))
    with pytest.raises(InvalidSignature):
        authenticate(council.domain, high_s)


@given(st.integers(1, 200))
def test_quorums_share_a_correct_validator_and_survive_the_faulty(count: int) -> None:
    needed, faulty = quorum(count), tolerance(count)
    assert 2 * needed - count >= faulty + 1, "two quorums share a correct validator"
    assert count - faulty >= needed, "the correct ones alone are a quorum"
    assert needed == -(-2 * count // 3)
    assert needed + crash_tolerance(count) == count


def test_what_the_design_says_of_small_networks() -> None:
    assert [(quorum(n), crash_tolerance(n), tolerance(n)) for n in (1, 2, 3, 4, 5, 6, 7)] == [
        (1, 0, 0), (2, 0, 0), (2, 1, 0), (3, 1, 1), (4, 1, 1), (4, 2, 1), (5, 2, 2),
    ]  # fmt: skip


@given(st.integers(1, 7), st.integers(0, 50), st.integers(0, 20), st.integers(0, 6))
def test_the_miner_was_a_proposer_of_some_round(count: int, height: int, round_: int, who: int) -> None:
    validators = tuple(bytes([i]) for i in range(count))
    miner = bytes([who])
    slow = any(proposer(validators, height, each) == miner for each in range(round_ + 1))
    assert proposed_by_round(validators, miner, height, round_) == slow


def certify(council: Council, round_: int, who: list[int]) -> Certificate:
    block = council.block(0)
    seals = tuple(council.say(i, Kind.COMMIT, round_, block.hash).signed.signature for i in who)
    return Certificate(1, round_, block.hash, seals)


def test_certificates(council: Council) -> None:
    header = council.block(0).header
    good = certify(council, 2, [3, 0, 1])
    verify_certificate(good, header, council.validators, council.domain, RECOVER)
    verify_certificate(certify(council, 0, [0, 1, 2, 3]), header, council.validators, council.domain)
    assert unpack_certificate(pack_certificate(good)) == good
    stranger = next(i for i, each in enumerate(Council(7).validators) if each not in council.validators)
    seal = Council(7).say(stranger, Kind.COMMIT, 2, header.hash).signed.signature
    prepare = council.say(2, Kind.PREPARE, 2, header.hash).signed.signature
    for bad, reason in (
        (certify(council, 2, [0, 1]), "2 seals"),
        (certify(council, 2, [0, 1, 1]), "twice"),
        (replace(good, round=3), "no validator"),
        (replace(good, height=2), "beside header"),
        (replace(good, block_hash=bytes(32)), "beside header"),
        (replace(good, seals=(*good.seals[:2], seal)), "no validator"),
        (replace(good, seals=(*good.seals[:2], prepare)), "no validator"),
        (replace(good, seals=(*good.seals[:2], bytes(65))), "a seal"),
    ):
        with pytest.raises(InvalidCertificate, match=reason):
            verify_certificate(bad, header, council.validators, council.domain, RECOVER)
    late = council.block(1).header
    seals = tuple(council.say(i, Kind.COMMIT, 0, late.hash).signed.signature for i in range(3))
    with pytest.raises(InvalidCertificate, match="no proposer"):
        verify_certificate(Certificate(1, 0, late.hash, seals), late, council.validators, council.domain, RECOVER)


@pytest.mark.parametrize(
    "packed", [None, [], [1, 0, bytes(32)], [-1, 0, bytes(32), []], [1, True, bytes(32), []], [1, 0, b"", []],
               [1, 0, bytes(32), [b"short"]], [1, 0, bytes(32), None], [1, 0, bytes(32), [bytes(65)] * 1025]]
)  # fmt: skip
def test_malformed_certificates(packed: object) -> None:
    with pytest.raises(InvalidCertificate):
        unpack_certificate(packed)


def test_evidence_proves_equivocation_and_nothing_less(council: Council) -> None:
    first = council.say(1, Kind.PREPARE, 0, bytes(32)).signed
    second = council.say(1, Kind.PREPARE, 0, b"\x01" * 32).signed
    evidence = Evidence(council.validators[1], first, second)
    verify_evidence(evidence, council.domain)
    assert unpack_evidence(pack_evidence(evidence)) == evidence
    for other in (
        first,
        council.say(1, Kind.PREPARE, 1, bytes(32)).signed,
        council.say(1, Kind.COMMIT, 0, bytes(32)).signed,
    ):
        assert not conflict(first.statement, other.statement)
        with pytest.raises(InvalidMessage):
            verify_evidence(Evidence(council.validators[1], first, other), council.domain)
    by_another = council.say(2, Kind.PREPARE, 0, b"\x01" * 32).signed
    with pytest.raises(InvalidMessage):
        verify_evidence(Evidence(council.validators[1], first, by_another), council.domain)
