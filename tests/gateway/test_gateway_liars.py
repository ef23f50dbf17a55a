"""One validator that lies about itself or the chain: it may cost a moment, and never changes what is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.gateway_network import Network, until


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        one = Network(tmp_path, client)
        await one.start()
        yield one
        await one.stop()


def boaster(ahead: int) -> Any:
    """Says that it is ahead, and serves nothing."""

    def tamper(method: str, result: Any) -> Any:
        if method == "poa_status":
            result["height"] = hex(int(result["height"], 16) + ahead)
        return [] if method == "poa_getBlocks" else result

    return tamper


@pytest.mark.parametrize("ahead", [1, 500, 1_000_000])
async def test_who_boasts_of_blocks_and_serves_none_does_not_stop_the_others(network: Network, ahead: int) -> None:
    network.fronts[0].tamper = boaster(ahead)
    async with network.gateway() as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(5):
            assert (await api.vote(f"v{number}", wait=20)).status_code == 200
        assert loop.time() - begin < 10
        assert gateway.pool.validators[0].faults > 0
        assert [one.faults for one in gateway.pool.validators[1:]] == [0, 0]
        await until(lambda: gateway.follower.caught_up, "what it boasts of is not waited for")


async def test_a_liar_is_followed_when_nobody_else_is_alive(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        gateway.pool.validators[0].faults = 3  # it was caught before, and has been mended
        network.fronts[1].alive = network.fronts[2].alive = False
        await until(lambda: gateway.pool.reachable_count() == 1, "two are gone")
        for _ in range(2):  # the first one may answer a question that is under way
            network.node.mine()
            await until(lambda: gateway.follower.head.header == network.node.chain.head, "the head moves on")
