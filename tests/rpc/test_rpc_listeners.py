"""Who may speak to a listener: tokens as geth's, namespaces, names, connections in number, and slow senders."""

import asyncio
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.jwtfile import load_or_create
from node.rpc import jsonrpc
from node.rpc.limits import Limits
from node.rpc.server import Operators, RpcServer
from node.rpc.token import BadToken, check_token, make_token
from serving.keyfiles import SecretError
from tests.rpc.rpc_harness import SECRET, Caller, LoneNode, RpcFailure

NOW_S = 1_800_000_000
WITHIN_S = 30
OPERATORS_METHODS = ["txpool_status", "txpool_content", "debug_getRawHeader", "admin_nodeInfo", "admin_peers"]


def token(secret: bytes = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return "Bearer " + jwt.encode(claims, secret, algorithm=algorithm)


# -- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-60, -1, 0, 1, 60])
def test_a_token_of_about_now_is_taken(offset: int) -> None:
    check_token(token(iat=NOW_S + offset), SECRET, now_s=NOW_S)
    check_token(token(iat=NOW_S + offset, id="node 1", clv="v1", exp=NOW_S + 1), SECRET, now_s=NOW_S)
    check_token(token(iat=NOW_S + offset, exp=None), SECRET, now_s=NOW_S)  # as cast writes it


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "missing token"),
        ("", "missing token"),
        ("Basic eDp5", "missing token"),
        (token(iat=NOW_S).removeprefix("Bearer "), "missing token"),
        ("Bearer ", "invalid token"),
        ("Bearer a.b.c", "invalid token"),
        (token(), "missing issued-at"),
        (token(iat=True), "missing issued-at"),
        (token(iat=math.nan), "missing issued-at"),  # older than nothing, so it would hold for ever
        (token(iat=10**400), "missing issued-at"),
        (token(iat=NOW_S, exp=math.nan), "token is expired"),
        (token(iat=NOW_S - 61), "stale token"),
        (token(iat=NOW_S + 61), "future token"),
        (token(iat=NOW_S, exp=NOW_S - 1), "token is expired"),
        (token(bytes([12] * 32), iat=NOW_S), "invalid token"),
        (token(SECRET * 2, "HS512", iat=NOW_S), "invalid token"),
        ("Bearer " + jwt.encode({"iat": NOW_S}, "", algorithm="none"), "invalid token"),
    ],
)
def test_any_other_token_is_refused_with_the_reason(header: str | None, reason: str) -> None:
    with pytest.raises(BadToken, match=reason):
        check_token(header, SECRET, now_s=NOW_S)


@given(st.text(max_size=80))
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(BadToken):
        check_token("Bearer " + text, SECRET, now_s=NOW_S)


def test_the_secrets_file_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "jwt.hex"
    secret = load_or_create(path)
    assert (len(secret), path.stat().st_mode & 0o777) == (32, 0o600)
    assert load_or_create(path) == secret
    path.write_text(secret.hex())  # geth's own has no 0x
    assert load_or_create(path) == secret
    path.chmod(0o640)
    with pytest.raises(SecretError, match="open to others"):
        load_or_create(path)
    path.chmod(0o600)
    for wrong in ("", "0x12", "zz" * 32, "ab" * 33):
        path.write_text(wrong)
        with pytest.raises(SecretError, match="does not hold 64 hexadecimal digits"):
            load_or_create(path)


# -- what is answered where --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OPERATORS_METHODS)
async def test_the_public_listener_says_where_operators_methods_are(rpc: Caller, server_url: str, method: str) -> None:
    with pytest.raises(RpcFailure, match=r"operators.*\[rpc\.operators\]") as refusal:
        await rpc(method)
    assert refusal.value.code == -32601
    batch = (await rpc.post([{"jsonrpc": "2.0", "id": 1, "method": method}])).json()
    assert batch[0]["error"]["code"] == -32601
    async with aiohttp.ClientSession() as session, session.ws_connect(server_url) as socket_:
        await socket_.send_json({"jsonrpc": "2.0", "id": 1, "method": method})
        assert (await socket_.receive_json())["error"]["code"] == -32601


async def test_each_listener_names_what_it_answers(rpc: Caller, operator: Caller, node: LoneNode) -> None:
    assert set(await rpc("rpc_modules")) == {"eth", "net", "personal", "poa", "rpc", "web3"}
    assert set(await operator("rpc_modules")) == set(await rpc("rpc_modules")) | {"admin", "debug", "txpool"}
    names = {method["name"] for method in (await rpc("rpc.discover"))["methods"]}
    assert {"eth_call", "rpc.discover", "rpc_modules"} <= names
    assert not names & set(OPERATORS_METHODS)
    plain = RpcServer(node, ("127.0.0.1", 0))
    host, port = await plain.start()
    assert "personal" not in await Caller(rpc.http, f"http://{host}:{port}")("rpc_modules")
    assert plain.operators_address is None
    await plain.stop()


async def test_operators_are_told_of_the_node_and_its_peers(operator: Caller, node: LoneNode) -> None:
    told = await operator("admin_nodeInfo")
    assert (told["id"], told["moniker"]) == ("0x" + node.address.hex(), "validator-1")
    assert told["protocols"]["psephos"]["genesis"] == "0x" + node.chain.domain.genesis_hash.hex()
    peers = await operator("admin_peers")
    assert [peer["network"]["remoteAddress"] for peer in peers] == ["127.0.0.1:30301", "127.0.0.1:30302"]


async def test_the_operators_listener_answers_nothing_without_a_token(operators_url: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    stale = {"Authorization": f"Bearer {make_token(SECRET, now_s=time.time() - 100)}"}
    fresh = {"Authorization": f"Bearer {make_token(SECRET, now_s=time.time())}"}
    async with httpx.AsyncClient() as client:
        for headers, words in (({}, "missing token"), (stale, "stale token")):
            answer = await client.post(operators_url, json=body, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert words in answer.json()["error"]["message"]
        assert (await client.post(operators_url, json=body, headers=fresh)).json()["result"] == "0x1e5a"
        assert (await client.get(operators_url + "/health")).status_code == 401
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(operators_url)
        assert refusal.value.status == 401
        async with session.ws_connect(operators_url, headers=fresh) as socket_:
            await socket_.send_json({"jsonrpc": "2.0", "id": 1, "method": "txpool_status"})
            assert (await socket_.receive_json())["result"] == {"pending": "0x0", "queued": "0x0"}


async def test_a_taken_port_stops_both(node: LoneNode, operators_url: str) -> None:
    taken = int(operators_url.rpartition(":")[2])
    server = RpcServer(node, ("127.0.0.1", 0), operators=Operators(("127.0.0.1", taken), SECRET))
    with pytest.raises(OSError, match="in use"):
        await server.start()
    assert server.address is not None
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*server.address)


@pytest.mark.parametrize("private", ["127.0.0.1", "0.0.0.0"])
async def test_a_node_signs_for_callers_only_where_both_listeners_are_on_loopback(
    rpc: Caller, node: LoneNode, private: str
) -> None:
    server = RpcServer(node, ("127.0.0.1", 0), dev_accounts=True, operators=Operators((private, 0), SECRET))
    host, port = await server.start()
    accounts = await Caller(rpc.http, f"http://{host}:{port}")("eth_accounts")
    await server.stop()
    assert bool(accounts) == (private == "127.0.0.1")


# -- names -------------------------------------------------------------------------------------------------------


async def test_a_page_whose_name_was_turned_to_this_address_is_refused(server_url: str, operators_url: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    strange = {"Host": "rebound.example:8001"}
    async with httpx.AsyncClient() as client:
        for url in (server_url, operators_url):
            answer = await client.post(url, json=body, headers=strange)
            assert answer.status_code == 403
            assert "invalid host specified" in answer.json()["error"]["message"]
        socket_ = {**strange, **upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        assert (await client.get(server_url, headers=socket_)).status_code == 403
        assert (await client.get(server_url + "/health", headers=strange)).status_code == 403


async def test_a_browser_is_given_no_leave_to_ask(server_url: str) -> None:
    asking = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    async with httpx.AsyncClient() as client:
        preflight = await client.options(server_url, headers=asking)
        posted = await client.post(
            server_url, json={"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}, headers=asking
        )
    assert preflight.status_code == 405
    for answer in (preflight, posted):
        assert not [name for name in answer.headers if name.startswith("access-control")]


# -- bounds ------------------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_depth_is_counted_as_a_slow_reader_counts_it(depth: int, depth_max: int, beside: int) -> None:
    document = [nested(depth - 1), *[[]] * beside]
    actual = max(depth, 2 if beside else 1)
    message = jsonrpc.read(json.dumps(document).encode(), batch_items_max=10, depth_max=depth_max)
    (first, *_) = message.items
    is_refused = isinstance(first, jsonrpc.Invalid) and "nested too deeply" in first.error.message
    assert is_refused == (actual > depth_max)


async def test_a_message_nested_too_deeply(rpc: Caller) -> None:
    deep = b'{"jsonrpc":"2.0","id":1,"method":"eth_call","params":' + b"[" * 900 + b"]" * 900 + b"}"
    answer = (await rpc.post(deep)).json()
    assert answer["error"] == {
        "code": -32600,
        "message": "nested too deeply: at most 64 arrays and objects in one another",
    }


@pytest.mark.parametrize("limits", [Limits(call_timeout_s=0.3)])
async def test_a_batch_as_a_whole_has_the_time_of_one_call(rpc: Caller) -> None:
    wait = {"jsonrpc": "2.0", "method": "poa_getBlocks", "params": [9, 1, 20_000]}
    quick = {"jsonrpc": "2.0", "id": 4, "method": "eth_chainId"}
    batch = [wait | {"id": 1}, wait | {"id": 2}, wait | {"id": 3}, quick]
    async with asyncio.timeout(WITHIN_S):
        answers = (await rpc.post(batch)).json()
    assert [answer["error"]["code"] for answer in answers] == [-32002] * 4


async def open_raw(url: str, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), local_addr=(address, 0))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(WITHIN_S):
        try:
            return await reader.read(1) == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("limits", [Limits(body_bytes_max=100)])
async def test_a_body_that_comes_with_its_head_may_have_no_more_bytes_than_another(server_url: str) -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    for size, status in ((100, b"200"), (101, b"413")):
        reader, writer = await open_raw(server_url)
        writer.write(head % size + call.ljust(size))
        async with asyncio.timeout(WITHIN_S):
            assert status in await reader.readline()
        writer.close()


@pytest.mark.parametrize("limits", [Limits(connections_max=6, connections_per_address_max=3)])
async def test_connections_are_bounded_in_all_and_from_one_address(rpc: Caller, server_url: str) -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\n"
    opened = []
    for _ in range(3):
        opened.append(await open_raw(server_url))
        opened[-1][1].write(begun)
    fourth = await open_raw(server_url)  # the one that got least far makes room
    assert await is_closed(opened[0][0])
    others = [await open_raw(server_url, "127.0.0.2") for _ in range(3)]
    fifth = await open_raw(server_url, "127.0.0.3")
    assert await is_closed(opened[1][0])  # six in all: whoever waits longest goes, whatever the address
    for _, writer in (*opened, fourth, *others, fifth):
        writer.close()
    assert await rpc("eth_chainId") == "0x1e5a"


@pytest.mark.parametrize("limits", [Limits(sender_timeout_s=0.4, connections_max=2, connections_per_address_max=2)])
async def test_who_answers_are_being_made_for_is_not_put_out(node: LoneNode, server_url: str) -> None:
    """Two polls that wait fill the room: a third connection is refused, and theirs stay."""
    poll = {"jsonrpc": "2.0", "id": 1, "method": "poa_getBlocks", "params": [9, 1, 3_000]}
    async with httpx.AsyncClient(timeout=WITHIN_S) as one, httpx.AsyncClient(timeout=WITHIN_S) as two:
        polls = [asyncio.create_task(client.post(server_url, json=poll)) for client in (one, two)]
        async with asyncio.timeout(WITHIN_S):
            while node.polls < 2:  # noqa: ASYNC110 - the node tells nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)  # longer than a sender may take: who waits for an answer is no slow sender
        reader, writer = await open_raw(server_url)
        assert await is_closed(reader)
        writer.close()
        for answer in await asyncio.gather(*polls):
            assert answer.json()["result"] == []


@pytest.mark.parametrize("limits", [Limits(sender_timeout_s=0.5)])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HT",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ],
)
async def test_who_drips_is_cut_off_however_long_it_could_go_on(server_url: str, sent: bytes) -> None:
    reader, writer = await open_raw(server_url)
    started_s = time.monotonic()

    async def drip() -> None:
        for byte in sent + b" " * 1_000:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                if not await reader.read(1_000):
                    break
            except ConnectionError:
                break
    assert time.monotonic() - started_s < 10
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    writer.close()


def test_by_default_a_slow_sender_is_gone_within_ten_seconds() -> None:
    from serving.connections import SWEEP_S

    assert Limits().sender_timeout_s + SWEEP_S < 10


@pytest.mark.parametrize("limits", [Limits(sender_timeout_s=0.3)])
async def test_a_quiet_websocket_is_no_slow_sender(server_url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server_url) as socket_:
        await asyncio.sleep(1.2)
        await socket_.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
        assert (await socket_.receive_json())["result"] == "0x1e5a"


@pytest.mark.parametrize("limits", [Limits(requests_bytes_max=1 << 20, body_bytes_max=1 << 20)])
async def test_unfinished_requests_are_bounded_in_bytes(rpc: Caller, server_url: str) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
    opened = [await open_raw(server_url) for _ in range(3)]
    for size, (_, writer) in zip((700_000, 200_000, 200_000), opened, strict=True):
        writer.write(head + b" " * size)
        await writer.drain()
    assert await is_closed(opened[0][0])
    assert await rpc("eth_chainId") == "0x1e5a"
    for _, writer in opened:
        writer.close()


def frame(content: bytes, *, length: int | None = None, is_final: bool = True, opcode: int = 1) -> bytes:
    """A client's frame, masked with zeros; `length`, where it says another one than it has."""
    told = len(content) if length is None else length
    size = bytes((0x80 | told,)) if told < 126 else b"\xfe" + told.to_bytes(2, "big")
    return bytes((0x80 * is_final | opcode,)) + size + bytes(4) + content


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("limits", [Limits(sender_timeout_s=0.5)])
@pytest.mark.parametrize(
    ("at_once", "again"),
    [
        (frame(b"", length=65_000), b" "),  # a frame that never ends
        (frame(b"{", is_final=False), frame(b" ", is_final=False, opcode=0)),  # a message that never ends
        (frame(b"{", is_final=False), frame(b"", opcode=9)),  # with nothing but pings behind its beginning
    ],
)
@pytest.mark.parametrize("is_early", [False, True])
async def test_who_drips_over_a_websocket_is_cut_off(
    server_url: str, at_once: bytes, again: bytes, is_early: bool
) -> None:
    """aiohttp takes every byte for a sign of life, and keeps what came of a message."""
    reader, writer = await open_raw(server_url)
    writer.write(HANDSHAKE + at_once * is_early)  # early: in one piece with the request, before its answer
    async with asyncio.timeout(WITHIN_S):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(at_once * (not is_early))

    async def drip() -> None:
        while True:
            writer.write(again)
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(10):
        try:
            while await reader.read(1_000):
                pass
        except ConnectionError:
            pass
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    writer.close()


@pytest.mark.parametrize("limits", [Limits(sender_timeout_s=0.5, calls_at_once_max=1)])
async def test_who_waits_unread_behind_a_long_call_is_no_slow_sender(node: LoneNode, server_url: str) -> None:
    poll = {"jsonrpc": "2.0", "id": 0, "method": "poa_getBlocks", "params": [9, 1, 2_000]}
    call = {"jsonrpc": "2.0", "method": "web3_sha3", "params": ["0x" + os.urandom(60_000).hex()]}
    count = 60  # seven megabytes: more than sockets and queues hold
    async with aiohttp.ClientSession() as session, session.ws_connect(server_url) as socket_:
        await socket_.send_json(poll)
        sending = asyncio.create_task(_send_all(socket_, [call | {"id": number} for number in range(1, count)]))
        async with asyncio.timeout(WITHIN_S):
            answers = [await socket_.receive_json() for _ in range(count)]
        await sending
    assert [answer["id"] for answer in answers] == list(range(count))


async def _send_all(socket_: aiohttp.ClientWebSocketResponse, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        await socket_.send_json(message)
