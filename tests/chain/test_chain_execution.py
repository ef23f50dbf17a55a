"""Blocks: random transactions against a plain model, roots against another trie, every mutated block refused."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie.hexary import HexaryTrie

from merkle.keccak import keccak256
from node.chain.block import Block, Header
from node.chain.contracts import anchors, registry
from node.chain.errors import InvalidBlock, InvalidTransaction
from node.chain.execution import CallRefused, apply_block, call, estimate_gas
from node.chain.processing import encode_receipt
from node.chain.receipt import EventLog, Receipt, logs_bloom, make_receipt
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from tests.chain.conftest import (
    ABIS,
    ANCHORS,
    ELECTIONS,
    ETHER,
    GATEWAY,
    KEYS,
    POOR,
    RICH,
    START,
    STRANGER,
    VALIDATORS,
    VALIDATORS_CONTRACT,
    Chain,
    create_election,
    pack,
    word,
)

ANCHOR_CALL = ABIS[ANCHORS].encode_call("anchor", word(1), word(2), 3, "")


def trie_root(values: list[bytes]) -> bytes:
    """The root as the `trie` library builds it."""
    trie = HexaryTrie({})
    for index, value in enumerate(values):
        trie[rlp.encode(index)] = value
    root: bytes = trie.root_hash
    return root


@dataclass
class Model:
    """Accounts as two dicts, and the rules as a page of prose would have them."""

    balances: dict[bytes, int]
    nonces: dict[bytes, int] = field(default_factory=dict)
    anchored: set[bytes] = field(default_factory=set)

    def judge(self, transaction: Transaction) -> str:
        """Why no block could hold this transaction now; empty when one could."""
        nonce, balance = self.nonces.get(transaction.sender, 0), self.balances.get(transaction.sender, 0)
        if transaction.gas_limit < transaction.intrinsic_gas:
            return "intrinsic gas too low"
        if transaction.nonce != nonce:
            return "nonce too low" if transaction.nonce < nonce else "nonce too high"
        if balance < transaction.value + transaction.gas_limit * transaction.max_fee_per_gas:
            return "insufficient funds for gas * price + value"
        return ""

    def run(self, transaction: Transaction, receipt: Receipt, gas_used: int, miner: bytes) -> None:
        """What it does, given what it cost."""
        sender, to = transaction.sender, transaction.to
        self.nonces[sender] = transaction.nonce + 1
        contract = to in registry.CONTRACTS
        succeeds = not contract or (
            to == ANCHORS
            and transaction.value == 0
            and transaction.data[:4] == ANCHOR_CALL[:4]
            and sender == GATEWAY.address
            and transaction.data[4:36] not in self.anchored
            and transaction.gas_limit >= transaction.intrinsic_gas + 40_000
        )
        assert receipt.succeeded == succeeds
        if contract and succeeds:
            self.anchored.add(transaction.data[4:36])
        if succeeds:
            self.balances[sender] = self.balances.get(sender, 0) - transaction.value
            self.balances[to] = self.balances.get(to, 0) + transaction.value
        fee = gas_used * min(transaction.max_priority_fee_per_gas, transaction.max_fee_per_gas)
        self.balances[sender] = self.balances.get(sender, 0) - fee
        self.balances[miner] = self.balances.get(miner, 0) + fee
        assert transaction.intrinsic_gas <= gas_used <= transaction.gas_limit
        if not contract:
            assert gas_used == transaction.intrinsic_gas


actions = st.tuples(
    st.sampled_from([GATEWAY, RICH, POOR, KEYS[0]]),  # KEYS[0] is the proposer, too
    st.sampled_from([RICH.address, POOR.address, VALIDATORS[0], word(77)[12:], ANCHORS, ELECTIONS]),
    st.sampled_from([0, 0, 0, 0, 0, 1, -1]),  # nonce, off by this
    st.sampled_from([0, 0, 1, ETHER, 600 * ETHER]),
    st.sampled_from([(0, 0), (0, 0), (5, 5), (10**9, 10**12)]),
    st.sampled_from([20_999, 21_000, 30_000, 60_000, 100_000]),
    st.sampled_from(
        [b"", b"", b"\0\1\2", *(ABIS[ANCHORS].encode_call("anchor", word(n), word(n), n, "x") for n in range(4))]
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(actions, max_size=12), min_size=1, max_size=4))
def test_blocks_agree_with_a_plain_model(blocks: list[list[Any]]) -> None:
    chain = Chain()
    model = Model(dict(chain.genesis.alloc))
    for block in blocks:
        nonces = dict(model.nonces)
        transactions = []
        for key, to, off, value, (tip, fee_cap), gas_limit, data in block:
            nonce = max(0, nonces.get(key.address, 0) + off)
            transaction = sign_transaction(
                key, chain_id=7770, nonce=nonce, to=to, gas_limit=gas_limit, data=data, value=value,
                max_fee_per_gas=fee_cap, max_priority_fee_per_gas=tip,
            )  # fmt: skip
            transactions.append(transaction)
            nonces[key.address] = nonce + 1
        receipts = list(chain.take(transactions))
        _compare(chain, model, transactions, receipts)
    total = sum(chain.genesis.alloc.values())
    state = chain.state()
    assert sum(model.balances.values()) == total
    for address in {*model.balances, *model.nonces}:
        assert state.balance(address) == model.balances.get(address, 0)
        nonce = int(address in registry.CONTRACTS) or model.nonces.get(address, 0)  # a native contract's is 1
        assert state.nonce(address) == nonce
        assert state.exists(address) == bool(model.balances.get(address, 0) or nonce)
    assert chain.view(ANCHORS, "log")[0] == len(model.anchored)


def _compare(chain: Chain, model: Model, transactions: list[Transaction], receipts: list[Receipt]) -> None:
    taken: list[Transaction] = []
    before = 0
    dropped = [(transaction.hash, error.reason) for transaction, error in chain.dropped]
    expected_drops = []
    for transaction in transactions:
        reason = model.judge(transaction)
        if not reason:
            receipt = receipts[len(taken)]
            model.run(transaction, receipt, receipt.cumulative_gas_used - before, VALIDATORS[0])
            before = receipt.cumulative_gas_used
            taken.append(transaction)
        elif reason != "nonce too high":
            expected_drops.append((transaction.hash, reason))
    assert dropped == expected_drops
    block = chain.blocks[-1]
    assert list(block.transactions) == taken
    header = block.header
    assert header.gas_used == before
    assert header.transactions_root == trie_root([transaction.raw for transaction in taken])
    assert header.receipts_root == trie_root([receipt.encoded() for receipt in receipts])
    assert header.logs_bloom == logs_bloom([event for receipt in receipts for event in receipt.event_logs])


def test_the_state_root_is_the_trie_library_s() -> None:
    chain = Chain()
    create_election(chain, 1)
    chain.take([chain.sign(RICH, word(n)[12:], value=n + 1, ahead=n) for n in range(40)])
    state = chain.state()
    trie = HexaryTrie({})
    accounts = [*chain.genesis.alloc, *ABIS, *(word(n)[12:] for n in range(40)), *VALIDATORS]
    for address in accounts:
        account = state.account(address)
        if state.exists(address):
            trie[keccak256(address)] = rlp.encode(list(account))
    assert trie.root_hash == chain.head.state_root


def test_every_mutated_block_is_refused() -> None:
    chain = Chain()
    create_election(chain, 1)
    batch = ABIS[ELECTIONS].encode_call("castBatch", 1, pack((word(1), word(1), 0, b"\0")))
    executed = chain.build(
        [chain.sign(RICH, POOR.address, value=1), chain.sign(GATEWAY, ELECTIONS, batch), chain.sign(POOR, RICH.address)]
    )
    block = executed.block
    assert len(block.transactions) == 3
    assert chain.check(block) == executed
    header = block.header
    flipped: dict[str, list[object]] = {
        name: [value[:-1] + bytes((value[-1] ^ 1,)), bytes((value[0] ^ 128,)) + value[1:]]
        if isinstance(value, bytes)
        else [value + 1, value - 1]
        for name, value in vars(header).items()
        if name not in ("encoded", "hash")
    }
    flipped["miner"].append(STRANGER.address)
    flipped["timestamp"] = [header.timestamp - 1]  # a later one makes another valid block
    assert len(flipped) == 16
    for name, values in flipped.items():
        for value in values:
            with pytest.raises(InvalidBlock):
                chain.check(Block(_with(header, name, value), block.transactions))
    # Which of the validators proposes is for consensus to check, and the timestamp is the proposer's to choose.
    for name, value in (("miner", VALIDATORS[1]), ("timestamp", header.timestamp + 1)):
        chain.check(Block(_with(header, name, value), block.transactions))
    first, second, third = block.transactions
    for transactions in ((), (first,), (second, first, third), (first, first, second, third), (first, second)):
        with pytest.raises(InvalidBlock):
            chain.check(Block(header, transactions))


def _with(header: Header, name: str, value: object) -> Header:
    changes: dict[str, Any] = {name: value}
    return replace(header, **changes)


def test_a_block_is_refused_for_each_transaction_that_it_may_not_hold() -> None:
    chain = Chain()
    good = chain.build([chain.sign(RICH, POOR.address, value=1)]).block

    def refused(transaction: Transaction, reason: str) -> None:
        with pytest.raises(InvalidBlock, match=reason):
            chain.check(Block(good.header, (transaction,)))
        executed = chain.build([transaction])
        assert executed.block.transactions == ()

    refused(chain.sign(RICH, POOR.address, nonce=1), "nonce too high: next nonce 0, tx nonce 1")
    refused(chain.sign(STRANGER, POOR.address, value=1), "insufficient funds for gas")
    refused(chain.sign(RICH, b""), "contract creation is not supported")
    refused(chain.sign(RICH, POOR.address, gas_limit=20_999), "intrinsic gas too low")
    refused(chain.sign(RICH, POOR.address, gas_limit=10**9 + 1), "exceeds block gas limit")
    inverted = chain.sign(RICH, POOR.address, max_fee_per_gas=1, max_priority_fee_per_gas=2)
    refused(inverted, "max priority fee per gas higher")
    foreign = sign_transaction(RICH, chain_id=1, nonce=0, to=POOR.address, gas_limit=21_000)
    refused(foreign, "invalid chain id for signer: have 1 want 7770")
    forged = chain.sign(RICH, POOR.address)
    forged.signature = bytes(65)
    forged._sender = None
    refused(forged, "invalid sender")
    chain.take([chain.sign(RICH, POOR.address)])
    good = chain.build([chain.sign(RICH, POOR.address, value=1)]).block
    refused(chain.sign(RICH, POOR.address, nonce=0), "nonce too low: next nonce 1, tx nonce 0")


def test_what_does_not_fit_stays_for_the_next_block() -> None:
    chain = Chain(replace(Chain().genesis, block_bytes_max=(1 << 20) + 4096, gas_limit=100_000_000))
    big = [chain.sign(RICH, POOR.address, b"\0" * 600_000, ahead=n, gas_limit=20_000_000) for n in range(3)]
    small = chain.sign(GATEWAY, POOR.address)
    chain.take([*big, small])
    assert chain.blocks[-1].transactions == (big[0], small)
    assert chain.dropped == []
    assert chain.blocks[-1].bytes_count <= chain.genesis.block_bytes_max
    hungry = [chain.sign(key, POOR.address, gas_limit=30_000_000) for key in (GATEWAY, POOR, STRANGER)]
    chain.take(hungry)
    assert chain.blocks[-1].transactions == tuple(hungry)  # what counts is what was used, and the next one's limit
    executed = chain.build([])
    oversized = replace(chain.genesis, block_bytes_max=100)
    with pytest.raises(InvalidBlock, match="bytes, expected at most 100"):
        apply_block(
            chain.database, chain.head, executed.block, genesis=oversized, domain=chain.domain, validators=VALIDATORS
        )


def test_a_block_never_promises_more_than_half_its_gas() -> None:
    chain = Chain(replace(Chain().genesis, gas_limit=100_000_000))
    transactions = [chain.sign(GATEWAY, POOR.address, ahead=n, gas_limit=50_000_000 - n * 21_000) for n in range(5)]
    late = [chain.sign(RICH, POOR.address, ahead=n, gas_limit=49_900_000) for n in range(2)]
    chain.take([*transactions, *late])
    # Each limit just fits what those before it left; the first late one does not, and its follower waits for it.
    assert chain.blocks[-1].transactions == tuple(transactions)
    assert chain.dropped == []
    block = chain.build([late[0]]).block
    with pytest.raises(InvalidBlock, match="gas limit reached"):
        chain.check(Block(block.header, (*(chain.sign(POOR, RICH.address, ahead=n) for n in range(6)), late[0])))


def test_timestamps_may_repeat_and_never_go_back() -> None:
    chain = Chain()
    chain.now = START + 5
    chain.take()
    chain.take()
    assert [block.header.timestamp for block in chain.blocks] == [START, START + 5, START + 5]
    chain.now = START
    assert chain.build([]).block.header.timestamp == START + 5


def test_fees_go_to_the_proposer_also_for_refused_calls() -> None:
    chain = Chain()
    call_ = chain.sign(RICH, ANCHORS, ANCHOR_CALL, value=ETHER, max_fee_per_gas=3, max_priority_fee_per_gas=2)
    (receipt,) = chain.take([call_])
    assert not receipt.succeeded
    state = chain.state()
    fee = 2 * receipt.cumulative_gas_used
    assert state.balance(VALIDATORS[0]) == fee
    assert state.balance(RICH.address) == 1000 * ETHER - fee
    assert state.balance(ANCHORS) == 0
    assert state.nonce(RICH.address) == 1


def test_a_call_that_runs_out_of_gas_costs_all_of_it_and_does_nothing() -> None:
    chain = Chain()
    exact = estimate(chain, GATEWAY, ANCHORS, ANCHOR_CALL)
    (receipt,) = chain.take([chain.sign(GATEWAY, ANCHORS, ANCHOR_CALL, gas_limit=exact - 1)])
    assert not receipt.succeeded
    assert receipt.cumulative_gas_used == exact - 1
    assert chain.view(ANCHORS, "log")[0] == 0
    (receipt,) = chain.take([chain.sign(GATEWAY, ANCHORS, ANCHOR_CALL, gas_limit=exact)])
    assert receipt.succeeded
    assert receipt.cumulative_gas_used == exact


def estimate(chain: Chain, key: SigningKey, to: bytes, data: bytes, **more: Any) -> int:
    return estimate_gas(
        chain.database,
        chain.head,
        sender=key.address,
        to=to,
        data=data,
        genesis=chain.genesis,
        domain=chain.domain,
        **more,
    )


def test_estimates_are_exact_for_every_call() -> None:
    chain = Chain()
    create_election(chain, 1)
    elections = ABIS[ELECTIONS]
    calls = [
        (POOR.address, b"hello\0"),
        (ELECTIONS, elections.encode_call("create", 2, "t", ["a", "b"], 1, 0, 0, 0, [POOR.address], word(5))),
        (ELECTIONS, elections.encode_call("cast", 1, word(1), word(1), 1, b"x" * 1000)),
        (ELECTIONS, elections.encode_call("castBatch", 1, pack(*((word(n), word(n), 0, b"\0") for n in range(9))))),
        (ELECTIONS, elections.encode_call("close", 1)),
        (ELECTIONS, elections.encode_call("cancel", 1)),
        (ANCHORS, ANCHOR_CALL),
    ]
    for to, data in calls:
        gas = estimate(chain, GATEWAY, to, data)
        assert chain.build([chain.sign(GATEWAY, to, data, gas_limit=gas)]).receipts[0].succeeded
        less = chain.build([chain.sign(GATEWAY, to, data, gas_limit=gas - 1)])
        assert not less.receipts or not less.receipts[0].succeeded
    with pytest.raises(CallRefused) as refusal:
        estimate(chain, STRANGER, ANCHORS, ANCHOR_CALL)
    assert ABIS[ANCHORS].decode_error(refusal.value.output) == ("NotGateway", (STRANGER.address,))
    with pytest.raises(CallRefused):
        estimate(chain, GATEWAY, ANCHORS, ANCHOR_CALL, gas=60_000)
    with pytest.raises(InvalidTransaction, match="insufficient funds for transfer"):
        estimate(chain, STRANGER, POOR.address, b"", value=1)
    with pytest.raises(InvalidTransaction, match="contract creation is not supported"):
        estimate(chain, RICH, b"", b"")
    access_list = ((POOR.address, (bytes(32), bytes(32))),)
    assert estimate(chain, RICH, POOR.address, b"", access_list=access_list) == 21_000 + 2_400 + 2 * 1_900


def test_calls_change_nothing_and_views_are_for_calls() -> None:
    chain = Chain()
    before = dict(chain.database)
    assert chain.call_raw(ANCHORS, ANCHOR_CALL, sender=GATEWAY.address).succeeded
    assert chain.database == before
    assert chain.view(ANCHORS, "log")[0] == 0
    receipt = chain.send(RICH, ANCHORS, "log")
    assert not receipt.succeeded
    with pytest.raises(CallRefused) as refusal:
        estimate(chain, RICH, ANCHORS, ABIS[ANCHORS].encode_call("log"))
    assert ABIS[ANCHORS].decode_error(refusal.value.output) == ("ReadOnly", (keccak256(b"log()")[:4],))
    unknown = chain.call_raw(ANCHORS, b"\1\2")
    assert ABIS[ANCHORS].decode_error(unknown.output) == ("UnknownFunction", (b"\1\2\0\0",))
    with pytest.raises(InvalidTransaction, match="intrinsic gas too low"):
        call(
            chain.database, chain.head, sender=RICH.address, to=POOR.address, data=b"", gas=20_999,
            genesis=chain.genesis, domain=chain.domain,
        )  # fmt: skip


def test_the_validators_contract_answers() -> None:
    chain = Chain()
    chain.take()
    for name in ("validators", "nextValidators"):
        assert chain.view(VALIDATORS_CONTRACT, name) == VALIDATORS
    assert chain.view(VALIDATORS_CONTRACT, "gateways") == chain.genesis.gateways
    assert chain.view(VALIDATORS_CONTRACT, "chainId") == 7770
    assert [chain.view(VALIDATORS_CONTRACT, "isValidator", key.address) for key in KEYS[:4]] == [True] * 3 + [False]
    assert chain.view(VALIDATORS_CONTRACT, "isGateway", GATEWAY.address)
    assert not chain.view(VALIDATORS_CONTRACT, "isGateway", RICH.address)
    assert chain.head.extra_data == keccak256(b"".join(VALIDATORS))


def test_contracts_have_code_and_its_hash() -> None:
    chain = Chain()
    for address, contract in registry.CONTRACTS.items():
        code = chain.state().code(address)
        assert code == b"\xfe" + f"psephos:{contract.name}:1".encode()
        assert chain.state().account(address).code_hash == keccak256(code)
        assert chain.state().nonce(address) == 1


event_logs = st.builds(
    EventLog,
    st.binary(min_size=20, max_size=20),
    st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
    st.binary(max_size=300),
)


@given(
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.integers(0, 2**64 - 1) | st.integers(0, 300),
    st.lists(event_logs, max_size=3),
)
def test_the_fast_encoding_of_receipts_is_the_plain_one(
    type_: int, succeeded: bool, gas: int, logs: list[EventLog]
) -> None:
    receipt = make_receipt(type_, succeeded, gas, logs)
    assert encode_receipt(receipt) == receipt.encoded()


calldata: st.SearchStrategy[Callable[[bytes], bytes]] = st.builds(
    lambda cuts, flips: lambda data: _mangle(data, cuts, flips),
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
)


def _mangle(data: bytes, cuts: int, flips: list[tuple[int, int]]) -> bytes:
    mangled = bytearray(data[: len(data) - cuts] if cuts else data)
    for position, value in flips:
        if mangled:
            mangled[4 + position % max(1, len(mangled) - 4) if len(mangled) > 4 else 0] = value
    return bytes(mangled)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(range(20)), calldata)
def test_no_calldata_breaks_a_contract(which: int, mangle: Callable[[bytes], bytes]) -> None:
    chain = FUZZ_CHAIN
    elections, anchors_abi = ABIS[ELECTIONS], anchors.ABI
    calls = [
        (ELECTIONS, elections.encode_call("create", 9, "t", ["a", "b"], 1, 0, 0, 0, [POOR.address], word(5))),
        (ELECTIONS, elections.encode_call("cast", 1, word(1), word(1), 1, b"x" * 50)),
        (ELECTIONS, elections.encode_call("castBatch", 1, pack(*((word(n), word(n), n % 2, b"\0") for n in range(9))))),
        (ELECTIONS, elections.encode_call("close", 1)),
        (ELECTIONS, elections.encode_call("ballots", 1, 0, 5)),
        (ANCHORS, anchors_abi.encode_call("anchor", word(1), word(2), 3, "sha256")),
        (ANCHORS, anchors_abi.encode_call("anchors", 0, 5)),
        (VALIDATORS_CONTRACT, ABIS[VALIDATORS_CONTRACT].encode_call("isGateway", GATEWAY.address)),
    ]
    to, data = calls[which % len(calls)]
    result = chain.call_raw(to, mangle(data), sender=GATEWAY.address)
    if not result.succeeded and result.output:
        assert ABIS[to].decode_error(result.output) is not None


FUZZ_CHAIN = Chain()
create_election(FUZZ_CHAIN, 1)
