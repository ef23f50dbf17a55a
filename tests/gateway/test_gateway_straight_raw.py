"""Whatever bytes come, in whatever pieces, are answered the same where they arrive as by way of the router."""

import asyncio
import contextlib
import gc
import gzip
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest

from gateway.api.straight import Straight
from gateway.config import LimitsConfig
from gateway.problems import Problem
from gateway.server import ANCHOR, SUBMIT, HttpServer, make_app
from gateway.service import Gateway
from serving.logs import REQUEST_ID
from tests.gateway.conftest import FragileDisk
from tests.gateway.gateway_network import Caller, Network, until
from tests.gateway.test_gateway_shortcut import ROUTED
from tests.gateway.test_gateway_straight import answer_of, opened, request
from tests.gateway.test_gateway_straight_anchors import body as anchor_body
from tests.serving.straight_harness import exchanged, leaves

BODY_BYTES_MAX = 1 << 17
QUESTION = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# What two answers may differ in: times, ids, what the chain says of a ballot, and the mark of its voter.
OWN = re.compile(
    rb"Date: [^\r]+|Content-Length: \d+|X-Request-Id: [0-9a-f]{32}|\"request_id\":\"[0-9a-f]{32}\"|0x[0-9a-f]+"
    rb"|\"(?:block_number|ballot_index)\":\d+|\"validator\":\"[^\"]+\"|-[xy]\b"
)

Form = Callable[[str, str], tuple[bytes, ...]]  # (path, voter) → what is sent, piece by piece


async def with_a_vote_that_waits(
    network: Network, api: Caller, straight: list[str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose vote, a's, is taken, while no block is made."""
    await api.vote("first")
    network.mining = False
    reader, writer = await opened(api)
    writer.write(request("a"))
    await until(lambda: "a" in straight, "a is taken")
    return reader, writer


async def test_more_may_come_early_than_are_queued(network: Network, straight: list[str]) -> None:
    async with network.gateway() as (_, api):
        reader, writer = await with_a_vote_that_waits(network, api, straight)
        voters = [f"v{number}" for number in range(70)]
        writer.write(b"".join(request(voter) for voter in voters))
        await writer.drain()
        network.mining = True
        names = [(await answer_of(reader))[2]["transaction_id"] for _ in range(71)]
        assert names == ["t-a", *(f"t-{voter}" for voter in voters)]
        writer.close()


@contextlib.asynccontextmanager
async def all_at_once(gateway: Gateway) -> AsyncIterator[Callable[[str, bytes], Awaitable[tuple[str, Any]]]]:
    """Posts a body to a path so that it arrives in one piece however large: the status line, and the document."""
    server = HttpServer(make_app(gateway))
    port = await server.start("127.0.0.1", 0)
    assert server._server is not None
    server._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def post(path: str, content: bytes) -> tuple[str, Any]:
        writer.write(body(content)(path, "")[0])
        status, _, document = await answer_of(reader)
        return status, document

    try:
        yield post
    finally:
        writer.close()
        await server.stop()


@pytest.mark.parametrize("path", [SUBMIT, ANCHOR])
async def test_a_large_body_that_is_there_at_once_is_answered(network: Network, path: str) -> None:
    async with network.gateway() as (gateway, api), all_at_once(gateway) as post:
        await api.vote("first")
        for content in (b"x" * 200_000, orjson.dumps({"voter_id": "v", "padding": "x" * 200_000})):
            status, document = await post(path, content)
            assert document["code"] in ("not-json", "not-valid"), (status, document)


@pytest.mark.parametrize("path", [SUBMIT, ANCHOR])
async def test_too_large_a_body_that_is_there_at_once_is_refused(network: Network, path: str) -> None:
    limits = LimitsConfig(body_bytes_max=BODY_BYTES_MAX)
    async with network.gateway(limits=limits) as (gateway, api), all_at_once(gateway) as post:
        await api.vote("first")
        content = {SUBMIT: request("v").partition(b"\r\n\r\n")[2], ANCHOR: anchor_body(1)}[path]
        status, document = await post(path, content.ljust(BODY_BYTES_MAX + 1))
        assert status == "HTTP/1.1 413 Request Entity Too Large", document
        assert gateway.book.pending_count == 0


async def test_a_refusal_reaches_who_waits_while_the_gateway_stops(
    network: Network, straight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.SHUTDOWN_S", 9.0)
    async with network.gateway("one") as (one, api), network.gateway("two") as (_, two):
        await api.vote("first")
        await two.vote("second")
        server = HttpServer(make_app(one))
        port = await server.start("127.0.0.1", 0)
        network.mining = False
        await two.vote("v", 1, wait=0, transaction_id="b")
        await until(lambda: len(network.node.mempool) == 1, "it is with the node, and so comes first")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("v", wait=8))
        await until(lambda: "v" in straight, "the other one waits")
        stopping = asyncio.create_task(server.stop())
        aiohttps: Any = server._runner.server
        await until(lambda: next(iter(aiohttps.connections))._force_close, "it stops")
        network.mining = True
        status, _, document = await answer_of(reader)
        assert (status, document["code"]) == ("HTTP/1.1 409 Conflict", "already-cast")
        assert await reader.read() == b""
        async with asyncio.timeout(2):
            await stopping
        writer.close()


async def test_a_request_is_one_and_the_same_in_both_hands(
    network: Network, straight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def refused(*_: object) -> None:
        told.append(REQUEST_ID.get())
        raise Problem(409, "anchor-exists", "It stands.")

    idle: list[bool] = []
    hand_over = Straight.hand_over

    def handed_over(self: Straight, *arguments: Any) -> None:
        hand_over(self, *arguments)
        guard = self.guard
        idle.append(guard._make_room(guard._connections))

    monkeypatch.setattr("gateway.api.anchors.take", refused)
    monkeypatch.setattr(Straight, "hand_over", handed_over)
    async with network.gateway() as (gateway, _), all_at_once(gateway) as post:
        status, document = await post(ANCHOR, anchor_body(1))
        assert (status, document["code"]) == ("HTTP/1.1 409 Conflict", "anchor-exists")
        assert told == [document["request_id"]], "who looks for it finds it in the log"
        assert idle == [False], "its connection is not taken for an idle one meanwhile"


async def test_nothing_is_left_to_do_for_a_caller_who_leaves_as_it_is_handed_over(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Exception] = [Problem(409, "anchor-exists", "It stands."), ZeroDivisionError("a mistake of ours")]

    async def refused(*_: object) -> None:
        raise outcomes.pop(0)

    monkeypatch.setattr("gateway.api.anchors.take", refused)
    for errors in ([], ["a request failed, and its caller has gone"]):
        async with network.gateway() as (_, api):
            await leaves(await opened(api), body(anchor_body(1))(ANCHOR, "")[0], monkeypatch)
        gc.collect()  # a task that failed says so when it is forgotten
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == errors


async def test_nothing_is_said_of_a_vote_before_it_is_durable(network: Network, straight: list[str]) -> None:
    disk, may_sync = FragileDisk(), threading.Event()
    async with network.gateway(disk=disk) as (gateway, api):
        await api.vote("first")
        kept = gateway.durability.accepted_count
        disk.refuse = lambda operation, count, path: operation == "sync" and not may_sync.wait(10)
        reader, writer = await opened(api)
        writer.write(request("v", wait=0.1))
        said = asyncio.create_task(answer_of(reader))
        await until(lambda: straight == ["v"], "it is taken")
        await asyncio.sleep(0.4)
        try:
            assert not said.done()
            assert gateway.durability.accepted_count == kept
        finally:
            may_sync.set()
        status, _, document = await said
        assert (status, document["status"]) == ("HTTP/1.1 202 Accepted", "pending")
        assert gateway.durability.accepted_count == kept + 1
        writer.close()


async def test_what_is_no_http_behind_a_vote_that_waits_is_answered_behind_it(
    network: Network, straight: list[str]
) -> None:
    async with network.gateway() as (_, api):
        reader, writer = await with_a_vote_that_waits(network, api, straight)
        writer.write(b"no http\r\n\r\n")
        await asyncio.sleep(0.05)
        network.mining = True
        assert (await answer_of(reader))[2]["transaction_id"] == "t-a"
        assert (await answer_of(reader))[2]["code"] == "not-http"
        assert await reader.read() == b""
        writer.close()


def form(line: str = "POST {} HTTP/1.1", more: str = "", *, host: str = "localhost", **fields: Any) -> Form:
    """A vote with another request line, more headers, another host (none, when empty) or other fields."""

    def made(path: str, voter: str) -> tuple[bytes, ...]:
        whole = request(voter, path, more=more, **fields).partition(b"\r\n")[2]
        if host != "localhost":
            whole = whole.replace(b"Host: localhost\r\n", f"Host: {host}\r\n".encode() if host else b"")
        return (line.format(path).encode() + b"\r\n" + whole,)

    return made


def body(content: bytes | None, more: str = "", *, length: bool = True, kind: str = "application/json") -> Form:
    """A body of one's own; None: the vote's."""

    def made(path: str, voter: str) -> tuple[bytes, ...]:
        own = request(voter, path).partition(b"\r\n\r\n")[2] if content is None else content
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=5\r\n{more}"
        head += f"Content-Type: {kind}\r\n" if kind else ""
        head += f"Content-Length: {len(own)}\r\n" if length else ""
        return (head.encode() + b"\r\n" + own,)

    return made


def chunked(path: str, voter: str) -> tuple[bytes, ...]:
    content = request(voter, path).partition(b"\r\n\r\n")[2]
    head = body(b"", "Transfer-Encoding: chunked\r\n", length=False)(path, voter)[0]
    return (head + b"5\r\n" + content[:5] + b"\r\n%x\r\n" % len(content[5:]) + content[5:] + b"\r\n0\r\n\r\n",)


def zipped(path: str, voter: str) -> tuple[bytes, ...]:
    content = gzip.compress(request(voter, path).partition(b"\r\n\r\n")[2])
    return body(content, "Content-Encoding: gzip\r\n")(path, voter)


def cut(of: Form, at: int) -> Form:
    """The same in two pieces."""
    return lambda path, voter: (of(path, voter)[0][:at], of(path, voter)[0][at:])


STRAIGHT: dict[str, Form] = {
    "plain": form(),
    "kept": form(more="Connection: keep-alive\r\n"),
    "small letters": form(more="x-request-id: mine\r\n"),
    "named twice": form(more="X-Request-Id: mine\r\nX-Request-Id: other\r\n"),
    "strange id": form(more="X-Request-Id: a b<script>\r\n"),
    "long id": form(more=f"X-Request-Id: {'a' * 65}\r\n"),
    "chunked": chunked,
    "cut head": cut(form(), 40),
    "no upgrade": form(more="Upgrade: h2c\r\n"),
}
USUAL: dict[str, Form] = {
    "hostless": form(host=""),
    "cut body": cut(form(), -9),
    "late chunk": cut(chunked, -9),
    "zipped": zipped,
    "empty": body(b""),
    "nothing": body(b"", length=False),
    "not JSON": body(b'{"voter_id":'),
    "a mark": body(b"\xef\xbb\xbf{}"),
    "not UTF-8": body(b'{"voter_id":"\xff"}'),
    "a list": body(b"[]"),
    "deep": body(b"[" * 3000),
    "too much": body(b" " * (BODY_BYTES_MAX + 1)),
    "typeless": body(None, kind=""),
    "text": body(None, kind="text/plain"),
    "charset": body(None, kind="application/json; charset=utf-8"),
    "two lengths": form(more="Content-Length: 3\r\n"),
    "length and chunks": form(more="Transfer-Encoding: chunked\r\n"),
    "no such choice": form(choice=99),
    "no such election": form(election_id="x"),
    "closed": form(more="Connection: close\r\n"),
    "websocket": form(more="Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    "old": form("POST {} HTTP/1.0"),
    "older, kept": form("POST {} HTTP/1.0", "Connection: keep-alive\r\n"),
    "absolute": form("POST http://localhost{} HTTP/1.1"),
    "query": form("POST {}?x=1 HTTP/1.1"),
    "GET": form("GET {} HTTP/1.1"),
    "HEAD": form("HEAD {} HTTP/1.1"),
    "PUT": form("PUT {} HTTP/1.1"),
    "OPTIONS": form("OPTIONS {} HTTP/1.1"),
    "stranger": form(host="evil.example"),
    "page": form(more="Origin: http://evil.example\r\n"),
    "own page": form(more="Sec-Fetch-Site: same-origin\r\n"),
    "unknown wish": form(more="Expect: miracles\r\n"),
    "a line inside": form(more="X-Request-Id: a\rSet-Cookie: b\r\n"),
}


async def test_bytes_of_any_form_are_answered_the_same_both_ways(network: Network, straight: list[str]) -> None:
    async with network.gateway(limits=LimitsConfig(body_bytes_max=BODY_BYTES_MAX)) as (gateway, api):
        await api.vote("first")
        for name, made in (STRAIGHT | USUAL).items():
            here = await exchanged(await opened(api), made(SUBMIT, f"{name}-x"), QUESTION)
            there = await exchanged(await opened(api), made(ROUTED, f"{name}-y"), QUESTION)
            there = there.replace(ROUTED.encode(), SUBMIT.encode())
            assert OWN.sub(b"?", here) == OWN.sub(b"?", there), name
            assert here.count(b"HTTP/1.") <= 2, here
        assert straight == [f"{name}-x" for name in STRAIGHT]
        assert gateway.book.pending_count == 0
