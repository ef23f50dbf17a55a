"""How the validators did, what they signed twice, and encodings that can be hashed again."""

from typing import Any

import pytest

from merkle.keccak import keccak256
from node.chain.receipt import decode_receipt
from node.chain.signing import recover
from node.chain.transaction import decode_transaction
from node.consensus.evidence import Evidence
from node.consensus.messages import Kind, SignedStatement, Statement
from node.consensus.quorum import proposer
from node.rpc.limits import Limits
from tests.rpc.rpc_harness import ALICE, BOB, VALIDATOR_KEYS, Caller, LoneNode, RpcFailure


def unhex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


async def test_statistics_count_proposals_seals_turns_and_rounds(node: LoneNode, rpc: Caller) -> None:
    for _ in range(7):
        node.include()
    node.include(node.sign(ALICE, BOB.address), node.sign(ALICE, BOB.address))
    found = await rpc("poa_getStatistics", "0x0", "latest")
    assert (found["blocks"], found["transactions"], found["rounds"]) == ("0x8", "0x2", {"0": "0x8"})
    addresses = tuple(key.address for key in VALIDATOR_KEYS)
    turns = [proposer(addresses, height, 0) for height in range(1, 9)]
    expected = [
        {
            "validator": "0x" + address.hex(),
            "proposals": hex(turns.count(address)),
            "turns": hex(turns.count(address)),
            "seals": hex(8 if address in addresses[:2] else 0),  # the harness seals with the first two
        }
        for address in addresses
    ]
    assert found["validators"] == expected
    some = await rpc("poa_getStatistics", "0x2", "0x3")
    assert sum(int(row["proposals"], 16) for row in some["validators"]) == 2


@pytest.mark.parametrize("limits", [Limits(statistics_blocks_max=3)])
async def test_statistics_are_bounded(node: LoneNode, rpc: Caller) -> None:
    for _ in range(5):
        node.include()
    with pytest.raises(RpcFailure, match="6 blocks, at most 3; try 0x0 to 0x2"):
        await rpc("poa_getStatistics", "0x0", "latest")
    assert (await rpc("poa_getStatistics", "0x3", "0x99"))["toBlock"] == "0x5"
    with pytest.raises(RpcFailure, match="no final blocks"):
        await rpc("poa_getStatistics", "0x9", "0xa")


async def test_proposers_of_heights_and_rounds(node: LoneNode, rpc: Caller) -> None:
    node.include()
    addresses = ["0x" + key.address.hex() for key in VALIDATOR_KEYS]
    for height, round_ in ((1, 0), (1, 4), (2, 1)):
        assert await rpc("poa_getProposer", height, hex(round_)) == addresses[(height + round_) % 3]
    for height in (0, 3):
        with pytest.raises(RpcFailure, match="no validators are known"):
            await rpc("poa_getProposer", height)
    with pytest.raises(RpcFailure, match="round"):
        await rpc("poa_getProposer", 1, 1 << 32)


def equivocation(node: LoneNode, height: int, kind: Kind, **fields: Any) -> Evidence:
    key = VALIDATOR_KEYS[1]
    statements = [Statement(kind, height, 2, bytes([number]) * 32, **fields) for number in (1, 2)]
    first, second = (SignedStatement(one, key.sign(one.digest(node.chain.domain))) for one in statements)
    return Evidence(key.address, first, second)


async def test_evidence_can_be_checked_by_whoever_reads_it(node: LoneNode, rpc: Caller) -> None:
    node.include()
    assert await rpc("poa_getEvidence", "0x0", "latest") == []
    node.chain.keep_evidence(equivocation(node, 1, Kind.PREPARE))
    node.chain.keep_evidence(equivocation(node, 2, Kind.ROUND_CHANGE, prepared_round=0))  # above the head
    found = await rpc("poa_getEvidence", "0x0", "latest")
    assert [(one["height"], one["round"], one["step"]) for one in found] == [
        ("0x1", "0x2", "PREPARE"),
        ("0x2", "0x2", "ROUND_CHANGE"),
    ]
    for one in found:
        assert one["first"]["blockHash"] != one["second"]["blockHash"]
        for signed in (one["first"], one["second"]):
            assert recover(unhex(signed["digest"]), unhex(signed["signature"])) == unhex(one["validator"])
    assert [one["preparedRound"] for one in (found[0]["first"], found[1]["first"])] == [None, "0x0"]
    assert len(await rpc("poa_getEvidence", "0x0", "0x1")) == 1


async def test_consensus_as_it_stands(node: LoneNode, rpc: Caller) -> None:
    found = await rpc("poa_consensus")
    assert (found["height"], found["round"], found["step"], found["signs"]) == ("0x1", "0x3", "waiting", True)
    heard = {row["address"]: row["heardMsAgo"] for row in found["validators"]}
    assert heard["0x" + VALIDATOR_KEYS[1].address.hex()] >= 250
    assert heard["0x" + VALIDATOR_KEYS[0].address.hex()] is None


async def test_raw_encodings_hash_to_what_the_chain_says(node: LoneNode, rpc: Caller, operator: Caller) -> None:
    block = node.include(node.sign(ALICE, BOB.address, b"\1"), node.sign(BOB, ALICE.address)).block
    for name in ("latest", "0x1", "0x" + block.hash.hex(), {"blockHash": "0x" + block.hash.hex()}):
        assert keccak256(unhex(await operator("debug_getRawHeader", name))) == block.hash
        shown = await rpc("eth_getBlockByNumber", "0x1")
        assert len(unhex(await operator("debug_getRawBlock", name))) == int(shown["size"], 16)
        receipts = [decode_receipt(unhex(text)) for text in await operator("debug_getRawReceipts", name)]
        assert [receipt.succeeded for receipt in receipts] == [True, True]
    transaction_hash = "0x" + block.transactions[1].hash.hex()
    raw = await operator("debug_getRawTransaction", transaction_hash)
    assert decode_transaction(unhex(raw)).hash == block.transactions[1].hash
    assert await rpc("eth_getRawTransactionByHash", transaction_hash) == raw
    assert await rpc("eth_getRawTransactionByBlockNumberAndIndex", "0x1", "0x1") == raw
    assert await rpc("eth_getRawTransactionByBlockHashAndIndex", "0x" + block.hash.hex(), "0x1") == raw
    waiting = node.sign(ALICE, BOB.address)
    await rpc("eth_sendRawTransaction", "0x" + waiting.raw.hex())
    assert await operator("debug_getRawTransaction", "0x" + waiting.hash.hex()) == "0x" + waiting.raw.hex()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("debug_getRawHeader", ["0x63"]),
        ("debug_getRawBlock", ["0x63"]),
        ("debug_getRawReceipts", ["0x" + "11" * 32]),
        ("debug_getRawTransaction", ["0x" + "11" * 32]),
        ("eth_getRawTransactionByBlockNumberAndIndex", ["0x0", "0x0"]),
        ("eth_getRawTransactionByBlockHashAndIndex", ["0x" + "11" * 32, "0x0"]),
    ],
)
async def test_what_does_not_exist_is_null(operator: Caller, method: str, params: list[str]) -> None:
    assert await operator(method, *params) is None
