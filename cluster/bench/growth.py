"""`psephos bench growth`: what a ballot costs in a large election against a small one, and what a validator holds."""

import asyncio
import time
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from cluster.bench import machine
from cluster.bench.filling import BALLOTS_A_TRANSACTION, REGISTRARS, Filler, check_logs, new_filler
from cluster.bench.follower import Follower, log_reader
from cluster.bench.speed import SpeedProbe
from cluster.bench.testbed import Testbed
from cluster.network import ClusterError
from cluster.processes import STOP_GRACE_S

COUNT = 2_000_000
CHUNKS_MIN, CHUNK_MAX = 10, 100_000
SETTLE_S, SETTLE_POLL_S = 60.0, 2.0
START_WITHIN_S, START_POLL_S = 120.0, 0.02
DISK_QUIET_BYTES = 64 << 10  # below this much change in SETTLE_POLL_S, LevelDB has done its compactions


async def run(bed: Testbed, count: int, ballot_bytes: int) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what does not add up. Raises ClusterError."""
    chunk = min(CHUNK_MAX, count // CHUNKS_MIN) // BALLOTS_A_TRANSACTION * BALLOTS_A_TRANSACTION
    if chunk == 0:
        raise ClusterError(f"--count {count}: at least {CHUNKS_MIN * BALLOTS_A_TRANSACTION}")
    filler = await new_filler(bed, ballot_bytes)
    pids = {name: pid for name, pid in bed.pids().items() if name in bed.rpc_urls}
    follower = Follower(bed.rpc_urls, log_reader(filler.election), pids)
    await follower.start()
    try:
        await filler.send(filler.prepare(REGISTRARS * BALLOTS_A_TRANSACTION), follower)  # first of all come imports
        disk = _disk(bed)
        with SpeedProbe() as probe:
            chunks = [await _chunk(filler, follower, pids, chunk, probe) for _ in range(count // chunk)]
    finally:
        await follower.stop()
    await _settle(bed)
    cast = len(chunks) * chunk
    ratio = chunks[-1]["us_a_ballot"] / chunks[0]["us_a_ballot"]
    figures: dict[str, Any] = {
        "kind": "growth",
        "mode": f"{ballot_bytes} bytes a ballot",
        "records": cast,
        "chunk": chunk,
        "chunks": chunks,
        "first_us": chunks[0]["us_a_ballot"],
        "last_us": chunks[-1]["us_a_ballot"],
        "ratio": ratio,
        "ratio_at_equal_speed": ratio * chunks[0]["probe_ms"] / chunks[-1]["probe_ms"],
        "per_second": cast / sum(one["seconds"] for one in chunks),
        "bytes_a_record": {name: (size - disk[name]) / cast for name, size in _disk(bed).items()},
        "resident_bytes": {
            name: taken.resident_bytes for name, pid in pids.items() if (taken := machine.taken_by(pid))
        },
        "resident_peak_bytes": {name: machine.resident_peak_bytes(pid) for name, pid in pids.items()},
        "anonymous_bytes": {name: machine.anonymous_bytes(pid) for name, pid in pids.items()},
    }
    figures |= await _restart(bed)
    problems = await check_logs(bed, filler.election, filler.count)
    return figures | {"checked": not problems}, problems


def _disk(bed: Testbed) -> dict[str, int]:
    return {name: machine.folder_bytes(folder) for name, folder in bed.folders().items() if name in bed.rpc_urls}


async def _chunk(
    filler: Filler, follower: Follower, pids: dict[str, int], count: int, probe: SpeedProbe
) -> dict[str, float]:
    """Cast `count` ballots, which were signed before the clock starts; what they cost the validators together.

    CPU is counted from the end of the last chunk, so that no compaction falls between two chunks.
    """
    before = machine.snapshot(pids)
    requests = await asyncio.to_thread(filler.prepare, count)
    await asyncio.to_thread(probe.lap)  # what this chunk's is measured from
    began_s = time.perf_counter()
    await filler.send(requests, follower)
    ended_s = time.perf_counter()
    speed = await asyncio.to_thread(probe.lap)
    after = machine.snapshot(pids)
    cpu_s = sum(after.taken[name].cpu_s - before.taken[name].cpu_s for name in pids)
    return {
        "ballots": filler.count,
        "seconds": ended_s - began_s,
        "us_a_ballot": cpu_s / len(pids) / count * 1e6,
        "probe_ms": speed.mean_ms,
        "resident_bytes": max(after.taken[name].resident_bytes for name in pids),
    }


async def _settle(bed: Testbed) -> None:
    """Wait until compactions are over: what they replace is on disk twice until then."""
    deadline = time.monotonic() + SETTLE_S
    before = _disk(bed)
    while time.monotonic() < deadline:
        await asyncio.sleep(SETTLE_POLL_S)
        now = _disk(bed)
        if all(abs(now[name] - size) < DISK_QUIET_BYTES for name, size in before.items()):
            return
        before = now


async def _restart(bed: Testbed) -> dict[str, Any]:
    """Stop the last validator and start it again: seconds until it answers, and until it is ready; its memory then."""
    network, table = bed.own
    process = network.named(list(bed.rpc_urls)[-1])
    await asyncio.to_thread(table.stop, [process.name], grace_s=STOP_GRACE_S)
    began = time.perf_counter()
    identity = table.start(process)
    moments: dict[str, float] = {}
    async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
        for path in ("health", "ready"):
            while path not in moments:
                try:
                    if (await client.get(f"{process.url}/{path}")).is_success:
                        moments[path] = time.perf_counter() - began
                except httpx.HTTPError:
                    if table.alive(process.name) is None:
                        raise ClusterError(f"{process.name} {table.exit_reason(process.name)}") from None
                if time.perf_counter() - began > START_WITHIN_S:
                    raise ClusterError(f"{process.name} does not answer /{path} after {START_WITHIN_S:.0f} s")
                await asyncio.sleep(START_POLL_S)
    taken = machine.taken_by(identity.pid)
    return {
        "start_s": moments["health"],
        "ready_s": moments["ready"],
        "restarted_bytes": taken.resident_bytes if taken else 0,
    }


def show(console: Console, median: dict[str, Any]) -> None:
    """The figures for people."""
    console.print(f"\n[bold]growth[/bold]: {median['records']:,.0f} ballots in one election, {median['mode']}")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2), header_style="bold")
    for heading in ("ballots", "µs a ballot, each validator", "a second", "memory MB"):
        table.add_column(heading, justify="right")
    chunks = median["chunks"]
    step = max(1, len(chunks) // 5)
    for one in sorted({0, *range(step, len(chunks), step), len(chunks) - 1}):
        row = chunks[one]
        rate = median["chunk"] / row["seconds"]
        table.add_row(
            f"{row['ballots']:,.0f}", f"{row['us_a_ballot']:.1f}", f"{rate:,.0f}", f"{row['resident_bytes'] / 1e6:.0f}"
        )
    console.print(table)
    console.print(
        f"  a ballot among the last {median['chunk']:,.0f} against one of the first: "
        f"[bold]{median['ratio']:.2f}[/bold] (CPU; {median['last_us']:.1f} µs, {median['first_us']:.1f} µs); "
        f"{median['ratio_at_equal_speed']:.2f} had the cores been as fast then as at first"
    )
    console.print(f"  disk: {max(median['bytes_a_record'].values()):.0f} bytes a ballot and validator")
    console.print(
        f"  memory of a validator: {max(median['resident_bytes'].values()) / 1e6:.0f} MB, at most "
        f"{max(median['resident_peak_bytes'].values()) / 1e6:.0f} MB; without mapped files "
        f"{max(median['anonymous_bytes'].values()) / 1e6:.0f} MB; {median['restarted_bytes'] / 1e6:.0f} MB "
        "after a new start"
    )
    console.print(
        f"  a stopped validator answers {median['start_s']:.2f} s after its start, ready {median['ready_s']:.2f} s"
    )
