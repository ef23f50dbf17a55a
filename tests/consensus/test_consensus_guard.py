"""The sign guard: its rules, its records across every kind of damage, and the lost and the stale one in the engine."""

import zlib
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.chain.block import Block
from node.chain.domain import Domain
from node.chain.genesis import BLOCK_BYTES_MAX_RANGE
from node.chain.signing import SigningKey
from node.chain.transaction import TRANSACTION_BYTES_MAX, sign_transaction
from node.consensus.engine import Engine
from node.consensus.events import Head, HeadAdvanced, PeerConnected, PeerStatus, Policy, Received, Tick, WorkChanged
from node.consensus.guard import GuardCorrupt, GuardState, Prepared, create_records, replay
from node.consensus.messages import Kind, Statement

from .conftest import RECOVER, Council, Network, make_header

COUNCIL = Council(4)
ME = COUNCIL.validators[0]
BLOCKS = [COUNCIL.block(0, salt=salt) for salt in range(3)]
HASHES = [block.hash for block in BLOCKS]

Step = tuple[Statement, Prepared | None]


def fresh_guard() -> GuardState:
    return replay(create_records(COUNCIL.domain, ME), COUNCIL.domain, ME)[0]


def prepared(round_: int, which: int) -> Prepared:
    return Prepared(round_, BLOCKS[which], COUNCIL.prepares(round_, BLOCKS[which]))


@st.composite
def wishes(draw: st.DrawFn) -> Step:
    """Something a faulty or forgetful engine might want to sign."""
    kind = draw(st.sampled_from(Kind))
    height, round_, which = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.integers(0, 2))
    if kind is Kind.ROUND_CHANGE:
        round_ += 1
        claim = draw(st.none() | st.integers(0, round_ - 1))
        return Statement(kind, height, round_, None if claim is None else HASHES[which], claim), None
    proof = prepared(round_, which) if kind is Kind.COMMIT and draw(st.booleans()) else None
    return Statement(kind, height, round_, HASHES[which]), proof


def obey(guard: GuardState, steps: list[Step]) -> tuple[list[Step], bytes]:
    """What the guard let pass, and its file."""
    passed, data = [], create_records(COUNCIL.domain, ME)
    for statement, proof in steps:
        if guard.may_sign(statement, proof):
            if not guard.has_signed(statement):
                guard.note_signed([statement], proof)
            passed.append((statement, proof))
        data += b"".join(guard.flush())
    return passed, data


@given(st.lists(wishes(), max_size=25))
def test_what_passes_breaks_no_promise(steps: list[Step]) -> None:
    """The slow oracle: every pair of statements that passed, in their order."""
    passed, _ = obey(fresh_guard(), steps)
    for later, (statement, _) in enumerate(passed):
        shown = [proof for (s, proof) in passed[:later] if proof is not None and s.height == statement.height]
        for earlier, _ in passed[:later]:
            assert earlier.height <= statement.height
            if earlier.height == statement.height:
                if (earlier.kind, earlier.round) == (statement.kind, statement.round):
                    assert earlier == statement, "two different things at one step"
                if earlier.kind is Kind.ROUND_CHANGE:
                    assert statement.round >= earlier.round, "below an own ROUND-CHANGE"
        first_time = statement not in [earlier for earlier, _ in passed[:later]]
        if statement.kind is Kind.ROUND_CHANGE and first_time:
            highest = max((proof.round for proof in shown), default=None)
            assert statement.prepared_round == highest, "forgot what was prepared"


@given(st.lists(wishes(), max_size=25), st.integers(0, 25))
def test_a_restart_or_a_compaction_anywhere_changes_nothing(steps: list[Step], at: int) -> None:
    straight, _ = obey(fresh_guard(), steps)
    guard = fresh_guard()
    before, data = obey(guard, steps[:at])
    compacted = guard.snapshot_records()
    for image in (data, compacted):
        reborn, whole = replay(image, COUNCIL.domain, ME)
        assert whole == len(image)
        assert reborn == guard
        after, more = obey(reborn, steps[at:])
        assert before + after == straight
        again, _ = replay(image + more[len(create_records(COUNCIL.domain, ME)) :], COUNCIL.domain, ME)
        assert again == reborn


@given(st.lists(wishes(), min_size=8, max_size=20), st.data())
def test_a_torn_tail_is_cut_to_the_last_whole_record(steps: list[Step], data: st.DataObject) -> None:
    image = create_records(COUNCIL.domain, ME)
    ends, guard = [len(image)], fresh_guard()
    for statement, proof in steps:
        if guard.may_sign(statement, proof) and not guard.has_signed(statement):
            guard.note_signed([statement], proof)
            image += b"".join(guard.flush())
            ends.append(len(image))
    cut = data.draw(st.integers(ends[0], len(image)))
    torn = image[:cut]
    if cut not in ends:
        torn += bytes(data.draw(st.integers(0, 30)))  # the size grew before the data came
    whole = max(end for end in ends if torn[:end] == image[:end])  # a record may itself end in zeros
    assert replay(torn, COUNCIL.domain, ME)[1] == whole


def long_guard() -> tuple[bytes, list[int]]:
    image, guard = create_records(COUNCIL.domain, ME), fresh_guard()
    starts = [0]
    for height in range(1, 4):
        for kind, proof in ((Kind.PREPARE, None), (Kind.COMMIT, prepared(0, 0))):
            guard.note_signed([Statement(kind, height, 0, HASHES[0])], proof)
            starts.append(len(image))
            image += b"".join(guard.flush())
    return image, starts


MARK = b"\x8f\x01\xee\x42"


def torn_with(inside: bytes, mark: bytes) -> tuple[bytes, bytes]:
    """A guard file, and what is left of it when the record of a block that holds `inside` is torn at its end."""
    image = create_records(COUNCIL.domain, ME, mark=mark)
    guard = replay(image, COUNCIL.domain, ME)[0]
    data = sign_transaction(SigningKey(b"\x05" * 32), chain_id=1, nonce=0, to=bytes(20), gas_limit=10**6, data=inside)
    block = Block(BLOCKS[0].header, (data,))
    guard.note_signed([Statement(Kind.COMMIT, 1, 0, block.hash)], Prepared(0, block, ()))
    return image, image + b"".join(guard.flush())[:-3]


def test_nobodys_transaction_makes_a_torn_tail_look_corrupt() -> None:
    later = fresh_guard()
    later.sequence = 9
    later.note_lost()
    forged = b"".join(later.flush())  # a whole record, later than all that are there
    image, torn = torn_with(forged, MARK)
    assert forged in torn
    assert replay(torn, COUNCIL.domain, ME)[1] == len(image)
    with pytest.raises(GuardCorrupt, match="not its end"):  # so it was in files without a mark of their own
        replay(torn_with(forged, b"PSG1")[1], COUNCIL.domain, ME)


def test_damage_in_the_middle_is_found_by_the_files_own_mark() -> None:
    image = create_records(COUNCIL.domain, ME, mark=MARK)
    guard = replay(image, COUNCIL.domain, ME)[0]
    records: list[bytes] = []
    for height in (1, 2, 3):
        guard.note_signed([Statement(Kind.PREPARE, height, 0, HASHES[0])])
        records += guard.flush()
    assert all(record.startswith(MARK) for record in records)
    assert replay(image + b"".join(records), COUNCIL.domain, ME) == (guard, len(image) + sum(map(len, records)))
    again, _ = replay(guard.snapshot_records(), COUNCIL.domain, ME)
    assert (again, again.mark) == (guard, MARK), "a compacted file keeps its mark"
    damaged = bytearray(image + b"".join(records))
    damaged[len(image) + 20] ^= 1
    with pytest.raises(GuardCorrupt, match="not its end"):
        replay(bytes(damaged), COUNCIL.domain, ME)


def test_a_file_without_a_mark_of_its_own_is_read_as_ever() -> None:
    image = create_records(COUNCIL.domain, ME)
    assert msgpack.unpackb(image[12:]) == [0, [[0, 1, COUNCIL.domain.chain_id, COUNCIL.domain.genesis_hash, ME]]]
    floor = bytes(msgpack.packb([1, [[4, 7]]], use_bin_type=True))
    record = b"PSG1" + len(floor).to_bytes(4, "big") + zlib.crc32(floor).to_bytes(4, "big") + floor
    guard, whole = replay(image + record, COUNCIL.domain, ME)
    assert (guard.mark, guard.floor, guard.asked, whole) == (b"PSG1", 7, None, len(image + record))


def test_damage_in_the_middle_is_refused_wherever_it_is() -> None:
    image, starts = long_guard()
    for position in range(0, starts[-1], 7):
        damaged = bytearray(image)
        damaged[position] ^= 0x10
        with pytest.raises(GuardCorrupt):
            replay(bytes(damaged), COUNCIL.domain, ME)
    with pytest.raises(GuardCorrupt, match="record 3 follows record 1"):
        replay(image[: starts[2]] + image[starts[3] :], COUNCIL.domain, ME)
    with pytest.raises(GuardCorrupt, match="empty"):
        replay(b"", COUNCIL.domain, ME)


def test_another_validators_or_networks_guard_is_refused() -> None:
    image, _ = long_guard()
    for domain, address in (
        (COUNCIL.domain, COUNCIL.validators[1]),
        (Domain(1, COUNCIL.domain.genesis_hash), ME),
        (Domain(COUNCIL.domain.chain_id, bytes(32)), ME),
    ):
        with pytest.raises(GuardCorrupt, match=f"found that of 0x{ME.hex()} on chain {COUNCIL.domain.chain_id}"):
            replay(image, domain, address)


def test_nothing_is_noted_that_may_not_be_signed() -> None:
    guard = fresh_guard()
    guard.note_signed([Statement(Kind.PREPARE, 1, 0, HASHES[0])])
    with pytest.raises(GuardCorrupt, match="breaks an earlier promise"):
        guard.note_signed([Statement(Kind.PREPARE, 1, 0, HASHES[1])])


def test_floor_and_loss() -> None:
    guard = fresh_guard()
    guard.note_lost()
    assert not guard.may_sign(Statement(Kind.PREPARE, 9, 0, HASHES[0]))
    guard.note_floor(8)
    assert guard.may_sign(Statement(Kind.PREPARE, 9, 0, HASHES[0]))
    assert not guard.may_sign(Statement(Kind.PREPARE, 8, 0, HASHES[0]))
    for image in (create_records(COUNCIL.domain, ME) + b"".join(guard.flush()), guard.snapshot_records()):
        assert replay(image, COUNCIL.domain, ME)[0] == guard


# --- in the engine ----------------------------------------------------------------------------------------------------


def engine_of(guard: GuardState, head: Head | None = None) -> Engine:
    return Engine(
        domain=COUNCIL.domain,
        address=ME,
        policy=Policy(),
        guard=guard,
        head=head or COUNCIL.head(),
        now_ms=0,
        recover=RECOVER,
    )


def heads(count: int) -> Iterator[Head]:
    parent = COUNCIL.parent
    for height in range(1, count + 1):
        parent = make_header(parent, COUNCIL.validators[height % 4])
        yield Head(parent, COUNCIL.validators)


def test_a_lost_guard_signs_only_above_two_more_than_the_others_heads() -> None:
    guard = replay(create_records(COUNCIL.domain, ME, lost=True), COUNCIL.domain, ME)[0]
    engine = engine_of(guard)
    for i, height in ((1, 3), (2, 5)):
        assert not engine.step(PeerStatus(COUNCIL.validators[i], height), now_ms=1).guard
    chain = list(heads(8))
    engine.step(HeadAdvanced(chain[3]), now_ms=2)
    engine.step(PeerStatus(COUNCIL.validators[3], 4), now_ms=3)
    assert engine.status().guard_lost, "it does not know yet who the validators at height 5 are"
    assert engine.step(HeadAdvanced(chain[4]), now_ms=4).guard, "the floor is durable"
    assert (engine.status().guard_floor, engine.status().guard_lost) == (7, False)
    for head, signs in ((chain[5], False), (chain[6], True)):
        engine.step(HeadAdvanced(head), now_ms=5)
        assert engine.status().signs is signs


def test_a_floor_holds_for_the_set_that_was_asked_for_it() -> None:
    """A, B and C have been left behind at height 3; D asks them. Block 4, which it fetches, names others."""
    guard = replay(create_records(COUNCIL.domain, ME, lost=True), COUNCIL.domain, ME)[0]
    engine, chain = engine_of(guard), list(heads(9))
    for i in (1, 2, 3):
        engine.step(PeerStatus(COUNCIL.validators[i], 3), now_ms=1)
    engine.step(HeadAdvanced(chain[2]), now_ms=2)
    assert (engine.status().guard_lost, engine.status().guard_floor) == (False, 5)
    newcomers = tuple(sorted((ME, *(bytes([number]) * 20 for number in (0xE0, 0xE1, 0xE2)))))
    renewed = [Head(head.header, newcomers) for head in chain]
    assert engine.step(HeadAdvanced(renewed[3]), now_ms=3).guard, "that the floor is no floor any more is durable"
    assert engine.status().guard_lost
    again = engine_of(replay(guard.snapshot_records(), COUNCIL.domain, ME)[0], renewed[3])
    for each in (engine, again):
        for newcomer in newcomers:
            each.step(PeerStatus(newcomer, 8), now_ms=4)
        for head in renewed[4:7]:
            each.step(HeadAdvanced(head), now_ms=5)
            assert each.status().guard_lost, "the newcomers are further"
        each.step(HeadAdvanced(renewed[7]), now_ms=6)
        assert (each.status().guard_lost, each.status().guard_floor) == (False, 10)


def test_an_operators_floor_holds_for_every_set() -> None:
    guard = replay(create_records(COUNCIL.domain, ME, lost=True), COUNCIL.domain, ME)[0]
    guard.note_floor(6)
    engine, chain = engine_of(guard), list(heads(4))
    engine.step(HeadAdvanced(Head(chain[3].header, COUNCIL.validators[:2])), now_ms=1)
    assert (engine.status().guard_lost, engine.status().guard_floor) == (False, 6)


def test_two_reports_are_no_quorum_of_four() -> None:
    guard = replay(create_records(COUNCIL.domain, ME, lost=True), COUNCIL.domain, ME)[0]
    engine = engine_of(guard)
    for _ in range(5):
        for i in (0, 1, 2):  # its own is none of the others
            engine.step(PeerStatus(COUNCIL.validators[i], 0), now_ms=1)
    assert engine.status().guard_lost


def test_an_own_signature_above_the_guard_means_that_it_is_stale() -> None:
    for beyond in (
        COUNCIL.say(0, Kind.PREPARE, 0, HASHES[1]),  # another at the same step
        COUNCIL.say(0, Kind.PREPARE, 1, HASHES[0]),
        COUNCIL.say(0, Kind.COMMIT, 0, HASHES[0]),
        Council(4, BLOCKS[0].header).say(0, Kind.PREPARE, 0, HASHES[0]),
    ):
        guard = fresh_guard()
        guard.note_signed([Statement(Kind.PREPARE, 1, 0, HASHES[0])])
        guard.flush()
        engine = engine_of(guard)
        engine.step(Received(COUNCIL.say(0, Kind.PREPARE, 0, HASHES[0]), ME), now_ms=1)
        assert not engine.status().guard_lost
        ready = engine.step(Received(beyond, ME), now_ms=2)
        assert ready.guard
        assert engine.status().guard_lost
        assert not engine.step(WorkChanged(True), now_ms=10**6).sign


def test_peers_show_a_newcomer_its_own_newest_statement() -> None:
    guard = replay(create_records(COUNCIL.domain, COUNCIL.validators[1]), COUNCIL.domain, COUNCIL.validators[1])[0]
    engine = Engine(
        domain=COUNCIL.domain,
        address=COUNCIL.validators[1],
        policy=Policy(),
        guard=guard,
        head=COUNCIL.head(),
        now_ms=0,
    )
    change = COUNCIL.round_change(0, 2, (1, BLOCKS[0]))
    engine.step(Received(COUNCIL.say(0, Kind.PREPARE, 1, HASHES[0]), ME), now_ms=1)
    engine.step(Received(change, ME), now_ms=1)
    shown = [send.message for send in engine.step(PeerConnected(ME), now_ms=2).send if send.to == ME]
    assert change.bare in shown


def test_a_validator_with_a_stale_guard_rejoins_and_never_contradicts_itself() -> None:
    for seed in range(12):
        network = Network(4, seed)
        network.start()
        network.run(network.random.randint(100, 900))
        victim = network.nodes[seed % 4]
        stale = victim.disk.guard
        network.run(network.random.randint(50, 600))
        network.crash(victim, down_ms=10**9)
        victim.disk.guard = stale if seed % 2 else create_records(COUNCIL.domain, victim.key.address, lost=True)
        network.run(5)
        network.restart(victim)  # `watch` compares all that it signs with what it signed in its former life
        target = max(network.heights()) + 8
        assert network.run(20_000, network.all_reach(target))
        assert victim.engine is not None
        assert not victim.engine.status().guard_lost
        network.crash(network.nodes[(seed + 1) % 4], down_ms=10**9)
        alive = [node for node in network.nodes if node.engine is not None]
        assert network.run(20_000, lambda: min(n.head.number for n in alive) >= target + 8), "it is needed, and signs"  # noqa: B023


def test_a_restart_resumes_its_round_and_makes_the_same_promises() -> None:
    guard = fresh_guard()
    guard.note_signed([Statement(Kind.PREPARE, 1, 0, HASHES[0])])
    guard.note_signed([Statement(Kind.COMMIT, 1, 0, HASHES[0])], prepared(0, 0))
    guard.note_signed([Statement(Kind.ROUND_CHANGE, 1, 3, HASHES[0], 0)])
    image = create_records(COUNCIL.domain, ME) + b"".join(guard.flush())
    engine = engine_of(replay(image, COUNCIL.domain, ME)[0])
    ready = engine.step(Tick(), now_ms=1)
    assert engine.status().round == 3
    assert not ready.guard, "the identical message needs no new record"
    assert [unsigned.statement for unsigned in ready.sign] == [Statement(Kind.ROUND_CHANGE, 1, 3, HASHES[0], 0)]
    assert ready.sign[0].attachments.block == BLOCKS[0]
    assert len(ready.sign[0].attachments.prepares) == 3


def test_a_record_of_the_largest_block_is_whole() -> None:
    """Read as torn, it would be cut, and what it promises forgotten: genesis allows blocks of 64 MiB."""
    key = SigningKey(b"\1" * 32)
    filler = sign_transaction(
        key, chain_id=1, nonce=0, to=bytes(20), gas_limit=1, data=bytes(TRANSACTION_BYTES_MAX - 200)
    )
    block = Block(BLOCKS[0].header, (filler,) * (BLOCK_BYTES_MAX_RANGE[1] // len(filler.raw)))
    guard, commit = fresh_guard(), Statement(Kind.COMMIT, 1, 0, block.hash)
    guard.note_signed([commit], Prepared(0, block, COUNCIL.prepares(0, block) * 100))
    data = create_records(COUNCIL.domain, ME) + b"".join(guard.flush())
    for stored in (data, guard.snapshot_records()):
        restored, whole_bytes = replay(stored, COUNCIL.domain, ME)
        assert whole_bytes == len(stored)
        assert restored == guard
