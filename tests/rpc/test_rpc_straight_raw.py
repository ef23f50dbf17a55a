"""Whatever bytes come, in whatever pieces, are answered the same where they arrive as by way of aiohttp."""

import gzip
import re

import pytest

from node.rpc.limits import Limits
from node.rpc.straight import Straight
from tests.rpc.rpc_harness import LoneNode
from tests.rpc.test_rpc_straight import BODY_BYTES_MAX, NOTICE, SENT, call, opened, poll, post, served, until
from tests.serving.straight_harness import exchanged

QUESTION = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
DATE = re.compile(rb"Date: [^\r]+")

Form = tuple[bytes, ...]  # what is sent, piece by piece


def typed(kind: str) -> bytes:
    return post().replace(b"Content-Type: application/json\r\n", kind.encode())


def chunked(content: bytes) -> bytes:
    head = post(content, "Transfer-Encoding: chunked\r\n").partition(b"\r\n\r\n")[0]
    head = re.sub(rb"Content-Length: \d+", b"X: y", head)
    return head + b"\r\n\r\n5\r\n" + content[:5] + b"\r\n%x\r\n" % len(content[5:]) + content[5:] + b"\r\n0\r\n\r\n"


def cut(whole: bytes, at: int) -> Form:
    return whole[:at], whole[at:]


STRAIGHT: dict[str, Form] = {
    "plain": (post(),),
    "a transaction": (post(call("eth_sendRawTransaction", "0x" + SENT.raw.hex())),),
    "the same again": (post(call("eth_sendRawTransaction", "0x" + SENT.raw.hex())),),
    "no transaction": (post(call("eth_sendRawTransaction", "0x00")),),
    "a batch": (post(b"[" + call() + b"," + NOTICE + b"," + call("net_version", id_="x") + b"]"),),
    "a notification": (post(NOTICE),),
    "notifications": (post(b"[" + NOTICE + b"]"),),
    "a poll": (post(poll(50)),),
    "a block": (post(call("eth_getBlockByNumber", "0x0", True)),),
    "no such method": (post(call("eth_mine")),),
    "an operators' method": (post(call("txpool_status")),),
    "bad parameters": (post(call("eth_getBalance", 1, 2, 3)),),
    "an empty batch": (post(b"[]"),),
    "not JSON": (post(b'{"jsonrpc":'),),
    "not UTF-8": (post(b'{"a":"\xff"}'),),
    "deep": (post(b"[" * 900 + b"]" * 900),),
    "empty": (post(b""),),
    "nothing": (post(b"").replace(b"Content-Length: 0\r\n", b""),),
    "kept": (post(more="Connection: keep-alive\r\n"),),
    "named": (post(more="X-Request-Id: mine\r\n"),),
    "strange id": (post(more="X-Request-Id: a b<script>\r\n"),),
    "an address": (post(host="10.0.0.7:8545"),),
    "a page": (post(more="Origin: http://evil.example\r\n"),),
    "chunked": (chunked(call()),),
    "cut head": cut(post(), 40),
    "no upgrade": (post(more="Upgrade: h2c\r\n"),),
    "our mistake": (post(call("web3_clientVersion")),),
}
USUAL: dict[str, Form] = {
    "hostless": (post(host=""),),
    "cut body": cut(post(), -9),
    "late chunk": cut(chunked(call()), -9),
    "zipped": (post(gzip.compress(call()), "Content-Encoding: gzip\r\n"),),
    "too much": (post(b" " * (BODY_BYTES_MAX + 1)),),
    "typeless": (typed(""),),
    "text": (typed("Content-Type: text/plain\r\n"),),
    "charset": (typed("Content-Type: application/json; charset=utf-8\r\n"),),
    "two lengths": (post(more="Content-Length: 3\r\n"),),
    "length and chunks": (post(more="Transfer-Encoding: chunked\r\n"),),
    "closed": (post(more="Connection: close\r\n"),),
    "websocket": (post(more="Connection: Upgrade\r\nUpgrade: websocket\r\n"),),
    "old": (post(line="POST / HTTP/1.0"),),
    "older, kept": (post(more="Connection: keep-alive\r\n", line="POST / HTTP/1.0"),),
    "absolute": (post(line="POST http://localhost/ HTTP/1.1"),),
    "query": (post(line="POST /?x=1 HTTP/1.1"),),
    "elsewhere": (post(line="POST /rpc HTTP/1.1"),),
    "GET": (post(line="GET / HTTP/1.1"),),
    "HEAD": (post(line="HEAD / HTTP/1.1"),),
    "OPTIONS": (post(line="OPTIONS / HTTP/1.1"),),
    "stranger": (post(host="evil.example"),),
    "unknown wish": (post(more="Expect: miracles\r\n"),),
    "a line inside": (post(more="X-Request-Id: a\rSet-Cookie: b\r\n"),),
    "two at once": (post() + post(call("net_version")),),
}


async def test_bytes_of_any_form_are_answered_the_same_both_ways(
    straight: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoneNode, "client_version", object())  # of no type that JSON has
    limits = Limits(body_bytes_max=BODY_BYTES_MAX)
    async with served(limits) as server, served(limits) as other:
        taken, here_of = [], {}
        for name, pieces in (STRAIGHT | USUAL).items():
            straight.clear()
            here = here_of[name] = await exchanged(await opened(server), pieces, QUESTION)
            if straight:
                taken.append(name)
            with monkeypatch.context() as patched:
                patched.setattr(Straight, "takes", lambda *_: False)
                there = await exchanged(await opened(other), pieces, QUESTION)
            assert DATE.sub(b"?", here) == DATE.sub(b"?", there), name
        assert taken == list(STRAIGHT)
        await until(lambda: not len(server._public._guard), "all connections are forgotten")
        assert server._public._guard.received_bytes == 0
        assert here_of["our mistake"].startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
