"""`psephos bench transactions`: Ethereum transfers by JSON-RPC, the same signed bytes for whatever node speaks it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from cluster.bench.follower import Follower, transactions_reader
from cluster.bench.generator import Generator, Requests
from cluster.bench.run import Check, Latencies, Workload
from cluster.bench.wire import Caller, Endpoint, RpcFailed
from cluster.network import ClusterError
from merkle.keccak import keccak256
from node.chain.transaction import Transaction, sign_transaction
from node.rpc.dev_accounts import COUNT as SENDERS
from node.rpc.dev_accounts import MNEMONIC, derive

SINKS = tuple(keccak256(b"psephos benchmark %d" % number)[12:] for number in range(16))
GAS = 21_000
MAX_FEE_WEI = 10_000_000_000  # above the base fee of any development node; psephos charges nothing of it
VALUE_WEI = 1
WARMUP_PER_SENDER = 4
READ_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Transfers:
    """Signed transfers in requests, and the hashes of each request's transactions."""

    requests: Requests
    hashes: list[list[bytes]]
    raws: list[list[bytes]]


def sign(chain_id: int, nonces: list[int], count: int, batch: int) -> Transfers:
    """`count` transfers in requests of `batch`; request i is of sender i % len(nonces), whose nonces go on."""
    keys = derive(MNEMONIC, len(nonces))
    bodies, hashes, raws = [], [], []
    for number in range(count // batch):
        sender = number % len(nonces)
        signed: list[Transaction] = []
        for _ in range(batch):
            signed.append(
                sign_transaction(
                    keys[sender],
                    chain_id=chain_id,
                    nonce=nonces[sender],
                    to=SINKS[number % len(SINKS)],
                    gas_limit=GAS,
                    value=VALUE_WEI,
                    max_fee_per_gas=MAX_FEE_WEI,
                )
            )
            nonces[sender] += 1
        hashes.append([transaction.hash for transaction in signed])
        raws.append([transaction.raw for transaction in signed])
        bodies.append(body_of(raws[-1]))
    return Transfers(Requests(bodies, batch, lanes=len(nonces)), hashes, raws)


def body_of(raws: Sequence[bytes]) -> bytes:
    """The JSON-RPC request, or batch of requests, that hands in signed transactions."""
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]}
        for number, raw in enumerate(raws, 1)
    ]
    return orjson.dumps(calls[0] if len(calls) == 1 else calls)


def judge(status: int, body: bytes) -> int:
    """How many transactions were taken: each is answered with its hash."""
    return body.count(b'"result":"0x') + body.count(b'"result": "0x') if status == 200 else 0


async def _nonces(caller: Caller, senders: int) -> list[int]:
    addresses = ["0x" + key.address.hex() for key in derive(MNEMONIC, senders)]
    found = [int(await caller.call("eth_getTransactionCount", address, "latest"), 16) for address in addresses]
    poor = [address for address in addresses if not int(await caller.call("eth_getBalance", address, "latest"), 16)]
    if poor:
        raise ClusterError(f"{caller.url}: the development account {poor[0]} has no balance")
    return found


async def _sunk(caller: Caller) -> int:
    """What all sinks own, in wei."""
    return sum([int(await caller.call("eth_getBalance", "0x" + sink.hex(), "latest"), 16) for sink in SINKS])


def _latencies(hashes: Sequence[Sequence[bytes]], url: str, first_height: int) -> Latencies:
    """From when a request was due to when the block of its transaction was final on all nodes."""

    async def latencies(generator: Generator, follower: Follower) -> list[float]:
        due = {hash_: generator.due[number] for number, group in enumerate(hashes) for hash_ in group}
        callers = [Caller(url) for _ in range(READ_AT_ONCE)]
        last = min(node.height for node in follower.nodes.values() if node.required)
        found: list[float] = []

        async def read(caller: Caller, heights: Sequence[int]) -> None:
            for height in heights:
                block = await caller.call("eth_getBlockByNumber", hex(height), False)
                final_s = follower.reached_s(height)
                for text in block["transactions"]:
                    due_s = due.get(bytes.fromhex(text[2:]))
                    if due_s is not None:
                        found.append(final_s - due_s)

        heights = range(first_height, last + 1)
        await asyncio.gather(*(read(caller, heights[at::READ_AT_ONCE]) for at, caller in enumerate(callers)))
        for caller in callers:
            caller.close()
        return found

    return latencies


def _check(urls: Sequence[str], before_wei: int, expected: int) -> Check:
    """Whether every node's accounts hold what was sent, and all have one block at the lowest head."""

    async def check() -> list[str]:
        problems = []
        callers = [Caller(url) for url in urls]
        try:
            lowest = min([int(await caller.call("eth_blockNumber"), 16) for caller in callers])
            blocks = [await caller.call("eth_getBlockByNumber", hex(lowest), False) for caller in callers]
            if len({block["hash"] for block in blocks}) != 1:
                problems.append(f"the nodes have different blocks at height {lowest}")
            for caller in callers:
                moved = (await _sunk(caller) - before_wei) // VALUE_WEI
                if moved != expected:
                    problems.append(f"{caller.url}: {moved} transfers arrived, and {expected} were sent")
        except RpcFailed as error:
            problems.append(str(error))
        finally:
            for caller in callers:
                caller.close()
        return problems

    return check


async def workload(urls: Sequence[str], *, mode: str, count: int, batch: int, clients: int) -> Workload:
    """The work on nodes that have the development accounts. Raises ClusterError when they have not."""
    size = batch if mode == "batch" else 1
    senders = min(clients, SENDERS)
    count -= count % size
    caller = Caller(urls[0])
    try:
        chain_id = int(await caller.call("eth_chainId"), 16)
        nonces = await _nonces(caller, senders)
        first_height = int(await caller.call("eth_blockNumber"), 16) + 1
        before_wei = await _sunk(caller)
    except RpcFailed as error:
        raise ClusterError(str(error)) from None
    finally:
        caller.close()
    warmup_size = min(size, WARMUP_PER_SENDER)  # small: a peer may be slow
    warmup = sign(chain_id, nonces, WARMUP_PER_SENDER * senders, warmup_size)
    transfers = sign(chain_id, nonces, count, size)
    endpoints = [Endpoint.of(url) for url in urls]

    def encoded(requests: Requests) -> Requests:
        posts = [endpoints[0].post(body) for body in requests.data]  # the Host header is of no concern to a node
        return Requests(posts, requests.records, requests.lanes)

    warmup_count = len(warmup.requests.data) * warmup_size
    return Workload(
        kind="transactions",
        mode=mode,
        endpoints=endpoints,
        warmup=encoded(warmup.requests),
        requests=encoded(transfers.requests),
        judge=judge,
        read=transactions_reader(first_height),
        check=_check(urls, before_wei, warmup_count + count),
        latencies=_latencies(transfers.hashes, urls[0], first_height),
    )


def sizes(mode: str) -> Sequence[int]:
    """Connections and transactions where nobody says how many."""
    return (64, 20_000) if mode == "single" else (64, 40_000)
