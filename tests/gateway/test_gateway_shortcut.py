"""A single vote or anchor goes past the router, and nothing else about it is different."""

import asyncio
import uuid
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web

from gateway.api.common import CALLS, problems
from gateway.config import ApiKeyConfig, LimitsConfig
from gateway.server import ANCHOR, SUBMIT, HttpServer, make_app
from serving.shortcut import shortcut
from tests.gateway.gateway_network import Caller, Network
from tests.gateway.test_gateway_access import key_for

ROUTED = SUBMIT.replace("m", "%6d")  # the same path, as the router alone sees
JSON = {"content-type": "application/json"}


async def both(api: Caller, client: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    """The answer to a POST, which is the same both ways but for its time and its request id."""
    answers = [await client.post(api.url + path, content=content, headers=JSON | headers) for path in (SUBMIT, ROUTED)]
    assert [answer.request.url.raw_path for answer in answers] == [SUBMIT.encode(), ROUTED.encode()]
    first, second = ((one.status_code, dict(one.headers), one.content) for one in answers)
    for _, fields, _ in (first, second):
        fields.pop("date")
    if "x-request-id" not in headers:
        ids = [fields.pop("x-request-id") for _, fields, _ in (first, second)]
        assert ids[0] != ids[1]
        bodies = [one[2].replace(id_.encode(), b"ID") for one, id_ in zip((first, second), ids, strict=True)]
        bodies = [body.replace(ROUTED.encode(), SUBMIT.encode()) for body in bodies]
        first, second = (first[0], first[1], bodies[0]), (second[0], second[1], bodies[1])
    assert first == second
    return answers[0]


def vote(**more: Any) -> bytes:
    return orjson.dumps({"voter_id": "v", "election_id": 1, "choice": 0, "transaction_id": "t"} | more)


async def test_answers_are_the_same_both_ways(network: Network) -> None:
    async with network.gateway(limits=LimitsConfig(body_bytes_max=1 << 17)) as (_, api):
        first = await api.vote("v", transaction_id="t")
        assert first.status_code == 200, first.text
        assert (await both(api, network.client, vote(), prefer="wait=5")).json() == first.json()
        assert (await both(api, network.client, vote(choice=1))).status_code == 409
        assert (await both(api, network.client, vote(choice=[]))).status_code == 422
        assert (await both(api, network.client, b"{")).status_code == 400
        assert (await both(api, network.client, b" " * (1 << 18))).status_code == 413
        assert (await both(api, network.client, vote(), origin="http://other")).status_code == 403
        assert (await both(api, network.client, vote(), host="evil.example")).status_code == 403
        wrong_type = await both(api, network.client, vote(), **{"content-type": "text/plain"})
        assert wrong_type.status_code == 415
        named = await both(api, network.client, vote(), **{"x-request-id": "mine"})
        assert named.headers["x-request-id"] == "mine"
        assert (await network.client.get(api.url + SUBMIT)).status_code == 405
        assert (await both(api, network.client, vote(), expect="100-continue")).status_code == 200


async def test_an_anchor_is_taken_both_ways(network: Network) -> None:
    async with network.gateway() as (_, api):
        body = {"batch_id": str(uuid.UUID(int=1, version=4)), "merkle_root": "ab" * 32, "product_count": 1}
        routed = ANCHOR.replace("a", "%61")
        for path, status in ((ANCHOR, 202), (routed, 200)):
            answer = await network.client.post(api.url + path, content=orjson.dumps(body), headers=JSON)
            assert (answer.status_code, answer.json()["batch_id"]) == (status, body["batch_id"])
        other = orjson.dumps(body | {"merkle_root": "cd" * 32})
        for path in (ANCHOR, routed):
            answer = await network.client.post(api.url + path, content=other, headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (409, "anchor-exists")


async def test_keys_are_asked_for_both_ways(network: Network) -> None:
    (caster, entry), (reader, other) = key_for("vote"), key_for("read")
    async with network.gateway(api_keys=(ApiKeyConfig(**entry), ApiKeyConfig(**other))) as (_, api):
        assert (await both(api, network.client, vote())).status_code == 401
        assert (await both(api, network.client, vote(), authorization=f"Bearer {reader}")).status_code == 403
        cast = {"authorization": f"Bearer {caster}"}
        assert (await both(api, network.client, vote(choice=[]), **cast)).status_code == 422


async def test_calls_are_counted_under_one_name(network: Network) -> None:
    async with network.gateway() as (gateway, _):
        app = make_app(gateway)
        server = HttpServer(app)
        port = await server.start("127.0.0.1", 0)
        try:
            for path in (SUBMIT, ROUTED, SUBMIT + "?x=1", "/api/votes/submit/"):
                await network.client.post(f"http://127.0.0.1:{port}{path}", content=b"{", headers=JSON)
            counts = {name: seconds.count for name, seconds in app[CALLS].seconds}
            assert counts == {f"POST {SUBMIT}": 3, "unmatched": 1}
            assert all(not connection.requests for connection in server._guard._connections)
        finally:
            await server.stop()


async def test_who_asks_whether_to_go_on_is_told_so(network: Network) -> None:
    async with network.gateway() as (_, api), asyncio.timeout(10):
        url = httpx.URL(api.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        body = vote()
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 20")
        writer.close()


def test_only_a_route_that_is_there_has_a_shortcut() -> None:
    async def usual(_: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    with pytest.raises(LookupError):
        shortcut(web.Application(), "POST", "/nowhere", usual, problems)
