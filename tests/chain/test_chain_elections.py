"""Elections: every named refusal, ballots against a plain model, the log against RFC 6962, and views of the past."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkle import log
from node.chain.contracts import ballots, contract, flatlog
from node.chain.contracts.elections import ABI as ELECTIONS_ABI
from node.chain.contracts.elections import log_slots, read_election, tally_slots
from node.chain.signing import SigningKey
from tests.chain.conftest import (
    ELECTIONS,
    GATEWAY,
    OTHER_GATEWAY,
    POOR,
    RICH,
    START,
    STRANGER,
    VALIDATORS,
    Chain,
    create_election,
    pack,
    word,
)

Record = tuple[bytes, bytes, int, bytes]


def cast(chain: Chain, *records: Record, key: SigningKey = GATEWAY, election: int = 1) -> list[int]:
    """Cast a batch; the outcomes."""
    receipt = chain.send(key, ELECTIONS, "castBatch", election, pack(*records))
    assert receipt.succeeded
    (event,) = receipt.event_logs
    decoded = ELECTIONS_ABI.decode_event(event)
    assert decoded is not None
    name, (id_, first, count, outcomes) = decoded
    assert (name, id_) == ("BallotsCast", election)
    assert count == outcomes.count(0)
    assert first + count == chain.view(ELECTIONS, "log", election)[0]
    return list(outcomes)


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def leaf(chain: Chain, election: int, record: Record) -> bytes:
    """The leaf's bytes as the protocol document has them, written down a second time."""
    nullifier, record_id, kind, content = record
    return b"".join(
        (
            b"\x01",
            chain.genesis.chain_id.to_bytes(8, "big"),
            chain.blocks[0].hash,
            b"\x01",
            word(election),
            nullifier,
            record_id,
            bytes((kind,)),
            len(content).to_bytes(4, "big"),
            content,
        )
    )


def test_an_election_shows_what_it_was_created_with() -> None:
    chain = Chain()
    title, options = "Ψῆφος " * 20, ["α", "β" * 40, "c" * 31, "d" * 32]
    receipt = create_election(
        chain, 7, title=title, options=options, closes_at=START + 100, grace=9, registrars=[POOR.address]
    )
    assert receipt.succeeded
    event = ELECTIONS_ABI.decode_event(receipt.event_logs[0])
    assert event == ("ElectionCreated", (7, GATEWAY.address, title))
    shown = chain.view(ELECTIONS, "election", 7)
    creator, registrars = GATEWAY.address, (POOR.address,)
    assert shown[:9] == (title, tuple(options), 3, 0, START + 100, 9, 2, creator, registrars)
    assert shown[9] == bytes(32)
    assert chain.view(ELECTIONS, "tally", 7) == ((0, 0, 0, 0), 0, 0)
    assert chain.view(ELECTIONS, "log", 7) == (0, sha256(b"").digest())
    assert chain.view(ELECTIONS, "electionCount") == 1
    assert chain.view(ELECTIONS, "electionIds", 0, 10) == (7,)
    assert chain.view(ELECTIONS, "election", 8)[6] == 0
    assert chain.view(ELECTIONS, "electionCount", height=0) == 0


def test_who_may_create() -> None:
    chain = Chain()
    assert create_election(chain, 1, key=GATEWAY).succeeded
    assert create_election(chain, 2, key=OTHER_GATEWAY).succeeded
    assert chain.genesis.validators == VALIDATORS
    arguments: tuple[object, ...] = ("x", ["a", "b"], 1, 0, 0, 0, [], bytes(32))
    assert chain.run(ELECTIONS, "create", 3, *arguments, sender=VALIDATORS[1]).succeeded
    assert chain.refusal(STRANGER, ELECTIONS, "create", 3, *arguments) == ("NotAllowedToCreate", (STRANGER.address,))
    anyone = Chain(replace(chain.genesis, anyone_creates_elections=True))
    assert create_election(anyone, 3, key=STRANGER).succeeded


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 1025}, "title"),
        ({"options": ["one"]}, "options are 2 to 64"),
        ({"options": [str(n) for n in range(65)]}, "options are 2 to 64"),
        ({"options": ["a", "a"]}, "differ"),
        ({"options": ["a", ""]}, "an option has"),
        ({"options": ["a", "b" * 257]}, "an option has"),
        ({"kinds": 0}, "kinds"),
        ({"kinds": 4}, "kinds"),
        ({"closes_at": START}, "not after this block's time"),
        ({"closes_at": START + 5, "opens_at": START + 5}, "not after opensAt"),
        ({"registrars": [bytes(20), bytes(20)]}, "registrars"),
        ({"registrars": [word(n)[12:] for n in range(65)]}, "registrars"),
    ],
)
def test_what_no_election_can_be(change: dict[str, Any], reason: str) -> None:
    chain = Chain()
    fields: dict[str, Any] = {
        "title": "t", "options": ["a", "b"], "kinds": 3, "opens_at": 0, "closes_at": 0, "grace": 0, "registrars": []
    } | change  # fmt: skip
    name, (text,) = chain.refusal(GATEWAY, ELECTIONS, "create", 1, *fields.values(), bytes(32))
    assert name == "InvalidElection"
    assert reason in text


@pytest.mark.parametrize(
    ("options", "text_bytes", "registrars", "reason"),
    [(65, 0, 0, "2 to 64, not 65"), (900, 64, 0, "not 900"), (64, 257, 0, "256"), (2, 1, 65, "at most 64")],
)
def test_lists_that_would_cost_far_more_than_their_gas_are_refused_unread(
    monkeypatch: pytest.MonkeyPatch, options: int, text_bytes: int, registrars: int, reason: str
) -> None:
    """Each of the options points to the same text; a decoder would make as many copies of it."""
    chain = Chain()
    texts = 9 * 32
    addresses = texts + 32 + 32 * options + 32 + 320
    words = [7, addresses, texts, 1, 0, 0, 0, addresses, 0, options, *[32 * options] * options, text_bytes]
    data = b"".join(word.to_bytes(32, "big") for word in words) + bytes(320) + registrars.to_bytes(32, "big")
    selector = ELECTIONS_ABI.functions["create"].id
    monkeypatch.setattr(contract, "decode", None)
    result = chain.call_raw(ELECTIONS, selector + data, sender=GATEWAY.address)
    monkeypatch.undo()
    assert not result.succeeded
    name, (why,) = ELECTIONS_ABI.decode_error(result.output) or ("", ("",))
    assert name == "InvalidElection"
    assert reason in why


def test_an_id_is_taken_once() -> None:
    chain = Chain()
    create_election(chain, 5)
    arguments: tuple[object, ...] = ("x", ["a", "b"], 1, 0, 0, 0, [], bytes(32))
    assert chain.refusal(OTHER_GATEWAY, ELECTIONS, "create", 5, *arguments) == ("ElectionExists", (5,))


def test_the_life_of_an_election() -> None:
    chain = Chain()
    create_election(chain, 1, opens_at=START + 10, closes_at=START + 20, grace=5)
    for seconds, state in ((0, 1), (9, 1), (10, 2), (19, 2), (20, 3), (24, 3), (25, 4), (1000, 4)):
        chain.now = START + seconds
        chain.take()
        assert chain.view(ELECTIONS, "election", 1)[6] == state
        record = (word(seconds + 1), word(seconds + 1), 0, b"\0")
        if state in (2, 3):
            assert cast(chain, record) == [0]
        else:
            refused = chain.refusal(GATEWAY, ELECTIONS, "castBatch", 1, pack(record))
            assert refused == ("ElectionNotOpen", (1, state))
    assert chain.refusal(GATEWAY, ELECTIONS, "close", 1) == ("ElectionNotOpen", (1, 4))
    assert chain.refusal(GATEWAY, ELECTIONS, "cancel", 1) == ("ElectionNotOpen", (1, 4))


def test_closing_and_cancelling() -> None:
    chain = Chain()
    create_election(chain, 1, grace=100)
    create_election(chain, 2, registrars=[POOR.address])
    assert chain.refusal(STRANGER, ELECTIONS, "close", 1) == ("NotCreator", (STRANGER.address,))
    assert chain.refusal(OTHER_GATEWAY, ELECTIONS, "cancel", 2) == ("NotCreator", (OTHER_GATEWAY.address,))
    assert chain.refusal(GATEWAY, ELECTIONS, "close", 4) == ("UnknownElection", (4,))
    chain.now += 7
    receipt = chain.send(OTHER_GATEWAY, ELECTIONS, "close", 1)  # a registrar of an election that lists none
    assert ELECTIONS_ABI.decode_event(receipt.event_logs[0]) == ("ElectionClosed", (1,))
    shown = chain.view(ELECTIONS, "election", 1)
    assert (shown[4], shown[6]) == (START + 7, 3)
    assert chain.refusal(GATEWAY, ELECTIONS, "close", 1) == ("ElectionNotOpen", (1, 3))
    assert cast(chain, (word(1), word(1), 0, b"\0")) == [0]
    receipt = chain.send(GATEWAY, ELECTIONS, "cancel", 1)
    assert ELECTIONS_ABI.decode_event(receipt.event_logs[0]) == ("ElectionCancelled", (1,))
    assert chain.view(ELECTIONS, "election", 1)[6] == 5
    assert chain.refusal(GATEWAY, ELECTIONS, "cancel", 1) == ("ElectionNotOpen", (1, 5))
    create_election(chain, 3, registrars=[POOR.address])
    assert chain.send(GATEWAY, ELECTIONS, "close", 3).succeeded  # its creator, though no registrar
    receipt = chain.send(POOR, ELECTIONS, "close", 2)
    assert receipt.succeeded
    assert chain.view(ELECTIONS, "election", 2)[6] == 4


def test_who_may_cast() -> None:
    chain = Chain()
    create_election(chain, 1)
    create_election(chain, 2, registrars=[POOR.address, RICH.address])
    record = (word(1), word(1), 0, b"\0")
    refused = ("NotRegistrar", (STRANGER.address,))
    assert chain.refusal(STRANGER, ELECTIONS, "castBatch", 1, pack(record)) == refused
    assert chain.refusal(STRANGER, ELECTIONS, "cast", 1, *record) == refused
    assert chain.refusal(GATEWAY, ELECTIONS, "cast", 2, *record) == ("NotRegistrar", (GATEWAY.address,))
    assert cast(chain, record, key=OTHER_GATEWAY) == [0]
    assert cast(chain, record, key=POOR, election=2) == [0]


def test_the_refusals_of_a_single_ballot_are_named() -> None:
    chain = Chain()
    create_election(chain, 1, options=["a", "b"])
    create_election(chain, 2, kinds=1)
    create_election(chain, 3, kinds=2)
    assert chain.send(GATEWAY, ELECTIONS, "cast", 1, word(1), word(11), 0, b"\1").succeeded
    assert chain.send(GATEWAY, ELECTIONS, "cast", 1, word(2), word(12), 1, b"x" * 65_536).succeeded

    def refused(*arguments: object) -> tuple[str, tuple[Any, ...]]:
        return chain.refusal(GATEWAY, ELECTIONS, "cast", *arguments)

    assert refused(9, word(1), word(1), 0, b"\0") == ("UnknownElection", (9,))
    assert refused(1, word(3), word(3), 0, b"\2") == ("InvalidChoice", (2, 2))
    assert refused(1, word(3), word(3), 0, b"\0\0")[0] == "InvalidBallot"
    assert refused(1, word(3), word(3), 0, b"")[0] == "InvalidBallot"
    assert refused(1, word(3), word(3), 1, b"")[0] == "InvalidBallot"
    assert refused(1, word(3), word(3), 1, b"x" * 65_537)[0] == "InvalidBallot"
    assert refused(1, word(3), word(3), 2, b"\0") == ("KindNotAllowed", (2,))
    assert refused(2, word(3), word(3), 1, b"\0") == ("KindNotAllowed", (1,))
    assert refused(3, word(3), word(3), 0, b"\0") == ("KindNotAllowed", (0,))
    assert refused(1, word(1), word(3), 0, b"\1") == ("AlreadyCast", (word(1), 0))
    assert refused(1, word(2), word(3), 0, b"\1") == ("AlreadyCast", (word(2), 1))
    assert refused(1, word(3), word(12), 0, b"\1") == ("RecordIdTaken", (word(12), 1))
    assert chain.view(ELECTIONS, "tally", 1) == ((0, 1), 1, 2)


def test_the_outcomes_of_a_batch() -> None:
    chain = Chain()
    create_election(chain, 1, options=["a", "b"])
    first = (word(1), word(11), 0, b"\1")
    assert cast(chain, first) == [0]
    outcomes = cast(
        chain,
        first,
        (word(1), word(99), 0, b"\1"),  # the same ballot under another record id: it stands
        (word(1), word(11), 0, b"\0"),
        (word(2), word(11), 0, b"\0"),
        (word(2), word(12), 0, b"\2"),
        (word(2), word(12), 1, b""),
        (word(2), word(12), 7, b"x"),
        (word(2), word(12), 1, b"y" * 65_537),
        (word(2), word(12), 1, b"sealed"),
        (word(2), word(12), 1, b"sealed"),
        (word(3), word(12), 0, b"\0"),
        (word(3), word(13), 0, b"\0"),
    )
    assert outcomes == [1, 1, 2, 3, 4, 5, 5, 5, 0, 1, 3, 0]
    assert chain.view(ELECTIONS, "tally", 1) == ((1, 1), 1, 3)
    assert chain.view(ELECTIONS, "ballotByRecordId", 1, word(99))[0] is False
    assert chain.view(ELECTIONS, "ballotByRecordId", 1, word(12)) == (True, (1, word(2), word(12), 1, b"sealed", 3))


def test_bytes_that_are_no_records_are_refused_whole() -> None:
    chain = Chain()
    create_election(chain, 1)
    good = pack((word(1), word(1), 1, b"abc"))

    def offset(packed: bytes) -> int:
        name, (where,) = chain.refusal(GATEWAY, ELECTIONS, "castBatch", 1, packed)
        assert name == "MalformedBallots"
        assert isinstance(where, int)
        return where

    assert offset(b"") == 0
    assert offset(good[:-1]) == 0
    assert offset(good + b"\0") == len(good)
    assert offset(good + good[:68]) == len(good)
    many = pack(*((word(n), word(n), 0, b"\0") for n in range(2049)))
    assert offset(many) == 2048 * 70
    assert cast(chain, *((word(n), word(n), 0, b"\0") for n in range(2048))) == [0] * 2048


ids = st.integers(1, 40).map(word)
contents = st.sampled_from([b"\0", b"\1", b"\2", b"\3", b"", b"\0\0", b"sealed", b"x" * 200])
batches = st.lists(st.tuples(ids, ids, st.integers(0, 2), contents), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(batches, min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from([1, 2, 3]),
)
def test_ballots_agree_with_a_plain_model(blocks: list[list[list[Record]]], kinds: int) -> None:
    chain = Chain()
    create_election(chain, 1, kinds=kinds)
    base = len(chain.blocks)
    accepted: list[tuple[Record, int]] = []
    sizes = []
    for batches_ in blocks:
        height = len(chain.blocks)
        expected = [bytes([_judge(accepted, record, kinds, height) for record in batch]) for batch in batches_]
        receipts = chain.take(
            chain.sign(
                (GATEWAY, OTHER_GATEWAY, GATEWAY)[position],
                ELECTIONS,
                ELECTIONS_ABI.encode_call("castBatch", 1, pack(*batch)),
                ahead=position // 2,
            )
            for position, batch in enumerate(batches_)
        )
        events = [ELECTIONS_ABI.decode_event(receipt.event_logs[0]) for receipt in receipts]
        assert [event[1][3] for event in events if event] == expected
        sizes.append(len(accepted))
    for place, size in enumerate(sizes):  # what every past height answers, now that the flat records know more
        _check_height(chain, base + place, accepted, size)
    _check_proofs(chain, accepted)


def _judge(accepted: list[tuple[Record, int]], record: Record, kinds: int, height: int) -> int:
    """The rules in words: judged one after the other, each against all that went before."""
    nullifier, record_id, kind, content = record
    if kind > 1 or not kinds >> kind & 1 or not content or (kind == 0 and len(content) != 1):
        return 5
    if kind == 0 and content[0] >= 3:
        return 4
    for old, _ in accepted:
        if old[0] == nullifier:
            return 1 if old[2:] == (kind, content) else 2
    if any(old[1] == record_id for old, _ in accepted):
        return 3
    accepted.append((record, height))
    return 0


def _check_height(chain: Chain, height: int, accepted: list[tuple[Record, int]], size: int) -> None:
    then = [record for record, _ in accepted[:size]]
    shown = [
        (index, record[0], record[1], record[2], record[3], at) for index, (record, at) in enumerate(accepted[:size])
    ]
    counts = tuple(sum(1 for record in then if record[2] == 0 and record[3][0] == option) for option in range(3))
    sealed = sum(record[2] for record in then)
    assert chain.view(ELECTIONS, "tally", 1, height=height) == (counts, sealed, size)
    root = naive_root([leaf(chain, 1, record) for record in then])
    assert chain.view(ELECTIONS, "log", 1, height=height) == (size, root)
    assert list(chain.view(ELECTIONS, "ballots", 1, 0, 2**256 - 1, height=height)) == shown
    assert list(chain.view(ELECTIONS, "ballots", 1, 1, 2, height=height)) == shown[1:3]
    by_nullifier = {ballot[1]: ballot for ballot in shown}
    by_record_id = {ballot[2]: ballot for ballot in shown}
    for number in (1, 2, 20, 40):
        for view, expected in (("ballotByNullifier", by_nullifier), ("ballotByRecordId", by_record_id)):
            found, ballot = chain.view(ELECTIONS, view, 1, word(number), height=height)
            assert found == (word(number) in expected)
            assert ballot == expected.get(word(number), ballots.NO_BALLOT)
    state = chain.state(height)
    size_slot, root_slot = log_slots(1)
    assert state.storage(ELECTIONS, size_slot) == size
    assert state.storage(ELECTIONS, root_slot) == int.from_bytes(root, "big")
    count_slots, sealed_slot = tally_slots(1, 3)
    assert tuple(state.storage(ELECTIONS, slot) for slot in count_slots) == counts
    assert state.storage(ELECTIONS, sealed_slot) == sealed


def _check_proofs(chain: Chain, accepted: list[tuple[Record, int]]) -> None:
    state = chain.state()
    election = read_election(state, 1)
    assert election is not None
    get_node = flatlog.node_reader(state, election.number)
    leaves = [leaf(chain, 1, record) for record, _ in accepted]
    for size in range(1, len(leaves) + 1, 3):
        root = naive_root(leaves[:size])
        index = size // 2
        proof = log.inclusion_proof(index, size, get_node)
        digest = log.leaf_hash(leaves[index])
        log.verify_inclusion(index=index, size=size, leaf_hash=digest, proof=proof, root=root)


def test_a_long_log_proves_every_size() -> None:
    """More leaves than a tile of tiles holds, in blocks of growing size, so that rows of every level are cut."""
    chain = Chain()
    create_election(chain, 1)
    records = [(word(n), word(n + 10_000), n % 2, bytes((n % 3,))) for n in range(4300)]
    position, step = 0, 1
    while position < len(records):
        batch = records[position : position + step]
        assert cast(chain, *batch) == [0] * len(batch)
        position, step = position + step, min(step * 3, 2048)
    leaves = [log.leaf_hash(leaf(chain, 1, record)) for record in records]
    get_node = flatlog.node_reader(chain.state(), 1)
    size, root = chain.view(ELECTIONS, "log", 1)
    assert (size, root) == (len(leaves), log.root(leaves))
    for old in (1, 63, 64, 65, 127, 128, 4095, 4096, 4097, 4300):
        old_root = log.root(leaves[:old])
        for index in {0, old // 2, old - 1}:
            proof = log.inclusion_proof(index, old, get_node)
            log.verify_inclusion(index=index, size=old, leaf_hash=leaves[index], proof=proof, root=old_root)
        consistency = log.consistency_proof(old, size, get_node)
        log.verify_consistency(old_size=old, new_size=size, proof=consistency, old_root=old_root, new_root=root)
    page = chain.view(ELECTIONS, "ballots", 1, 4090, 100)
    assert [ballot[1] for ballot in page] == [word(n) for n in range(4090, 4190)]


def test_elections_do_not_share_nullifiers_or_logs() -> None:
    chain = Chain()
    create_election(chain, 1)
    create_election(chain, 2**256 - 1)
    record = (word(1), word(1), 0, b"\1")
    both = [
        chain.sign(GATEWAY, ELECTIONS, ELECTIONS_ABI.encode_call("castBatch", election, pack(record)), ahead=ahead)
        for ahead, election in enumerate((1, 2**256 - 1))
    ]
    receipts = chain.take(both)
    assert [receipt.succeeded for receipt in receipts] == [True, True]
    for election in (1, 2**256 - 1):
        assert chain.view(ELECTIONS, "log", election) == (1, naive_root([leaf(chain, election, record)]))
    one, other = (chain.view(ELECTIONS, "log", election)[1] for election in (1, 2**256 - 1))
    assert one != other


def test_a_page_of_ballots_is_bounded_in_bytes() -> None:
    chain = Chain()
    create_election(chain, 1)
    for first in range(0, 80, 10):
        assert cast(chain, *((word(n), word(n), 1, b"z" * 65_536) for n in range(first, first + 10))) == [0] * 10
    page = chain.view(ELECTIONS, "ballots", 1, 3, 100)
    assert [ballot[0] for ballot in page] == list(range(3, 3 + 64))
