"""One measured run of a workload: warm up, start the clock, load, wait until all is final everywhere, check, add up."""

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.bench import figures, machine
from cluster.bench.follower import Follower, Read
from cluster.bench.generator import Generator, Judge, Requests
from cluster.bench.testbed import Testbed
from cluster.bench.wire import Endpoint
from cluster.network import ClusterError

STALLED_S = 30.0
DEATH_SETTLES_S = 2.0
DISK_SETTLES_S = 10.0
DISK_POLL_S = 0.5
GENERATOR_LIMIT = 0.85  # of one core: a generator that takes more was what was measured
VICTIM = -1  # the validator that is killed: the last one, since others are asked first

# After a run, for whoever looks at records on the chain: seconds from due to final, of each.
Latencies = Callable[[Generator, Follower], Awaitable[list[float]]]
Check = Callable[[], Awaitable[list[str]]]  # what does not add up, in words


@dataclass(frozen=True, slots=True)
class Workload:
    """What a run sends and how it is judged; `records` is how many it sends in all, without the warm-up."""

    kind: str
    mode: str
    endpoints: Sequence[Endpoint]
    warmup: Requests
    requests: Requests
    judge: Judge
    read: Read
    check: Check
    latencies: Latencies | None = None  # None: an answer says that the record is final, so the answers' times count

    @property
    def records(self) -> int:
        return len(self.requests.data) * self.requests.records


@dataclass(frozen=True, slots=True)
class Pace:
    """How it is sent: `clients` connections; `rate` records a second, or as fast as answers come."""

    clients: int
    rate: float | None = None
    in_flight_max: int | None = None
    kill_at: float | None = None  # the share of the records after which a validator is killed


@dataclass(slots=True)
class Run:
    """What came of a run: `figures` for people and programs; the series for a plot."""

    figures: dict[str, Any]
    problems: list[str]
    began_s: float
    ended_s: float
    final: list[tuple[float, int]]
    snapshots: list[machine.Snapshot]
    killed_s: float | None = None
    victim: str = ""


@dataclass(slots=True)
class _Clock:
    before: machine.Snapshot
    after: machine.Snapshot
    base: int
    disk_before: dict[str, int]
    killed_s: float | None = None
    victim: str = ""
    problems: list[str] = field(default_factory=list)


async def measure(bed: Testbed, work: Workload, pace: Pace, window: Callable[[], None] = lambda: None) -> Run:
    """Run a workload; `window` is called when the clock starts and when it stops, for a profiler.

    Raises ClusterError when the load stalls or a record is refused at warm-up.
    """
    pids = bed.pids()
    follower = Follower(bed.rpc_urls, work.read, pids)
    await follower.start()
    generator: Generator | None = None
    try:
        await _warm_up(work, follower)
        rate = None if pace.rate is None else pace.rate / work.requests.records
        generator = Generator(
            work.endpoints,
            work.requests,
            work.judge,
            clients=pace.clients,
            rate=rate,
            in_flight_max=pace.in_flight_max,
        )
        await generator.connect()
        clock = await _timed(bed, work, pace, follower, generator, window)
        return await _result(bed, work, pace, follower, generator, clock)
    finally:
        if generator is not None:
            generator.close()
        await follower.stop()


async def _warm_up(work: Workload, follower: Follower) -> None:
    """Codecs, connections and caches as they are in a process that has run for a while."""
    base = follower.records
    generator = Generator(work.endpoints, work.warmup, work.judge, clients=8)
    try:
        await generator.connect()
        generator.start()
        await until_answered(generator, follower)
        taken = sum(generator.taken)
        if taken < len(work.warmup.data) * work.warmup.records:
            raise ClusterError(f"the warm-up was not taken in whole: {'; '.join(generator.failures)}")
        if not await follower.reach(base + taken, stalled_s=STALLED_S):
            raise ClusterError(f"the warm-up of {taken} records did not become final")
    finally:
        generator.close()


async def until_answered(generator: Generator, follower: Follower) -> None:
    """Wait for all answers. Raises ClusterError when neither an answer comes nor anything becomes final."""
    waiting = asyncio.create_task(generator.wait())
    seen = (-1, -1)
    while not (await asyncio.wait([waiting], timeout=STALLED_S))[0]:
        now = (generator.left, follower.records)
        if now == seen:
            waiting.cancel()
            raise ClusterError(f"nothing moves any more: {now[0]} requests lack an answer, {now[1]} records are final")
        seen = now


async def _timed(
    bed: Testbed, work: Workload, pace: Pace, follower: Follower, generator: Generator, window: Callable[[], None]
) -> _Clock:
    base = follower.records
    disk = {name: machine.folder_bytes(folder) for name, folder in bed.folders().items()}
    follower.on_final = lambda records: generator.settle(records - base)
    gc.collect()
    gc.freeze()
    gc.disable()  # millions of prepared bytes are no garbage, and looking through them would show in the latencies
    try:
        window()
        before = machine.snapshot(follower.pids)
        clock = _Clock(before, before, base, disk)
        generator.start()
        killer = None
        if pace.kill_at is not None:
            killer = asyncio.create_task(_kill(bed, follower, clock, base + int(pace.kill_at * work.records)))
        await until_answered(generator, follower)
        if not await follower.reach(base + work.records, stalled_s=STALLED_S / 3 if sum(generator.taken) else 1.0):
            lacking = base + work.records - follower.records
            clock.problems.append(f"{lacking} of {work.records} records are not final on all validators")
        if killer is not None:
            killer.cancel()
        clock.after = machine.snapshot(follower.pids)
        window()
    finally:
        gc.enable()
        gc.unfreeze()
    clock.problems += generator.failures
    return clock


async def _kill(bed: Testbed, follower: Follower, clock: _Clock, records: int) -> None:
    await follower.reach(records, stalled_s=10 * STALLED_S)
    victim = list(bed.rpc_urls)[VICTIM]
    last = machine.taken_by(follower.pids[victim])
    clock.victim, clock.killed_s = victim, time.perf_counter()
    await asyncio.to_thread(bed.kill, victim)
    follower.drop(victim)
    if last is not None:
        follower.last[victim] = last


async def _result(
    bed: Testbed, work: Workload, pace: Pace, follower: Follower, generator: Generator, clock: _Clock
) -> Run:
    final = follower.records - clock.base
    began_s = generator.began_s
    last_answer_s = max(generator.answered) if work.latencies is None else 0.0
    ended_s = max(figures.reached_s(follower.final, clock.base + final), last_answer_s, began_s)
    series = [(at_s, records - clock.base) for at_s, records in follower.final if at_s >= began_s]
    if work.latencies is None:
        pairs = zip(generator.due, generator.answered, generator.taken, strict=True)
        seconds = [answered - due for due, answered, taken in pairs if taken == work.requests.records]
    else:
        seconds = await work.latencies(generator, follower)
    spent_s = ended_s - began_s
    late = sorted(sent - due for sent, due in zip(generator.sent, generator.due, strict=True))
    shown: dict[str, Any] = {
        "kind": work.kind,
        "mode": work.mode,
        "clients": min(pace.clients, len(work.requests.data)),
        "rate": pace.rate,
        "records": work.records,
        "records_a_request": work.requests.records,
        "final": final,
        "refused": work.records - sum(generator.taken),
        "seconds": spent_s,
        "per_second": final / spent_s if spent_s else 0.0,
        "latency_ms": figures.latencies_ms(seconds),
        "sent_late_ms_p99": figures.percentile(late, 99) * 1e3,
        "longest_gap_s": figures.longest_gap_s(series, began_s, ended_s),
        **_costs(follower, clock, final),
        "bytes_a_record": await _disk(bed, clock, final),
    }
    heights = next(node.heights for node in follower.nodes.values() if node.required)
    shown["blocks"] = figures.final_at(heights, ended_s) - figures.final_at(heights, began_s)
    if clock.killed_s is not None:
        shown["death"] = figures.around_death(series, began_s, clock.killed_s, ended_s, DEATH_SETTLES_S)
    problems = clock.problems + await work.check()
    shown["checked"] = not problems
    return Run(shown, problems, began_s, ended_s, series, follower.snapshots, clock.killed_s, clock.victim)


def _costs(follower: Follower, clock: _Clock, final: int) -> dict[str, Any]:
    """CPU of each process over the run, in all and for each record; memory; what others took of the machine.

    Shares are None for a network given by URLs, whose processes are not known.
    """
    before, after = clock.before, clock.after
    elapsed_s = after.at_s - before.at_s
    processes: dict[str, dict[str, float]] = {}
    for name, start in before.taken.items():
        end = follower.last.get(name) or after.taken.get(name, start)
        cpu_s = end.cpu_s - start.cpu_s
        processes[name] = {
            "cpu_s": cpu_s,
            "cores": cpu_s / elapsed_s,
            "us_a_record": cpu_s / final * 1e6 if final else 0.0,
            "resident_bytes": end.resident_bytes,
            "resident_peak_bytes": machine.resident_peak_bytes(follower.pids[name]) or end.resident_bytes,
        }
    ours_s = sum(process["cpu_s"] for process in processes.values())
    generator = processes.get("generator", {"cores": 0.0})
    is_known = len(processes) > 1
    return {
        "processes": processes,
        "cpu_us_a_record": ours_s / final * 1e6 if final else 0.0,
        "generator_share": generator["cores"] * elapsed_s / ours_s if is_known and ours_s else None,
        "generator_was_limit": generator["cores"] >= GENERATOR_LIMIT,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "busy_cores": ours_s / elapsed_s,
            "others_cores": max(0.0, (after.machine_s - before.machine_s - ours_s) / elapsed_s) if is_known else None,
        },
    }


async def _disk(bed: Testbed, clock: _Clock, final: int) -> dict[str, float]:
    """Bytes by which each folder grew for each record, once they stay as they are."""
    folders = {name: folder for name, folder in bed.folders().items() if name != clock.victim}
    deadline = time.perf_counter() + DISK_SETTLES_S
    sizes: dict[str, int] = {}
    while time.perf_counter() < deadline:
        seen = {name: machine.folder_bytes(folder) for name, folder in folders.items()}
        if seen == sizes:
            break
        sizes = seen
        await asyncio.sleep(DISK_POLL_S)
    return {name: (size - clock.disk_before[name]) / final if final else 0.0 for name, size in sizes.items()}
