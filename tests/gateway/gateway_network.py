"""A gateway over real HTTP, before three validators that can be dead, forgetful or lying, and a real chain behind them.

The validators are fronts before one node with the real ledger, contracts, mempool, certificates and JSON-RPC.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
from aiohttp import web

from gateway.config import ElectionsConfig, GatewayConfig, RpcConfig, ValidatorConfig
from gateway.server import HttpServer, make_app
from gateway.service import Gateway
from node.rpc.server import RpcServer
from tests.rpc.rpc_harness import GATEWAY_KEY, VALIDATOR_KEYS, LoneNode

SECRET = bytes([5] * 32)
Tamper = Callable[[str, Any], Any]  # (method, result) → what is answered instead


class Front:
    """One validator's JSON-RPC as the gateway sees it."""

    def __init__(self, number: int, behind: str, client: httpx.AsyncClient) -> None:
        self.address = "0x" + VALIDATOR_KEYS[number].address.hex()
        self._behind, self._client = behind, client
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.alive = True
        self.swallows = False  # takes transactions and loses them
        self.tamper: Tamper | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=32 << 20)
        app.add_routes([web.post("/", self._post)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        if not self.alive:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        document = orjson.loads(await request.read())
        calls = document if isinstance(document, list) else [document]
        if self.swallows and calls[0]["method"] == "eth_sendRawTransaction":
            answers: Any = [{"jsonrpc": "2.0", "id": call["id"], "result": "0x" + "00" * 32} for call in calls]
        else:
            response = await self._client.post(self._behind, json=document, timeout=40)
            answers = response.json() if isinstance(document, list) else [response.json()]
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "poa_status":
                assert "result" in answer, answer
                answer["result"]["address"] = self.address
            if self.tamper is not None and "result" in answer:
                answer["result"] = self.tamper(call["method"], answer["result"])
        return web.json_response(answers if isinstance(document, list) else answers[0])


class Caller:
    """Calls one gateway's HTTP API."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client, self._url = client, url

    async def get(self, path: str, **query: object) -> httpx.Response:
        return await self._client.get(self._url + path, params={name: str(value) for name, value in query.items()})

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return await self._client.post(self._url + path, content=orjson.dumps(body), headers=headers)

    async def vote(self, voter: object, choice: object = 0, *, wait: float = 5, **more: object) -> httpx.Response:
        body = {"voter_id": voter, "election_id": 1, "choice": choice} | more
        return await self.post("/api/votes/submit", body, Prefer=f"wait={wait}")


class Network:
    """The node, its three fronts, and as many gateways as a test opens."""

    def __init__(self, folder: Path, client: httpx.AsyncClient) -> None:
        self.node = LoneNode()
        self.client = client
        self.folder = folder
        self.fronts: list[Front] = []
        self._server = RpcServer(self.node, ("127.0.0.1", 0))
        self._miner: asyncio.Task[None] | None = None
        self.mining = True

    async def start(self) -> None:
        host, port = await self._server.start()
        self.fronts = [Front(number, f"http://{host}:{port}", self.client) for number in range(3)]
        for front in self.fronts:
            await front.start()
        self._miner = asyncio.create_task(self._mine())

    async def stop(self) -> None:
        assert self._miner is not None
        self._miner.cancel()
        await asyncio.wait((self._miner,))
        for front in self.fronts:
            await front.stop()
        await self._server.stop()

    async def _mine(self) -> None:
        """Blocks come while there is work, as a network's do."""
        while True:
            await asyncio.sleep(0.02)
            if self.mining and len(self.node.mempool):
                self.node.mine()

    def config(self, name: str) -> GatewayConfig:
        folder = self.folder / name
        return GatewayConfig(
            name=name,
            journal=folder / "journal",
            spool=folder / "spool",
            state=folder / "verified.json",
            validators=tuple(
                ValidatorConfig(name=f"validator-{n}", rpc_url=f"http://127.0.0.1:{front.port}")
                for n, front in enumerate(self.fronts, 1)
            ),
            elections=ElectionsConfig(auto_create=True),
            rpc=RpcConfig(probe_interval_ms=50, poll_ms=300, resend_ms=150, timeout_ms=1500),
        )

    @contextlib.asynccontextmanager
    async def gateway(self, name: str = "gateway", *, secret: bytes = SECRET) -> AsyncIterator[tuple[Gateway, Caller]]:
        """A gateway that runs, with its HTTP API, until the block ends."""
        gateway = Gateway(self.config(name), self.node.chain.genesis, GATEWAY_KEY, secret)
        await gateway.start()
        server = HttpServer(make_app(gateway))
        port = await server.start("127.0.0.1", 0)
        try:
            yield gateway, Caller(self.client, f"http://127.0.0.1:{port}")
        finally:
            await server.stop()
            await gateway.stop()

    def kill_all(self) -> None:
        for front in self.fronts:
            front.alive = False

    def revive_all(self) -> None:
        for front in self.fronts:
            front.alive = True


async def until(condition: Callable[[], bool], what: str, within_s: float = 10) -> None:
    """Wait for a condition; fail with `what` when it does not come true in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"within {within_s} s: {what}"
        await asyncio.sleep(0.01)
