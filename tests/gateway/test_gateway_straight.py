"""A vote of the usual form is taken where its bytes arrive, and nobody can tell but by the time that it takes."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from gateway.api.common import CALLS
from gateway.api.straight import Straight
from gateway.config import ApiKeyConfig, LimitsConfig, RatesConfig
from gateway.server import SUBMIT, HttpServer, make_app
from tests.gateway.conftest import FragileDisk
from tests.gateway.gateway_network import Caller, Network, judge, until
from tests.gateway.test_gateway_access import key_for
from tests.gateway.test_gateway_shortcut import JSON, ROUTED


def request(voter: str, path: str = SUBMIT, *, wait: float = 5, more: str = "", **fields: Any) -> bytes:
    body = orjson.dumps({"voter_id": voter, "election_id": 1, "choice": 0, "transaction_id": f"t-{voter}"} | fields)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: wait={wait}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def opened(api: Caller) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(api.url)
    return await asyncio.open_connection(url.host, url.port)


async def answer_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], Any]:
    """Status line, headers and document of the next answer."""
    async with asyncio.timeout(10):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        fields = dict(line.split(": ", 1) for line in lines)
        return status, fields, orjson.loads(await reader.readexactly(int(fields["Content-Length"])))


async def test_an_answer_is_the_one_that_the_router_gives(network: Network, straight: list[str]) -> None:
    async with network.gateway() as (_, api):
        await api.vote("first")  # makes the election
        reader, writer = await opened(api)
        told = []
        for voter, path in (("here", SUBMIT), ("there", ROUTED)):
            writer.write(request(voter, path, more=f"X-Request-Id: my-{voter}\r\n"))
            told.append(await answer_of(reader))
        assert straight == ["here"]
        (status, fields, document), (routed_status, routed_fields, routed_document) = told
        assert status == routed_status == "HTTP/1.1 200 OK"
        assert list(fields) == list(routed_fields)
        assert (fields["X-Request-Id"], routed_fields["X-Request-Id"]) == ("my-here", "my-there")
        for own in ("Date", "X-Request-Id", "Content-Length"):
            del fields[own], routed_fields[own]
        assert fields == routed_fields
        assert list(document) == list(routed_document)
        assert (document["status"], document["transaction_id"]) == ("confirmed", "t-here")
        writer.write(request("here"))  # once more: the record that stands
        assert (await answer_of(reader))[2] == document
        writer.close()


async def test_who_waits_no_longer_is_told_that_it_is_pending(network: Network, straight: list[str]) -> None:
    async with network.gateway(limits=LimitsConfig(idle_s=0.2)) as (_, api):
        await api.vote("first")
        network.mining = False
        reader, writer = await opened(api)
        writer.write(request("late", wait=0.9))  # longer than a connection may be idle
        status, _, document = await answer_of(reader)
        assert (status, document["status"]) == ("HTTP/1.1 202 Accepted", "pending")
        assert straight == ["late"]
        network.mining = True
        writer.write(request("late"))
        assert (await answer_of(reader))[2]["status"] == "confirmed"
        assert await asyncio.wait_for(reader.read(), 5) == b""  # idle again, and so ended
        writer.close()


async def test_what_the_chain_refuses_is_refused(network: Network, straight: list[str]) -> None:
    async with network.gateway("one") as (_, one), network.gateway("two") as (_, two):
        await one.vote("first")
        await two.vote("second")
        network.mining = False
        calls = [one.vote("v", 0, transaction_id="a"), two.vote("v", 1, transaction_id="b")]
        waiting = [asyncio.create_task(call) for call in calls]
        await until(lambda: straight.count("v") == 2, "both are taken")
        network.mining = True
        answers = sorted(await asyncio.gather(*waiting), key=lambda answer: answer.status_code)
        assert [answer.status_code for answer in answers] == [200, 409]
        refusal = answers[1].json()
        assert refusal["code"] == "already-cast"
        assert refusal["request_id"] == answers[1].headers["x-request-id"]
        assert refusal["standing"]["record_id"] == answers[0].json()["record_id"]


async def test_requests_that_come_early_are_answered_in_order(network: Network, straight: list[str]) -> None:
    async with network.gateway() as (_, api):
        await api.vote("first")
        reader, writer = await opened(api)
        writer.write(request("a"))
        await until(lambda: "a" in straight, "a is taken")
        writer.write(request("b") + request("c"))
        writer.write(request("d"))
        names = [(await answer_of(reader))[2]["transaction_id"] for _ in range(4)]
        assert names == ["t-a", "t-b", "t-c", "t-d"]
        writer.write(request("e") + request("f"))
        assert [(await answer_of(reader))[2]["transaction_id"] for _ in range(2)] == ["t-e", "t-f"]
        writer.write(request("g", more="Connection: close\r\n"))
        assert (await answer_of(reader))[1]["Connection"] == "close"
        assert await reader.read() == b""
        assert straight == ["a"]
        writer.close()


async def test_what_cannot_be_kept_is_not_taken(network: Network, straight: list[str]) -> None:
    disk = FragileDisk()
    async with network.gateway(disk=disk) as (_, api):
        await api.vote("first")
        disk.refuse = lambda operation, count, path: operation in ("sync", "create")
        answer = await api.vote("v")
        assert (answer.status_code, answer.json()["code"]) == (503, "not-durable")
        assert straight == ["v"]
        disk.refuse = lambda operation, count, path: False


async def test_a_vote_counts_whose_caller_has_gone(network: Network, straight: list[str]) -> None:
    async with network.gateway() as (gateway, api):
        app = make_app(gateway)
        server = HttpServer(app)
        port = await server.start("127.0.0.1", 0)
        await api.vote("first")
        network.mining = False
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("gone"))
        await until(lambda: "gone" in straight, "it is taken")
        writer.transport.abort()
        await until(lambda: not len(server._guard), "the connection is forgotten")
        network.mining = True
        assert (await api.vote("gone", transaction_id="t-gone")).json()["status"] == "confirmed"
        await until(lambda: gateway.book.pending_count == 0, "nothing waits")
        assert {name: seconds.count for name, seconds in app[CALLS].seconds} == {f"POST {SUBMIT}": 1}
        assert server._guard.received_bytes == 0
        await server.stop()


async def test_who_waits_while_the_gateway_stops_is_answered(network: Network, straight: list[str]) -> None:
    async with network.gateway() as (gateway, api):
        server = HttpServer(make_app(gateway))
        port = await server.start("127.0.0.1", 0)
        await api.vote("first")
        network.mining = False
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("v"))
        await until(lambda: "v" in straight, "it is taken")
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        network.mining = True
        assert (await answer_of(reader))[2]["status"] == "confirmed"
        assert await reader.read() == b""
        await stopping
        writer.close()


async def test_what_is_unusual_goes_the_usual_way(network: Network, straight: list[str]) -> None:
    (caster, entry), (reader, other) = key_for("vote"), key_for("read")
    keys = (ApiKeyConfig(**entry), ApiKeyConfig(**other))
    async with network.gateway("keys", api_keys=keys) as (_, api):
        cast = {"authorization": f"Bearer {caster}"}
        body = {"voter_id": "v", "election_id": 1, "choice": 0}
        assert (await api.post(SUBMIT, body | {"voter_id": "first"}, **cast)).status_code in (200, 202)
        assert (await api.post(SUBMIT, body)).status_code == 401
        assert (await api.post(SUBMIT, body, authorization=f"Bearer {reader}")).status_code == 403
        assert straight == []
        assert (await api.post(SUBMIT, body, **cast)).status_code == 200
        assert straight == ["v"]
    async with network.gateway("rates", rates=RatesConfig(voter_per_minute=60, voter_burst=2)) as (_, api):
        await api.vote("first")
        assert [(await api.vote("w", choice=99)).status_code for _ in range(3)] == [422, 422, 429]
    async with network.gateway("plain") as (_, api):
        await api.vote("first")
        answer = await network.client.post(api.url + SUBMIT, content=b'{"voter_id":', headers=JSON)
        judge().check(answer)
        assert answer.status_code == 400
        assert (await api.vote("x", wait=0)).status_code == 202
        body = {"voter_id": "y", "election_id": 1, "choice": 0}
        assert (await api.post(SUBMIT, body, origin=api.url, prefer="wait=5")).status_code == 200
        assert straight == ["v"]


async def test_a_mistake_of_ours_ends_one_connection_alone(
    network: Network, straight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network.gateway() as (_, api):
        await api.vote("first")
        with monkeypatch.context() as patched:
            patched.setattr(Straight, "_answer", lambda *_: 1 // 0)
            with pytest.raises(httpx.RemoteProtocolError):
                await api.vote("v")
        assert straight == ["v"]
        assert (await api.vote("w")).status_code == 200
