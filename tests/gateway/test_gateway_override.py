"""A quorum lost for good: what follows an override is believed by whoever was given it, and by nobody else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli import main
from gateway.config import load_overrides
from gateway.follower import Follower
from gateway.receipt import InvalidReceipt, receipt_document
from gateway.receipt_check import verify_receipt
from gateway.sets import ValidatorSets
from gateway.state import VerifiedState, load_state
from gateway.validators import Validator, ValidatorNode
from gateway.verify import FinalBlock, Head, NotProven, check_next
from node.chain.errors import PeerError
from node.chain.genesis import genesis_document
from node.consensus.override import Override, OverrideError, override_document
from serving.settings import ConfigError
from tests.gateway.receipt_world import FIRST, GENESIS, KEYS, World, make_ballot
from tests.gateway.test_gateway_sets import OneValidator

OTHERS = sorted(KEYS)[3:5]


def overridden_world() -> tuple[World, Override]:
    """Some blocks by three validators, then one of them and two strangers go on without a quorum of the three."""
    world = World()
    world.create(1)
    world.cast(make_ballot(1, 1))
    override = world.override(FIRST[0], *OTHERS)
    world.cast(make_ballot(1, 2))
    world.block()
    return world, override


def follower_of(world: World, head: Head, sets: ValidatorSets) -> Follower:
    return Follower(
        OneValidator(world),  # type: ignore[arg-type]
        world.domain,
        head,
        sets,
        world.headers[0],
        poll_s=1,
        on_block=lambda block: None,
        on_jump=lambda: None,
    )


def validator_of(world: World) -> Validator:
    one = Validator(ValidatorNode("v", "http://v", ""))
    one.height = len(world.headers) - 1
    return one


@pytest.mark.parametrize("height", [-3, -1], ids=["the overriding block", "a later one"])
def test_a_receipt_holds_only_for_who_believes_the_override(height: int) -> None:
    world, override = overridden_world()
    receipt = world.receipt(make_ballot(1, 1), 0, height)
    words = [step.words for step in verify_receipt(receipt, world.domain, overrides=[override])]
    assert sum("override that you gave names 3 validators" in line for line in words) == 1
    elsewhere = replace(override, parent_hash=bytes(32))
    for overrides in ([], [elsewhere], [replace(override, height=override.height - 1)]):
        with pytest.raises(InvalidReceipt, match=r"no proposer|no validator"):
            verify_receipt(receipt, world.domain, overrides=overrides)
    before = world.receipt(make_ballot(1, 1), 0, override.height)
    assert verify_receipt(before, world.domain) == verify_receipt(before, world.domain, overrides=[override])


async def test_a_gateway_that_lies_behind_jumps_over_an_override_that_it_was_given() -> None:
    world, override = overridden_world()
    for last in (len(world.headers), override.height + 2):  # at the overriding block itself, too
        world.headers, world.certificates = world.headers[:last], world.certificates[:last]
        world.sets = [one for one in world.sets if one.header.number < last]
        first = Head(world.headers[0], FIRST)
        stubborn = follower_of(world, first, ValidatorSets([(1, FIRST)]))
        with pytest.raises(PeerError):
            await stubborn._jump(validator_of(world))
        follower = follower_of(world, first, ValidatorSets([(1, FIRST)], (override,)))
        follower._pool.sets = world.sets  # type: ignore[attr-defined]
        assert await follower._jump(validator_of(world))
        assert follower.head == Head(world.headers[-1], override.validators)
        assert follower.validators_at(override.height) == FIRST
        assert follower.validators_at(override.height + 1) == override.validators


def test_a_gateway_that_stopped_at_the_lost_quorum_goes_on(tmp_path: Path) -> None:
    world, override = overridden_world()
    stopped = Head(world.headers[override.height], FIRST)
    path = tmp_path / "verified.json"
    state = VerifiedState(path, world.domain, stopped, ValidatorSets([(1, FIRST)]))
    state._write(stopped.header, state.sets.entries(), [], {})
    header, certificate = world.headers[override.height + 1], world.certificates[override.height + 1]
    assert certificate is not None
    block = FinalBlock(header, (), (), certificate)
    for overrides in ((), (override,), (override,)):
        found = load_state(path, world.domain, GENESIS, overrides)
        follower = follower_of(world, found.head, found.sets)
        assert follower.head.header == stopped.header
        if not overrides:
            with pytest.raises(PeerError):
                check_next(follower.head, block, world.domain)
            continue
        check_next(follower.head, block, world.domain)
        assert follower.validators_at(override.height + 1) == override.validators
        found._write(follower.head.header, follower.sets.entries(), [], {})  # the second time: as it was saved


async def test_the_head_that_an_override_follows_is_advanced_over() -> None:
    world, override = overridden_world()
    sets = ValidatorSets([(1, FIRST)], (override,))
    follower = follower_of(world, Head(world.headers[0], FIRST), sets)
    for header, certificate in zip(world.headers[1:], world.certificates[1:], strict=True):
        assert certificate is not None
        block = FinalBlock(header, (), (), certificate)  # transactions are another test's
        assert block.header.parent_hash == follower.head.header.hash
        await follower._advance(block, validator_of(world))
    assert follower.head.validators == override.validators
    assert [height for height, _ in sets.entries()] == [1, override.height + 1]


def test_override_files_are_checked_before_they_are_believed(tmp_path: Path) -> None:
    world, override = overridden_world()
    path = tmp_path / "override.json"
    path.write_text(json.dumps(override_document(override)))
    assert load_overrides([path], GENESIS) == (override,)
    with pytest.raises(ConfigError, match=r"override .*none.json: No such file"):
        load_overrides([tmp_path / "none.json"], GENESIS)
    unsigned = replace(override, signatures=override.signatures[:2])
    path.write_text(json.dumps(override_document(unsigned)))
    with pytest.raises(ConfigError, match="lacks the signature"):
        load_overrides([path], GENESIS)
    path.write_text(json.dumps(override_document(override)))
    with pytest.raises(ConfigError, match="another network"):
        load_overrides([path], replace(GENESIS, chain_id=1))
    with pytest.raises(NotProven):
        ValidatorSets([(1, FIRST)], (override,)).note(world.headers[1], tuple(OTHERS))


def test_an_override_of_a_quorum_that_was_not_lost_is_refused() -> None:
    world, override = overridden_world()
    good = ValidatorSets([(1, FIRST), (override.height + 1, override.validators)], (override,))
    good.check_overrides_fit(world.headers[-1])
    before = ValidatorSets([(1, FIRST)], (override,))
    before.check_overrides_fit(world.headers[override.height - 1])
    before.check_overrides_fit(world.headers[override.height])
    with pytest.raises(OverrideError, match="was not lost"):  # the first validators went on
        before.check_overrides_fit(world.headers[-1])
    with pytest.raises(OverrideError, match="was not lost"):  # from another block
        before.check_overrides_fit(replace(world.headers[override.height], gas_used=1))


def test_verify_takes_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, override = overridden_world()
    document, genesis, given = (tmp_path / name for name in ("receipt.json", "genesis.json", "override.json"))
    document.write_text(json.dumps(receipt_document(world.receipt(make_ballot(1, 2), 1))))
    genesis.write_text(json.dumps(genesis_document(GENESIS)))
    given.write_text(json.dumps(override_document(override)))
    assert main(["verify", str(document), "--genesis", str(genesis)]) == 1
    assert "does not hold" in capsys.readouterr().out
    assert main(["verify", str(document), "--genesis", str(genesis), "--override", str(given)]) == 0
    shown = capsys.readouterr().out
    assert "override that you gave" in shown
    by_hash = ["verify", str(document), "--genesis-hash", world.domain.genesis_hash.hex(), "--override", str(given)]
    assert main(by_hash) == 0
    given.write_text("{}")
    assert main(by_hash) != 0
