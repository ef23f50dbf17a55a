"""Whole nodes whose set of validators changes: by vote, while some are away; and by the operators' override."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from node.chain.contracts.proposals import NOBODY, Kind
from node.chain.genesis import Genesis, validators_hash
from node.chain.signing import SigningKey
from node.consensus.codec import decode_message
from node.consensus.messages import Kind as Step
from node.consensus.override import Override, OverrideError, override_document, parse_override, verify_override
from node.ledger import Ledger
from node.membership import LEAVING_S, Membership
from node.overridefile import override_text, read_overrides
from node.p2p.kinds import Kind as Message
from tests.node.runtime_network import Node, RuntimeNetwork

KEYS = sorted((SigningKey(bytes([number]) * 32) for number in range(1, 8)), key=lambda key: key.address)


def network(count: int, observers: int = 1) -> RuntimeNetwork:
    genesis = Genesis(
        chain_id=7770, timestamp=1_700_000_000, validators=tuple(key.address for key in KEYS[:count])
    )  # fmt: skip
    return RuntimeNetwork(genesis, KEYS[: count + observers])


async def vote(net: RuntimeNetwork, voters: list[SigningKey], kind: Kind, account: bytes, new: bytes = NOBODY) -> int:
    """Have these validators vote for a change, and see it in force everywhere; the first height of the new set."""
    before = next(iter(net.running())).ledger.next_validators
    for key in voters:
        await net.submit(key, "propose", int(kind), account, new)
    assert await net.run(lambda: all(node.ledger.next_validators != before for node in net.running()))
    node = max(net.running(), key=lambda each: each.height)
    return max(height for height in range(1, node.height + 2) if node.ledger.validators(height) == before) + 1


async def test_who_is_added_signs_from_then_on_and_who_is_removed_no_more() -> None:
    net = network(3)
    net.start()
    newcomer, leaver = net.nodes[KEYS[3].address], net.nodes[KEYS[0].address]
    assert await net.run(net.all_reach(2))
    assert newcomer.signed == []
    joined = await vote(net, KEYS[:2], Kind.ADD_VALIDATOR, newcomer.address)
    assert await net.run(net.all_reach(joined + 4))
    assert min(height for height, _ in newcomer.signed) == joined
    headers = [newcomer.ledger.header(height) for height in range(joined, joined + 4)]
    assert newcomer.address in {header.miner for header in headers if header}
    left = await vote(net, KEYS[1:4], Kind.REMOVE_VALIDATOR, leaver.address)
    assert await net.run(net.all_reach(left + 4))
    assert max(height for height, _ in leaver.signed) < left
    assert leaver.runtime is not None
    assert not leaver.runtime.engine.status().signs
    net.check()
    assert net.evidence == []
    assert net.drops == []


async def test_one_validator_becomes_two_and_one_again() -> None:
    net = network(1)
    net.start()
    await vote(net, KEYS[:1], Kind.ADD_VALIDATOR, KEYS[1].address)
    back = await vote(net, KEYS[:2], Kind.REMOVE_VALIDATOR, KEYS[0].address)
    assert await net.run(net.all_reach(back + 2))
    assert next(iter(net.running())).ledger.validators(back) == (KEYS[1].address,)
    net.check()


async def test_an_unknown_node_follows_from_block_zero_across_all_changes() -> None:
    net = network(3, observers=3)
    for key in KEYS[:5]:
        net.nodes[key.address].start()
    await vote(net, KEYS[:2], Kind.ADD_VALIDATOR, KEYS[3].address)
    await vote(net, KEYS[1:4], Kind.REPLACE_VALIDATOR, KEYS[0].address, KEYS[4].address)
    height = await vote(net, KEYS[1:4], Kind.REMOVE_VALIDATOR, KEYS[1].address)
    late = net.nodes[KEYS[5].address]
    late.start()
    assert await net.run(lambda: late.height >= height + 2)
    net.check()
    assert late.signed == []
    # What a restart reads back is what it had.
    again = Ledger(late.database, net.genesis)
    assert [again.validators(each) for each in range(1, height + 2)] == [
        late.ledger.validators(each) for each in range(1, height + 2)
    ]
    assert again.next_validators == late.ledger.next_validators
    assert len(again.validator_changes(1, height)) == 3


async def test_a_validator_that_slept_through_a_change_wakes_into_the_new_set() -> None:
    net = network(4)
    net.start()
    sleeper = net.nodes[KEYS[0].address]
    assert await net.run(net.all_reach(1))
    sleeper.stop()
    changed = await vote(net, KEYS[1:4], Kind.REPLACE_VALIDATOR, KEYS[1].address, KEYS[4].address)
    assert await net.run(net.all_reach(changed + 2))
    sleeper.start()
    assert await net.run(net.all_reach(changed + 4))
    net.nodes[KEYS[2].address].stop()  # from now on its signature is needed
    assert await net.run(net.all_reach(max(node.height for node in net.running()) + 3))
    net.check()


@pytest.mark.parametrize("seed", range(6))
async def test_any_votes_among_restarts_leave_one_chain(seed: int) -> None:
    """Random proposals and votes while nodes stop and start: no fork, the right seals, and in the end all go on."""
    dice = random.Random(seed)
    net = network(dice.randint(1, 4), observers=2)
    net.start()
    lossy = dice.choice((0.0, 0.1))
    net.delivers = lambda _from, _to, kind, _payload: kind is not Message.CONSENSUS or dice.random() >= lossy
    for _ in range(14):
        members = [key for key in KEYS if key.address in net.running()[0].ledger.next_validators]
        account, new = dice.sample([key.address for key in KEYS[: len(net.nodes)]], 2)
        kind = dice.choice((Kind.ADD_VALIDATOR, Kind.REMOVE_VALIDATOR, Kind.REPLACE_VALIDATOR))
        for key in dice.sample(members, len(members) // 2 + 1):
            await net.submit(key, "propose", int(kind), account, new if kind is Kind.REPLACE_VALIDATOR else NOBODY)
        away = net.nodes[dice.choice(members).address] if dice.random() < 0.4 else None
        if away and len(net.running()) > 1:
            away.stop()
        await net.run(lambda: False, within_ms=dice.choice((50, 400, 1_500)))
        if away and away.runtime is None:
            away.start()
    net.delivers = lambda *_: True
    goal = max(node.height for node in net.running()) + 3
    assert await net.run(net.all_reach(goal), within_ms=60_000), [node.height for node in net.running()]
    net.check()
    assert net.evidence == []


# --- the override --------------------------------------------------------------------------------------------------


def overriding(node: Node, keys: list[SigningKey]) -> Override:
    validators = tuple(sorted(key.address for key in keys))
    made = Override(node.ledger.domain, node.height, node.ledger.head.hash, validators)
    for key in keys:
        made = made.signed(key)
    return made


async def prepared_and_stuck() -> tuple[RuntimeNetwork, int]:
    """Four validators have prepared a block with a vote in it, but nobody's COMMIT arrived; then two are lost."""
    net = network(4, observers=2)
    net.start()
    assert await net.run(net.all_reach(2))
    height = net.running()[0].height
    assert await net.run(net.all_reach(height))

    def no_commits(_from: Node, _to: Node, kind: Message, payload: bytes) -> bool:
        return kind is not Message.CONSENSUS or decode_message(payload).statement.kind is not Step.COMMIT

    net.delivers = no_commits
    await net.submit(KEYS[1], "propose", int(Kind.ADD_GATEWAY), b"\x77" * 20, NOBODY)
    survivors = [net.nodes[key.address] for key in KEYS[:2]]

    def prepared(node: Node) -> bool:
        assert node.runtime is not None
        guard = node.runtime.engine.guard
        return guard is not None and guard.prepared is not None and guard.height == node.height + 1

    assert await net.run(lambda: all(map(prepared, survivors)))
    await net.run(lambda: False, within_ms=3_000)  # rounds go by, each ROUND-CHANGE carrying what was prepared
    heights = {node.height for node in net.nodes.values()}
    assert len(heights) == 1
    for node in net.nodes.values():
        node.stop()
    net.delivers = lambda *_: True
    return net, heights.pop()


async def test_survivors_go_on_whatever_the_lost_had_prepared_with_them() -> None:
    net, height = await prepared_and_stuck()
    survivors = [net.nodes[key.address] for key in (KEYS[0], KEYS[1], KEYS[4])]
    override = overriding(survivors[0], [KEYS[0], KEYS[1], KEYS[4]])
    for node in survivors:
        node.overrides = (override,)
        node.start()
    assert await net.run(net.all_reach(height + 3), within_ms=60_000), [node.height for node in survivors]
    for node in survivors:
        first = node.ledger.block(height + 1)
        assert first is not None
        assert (first.transactions, first.header.extra_data) == ((), validators_hash(override.validators))
        assert node.ledger.validators(height) == net.genesis.validators
        assert node.ledger.validators(height + 1) == override.validators
        assert node.ledger.validator_changes(1, height + 2) == [height, height + 1]
    net.check()
    assert net.evidence == [], "nobody signed two things at one round"

    # Restarts on both sides of the height change nothing, with or without the file by now.
    for node in survivors:
        node.stop()
    survivors[0].overrides = ()
    for node in survivors:
        node.start()
    assert await net.run(net.all_reach(height + 6))
    changed = await vote(net, [KEYS[0], KEYS[1]], Kind.ADD_VALIDATOR, KEYS[5].address)
    assert await net.run(net.all_reach(changed + 2))
    net.check()
    assert net.evidence == []


async def test_who_was_not_given_the_override_does_not_follow_it() -> None:
    net, height = await prepared_and_stuck()
    survivors = [net.nodes[key.address] for key in KEYS[:2]]
    bystander = net.nodes[KEYS[5].address]
    override = overriding(survivors[0], KEYS[:2])
    for node in survivors:
        node.overrides = (override,)
        node.start()
    bystander.start()
    assert await net.run(lambda: min(node.height for node in survivors) >= height + 2, within_ms=60_000)
    assert bystander.height == height
    assert any(by == bystander.address for by, _, _ in net.drops)
    bystander.stop()
    bystander.overrides = (override,)
    bystander.start()
    assert await net.run(net.all_reach(height + 3))
    net.check()


async def test_an_override_that_contradicts_what_is_final_is_refused() -> None:
    net = network(3)
    net.start()
    assert await net.run(net.all_reach(4))
    node = net.running()[0]
    old = node.ledger.header(2)
    assert old is not None
    chosen = (KEYS[0].address,)
    for override, told in (
        (Override(net.domain, 2, old.hash, chosen), "was not lost"),
        (Override(net.domain, 2, bytes(32), chosen), "the final block 2 here is"),
        (Override(replace(net.domain, chain_id=5), 2, old.hash, chosen), "another network"),
    ):
        with pytest.raises(OverrideError, match=told):
            Ledger(node.database, net.genesis, (override.signed(KEYS[0]),))
    with pytest.raises(OverrideError, match="lacks the signature"):
        Ledger(node.database, net.genesis, (Override(net.domain, 2, old.hash, chosen),))


def test_an_override_is_signed_by_each_of_its_validators_and_nobody_else() -> None:
    net = network(3)
    override = overriding(net.nodes[KEYS[0].address], KEYS[:2])
    verify_override(override)
    assert override.signed(KEYS[0]) == override
    with pytest.raises(OverrideError, match="a signature too many"):
        verify_override(override.signed(KEYS[2]))
    for changed in (
        replace(override, height=override.height + 1),
        replace(override, parent_hash=bytes(32)),
        replace(override, domain=replace(override.domain, chain_id=1)),
        replace(override, validators=override.validators[:1]),
    ):
        with pytest.raises(OverrideError):
            verify_override(changed)


def test_override_files(tmp_path: Path) -> None:
    net = network(3)
    override = overriding(net.nodes[KEYS[0].address], KEYS[:2])
    file = tmp_path / "override.json"
    file.write_text(override_text(override))
    assert read_overrides(file) == (override,)
    later = replace(override, height=9)
    file.write_text(json.dumps([override_document(override), override_document(later)]))
    assert read_overrides(file) == (override, later)
    for text, told in (
        ("{", "is not JSON"),
        ("[1]", "an override is an object"),
        (json.dumps([override_document(override)] * 2), "two overrides of one height"),
    ):
        file.write_text(text)
        with pytest.raises(OverrideError, match=told):
            read_overrides(file)
    with pytest.raises(OverrideError, match="cannot read"):
        read_overrides(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chainId", "1"),
        ("height", -1),
        ("height", True),
        ("genesisHash", "0x12"),
        ("parentHash", 7),
        ("validators", []),
        ("validators", ["0x" + "22" * 20, "0x" + "11" * 20]),
        ("validators", ["0x" + "11" * 20] * 2),
        ("validators", ["0x" + "1 " * 20]),
        ("signatures", {}),
        ("signatures", ["0x" + "11" * 64]),
        ("parentHash, signatures", "a field too many"),
    ],
)
def test_faulty_documents_name_the_field(field: str, value: object) -> None:
    net = network(1)
    document = override_document(overriding(net.nodes[KEYS[0].address], KEYS[:1]))
    with pytest.raises(OverrideError, match=field):
        parse_override(document | {field: value})


# --- who may connect -----------------------------------------------------------------------------------------------


def test_membership_follows_the_set_and_lets_the_removed_hear_of_it(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    a, b, c, watcher = (key.address for key in KEYS[:4])
    members = Membership(a, signs=True, validators=(a, b), observers=[watcher], now_s=lambda: now[0])
    assert members.describe() == "a validator"
    assert [each in members for each in (a, b, c, watcher)] == [True, True, False, True]
    assert not members.change((b, a), 5)
    assert members.change((b, c), 6)
    assert "this node is no validator from height 6 on" in caplog.text
    assert members.describe() == "an observer, which signs nothing"
    assert a in members
    now[0] += LEAVING_S
    assert [each in members for each in (a, b, c, watcher)] == [False, True, True, True]
    assert members.change((a, b), 9)
    assert "this node is a validator from height 9 on" in caplog.text
    now[0] += 2 * LEAVING_S
    assert a in members


def test_a_member_that_is_told_not_to_sign_says_so() -> None:
    members = Membership(KEYS[0].address, signs=False, validators=[KEYS[0].address], observers=(), now_s=lambda: 0.0)
    assert "sign = false" in members.describe()
