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

from gateway.blockchain_client import BlockchainClient
from tests.e2e.harness import ROOT, Cluster, until

pytestmark = pytest.mark.e2e

ORDERS = list(itertools.permutations(("gateway", "validator-1", "validator-2")))
EXAMPLES = os.environ.get("PSEPHOS_SCHEMATHESIS_EXAMPLES", "15")  # 1000 where there is time


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("gateway") / "data")
    one.up()
    yield one
    one.destroy()


def level(cluster: Cluster) -> int:
    try:
        return int(cluster.http.get(f"{cluster.gateway_url}/ready").json()["level"])
    except httpx.HTTPError:
        return 0


def test_schemathesis_finds_nothing(cluster: Cluster) -> None:
    until(lambda: level(cluster) == 1, 30, "all validators are there")
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(ROOT / "tests" / "schemathesis.toml")]
    command += ["run", f"{cluster.gateway_url}/openapi.json", "-c", "all", "-n", EXAMPLES]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "30"]
    folder = cluster.data_dir.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


async def test_the_client_library_against_what_up_made(cluster: Cluster) -> None:
    election = 77
    async with BlockchainClient(config=cluster.data_dir / "client.toml") as client:
        receipt = await client.submit_vote("ann", election, "§ sealed", "ann's")
        assert (await client.wait_for_confirmation("ann's", election, 20))["status"] == "confirmed"
        vote = {"voter_id": "ann", "election_id": election, "encrypted_vote": "§ sealed", "transaction_id": "ann's"}
        async with httpx.AsyncClient(base_url=cluster.gateway_url, trust_env=False, timeout=30) as gateway:
            same = await gateway.post("/api/votes/submit", json=vote)
            assert (same.status_code, same.json()["ballot_index"]) == (200, 0), same.text
            other = await gateway.post("/api/votes/submit", json=vote | {"encrypted_vote": "another"})
            assert other.status_code == 409
            assert other.json()["standing"]["ballot_index"] == 0
        assert receipt["election_id"] == election
        report = await client.verify_blockchain_integrity(election)
        assert (report["valid"], report["ballots_counted"]) == (True, 1), report


async def test_each_order_of_deaths_loses_nothing_and_counts_nothing_twice(cluster: Cluster) -> None:
    """Gateway and validators are killed in each order, under load; what was acknowledged is counted once.

    By default in the three orders that differ in when the gateway dies; with PSEPHOS_LONG set, in all six.
    """
    election, kept = 78, set[str]()
    url = f"{cluster.gateway_url}/api/votes/submit"
    stop = asyncio.Event()

    async def load(worker: int, client: httpx.AsyncClient) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            voter = f"{worker}-{number}"
            body = {"voter_id": voter, "election_id": election, "choice": number % 2, "transaction_id": voter}
            while not stop.is_set():  # the one rule for backends: the same request until there is an answer below 500
                try:
                    answer = await client.post(url, json=body, headers={"Prefer": "wait=0.2"})
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code < 500:
                    assert answer.status_code in (200, 202), answer.text
                    kept.add(voter)
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.05)

    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        workers = [asyncio.create_task(load(worker, client)) for worker in range(3)]
        for order in ORDERS if os.environ.get("PSEPHOS_LONG") else ORDERS[::2]:
            for name in order:
                await asyncio.to_thread(cluster.verb, "kill", name)
            for name in reversed(order):
                await asyncio.to_thread(cluster.verb, "start", name)
            await asyncio.to_thread(until, lambda: level(cluster) == 1, 60, "all are back")
        stop.set()
        for worker in workers:
            await worker
        ready = f"{cluster.gateway_url}/ready"

        def is_empty() -> bool:
            return int(cluster.http.get(ready).json()["journal_depth"]) == 0

        await asyncio.to_thread(until, is_empty, 60, "everything is delivered")
        for voter in kept:
            query = {"transaction_id": voter, "election_id": str(election)}
            status = await client.get(f"{cluster.gateway_url}/api/votes/transaction-status", params=query)
            assert status.json()["status"] == "confirmed", status.text
        result = await client.get(f"{cluster.gateway_url}/api/votes/results", params={"election_id": str(election)})
        total = result.json()["total"]
        assert len(kept) <= total <= len(kept) + 3, "a vote that the end cut off may count; none counts twice"
        check = await client.post(
            f"{cluster.gateway_url}/api/votes/verify-blockchain",
            json={"election_id": election},
            headers={"Prefer": "wait=9"},
        )
        assert check.json()["valid"] is not False, check.text
    cluster.psephos("journal", "verify", str(cluster.data_dir / "gateway"))
