"""WebSocket on the port of HTTP: calls, subscriptions in order, and readers that are too slow."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from node.rpc.limits import Limits
from node.rpc.ports import Syncing
from node.rpc.server import RpcServer
from tests.rpc.rpc_harness import ADDRESSES, ALICE, BOB, GATEWAY_KEY, LoneNode

WITHIN_S = 30


class Client:
    """A WebSocket client that keeps answers and notifications apart."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket_
        self._notifications: list[dict[str, Any]] = []
        self._last_id = 0

    async def _receive(self) -> Any:
        async with asyncio.timeout(WITHIN_S):
            return json.loads(await self.socket.receive_str())

    async def call(self, method: str, *params: Any) -> Any:
        """The answer to a call, whole."""
        self._last_id += 1
        await self.socket.send_str(
            json.dumps({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        )
        while "id" not in (message := await self._receive()):
            self._notifications.append(message)
        assert message["id"] == self._last_id
        return message

    async def subscribe(self, *params: Any) -> str:
        answer = await self.call("eth_subscribe", *params)
        return str(answer["result"])

    async def told(self, subscription: str) -> Any:
        """The next notification's result, which must be of `subscription`."""
        message = self._notifications.pop(0) if self._notifications else await self._receive()
        assert message["method"] == "eth_subscription"
        assert message["params"]["subscription"] == subscription
        return message["params"]["result"]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


@pytest.fixture
async def client(server_url: str, session: aiohttp.ClientSession) -> AsyncIterator[Client]:
    async with session.ws_connect(server_url) as socket_:
        yield Client(socket_)


async def test_calls_batches_and_refusals(client: Client) -> None:
    assert (await client.call("eth_blockNumber"))["result"] == "0x0"
    assert (await client.call("eth_nothing"))["error"]["code"] == -32601
    assert (await client.call("eth_subscribe", "newWorlds"))["error"]["code"] == -32602
    assert (await client.call("eth_subscribe", "newHeads", True))["error"]["code"] == -32602
    assert (await client.call("eth_subscribe", "logs", {"blockHash": "0x" + "11" * 32}))["error"]["code"] == -32602
    assert (await client.call("eth_unsubscribe", "0x1"))["result"] is False
    await client.socket.send_bytes(b'[{"jsonrpc":"2.0","id":7,"method":"eth_chainId"},{"jsonrpc":"2.0","method":"x"}]')
    (answer,) = await client._receive()
    assert answer["id"] == 7
    await client.socket.send_str("{")
    assert (await client._receive())["error"]["code"] == -32700


async def test_heads_come_once_and_in_order(node: LoneNode, client: Client) -> None:
    node.include()
    subscription = await client.subscribe("newHeads")
    blocks = [node.include().block for _ in range(50)]
    for block in blocks:
        head = await client.told(subscription)
        assert (head["number"], head["hash"]) == (hex(block.number), "0x" + block.hash.hex())
    assert (await client.call("eth_unsubscribe", subscription))["result"] is True
    node.include()
    assert (await client.call("eth_blockNumber"))["result"] == hex(52)  # and no notification came before it
    assert client._notifications == []


async def test_event_logs_from_now_or_from_the_past(node: LoneNode, client: Client) -> None:
    node.include(
        node.call_contract(GATEWAY_KEY, "Elections", "create", 5, "Lunch", ["a", "b"], 3, 0, 0, 0, [], bytes(32))
    )
    address = "0x" + ADDRESSES["Elections"].hex()
    past = await client.subscribe("logs", {"fromBlock": "0x0", "address": address})
    created = await client.told(past)
    assert created["blockNumber"] == "0x1"
    await client.call("eth_unsubscribe", past)
    fresh = await client.subscribe("logs", {"address": address})
    elsewhere = await client.subscribe("logs", {"address": "0x" + BOB.address.hex()})
    cast = node.call_contract(GATEWAY_KEY, "Elections", "cast", 5, b"\1" * 32, b"\2" * 32, 0, b"\1")
    node.include(cast)
    log = await client.told(fresh)
    assert (log["blockNumber"], log["transactionHash"]) == ("0x2", "0x" + cast.hash.hex())
    assert elsewhere != fresh


async def test_waiting_transactions_by_hash_or_whole(node: LoneNode, client: Client) -> None:
    hashes = await client.subscribe("newPendingTransactions")
    first = node.sign(ALICE, BOB.address)
    await client.call("eth_sendRawTransaction", "0x" + first.raw.hex())
    assert await client.told(hashes) == "0x" + first.hash.hex()
    await client.call("eth_unsubscribe", hashes)
    whole = await client.subscribe("newPendingTransactions", True)
    second = node.sign(ALICE, BOB.address, value=3)
    await client.call("eth_sendRawTransaction", "0x" + second.raw.hex())
    assert (await client.told(whole))["value"] == "0x3"


async def test_syncing_tells_changes(node: LoneNode, client: Client) -> None:
    subscription = await client.subscribe("syncing")
    node.progress = Syncing(0, 1, 9)
    node.include()
    told = await client.told(subscription)
    assert told["syncing"] is True
    assert told["status"]["highestBlock"] == "0x9"
    node.include()
    node.progress = None
    node.include()
    assert await client.told(subscription) is False


async def test_a_long_call_holds_up_no_other(node: LoneNode, client: Client) -> None:
    poll = {"jsonrpc": "2.0", "id": "poll", "method": "poa_getBlocks", "params": [1, 1, 20_000]}
    await client.socket.send_str(json.dumps(poll))
    await asyncio.wait_for(node.polled.wait(), WITHIN_S)
    assert (await client.call("eth_blockNumber"))["result"] == "0x0"
    node.include()
    assert (await client._receive())["id"] == "poll"


@pytest.mark.parametrize("limits", [Limits(subscriptions_max=2, websockets_max=1)])
async def test_limits_on_connections_and_subscriptions(
    client: Client, session: aiohttp.ClientSession, server_url: str
) -> None:
    await client.subscribe("newHeads")
    await client.subscribe("newHeads")
    assert (await client.call("eth_subscribe", "newHeads"))["error"]["code"] == -32005
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await session.ws_connect(server_url)
    assert refusal.value.status == 503


async def test_pages_may_not_connect_and_plain_reads_are_told_how(
    node: LoneNode, session: aiohttp.ClientSession, server_url: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await session.ws_connect(server_url, origin="https://elsewhere.example")
    assert refusal.value.status == 403
    async with session.get(server_url) as answer:
        assert answer.status == 405
    server = RpcServer(node, ("127.0.0.1", 0), origins=["https://explorer.example"])
    host, port = await server.start()
    async with session.ws_connect(f"http://{host}:{port}", origin="https://explorer.example") as socket_:
        assert (await Client(socket_).call("eth_blockNumber"))["result"] == "0x0"
    await server.stop()


async def test_http_says_where_to_subscribe(rpc: Any) -> None:
    with pytest.raises(Exception, match="WebSocket"):
        await rpc("eth_subscribe", "newHeads")


@pytest.mark.parametrize("limits", [Limits(subscription_lag_blocks_max=10)])
async def test_who_lags_behind_the_head_is_dropped_with_the_reason(node: LoneNode, client: Client) -> None:
    await client.subscribe("newHeads")
    for _ in range(12):  # at once: nothing can be told in between
        node.include()
    message = await asyncio.wait_for(client.socket.receive(), WITHIN_S)
    assert message.type is aiohttp.WSMsgType.CLOSE
    assert message.data == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert "too slow: 12 blocks behind the head, at most 10" in str(message.extra)


@pytest.mark.parametrize("limits", [Limits(subscription_waiting_max=3)])
async def test_more_new_transactions_than_may_wait(node: LoneNode, client: Client) -> None:
    await client.subscribe("newPendingTransactions")
    await node.submit([node.sign(ALICE, BOB.address).raw for _ in range(4)])
    message = await asyncio.wait_for(client.socket.receive(), WITHIN_S)
    assert message.data == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert "more than 3 new transactions" in str(message.extra)


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("limits", [Limits(send_timeout_s=0.3)])
async def test_who_does_not_read_is_dropped_and_nothing_piles_up(
    node: LoneNode, server_url: str, session: aiohttp.ClientSession
) -> None:
    big = node.sign(ALICE, BOB.address, bytes(100_000))
    node.include(big)
    port = int(server_url.rpartition(":")[2])
    deaf = socket.create_connection(("127.0.0.1", port))
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(deaf, HANDSHAKE)
    assert b"101" in await loop.sock_recv(deaf, 1_000)
    # Masked with zeros, a frame's payload stays as it is. Each answer has 200 kB: far more than the sockets hold.
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_getRawTransactionByHash", "params": ["0x" + big.hash.hex()]}
    payload = json.dumps(call).encode()
    frame = b"\x81" + bytes([0x80 | len(payload)]) + bytes(4) + payload
    await loop.sock_sendall(deaf, frame * 64)
    async with asyncio.timeout(WITHIN_S):
        while node.watchers:  # noqa: ASYNC110 - the node tells nobody when it stops watching
            await asyncio.sleep(0.02)
    async with session.ws_connect(server_url) as other:
        assert (await Client(other).call("eth_blockNumber"))["result"] == "0x1"
    deaf.close()


async def test_stopping_tells_clients(node: LoneNode, session: aiohttp.ClientSession) -> None:
    server = RpcServer(node, ("127.0.0.1", 0))
    host, port = await server.start()
    async with session.ws_connect(f"http://{host}:{port}") as socket_:
        await Client(socket_).subscribe("newHeads")
        stopping = asyncio.create_task(server.stop())
        message = await asyncio.wait_for(socket_.receive(), WITHIN_S)
        assert message.data == aiohttp.WSCloseCode.GOING_AWAY
        await stopping
    assert not node.watchers
