"""An anchor of the usual form is taken where its bytes arrive, and is told of as ever."""

import asyncio
import uuid
from typing import Any

import httpx
import orjson
import pytest

from gateway.api.common import CALLS
from gateway.api.straight import Counter
from gateway.config import ApiKeyConfig
from gateway.records import Anchor
from gateway.server import ANCHOR, HttpServer, make_app
from tests.gateway.conftest import FragileDisk
from tests.gateway.gateway_network import Network, until
from tests.gateway.test_gateway_access import key_for
from tests.gateway.test_gateway_straight import answer_of, opened

ROUTED = ANCHOR.replace("a", "%61")  # the same path, as the router alone sees
JSON = {"content-type": "application/json"}


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The batches whose anchors were taken where they arrived."""
    batches: list[bytes] = []
    read = Counter.anchor

    def noted(self: Counter, raw: bytes) -> Anchor | None:
        taken = read(self, raw)
        if taken is not None:
            batches.append(taken.batch_id)
        return taken

    monkeypatch.setattr(Counter, "anchor", noted)
    return batches


def body(number: int, **fields: Any) -> bytes:
    batch = str(uuid.UUID(int=number, version=4))
    return orjson.dumps({"batch_id": batch, "merkle_root": "ab" * 32, "product_count": 1} | fields)


async def both(network: Network, url: str, content: bytes, **headers: str) -> httpx.Response:
    """The answer to a POST, which is the same both ways but for its time and request id."""
    first, second = [
        await network.client.post(url + path, content=content, headers=JSON | headers) for path in (ANCHOR, ROUTED)
    ]
    assert first.status_code == second.status_code, (first.text, second.text)
    assert set(first.headers) == set(second.headers)
    shown, same = first.json(), second.json()
    for document in (shown, same):
        document.pop("request_id", None)
        if "detail" in document:
            document["detail"] = document["detail"].replace(ROUTED, ANCHOR)
    assert shown == same
    return first


async def test_an_answer_is_the_one_that_the_router_gives(network: Network, straight: list[bytes]) -> None:
    async with network.gateway() as (gateway, api):
        first = await network.client.post(api.url + ANCHOR, content=body(1), headers=JSON | {"x-request-id": "mine"})
        assert (first.status_code, first.json()["status"], first.headers["x-request-id"]) == (202, "pending", "mine")
        assert gateway.durability.accepted_count == 1, "durable before it is acknowledged"
        await until(lambda: gateway.book.pending_count == 0, "final", 20)
        again = await both(network, api.url, body(1))
        assert (again.status_code, again.json()) == (200, first.json() | {"status": "completed"})
        taken = len(straight)
        assert taken == 2
        assert (await both(network, api.url, body(1, merkle_root="cd" * 32))).status_code == 409
        assert len(straight) == taken + 1, "a refusal is told by aiohttp's way, of what was taken here"
        assert (await both(network, api.url, body(2, merkle_root="x"))).status_code == 422
        assert (await both(network, api.url, b"{")).status_code == 400
        assert (await both(network, api.url, body(2, callback_url="http://not.allowed/"))).status_code == 403
        assert (await both(network, api.url, body(2), **{"content-type": "text/plain"})).status_code == 415
        assert (await both(network, api.url, body(2), origin="http://other")).status_code == 403
        assert (await both(network, api.url, body(2), host="evil.example")).status_code == 403
        assert len(straight) == taken + 1, "the unusual goes the usual way"


async def test_the_scope_is_that_of_anchors(network: Network, straight: list[bytes]) -> None:
    (anchorer, entry), (caster, other) = key_for("anchor"), key_for("vote")
    async with network.gateway(api_keys=(ApiKeyConfig(**entry), ApiKeyConfig(**other))) as (_, api):
        assert (await both(network, api.url, body(1))).status_code == 401
        assert (await both(network, api.url, body(1), authorization=f"Bearer {caster}")).status_code == 403
        assert not straight
        headers = JSON | {"authorization": f"Bearer {anchorer}"}
        answer = await network.client.post(api.url + ANCHOR, content=body(1), headers=headers)
        assert (answer.status_code, len(straight)) == (202, 1)


async def test_what_cannot_be_kept_is_not_taken(network: Network, straight: list[bytes]) -> None:
    disk = FragileDisk()
    async with network.gateway(disk=disk) as (gateway, api):
        disk.refuse = lambda operation, count, path: operation in ("sync", "create")
        refused = await network.client.post(api.url + ANCHOR, content=body(1), headers=JSON)
        assert (refused.status_code, refused.json()["code"]) == (503, "not-durable")
        assert (len(straight), gateway.book.pending_count) == (1, 0)
        disk.refuse = lambda operation, count, path: False


async def test_an_anchor_stands_whose_caller_has_gone(network: Network, straight: list[bytes]) -> None:
    async with network.gateway() as (gateway, _):
        server = HttpServer(make_app(gateway))
        port = await server.start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {ANCHOR} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body(1))}\r\n\r\n".encode() + body(1))
        await until(lambda: len(straight) == 1, "it is taken")
        writer.transport.abort()
        await until(lambda: not len(server._guard), "the connection is forgotten")
        key = uuid.UUID(int=1, version=4).bytes + bytes(16)
        await until(lambda: (item := gateway.book.anchor(key)) is not None and item.place is not None, "final", 20)
        assert server._guard.received_bytes == 0
        await server.stop()


async def test_requests_that_come_early_are_answered_in_order(network: Network, straight: list[bytes]) -> None:
    async with network.gateway() as (_, api):
        reader, writer = await opened(api)
        for number in range(5):
            content = body(number)
            head = f"POST {ANCHOR} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            if number == 0:
                await asyncio.sleep(0)
        for number in range(5):
            status, _, shown = await answer_of(reader)
            assert (status, shown["batch_id"]) == ("HTTP/1.1 202 Accepted", orjson.loads(body(number))["batch_id"])
        writer.close()


async def test_calls_are_counted_under_one_name_and_connections_are_let_go(
    network: Network, straight: list[bytes]
) -> None:
    async with network.gateway() as (gateway, _):
        app = make_app(gateway)
        server = HttpServer(app)
        port = await server.start("127.0.0.1", 0)
        try:
            for path in (ANCHOR, ROUTED, ANCHOR):
                await network.client.post(f"http://127.0.0.1:{port}{path}", content=body(1), headers=JSON)
            other = body(1, merkle_root="cd" * 32)
            await network.client.post(f"http://127.0.0.1:{port}{ANCHOR}", content=other, headers=JSON)
            assert len(straight) == 3
            assert {name: seconds.count for name, seconds in app[CALLS].seconds} == {f"POST {ANCHOR}": 4}
            assert all(not connection.requests for connection in server._guard._connections)
        finally:
            await server.stop()
