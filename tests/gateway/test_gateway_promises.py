"""Nothing is said of a record before it is durable: not that it stands, and not that another one has to give way."""

import asyncio
import errno
import os
import threading
import uuid
from collections.abc import Awaitable

import pytest

from gateway.api import anchors
from gateway.book import Item
from gateway.config import RpcConfig
from gateway.disk import Disk
from gateway.records import Anchor, Ballot
from tests.gateway.gateway_network import Network, until


class HeldDisk(Disk):
    """A real disk whose syncs can be held up; then they fail."""

    def __init__(self) -> None:
        self.holds = False
        self.released = threading.Event()

    def sync(self, descriptor: int) -> None:
        if self.holds:
            assert self.released.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


@pytest.mark.parametrize("road", ["one", "batch"])
async def test_nobody_has_to_give_way_to_a_ballot_that_is_not_kept(
    network: Network, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = HeldDisk()
    async with network.gateway(disk=disk) as (gateway, api):
        assert (await api.vote("early", wait=20)).status_code == 200
        await until(lambda: gateway.durability.oldest_received_at_ms() is None, "the disk has nothing to do")
        came, keep = list[Ballot](), gateway.keep

        def noted(ballot: Ballot) -> Item:
            came.append(ballot)
            return keep(ballot)

        monkeypatch.setattr(gateway, "keep", noted)
        disk.holds = True
        first = asyncio.create_task(api.vote("ann", 0, wait=0, transaction_id="t"))
        await until(lambda: len(came) == 1, "the first is on its way to the disk")
        if road == "one":
            same_voter = api.vote("ann", 1, wait=0)
            same_name = api.vote("bob", 1, wait=0, transaction_id="t")
        else:
            same_voter, same_name = (
                api.post("/api/votes/batch", {"votes": [{"election_id": 1, "choice": 1} | vote]}, Prefer="wait=0")
                for vote in ({"voter_id": "ann"}, {"voter_id": "bob", "transaction_id": "t"})
            )
        others = [asyncio.create_task(one) for one in (same_voter, same_name)]
        await until(lambda: len(came) == 3, "the others have come")
        disk.released.set()
        answers = await asyncio.gather(first, *others)
        assert [(one.status_code, one.json()["code"]) for one in answers] == [(503, "not-durable")] * 3
        assert gateway.book.pending_count == 0
        disk.holds = False
        await until(lambda: gateway.level() <= 2, "the disk is back", 20)
        assert (await api.vote("ann", 1, wait=20)).status_code == 200


async def test_no_root_has_to_give_way_to_one_that_is_not_kept(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = HeldDisk()
    body = {"batch_id": str(uuid.uuid4()), "merkle_root": "ab" * 32, "product_count": 1}
    async with network.gateway(disk=disk) as (gateway, api):
        came, take = list[Anchor](), gateway.anchor

        def noted(anchor: Anchor) -> Awaitable[tuple[Item, bool]]:
            came.append(anchor)
            return take(anchor)

        monkeypatch.setattr(gateway, "anchor", noted)
        disk.holds = True
        first = asyncio.create_task(api.post("/v1/anchor", body))
        await until(lambda: gateway.book.pending_count == 1, "the first is on its way to the disk")
        other = asyncio.create_task(api.post("/v1/anchor", body | {"merkle_root": "cd" * 32}))
        await until(lambda: len(came) == 2, "the other has come")
        disk.released.set()
        answers = await asyncio.gather(first, other)
        assert [(one.status_code, one.json()["code"]) for one in answers] == [(503, "not-durable")] * 2
        disk.holds = False
        await until(lambda: gateway.level() <= 2, "the disk is back", 20)
        assert (await api.post("/v1/anchor", body | {"merkle_root": "cd" * 32})).status_code == 202


async def test_validators_that_hang_keep_no_caller_waiting(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, not dead: they say nothing. A quorum is enough without them; the journal is without a quorum."""
    monkeypatch.setattr(anchors, "LOOK_UP_S", 0.03)
    loop = asyncio.get_running_loop()
    rpc = RpcConfig(probe_interval_ms=50, poll_ms=300, resend_ms=150, timeout_ms=1000)
    async with network.gateway(rpc=rpc) as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        network.fronts[0].hangs = True
        await until(lambda: gateway.pool.reachable_count() == 2, "one is found to hang", 20)
        begin = loop.time()
        for _ in range(5):
            unknown = await api.get("/api/votes/transaction-status", election_id=1, transaction_id="nobody's")
            assert unknown.json()["status"] == "unknown"
        assert loop.time() - begin < 4, "who hangs is not asked each time"
        for front in network.fronts:
            front.hangs = True
        begin = loop.time()
        made = {"batch_id": str(uuid.uuid4()), "merkle_root": "ab" * 32, "product_count": 1}
        assert (await api.post("/v1/anchor", made)).status_code == 202
        assert (await api.vote("bob", wait=0)).status_code == 202
        assert loop.time() - begin < 4, "what is durable is acknowledged, whatever the validators do"
        for front in network.fronts:
            front.hangs = False
        await until(lambda: gateway.book.pending_count == 0, "both are delivered", 40)


async def test_what_fails_inside_is_in_the_log_alone(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with network.gateway() as (gateway, api):
        monkeypatch.setattr(gateway.elections, "result", None)  # calling it raises TypeError
        answer = await network.client.get(f"{api.url}/api/votes/results?election_id=1")
        shown = answer.json()
        assert (answer.status_code, shown["code"], shown["request_id"]) == (
            500,
            "internal-error",
            answer.headers["x-request-id"],
        )
        assert "TypeError" in caplog.text
        for word in ("TypeError", "Traceback", ".py", "NoneType"):
            assert word not in answer.text
