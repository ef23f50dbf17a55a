"""The client that asks validators: bounds on what they answer, and what one that hangs costs the others."""

import asyncio
import gzip
from typing import Any, cast

import orjson
import pytest
from aiohttp import web

from gateway.chain import Chain
from gateway.jsonrpc import MESSAGE_CHARS_MAX, RpcClient, RpcError, RpcFailure, hex_int
from gateway.validators import REVERTED, NoValidator, Pool, ValidatorNode
from tests.gateway.conftest import DOMAIN
from tests.gateway.gateway_network import until


class Server:
    """Answers every POST with the same, or never."""

    def __init__(self, answer: object, *, hangs: bool = False, packed: bool = False) -> None:
        self._body = orjson.dumps(answer)
        self._hangs, self._packed = hangs, packed
        self.waiting = 0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Server":
        app = web.Application()
        app.router.add_post("/", self._post)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        await request.read()
        if self._hangs:
            self.waiting += 1
            await asyncio.Event().wait()
        if self._packed:
            return web.Response(body=gzip.compress(self._body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=self._body, content_type="application/json")


async def test_one_that_hangs_takes_only_its_own_part_of_the_connections() -> None:
    client = RpcClient(connections_max=6, hosts=3)
    async with Server({}, hangs=True) as hanging, Server({"id": 1, "result": 7}) as good:
        stuck = [asyncio.create_task(client.call(hanging.url, "m", (), 60)) for _ in range(20)]
        async with asyncio.timeout(20):
            await until(lambda: hanging.waiting == 2, "all that it may have hang")
            assert await client.call(good.url, "m", (), 20) == 7
        assert hanging.waiting == 2
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        assert await client.call(good.url, "m", (), 20) == 7, "who gives up leaves nothing behind"
        await client.close()


async def test_nothing_is_unpacked_that_was_not_asked_for() -> None:
    client = RpcClient(connections_max=2)
    async with Server({"id": 1, "result": "x" * 1_000_000}, packed=True) as server:
        with pytest.raises(RpcFailure, match="something else than JSON"):
            await client.call(server.url, "m", (), 20)
    await client.close()


@pytest.mark.parametrize("error", [{"code": -32000, "message": "x" * 100_000}, "x" * 100_000])
async def test_a_refusal_is_short_however_long_it_is_told(error: object) -> None:
    client = RpcClient(connections_max=2)
    async with Server({"id": 1, "error": error}) as server:
        with pytest.raises(RpcError) as refused:
            await client.call(server.url, "m", (), 20)
        assert 0 < len(refused.value.message) <= MESSAGE_CHARS_MAX
    await client.close()


@pytest.mark.parametrize("value", ["-0x1", "0x", "1f", "0x_1", " 0x1", "0x" + "f" * 65, 7, None, "x" * 1_000_000])
def test_what_is_no_quantity_is_refused_briefly(value: object) -> None:
    with pytest.raises(RpcFailure, match="is no quantity") as refused:
        hex_int(value)
    assert len(str(refused.value)) < 120
    assert (hex_int("0x0"), hex_int("0xFf")) == (0, 255)


class Rpc:
    """Validators of which some answer nobody."""

    def __init__(self, down: set[str]) -> None:
        self.down = down
        self.asked: list[str] = []

    async def call(self, url: str, *_: object) -> str:
        self.asked.append(url)
        if url in self.down:
            raise RpcFailure("no answer")
        return url


async def test_who_did_not_answer_lately_is_waited_for_only_where_the_others_are_no_quorum() -> None:
    rpc = Rpc({"c"})
    nodes = [ValidatorNode(name, name, "") for name in "abc"]
    pool = Pool(nodes, cast(RpcClient, cast(Any, rpc)), DOMAIN, timeout_s=1, probe_interval_s=1)
    assert await pool.ask_quorum("m", ()) == ["a", "b"], "nobody was probed yet: all are asked"
    for one in pool.validators[:2]:
        one.reachable = one.probed = True
    rpc.asked.clear()
    assert await pool.ask_quorum("m", ()) == ["a", "b"]
    assert rpc.asked == ["a", "b"]
    rpc.down, rpc.asked = {"b"}, []
    assert await pool.ask_quorum("m", ()) == ["a", "c"]
    assert rpc.asked == ["a", "b", "c"]
    rpc.down = {"b", "c"}
    with pytest.raises(NoValidator, match="1 of 3 validators answer, 2 are needed"):
        await pool.ask_quorum("m", ())


class Refusing:
    """A validator that says that the contract refuses every call, and gives no reason that can be read."""

    async def ask(self, *_: object, **__: object) -> str:
        raise RpcError(REVERTED, "reverted", 7)


async def test_a_refusal_that_cannot_be_read_is_no_answer() -> None:
    """It is not a failure of the gateway's own either: a batch that waits for a reason would be forgotten."""
    chain = Chain(cast(Pool, cast(Any, Refusing())), cast(Any, None))
    with pytest.raises(NoValidator, match="is no hex data"):
        await chain.refusal(bytes(20), bytes(20), b"", 1)
    with pytest.raises(NoValidator, match="is no hex data"):
        await chain._election_is_told(1)
