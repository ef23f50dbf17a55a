"""5,000 ballots from eight clients while processes are killed: each acknowledged one is in every log exactly once."""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from gateway.nullifier import ElectionKey, election_key
from node.chain.domain import Domain
from tests.e2e.harness import Cluster, until
from tests.e2e.recount import ballots_in_log, recount, view

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ELECTION = 77
OPTIONS = 3
VOTES = 5000  # so many that a gateway of any speed is still busy when its turn to die comes
CLIENTS = 8
DEADLINE_S = 300


class Voters:
    """The clients: each goes on with a vote until the gateway acknowledges it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.acknowledged: dict[int, str] = {}  # vote's number -> status of the first acknowledgement
        self.failures = 0
        self._numbers = itertools.count()
        self._deadline = time.monotonic() + DEADLINE_S

    @staticmethod
    def ballot(number: int) -> dict[str, Any]:
        """The request of one vote; a retry is the same request."""
        return {
            "election_id": ELECTION,
            "voter_id": f"voter-{number}",
            "choice": number % OPTIONS,
            "transaction_id": f"transaction-{number}",
        }

    async def client(self, wait_s: int) -> None:
        """One client. `wait_s` is what it asks for by `Prefer: wait`."""
        headers = {"prefer": f"wait={wait_s}"}
        async with httpx.AsyncClient(
            base_url=self.cluster.gateway_url, timeout=30, headers=headers, trust_env=False
        ) as client:
            while (number := next(self._numbers)) < VOTES:
                await self._vote(client, number)

    async def _vote(self, client: httpx.AsyncClient, number: int) -> None:
        while time.monotonic() < self._deadline:
            try:
                answer = await client.post("/api/votes/submit", json=self.ballot(number))
            except httpx.TransportError:
                self.failures += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in (200, 202):
                status = answer.json()["status"]
                assert status == ("confirmed" if answer.status_code == 200 else "pending"), answer.text
                self.acknowledged[number] = status
                return
            assert answer.status_code in (429, 503), f"vote {number}: {answer.status_code} {answer.text}"
            self.failures += 1
            await asyncio.sleep(0.05)
        raise AssertionError(f"vote {number} was not acknowledged within {DEADLINE_S} s")

    async def reached(self, count: int) -> None:
        """Wait until so many votes are acknowledged."""
        while len(self.acknowledged) < count:
            assert time.monotonic() < self._deadline, f"only {len(self.acknowledged)} votes were acknowledged"
            await asyncio.sleep(0.02)


async def chaos(cluster: Cluster, voters: Voters) -> None:
    """Kills by SIGKILL at marks of progress, so that each falls in the middle of the load."""

    def psephos(verb: str, name: str) -> Callable[[], Awaitable[str]]:
        return lambda: asyncio.to_thread(cluster.verb, verb, name)

    plan: list[tuple[int, Callable[[], Awaitable[str]]]] = [
        (300, psephos("kill", "validator-2")),
        (900, psephos("start", "validator-2")),
        (1200, psephos("kill", "bootnode")),
        (1500, psephos("kill", "validator-3")),
        (1700, psephos("start", "validator-3")),  # finds its peers without the bootnode
        (2100, psephos("kill", "gateway")),
        (2100, psephos("start", "gateway")),
        (2500, psephos("start", "bootnode")),
    ]
    for count, act in plan:
        await voters.reached(count)
        await act()


def election(cluster: Cluster) -> None:
    """Create the election and see it final."""
    document = {"election_id": ELECTION, "title": "Chaos", "options": ["a", "b", "c"], "kinds": "open"}
    answer = httpx.post(f"{cluster.gateway_url}/api/elections", json=document, timeout=30, trust_env=False)
    assert answer.is_success, answer.text
    url = f"{cluster.gateway_url}/api/elections/{ELECTION}"
    until(lambda: httpx.get(url, trust_env=False).is_success, 20, "the election is there")


def wait_confirmed(cluster: Cluster, numbers: list[int]) -> None:
    """Ask for each acknowledged vote until the gateway says it is final."""
    url = f"{cluster.gateway_url}/api/votes/transaction-status"
    deadline = time.monotonic() + 90
    with httpx.Client(timeout=30, trust_env=False) as client:
        for number in numbers:
            query = {"transaction_id": f"transaction-{number}", "election_id": str(ELECTION)}
            while (answer := client.get(url, params=query)).json().get("status") != "confirmed":
                assert time.monotonic() < deadline, f"vote {number} stays {answer.status_code} {answer.text}"
                time.sleep(0.1)


async def test_every_acknowledged_vote_is_in_each_log_exactly_once(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.up)
    await asyncio.to_thread(election, cluster)
    voters = Voters(cluster)
    # Half of the clients wait to be told `confirmed`, half take the journal's word for it.
    async with asyncio.timeout(DEADLINE_S + 60):
        await asyncio.gather(
            chaos(cluster, voters), *(voters.client(wait_s=10 if index % 2 else 0) for index in range(CLIENTS))
        )
    assert sorted(voters.acknowledged) == list(range(VOTES))
    assert voters.failures, "the gateway was killed under load and nobody noticed: the test did not test it"
    await asyncio.to_thread(check, cluster, voters)


def test_what_only_the_journal_knows_survives_the_gateway(cluster: Cluster) -> None:
    cluster.up()
    election(cluster)
    for number in (1, 2, 3):
        cluster.verb("kill", f"validator-{number}")
    numbers = list(range(200))
    with httpx.Client(base_url=cluster.gateway_url, timeout=30, trust_env=False) as client:
        for number in numbers:
            answer = client.post("/api/votes/submit", json=Voters.ballot(number), headers={"prefer": "wait=0"})
            assert answer.status_code == 202, answer.text
    cluster.verb("kill", "gateway")
    for name in ("gateway", "validator-1", "validator-2", "validator-3"):
        cluster.verb("start", name)
    wait_confirmed(cluster, numbers)
    height = cluster.height(1)
    until(lambda: min(map(cluster.height, (1, 2, 3))) >= height, 30, "all validators have the last ballot")
    for validator in (1, 2, 3):
        found = ballots_in_log(cluster, validator, ELECTION)
        assert len(found) == len({nullifier for nullifier, *_ in found}) == len(numbers)
        assert sorted(content[0] for *_, content in found) == sorted(number % OPTIONS for number in numbers)


def check(cluster: Cluster, voters: Voters) -> None:
    """Compare what was acknowledged with every validator's log, blocks and tally."""
    numbers = sorted(voters.acknowledged)
    wait_confirmed(cluster, numbers)

    genesis = cluster.call(1, "eth_getBlockByNumber", "0x0", False)["hash"]
    secret = bytes.fromhex((cluster.data_dir / "gateway" / "master.secret").read_text().strip().removeprefix("0x"))
    key = ElectionKey(election_key(secret, Domain(7770, bytes.fromhex(genesis[2:])), ELECTION), ELECTION)
    expected = {
        (key.nullifier(f"voter-{number}"), key.record_id(f"transaction-{number}"), 0, bytes([number % OPTIONS]))
        for number in numbers
    }
    height = cluster.height(1)
    until(lambda: min(map(cluster.height, (1, 2, 3))) >= height, 30, "all validators have the last ballot")

    counts = [sum(number % OPTIONS == option for number in numbers) for option in range(OPTIONS)]
    seen = []
    for validator in (1, 2, 3):
        found = ballots_in_log(cluster, validator, ELECTION)
        assert len(found) == len(set(found)) == VOTES
        assert set(found) == expected
        size_and_root = view(cluster, validator, "log(uint256)", ["uint256", "bytes32"], ELECTION)
        by_nullifier, recounted, hashes = recount(cluster, validator, ELECTION, OPTIONS, height)
        seen.append((found, size_and_root, hashes))
        assert recounted == counts
        assert set(by_nullifier.values()) == expected
        tally = view(cluster, validator, "tally(uint256)", ["uint256[]", "uint256", "uint256"], ELECTION)
        assert tally == (tuple(counts), 0, VOTES)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][2]) == height + 1

    results = f"{cluster.gateway_url}/api/votes/results?election_id={ELECTION}"
    told = httpx.get(results, timeout=30, trust_env=False).json()
    assert told["total"] == VOTES, told
    for option, count in zip(("a", "b", "c"), counts, strict=True):
        assert f'"{option}"' in json.dumps(told)
        assert str(count) in json.dumps(told), told
