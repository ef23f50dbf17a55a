"""An override and a changed set, seen by guard, justification and engine: what the lost had agreed on binds nobody."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle.patricia import EMPTY_ROOT
from node.chain.block import Block, Header
from node.consensus.engine import Engine
from node.consensus.events import Head, HeadAdvanced, PeerConnected, Policy, Received, Tick
from node.consensus.guard import GuardState, Overridden, Prepared, create_records, replay
from node.consensus.justification import Committee, check_block, check_round_change
from node.consensus.messages import Attachments, InvalidMessage, Kind, Message, SignedStatement, Statement
from node.consensus.override import Override
from node.consensus.quorum import proposer

from .conftest import GENESIS, RECOVER, Council, make_header

OLD = Council(4)
CHOSEN = OLD.validators[:2]
OVERRIDE = Override(OLD.domain, GENESIS.number, GENESIS.hash, CHOSEN)
ME = CHOSEN[0]
DIGESTS = [bytes([number]) * 32 for number in range(3)]
STATEMENTS = [
    Statement(Kind.PREPARE, 1, 0, OLD.block(0).hash),
    Statement(Kind.ROUND_CHANGE, 1, 3, None),
    Statement(Kind.PREPARE, 2, 1, OLD.block(0).hash),
]


def fresh_guard() -> GuardState:
    return replay(create_records(OLD.domain, ME), OLD.domain, ME)[0]


def stuck_guard(round_: int = 2) -> GuardState:
    """It has prepared a block among the old validators and changed its round since."""
    guard, block = fresh_guard(), OLD.block(0)
    guard.note_signed([Statement(Kind.PREPARE, 1, 0, block.hash)])
    guard.note_signed([Statement(Kind.COMMIT, 1, 0, block.hash)], Prepared(0, block, OLD.prepares(0, block)))
    guard.note_signed([Statement(Kind.ROUND_CHANGE, 1, round_, block.hash, 0)])
    return guard


def new_block(round_: int, extra_data: bytes = OVERRIDE.committed) -> Block:
    header: Header = make_header(GENESIS, proposer(CHOSEN, 1, round_))
    return Block(replace(header, extra_data=extra_data))


# --- the guard -----------------------------------------------------------------------------------------------------


def test_the_guard_forgets_what_was_prepared_and_keeps_what_was_signed_by_going_on_above_it() -> None:
    guard = stuck_guard()
    old_change = guard.signed[Kind.ROUND_CHANGE]
    guard.note_override(1, OVERRIDE.digest)
    assert [guard.prepared, guard.carried, guard.round] == [None, None, 3]
    block = new_block(3)
    for round_ in range(3):
        assert not guard.may_sign(Statement(Kind.PREPARE, 1, round_, block.hash))
        assert not guard.may_sign(Statement(Kind.ROUND_CHANGE, 1, round_, None))
    assert not guard.may_sign(old_change), "not even the same again"
    assert guard.covers(old_change), "the guard knows of it, so nobody's showing it makes the guard stale"
    assert guard.may_sign(Statement(Kind.ROUND_CHANGE, 1, 3, None))
    assert guard.may_sign(Statement(Kind.PREPARE, 1, 3, block.hash))


def test_an_override_is_noted_once() -> None:
    guard = stuck_guard()
    guard.note_override(1, OVERRIDE.digest)
    block = new_block(3)
    committed = Prepared(3, block, OLD.prepares(3, block, [0, 1]))
    guard.note_signed([Statement(Kind.ROUND_CHANGE, 1, 3, None)])
    guard.note_signed([Statement(Kind.PREPARE, 1, 3, block.hash)])
    guard.note_signed([Statement(Kind.COMMIT, 1, 3, block.hash)], committed)
    guard.flush()
    guard.note_override(1, OVERRIDE.digest)
    assert guard.flush() == ()
    assert guard.prepared == committed, "what the chosen validators prepared is a promise as any other"
    guard.note_override(1, DIGESTS[0])  # operators start over: these validators are lost as well
    assert [guard.prepared, guard.round] == [None, 4]


def test_a_guard_that_has_signed_above_knows_that_the_height_was_final() -> None:
    guard = fresh_guard()
    guard.note_signed([STATEMENTS[2]])
    guard.flush()
    guard.note_override(1, OVERRIDE.digest)
    assert guard.overridden is None
    assert guard.flush() == ()


@given(st.lists(st.sampled_from([*STATEMENTS, *DIGESTS]), max_size=8), st.integers(0, 8))
def test_a_restart_or_a_compaction_anywhere_changes_nothing(steps: list[Statement | bytes], at: int) -> None:
    def obey(guard: GuardState, todo: list[Statement | bytes]) -> bytes:
        data = b""
        for step in todo:
            if isinstance(step, bytes):
                guard.note_override(1 + step[0] % 2, step)
            elif guard.may_sign(step) and not guard.has_signed(step):
                guard.note_signed([step])
            data += b"".join(guard.flush())
        return data

    straight, guard = fresh_guard(), fresh_guard()
    obey(straight, steps)
    image = create_records(OLD.domain, ME) + obey(guard, steps[:at])
    for each in (image, guard.snapshot_records()):
        reborn, whole = replay(each, OLD.domain, ME)
        assert (whole, reborn) == (len(each), guard)
        obey(reborn, steps[at:])
        assert reborn == straight


def test_a_torn_tail_of_zeros_behind_the_magic_is_no_record() -> None:
    image = create_records(OLD.domain, ME)
    assert replay(image + b"PSG1" + bytes(8), OLD.domain, ME)[1] == len(image)
    assert replay(image + b"PSG1" + bytes(40), OLD.domain, ME)[1] == len(image)


# --- justification -------------------------------------------------------------------------------------------------


def test_only_an_empty_block_that_names_the_chosen_set_is_taken() -> None:
    committee = Committee(OLD.domain, GENESIS, CHOSEN, RECOVER, OVERRIDE)
    good = new_block(0)
    check_block(good, good.hash, 0, committee)
    full = Block(replace(good.header, transactions_root=bytes(32)))
    for bad in (new_block(0, bytes(32)), full):
        with pytest.raises(InvalidMessage, match="does not put the override in place"):
            check_block(bad, bad.hash, 0, committee)
        check_block(bad, bad.hash, 0, replace(committee, override=None))
    assert good.header.transactions_root == EMPTY_ROOT


def test_what_was_prepared_among_the_lost_justifies_nothing_even_with_enough_of_the_chosen() -> None:
    """A liar picks the chosen validators' own old PREPAREs, which are a quorum of the small set."""
    committee = Committee(OLD.domain, GENESIS, CHOSEN, RECOVER, OVERRIDE)
    block = Block(make_header(GENESIS, proposer(CHOSEN, 1, 0)))
    statement = Statement(Kind.ROUND_CHANGE, 1, 1, block.hash, 0)
    attached = Attachments(block, (), OLD.prepares(0, block, [0, 1]))
    message = Message(OLD.sign(1, statement), attached)
    check_round_change(message, replace(committee, override=None))
    with pytest.raises(InvalidMessage, match="does not put the override in place"):
        check_round_change(message, committee)


# --- the engine ----------------------------------------------------------------------------------------------------


class Bench:
    """One engine with its guard; what it signs comes back to it."""

    def __init__(self, guard: GuardState, head: Head) -> None:
        self.engine = Engine(
            domain=OLD.domain,
            address=ME,
            policy=Policy(),
            guard=guard,
            head=head,
            now_ms=0,
            recover=RECOVER,
        )
        self.signed: list[Statement] = []
        self.records: list[bytes] = []

    def step(self, event: object, now_ms: int = 0) -> None:
        events = [event]
        while events:
            ready = self.engine.step(events.pop(0), now_ms=now_ms)  # type: ignore[arg-type]
            self.records.extend(ready.guard)
            for unsigned in ready.sign:
                self.signed.append(unsigned.statement)
                signature = OLD.keys[0].sign(unsigned.digest(OLD.domain))
                events.append(Received(unsigned.signed(signature), ME))


def test_a_survivor_begins_with_a_round_change_above_all_that_it_signed() -> None:
    bench = Bench(stuck_guard(), Head(GENESIS, CHOSEN, OVERRIDE))
    bench.step(Tick())
    assert bench.signed == [Statement(Kind.ROUND_CHANGE, 1, 3, None)]
    assert bench.engine.status().round == 3
    # All that `stuck_guard` noted is flushed with it.
    written, _ = replay(create_records(OLD.domain, ME) + b"".join(bench.records), OLD.domain, ME)
    assert written.overridden == Overridden(1, 3, OVERRIDE.digest), "synced before that signature left"


def test_a_survivor_that_signed_nothing_there_begins_as_ever() -> None:
    bench = Bench(fresh_guard(), Head(GENESIS, CHOSEN, OVERRIDE))
    bench.step(Tick())
    assert bench.signed == []
    assert bench.engine.status().round == 0


def test_messages_of_a_height_to_come_are_kept_of_whom_the_block_in_between_makes_a_validator() -> None:
    """The newcomer is quick: its PREPARE of height 2 comes before this node has applied block 1."""
    newcomer = OLD.keys[3].address
    three, four = OLD.validators[:3], OLD.validators
    block = Block(make_header(GENESIS, proposer(three, 1, 0)))
    second = Block(make_header(block.header, proposer(four, 2, 0)))
    bench = Bench(fresh_guard(), Head(GENESIS, three))
    bench.step(PeerConnected(newcomer))
    early = SignedStatement(
        statement := Statement(Kind.ROUND_CHANGE, 2, 1, None), OLD.keys[3].sign(statement.digest(OLD.domain))
    )
    bench.step(Received(Message(early), newcomer))
    bench.step(HeadAdvanced(Head(block.header, four)))
    assert newcomer in bench.engine.status().heard_ms
    assert second.number == bench.engine.height

    stranger = Bench(fresh_guard(), Head(GENESIS, three))
    stranger.step(PeerConnected(newcomer))
    stranger.step(Received(Message(early), newcomer))
    stranger.step(HeadAdvanced(Head(block.header, three)))
    assert newcomer not in stranger.engine.status().heard_ms
