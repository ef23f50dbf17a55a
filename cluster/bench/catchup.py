"""`psephos bench catch-up`: how fast a validator whose database was wiped has every final block again."""

import asyncio
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from cluster.bench import machine, transactions
from cluster.bench.filling import BALLOTS_A_TRANSACTION, check_logs, new_filler
from cluster.bench.follower import Follower, log_reader
from cluster.bench.generator import Generator
from cluster.bench.run import STALLED_S, until_answered
from cluster.bench.testbed import Testbed
from cluster.bench.wire import Caller, RpcFailed
from cluster.network import ClusterError
from node.rpc.dev_accounts import COUNT as SENDERS

COUNTS = {"ballots": 200_000, "transactions": 60_000}
CHUNK = 50_000
BATCH = 50
IN_FLIGHT_MAX = 10_000
POLL_S = 0.02
CATCH_UP_STALLED_S = 60.0


async def run(bed: Testbed, kind: str, count: int) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what does not add up. Raises ClusterError."""
    problems: list[str] = []
    if kind == "ballots":
        if count < BALLOTS_A_TRANSACTION:
            raise ClusterError(f"--count {count}: at least {BALLOTS_A_TRANSACTION}")
        election, count = await _cast(bed, count)
    else:
        await _transfer(bed, count)
    figures = await _catch_up(bed, count)
    if kind == "ballots":
        problems += await check_logs(bed, election, count)
    problems += await _same_head(bed)
    return {"kind": "catch-up", "mode": kind, "records": count, **figures, "checked": not problems}, problems


async def _cast(bed: Testbed, count: int) -> tuple[int, int]:
    """Fill an election; its id, and how many ballots it has."""
    filler = await new_filler(bed)
    follower = Follower(bed.rpc_urls, log_reader(filler.election), {})
    await follower.start()
    try:
        while filler.count + BALLOTS_A_TRANSACTION <= count:
            requests = await asyncio.to_thread(filler.prepare, min(CHUNK, count - filler.count))
            await filler.send(requests, follower)
    finally:
        await follower.stop()
    return filler.election, filler.count


async def _transfer(bed: Testbed, count: int) -> None:
    """Make `count` transfers final."""
    urls = list(bed.rpc_urls.values())
    work = await transactions.workload(urls, mode="batch", count=count, batch=min(BATCH, count), clients=SENDERS)
    follower = Follower(bed.rpc_urls, work.read, {})
    await follower.start()
    try:
        for requests in (work.warmup, work.requests):
            base = follower.records
            generator = Generator(work.endpoints, requests, work.judge, clients=SENDERS, in_flight_max=IN_FLIGHT_MAX)
            follower.on_final = _settler(generator, base)
            await generator.connect()
            generator.start()
            await until_answered(generator, follower)
            generator.close()
            if not await follower.reach(base + sum(generator.taken), stalled_s=STALLED_S):
                raise ClusterError("the transfers do not become final")
    finally:
        await follower.stop()


def _settler(generator: Generator, base: int) -> Callable[[int], None]:
    return lambda records: generator.settle(records - base)


async def _catch_up(bed: Testbed, count: int) -> dict[str, Any]:
    network, table = bed.own
    victim, server = network.named(list(bed.rpc_urls)[-1]), bed.caller()
    table.wait_gone([table.signal(victim.name, signal.SIGKILL)])
    shutil.rmtree(bed.folders()[victim.name])
    head = int(await server.call("eth_blockNumber"), 16)
    pids = {name: pid for name, pid in bed.pids().items() if name in bed.rpc_urls}
    before = machine.snapshot(pids)
    began = time.perf_counter()
    identity = table.start(victim)
    caller = Caller(victim.url, timeout_s=5.0)
    answers_s, height, moved = 0.0, -1, began
    heights = [(0.0, 0)]
    while height < head:
        try:
            seen = int(await caller.call("eth_blockNumber"), 16)
            answers_s = answers_s or time.perf_counter()
            if seen > height:
                height, moved = seen, time.perf_counter()
                heights.append((moved - began, height))
        except RpcFailed:
            if table.alive(victim.name) is None:
                raise ClusterError(f"{victim.name} {table.exit_reason(victim.name)}") from None
        if time.perf_counter() - moved > CATCH_UP_STALLED_S:
            raise ClusterError(f"{victim.name} stays at height {height} of {head}")
        await asyncio.sleep(POLL_S)
    ended = time.perf_counter()
    after = machine.snapshot(pids | {victim.name: identity.pid})
    caller.close()
    server.close()
    own_s = after.taken[victim.name].cpu_s
    served_s = {name: after.taken[name].cpu_s - before.taken[name].cpu_s for name in pids}
    return {
        "blocks": head,
        "heights": heights,
        "seconds": ended - began,
        "seconds_since_answering": ended - answers_s,
        "per_second": count / (ended - began),
        "per_second_since_answering": count / max(ended - answers_s, POLL_S),
        "us_a_record": own_s / count * 1e6,
        "server_us_a_record": sum(served_s.values()) / count * 1e6,
        "resident_peak_bytes": machine.resident_peak_bytes(identity.pid),
    }


async def _same_head(bed: Testbed) -> list[str]:
    """Whether the block that all have at the lowest head is one, state and all."""
    callers = [bed.caller(name) for name in bed.rpc_urls]
    lowest = min([int(await caller.call("eth_blockNumber"), 16) for caller in callers])
    hashes = {(await caller.call("eth_getBlockByNumber", hex(lowest), False))["hash"] for caller in callers}
    for caller in callers:
        caller.close()
    return [] if len(hashes) == 1 else [f"the validators have different blocks at height {lowest}"]


def show(console: Console, median: dict[str, Any]) -> None:
    """The figures for people."""
    console.print(
        f"\n[bold]catch-up[/bold]: {median['records']:,.0f} {median['mode']} in {median['blocks']:,.0f} blocks"
    )
    console.print(
        f"  [bold]{median['per_second']:,.0f} {median['mode']} a second[/bold]: at the head {median['seconds']:.2f} s "
        f"after it started with no database ({median['per_second_since_answering']:,.0f} a second since it answered)"
    )
    console.print(
        f"  CPU: {median['us_a_record']:.1f} µs a record for who catches up, {median['server_us_a_record']:.1f} µs for "
        f"all others; at most {median['resident_peak_bytes'] / 1e6:.0f} MB of memory"
    )
