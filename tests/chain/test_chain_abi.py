"""The shipped ABIs: against eth_abi and web3's reading of them, and the hand-written encodings against theirs."""

from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.abi import event_abi_to_log_topic, function_abi_to_4byte_selector
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from node.chain.contracts import registry
from node.chain.contracts.contract import Abi, NativeContract, load_abi
from node.chain.contracts.layout import read_addresses, read_string, write_addresses, write_string
from node.chain.receipt import EventLog
from tests.chain.conftest import ABIS, ANCHORS, ELECTIONS, GATEWAY, Chain, create_election, pack, word

NAMES = ("Elections", "Anchors", "Validators")


@pytest.mark.parametrize("name", NAMES)
def test_selectors_and_topics_are_what_eth_utils_makes_of_the_json(name: str) -> None:
    abi = load_abi(name)
    entry: Any
    for entry in abi.json:
        if entry["type"] == "function":
            assert abi.functions[entry["name"]].id == function_abi_to_4byte_selector(entry)
        elif entry["type"] == "event":
            assert abi.events[entry["name"]].id == event_abi_to_log_topic(entry)
        else:
            error: Any = {**entry, "type": "function"}
            assert abi.errors[entry["name"]].id == function_abi_to_4byte_selector(error)


@pytest.mark.parametrize("address", registry.CONTRACTS)
def test_web3_makes_a_contract_of_each_abi(address: bytes) -> None:
    contract = Web3().eth.contract(address=Web3.to_checksum_address(address), abi=ABIS[address].json)
    assert {function.fn_name for function in contract.all_functions()} == set(ABIS[address].functions)


def test_calldata_is_web3_s() -> None:
    contract = Web3().eth.contract(abi=ABIS[ELECTIONS].json)
    values = (1, "t", ["a", "b"], 3, 0, 9, 5, [Web3.to_checksum_address(GATEWAY.address)], word(4))
    assert ABIS[ELECTIONS].encode_call("create", *values).hex() == contract.encode_abi("create", list(values))[2:]


def test_a_contract_must_answer_its_whole_abi() -> None:
    with pytest.raises(ValueError, match="do not match its ABI"):
        NativeContract(load_abi("Anchors"), ANCHORS, {})


def test_the_event_of_a_batch_is_encoded_as_eth_abi_does() -> None:
    chain = Chain()
    create_election(chain, 1)
    for count in (1, 31, 32, 33):
        first = chain.view(ELECTIONS, "log", 1)[0]
        records = [(word(first + n + 1), word(first + n + 1), 0, b"\0") for n in range(count)]
        (event,) = chain.send(GATEWAY, ELECTIONS, "castBatch", 1, pack(*records)).event_logs
        assert event == ABIS[ELECTIONS].encode_event(ELECTIONS, "BallotsCast", 1, first, count, bytes(count))


def test_errors_and_events_of_others_are_not_decoded() -> None:
    abi: Abi = ABIS[ANCHORS]
    data = abi.encode_error("InvalidAnchor", "why")
    assert abi.decode_error(data) == ("InvalidAnchor", ("why",))
    assert abi.decode_error(data[:-32]) is None
    assert abi.decode_error(b"\0\0\0\0") is None
    event = abi.encode_event(ANCHORS, "Anchored", word(1), 2, word(3), 4, "x")
    assert abi.decode_event(event) == ("Anchored", (word(1), 2, word(3), 4, "x"))
    assert abi.decode_event(EventLog(ANCHORS, event.topics[:2], event.data)) is None
    assert abi.decode_event(EventLog(ANCHORS, (word(1), *event.topics[1:]), event.data)) is None
    assert abi.decode_event(EventLog(ANCHORS, event.topics, event.data[:-32])) is None
    assert abi.decode_event(EventLog(ANCHORS, (), b"")) is None


def test_overlapping_arrays_do_not_multiply() -> None:
    """An ABI decoder that follows every offset can be made to build gigabytes from a megabyte."""
    abi, count = ABIS[ELECTIONS], 30_000
    head = encode(["uint256"], [1]) + encode(["uint256"] * 8, [9 * 32, 9 * 32, 1, 0, 0, 0, 9 * 32, 0])
    bomb = abi.functions["create"].id + head + encode(["uint256"], [count]) + encode(["uint256"], [0]) * count
    error = abi.decode_error(Chain().call_raw(ELECTIONS, bomb, sender=GATEWAY.address).output)
    assert error is not None
    assert error[0] == "InvalidCalldata"
    assert "at most 32768" in error[1][0]


class Slots:
    """Storage as a dict."""

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}

    def storage(self, address: bytes, slot: int) -> int:
        return self.slots.get(slot, 0)

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        self.slots[slot] = value


@given(st.text(max_size=100))
def test_strings_are_kept_in_solidity_s_layout(text: str) -> None:
    slots = Slots()
    write_string(slots, b"", 7, text)
    assert read_string(slots, b"", 7) == text
    data = text.encode()
    assert slots.slots[7] & 1 == (len(data) > 31)
    begin = int.from_bytes(Web3.keccak(word(7)), "big")
    kept = slots.slots[7].to_bytes(32, "big")
    if len(data) > 31:
        assert slots.slots[7] == 2 * len(data) + 1
        kept = b"".join(slots.slots[begin + n].to_bytes(32, "big") for n in range((len(data) + 31) // 32))
    assert kept[: len(data)] == data


@given(st.lists(st.lists(st.binary(min_size=20, max_size=20), max_size=5), min_size=1, max_size=3))
def test_lists_of_addresses_leave_nothing_behind(lists: list[list[bytes]]) -> None:
    slots = Slots()
    for addresses in lists:
        write_addresses(slots, b"", 3, tuple(addresses))
        assert read_addresses(slots, b"", 3) == tuple(addresses)
    present = [value for slot, value in slots.slots.items() if slot != 3 and value]
    assert len(present) == sum(1 for address in addresses if any(address))
