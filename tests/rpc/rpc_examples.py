"""A call of every method that takes parameters, against a chain made for it: for the schemas' test and docs/RPC.md."""

import json
from typing import Any

from tests.rpc.rpc_harness import ADDRESSES, ALICE, BOB, DEV_KEYS, GATEWAY_KEY, LoneNode

TYPED_DATA = {
    "types": {"EIP712Domain": [{"name": "name", "type": "string"}], "Note": [{"name": "text", "type": "string"}]},
    "primaryType": "Note",
    "domain": {"name": "Demo"},
    "message": {"text": "hello"},
}


def examples(node: LoneNode) -> list[tuple[str, list[Any]]]:
    """A call of every method, with answers that are not empty where that can be."""
    arguments: tuple[object, ...] = (1, "Demo", ["yes", "no"], 3, 0, 0, 0, [], bytes(32))
    create = node.call_contract(GATEWAY_KEY, "Elections", "create", *arguments)
    ballot = bytes(64) + b"\0" + (1).to_bytes(4, "big") + b"\1"
    cast = node.call_contract(GATEWAY_KEY, "Elections", "castBatch", 1, ballot)
    transfer = node.sign(ALICE, BOB.address, max_fee_per_gas=2, max_priority_fee_per_gas=1)
    block = node.include(create, transfer, cast).block
    block_hash, transaction = "0x" + block.hash.hex(), "0x" + create.hash.hex()
    address = "0x" + ADDRESSES["Elections"].hex()
    call = {"to": address, "data": "0x" + create.data.hex(), "from": "0x" + GATEWAY_KEY.address.hex()}
    dev = "0x" + DEV_KEYS[0].address.hex()
    view = {"to": "0x" + ALICE.address.hex()}
    return [
        ("eth_getBlockByNumber", ["0x1", True]),
        ("eth_getBlockByNumber", ["pending"]),
        ("eth_getBlockByHash", [block_hash, False]),
        ("eth_getTransactionByHash", [transaction]),
        ("eth_getTransactionReceipt", [transaction]),
        ("eth_getBlockReceipts", ["0x1"]),
        ("eth_getBlockTransactionCountByNumber", ["0x1"]),
        ("eth_getBlockTransactionCountByHash", [block_hash]),
        ("eth_getTransactionByBlockHashAndIndex", [block_hash, "0x1"]),
        ("eth_getTransactionByBlockNumberAndIndex", ["0x1", "0x0"]),
        ("eth_getUncleCountByBlockNumber", ["0x1"]),
        ("eth_getUncleCountByBlockHash", [block_hash]),
        ("eth_getUncleByBlockNumberAndIndex", ["0x1", "0x0"]),
        ("eth_getUncleByBlockHashAndIndex", [block_hash, "0x0"]),
        ("eth_getTransactionCount", [address]),
        ("eth_getBalance", [address]),
        ("eth_getCode", [address]),
        ("eth_getStorageAt", [address, "0x0"]),
        ("eth_getProof", [address, ["0x0", "0x9"]]),
        ("eth_call", [view]),
        ("eth_estimateGas", [call, "0x0"]),
        ("eth_feeHistory", ["0x2", "latest", [10, 90]]),
        ("eth_sendRawTransaction", ["0x" + node.sign(ALICE, BOB.address).raw.hex()]),
        ("eth_getLogs", [{"fromBlock": "0x0", "address": [address], "topics": [None]}]),
        ("txpool_contentFrom", ["0x" + ALICE.address.hex()]),
        ("web3_sha3", ["0x00"]),
        ("poa_getCertificate", ["latest"]),
        ("poa_getBlocks", [0, 5]),
        ("poa_getLog", [1]),
        ("poa_getLog", ["anchors"]),
        ("poa_getLogProof", [1, 0]),
        ("poa_getLogConsistency", [1, 0]),
        ("poa_getLogLeaves", [1, 0, 5]),
        ("poa_getLogIndexes", [1, ["0x" + bytes(32).hex(), "0x" + bytes(31).hex() + "01"]]),
        ("poa_getValidatorChanges", [0]),
        ("eth_newFilter", [{"fromBlock": "0x0"}]),
        ("eth_uninstallFilter", ["0x1"]),
        *[(f"debug_getRaw{what}", ["0x1"]) for what in ("Header", "Block", "Receipts")],
        ("debug_getRawTransaction", [transaction]),
        ("eth_getRawTransactionByHash", [transaction]),
        ("eth_getRawTransactionByBlockHashAndIndex", [block_hash, "0x1"]),
        ("eth_getRawTransactionByBlockNumberAndIndex", ["0x1", "0x0"]),
        ("eth_sign", [dev, "0x00ff"]),
        ("eth_signTypedData", [dev, TYPED_DATA]),
        ("eth_signTypedData_v4", [dev, json.dumps(TYPED_DATA)]),
        ("personal_sign", ["0x00ff", dev]),
        ("eth_signTransaction", [{"from": dev, "to": address, "gas": "0x5208"}]),
        ("eth_sendTransaction", [{"from": dev, "to": dev, "value": "0x1"}]),
        ("poa_getProposer", [1, "0x2"]),
        ("poa_getStatistics", ["0x0", "latest"]),
        ("poa_getEvidence", ["0x0", "latest"]),
    ]
