"""Event logs and filters: a search finds what a plain scan of all receipts finds, and a filter tells each once."""

import asyncio
from typing import Any

import orjson
import pytest
from eth_abi.abi import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from node.chain.receipt import EventLog
from node.rpc.blocks import Blocks
from node.rpc.limits import Limits
from node.rpc.logs import LogMatcher, LogSearch
from node.rpc.params import BlockRef, LogQuery
from tests.rpc.rpc_harness import (
    ABIS,
    ADDRESSES,
    ALICE,
    BOB,
    GATEWAY_KEY,
    Caller,
    LoneNode,
    RpcFailure,
)


def anchor(node: LoneNode, number: int) -> Any:
    return node.call_contract(GATEWAY_KEY, "Anchors", "anchor", number.to_bytes(32, "big"), bytes(32), 4, "sha256")


def create(node: LoneNode, election: int) -> Any:
    arguments: tuple[object, ...] = (election, "Demo", ["yes", "no"], 3, 0, 0, 0, [], bytes(32))
    return node.call_contract(GATEWAY_KEY, "Elections", "create", *arguments)


@pytest.fixture
def busy(node: LoneNode) -> LoneNode:
    """Blocks 1 to 6: anchors 1, 2 | nothing | election 1, anchor 3 | a transfer | election 2 | anchor 4."""
    node.include(anchor(node, 1), anchor(node, 2))
    node.include()
    node.include(create(node, 1), anchor(node, 3))
    node.include(node.sign(ALICE, BOB.address))
    node.include(create(node, 2))
    node.include(anchor(node, 4))
    return node


ANCHORED = ABIS["Anchors"].events["Anchored"].id
CREATED = ABIS["Elections"].events["ElectionCreated"].id
WORDS = [number.to_bytes(32, "big") for number in range(4)]
TOPICS = [ANCHORED, CREATED, *WORDS]
SOME_TOPICS = st.frozensets(st.sampled_from(TOPICS), max_size=2)
SOME_ADDRESSES = st.frozensets(st.sampled_from([*ADDRESSES.values(), ALICE.address]), max_size=2)


def wanted(query: LogQuery, log: EventLog) -> bool:
    if query.addresses and log.address not in query.addresses:
        return False
    for position, alternatives in enumerate(query.topics):
        if position >= len(log.topics) or (alternatives and log.topics[position] not in alternatives):
            return False
    return True


async def test_a_search_finds_what_a_plain_scan_finds(busy: LoneNode) -> None:
    search = LogSearch(Blocks(busy.chain, Limits()), Limits())
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 7), st.integers(0, 7), SOME_ADDRESSES, st.lists(SOME_TOPICS, max_size=4))
    def check(first: int, length: int, addresses: frozenset[bytes], topics: list[frozenset[bytes]]) -> None:
        query = LogQuery(BlockRef(height=first), BlockRef(height=first + length), addresses, tuple(topics))
        found = orjson.loads(orjson.dumps(asyncio.run_coroutine_threadsafe(search.all(query), loop).result(10)))
        expected = [
            (height, log.data)
            for height in range(first, min(first + length, 6) + 1)
            for receipt in busy.chain.receipts(height) or ()
            for log in receipt.event_logs
            if wanted(query, log)
        ]
        assert [(int(view["blockNumber"], 16), bytes.fromhex(view["data"][2:])) for view in found] == expected

    await asyncio.to_thread(check)


def test_the_bloom_filter_skips_blocks(busy: LoneNode) -> None:
    query = LogQuery(BlockRef(tag="earliest"), BlockRef(tag="latest"), frozenset([ADDRESSES["Elections"]]), ())
    headers = [busy.chain.header(height) for height in range(7)]
    may = [header.number for header in headers if header and LogMatcher(query).may_match(header)]
    assert may == [3, 5]


async def test_logs_by_block_address_and_topic(rpc: Caller, busy: LoneNode) -> None:
    third = {"fromBlock": "0x1", "toBlock": "0x5", "topics": [None, "0x" + WORDS[3].hex()]}
    block_hash = (await rpc("eth_getBlockByNumber", "0x3"))["hash"]
    anchors_of_third = {"blockHash": block_hash, "address": "0x" + ADDRESSES["Anchors"].hex()}
    (only,) = await rpc("eth_getLogs", third)
    assert await rpc("eth_getLogs", anchors_of_third) == [only]
    assert (only["blockNumber"], only["transactionIndex"], only["logIndex"]) == ("0x3", "0x1", "0x1")
    (log,) = await rpc("eth_getLogs", {})  # the head alone
    block = await rpc("eth_getBlockByNumber", "latest")
    transaction = (await rpc("eth_getBlockByNumber", "latest", True))["transactions"][0]
    assert log == {
        "address": "0x" + ADDRESSES["Anchors"].hex(),
        "topics": ["0x" + ANCHORED.hex(), "0x" + (4).to_bytes(32, "big").hex(), "0x" + WORDS[3].hex()],
        "data": "0x" + encode(["bytes32", "uint64", "string"], [bytes(32), 4, "sha256"]).hex(),
        "blockNumber": "0x6",
        "blockHash": block["hash"],
        "blockTimestamp": block["timestamp"],
        "transactionHash": transaction["hash"],
        "transactionIndex": "0x0",
        "logIndex": "0x0",
        "removed": False,
    }
    either = {"fromBlock": "earliest", "topics": [["0x" + ANCHORED.hex(), "0x" + CREATED.hex()]]}
    assert len(await rpc("eth_getLogs", either)) == 6
    assert await rpc("eth_getLogs", {"fromBlock": "0x7", "toBlock": "0x9"}) == []


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ({"fromBlock": "0x5", "toBlock": "0x4"}, -32000, "invalid block range params"),
        ({"blockHash": "0x" + "12" * 32}, -32000, "unknown block"),
        ({"blockHash": "0x" + "12" * 32, "toBlock": "0x4"}, -32602, "cannot specify both BlockHash"),
        ({"topics": [[], [], [], [], []]}, -32602, "field 'topics': an array of 5 items, at most 4"),
        ({"topics": ["0x12"]}, -32602, "field 'topics'"),
        ({"address": ["0x12"]}, -32602, "field 'address'"),
        ("logs", -32602, "expected a filter object"),
    ],
)
async def test_malformed_queries(rpc: Caller, busy: LoneNode, query: Any, code: int, message: str) -> None:
    with pytest.raises(RpcFailure) as caught:
        await rpc("eth_getLogs", query)
    assert caught.value.code == code
    assert message in caught.value.message


class TestLimits:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(log_blocks_max=4, logs_max=3, filters_max=2, filter_idle_s=0.3, filter_hashes_max=2)

    async def test_what_is_too_wide_says_what_is_allowed(self, rpc: Caller, busy: LoneNode) -> None:
        with pytest.raises(RpcFailure, match="at most 4; try 0x0 to 0x3"):
            await rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x4"})
        with pytest.raises(RpcFailure, match="more than 3 event logs; try 0x1 to 0x2"):
            await rpc("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x3"})
        assert len(await rpc("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x2"})) == 2

    async def test_a_filter_far_behind_is_told_in_pieces(self, rpc: Caller, busy: LoneNode) -> None:
        filter_id = await rpc("eth_newFilter", {"fromBlock": "0x0"})
        polls = [await rpc("eth_getFilterChanges", filter_id) for _ in range(6)]
        heights = [int(log["blockNumber"], 16) for poll in polls for log in poll]
        assert heights == [1, 1, 3, 3, 5, 6]
        assert max(map(len, polls)) <= 3

    async def test_filters_are_bounded_and_idle_ones_forgotten(self, rpc: Caller) -> None:
        first = await rpc("eth_newBlockFilter")
        await rpc("eth_newFilter", {})
        with pytest.raises(RpcFailure, match="too many filters: at most 2"):
            await rpc("eth_newPendingTransactionFilter")
        async with asyncio.timeout(5):
            while True:
                try:
                    await rpc("eth_newBlockFilter")
                    break
                except RpcFailure:
                    await asyncio.sleep(0.05)
        with pytest.raises(RpcFailure, match="filter not found"):
            await rpc("eth_getFilterChanges", first)

    async def test_block_hashes_come_in_pieces(self, rpc: Caller, node: LoneNode) -> None:
        filter_id = await rpc("eth_newBlockFilter")
        hashes = ["0x" + node.include().block.hash.hex() for _ in range(3)]
        assert await rpc("eth_getFilterChanges", filter_id) == hashes[:2]
        assert await rpc("eth_getFilterChanges", filter_id) == hashes[2:]
        assert await rpc("eth_getFilterChanges", filter_id) == []


async def test_a_log_filter_tells_each_log_once(rpc: Caller, busy: LoneNode) -> None:
    query = {"address": "0x" + ADDRESSES["Anchors"].hex()}
    filter_id = await rpc("eth_newFilter", query)
    assert await rpc("eth_getFilterChanges", filter_id) == []
    busy.include(anchor(busy, 9), create(busy, 9))
    busy.include(anchor(busy, 10))
    told = await rpc("eth_getFilterChanges", filter_id)
    assert [int(log["topics"][1], 16) for log in told] == [9, 10]
    assert await rpc("eth_getFilterChanges", filter_id) == []
    assert await rpc("eth_getFilterLogs", filter_id) == told[1:]  # from the head to the head
    assert await rpc("eth_uninstallFilter", filter_id) is True
    assert await rpc("eth_uninstallFilter", filter_id) is False
    with pytest.raises(RpcFailure, match="filter not found"):
        await rpc("eth_getFilterChanges", filter_id)


async def test_a_filter_ends_with_its_last_block(rpc: Caller, busy: LoneNode) -> None:
    filter_id = await rpc("eth_newFilter", {"fromBlock": "0x1", "toBlock": "0x7"})
    assert len(await rpc("eth_getFilterChanges", filter_id)) == 6
    busy.include(anchor(busy, 7))
    busy.include(anchor(busy, 8))
    assert len(await rpc("eth_getFilterChanges", filter_id)) == 1
    assert await rpc("eth_getFilterChanges", filter_id) == []


async def test_a_filter_of_transactions_tells_each_once(rpc: Caller, node: LoneNode) -> None:
    known = node.sign(ALICE, BOB.address)
    await rpc("eth_sendRawTransaction", "0x" + known.raw.hex())
    filter_id = await rpc("eth_newPendingTransactionFilter")
    waits, passes = node.sign(BOB, ALICE.address), node.sign(ALICE, BOB.address)
    await rpc("eth_sendRawTransaction", "0x" + waits.raw.hex())
    assert await rpc("eth_getFilterChanges", filter_id) == ["0x" + waits.hash.hex()]
    await rpc("eth_sendRawTransaction", "0x" + passes.raw.hex())
    node.mine()  # it came and went between two polls
    assert await rpc("eth_getFilterChanges", filter_id) == ["0x" + passes.hash.hex()]
    assert await rpc("eth_getFilterChanges", filter_id) == []
    with pytest.raises(RpcFailure, match="filter not found"):
        await rpc("eth_getFilterLogs", filter_id)


async def test_two_polls_at_once_tell_nothing_twice(rpc: Caller, busy: LoneNode) -> None:
    filter_id = await rpc("eth_newFilter", {"fromBlock": "0x0"})
    polls = await asyncio.gather(*(rpc("eth_getFilterChanges", filter_id) for _ in range(4)), return_exceptions=True)
    told = [log for poll in polls if isinstance(poll, list) for log in poll]
    assert len(told) == 6
