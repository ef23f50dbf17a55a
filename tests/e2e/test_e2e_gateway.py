"""A real network behind the gateway's whole API: schemathesis, the client library, deaths of everything in turn."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from cluster.chaos import Chaos
from cluster.faults import Fault
from cluster.injector import Injector
from cluster.network import require
from cluster.processes import ProcessTable
from cluster.supervisor import stop_all
from gateway.blockchain_client import BlockchainClient
from tests.e2e.harness import ROOT, Cluster, until

pytestmark = pytest.mark.e2e

ORDERS = list(itertools.permutations(("gateway", "validator-1", "validator-2")))
STEP_S = 0.7  # from one death to the next, and from one start to the next
EXAMPLES = os.environ.get("PSEPHOS_SCHEMATHESIS_EXAMPLES", "15")  # 1000 where there is time


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("gateway") / "data")
    one.up()
    yield one
    one.destroy()


def level(cluster: Cluster) -> int:
    try:
        return int(cluster.http.get(f"{cluster.gateway_url}/ready").json()["level"])
    except httpx.HTTPError:
        return 0


def test_schemathesis_finds_nothing(shared: Cluster) -> None:
    until(lambda: level(shared) == 1, 30, "all validators are there")
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(ROOT / "tests" / "schemathesis.toml")]
    command += ["run", f"{shared.gateway_url}/openapi.json", "-c", "all", "-n", EXAMPLES]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "30"]
    folder = shared.data_dir.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


async def test_the_client_library_against_what_up_made(shared: Cluster) -> None:
    election = 77
    async with BlockchainClient(config=shared.data_dir / "client.toml") as client:
        receipt = await client.submit_vote("ann", election, "§ sealed", "ann's")
        assert (await client.wait_for_confirmation("ann's", election, 20))["status"] == "confirmed"
        vote = {"voter_id": "ann", "election_id": election, "encrypted_vote": "§ sealed", "transaction_id": "ann's"}
        async with httpx.AsyncClient(base_url=shared.gateway_url, trust_env=False, timeout=30) as gateway:
            same = await gateway.post("/api/votes/submit", json=vote)
            assert (same.status_code, same.json()["ballot_index"]) == (200, 0), same.text
            other = await gateway.post("/api/votes/submit", json=vote | {"encrypted_vote": "another"})
            assert other.status_code == 409
            assert other.json()["standing"]["ballot_index"] == 0
        assert receipt["election_id"] == election
        report = await client.verify_blockchain_integrity(election)
        assert (report["valid"], report["ballots_counted"]) == (True, 1), report


async def test_each_order_of_deaths_keeps_every_promise(cluster: Cluster) -> None:
    """Gateway and validators are killed in each order, under load, and started again the other way round.

    Each answer that a caller got is held against each validator's disk. By default in the three orders that differ in
    when the gateway dies; with PSEPHOS_LONG set, in all six.
    """
    await asyncio.to_thread(cluster.up)
    network, table = require(cluster.data_dir), ProcessTable(cluster.data_dir)
    orders = ORDERS if os.environ.get("PSEPHOS_LONG") else ORDERS[::2]

    async def disturb(injector: Injector) -> None:
        for order in orders:
            await asyncio.to_thread(until, lambda: level(cluster) == 1, 60, "all are back")
            now_s = injector._now_s()
            begins = [now_s + STEP_S * place for place in range(1, len(order) + 1)]
            plan = [
                Fault("kill", "kill", (name,), at_s, STEP_S * (2 * (len(order) - place) + 1))
                for place, (name, at_s) in enumerate(zip(order, begins, strict=True), 1)
            ]
            await injector.run(plan)

    try:
        chaos = Chaos(network, table, Console(quiet=True))
        result = await chaos.run(disturb, seed=5, duration_s=1, rate=20, clients=4)
        folder = str(cluster.data_dir / "gateway")
        await asyncio.to_thread(until, lambda: level(cluster) == 1, 60, "all are back")
    finally:
        await asyncio.to_thread(stop_all, table, network)
    assert not result.violations, "\n".join(map(str, result.violations))
    assert [fault.fault.targets[0] for fault in result.done] == [name for order in orders for name in reversed(order)]
    assert len({request.outcome for request in result.load.requests}) > 2, "answers were of several kinds"
    await asyncio.to_thread(cluster.psephos, "journal", "verify", folder)
