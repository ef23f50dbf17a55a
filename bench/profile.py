"""Where a record's microseconds go, by process and room of the code: `python -m bench.profile` (`make profile`).

Each process runs under bench/sampled.py. Stacks are given to the room of the innermost frame that belongs to one: a
trie's read of LevelDB is the store's. The rows of a column add up to what /proc says that the process took.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench import tables
from bench.sampled import FROM_START, START
from cluster.bench import anchors, catchup, testbed, transactions, votes
from cluster.bench.command import FILES_SPARE, raise_file_limit
from cluster.bench.run import Pace, Run, Workload, measure
from cluster.bench.testbed import Testbed
from cluster.bench.wire import RpcFailed
from cluster.network import ClusterError, Process
from cluster.processes import ProcessTable

REPORT = Path(__file__).resolve().parent / "profile.md"
TABLES_BEGIN, TABLES_END = "<!-- the tables: make profile ARGS=--write -->", "<!-- the tables end -->"
SAMPLES = "samples.json"
LOOP_RUNS, LOOP_THREAD = "asyncio/runners.py:", "thread uvloop"
WRITTEN_WITHIN_S = 10.0
COUNT_MIN = 2_000
NATIVE_ROOM, LOOP_ROOM, OTHER_ROOM = "not sampled (LevelDB's compactions, the clock's ticks)", "event loop", "other"
GENERATOR_ROOM, START_ROOM = "the load generator", "start of the process, imports"
IMPORTS = "<frozen importlib"

# The first room one of whose marks is in a frame's "file:function". Frames without a room belong to their caller's:
# the standard library, keccak, dataclasses.
ROOMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("signatures", ("/coincurve/", "node/chain/signing.py", "thread recover")),
    ("trie and log", ("merkle/patricia", "merkle/trienode", "merkle/log.py", "chain/contracts/flatlog.py")),
    (
        "store (LevelDB, guard, journal)",
        (
            "node/leveldb.py", "node/guardfile.py", "node/store", "node/recordindex.py", "gateway/journal.py",
            "gateway/disk.py", "gateway/durability.py", "thread disk", "thread journal", "thread guard",
        ),
    ),
    (
        "codec (RLP, msgpack, JSON models)",
        (
            "merkle/rlp.py", "node/chain/transaction.py", "node/chain/block.py", "node/chain/receipt.py",
            "node/consensus/codec.py", "node/payloads.py", "gateway/records.py", "gateway/journal_format.py",
            "/pydantic", "/msgpack/", "gateway/nullifier.py", "node/rpc/hexes.py", "node/rpc/jsonrpc.py",
        ),
    ),
    ("execution", ("node/chain/", "node/ledger.py")),
    ("p2p and TLS", ("node/p2p/", "/ssl.py:", "node/intake.py")),
    ("consensus and runtime", ("node/consensus/", "node/runtime.py", "node/inbox.py", "node/service.py")),
    ("HTTP and JSON-RPC", ("/aiohttp/", "node/rpc/", "/serving/", "gateway/api/", "/httpx/", "/httpcore/", "/yarl/")),
    ("gateway: delivery and checks", ("/gateway/",)),
)  # fmt: skip


def room_of(stack: Sequence[str]) -> str:
    """The room of a stack, innermost frame first. What no task or callback of ours called is the event loop's."""
    if any(frame == START or IMPORTS in frame for frame in stack):
        return START_ROOM
    for frame in stack:
        if LOOP_RUNS in frame:
            return LOOP_ROOM
        for room, marks in ROOMS:
            if any(mark in frame for mark in marks):
                return room
    return LOOP_ROOM if stack and LOOP_THREAD in stack[0] else OTHER_ROOM


class NotSampled(RuntimeError):
    """A process told nothing of where its time went."""


class SampledTable(ProcessTable):
    """Starts each process under the sampler, whose file lies in the process's folder; a second time from the start."""

    def command(self, process: Process, config: Path) -> list[str]:
        plain = super().command(process, config)
        at, mark = plain.index("cluster"), self.folder(process) / "started"
        sampler = ["bench.sampled", str(self.samples(process)), *([FROM_START] if mark.exists() else [])]
        mark.touch()
        return [*plain[:at], *sampler, *plain[at + 1 :]]

    def samples(self, process: Process) -> Path:
        """Where the sampler of a process writes."""
        return self.folder(process) / SAMPLES


def rooms_us(rows: Sequence[tuple[float, Sequence[str]]], cpu_us: float) -> dict[str, float]:
    """Microseconds by room, which add up to `cpu_us`: what was not sampled ran in threads without a Python stack."""
    spent: dict[str, float] = {}
    for us, stack in rows:
        room = room_of(stack)
        spent[room] = spent.get(room, 0.0) + us
    sampled = sum(spent.values())
    if sampled > cpu_us:  # /proc counts in hundredths of a second
        return {room: us * cpu_us / sampled for room, us in spent.items()}
    return {**spent, NATIVE_ROOM: cpu_us - sampled}


async def _read_samples(paths: Mapping[str, Path]) -> dict[str, list[tuple[float, list[str]]]]:
    """What all samplers wrote when they were stopped. Raises NotSampled."""
    deadline = time.monotonic() + WRITTEN_WITHIN_S
    found: dict[str, list[tuple[float, list[str]]]] = {}
    while len(found) < len(paths):
        for name, path in paths.items():
            try:
                found[name] = [(us, stack) for us, stack in json.loads(path.read_bytes())]
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise NotSampled(f"the sampler of {name} wrote nothing") from None
        await asyncio.sleep(0.05)
    return found


async def profile(kind: str, mode: str, count: int, clients: int) -> tuple[Run, dict[str, dict[str, float]]]:
    """One run on a fresh network of sampled processes: the figures, and microseconds a record by process and room."""
    async with testbed.fresh(table_of=SampledTable) as bed:
        network, table = bed.own
        assert isinstance(table, SampledTable)
        work = await _workload(bed, kind, mode, count, clients)

        def toggle() -> None:
            for process in network:
                table.signal(process.name, signal.SIGUSR2)

        in_flight = None if kind == "votes" else 10_000
        run = await measure(bed, work, Pace(clients, in_flight_max=in_flight), window=toggle)
        samples = await _read_samples({process.name: table.samples(process) for process in network})
    final = run.figures["final"]
    spent: dict[str, dict[str, float]] = {}
    for name, rows in samples.items():
        whole = rooms_us(rows, run.figures["processes"][name]["cpu_s"] * 1e6)
        spent[name] = {room: us / final for room, us in whole.items()}
    return run, spent


async def profile_catch_up(kind: str, count: int) -> tuple[str, list[str]]:
    """The table of a validator whose database was wiped, from its start to the head; and what does not add up."""
    async with testbed.fresh(kinds=("bootnode", "validator"), table_of=SampledTable) as bed:
        figures, problems = await catchup.run(bed, kind, count)
        network, table = bed.own
        assert isinstance(table, SampledTable)
        victim = network.named(list(bed.rpc_urls)[-1])
        table.signal(victim.name, signal.SIGUSR2)
        (rows,) = (await _read_samples({victim.name: table.samples(victim)})).values()
    spent = rooms_us(rows, figures["us_a_record"] * figures["records"])
    return table_of_catch_up(figures, {room: us / figures["records"] for room, us in spent.items()}), problems


async def _workload(bed: Testbed, kind: str, mode: str, count: int, clients: int) -> Workload:
    if kind == "votes":
        return await votes.workload(bed, mode=mode, count=count, batch=500)
    if kind == "transactions":
        urls = list(bed.rpc_urls.values())
        return await transactions.workload(urls, mode=mode, count=count, batch=50, clients=clients)
    return await anchors.workload(bed, count=count)


def columns_of(run: Run, spent: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Microseconds a record by column and room: a validator is the mean of all, `all` the sum of all processes."""
    validators = [name for name in spent if name.startswith("validator")]
    rooms = _rooms(spent)
    mean = {
        room: sum(spent[name].get(room, 0.0) for name in validators) / len(validators)
        for room in rooms
        if any(room in spent[name] for name in validators)
    }
    whole = {room: sum(of.get(room, 0.0) for of in spent.values()) for room in rooms}
    generator = run.figures["processes"]["generator"]["us_a_record"]
    return {
        "a validator": mean,
        "gateway": dict(spent.get("gateway", {})),
        "bootnode": dict(spent.get("bootnode", {})),
        f"all: {len(validators)} validators, gateway, bootnode, generator": {**whole, GENERATOR_ROOM: generator},
    }


def table_of(run: Run, spent: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each room, a column for each kind of process and one for all, and sums."""
    columns = columns_of(run, spent)
    figures = run.figures
    lines = [
        f"### {figures['kind']}, {figures['mode']}: {figures['final']:,.0f} records, "
        f"{figures['records_a_request']:.0f} to a request, {figures['clients']:.0f} connections",
        "",
    ]
    lines += _rows([*_rooms(spent), GENERATOR_ROOM], columns)
    lines += [
        "",
        f"/proc says {figures['cpu_us_a_record']:.1f} µs a record for all processes together, which kept "
        f"{figures['machine']['busy_cores']:.2f} of {figures['machine']['cores']} cores busy; others used "
        f"{figures['machine']['others_cores']:.2f}. {figures['per_second']:,.0f} records a second were final under the "
        "sampler.",
    ]
    return "\n".join(lines)


def _rows(rooms: Sequence[str], columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The lines of a table of microseconds, its sums at the end."""
    lines = [tables.row(["µs a record", *columns]), "|---|" + "---:|" * len(columns)]
    for room in rooms:
        cells = [f"{of[room]:.1f}" if room in of else "" for of in columns.values()]
        lines.append(tables.row([room, *cells]))
    return [*lines, tables.row(["**sum**", *(f"**{sum(of.values()):.1f}**" for of in columns.values())])]


def table_of_catch_up(figures: Mapping[str, Any], spent: Mapping[str, float]) -> str:
    """Markdown: where the time of a validator that catches up goes, its start included."""
    rooms, records = _rooms({"": spent}), figures["records"]
    lines = [
        f"### {figures['kind']}, {figures['mode']}: {records:,.0f} records in {figures['blocks']:,.0f} blocks",
        "",
        *_rows(rooms, {"the validator that catches up": spent}),
        "",
        f"{figures['us_a_record'] * records / 1e6:.1f} s of CPU in {figures['seconds']:.1f} s; all others took "
        f"{figures['server_us_a_record']:.1f} µs a record. {figures['per_second']:,.0f} records a second were there "
        "under the sampler.",
    ]
    return "\n".join(lines)


def _rooms(spent: Mapping[str, Mapping[str, float]]) -> list[str]:
    """All rooms, in the order of the code's, the rest at the end."""
    named = [room for room, _ in ROOMS] + [LOOP_ROOM, START_ROOM, OTHER_ROOM, NATIVE_ROOM]
    return [room for room in named if any(room in rooms for rooms in spent.values())]


WORKLOADS: dict[str, tuple[str, str, int, int]] = {  # kind, mode, records, connections
    "votes-batch": ("votes", "batch", 100_000, 16),
    "votes-single": ("votes", "single", 30_000, 2_048),
    "transactions-batch": ("transactions", "batch", 20_000, 64),
    "transactions-single": ("transactions", "single", 15_000, 64),
    "anchors": ("anchors", "single", 8_000, 64),
    "catch-up-ballots": ("catch-up", "ballots", 200_000, 0),
    "catch-up-transactions": ("catch-up", "transactions", 50_000, 0),
}


def sections(text: str) -> dict[str, str]:
    """The parts of a text by what stands between "### " and the first colon: a workload."""
    parts = [f"### {part}".strip() for part in f"\n{text}".split("\n### ")[1:]]
    return {part.removeprefix("### ").partition(":")[0]: part for part in parts}


def _text(done: Mapping[str, str], failures: Mapping[str, str]) -> str:
    """All sections in the order of the workloads; one that failed keeps what is known of an earlier run."""
    parts = []
    for name, (kind, mode, _, _) in WORKLOADS.items():
        key = f"{kind}, {mode}"
        if name in failures:
            parts.append(f"✗ {name}: not measured: {failures[name]}")
        if key in done:
            parts.append(done[key])
    return "\n\n".join(parts)


def main() -> int:
    """The exit code: 0 when each workload was measured and added up."""
    parser = argparse.ArgumentParser(description="where a record's microseconds go")
    parser.add_argument("workload", nargs="*", choices=[*WORKLOADS, []], help="default: all")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="this share of the usual records")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into bench/profile.md, after each workload"
    )
    options = parser.parse_args()
    done = sections(tables.between(REPORT, TABLES_BEGIN, TABLES_END)) if options.write else {}
    failures: dict[str, str] = {}
    where = tables.machine_line()
    for name in options.workload or list(WORKLOADS):
        kind, mode, count, clients = WORKLOADS[name]
        began_s = time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {name} …", flush=True)
        try:
            table, problems = uvloop.run(_one(kind, mode, max(int(count * options.share), COUNT_MIN), clients))
        except (ClusterError, RpcFailed, OSError, TimeoutError, NotSampled) as error:
            failures[name] = " ".join(str(error).split())
        else:
            if problems:
                failures[name] = " ".join("; ".join(problems).split())
            else:
                done[f"{kind}, {mode}"] = f"{table}\n\n{where}"
        print(failures.get(name) or done[f"{kind}, {mode}"], flush=True)
        print(f"({time.monotonic() - began_s:.0f} s)\n", flush=True)
        if options.write:
            tables.put(REPORT, TABLES_BEGIN, TABLES_END, _text(done, failures))
    return 1 if failures else 0


async def _one(kind: str, mode: str, count: int, clients: int) -> tuple[str, list[str]]:
    """A workload's table, and what does not add up."""
    raise_file_limit(clients + FILES_SPARE)
    if kind == "catch-up":
        return await profile_catch_up(mode, count)
    run, spent = await profile(kind, mode, count, clients)
    return table_of(run, spent), run.problems


if __name__ == "__main__":
    sys.exit(main())
