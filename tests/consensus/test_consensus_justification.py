"""QBFT's justification rules, one by one: each refusal by itself, from a message that is right in all else."""

from dataclasses import replace

import pytest

from node.chain.block import Block
from node.consensus.justification import (
    Committee,
    check_body,
    check_proposal,
    check_round_change,
    highest_prepared,
)
from node.consensus.messages import Attachments, InvalidMessage, Kind, Message, SignedStatement, Statement

from .conftest import RECOVER, Council, make_header


def committee_of(council: Council) -> Committee:
    return Committee(council.domain, council.parent, council.validators, RECOVER)


def changes(council: Council, round_: int, prepared: dict[int, tuple[int, Block]]) -> tuple[SignedStatement, ...]:
    return tuple(council.round_change(i, round_, prepared.get(i)).signed for i in range(council.quorum))


def with_attachments(message: Message, **fields: object) -> Message:
    return Message(message.signed, replace(message.attachments, **fields))  # type: ignore[arg-type]


def refused(message: Message, council: Council, reason: str) -> None:
    check = check_proposal if message.statement.kind is Kind.PROPOSAL else check_round_change
    with pytest.raises(InvalidMessage, match=reason):
        check(message, committee_of(council))


def test_round_zero_takes_a_fresh_block_of_its_proposer(council: Council) -> None:
    proposal = council.proposal(0, council.block(0))
    assert check_proposal(proposal, committee_of(council)).prepared_round is None
    refused(council.proposal(0, council.block(1)), council, "was no proposer up to round 0")
    stray = council.round_change(0, 1).signed
    refused(council.proposal(0, council.block(0), (stray,)), council, "needs no justification")
    refused(Message(proposal.signed), council, "without its block")
    other = make_header(council.block(0).header, council.validators[2])
    refused(council.proposal(0, Block(other)), council, "does not continue the head")
    refused(with_attachments(proposal, block=council.block(0, salt=9)), council, "statement about another")


def test_higher_rounds_need_a_quorum_of_round_changes(council: Council) -> None:
    block = council.block(2)
    justification = changes(council, 2, {})
    justified = check_proposal(council.proposal(2, block, justification), committee_of(council))
    assert justified.prepared_round is None
    assert justified.round_changers == council.validators[:3]
    refused(council.proposal(2, block, justification[:2]), council, "of 2 statements, expected 3 to 4")
    refused(council.proposal(2, block, (*justification[:2], justification[0])), council, "twice")
    refused(council.proposal(2, block, changes(council, 3, {})), council, "carries a ROUND_CHANGE of round 3")
    refused(council.proposal(2, block, (*justification, *justification)), council, "of 6 statements")
    strangers = Council(7)
    stranger = next(i for i in range(7) if strangers.validators[i] not in council.validators)
    intruder = strangers.sign(stranger, Statement(Kind.ROUND_CHANGE, 1, 2, None))
    refused(council.proposal(2, block, (*justification[:2], intruder)), council, "no validator")
    unreadable = SignedStatement(justification[0].statement, bytes(65))
    refused(council.proposal(2, block, (*justification[:2], unreadable)), council, "bad signature")


def test_a_fresh_block_in_a_higher_round_is_its_own_proposers(council: Council) -> None:
    refused(council.proposal(2, council.block(1), changes(council, 2, {})), council, "another proposer as its miner")


def test_a_fresh_block_may_not_come_where_anybody_has_prepared(council: Council) -> None:
    prepared, fresh = council.block(0), council.block(3)
    justification = changes(council, 3, {1: (0, prepared)})
    refused(council.proposal(3, fresh, justification), council, "another block than that prepared in round 0")
    again = council.proposal(3, prepared, justification, council.prepares(0, prepared))
    assert check_proposal(again, committee_of(council)).prepared_round == 0
    refused(council.proposal(3, prepared, justification), council, "of 0 statements")
    refused(council.proposal(3, prepared, justification, council.prepares(1, prepared)), council, "something else")
    two = council.prepares(0, prepared, [0, 1])
    refused(council.proposal(3, prepared, justification, two), council, "of 2 statements")
    refused(council.proposal(3, prepared, justification, (*two, two[0])), council, "twice")


def test_prepares_without_a_claim_are_refused(council: Council) -> None:
    block = council.block(2)
    proposal = council.proposal(2, block, changes(council, 2, {}), council.prepares(0, block))
    refused(proposal, council, "none of its ROUND_CHANGEs has prepared anything")


def test_the_highest_prepared_round_wins(council: Council) -> None:
    old, new = council.block(0), council.block(1)
    justification = changes(council, 3, {0: (0, old), 2: (1, new)})
    refused(council.proposal(3, old, justification, council.prepares(0, old)), council, "prepared in round 1")
    good = council.proposal(3, new, justification, council.prepares(1, new))
    assert check_proposal(good, committee_of(council)).prepared_round == 1
    claims = highest_prepared(signed.statement for signed in justification)
    assert [claim.block_hash for claim in claims] == [new.hash]
    assert highest_prepared(signed.statement for signed in changes(council, 3, {})) == []


def test_a_claim_of_a_round_not_below_is_refused(council: Council) -> None:
    block = council.block(0)
    liar = council.sign(0, Statement(Kind.ROUND_CHANGE, 1, 2, block.hash, 2))
    justification = (liar, *changes(council, 2, {})[1:])
    refused(council.proposal(2, block, justification, council.prepares(2, block)), council, "prepared in 2")


def test_a_reproposed_block_keeps_the_miner_of_its_first_round(council: Council) -> None:
    """Its miner must have been a proposer by the prepared round: a later one's block cannot have been prepared then."""
    late = council.block(2)
    justification = changes(council, 3, {0: (0, late)})
    proposal = council.proposal(3, late, justification, council.prepares(0, late))
    refused(proposal, council, "was no proposer up to round 0")


def test_round_changes_prove_what_they_claim(council: Council) -> None:
    committee, block = committee_of(council), council.block(0)
    check_round_change(council.round_change(0, 1), committee)
    good = council.round_change(0, 2, (1, block))
    check_round_change(good, committee)
    refused(Message(good.signed), council, "does not carry it")
    refused(with_attachments(good, prepares=good.attachments.prepares[:2]), council, "of 2 statements")
    refused(with_attachments(good, prepares=council.prepares(0, block)), council, "something else")
    refused(with_attachments(good, block=council.block(1)), council, "statement about another")
    unprepared = council.round_change(0, 2)
    refused(Message(unprepared.signed, Attachments(block)), council, "claims to have prepared none")
    not_below = council.say(0, Kind.ROUND_CHANGE, 1, block.hash, 1)
    attached = Attachments(block, (), council.prepares(1, block))
    refused(Message(not_below.signed, attached), council, "not before round 1")


def test_commits_do_not_pass_for_prepares(council: Council) -> None:
    block = council.block(0)
    commits = tuple(council.say(i, Kind.COMMIT, 1, block.hash).signed for i in range(3))
    refused(with_attachments(council.round_change(0, 2, (1, block)), prepares=commits), council, "something else")


def test_a_body_must_be_the_one_that_the_header_names(council: Council) -> None:
    block = council.block(0)
    check_body(block)
    other = Block(replace(block.header, transactions_root=bytes(32)))
    with pytest.raises(InvalidMessage, match="not those that its header names"):
        check_body(other)
