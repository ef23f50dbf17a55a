"""Changing validators and gateways by vote: the rules one by one, and any history against a slow, eager model."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.chain.contracts import members, validators
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.members import Role
from node.chain.contracts.proposals import LIFETIME_S, NOBODY, Kind
from node.chain.errors import InvalidBlock
from node.chain.execution import apply_block, build_block
from node.chain.genesis import validators_hash
from node.chain.signing import SigningKey
from tests.chain.conftest import GENESIS, KEYS, STRANGER, VALIDATORS_CONTRACT, Chain

CONTRACT = VALIDATORS_CONTRACT
ABI = validators.ABI
ADD, REMOVE, REPLACE = Kind.ADD_VALIDATOR, Kind.REMOVE_VALIDATOR, Kind.REPLACE_VALIDATOR
NEWCOMER = KEYS[6].address


def propose(chain: Chain, key: SigningKey, kind: int, account: bytes, replacement: bytes = NOBODY) -> Any:
    return chain.send(key, CONTRACT, "propose", kind, account, replacement)


def events(receipt: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [event for log in receipt.event_logs if (event := ABI.decode_event(log))]


def test_more_than_half_add_a_validator_from_the_next_height_on() -> None:
    chain = Chain()
    first = propose(chain, KEYS[0], ADD, NEWCOMER)
    assert events(first) == [
        ("Proposed", (0, KEYS[0].address, ADD, NEWCOMER, NOBODY)),
        ("Voted", (0, KEYS[0].address, 1, 2)),
    ]
    assert chain.validators == GENESIS.validators
    second = chain.send(KEYS[1], CONTRACT, "vote", 0)
    assert events(second) == [
        ("Voted", (0, KEYS[1].address, 2, 2)),
        ("Decided", (0, ADD, NEWCOMER, NOBODY, 3)),
    ]
    four = tuple(sorted((*GENESIS.validators, NEWCOMER)))
    assert chain.validators == four
    assert chain.head.extra_data == validators_hash(four)
    assert chain.view(CONTRACT, "validators") == GENESIS.validators  # who decided this height
    assert chain.view(CONTRACT, "nextValidators") == four
    chain.take()
    assert chain.view(CONTRACT, "validators") == chain.view(CONTRACT, "nextValidators") == four
    assert chain.view(CONTRACT, "isValidator", NEWCOMER)
    assert not chain.view(CONTRACT, "isValidator", NEWCOMER, height=2)
    assert chain.refusal(KEYS[2], CONTRACT, "vote", 0) == ("ProposalClosed", (0, 2))


def test_a_replacement_swaps_two_at_one_height() -> None:
    chain = Chain()
    propose(chain, KEYS[0], REPLACE, KEYS[2].address, NEWCOMER)
    propose(chain, KEYS[1], REPLACE, KEYS[2].address, NEWCOMER)  # the same proposal again is a vote for it
    assert chain.view(CONTRACT, "proposalCount") == 1
    assert chain.validators == tuple(sorted((KEYS[0].address, KEYS[1].address, NEWCOMER)))
    chain.take()
    assert chain.refusal(KEYS[2], CONTRACT, "propose", ADD, KEYS[7].address, NOBODY) == (
        "NotValidator",
        (KEYS[2].address,),
    )


def test_gateways_change_the_same_way() -> None:
    chain = Chain()
    newcomer = KEYS[7].address
    old = GENESIS.gateways[0]
    for key in KEYS[:2]:
        propose(chain, key, Kind.ADD_GATEWAY, newcomer)
    assert chain.view(CONTRACT, "gateways") == tuple(sorted((*GENESIS.gateways, newcomer)))
    for key in KEYS[:2]:
        propose(chain, key, Kind.REMOVE_GATEWAY, old)
    assert not chain.view(CONTRACT, "isGateway", old)
    for key in KEYS[:2]:
        propose(chain, key, Kind.REPLACE_GATEWAY, newcomer, old)
    assert chain.view(CONTRACT, "gateways") == GENESIS.gateways
    assert chain.validators == GENESIS.validators


def test_votes_of_the_removed_do_not_count_even_after_they_return() -> None:
    chain = Chain(replace(GENESIS, validators=tuple(key.address for key in KEYS[:4])))
    propose(chain, KEYS[3], ADD, NEWCOMER)
    for key in KEYS[:3]:
        propose(chain, key, REMOVE, KEYS[3].address)
    assert chain.view(CONTRACT, "votes", 0) == (("0x" + KEYS[3].address.hex(), False),)
    for key in KEYS[:2]:
        propose(chain, key, ADD, KEYS[3].address)
    assert KEYS[3].address in chain.validators
    assert chain.view(CONTRACT, "votes", 0) == (("0x" + KEYS[3].address.hex(), False),)
    chain.send(KEYS[3], CONTRACT, "vote", 0)
    assert [counts for _, counts in chain.view(CONTRACT, "votes", 0)] == [False, True]


def test_votes_that_a_smaller_set_makes_enough_decide_when_said_again() -> None:
    chain = Chain(replace(GENESIS, validators=tuple(key.address for key in KEYS[:4])))
    for key in KEYS[:2]:
        propose(chain, key, ADD, NEWCOMER)
    assert chain.refusal(KEYS[0], CONTRACT, "vote", 0) == ("AlreadyVoted", (0, KEYS[0].address))
    for key in KEYS[:3]:
        propose(chain, key, REMOVE, KEYS[3].address)
    assert NEWCOMER not in chain.validators
    receipt = chain.send(KEYS[0], CONTRACT, "vote", 0)
    assert [name for name, _ in events(receipt)] == ["Decided"]
    assert NEWCOMER in chain.validators


def test_the_last_validator_stays() -> None:
    chain = Chain(replace(GENESIS, validators=(KEYS[0].address,)))
    assert chain.refusal(KEYS[0], CONTRACT, "propose", REMOVE, KEYS[0].address, NOBODY) == ("LastValidator", ())
    propose(chain, KEYS[0], REPLACE, KEYS[0].address, KEYS[1].address)
    assert chain.validators == (KEYS[1].address,)


def test_two_removals_do_not_empty_the_set() -> None:
    chain = Chain(replace(GENESIS, validators=tuple(key.address for key in KEYS[:2])))
    propose(chain, KEYS[0], REMOVE, KEYS[0].address)
    propose(chain, KEYS[1], REMOVE, KEYS[1].address)
    chain.send(KEYS[1], CONTRACT, "vote", 0)
    chain.take()
    assert chain.validators == (KEYS[1].address,)
    assert chain.refusal(KEYS[1], CONTRACT, "vote", 1) == ("LastValidator", ())


def test_the_sets_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(members.MEMBERS_MAX, Role.VALIDATOR, 4)
    chain = Chain()
    propose(chain, KEYS[0], ADD, KEYS[6].address)
    propose(chain, KEYS[0], ADD, KEYS[7].address)
    chain.send(KEYS[1], CONTRACT, "vote", 0)
    chain.send(KEYS[1], CONTRACT, "vote", 1)
    assert chain.refusal(KEYS[2], CONTRACT, "vote", 1) == ("TooManyMembers", (4,))
    assert chain.refusal(KEYS[2], CONTRACT, "propose", ADD, KEYS[5].address, NOBODY) == ("TooManyMembers", (4,))


@pytest.mark.parametrize(
    ("kind", "account", "replacement", "error"),
    [
        (0, NEWCOMER, NOBODY, ("UnknownKind", (0,))),
        (7, NEWCOMER, NOBODY, ("UnknownKind", (7,))),
        (ADD, KEYS[0].address, NOBODY, ("AlreadyMember", (KEYS[0].address,))),
        (REMOVE, NEWCOMER, NOBODY, ("NotMember", (NEWCOMER,))),
        (REPLACE, NEWCOMER, STRANGER.address, ("NotMember", (NEWCOMER,))),
        (REPLACE, KEYS[0].address, KEYS[1].address, ("AlreadyMember", (KEYS[1].address,))),
        (REPLACE, KEYS[0].address, KEYS[0].address, ("AlreadyMember", (KEYS[0].address,))),
        (ADD, NOBODY, NOBODY, ("InvalidAccount", (NOBODY, "nobody can sign as this address"))),
        (REPLACE, KEYS[0].address, NOBODY, ("InvalidAccount", (NOBODY, "nobody can sign as this address"))),
        (ADD, ELECTIONS, NOBODY, ("InvalidAccount", (ELECTIONS, "nobody can sign as this address"))),
        (REMOVE, KEYS[0].address, NEWCOMER, ("InvalidAccount", (NEWCOMER, "only a replacement names two addresses"))),
    ],
)
def test_what_makes_no_sense_is_refused(kind: int, account: bytes, replacement: bytes, error: Any) -> None:
    assert Chain().refusal(KEYS[0], CONTRACT, "propose", kind, account, replacement) == error


def test_strangers_and_unknown_proposals_are_refused() -> None:
    chain = Chain()
    error = ("NotValidator", (STRANGER.address,))
    assert chain.refusal(STRANGER, CONTRACT, "propose", ADD, STRANGER.address, NOBODY) == error
    assert chain.refusal(STRANGER, CONTRACT, "vote", 0) == error
    assert chain.refusal(KEYS[0], CONTRACT, "vote", 0) == ("UnknownProposal", (0,))
    assert not chain.run(CONTRACT, "votes", 0).succeeded


def test_a_proposal_lapses() -> None:
    chain = Chain()
    propose(chain, KEYS[0], ADD, NEWCOMER)
    chain.now += LIFETIME_S + 1
    chain.take()
    assert chain.refusal(KEYS[1], CONTRACT, "vote", 0) == ("ProposalClosed", (0, 3))
    propose(chain, KEYS[1], ADD, NEWCOMER)
    assert chain.view(CONTRACT, "proposalCount") == 2
    chain.now += LIFETIME_S
    chain.send(KEYS[0], CONTRACT, "vote", 1)
    assert NEWCOMER in chain.validators


def test_a_proposal_is_stale_for_good_once_another_decision_touches_its_address() -> None:
    chain = Chain()
    propose(chain, KEYS[0], ADD, NEWCOMER)
    propose(chain, KEYS[0], REMOVE, KEYS[2].address)
    propose(chain, KEYS[0], Kind.ADD_GATEWAY, NEWCOMER)
    for key in KEYS[:2]:
        propose(chain, key, REPLACE, KEYS[2].address, NEWCOMER)
    for key in KEYS[:2]:
        propose(chain, key, REPLACE, NEWCOMER, KEYS[2].address)  # as it was before
    chain.take()
    assert chain.validators == GENESIS.validators
    assert [row[6] for row in chain.view(CONTRACT, "proposals", 0, 9)] == [3, 3, 1, 2, 2]
    for index in (0, 1):
        assert chain.refusal(KEYS[1], CONTRACT, "vote", index) == ("ProposalClosed", (index, 3))
    chain.send(KEYS[1], CONTRACT, "vote", 2)  # the other set is another matter
    assert NEWCOMER in chain.view(CONTRACT, "gateways")


def test_the_past_is_shown_as_it_was() -> None:
    chain = Chain()
    propose(chain, KEYS[0], ADD, NEWCOMER)
    chain.send(KEYS[1], CONTRACT, "vote", 0)
    states = [[row[6] for row in chain.view(CONTRACT, "proposals", 0, 9, height=height)] for height in range(3)]
    assert states == [[], [1], [2]]
    (shown,) = chain.view(CONTRACT, "proposals", 0, 1)
    names = ("0x" + NEWCOMER.hex(), "0x" + NOBODY.hex(), "0x" + KEYS[0].address.hex())
    assert shown == (0, ADD, *names, GENESIS.timestamp, 2, 2, 2, 3)
    assert chain.view(CONTRACT, "proposals", 1, 9) == ()


def test_an_override_puts_its_set_in_place_in_an_empty_block() -> None:
    chain = Chain()
    propose(chain, KEYS[2], ADD, NEWCOMER)
    chosen = tuple(sorted((KEYS[2].address, KEYS[7].address)))
    common: dict[str, Any] = {"genesis": chain.genesis, "domain": chain.domain}
    waiting = [chain.sign(KEYS[2], CONTRACT, ABI.encode_call("vote", 0))]
    built = build_block(
        chain.database, chain.head, waiting, miner=chosen[0], timestamp=chain.now, override=chosen, **common
    )
    block = built.executed.block
    assert (block.transactions, built.dropped) == ((), [])
    assert block.header.extra_data == validators_hash(chosen)
    executed = apply_block(
        chain.database, chain.head, block, validators=chosen, override=chosen, **common
    )  # fmt: skip
    assert executed == built.executed
    with pytest.raises(InvalidBlock):  # who was not given the override takes no such block
        apply_block(chain.database, chain.head, block, validators=chosen, **common)
    full = chain.build(waiting, miner=VALIDATOR_OF_BOTH).block
    with pytest.raises(InvalidBlock, match="expected none where an override"):
        apply_block(chain.database, chain.head, full, validators=chosen, override=chosen, **common)
    chain.keep(executed)
    assert chain.view(CONTRACT, "validators") == chain.view(CONTRACT, "nextValidators") == chosen
    propose(chain, KEYS[2], REMOVE, KEYS[7].address)
    propose(chain, KEYS[7], REMOVE, KEYS[7].address)
    assert chain.validators == (KEYS[2].address,)


VALIDATOR_OF_BOTH = KEYS[2].address


# --- any history, against a model that does everything eagerly -----------------------------------------------------


@dataclass
class ModelProposal:
    kind: Kind
    account: bytes
    replacement: bytes
    opened_at: int
    voters: list[bytes] = field(default_factory=list)
    status: int = 1

    @property
    def named(self) -> set[bytes]:
        return {self.account, self.replacement} if self.kind.replaces else {self.account}


class Model:
    """Marks proposals stale and strikes votes out the moment a set changes, instead of comparing numbers later."""

    def __init__(self, chain: Chain) -> None:
        self.sets = {Role.VALIDATOR: set(chain.genesis.validators), Role.GATEWAY: set(chain.genesis.gateways)}
        self.proposals: list[ModelProposal] = []

    def age(self, now: int) -> None:
        for each in self.proposals:
            if each.status == 1 and now > each.opened_at + LIFETIME_S:
                each.status = 3

    def propose(self, sender: bytes, kind: Kind, account: bytes, replacement: bytes, now: int) -> str:
        if sender not in self.sets[Role.VALIDATOR]:
            return "NotValidator"
        said = (kind, account, replacement)
        for index, each in enumerate(self.proposals):
            if (each.kind, each.account, each.replacement) == said and each.status == 1:
                return self.vote(sender, index)
        members_now = self.sets[kind.role]
        incoming = replacement if kind.replaces else account if kind.adds else None
        if incoming in members_now:
            return "AlreadyMember"
        if not kind.adds and account not in members_now:
            return "NotMember"
        if kind is REMOVE and len(members_now) == 1:
            return "LastValidator"
        self.proposals.append(ModelProposal(*said, now))
        return self.vote(sender, len(self.proposals) - 1)

    def vote(self, sender: bytes, index: int) -> str:
        if sender not in self.sets[Role.VALIDATOR]:
            return "NotValidator"
        if index >= len(self.proposals):
            return "UnknownProposal"
        proposal = self.proposals[index]
        if proposal.status != 1:
            return "ProposalClosed"
        enough = len(self.sets[Role.VALIDATOR]) // 2 + 1
        fresh = sender not in proposal.voters
        if not fresh and len(proposal.voters) < enough:
            return "AlreadyVoted"
        after = len(proposal.voters) + fresh
        if after >= enough and proposal.kind is REMOVE and len(self.sets[Role.VALIDATOR]) == 1:
            return "LastValidator"
        if fresh:
            proposal.voters.append(sender)
        if after >= enough:
            self.decide(proposal)
        return ""

    def decide(self, proposal: ModelProposal) -> None:
        proposal.status = 2
        role = proposal.kind.role
        if not proposal.kind.adds:
            self.sets[role].discard(proposal.account)
        if proposal.kind.adds or proposal.kind.replaces:
            self.sets[role].add(proposal.replacement if proposal.kind.replaces else proposal.account)
        for each in self.proposals:
            if each.status == 1 and each.kind.role is role and each.named & proposal.named:
                each.status = 3
            if role is Role.VALIDATOR:
                each.voters = [voter for voter in each.voters if voter not in proposal.named]


people = st.integers(0, 3)
proposing = st.tuples(st.just("propose"), people, st.sampled_from(list(Kind)), people, people)
voting = st.tuples(st.just("vote"), people, st.integers(0, 4))
blocks_of_steps = st.lists(
    st.tuples(st.sampled_from([0, 1, 86_400, LIFETIME_S]), st.lists(proposing | voting, max_size=6)), max_size=12
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 3), blocks_of_steps)
def test_any_history_is_that_of_the_model(count: int, blocks: list[tuple[int, list[Any]]]) -> None:
    chain = Chain(replace(GENESIS, validators=tuple(key.address for key in KEYS[:count])))
    model = Model(chain)
    for seconds, steps in blocks:
        chain.now += seconds
        model.age(chain.now)
        decided_by = chain.validators
        nonces = {key.address: 0 for key in KEYS}
        transactions, expected = [], []
        for name, who, *arguments in steps:
            key = KEYS[who]
            if name == "propose":
                kind, account = arguments[0], KEYS[arguments[1]].address
                replacement = KEYS[arguments[2]].address if kind.replaces else NOBODY
                data = ABI.encode_call("propose", kind, account, replacement)
                expected.append(model.propose(key.address, kind, account, replacement, chain.now))
            else:
                data = ABI.encode_call("vote", arguments[0])
                expected.append(model.vote(key.address, arguments[0]))
            transactions.append(chain.sign(key, CONTRACT, data, ahead=nonces[key.address]))
            nonces[key.address] += 1
        receipts = chain.take(transactions)
        assert chain.dropped == []
        assert [receipt.succeeded for receipt in receipts] == [error == "" for error in expected]
        in_force = tuple(sorted(model.sets[Role.VALIDATOR]))
        assert chain.validators == chain.view(CONTRACT, "nextValidators") == in_force
        assert chain.head.extra_data == validators_hash(in_force)
        assert chain.view(CONTRACT, "validators") == decided_by
        assert chain.view(CONTRACT, "gateways") == tuple(sorted(model.sets[Role.GATEWAY]))
        shown = chain.view(CONTRACT, "proposals", 0, 100)
        assert [(row[6], row[8]) for row in shown] == [(each.status, len(each.voters)) for each in model.proposals]
        for each in KEYS[:6]:
            assert chain.view(CONTRACT, "isGateway", each.address) == (each.address in model.sets[Role.GATEWAY])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(proposing | voting, max_size=25))
def test_refusals_are_those_of_the_model(count: int, steps: list[Any]) -> None:
    """One step a block, each asked as a call first, so that the named error is seen."""
    chain = Chain(replace(GENESIS, validators=tuple(key.address for key in KEYS[:count])))
    model = Model(chain)
    for name, who, *arguments in steps:
        key = KEYS[who]
        words: tuple[Any, ...] = tuple(arguments)
        if name == "propose":
            kind = arguments[0]
            words = (kind, KEYS[arguments[1]].address, KEYS[arguments[2]].address if kind.replaces else NOBODY)
            expected = model.propose(key.address, *words, chain.now)
        else:
            expected = model.vote(key.address, arguments[0])
        result = chain.run(CONTRACT, name, *words, sender=key.address)
        error = None if result.succeeded else ABI.decode_error(result.output)
        assert (error[0] if error else "") == expected
        if not expected:
            chain.send(key, CONTRACT, name, *words)
