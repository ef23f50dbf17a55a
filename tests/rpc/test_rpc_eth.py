"""`eth_` methods over HTTP, on a chain that the real ledger made; the oracles are rlp, eth-account and the trie."""

from typing import Any

import pytest
import rlp
from eth_account import Account

from merkle import patricia
from merkle.keccak import keccak256
from node.chain.errors import LedgerError
from node.chain.state import slot_key
from node.rpc.ports import Syncing
from tests.rpc.rpc_harness import (
    ABIS,
    ADDRESSES,
    ALICE,
    BOB,
    CHAIN_ID,
    ETHER,
    GATEWAY_KEY,
    VALIDATOR_KEYS,
    Caller,
    LoneNode,
    RpcFailure,
)

HEADER_FIELDS = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"),
    *("number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas"),
)
STRANGER = "0x" + "99" * 20


def hx(value: bytes) -> str:
    return "0x" + value.hex()


def create_election(node: LoneNode, election: int = 1, kinds: int = 3) -> Any:
    arguments: tuple[object, ...] = (election, "Demo", ["yes", "no"], kinds, 0, 0, 3600, [], bytes(32))
    return node.call_contract(GATEWAY_KEY, "Elections", "create", *arguments)


async def failure(rpc: Caller, method: str, *params: Any) -> RpcFailure:
    with pytest.raises(RpcFailure) as caught:
        await rpc(method, *params)
    return caught.value


async def test_every_header_hashes_to_its_hash(rpc: Caller, node: LoneNode) -> None:
    node.include(node.sign(ALICE, BOB.address, value=5), create_election(node))
    node.include()
    parent = bytes(32)
    for height in range(3):
        block = await rpc("eth_getBlockByNumber", hex(height))
        numbers = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas"}
        fields = [int(block[name], 16) if name in numbers else bytes.fromhex(block[name][2:]) for name in HEADER_FIELDS]
        assert hx(keccak256(rlp.encode(fields))) == block["hash"]
        assert bytes.fromhex(block["parentHash"][2:]) == parent
        parent = bytes.fromhex(block["hash"][2:])
        assert await rpc("eth_getBlockByHash", block["hash"]) == block
        bodies = [node.chain.block(height).transactions[i].raw for i in range(len(block["transactions"]))]  # type: ignore[union-attr]
        assert int(block["size"], 16) == len(rlp.encode([fields, bodies, []]))
        assert block["uncles"] == []


async def test_tags(rpc: Caller, node: LoneNode) -> None:
    node.include()
    node.include()
    assert await rpc("eth_blockNumber") == "0x2"
    for tag in ("latest", "safe", "finalized"):
        assert (await rpc("eth_getBlockByNumber", tag))["number"] == "0x2"
    assert (await rpc("eth_getBlockByNumber", "earliest"))["number"] == "0x0"
    pending = await rpc("eth_getBlockByNumber", "pending", True)
    assert (pending["number"], pending["transactions"]) == ("0x3", [])
    assert pending["parentHash"] == (await rpc("eth_getBlockByNumber", "latest"))["hash"]
    assert pending["hash"] is pending["nonce"] is pending["miner"] is None


async def test_what_does_not_exist_is_null(rpc: Caller) -> None:
    nobody = "0x" + "ab" * 32
    assert await rpc("eth_getBlockByNumber", "0x1") is None
    assert await rpc("eth_getBlockByHash", nobody) is None
    assert await rpc("eth_getTransactionByHash", nobody) is None
    assert await rpc("eth_getTransactionReceipt", nobody) is None
    assert await rpc("eth_getBlockReceipts", "0x1") is None
    assert await rpc("eth_getBlockTransactionCountByNumber", "0x1") is None
    assert await rpc("eth_getUncleCountByBlockHash", nobody) is None
    assert await rpc("eth_getTransactionByBlockNumberAndIndex", "0x0", "0x0") is None
    assert await rpc("eth_getUncleByBlockNumberAndIndex", "0x0", "0x0") is None
    assert await rpc("poa_getCertificate", "0x1") is None


KINDS: list[dict[str, Any]] = [
    {"gasPrice": 3},
    {"gasPrice": 3, "accessList": [{"address": STRANGER, "storageKeys": ["0x" + "01" * 32]}]},
    {"maxFeePerGas": 9, "maxPriorityFeePerGas": 2, "accessList": []},
]


@pytest.mark.parametrize("type_", [0, 1, 2])
async def test_transactions_of_each_type(rpc: Caller, node: LoneNode, type_: int) -> None:
    fields: dict[str, Any] = {
        "chainId": CHAIN_ID,
        "nonce": 0,
        "to": STRANGER,
        "value": 7,
        "gas": 60_000,
        "data": "0x0102",
    }
    signed = Account.sign_transaction(fields | KINDS[type_], ALICE.secret)
    assert await rpc("eth_sendRawTransaction", hx(signed.raw_transaction)) == hx(signed.hash)
    waiting = await rpc("eth_getTransactionByHash", hx(signed.hash))
    assert waiting["blockHash"] is waiting["blockNumber"] is waiting["transactionIndex"] is None
    assert waiting["gasPrice"] == hex(9 if type_ == 2 else 3)
    block = node.mine().block
    final = await rpc("eth_getTransactionByHash", hx(signed.hash))
    price = 2 if type_ == 2 else 3
    expected = {
        "blockHash": hx(block.hash),
        "blockNumber": "0x1",
        "transactionIndex": "0x0",
        "hash": hx(signed.hash),
        "type": hex(type_),
        "from": hx(ALICE.address),
        "to": STRANGER,
        "nonce": "0x0",
        "value": "0x7",
        "gas": hex(60_000),
        "gasPrice": hex(price),
        "input": "0x0102",
        "chainId": hex(CHAIN_ID),
        "v": hex(signed.v),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }
    if type_:
        expected |= {"yParity": hex(signed.v), "accessList": KINDS[type_]["accessList"]}
    if type_ == 2:
        expected |= {"maxFeePerGas": "0x9", "maxPriorityFeePerGas": "0x2"}
    assert final == expected
    assert (await rpc("eth_getBlockByNumber", "0x1", True))["transactions"] == [final]
    assert await rpc("eth_getTransactionByBlockHashAndIndex", hx(block.hash), "0x0") == final
    # In a block's body a legacy transaction is a list, and a typed one a byte string (EIP-2718).
    body = signed.raw_transaction if type_ else rlp.decode(signed.raw_transaction)
    encoded_block = rlp.encode([rlp.decode(block.header.encoded), [body], []])
    assert (await rpc("eth_getBlockByNumber", "0x1"))["size"] == hex(len(encoded_block))
    assert await rpc("eth_getTransactionByBlockNumberAndIndex", "latest", "0x0") == final
    receipt = await rpc("eth_getTransactionReceipt", hx(signed.hash))
    assert (receipt["type"], receipt["status"], receipt["effectiveGasPrice"]) == (hex(type_), "0x1", hex(price))
    gas = int(receipt["gasUsed"], 16)
    assert gas == 21_032 + (2_400 + 1_900 if type_ == 1 else 0)
    assert await rpc("eth_getBalance", hx(block.header.miner)) == hex(gas * price)


async def test_receipts_count_gas_and_event_logs_through_the_block(rpc: Caller, node: LoneNode) -> None:
    transactions = [
        node.sign(ALICE, BOB.address, value=1),
        create_election(node, 1),
        node.call_contract(ALICE, "Elections", "close", 5),  # refused: no such election
        create_election(node, 2),
    ]
    block = node.include(*transactions).block
    receipts = await rpc("eth_getBlockReceipts", hx(block.hash))
    assert [receipt["status"] for receipt in receipts] == ["0x1", "0x1", "0x0", "0x1"]
    total = 0
    logs = []
    for index, (receipt, transaction) in enumerate(zip(receipts, transactions, strict=True)):
        total += int(receipt["gasUsed"], 16)
        logs += receipt["logs"]
        assert receipt["cumulativeGasUsed"] == hex(total)
        assert receipt["transactionHash"] == hx(transaction.hash)
        assert receipt["transactionIndex"] == hex(index)
        assert receipt["from"] == hx(transaction.sender)
        assert receipt["contractAddress"] is None
        assert await rpc("eth_getTransactionReceipt", hx(transaction.hash)) == receipt
    assert hex(total) == (await rpc("eth_getBlockByNumber", "0x1"))["gasUsed"]
    assert [log["logIndex"] for log in logs] == ["0x0", "0x1"]
    assert [log["transactionIndex"] for log in logs] == ["0x1", "0x3"]
    assert await rpc("eth_getLogs", {"fromBlock": "0x1"}) == logs
    assert await rpc("eth_getBlockTransactionCountByNumber", "0x1") == "0x4"
    assert await rpc("eth_getBlockTransactionCountByHash", hx(block.hash)) == "0x4"
    assert await rpc("eth_getUncleCountByBlockNumber", "0x1") == "0x0"


async def test_state_at_every_height(rpc: Caller, node: LoneNode) -> None:
    for value in (1, 2, 3):
        node.include(node.sign(ALICE, bytes.fromhex(STRANGER[2:]), value=value))
    for height, balance in enumerate((0, 1, 3, 6)):
        block_hash = (await rpc("eth_getBlockByNumber", hex(height)))["hash"]
        for block in (hex(height), block_hash, {"blockNumber": hex(height)}, {"blockHash": block_hash}):
            assert await rpc("eth_getBalance", STRANGER, block) == hex(balance)
            assert await rpc("eth_getTransactionCount", hx(ALICE.address), block) == hex(height)
    assert await rpc("eth_getBalance", STRANGER) == "0x6"
    assert await rpc("eth_getCode", STRANGER) == "0x"
    assert await rpc("eth_getCode", hx(ADDRESSES["Elections"])) == hx(b"\xfepsephos:Elections:1")


@pytest.mark.parametrize(
    ("block", "code", "message"),
    [
        ("0x9", -32000, "header not found"),
        ("0x" + "ab" * 32, -32000, "header for hash not found"),
        ({"blockHash": "0x" + "ab" * 32, "requireCanonical": True}, -32000, "header for hash not found"),
        ({}, -32602, "exactly one of"),
        ({"blockHash": "0x" + "ab" * 32, "blockNumber": "0x0"}, -32602, "exactly one of"),
        ("newest", -32602, "argument 1 (block)"),
        (0, -32602, "argument 1 (block)"),
    ],
)
async def test_blocks_that_are_not_there(rpc: Caller, block: Any, code: int, message: str) -> None:
    refused = await failure(rpc, "eth_getBalance", STRANGER, block)
    assert refused.code == code
    assert message in refused.message


async def test_the_pending_nonce_counts_the_mempool(rpc: Caller, operator: Caller, node: LoneNode) -> None:
    for _ in range(2):
        await rpc("eth_sendRawTransaction", hx(node.sign(ALICE, BOB.address).raw))
    assert await rpc("eth_getTransactionCount", hx(ALICE.address), "pending") == "0x2"
    assert await rpc("eth_getTransactionCount", hx(ALICE.address), "latest") == "0x0"
    assert await operator("txpool_status") == {"pending": "0x2", "queued": "0x0"}
    queued = node.sign(BOB, ALICE.address, nonce=3)
    await rpc("eth_sendRawTransaction", hx(queued.raw))
    assert await operator("txpool_status") == {"pending": "0x2", "queued": "0x1"}
    content = await operator("txpool_content")
    assert set(content["pending"][hx(ALICE.address)]) == {"0", "1"}
    assert content["queued"] == {hx(BOB.address): {"3": await rpc("eth_getTransactionByHash", hx(queued.hash))}}
    assert await operator("txpool_contentFrom", hx(BOB.address)) == {
        "pending": {},
        "queued": content["queued"][hx(BOB.address)],
    }
    inspected = await operator("txpool_inspect")
    assert inspected["queued"] == {hx(BOB.address): {"3": f"{hx(ALICE.address)}: 0 wei + 5000000 gas × 0 wei"}}


async def test_refused_transactions_are_worded_as_by_geth(rpc: Caller, node: LoneNode) -> None:
    first = node.sign(ALICE, BOB.address)
    node.include(first)
    waiting = node.sign(ALICE, BOB.address)
    await rpc("eth_sendRawTransaction", hx(waiting.raw))
    cases = {
        "already known": waiting,
        "nonce too low: next nonce 1, tx nonce 0": node.sign(ALICE, STRANGER_BYTES, nonce=0),
        "replacement transaction underpriced": node.sign(ALICE, STRANGER_BYTES, nonce=1),
        "insufficient funds for gas * price + value": node.sign(BOB, ALICE.address, value=5_000 * ETHER),
        "intrinsic gas too low": node.sign(BOB, ALICE.address, gas_limit=20_999),
        "exceeds block gas limit": node.sign(BOB, ALICE.address, gas_limit=10**10),
        "invalid chain id for signer": node.sign(BOB, ALICE.address, chain_id=1),
        "contract creation is not supported": node.sign(BOB, b""),
    }
    for message, transaction in cases.items():
        refused = await failure(rpc, "eth_sendRawTransaction", hx(transaction.raw))
        assert refused.code == -32000
        assert refused.message.startswith(message)
    assert (await failure(rpc, "eth_sendRawTransaction", "0x")).code == -32000
    assert (await failure(rpc, "eth_sendRawTransaction", "0x03c0")).code == -32000
    assert (await failure(rpc, "eth_sendRawTransaction", "f8")).code == -32602


STRANGER_BYTES = bytes.fromhex(STRANGER[2:])


async def test_a_batch_of_transactions_is_handed_on_as_one_list(rpc: Caller, node: LoneNode) -> None:
    raws = [node.sign(ALICE, BOB.address).raw for _ in range(3)]
    sends: list[Any] = [["eth_sendRawTransaction", [hx(raw)]] for raw in (*raws, raws[0])]
    calls: list[Any] = [sends[0], ["eth_chainId", []], *sends[1:], ["eth_sendRawTransaction", [7]]]
    batch = [{"jsonrpc": "2.0", "id": n, "method": m, "params": p} for n, (m, p) in enumerate(calls)]
    answers = (await rpc.post(batch)).json()
    assert node.submissions == [[*raws, raws[0]]]
    assert [answer["id"] for answer in answers] == list(range(6))
    assert [answers[n]["result"] for n in (0, 2, 3)] == [hx(keccak256(raw)) for raw in raws]
    assert answers[4]["error"]["message"] == "already known"
    assert answers[5]["error"]["code"] == -32602


async def test_calls_and_refusals(rpc: Caller, node: LoneNode) -> None:
    node.include(create_election(node))
    elections, abi = hx(ADDRESSES["Elections"]), ABIS["Elections"]
    output = await rpc("eth_call", {"to": elections, "data": hx(abi.encode_call("electionCount"))})
    assert abi.decode_result("electionCount", bytes.fromhex(output[2:])) == (1,)
    before = await rpc("eth_call", {"to": elections, "input": hx(abi.encode_call("electionCount"))}, "0x0")
    assert int(before, 16) == 0
    refused = await failure(rpc, "eth_call", {"to": elections, "data": hx(abi.encode_call("tally", 77))}, "latest")
    assert refused.code == 3
    assert refused.message == "execution reverted: UnknownElection(77)"
    assert refused.data == hx(abi.encode_error("UnknownElection", 77))
    estimated = await failure(rpc, "eth_estimateGas", {"to": elections, "data": hx(abi.encode_call("close", 77))})
    assert (estimated.code, estimated.data) == (3, refused.data)
    assert (await failure(rpc, "eth_call", {"data": "0x00"})).message.startswith("contract creation is not supported")
    both = await failure(rpc, "eth_call", {"to": elections, "data": "0x00", "input": "0x01"})
    assert both.code == -32602
    assert await rpc("eth_call", {"to": STRANGER}, "latest", {}) == "0x"
    overridden = await failure(rpc, "eth_call", {"to": STRANGER}, "latest", {STRANGER: {"balance": "0x1"}})
    assert overridden.code == -32602


async def test_value_and_fees_of_calls_need_funds(rpc: Caller) -> None:
    poor = {"from": STRANGER, "to": hx(BOB.address)}
    assert (await failure(rpc, "eth_call", poor | {"value": "0x1"})).message.startswith("insufficient funds")
    refused = await failure(rpc, "eth_estimateGas", poor | {"gasPrice": "0x1"})
    assert refused.message.startswith("insufficient funds for gas * price + value")
    rich = {"from": hx(ALICE.address), "to": hx(BOB.address), "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x1"}
    assert await rpc("eth_estimateGas", rich) == hex(21_000)


async def test_estimates_are_exact(rpc: Caller, node: LoneNode) -> None:
    transaction = create_election(node)
    request = {"from": hx(GATEWAY_KEY.address), "to": hx(transaction.to), "data": hx(transaction.data)}
    gas = int(await rpc("eth_estimateGas", request), 16)
    for limit, succeeds in ((gas - 1, False), (gas, True)):
        nonce = node.chain.state().nonce(GATEWAY_KEY.address)
        exact = node.sign(GATEWAY_KEY, transaction.to, transaction.data, gas_limit=limit, nonce=nonce)
        assert node.include(exact).receipts[0].succeeded is succeeds
    assert await rpc("eth_estimateGas", {"to": STRANGER, "data": "0x0001"}) == hex(21_020)


async def test_proofs_hold_for_present_and_absent_accounts_and_slots(rpc: Caller, node: LoneNode) -> None:
    node.include(create_election(node))
    for height in ("0x0", "0x1"):
        root = bytes.fromhex((await rpc("eth_getBlockByNumber", height))["stateRoot"][2:])
        for address in (ADDRESSES["Elections"], ADDRESSES["Validators"], ALICE.address, STRANGER_BYTES):
            keys = ["0x0", "0x4", "0x" + "00" * 31 + "05", "0x" + "ff" * 32]
            proof = await rpc("eth_getProof", hx(address), keys, height)
            nodes = [bytes.fromhex(node_hex[2:]) for node_hex in proof["accountProof"]]
            account = patricia.verify(root, keccak256(address), nodes)
            numbers = (int(proof["nonce"], 16), int(proof["balance"], 16))
            hashes = (bytes.fromhex(proof["storageHash"][2:]), bytes.fromhex(proof["codeHash"][2:]))
            if account is None:
                assert (address, numbers) == (STRANGER_BYTES, (0, 0))
                assert hashes == (patricia.EMPTY_ROOT, keccak256(b""))
            else:
                assert account == rlp.encode([*numbers, *hashes])
            for key, slot in zip(keys, proof["storageProof"], strict=True):
                assert slot["key"] == key
                nodes = [bytes.fromhex(node_hex[2:]) for node_hex in slot["proof"]]
                found = patricia.verify(hashes[0], slot_key(int(key, 16)), nodes)
                value = 0 if found is None else int.from_bytes(rlp.decode(found), "big")
                assert slot["value"] == hex(value)
                assert int(await rpc("eth_getStorageAt", hx(address), key, height), 16) == value
    assert await rpc("eth_getStorageAt", hx(ADDRESSES["Validators"]), "0x4") == hx(CHAIN_ID.to_bytes(32, "big"))


async def test_fees(rpc: Caller, node: LoneNode) -> None:
    tips = (5, 1, 3)
    node.include(*(node.sign(ALICE, BOB.address, max_fee_per_gas=t, max_priority_fee_per_gas=t) for t in tips))
    node.include()
    assert await rpc("eth_gasPrice") == "0x0"
    assert await rpc("eth_maxPriorityFeePerGas") == "0x0"
    history = await rpc("eth_feeHistory", "0x5", "latest", [0, 50, 100])
    limit = node.chain.genesis.gas_limit
    assert history == {
        "oldestBlock": "0x0",
        "baseFeePerGas": ["0x0"] * 4,
        "gasUsedRatio": [0.0, 63_000 / limit, 0.0],
        "reward": [["0x0"] * 3, ["0x1", "0x3", "0x5"], ["0x0"] * 3],
    }
    assert await rpc("eth_feeHistory", 1, "0x1") == {
        "oldestBlock": "0x1",
        "baseFeePerGas": ["0x0", "0x0"],
        "gasUsedRatio": [63_000 / limit],
    }
    assert (await failure(rpc, "eth_feeHistory", 1, "0x9")).code == -32000
    for percentiles in ([50, 10], [101], ["5"], [-1]):
        assert (await failure(rpc, "eth_feeHistory", 1, "latest", percentiles)).code == -32602


async def test_the_node_about_itself(rpc: Caller, node: LoneNode) -> None:
    assert await rpc("web3_clientVersion") == "psephos/test"
    assert await rpc("web3_sha3", "0x68656c6c6f20776f726c64") == hx(keccak256(b"hello world"))
    assert await rpc("net_version") == "7770"
    assert await rpc("net_listening") is True
    assert await rpc("net_peerCount") == "0x2"
    assert await rpc("eth_chainId") == "0x1e5a"
    assert await rpc("eth_syncing") is False
    node.progress = Syncing(1, 5, 30)
    assert await rpc("eth_syncing") == {"startingBlock": "0x1", "currentBlock": "0x5", "highestBlock": "0x1e"}
    assert "poa" in await rpc("rpc_modules")


async def test_a_block_that_is_stored_and_not_yet_the_head_is_shown_to_nobody(rpc: Caller, node: LoneNode) -> None:
    transaction = node.sign(ALICE, BOB.address)
    head = node.chain.head
    block = node.include(transaction).block
    node.chain.head = head  # as between the synced write and the end of the step that made it
    assert await rpc("eth_getBlockByHash", hx(block.hash)) is None
    assert await rpc("eth_getTransactionReceipt", hx(transaction.hash)) is None
    node.chain.head = block.header
    assert (await rpc("eth_getTransactionReceipt", hx(transaction.hash)))["blockNumber"] == "0x1"


async def test_a_database_that_lacks_a_final_block_is_our_fault(rpc: Caller, node: LoneNode) -> None:
    node.include(node.sign(ALICE, BOB.address))

    def lost(height: int) -> None:
        raise LedgerError(f"block {height} is gone")

    node.chain.block = lost  # type: ignore[method-assign]
    assert (await failure(rpc, "eth_getBlockByNumber", "0x1")).code == -32603


async def test_health_and_readiness(rpc: Caller, node: LoneNode) -> None:
    health = await rpc.http.get(rpc.url + "/health")
    assert health.status_code == 200
    assert health.json() == {"status": "ok", "name": node.name, "height": 0, "head": hx(node.chain.head.hash)}
    assert (await rpc.http.get(rpc.url + "/ready")).status_code == 200
    node.readiness = (False, "1 of 3 validators within reach, and a quorum is 2")
    ready = await rpc.http.get(rpc.url + "/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": node.readiness[1]})
    assert len(VALIDATOR_KEYS) == 3
