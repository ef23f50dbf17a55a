"""JSON-RPC of the usual form is answered where it arrives, in order, in time, and to the end."""

import asyncio
import contextlib
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from node.rpc.limits import Limits
from node.rpc.server import Operators, RpcServer
from node.rpc.token import make_token
from serving.distribution import Calls
from serving.logs import REQUEST_ID
from tests.rpc.rpc_harness import ALICE, BOB, SECRET, LoneNode
from tests.serving.straight_harness import leaves

WITHIN_S = 20
BODY_BYTES_MAX = 1 << 20
SENT = LoneNode().sign(ALICE, BOB.address)
NOTICE = orjson.dumps({"jsonrpc": "2.0", "method": "eth_chainId"})

Answer = tuple[str, dict[str, str], Any]


def call(method: str = "eth_chainId", *params: Any, id_: Any = 1) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})


def poll(wait_ms: int, id_: Any = 1) -> bytes:
    """Asks for a block that never comes, so that its answer does after this time."""
    return call("poa_getBlocks", 9, 1, wait_ms, id_=id_)


def post(content: bytes = call(), more: str = "", *, line: str = "POST / HTTP/1.1", host: str = "localhost") -> bytes:
    """A request with these headers more; `host`: none, when empty."""
    head = f"{line}\r\n" + f"Host: {host}\r\n" * bool(host) + f"Content-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@contextlib.asynccontextmanager
async def served(
    limits: Limits | None = None, node: LoneNode | None = None, **settings: Any
) -> AsyncIterator[RpcServer]:
    server = RpcServer(node or LoneNode(), ("127.0.0.1", 0), limits, **settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def opened(server: RpcServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert server.address is not None
    return await asyncio.open_connection(*server.address)


async def answer_of(reader: asyncio.StreamReader) -> Answer:
    """Status line, headers and document of the next answer."""
    async with asyncio.timeout(WITHIN_S):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        fields = dict(line.split(": ", 1) for line in lines)
        return status, fields, orjson.loads(await reader.readexactly(int(fields["Content-Length"])))


async def until(condition: Callable[[], object], what: str) -> None:
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < WITHIN_S, f"not so: {what}"
        await asyncio.sleep(0.01)


async def test_who_leaves_within_a_body_is_no_error_of_the_nodes(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as server:
        _, writer = await opened(server)
        writer.write(post()[:-1])
        connections = server._public._guard._connections
        await until(lambda: any(one.requests for one in connections), "aiohttp waits for the rest")
        (connection,) = connections
        writer.transport.abort()
        await until(lambda: not connection.requests, "it was given up")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# -- in order ----------------------------------------------------------------------------------------------------


async def test_more_may_come_behind_a_call_that_waits_than_are_queued(straight: list[bytes]) -> None:
    async with served() as server:
        reader, writer = await opened(server)
        writer.write(post(poll(300, "first")))
        await until(lambda: straight, "it is taken")
        writer.write(b"".join(post(call(id_=number)) for number in range(70)))
        assert [(await answer_of(reader))[2]["id"] for _ in range(71)] == ["first", *range(70)]
        assert len(straight) == 1, "what came early is aiohttp's"
        for number in range(40):  # each has the place in the parser's queue that the one before it had
            writer.write(post(call(id_=number)))
            assert (await answer_of(reader))[2]["id"] == number
        assert len(straight) == 41
        writer.close()


async def test_what_is_no_http_behind_a_call_that_waits_is_answered_behind_it(straight: list[bytes]) -> None:
    async with served() as server:
        reader, writer = await opened(server)
        writer.write(post(poll(200)))
        await until(lambda: straight, "it is taken")
        writer.write(b"no http\r\n\r\n")
        assert (await answer_of(reader))[2]["result"] == []
        assert (await reader.read()).startswith(b"HTTP/1.0 400 Bad Request\r\n")
        writer.close()


async def test_a_websocket_may_follow_calls(straight: list[bytes]) -> None:
    async with served() as server:
        reader, writer = await opened(server)
        writer.write(post())
        assert (await answer_of(reader))[2]["result"] == "0x1e5a"
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with asyncio.timeout(WITHIN_S):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(bytes((0x81, 0x80 | len(call()))) + bytes(4) + call())
            head = await reader.readexactly(2)
            assert orjson.loads(await reader.readexactly(head[1]))["result"] == "0x1e5a"
        assert len(straight) == 1
        writer.close()


# -- in time -----------------------------------------------------------------------------------------------------


async def test_a_call_that_waits_has_its_deadline(straight: list[bytes]) -> None:
    async with served(Limits(call_timeout_s=0.2)) as server:
        reader, writer = await opened(server)
        writer.write(post(poll(20_000)))
        assert (await answer_of(reader))[2]["error"]["code"] == -32002
        writer.write(post(b"[" + poll(20_000) + b"," + call(id_=2) + b"]"))
        assert [one["error"]["code"] for one in (await answer_of(reader))[2]] == [-32002] * 2
        assert len(straight) == 2
        writer.close()


async def test_who_waits_for_an_answer_is_neither_idle_nor_put_out(straight: list[bytes]) -> None:
    limits = Limits(idle_timeout_s=0.3, sender_timeout_s=0.3, connections_max=2, connections_per_address_max=1)
    async with served(limits) as server:
        reader, writer = await opened(server)
        writer.write(post(poll(1_500)))
        await until(lambda: straight, "it is taken")
        await asyncio.sleep(1)
        refused, other = await opened(server)  # from the same address: there is no room for it
        with contextlib.suppress(ConnectionError):
            assert await refused.read() == b""
        assert (await answer_of(reader))[2]["result"] == []
        writer.write(post())
        assert (await answer_of(reader))[2]["result"] == "0x1e5a"
        assert await asyncio.wait_for(reader.read(), WITHIN_S) == b"", "it is idle now, and so ended"
        for one in (writer, other):
            one.close()


async def test_an_idle_connection_makes_room(straight: list[bytes]) -> None:
    async with served(Limits(connections_per_address_max=1)) as server:
        reader, writer = await opened(server)
        writer.write(post(NOTICE))
        async with asyncio.timeout(WITHIN_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        newer, other = await opened(server)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""
        other.write(post())
        assert (await answer_of(newer))[2]["result"] == "0x1e5a"
        assert len(straight) == 2
        for one in (writer, other):
            one.close()


@pytest.mark.parametrize("is_read", [True, False])
async def test_nobody_is_answered_more_who_does_not_read(straight: list[bytes], is_read: bool) -> None:
    calls = Calls()
    async with served(Limits(sender_timeout_s=9.0 if is_read else 1.0), calls=calls) as server:
        reader, writer = await opened(server)
        await until(lambda: len(server._public._guard), "it is there")
        much = post(b"[" + b",".join([call("rpc.discover")] * 100) + b"]")
        writer.write(much)
        await until(lambda: straight, "the first is taken")
        writer.write(much * 2)
        await until(lambda: any(seconds.count >= 100 for _, seconds in calls.seconds), "the first is answered")
        await asyncio.sleep(0.1)
        writer.write(much)
        await asyncio.sleep(0.1)
        assert [seconds.count for _, seconds in calls.seconds] == [100], "of four batches one"
        if is_read:
            assert [len((await answer_of(reader))[2]) for _ in range(4)] == [100] * 4
        else:
            await until(lambda: not len(server._public._guard), "it is ended")
        assert len(straight) == 1
        writer.close()


async def test_a_connection_that_is_used_is_not_idle(straight: list[bytes]) -> None:
    async with served(Limits(idle_timeout_s=1.0)) as server:
        reader, writer = await opened(server)
        for number in range(7):
            writer.write(post(call(id_=number)))
            assert (await answer_of(reader))[2]["id"] == number
            await asyncio.sleep(0.3)
        assert len(straight) == 7
        writer.close()


# -- to the end --------------------------------------------------------------------------------------------------


async def test_a_call_goes_on_whose_caller_has_gone(straight: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    calls, node = Calls(), LoneNode()
    async with served(node=node, calls=calls) as server:
        _, writer = await opened(server)
        writer.write(post(poll(300)))
        await node.polled.wait()
        writer.transport.abort()
        await until(lambda: not len(server._public._guard), "the connection is forgotten")
        await until(lambda: [seconds.count for _, seconds in calls.seconds] == [1], "it has come to its end")
        assert server._public._guard.received_bytes == 0
        assert straight == [poll(300)]
    gc.collect()  # a task that failed says so when it is forgotten
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("shutdown_s", "wait_ms"), [(10.0, 300), (1.5, 2_200)])
async def test_who_waits_while_the_node_stops_is_answered(
    straight: list[bytes], monkeypatch: pytest.MonkeyPatch, shutdown_s: float, wait_ms: int
) -> None:
    """For the time twice, as by aiohttp: first for the answer, then for the connection."""
    monkeypatch.setattr("node.rpc.listener.SHUTDOWN_S", shutdown_s)
    node = LoneNode()
    async with served(node=node) as server:
        reader, writer = await opened(server)
        idle, other = await opened(server)
        other.write(post())
        await answer_of(idle)
        writer.write(post(poll(wait_ms)))
        await node.polled.wait()
        began_s = time.monotonic()
        stopping = asyncio.create_task(server.stop())
        assert (await answer_of(reader))[2]["result"] == []
        assert await reader.read() == await idle.read() == b""
        await stopping
        assert time.monotonic() - began_s < 6
        assert len(straight) == 2
        for one in (writer, other):
            one.close()


@pytest.mark.parametrize("wait_ms", [0, 300])
async def test_who_reads_a_long_answer_while_the_node_stops_gets_all_of_it(
    straight: list[bytes], monkeypatch: pytest.MonkeyPatch, wait_ms: int
) -> None:
    monkeypatch.setattr("node.rpc.listener.SHUTDOWN_S", 10.0)
    async with served() as server:
        reader, writer = await opened(server)
        writer.write(post(b"[" + b",".join([poll(wait_ms)] + [call("rpc.discover")] * 100) + b"]"))
        await until(lambda: straight, "it is taken")
        if not wait_ms:
            guard = server._public._guard
            await until(lambda: [one for one in guard._connections if one.paused_at], "its answer waits to be read")
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(1)
        began_s = time.monotonic()
        assert len((await answer_of(reader))[2]) == 101
        assert await reader.read() == b""
        await stopping
        assert time.monotonic() - began_s < 6
        assert len(straight) == 1
        writer.close()


async def test_who_has_its_answer_holds_nobody_up(straight: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.rpc.listener.SHUTDOWN_S", 10.0)
    async with served() as server:
        reader, writer = await opened(server)
        writer.write(post())
        await answer_of(reader)
        began_s = time.monotonic()
        await server.stop()
        assert time.monotonic() - began_s < 6
        assert len(straight) == 1
        writer.close()


async def test_who_would_wait_for_too_long_while_the_node_stops_is_not(
    straight: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, wait = asyncio.Event(), LoneNode.wait_for_height

    async def wait_for_height(self: LoneNode, height: int, timeout_s: float) -> bool:
        try:
            return await wait(self, height, timeout_s)
        except asyncio.CancelledError:
            ended.set()
            raise

    monkeypatch.setattr(LoneNode, "wait_for_height", wait_for_height)
    node = LoneNode()
    async with served(node=node) as server:
        reader, writer = await opened(server)
        writer.write(post(poll(25_000)))
        await node.polled.wait()
        began_s = time.monotonic()
        await server.stop()
        assert time.monotonic() - began_s < 5
        async with asyncio.timeout(WITHIN_S):
            await ended.wait()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        assert straight == [poll(25_000)]
        writer.close()


async def test_a_mistake_of_ours_ends_one_connection_alone(
    straight: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        with monkeypatch.context() as patched:
            patched.setattr("serving.straight._dated", lambda _: 1 // 0)
            reader, writer = await opened(server)
            writer.write(post())
            assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""
            writer.close()
        reader, writer = await opened(server)
        writer.write(post())
        assert (await answer_of(reader))[2]["result"] == "0x1e5a"
        assert len(straight) == 2
        writer.close()


async def test_a_connection_ends_whose_call_is_given_up(straight: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """As by aiohttp: nobody would answer it any more."""

    async def given_up(self: LoneNode, transactions: Any) -> Any:
        raise asyncio.CancelledError  # as where what it waits for is

    monkeypatch.setattr(LoneNode, "submit", given_up)
    async with served() as server:
        reader, writer = await opened(server)
        writer.write(post(call("eth_sendRawTransaction", "0x" + SENT.raw.hex())))
        assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""
        await until(lambda: not len(server._public._guard), "the connection is forgotten")
        assert len(straight) == 1
        writer.close()


async def test_nothing_is_left_to_do_for_a_caller_who_leaves_as_its_call_fails(
    straight: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as server:
        await leaves(await opened(server), post(NOTICE), monkeypatch)
        await until(lambda: not len(server._public._guard), "the connection is forgotten")
    gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- as ever -----------------------------------------------------------------------------------------------------


async def test_a_large_message_that_is_there_at_once_is_answered() -> None:
    limits = Limits(body_bytes_max=BODY_BYTES_MAX)
    async with served(limits) as server:
        listening = server._public._server
        assert listening is not None
        listening.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        reader, writer = await opened(server)
        for size in (1_000, 60_000, 70_000, 130_000, 200_000, 600_000, BODY_BYTES_MAX):
            writer.write(post(call(id_=size).ljust(size)))
            assert (await answer_of(reader))[2] == {"jsonrpc": "2.0", "id": size, "result": "0x1e5a"}
        writer.write(post(call().ljust(BODY_BYTES_MAX + 1)))
        assert (await answer_of(reader))[0] == "HTTP/1.1 413 Request Entity Too Large"
        writer.close()


@pytest.mark.parametrize("limits", [Limits(body_bytes_max=100)])
async def test_too_large_a_message_is_not_taken(limits: Limits, straight: list[bytes]) -> None:
    async with served(limits) as server:
        reader, writer = await opened(server)
        for size, status in ((100, "HTTP/1.1 200 OK"), (101, "HTTP/1.1 413 Request Entity Too Large")):
            writer.write(post(call().ljust(size)))
            assert (await answer_of(reader))[0] == status
        assert list(map(len, straight)) == [100]
        writer.close()


async def test_an_id_is_that_of_one_request(straight: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    submit = LoneNode.submit

    async def noted(self: LoneNode, transactions: Any) -> Any:
        told.append(REQUEST_ID.get())
        return await submit(self, transactions)

    monkeypatch.setattr(LoneNode, "submit", noted)
    async with served() as server:
        reader, writer = await opened(server)
        for more in ("X-Request-Id: mine\r\n", "", "X-Request-Id: a b\r\n"):
            writer.write(post(call("eth_sendRawTransaction", "0x" + SENT.raw.hex()), more))
            await answer_of(reader)
        assert told == ["mine", "", ""]
        assert len(straight) == 3
        writer.close()


async def test_operators_are_answered_for_their_token_alone(straight: list[bytes]) -> None:
    async with served(operators=Operators(("127.0.0.1", 0), SECRET)) as server:
        assert server.operators_address is not None
        reader, writer = await asyncio.open_connection(*server.operators_address)
        token = make_token(SECRET, now_s=time.time())
        writer.write(post(call("txpool_status"), f"Authorization: Bearer {token}\r\n"))
        assert (await answer_of(reader))[2]["result"] == {"pending": "0x0", "queued": "0x0"}
        writer.write(post(call("txpool_status")))
        assert (await answer_of(reader))[0] == "HTTP/1.1 401 Unauthorized"
        assert not straight
        writer.close()
