"""Fixtures: a node, its JSON-RPC server on a free port, and a client."""

from collections.abc import AsyncIterator

import httpx
import pytest

from node.rpc.limits import Limits
from node.rpc.server import RpcServer
from tests.rpc.rpc_harness import Caller, LoneNode


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def node() -> LoneNode:
    return LoneNode()


@pytest.fixture
async def server_url(node: LoneNode, limits: Limits) -> AsyncIterator[str]:
    server = RpcServer(node, ("127.0.0.1", 0), limits, dev_accounts=True)
    host, port = await server.start()
    yield f"http://{host}:{port}"
    await server.stop()


@pytest.fixture
async def rpc(server_url: str) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield Caller(client, server_url)
