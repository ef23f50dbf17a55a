"""One engine, told exactly what a test wants it to hear: rules that a network in good order seldom shows."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from node.chain.block import Block
from node.consensus.engine import Engine
from node.consensus.events import (
    Behind,
    Build,
    Built,
    Event,
    Head,
    HeadAdvanced,
    Lagging,
    PeerConnected,
    PeerGone,
    Policy,
    Ready,
    Received,
    Tick,
    Validated,
    WorkChanged,
)
from node.consensus.evidence import verify_evidence
from node.consensus.guard import create_records, replay
from node.consensus.messages import Attachments, Kind, Message, SignedStatement, Statement

from .conftest import RECOVER, Council, make_header

POLICY = Policy(block_interval_empty_ms=5_000)


class Bench:
    """Validator `me` of a council at height 1: round r's proposer is validator (1 + r) % n."""

    def __init__(self, council: Council, me: int, *, connected: Iterable[int] | None = None) -> None:
        self.council, self.me = council, me
        key = council.keys[me]
        guard, _ = replay(create_records(council.domain, key.address), council.domain, key.address)
        self.engine = Engine(
            domain=council.domain,
            address=key.address,
            policy=POLICY,
            guard=guard,
            head=council.head(),
            now_ms=0,
            recover=RECOVER,
        )
        self.now_ms = 0
        self.signed: list[Statement] = []
        self.valid = True
        for i in range(len(council.keys)) if connected is None else connected:
            if i != me:
                self.step(PeerConnected(council.validators[i]))

    def step(self, event: Event) -> Ready:
        """One event and what comes back to the engine by itself; the answer is that of the event alone."""
        first = self.engine.step(event, now_ms=self.now_ms)
        queue = [first]
        while queue:
            ready = queue.pop(0)
            events: list[Event] = []
            for unsigned in ready.sign:
                self.signed.append(unsigned.statement)
                signature = self.council.keys[self.me].sign(unsigned.digest(self.council.domain))
                events.append(Received(unsigned.signed(signature), self.council.validators[self.me]))
            events.extend(Validated(each.block.hash, self.valid) for each in ready.validate)
            queue.extend(self.engine.step(each, now_ms=self.now_ms) for each in events)
            if ready.decided is not None and ready is not first:
                first = replace(first, decided=ready.decided)
        return first

    def hear(self, who: int, message: Message) -> Ready:
        return self.step(Received(message, self.council.validators[who]))

    def wait(self, duration_ms: int) -> None:
        """Let time pass, ticking whenever the engine asks for it."""
        end_ms = self.now_ms + duration_ms
        for _ in range(1_000):
            deadline_ms = self.engine.deadline_ms()
            if deadline_ms is None or deadline_ms > end_ms:
                self.now_ms = end_ms
                return
            self.now_ms = max(self.now_ms, deadline_ms)
            self.step(Tick())
        raise AssertionError("the engine asks for ticks without end")

    def kinds(self) -> list[Kind]:
        return [statement.kind for statement in self.signed]

    @property
    def round(self) -> int:
        return self.engine.status().round


def bare_changes(council: Council, round_: int, who: Iterable[int]) -> tuple[SignedStatement, ...]:
    return tuple(council.round_change(i, round_).signed for i in who)


def test_one_round_from_proposal_to_certificate(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.hear(1, council.proposal(0, block))
    assert bench.kinds() == [Kind.PREPARE]
    bench.hear(1, council.say(1, Kind.PREPARE, 0, block.hash))
    assert bench.kinds() == [Kind.PREPARE], "two of four are no quorum"
    bench.hear(2, council.say(2, Kind.PREPARE, 0, block.hash))
    assert bench.kinds() == [Kind.PREPARE, Kind.COMMIT]
    assert bench.hear(1, council.say(1, Kind.COMMIT, 0, block.hash)).decided is None
    decided = bench.hear(2, council.say(2, Kind.COMMIT, 0, block.hash)).decided
    assert decided is not None
    assert len(decided.certificate.seals) == 3
    assert bench.engine.deadline_ms() is None, "waits for its disk"


def test_commits_of_others_decide_without_an_own_one(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.hear(1, council.proposal(0, block))
    for who in (1, 2):
        assert bench.hear(who, council.say(who, Kind.COMMIT, 0, block.hash)).decided is None
    assert bench.hear(3, council.say(3, Kind.COMMIT, 0, block.hash)).decided is not None
    assert Kind.COMMIT not in bench.kinds()


def test_commits_of_different_rounds_do_not_add_up_and_an_earlier_rounds_quorum_does(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.hear(1, council.proposal(0, block))
    bench.wait(POLICY.round_timeout_ms)
    assert bench.round == 1
    assert bench.hear(1, council.say(1, Kind.COMMIT, 0, block.hash)).decided is None
    assert bench.hear(2, council.say(2, Kind.COMMIT, 1, block.hash)).decided is None
    assert bench.hear(3, council.say(3, Kind.COMMIT, 0, block.hash)).decided is None
    decided = bench.hear(2, council.say(2, Kind.COMMIT, 0, block.hash)).decided
    assert decided is not None
    assert decided.certificate.round == 0


def test_a_proposal_that_comes_after_its_round_can_still_become_final(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.step(WorkChanged(True))
    bench.wait(2 * POLICY.round_timeout_ms)
    assert bench.round == 1
    for who in (1, 2, 3):
        ready = bench.hear(who, council.say(who, Kind.COMMIT, 0, block.hash))
    assert ready.behind == Behind(council.validators[1], 2), "final elsewhere, and the block was never received"
    assert bench.hear(1, council.proposal(0, block)).decided is not None
    assert Kind.PREPARE not in bench.kinds(), "nothing is prepared below one's own ROUND-CHANGE"


def test_an_invalid_block_is_not_prepared(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.valid = False
    bench.hear(1, council.proposal(0, block))
    for who in (1, 2, 3):
        bench.hear(who, council.say(who, Kind.PREPARE, 0, block.hash))
    assert bench.kinds() == []
    bench.wait(POLICY.round_timeout_ms)
    assert bench.kinds() == [Kind.ROUND_CHANGE]


def test_a_block_refused_as_fresh_is_committed_once_a_quorum_has_prepared_it(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.valid = False  # its clock is slow
    assert [each.fresh for each in bench.hear(1, council.proposal(0, block)).validate] == [True]
    bench.valid = True
    for who in (1, 2):
        assert not bench.hear(who, council.say(who, Kind.PREPARE, 0, block.hash)).validate
    assert bench.signed == []
    ready = bench.hear(3, council.say(3, Kind.PREPARE, 0, block.hash))
    assert [each.fresh for each in ready.validate] == [False]
    assert bench.kinds() == [Kind.PREPARE, Kind.COMMIT]


def test_a_block_refused_as_fresh_is_executed_again_once_a_quorum_vouches_for_it(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.valid = False  # say, its timestamp lies too far in the future
    ready = bench.hear(1, council.proposal(0, block))
    assert [each.fresh for each in ready.validate] == [True]
    bench.valid = True
    changes = tuple(council.round_change(i, 1, (0, block)).signed for i in (1, 2, 3))
    ready = bench.hear(2, council.proposal(1, block, changes, council.prepares(0, block, [1, 2, 3])))
    assert [each.fresh for each in ready.validate] == [False]
    assert bench.signed[-1] == Statement(Kind.PREPARE, 1, 1, block.hash)


@pytest.mark.parametrize("sender", [0, 2, 3])
def test_only_the_proposer_proposes(council: Council, sender: int) -> None:
    me = 1 if sender != 1 else 0
    bench = Bench(council, me)
    block = council.block(0)
    statement = council.say(sender, Kind.PROPOSAL, 0, block.hash)
    ready = bench.hear(sender, Message(statement.signed, Attachments(block)))
    assert "another than its proposer" in ready.refused[0].reason
    assert bench.engine.status().step == "waiting"


def test_a_justified_proposal_of_a_higher_round_is_followed_at_once(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(2)
    bench.hear(3, council.proposal(2, block, bare_changes(council, 2, (1, 2, 3))))
    assert bench.round == 2
    assert bench.signed == [Statement(Kind.PREPARE, 1, 2, block.hash)]


def test_f_plus_one_in_higher_rounds_draw_along_and_one_does_not(council: Council) -> None:
    bench = Bench(council, 0)
    bench.hear(1, council.round_change(1, 9))
    assert (bench.round, bench.signed) == (0, [])
    bench.hear(2, council.round_change(2, 4))
    assert bench.round == 4, "the highest round that f + 1 have reached"
    assert bench.signed == [Statement(Kind.ROUND_CHANGE, 1, 4, None)]


def test_timers_above_round_zero_wait_for_a_quorum(council: Council) -> None:
    bench = Bench(council, 0)
    bench.step(WorkChanged(True))
    bench.wait(600_000)
    assert bench.round == 1, "alone it goes one round ahead and no further"
    bench.hear(1, council.round_change(1, 1))
    bench.wait(600_000)
    assert bench.round == 1
    bench.hear(3, council.round_change(3, 5))
    bench.wait(2 * POLICY.round_timeout_ms - 1)
    assert bench.round == 1
    bench.wait(1)
    assert bench.round == 2


def test_the_proposer_of_a_higher_round_reproposes_the_highest_prepared_block(council: Council) -> None:
    bench = Bench(council, 3)  # the proposer of round 2
    old, new = council.block(0), council.block(1)
    bench.hear(0, council.round_change(0, 2, (0, old)))
    ready = bench.hear(1, council.round_change(1, 2, (1, new)))
    assert ready.sign[0].statement.kind is Kind.ROUND_CHANGE, "drawn along; its own is the third"
    proposal = next(each for each in bench.signed if each.kind is Kind.PROPOSAL)
    assert proposal == Statement(Kind.PROPOSAL, 1, 2, new.hash)
    assert bench.signed[-1] == Statement(Kind.PREPARE, 1, 2, new.hash), "its own justification passes its own check"


def test_an_unjustified_claim_is_not_reproposed(council: Council) -> None:
    bench, block = Bench(council, 3), council.block(0)
    false = council.round_change(0, 2, (1, council.block(1)))
    forged = Message(false.signed, Attachments(false.attachments.block, (), council.prepares(1, block)))
    assert bench.hear(0, forged).refused
    bench.hear(1, council.round_change(1, 2, (0, block)))
    bench.hear(2, council.round_change(2, 2))
    assert next(each for each in bench.signed if each.kind is Kind.PROPOSAL).block_hash == block.hash


def test_a_round_change_carries_what_was_prepared(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.hear(1, council.proposal(0, block))
    for who in (1, 2):
        bench.hear(who, council.say(who, Kind.PREPARE, 0, block.hash))
    bench.wait(POLICY.round_timeout_ms)
    assert bench.signed[-1] == Statement(Kind.ROUND_CHANGE, 1, 1, block.hash, 0)


def test_a_proposer_that_is_gone_or_has_left_the_round_gets_a_short_timer(council: Council) -> None:
    for connected, event in (((2, 3), None), ((1, 2, 3), PeerGone(council.validators[1]))):
        bench = Bench(council, 0, connected=connected)
        bench.step(WorkChanged(True))
        bench.wait(POLICY.block_interval_min_ms)
        if event:
            bench.step(event)
        bench.wait(POLICY.dead_proposer_timeout_ms)
        assert bench.round == 1
    bench = Bench(council, 0)
    bench.hear(1, council.round_change(1, 1))
    bench.wait(POLICY.dead_proposer_timeout_ms)
    assert bench.round == 1


def test_a_proposer_without_a_block_asks_again(council: Council) -> None:
    bench = Bench(council, 1)
    assert bench.engine.deadline_ms() == POLICY.block_interval_empty_ms
    bench.step(WorkChanged(True))
    bench.now_ms = POLICY.block_interval_min_ms
    assert bench.step(Tick()).build == Build(1, 0)
    assert bench.step(Tick()).build is None, "once is enough"
    assert bench.step(Built(1, 0, None)).build is None
    bench.now_ms += POLICY.block_interval_min_ms
    assert bench.step(Tick()).build == Build(1, 0)
    assert bench.step(Built(1, 1, council.block(0))).sign == ()
    bench.step(Built(1, 0, council.block(0)))
    assert bench.kinds() == [Kind.PROPOSAL, Kind.PREPARE]


def test_equivocation_is_kept_as_evidence_once_and_only_the_first_counts(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.hear(1, council.proposal(0, block))
    other = council.block(0, salt=1)
    ready = bench.hear(1, council.proposal(0, other))
    (evidence,) = ready.evidence
    verify_evidence(evidence, council.domain)
    assert evidence.validator == council.validators[1]
    assert bench.hear(1, council.proposal(0, council.block(0, salt=2))).evidence == ()
    bench.hear(3, council.say(3, Kind.PREPARE, 0, other.hash))
    assert bench.hear(3, council.say(3, Kind.PREPARE, 0, block.hash)).evidence[0].validator == council.validators[3]
    bench.hear(2, council.say(2, Kind.PREPARE, 0, block.hash))
    assert bench.kinds() == [Kind.PREPARE], "an equivocator's second PREPARE completes no quorum"


def test_a_body_under_a_right_header_does_not_stand_in_for_the_right_one(council: Council) -> None:
    bench = Bench(council, 0)
    wrong = Block(replace(council.block(0).header, transactions_root=bytes(32)))
    ready = bench.hear(1, council.proposal(0, wrong))
    assert "transactions" in ready.refused[0].reason
    assert ready.validate == ()


def test_whoever_speaks_of_a_final_height_gets_it_and_late_commits_do_not_count_as_such(council: Council) -> None:
    bench = Bench(council, 0)
    block = council.block(0)
    second = make_header(block.header, council.validators[2])
    bench.step(HeadAdvanced(Head(block.header, council.validators)))
    late = council.say(1, Kind.COMMIT, 0, block.hash)
    assert bench.hear(1, late).lagging == ()
    assert bench.hear(2, council.round_change(2, 1)).lagging == (Lagging(council.validators[2], 1),)
    assert bench.hear(2, council.round_change(2, 1)).lagging == (), "not too often"
    bench.now_ms += POLICY.lagging_grace_ms
    assert bench.hear(1, late).lagging == (Lagging(council.validators[1], 1),)
    bench.step(HeadAdvanced(Head(second, council.validators)))
    assert bench.hear(3, council.say(3, Kind.PREPARE, 0, block.hash)).lagging == (Lagging(council.validators[3], 1),)


def test_messages_of_the_next_height_wait_for_it_and_are_bounded(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    after = Council(4, block.header)
    child = after.block(0)
    ready = bench.hear(2, after.proposal(0, child))
    assert ready.behind == Behind(council.validators[2], 2)
    assert bench.hear(2, after.say(2, Kind.PREPARE, 0, child.hash)).behind is None, "said once"
    for round_ in range(1, 200):
        bench.hear(3, after.round_change(3, round_))
    assert bench.signed == []
    held = bench.engine._future._held
    assert len(held[council.validators[3]]) == POLICY.future_messages_max
    bench.step(HeadAdvanced(Head(block.header, council.validators)))
    assert bench.signed == [Statement(Kind.PREPARE, 2, 0, child.hash)]
    assert not held


def test_strangers_are_not_heard(council: Council) -> None:
    bench = Bench(council, 0)
    seven = Council(7)
    stranger = next(i for i in range(7) if seven.validators[i] not in council.validators)
    message = seven.round_change(stranger, 9)
    before = bench.engine.status()
    ready = bench.step(Received(message, seven.validators[stranger]))
    assert not ready
    assert bench.engine.status() == before


def test_what_is_current_is_said_again_to_whom_can_be_reached_again_and_when_it_takes_long(council: Council) -> None:
    bench, block = Bench(council, 0), council.block(0)
    bench.hear(1, council.proposal(0, block))
    sent = bench.step(PeerConnected(council.validators[2])).send
    assert [(each.message.statement.kind, each.to) for each in sent] == [(Kind.PREPARE, council.validators[2])]
    bench.now_ms = POLICY.round_timeout_ms
    ready = bench.step(Tick())
    assert ready.sign[0].statement.kind is Kind.ROUND_CHANGE
    bench.now_ms += POLICY.round_timeout_ms
    again = bench.step(Tick()).send
    assert [(each.message.statement.kind, each.to) for each in again] == [(Kind.ROUND_CHANGE, None)]


def test_nothing_is_signed_by_who_is_no_validator(council: Council) -> None:
    bench = Bench(council, 0)
    others = Head(council.block(0).header, council.validators[1:])
    bench.step(HeadAdvanced(others))
    bench.step(WorkChanged(True))
    bench.wait(100_000)
    assert bench.signed == []
    assert bench.engine.status().signs is False
