"""The JSON-RPC under any bytes and any parameters: the real dispatcher and methods over a node of one process.

The answer is always JSON-RPC, and never an internal error.
"""

import asyncio
from collections.abc import Sequence
from functools import cache

import orjson

from node.chain.transaction import sign_transaction
from node.rpc.api import Api
from node.rpc.dev_accounts import DevAccounts
from node.rpc.dispatch import Dispatcher
from node.rpc.jsonrpc import INTERNAL_ERROR
from node.rpc.limits import Limits
from tests.fuzz.targets import Target
from tests.rpc.rpc_harness import ALICE, CHAIN_ID, ETHER, LoneNode


class ImpatientNode(LoneNode):
    """Nobody waits for the next block here: none will come."""

    async def wait_for_height(self, height: int, timeout_s: float) -> bool:
        return self.chain.head.number >= height


class World:
    """A chain of two blocks, its methods by name, the operators' among them, and an event loop to call them in."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.api = self.loop.run_until_complete(self._api())
        self.names = sorted(self.api.operators)
        self.dispatcher = Dispatcher(self.api.operators, Limits(filters_max=8))

    async def _api(self) -> Api:
        node = ImpatientNode()
        transfer = sign_transaction(ALICE, chain_id=CHAIN_ID, nonce=0, to=bytes(20), gas_limit=21_000, value=ETHER)
        await node.submit([transfer.raw])
        node.mine()
        node.mine()
        return Api(node, Limits(filters_max=8), DevAccounts())


@cache
def _world() -> World:
    return World()


def check_jsonrpc(data: bytes) -> None:
    """Any body gets well-formed answers, none of them an internal error."""
    world = _world()
    answer = world.loop.run_until_complete(world.dispatcher.answer(data))
    if answer is None:
        return
    document = orjson.loads(answer)
    responses = document if isinstance(document, list) else [document]
    for response in responses:
        assert response["jsonrpc"] == "2.0"
        assert ("result" in response) != ("error" in response)
        assert response.get("error", {}).get("code") != INTERNAL_ERROR, response


def check_parameters(data: bytes) -> None:
    """Any parameters of any method; the first byte chooses the method, the rest is a JSON value."""
    if not data:
        return
    name = _world().names[data[0] % len(_world().names)]
    check_jsonrpc(b'{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}' % (name.encode(), data[1:]))


def seed_bodies() -> Sequence[bytes]:
    """A request, a batch with a notification."""
    one = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["latest", True]}
    return [orjson.dumps(one), orjson.dumps([one, {"jsonrpc": "2.0", "method": "eth_blockNumber"}])]


def seed_parameters() -> Sequence[bytes]:
    """Each method once, with parameters of the common kinds."""
    address, word = "0x" + ALICE.address.hex(), "0x" + "11" * 32
    call = {"from": address, "to": address, "data": "0x", "value": "0x1", "gas": "0x5208"}
    kinds: list[list[object]] = [
        [], ["0x1", True], [address, "latest"], [word], [word, "0x0"], [call, "latest"], [address, [word], "0x1"],
        [{"fromBlock": "0x0", "toBlock": "latest", "address": [address], "topics": [None, [word]]}],
        ["0x2", "0x1", [50]],
    ]  # fmt: skip
    texts = [orjson.dumps(kind) for kind in kinds]
    return [bytes([n]) + texts[n % len(texts)] for n in range(len(_world().names))] + [b"\x00" + text for text in texts]


RPC_TARGETS = {
    "jsonrpc": Target(check_jsonrpc, seed_bodies),
    "parameters": Target(check_parameters, seed_parameters),
}
