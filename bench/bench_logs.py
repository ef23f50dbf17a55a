"""Whether consensus goes on while a validator answers a large `eth_getLogs`: `python -m bench.bench_logs [SECONDS]`.

Three real validators take batches of ballots for SECONDS (90 by default), or until one answer cannot hold more event
logs. Then a ballot is cast every 100 ms through the second validator and waited for, first with nobody reading, then
while readers ask the first for all event logs, over and over: it proposes every third block.

Once, on two cores that had five times as much to do, four readers of 2.8 MB each, without a pause. Each reader gave
way by itself, after 4 ms, and the loop ran a slice of each between two messages of consensus: ballots were final after
1,129 ms (95 %; 110 ms in the median; 164 ms, 95 %, with nobody reading). Since then readers take turns, a slice of 2 ms
in all: 272 ms (95 %), 136 ms (median), 199 ms (95 %) with nobody reading, in a run as loaded. In CPU time, which load
does not change, what else runs on the loop waited 28 ms (95 %; worst 104 ms) for four readers, and 2.1 ms (worst 15 ms)
now. Who reads much reads from a node that does not vote.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from node.chain.contracts import ballots
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.elections import ABI
from node.chain.signing import SigningKey
from node.chain.transaction import sign_transaction
from node.rpc.dev_accounts import MNEMONIC, derive
from node.rpc.limits import Limits
from tests.e2e.harness import Cluster

SENDERS, CALLS, RECORDS = 16, 25, 25  # at a time; transactions of a sender; ballots of a transaction
ELECTION = 1_000_000  # a new network has one of its own already, with a small number
READERS = 4
PROBE_S, PAUSE_S = 15.0, 0.1
KEYS = derive(MNEMONIC, SENDERS + 1)


def request(method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


class Chain:
    """The network as its clients see it."""

    def __init__(self, client: httpx.AsyncClient, urls: list[str], chain_id: int) -> None:
        self.client = client
        self.urls = urls
        self.chain_id = chain_id
        self.nonces: dict[bytes, int] = {}
        self.transactions = 0

    async def call(self, validator: int, method: str, *params: Any) -> Any:
        """The result of one call."""
        answer = orjson.loads((await self.client.post(self.urls[validator], json=request(method, *params))).content)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def send(self, validator: int, key: SigningKey, calls: list[bytes]) -> str:
        """Hand in calls of the Elections contract, and wait until they are final; the last one's hash."""
        if key.address not in self.nonces:
            self.nonces[key.address] = int(await self.call(validator, "eth_getTransactionCount", text(key.address)), 16)
        batch = []
        for data in calls:
            nonce = self.nonces[key.address]
            self.nonces[key.address] += 1
            signed = sign_transaction(
                key, chain_id=self.chain_id, nonce=nonce, to=ELECTIONS, gas_limit=20_000_000, data=data
            )
            batch.append(request("eth_sendRawTransaction", text(signed.raw)))
        answers = orjson.loads((await self.client.post(self.urls[validator], json=batch)).content)
        refused = [answer["error"] for answer in answers if "error" in answer]
        if refused:
            raise RuntimeError(f"a transaction was refused: {refused[0]}")
        last: str = answers[-1]["result"]
        while (receipt := await self.call(validator, "eth_getTransactionReceipt", last)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # as clients over HTTP do
        if receipt["status"] != "0x1":
            raise RuntimeError(f"a transaction of the benchmark failed: {receipt}")
        self.transactions += len(calls)
        return last


def text(content: bytes) -> str:
    return "0x" + content.hex()


def batch(size: int) -> bytes:
    records = (ballots.pack_record(os.urandom(32), os.urandom(32), 0, b"\1") for _ in range(size))
    return ABI.encode_call("castBatch", ELECTION, b"".join(records))


async def fill(chain: Chain, seconds: float) -> None:
    """Batches from every sender, until the time is over or one answer could not hold the next event logs."""
    deadline = time.monotonic() + seconds
    room = Limits().logs_max - 2_000  # what the probes add, and the batches that are under way

    async def sender(number: int) -> None:
        while time.monotonic() < deadline and chain.transactions < room - SENDERS * CALLS:
            await chain.send(number % len(chain.urls), KEYS[number], [batch(RECORDS) for _ in range(CALLS)])

    await asyncio.gather(*(sender(number) for number in range(SENDERS)))


async def probe(chain: Chain) -> list[float]:
    """Milliseconds from handing in a ballot to its receipt, for as many ballots as the time allows."""
    found = []
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        start = time.monotonic()
        await chain.send(1, KEYS[SENDERS], [batch(1)])
        found.append((time.monotonic() - start) * 1e3)
        await asyncio.sleep(PAUSE_S)
    return found


async def read(chain: Chain, answers: list[tuple[float, int]]) -> None:
    """All event logs, over and over: the seconds of each answer, and its bytes."""
    body = request("eth_getLogs", {"fromBlock": "0x0", "address": text(ELECTIONS)})
    while True:
        start = time.monotonic()
        content = (await chain.client.post(chain.urls[0], json=body)).content
        if content.startswith(b'{"error"') or len(content) < 10_000:
            raise RuntimeError(f"the event logs were refused: {content[:300]!r}")
        answers.append((time.monotonic() - start, len(content)))


def shown(what: str, found: list[float]) -> str:
    ordered = sorted(found)
    return (
        f"{what}: {len(found)} ballots, final after {statistics.median(found):.0f} ms (median), "
        f"{ordered[len(ordered) * 95 // 100]:.0f} ms (95 %), {ordered[-1]:.0f} ms (worst)\n"
    )


async def measure(urls: list[str], seconds: float) -> None:
    """Fill the chain, measure, and print."""
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        chain = Chain(client, urls, 0)
        chain.chain_id = int(await chain.call(0, "eth_chainId"), 16)
        registrars = [key.address for key in KEYS]
        create = ABI.encode_call("create", ELECTION, "Bench", ["a", "b"], 3, 0, 0, 0, registrars, bytes(32))
        await chain.send(0, KEYS[0], [create])
        await fill(chain, seconds)
        height = int(await chain.call(0, "eth_blockNumber"), 16)
        sent = chain.transactions - 1
        sys.stdout.write(f"{height} blocks, {sent + 1} event logs of {sent * RECORDS} ballots\n")
        sys.stdout.write(shown("nobody reads", await probe(chain)))
        answers: list[tuple[float, int]] = []
        readers = [asyncio.create_task(read(chain, answers)) for _ in range(READERS)]
        found = await probe(chain)
        for reader in readers:
            if reader.done():
                reader.result()
            reader.cancel()
        sys.stdout.write(shown(f"{READERS} readers", found))
        spent, size = statistics.median(seconds for seconds, _ in answers), max(size for _, size in answers)
        sys.stdout.write(f"{len(answers)} answers of {size / 1e6:.1f} MB, {spent:.2f} s each (median)\n")


def main() -> None:
    """Start a network, measure, stop it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 90.0
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder) / "data")
        try:
            cluster.up()
            asyncio.run(measure(cluster.rpc_urls, seconds))
        finally:
            cluster.destroy()


if __name__ == "__main__":
    main()
