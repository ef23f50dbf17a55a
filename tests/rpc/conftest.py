"""Fixtures: a node, its JSON-RPC listeners on free ports, and a client of each."""

import time
from collections.abc import AsyncIterator

import httpx
import pytest

from node.rpc.limits import Limits
from node.rpc.server import Operators, RpcServer
from node.rpc.straight import Straight
from node.rpc.token import make_token
from tests.rpc.rpc_harness import SECRET, Caller, LoneNode


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def node() -> LoneNode:
    return LoneNode()


@pytest.fixture
async def server(node: LoneNode, limits: Limits) -> AsyncIterator[RpcServer]:
    started = RpcServer(
        node, ("127.0.0.1", 0), limits, dev_accounts=True, operators=Operators(("127.0.0.1", 0), SECRET)
    )
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def server_url(server: RpcServer) -> str:
    assert server.address is not None
    host, port = server.address
    return f"http://{host}:{port}"


@pytest.fixture
def operators_url(server: RpcServer) -> str:
    assert server.operators_address is not None
    host, port = server.operators_address
    return f"http://{host}:{port}"


@pytest.fixture
async def rpc(server_url: str) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield Caller(client, server_url)


@pytest.fixture
async def operator(operators_url: str) -> AsyncIterator[Caller]:
    """A client of the operators' listener, whose tokens are good for as long as a test takes."""
    headers = {"Authorization": f"Bearer {make_token(SECRET, now_s=time.time() + 30)}"}
    async with httpx.AsyncClient(timeout=20, headers=headers) as client:
        yield Caller(client, operators_url)


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that were taken where they arrived."""
    bodies: list[bytes] = []
    fitting = Straight._fitting

    def noted(self: Straight, raw: bytes) -> bytes | None:
        body = fitting(self, raw)
        if body is not None:
            bodies.append(body)
        return body

    monkeypatch.setattr(Straight, "_fitting", noted)
    return bodies
