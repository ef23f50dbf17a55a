"""The registry as documentation: every method is described, and every answer fits the schema that describes it."""

import asyncio
from typing import Any

import aiohttp
import jsonschema_rs
import pytest

from node.rpc.api import Api
from node.rpc.dev_accounts import dev_accounts
from node.rpc.limits import Limits
from node.rpc.methods import Method, registry
from node.rpc.misc import NodeMethods
from node.rpc.ports import Syncing
from node.rpc.subscriptions import KINDS, NOTIFICATIONS
from tests.rpc.rpc_examples import examples
from tests.rpc.rpc_harness import ANCHOR_CALL, GATEWAY_KEY, Caller, LoneNode

ONLY_BY_WEBSOCKET = {"eth_subscribe", "eth_unsubscribe"}
DUE = {
    *("web3_clientVersion", "net_version", "net_peerCount", "eth_chainId", "eth_blockNumber", "eth_syncing"),
    *("eth_getBlockByNumber", "eth_getBlockByHash", "eth_getTransactionByHash", "eth_getTransactionReceipt"),
    *("eth_getTransactionCount", "eth_getBalance", "eth_getCode", "eth_call", "eth_estimateGas", "eth_gasPrice"),
    *("eth_maxPriorityFeePerGas", "eth_feeHistory", "eth_sendRawTransaction", "eth_getLogs", "eth_getProof"),
    *("poa_getValidators", "poa_getCertificate", "poa_getContracts", "poa_status", "poa_getBlocks"),
}


@pytest.fixture
def methods(node: LoneNode) -> dict[str, Method]:
    """All of them, as operators on a development network may call them."""
    return Api(node, Limits(), dev_accounts(node.chain.genesis)).operators


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


async def test_every_answer_fits_its_schema(operator: Caller, node: LoneNode, methods: dict[str, Method]) -> None:
    calls = examples(node)
    called = {name for name, _ in calls}
    calls += [(name, []) for name, method in methods.items() if not any(param.required for param in method.params)]
    for name, params in calls:
        method = methods[name]
        for param, value in zip(method.params, params, strict=False):
            jsonschema_rs.validate(param.kind.schema, value)
        answer = await operator(name, *params)
        jsonschema_rs.validate(method.result.schema, answer)
        called.add(name)
    filter_id = await operator("eth_newFilter", {"fromBlock": "0x0"})
    for name in ("eth_getFilterChanges", "eth_getFilterLogs"):
        jsonschema_rs.validate(methods[name].result.schema, await operator(name, filter_id))
        called.add(name)
    assert called | ONLY_BY_WEBSOCKET == set(methods)


async def test_progress_of_catching_up_fits_its_schema(
    operator: Caller, node: LoneNode, methods: dict[str, Method]
) -> None:
    """Both kinds of answer; and what is no quantity, or lacks a field, does not."""
    schema = jsonschema_rs.validator_for(methods["eth_syncing"].result.schema)
    assert await operator("eth_syncing") is False
    node.progress = Syncing(0, 17, 300)
    answer = await operator("eth_syncing")
    assert answer == {"startingBlock": "0x0", "currentBlock": "0x11", "highestBlock": "0x12c"}
    assert schema.is_valid(answer)
    assert schema.is_valid(False)
    for wrong in (True, answer | {"currentBlock": 17}, answer | {"currentBlock": "0x011"}, {"highestBlock": "0x1"}):
        assert not schema.is_valid(wrong)


async def test_every_notification_fits_its_schema(server_url: str, node: LoneNode) -> None:
    """Of each kind of subscription, and of each option that changes what is told."""
    wanted: list[list[Any]] = [
        ["newHeads"],
        ["logs"],
        ["newPendingTransactions"],
        ["newPendingTransactions", True],
        ["syncing"],
    ]
    assert {params[0] for params in wanted} == NOTIFICATIONS.keys() == set(KINDS)
    async with aiohttp.ClientSession() as session, session.ws_connect(server_url) as socket_:
        message: Any
        kinds: dict[str, str] = {}
        for params in wanted:
            await socket_.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": params})
            kinds[(await socket_.receive_json())["result"]] = params[0]
        await node.submit([node.call_contract(GATEWAY_KEY, *ANCHOR_CALL).raw])
        node.progress = Syncing(0, 1, 9)
        node.mine()
        told: dict[str, object] = {}
        async with asyncio.timeout(30):
            while len(told) < len(wanted):
                message = await socket_.receive_json()
                assert message.keys() == {"jsonrpc", "method", "params"}
                assert message["params"].keys() == {"subscription", "result"}
                told[message["params"]["subscription"]] = message["params"]["result"]
        node.progress = None
        node.include()
        async with asyncio.timeout(30):
            while (message := await socket_.receive_json())["params"]["result"] is not False:
                pass
    assert kinds[message["params"]["subscription"]] == "syncing"
    for subscription, result in [*told.items(), (message["params"]["subscription"], False)]:
        schema = jsonschema_rs.validator_for(NOTIFICATIONS[kinds[subscription]].schema)
        assert schema.is_valid(result), (kinds[subscription], result)
        assert not schema.is_valid({"hash": "0x1"})


async def test_discovery_describes_every_method(operator: Caller, methods: dict[str, Method]) -> None:
    document = await operator("rpc.discover")
    assert {method["name"] for method in document["methods"]} == methods.keys()
    for described in document["methods"]:
        assert [param["name"] for param in described["params"]] == [p.name for p in methods[described["name"]].params]
        for content in (*described["params"], described["result"]):
            jsonschema_rs.validator_for(content["schema"])
