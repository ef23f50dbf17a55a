"""A gateway over real HTTP, before three validators that can be dead, forgetful or lying, and a real chain behind them.

The validators are fronts before one node with the real ledger, contracts, mempool, certificates and JSON-RPC.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
from aiohttp import web

from gateway.api import documentation, documented
from gateway.config import ElectionsConfig, GatewayConfig, RpcConfig, ValidatorConfig
from gateway.disk import Disk
from gateway.server import OPERATIONS, HttpServer, make_app
from gateway.service import Gateway
from node.chain.signing import SigningKey
from node.rpc.server import RpcServer
from serving.connections import stop_listening
from tests.rpc.rpc_harness import GATEWAY_KEY, VALIDATOR_KEYS, LoneNode

SECRET = bytes([5] * 32)
Tamper = Callable[[str, Any], Any]  # (method, result) → what is answered instead


class Front:
    """One validator's JSON-RPC as the gateway sees it."""

    def __init__(self, number: int, behind: str, client: httpx.AsyncClient) -> None:
        self.address = "0x" + VALIDATOR_KEYS[number].address.hex()
        self._behind, self._client = behind, client
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.port = 0
        self.alive = True
        self.swallows = False  # takes transactions and loses them
        self.hangs = False  # takes calls and never answers
        self.tamper: Tamper | None = None
        self.junk: bytes | None = None  # what it answers, whatever it is asked

    async def start(self) -> None:
        app = web.Application(client_max_size=32 << 20)
        app.add_routes([web.post("/", self._post)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_server(self._runner.server, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._runner is not None
        assert self._server is not None
        await stop_listening(self._server)
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        if not self.alive:
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        document = orjson.loads(await request.read())
        if self.hangs:
            await asyncio.Event().wait()
        if self.junk is not None:
            return web.Response(body=self.junk, content_type="application/json")
        calls = document if isinstance(document, list) else [document]
        if self.swallows and calls[0]["method"] == "eth_sendRawTransaction":
            answers: Any = [{"jsonrpc": "2.0", "id": call["id"], "result": "0x" + "00" * 32} for call in calls]
        else:
            headers = {"X-Request-Id": request.headers.get("X-Request-Id", "")}
            response = await self._client.post(self._behind, json=document, timeout=40, headers=headers)
            answers = response.json() if isinstance(document, list) else [response.json()]
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "poa_status":
                assert "result" in answer, answer
                answer["result"]["address"] = self.address
            if self.tamper is not None and "result" in answer:
                answer["result"] = self.tamper(call["method"], answer["result"])
        return web.json_response(answers if isinstance(document, list) else answers[0])


class Documented:
    """The OpenAPI document as a judge: each answer must be one that it describes."""

    def __init__(self) -> None:
        operations = (*OPERATIONS, *documented.OPERATIONS)
        self._document = documentation.openapi(operations, body_bytes_max=1)
        self._paths = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "$"), path)
            for path in sorted(self._document["paths"], key=lambda path: path.count("{"))
        ]
        self._validators: dict[tuple[str, str, str, str], jsonschema_rs.Draft202012Validator] = {}

    def check(self, answer: httpx.Response) -> None:
        """Fail where the answer has a status, a type or a form that is not documented."""
        method, path = answer.request.method.lower(), answer.request.url.path
        template = next((template for pattern, template in self._paths if pattern.match(path)), None)
        if template is None or method not in self._document["paths"][template]:
            return
        replies = self._document["paths"][template][method]["responses"]
        status, media_type = str(answer.status_code), answer.headers["content-type"].partition(";")[0]
        assert status in replies, f"{method} {path}: {status} is not documented: {answer.text[:300]}"
        assert media_type in replies[status]["content"], f"{method} {path}: {status} {media_type}"
        if "json" not in media_type:
            return
        key = (template, method, status, media_type)
        if key not in self._validators:
            schema = replies[status]["content"][media_type]["schema"]
            whole = {"allOf": [schema], "components": self._document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        faults = [str(fault) for fault in self._validators[key].iter_errors(answer.json())]
        assert not faults, f"{method} {path} {status}: {faults} in {answer.text[:500]}"


@cache
def judge() -> Documented:
    """One for all tests."""
    return Documented()


class Caller:
    """Calls one gateway's HTTP API, and holds each answer to its documentation."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client, self.url = client, url

    async def get(self, path: str, **query: object) -> httpx.Response:
        """Parameters that are None are left out; `headers` are headers."""
        headers: Any = query.pop("headers", None)
        params = {name: str(value) for name, value in query.items() if value is not None}
        answer = await self._client.get(self.url + path, params=params, headers=headers)
        judge().check(answer)
        return answer

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        if body is None:
            answer = await self._client.post(self.url + path, headers=headers)
        else:
            headers = {"Content-Type": "application/json"} | headers
            answer = await self._client.post(self.url + path, content=orjson.dumps(body), headers=headers)
        judge().check(answer)
        return answer

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

    def config(self, name: str, **settings: Any) -> GatewayConfig:
        folder = self.folder / name
        return GatewayConfig(
            name=name,
            election_keys=folder / "election-keys",
            journal=folder / "journal",
            spool=folder / "spool",
            state=folder / "verified.json",
            validators=tuple(
                ValidatorConfig(name=f"validator-{n}", rpc_url=f"http://127.0.0.1:{front.port}")
                for n, front in enumerate(self.fronts, 1)
            ),
            **{
                "elections": ElectionsConfig(auto_create=True),
                "rpc": RpcConfig(probe_interval_ms=50, poll_ms=300, resend_ms=150, timeout_ms=5000),
            }
            | settings,
        )

    @contextlib.asynccontextmanager
    async def gateway(
        self,
        name: str = "gateway",
        *,
        secret: bytes = SECRET,
        key: SigningKey = GATEWAY_KEY,
        disk: Disk | None = None,
        **settings: Any,
    ) -> AsyncIterator[tuple[Gateway, Caller]]:
        """A gateway that runs, with its HTTP API, until the block ends."""
        gateway = Gateway(self.config(name, **settings), self.node.chain.genesis, key, secret, disk=disk)
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
