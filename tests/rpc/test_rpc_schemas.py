"""The registry as documentation: every method is described, and every answer fits the schema that describes it."""

import json
from typing import Any

import jsonschema_rs
import pytest

from node.rpc.api import Api
from node.rpc.dev_accounts import DevAccounts
from node.rpc.limits import Limits
from node.rpc.methods import Method, registry
from node.rpc.misc import NodeMethods
from tests.rpc.rpc_harness import ADDRESSES, ALICE, BOB, DEV_KEYS, GATEWAY_KEY, Caller, LoneNode

ONLY_BY_WEBSOCKET = {"eth_subscribe", "eth_unsubscribe"}
TYPED_DATA = {
    "types": {"EIP712Domain": [{"name": "name", "type": "string"}], "Note": [{"name": "text", "type": "string"}]},
    "primaryType": "Note",
    "domain": {"name": "Demo"},
    "message": {"text": "hello"},
}
DUE = {
    *("web3_clientVersion", "net_version", "net_peerCount", "eth_chainId", "eth_blockNumber", "eth_syncing"),
    *("eth_getBlockByNumber", "eth_getBlockByHash", "eth_getTransactionByHash", "eth_getTransactionReceipt"),
    *("eth_getTransactionCount", "eth_getBalance", "eth_getCode", "eth_call", "eth_estimateGas", "eth_gasPrice"),
    *("eth_maxPriorityFeePerGas", "eth_feeHistory", "eth_sendRawTransaction", "eth_getLogs", "eth_getProof"),
    *("poa_getValidators", "poa_getCertificate", "poa_getContracts", "poa_status", "poa_getBlocks"),
}


@pytest.fixture
def methods(node: LoneNode) -> dict[str, Method]:
    return Api(node, Limits(), DevAccounts()).methods


def test_every_method_is_described(methods: dict[str, Method]) -> None:
    assert set(methods) >= DUE
    for name, method in methods.items():
        assert name == method.name
        assert method.summary.endswith("."), name
        jsonschema_rs.validator_for(method.result.schema)
        names = [param.name for param in method.params]
        assert len(set(names)) == len(names)
        optional = [not param.required for param in method.params]
        assert optional == sorted(optional), f"{name}: an optional parameter stands before a required one"
        for param in method.params:
            assert param.description.endswith("."), f"{name}({param.name})"
            jsonschema_rs.validator_for(param.kind.schema)


def test_two_methods_of_one_name_are_a_mistake(node: LoneNode) -> None:
    with pytest.raises(ValueError, match="two methods are named"):
        registry([NodeMethods(node), NodeMethods(node)])


@pytest.fixture
def calls(node: LoneNode) -> list[tuple[str, list[Any]]]:
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


async def test_every_answer_fits_its_schema(
    rpc: Caller, methods: dict[str, Method], calls: list[tuple[str, list[Any]]]
) -> None:
    called = {name for name, _ in calls}
    calls += [(name, []) for name, method in methods.items() if not any(param.required for param in method.params)]
    for name, params in calls:
        method = methods[name]
        for param, value in zip(method.params, params, strict=False):
            jsonschema_rs.validate(param.kind.schema, value)
        answer = await rpc(name, *params)
        jsonschema_rs.validate(method.result.schema, answer)
        called.add(name)
    filter_id = await rpc("eth_newFilter", {"fromBlock": "0x0"})
    for name in ("eth_getFilterChanges", "eth_getFilterLogs"):
        jsonschema_rs.validate(methods[name].result.schema, await rpc(name, filter_id))
        called.add(name)
    assert called | ONLY_BY_WEBSOCKET == set(methods)
