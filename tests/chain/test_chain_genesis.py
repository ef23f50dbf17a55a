"""Genesis: documents there and back, what is refused, and that the hash of block 0 commits to all that matters."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkle.keccak import keccak256
from node.chain.genesis import Genesis, GenesisError, build_genesis, domain_of, genesis_document, parse_genesis
from node.chain.state import State
from tests.chain.conftest import ANCHORS, GENESIS, KEYS, POOR, RICH, VALIDATORS

addresses = st.binary(min_size=19, max_size=19).map(lambda data: b"\1" + data)
address_sets = st.sets(addresses, max_size=5).map(lambda items: tuple(sorted(items)))
geneses = st.builds(
    Genesis,
    chain_id=st.integers(1, 2**53 - 1),
    timestamp=st.integers(0, 2**64 - 1),
    validators=st.sets(addresses, min_size=1, max_size=5).map(lambda items: tuple(sorted(items))),
    gateways=address_sets,
    gas_limit=st.integers(10**8, 2**53 - 1),
    block_bytes_max=st.integers((1 << 20) + 4096, 1 << 26),
    alloc=st.dictionaries(addresses, st.integers(1, 2**250), max_size=5),
    anyone_creates_elections=st.booleans(),
    accounts=st.none() | address_sets,
    names=st.dictionaries(addresses, st.text(min_size=1, max_size=64), max_size=3),
)


@given(geneses)
def test_documents_go_there_and_back_through_json(genesis: Genesis) -> None:
    document = json.loads(json.dumps(genesis_document(genesis)))
    assert parse_genesis(document) == genesis


@settings(max_examples=30, deadline=None)
@given(geneses, geneses)
def test_two_networks_have_two_genesis_hashes(one: Genesis, other: Genesis) -> None:
    differ = replace(one, names={}) != replace(other, names={})
    assert (build_genesis(one).block.hash != build_genesis(other).block.hash) == differ


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 7771},
        {"timestamp": 1},
        {"gas_limit": GENESIS.gas_limit + 1},
        {"block_bytes_max": GENESIS.block_bytes_max + 1},
        {"validators": VALIDATORS[:2]},
        {"gateways": ()},
        {"alloc": {RICH.address: 1}},
        {"anyone_creates_elections": True},
        {"accounts": ()},
        {"accounts": (RICH.address,)},
    ],
)
def test_each_field_is_committed_to(change: dict[str, Any]) -> None:
    assert build_genesis(replace(GENESIS, **change)).block.hash != build_genesis(GENESIS).block.hash


def test_block_zero() -> None:
    executed = build_genesis(GENESIS)
    header = executed.block.header
    assert (header.number, header.parent_hash, header.miner) == (0, bytes(32), bytes(20))
    assert header.extra_data == keccak256(b"".join(VALIDATORS))
    assert executed.next_validators == VALIDATORS
    state = State(executed.writes, header.state_root)
    assert {address: state.balance(address) for address in GENESIS.alloc} == GENESIS.alloc
    assert domain_of(GENESIS).genesis_hash == header.hash
    # Whoever changes what block 0 holds makes another network of every existing one: it must be on purpose.
    assert header.hash.hex() == "037b743d785cfab7601fdb0167b4d2e7e64e7141ccd15945a81c4513a3154c4e"


def test_numbers_may_be_written_as_geth_does() -> None:
    document = genesis_document(GENESIS) | {"chainId": "0x1e5a", "timestamp": str(GENESIS.timestamp)}
    assert parse_genesis(document) == GENESIS
    assert parse_genesis({"chainId": 7770, "validators": ["0x" + VALIDATORS[0].hex()]}).gas_limit == 2_000_000_000


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"chainID": 1}, "'chainID' is unknown"),
        ({"chainId": 0}, "'chainId' is 0; expected a number from 1 to"),
        ({"chainId": True}, "'chainId' is True"),
        ({"chainId": "1_0"}, "'chainId' is '1_0'"),
        ({"chainId": None}, "'chainId' is None"),
        ({"timestamp": -1}, "'timestamp' is -1"),
        ({"timestamp": "0xzz"}, "'timestamp' is '0xzz'"),
        ({"gasLimit": 1000}, "'gasLimit' is 1000"),
        ({"blockBytesMax": 1}, "'blockBytesMax' is 1"),
        ({"validators": []}, "'validators' is empty"),
        ({"validators": "0x"}, "'validators' is '0x'"),
        ({"validators": ["0x12"]}, "'validators' has '0x12'"),
        ({"validators": ["0x" + "1 " * 20]}, "expected an address"),
        ({"validators": ["0x" + POOR.address.hex()] * 2}, "more than once"),
        ({"gateways": ["0x" + ANCHORS.hex()]}, "no native contract"),
        ({"gateways": ["0x" + bytes((n + 1,) * 20).hex() for n in range(65)]}, "up to 64"),
        ({"alloc": []}, "'alloc' is []"),
        ({"alloc": {"x": {"balance": 1}}}, "'alloc' has 'x'"),
        ({"alloc": {"0x" + POOR.address.hex(): 5}}, "expected {\"balance\": wei}"),
        ({"alloc": {"0x" + POOR.address.hex(): {"balance": -5}}}, "balance' is -5"),
        ({"alloc": {"0x" + text: {"balance": 1} for text in ("ab" * 20, "AB" * 20)}}, "more than once"),
        ({"alloc": {"0x" + key.address.hex(): {"balance": hex(2**255)} for key in KEYS[:2]}}, "adds up to 2^256"),
        ({"anyoneCreatesElections": 1}, "'anyoneCreatesElections' is 1"),
        ({"names": {"0x" + POOR.address.hex(): ""}}, "'names.0x"),
        ({"names": 7}, "'names' is 7"),
    ],
)  # fmt: skip
def test_faults_name_field_value_and_what_was_expected(change: dict[str, object], text: str) -> None:
    with pytest.raises(GenesisError, match="genesis field ") as error:
        parse_genesis(genesis_document(GENESIS) | change)
    assert text in str(error.value)
