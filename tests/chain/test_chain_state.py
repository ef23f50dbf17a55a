"""The state overlay against a plain dictionary model and the `trie` library; undoing; proofs for eth_getProof."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trie.hexary import HexaryTrie

from merkle import patricia, rlp
from merkle.keccak import keccak256
from node.chain import keyspace
from node.chain.errors import LedgerError
from node.chain.state import (
    EMPTY_ACCOUNT,
    EMPTY_CODE_HASH,
    Account,
    State,
    decode_account,
    prove_account,
    slot_key,
)

PEOPLE = [bytes((index,)) * 20 for index in range(1, 5)]
CONTRACTS = [bytes((index,)) * 20 for index in range(0xF0, 0xF2)]
SLOTS = [0, 1, 2, (1 << 256) - 1]
RECORDS = [keyspace.RECORD + name for name in (b"a", b"b", b"c")]


@dataclass
class Model:
    """What the state should say, without tries, journal or caches."""

    nonces: dict[bytes, int] = field(default_factory=dict)
    balances: dict[bytes, int] = field(default_factory=dict)
    codes: dict[bytes, bytes] = field(default_factory=dict)
    storage: dict[tuple[bytes, int], int] = field(default_factory=dict)
    records: dict[bytes, bytes] = field(default_factory=dict)

    def root(self) -> bytes:
        accounts = HexaryTrie({})
        for address in PEOPLE + CONTRACTS:
            slots = HexaryTrie({})
            for slot in SLOTS:
                if value := self.storage.get((address, slot)):
                    slots[keccak256(slot.to_bytes(32, "big"))] = rlp.encode(rlp.encode_int(value))
            nonce, balance = self.nonces.get(address, 0), self.balances.get(address, 0)
            code = self.codes.get(address, b"")
            if nonce or balance or code:
                numbers = [rlp.encode_int(nonce), rlp.encode_int(balance)]
                accounts[keccak256(address)] = rlp.encode([*numbers, slots.root_hash, keccak256(code)])
        return bytes(accounts.root_hash)

    def agrees_with(self, state: State) -> bool:
        return all(
            (state.nonce(address), state.balance(address), state.code(address))
            == (self.nonces.get(address, 0), self.balances.get(address, 0), self.codes.get(address, b""))
            and all(state.storage(address, slot) == self.storage.get((address, slot), 0) for slot in SLOTS)
            for address in PEOPLE + CONTRACTS
        ) and all(state.record(key) == self.records.get(key) for key in RECORDS)


addresses = st.sampled_from(PEOPLE + CONTRACTS)
steps = st.one_of(
    st.tuples(st.just("nonce"), addresses, st.integers(0, 3)),
    st.tuples(st.just("balance"), addresses, st.sampled_from([0, 1, 10**18, (1 << 256) - 1])),
    st.tuples(st.just("slot"), st.sampled_from(CONTRACTS), st.sampled_from(SLOTS), st.sampled_from([0, 1, 1 << 255])),
    st.tuples(st.just("record"), st.sampled_from(RECORDS), st.binary(max_size=3)),
    st.tuples(st.just("records"), st.dictionaries(st.sampled_from(RECORDS), st.binary(max_size=3))),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("revert"), st.integers(0, 5)),
)


def apply(state: State, model: Model, block: list[Any]) -> Model:
    """Do the same to both; returns the model, which a revert replaces."""
    marks: list[tuple[int, Model]] = []
    for step in block:
        match step:
            case ("nonce", address, value):
                state.set_nonce(address, value)
                model.nonces[address] = value
            case ("balance", address, value):
                state.set_balance(address, value)
                model.balances[address] = value
            case ("slot", address, slot, value):
                state.set_storage(address, slot, value)
                model.storage[address, slot] = value
            case ("record", key, value):
                state.set_record(key, value)
                model.records[key] = value
            case ("records", records):
                new = {key: value for key, value in records.items() if state.record(key) is None}
                state.add_records(new)
                model.records |= new
            case ("snapshot",):
                marks.append((state.snapshot(), copy.deepcopy(model)))
            case ("revert", at) if at < len(marks):
                mark, model = marks[at]
                model = copy.deepcopy(model)
                del marks[at + 1 :]
                state.revert(mark)
    return model


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(steps, max_size=25), min_size=1, max_size=4))
def test_blocks_of_changes_agree_with_the_model(blocks: list[list[Any]]) -> None:
    database: dict[bytes, bytes] = {}
    model = Model()
    state = State(database, patricia.EMPTY_ROOT)
    for address in CONTRACTS:
        state.set_code(address, b"\xfecode of " + address)
        model.codes[address] = b"\xfecode of " + address
    for block in blocks:
        model = apply(state, model, block)
        assert model.agrees_with(state)
        root, writes = state.commit()
        assert root == model.root()
        assert state.commit() == (root, writes), "commit changes nothing"
        database |= writes
        state = State(database, root)
        assert model.agrees_with(state)
    for address in PEOPLE + CONTRACTS:
        check_proof(database, root, address, model)


def check_proof(database: dict[bytes, bytes], root: bytes, address: bytes, model: Model) -> None:
    shown = prove_account(database, root, address, SLOTS)
    value = patricia.verify(root, keccak256(address), shown.proof)
    assert (EMPTY_ACCOUNT if value is None else decode_account(value)) == shown.account
    assert shown.account.balance == model.balances.get(address, 0)
    for slot, entry in zip(SLOTS, shown.storage, strict=True):
        assert (entry.slot, entry.value) == (slot, model.storage.get((address, slot), 0))
        stored = patricia.verify(shown.account.storage_root, slot_key(slot), entry.proof)
        assert stored == (rlp.encode(rlp.encode_int(entry.value)) if entry.value else None)


def test_writes_stay_within_their_prefixes() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    state.set_code(CONTRACTS[0], b"code")
    state.set_storage(CONTRACTS[0], 0, 1)
    state.set_record(RECORDS[0], b"value")
    _, writes = state.commit()
    assert {key[:1] for key in writes} == {keyspace.TRIE_NODE, keyspace.CODE, keyspace.RECORD}
    assert writes[RECORDS[0]] == b"value"
    assert writes[keyspace.CODE + keccak256(b"code")] == b"code"
    nodes = [key for key in writes if key[:1] == keyspace.TRIE_NODE]
    assert len(nodes) == 2  # one trie with one account, one with one slot
    assert all(keccak256(writes[key]) == key[1:] for key in nodes)


def test_prefixes_are_distinct_bytes() -> None:
    prefixes = [value for name, value in vars(keyspace).items() if name.isupper()]
    assert len(prefixes) >= 10
    assert len(set(prefixes)) == len(prefixes)
    assert all(len(prefix) == 1 for prefix in prefixes)


def test_nothing_changed_means_nothing_written() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    state.set_balance(PEOPLE[0], 5)
    state.set_code(CONTRACTS[0], b"code")
    state.set_storage(CONTRACTS[0], 7, 1)
    root, database = state.commit()
    state = State(database, root)
    state.set_storage(CONTRACTS[0], 7, 2)
    state.set_storage(CONTRACTS[0], 7, 1)
    state.set_storage(CONTRACTS[0], 8, 0)
    state.set_balance(PEOPLE[0], 6)
    state.set_balance(PEOPLE[0], 5)
    state.set_nonce(PEOPLE[1], 0)  # touched, and still empty
    assert state.commit() == (root, {})


def test_an_emptied_account_is_deleted() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    state.set_balance(PEOPLE[0], 5)
    root, database = state.commit()
    state = State(database, root)
    assert state.exists(PEOPLE[0])
    state.set_balance(PEOPLE[0], 0)
    assert not state.exists(PEOPLE[0])
    assert state.commit()[0] == patricia.EMPTY_ROOT


def test_an_encoded_account_is_ethereums() -> None:
    # The account of a fresh address with one wei, as the yellow paper writes it.
    account = Account(0, 1, patricia.EMPTY_ROOT, EMPTY_CODE_HASH)
    assert account.encoded().hex() == (
        "f8448001"
        "a056e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
        "a0c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
    assert decode_account(account.encoded()) == account


@pytest.mark.parametrize(
    "item",
    [
        b"",
        [b"", b"", bytes(32)],
        [b"", b"", bytes(31), bytes(32)],
        [b"", b"", bytes(32), []],
        [b"\x00", b"", bytes(32), bytes(32)],
        [b"\x01" + bytes(8), b"", bytes(32), bytes(32)],
    ],
)
def test_what_is_no_account_is_refused(item: Any) -> None:
    with pytest.raises(rlp.RlpError):
        decode_account(rlp.encode(item))


def test_impossible_values_are_our_own_fault() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    for wei in (-1, 1 << 256):
        with pytest.raises(LedgerError, match=str(wei)):
            state.set_balance(PEOPLE[0], wei)
        with pytest.raises(LedgerError, match=str(wei)):
            state.set_storage(CONTRACTS[0], 0, wei)
    with pytest.raises(LedgerError, match="no snapshot 1"):
        state.revert(1)


def test_storage_needs_an_account() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    state.set_storage(PEOPLE[0], 0, 1)
    with pytest.raises(LedgerError, match="has storage, but no nonce"):
        state.commit()


def test_lost_code_and_nodes_are_named() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    state.set_code(CONTRACTS[0], b"code")
    root, database = state.commit()
    del database[keyspace.CODE + keccak256(b"code")]
    with pytest.raises(LedgerError, match=keccak256(b"code").hex()):
        State(database, root).code(CONTRACTS[0])
    with pytest.raises(patricia.MissingNode):
        State({}, root).balance(CONTRACTS[0])


def test_a_reverted_code_is_not_written() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    mark = state.snapshot()
    state.set_code(CONTRACTS[0], b"code")
    state.revert(mark)
    assert state.code(CONTRACTS[0]) == b""
    assert state.commit() == (patricia.EMPTY_ROOT, {})


def test_records_that_were_added_together_are_undone_together() -> None:
    old, kept, first, second = (keyspace.RECORD + name for name in (b"old", b"kept", b"first", b"second"))
    state = State({old: b"1"}, patricia.EMPTY_ROOT)
    state.add_records({kept: b"2"})
    mark = state.snapshot()
    state.add_records({first: b"3", second: b"4"})
    state.set_record(first, b"5")
    state.set_record(old, b"6")
    assert [state.record(key) for key in (first, second, old)] == [b"5", b"4", b"6"]
    state.revert(mark)
    assert [state.record(key) for key in (first, second, old, kept)] == [None, None, b"1", b"2"]
    assert state.commit() == (patricia.EMPTY_ROOT, {kept: b"2"})


def test_a_balance_does_not_overflow() -> None:
    state = State({}, patricia.EMPTY_ROOT)
    state.add_balance(PEOPLE[0], (1 << 256) - 2)
    state.add_balance(PEOPLE[0], 1)
    with pytest.raises(LedgerError, match="expected 0 to 2"):
        state.add_balance(PEOPLE[0], 1)
    assert state.balance(PEOPLE[0]) == (1 << 256) - 1
