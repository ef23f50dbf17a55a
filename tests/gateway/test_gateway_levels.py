"""Levels 1 to 5, each entered and left under load over HTTP: nothing is lost, doubled, or final too soon."""

import asyncio
import errno
import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from gateway import durability
from gateway.disk import Disk
from gateway.journal_check import check_journal
from node.chain.contracts import ballots, elections
from tests.gateway.gateway_network import Caller, Network, until


class FailingDisk(Disk):
    """A real disk whose folders can be made to fail."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self._open: dict[int, Path] = {}

    def _check(self, path: Path) -> None:
        if path.parent.name in self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def create(self, path: Path) -> int:
        self._check(path)
        descriptor = super().create(path)
        self._open[descriptor] = path
        return descriptor

    def sync(self, descriptor: int) -> None:
        self._check(self._open[descriptor])
        super().sync(descriptor)


class Load:
    """Votes without a pause, and what was said of each."""

    def __init__(self, api: Caller) -> None:
        self._api = api
        self._number = 0
        self.statuses: dict[str, str] = {}  # voter → the best that was ever said
        self.levels: Counter[int] = Counter()
        self.refused = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._vote()) for _ in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _vote(self) -> None:
        while True:
            self._number += 1
            voter = f"v{self._number}"
            answer = await self._api.vote(voter, 0, wait=0.2, transaction_id=f"t-{voter}")
            shown = answer.json()
            if answer.status_code == 503:
                assert shown["code"] == "not-durable", shown
                self.refused += 1
            else:
                assert answer.status_code in (200, 202), answer.text
                self.statuses[voter] = shown["status"]
                self.levels[shown["level"]] += 1
                assert ("warning" in shown) == (shown["level"] >= 3)
            await asyncio.sleep(0.01)


async def enter(api: Caller, load: Load, level: int) -> None:
    """Wait until `/ready` and, where records are taken, answers show a level."""
    seen = load.levels[level]
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        ready = await api.get("/ready")
        if ready.json()["level"] == level and (level == 5 or load.levels[level] > seen + 3):
            break
        assert asyncio.get_running_loop().time() < deadline, f"level {level} is not seen: {ready.text}"
        await asyncio.sleep(0.02)
    assert ready.status_code == (503 if level == 5 else 200)
    for most in range(1, 5):
        answer = await api.get("/ready", max_level=most)
        if answer.json()["level"] == level:
            assert answer.status_code == (200 if level <= most else 503)


async def test_every_level_is_entered_and_left_under_load(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durability, "RECOVER_INTERVAL_S", 0.1)
    monkeypatch.setattr(durability, "RETRY_INTERVAL_S", 0.1)
    caplog.set_level(logging.INFO)
    disk = FailingDisk()
    async with network.gateway(disk=disk) as (gateway, api):
        assert (await api.vote("first", wait=20)).status_code == 200
        async with Load(api) as load:
            await enter(api, load, 1)
            network.fronts[2].alive = False
            await enter(api, load, 2)
            network.fronts[1].alive = False
            network.mining = False  # below a quorum the chain waits
            await enter(api, load, 3)
            disk.failing = {"journal"}
            await enter(api, load, 4)
            disk.failing = {"journal", "spool"}
            await enter(api, load, 5)
            await until(lambda: load.refused > 3, "votes are refused", 20)
            disk.failing = {"journal"}
            await enter(api, load, 4)
            disk.failing = set()
            await enter(api, load, 3)
            network.fronts[1].alive = network.mining = True
            await enter(api, load, 2)
            network.fronts[2].alive = True
            await enter(api, load, 1)
        await until(lambda: gateway.book.pending_count == 0, "everything is delivered", 30)
        for voter in load.statuses:
            status = await api.get("/api/votes/transaction-status", transaction_id=f"t-{voter}", election_id=1)
            assert status.json()["status"] == "confirmed", status.text
    state = network.node.chain.state()
    election = elections.read_election(state, 1)
    assert election is not None
    total = ballots.read_tally(state, election).total
    # A vote whose acknowledgement the end of the load cut off may count as well: at most one for each caller.
    assert len(load.statuses) + 1 <= total <= len(load.statuses) + 1 + 4
    said = [record.getMessage() for record in caplog.records if record.name == "gateway.core"]
    assert {line.split(":")[0] for line in said} == {f"level {level}" for level in range(1, 6)}
    report = check_journal(network.folder / "gateway" / "journal")
    assert report.waiting == 0
    assert report.records["ballot final"] > 0


async def test_with_one_validator_of_three_a_vote_is_in_its_mempool_and_the_journal_and_never_confirmed(
    network: Network,
) -> None:
    async with network.gateway() as (gateway, api):
        await api.vote("first", wait=20)
        network.fronts[1].alive = network.fronts[2].alive = network.mining = False
        await until(lambda: gateway.level() == 3, "level 3", 20)
        answer = await api.vote("ann", wait=0.3, transaction_id="ann's")
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        await until(lambda: len(network.node.mempool) == 1, "it is in the living one's mempool", 20)
        status = await api.get("/api/votes/transaction-status", transaction_id="ann's", election_id=1)
        assert (status.json()["status"], status.json()["source"]) == ("pending", "journal")
        assert check_journal(network.folder / "gateway" / "journal").waiting == 1
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert (result["total"], result["pending"]) == (1, 1), "what waits is counted apart"
        network.fronts[1].alive = network.fronts[2].alive = network.mining = True
        await until(lambda: gateway.book.pending_count == 0, "delivered", 20)
        assert (await api.vote("ann", transaction_id="ann's")).json()["status"] == "confirmed"


async def test_results_without_validators_are_the_last_proven_ones(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        await api.vote("ann", 1, wait=20)
        fresh = (await api.get("/api/votes/results", election_id=1)).json()
        network.kill_all()
        await until(lambda: gateway.level() == 3, "level 3", 20)
        old = (await api.get("/api/votes/results", election_id=1)).json()
        assert (old["stale"], old["source"], old["as_of_block"]) == (True, "journal", fresh["as_of_block"])
        assert old["results"] == fresh["results"]
    async with network.gateway() as (_, api):  # it starts without validators, and remembers
        again = (await api.get("/api/votes/results", election_id=1)).json()
        assert (again["stale"], again["total"]) == (True, 1)
        unknown = await api.get("/api/votes/transaction-status", transaction_id="?", election_id=1)
        assert unknown.status_code == 503, "nobody can know"
    shutil.rmtree(network.folder / "gateway")
    async with network.gateway() as (_, api):
        assert (await api.get("/api/votes/results", election_id=1)).status_code == 503
