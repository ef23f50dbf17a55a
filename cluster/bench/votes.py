"""`psephos bench votes`: ballots through the gateway, one or many to a request, each waiting until it is confirmed."""

import time
from collections import Counter
from collections.abc import Sequence

import httpx
import orjson

from cluster.bench.follower import log_reader
from cluster.bench.generator import Judge, Requests
from cluster.bench.run import Check, Workload
from cluster.bench.testbed import Testbed
from cluster.bench.wire import Endpoint, RpcFailed
from cluster.network import ClusterError
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.elections import ABI

OPTIONS = ("red", "green", "blue")
WAIT = "Prefer: wait=30\r\n"
WARMUP_SHARE, WARMUP_MAX = 0.1, 2_000
CREATE_TIMEOUT_S = 30.0


async def create_election(gateway_url: str, title: str) -> int:
    """A new election, final; its id. Raises ClusterError."""
    id_ = time.time_ns() // 1_000_000
    document = {"election_id": id_, "title": title, "options": list(OPTIONS), "kinds": "both"}
    try:
        async with httpx.AsyncClient(timeout=CREATE_TIMEOUT_S, trust_env=False) as client:
            answer = await client.post(f"{gateway_url}/api/elections", json=document, headers={"prefer": "wait=20"})
    except httpx.HTTPError as error:
        raise ClusterError(f"{gateway_url} does not answer: {error!r}") from None
    if answer.status_code not in (httpx.codes.OK, httpx.codes.CREATED):
        raise ClusterError(f"no election was created: {answer.status_code} {answer.text[:300]}")
    return id_


def _vote(election: int, number: int, name: str) -> dict[str, object]:
    choice = number % 7 % len(OPTIONS)  # not the same for each option, or a mixed-up tally could look right
    return {
        "voter_id": f"{name}-{number}",
        "election_id": election,
        "choice": choice,
        "transaction_id": f"{name}:{number}",
    }


def prepare(gateway_url: str, election: int, count: int, batch: int | None, name: str) -> tuple[Requests, Counter[int]]:
    """Requests with `count` votes of as many voters, and how many votes each option gets."""
    votes = [_vote(election, number, name) for number in range(count)]
    counts: Counter[int] = Counter(int(str(vote["choice"])) for vote in votes)
    if batch is None:
        endpoint = Endpoint.of(gateway_url, "/api/votes/submit")
        return Requests([endpoint.post(orjson.dumps(vote), headers=WAIT) for vote in votes], 1), counts
    endpoint = Endpoint.of(gateway_url, "/api/votes/batch")
    bodies = (orjson.dumps({"votes": votes[first : first + batch]}) for first in range(0, count, batch))
    return Requests([endpoint.post(body, headers=WAIT) for body in bodies], batch), counts


def judge_one(status: int, body: bytes) -> int:
    """1 for a ballot that is confirmed."""
    return int(status == 200 and b'"status":"confirmed"' in body)


def judge_batch(status: int, body: bytes) -> int:
    """How many ballots of a batch are confirmed."""
    return body.count(b'"status":"confirmed"') if status == 200 else 0


def _check(bed: Testbed, election: int, expected: Counter[int]) -> Check:
    """The tally of each validator and of the gateway against what was cast, and whether all logs have one root."""

    async def check() -> list[str]:
        wanted = [expected[option] for option in range(len(OPTIONS))]
        problems = []
        roots = set()
        data = "0x" + ABI.encode_call("tally", election).hex()
        for name in bed.rpc_urls:
            caller = bed.caller(name)
            try:
                answer = await caller.call("eth_call", {"to": "0x" + ELECTIONS.hex(), "data": data}, "latest")
                roots.add((await caller.call("poa_getLog", hex(election)))["root"])
            except RpcFailed as error:
                if bed.is_running(name):
                    problems.append(str(error))
                continue
            finally:
                caller.close()
            counts = list(ABI.decode_result("tally", bytes.fromhex(answer[2:]))[0])
            if counts != wanted:
                problems.append(f"{name} counts {counts}, and {wanted} were cast")
        if len(roots) != 1:
            problems.append(f"the election's log has {len(roots)} different roots")
        async with httpx.AsyncClient(timeout=CREATE_TIMEOUT_S, trust_env=False) as client:
            told = (await client.get(f"{bed.gateway_url}/api/votes/results?election_id={election}")).json()
        counts = [int(option["count"]) for option in told.get("results", [])]
        if counts != wanted:
            problems.append(f"the gateway counts {counts}, and {wanted} were cast")
        return problems

    return check


async def workload(bed: Testbed, *, mode: str, count: int, batch: int) -> Workload:
    """The work on a network with a gateway. Raises ClusterError when no election can be created."""
    election = await create_election(bed.gateway_url, "Benchmark")
    size = batch if mode == "batch" else None
    count -= count % batch if size else 0
    warmup_count = max(size or 1, min(int(count * WARMUP_SHARE), WARMUP_MAX))
    warmup_count -= warmup_count % (size or 1)
    warmup, warmup_counts = prepare(bed.gateway_url, election, warmup_count, size, "warm")
    requests, counts = prepare(bed.gateway_url, election, count, size, "voter")
    judge: Judge = judge_batch if size else judge_one
    return Workload(
        kind="votes",
        mode=mode,
        endpoints=[Endpoint.of(bed.gateway_url)],
        warmup=warmup,
        requests=requests,
        judge=judge,
        read=log_reader(election),
        check=_check(bed, election, warmup_counts + counts),
    )


def sizes(mode: str) -> Sequence[int]:
    """Connections and votes where nobody says how many."""
    return (2_048, 60_000) if mode == "single" else (48, 200_000)
