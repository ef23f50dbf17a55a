"""`psephos bench anchors`: Merkle roots through the gateway, one to a request, until final on all validators."""

import hashlib
import uuid
from collections.abc import Sequence

import orjson

from cluster.bench.follower import Follower, log_reader
from cluster.bench.generator import Generator, Requests
from cluster.bench.run import Workload
from cluster.bench.testbed import Testbed
from cluster.bench.wire import Endpoint, RpcFailed

WARMUP_SHARE, WARMUP_MAX = 0.1, 500
LOG = "anchors"
_BATCH_AT, _ROOT_AT = 42, 74  # in a leaf: version, chain id, genesis hash, kind of log; batch id (32); root (32)


def _batch_id(name: str, number: int) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.sha256(f"{name} {number}".encode()).digest()[:16], version=4)


def _root(name: str, number: int) -> bytes:
    return hashlib.sha256(f"root of {name} {number}".encode()).digest()


def prepare(gateway_url: str, name: str, count: int) -> Requests:
    """Requests with an anchor each."""
    endpoint = Endpoint.of(gateway_url, "/v1/anchor")
    bodies = (
        orjson.dumps(
            {
                "batch_id": str(_batch_id(name, number)),
                "merkle_root": _root(name, number).hex(),
                "product_count": 100 + number % 1_000,
                "algorithm": "rfc6962-sha256",
            }
        )
        for number in range(count)
    )
    return Requests([endpoint.post(body) for body in bodies], 1)


def judge(status: int, _body: bytes) -> int:
    """1 for an anchor that is taken: 202 the first time, 200 when it is there."""
    return int(status in (200, 202))


class _Log:
    """Reads the log of anchors after the run: where each is, what it says, and whether every validator agrees."""

    def __init__(self, bed: Testbed, name: str, count: int, base: int) -> None:
        self._bed, self._base = bed, base
        self._numbers = {_batch_id(name, number).bytes: number for number in range(count)}
        self._roots = [_root(name, number) for number in range(count)]
        self._problems: list[str] = []

    async def latencies(self, generator: Generator, follower: Follower) -> list[float]:
        """From when an anchor was due to when its block was final on all validators."""
        found: dict[int, float] = {}
        caller = self._bed.caller()
        first, size = self._base, follower.records
        while first < size:
            page = await caller.call("poa_getLogLeaves", LOG, hex(first), hex(size - first))
            for item in page:
                leaf = bytes.fromhex(item["leaf"][2:])
                number = self._numbers.get(leaf[_BATCH_AT : _BATCH_AT + 16])
                if number is None:
                    continue  # of the warm-up
                if number in found or leaf[_ROOT_AT : _ROOT_AT + 32] != self._roots[number]:
                    self._problems.append(f"anchor {number} is twice in the log, or with another root")
                found[number] = follower.reached_s(int(item["blockNumber"], 16)) - generator.due[number]
            first += len(page)
        caller.close()
        if len(found) != len(self._roots):
            self._problems.append(f"{len(self._roots) - len(found)} of {len(self._roots)} anchors are not in the log")
        return list(found.values())

    async def check(self) -> list[str]:
        """What does not add up."""
        heads = {}
        for name in self._bed.rpc_urls:
            caller = self._bed.caller(name)
            try:
                head = await caller.call("poa_getLog", LOG)
                heads[name] = (head["size"], head["root"])
            except RpcFailed as error:
                if self._bed.is_running(name):
                    self._problems.append(str(error))
            finally:
                caller.close()
        if len(set(heads.values())) != 1:
            self._problems.append(f"the validators' logs of anchors differ: {heads}")
        return self._problems


async def workload(bed: Testbed, *, count: int) -> Workload:
    """The work on a network with a gateway."""
    caller = bed.caller()
    base = int((await caller.call("poa_getLog", LOG))["size"], 16)
    caller.close()
    run = uuid.uuid4().hex  # anchors stay: on a network given by URLs, a second run needs others
    log = _Log(bed, run, count, base)
    return Workload(
        kind="anchors",
        mode="single",
        endpoints=[Endpoint.of(bed.gateway_url)],
        warmup=prepare(bed.gateway_url, f"warm {run}", max(1, min(int(count * WARMUP_SHARE), WARMUP_MAX))),
        requests=prepare(bed.gateway_url, run, count),
        judge=judge,
        read=log_reader(LOG),
        check=log.check,
        latencies=log.latencies,
    )


def sizes() -> Sequence[int]:
    """Connections and anchors where nobody says how many."""
    return 128, 15_000
