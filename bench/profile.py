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

import uvloop

from cluster.bench import anchors, testbed, transactions, votes
from cluster.bench.command import FILES_SPARE, raise_file_limit
from cluster.bench.run import Pace, Run, Workload, measure
from cluster.bench.testbed import Testbed
from cluster.network import Process
from cluster.processes import ProcessTable

REPORT = Path(__file__).resolve().parent / "profile.md"
TABLES_BEGIN, TABLES_END = "<!-- the tables: make profile ARGS=--write -->", "<!-- the tables end -->"
SAMPLES = "samples.json"
LOOP_RUNS, LOOP_THREAD = "asyncio/runners.py:", "thread uvloop"
WRITTEN_WITHIN_S = 10.0
NATIVE_ROOM, LOOP_ROOM, OTHER_ROOM = "native threads (LevelDB's compactions)", "event loop", "other"

# The first room one of whose marks is in a frame's "file:function". Frames without a room belong to their caller's:
# the standard library, keccak, dataclasses.
ROOMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("signatures", ("/coincurve/", "node/chain/signing.py", "thread recover")),
    ("trie and log", ("merkle/patricia", "merkle/trienode", "merkle/log.py", "chain/contracts/flatlog.py")),
    (
        "store (LevelDB, guard, journal)",
        (
            "node/leveldb.py", "node/guardfile.py", "node/store", "node/recordfilter.py", "gateway/journal.py",
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
    for frame in stack:
        if LOOP_RUNS in frame:
            return LOOP_ROOM
        for room, marks in ROOMS:
            if any(mark in frame for mark in marks):
                return room
    return LOOP_ROOM if stack and LOOP_THREAD in stack[0] else OTHER_ROOM


class SampledTable(ProcessTable):
    """Starts each process under the sampler, whose file lies in the process's folder."""

    def command(self, process: Process, config: Path) -> list[str]:
        plain = super().command(process, config)
        at = plain.index("cluster")
        return [*plain[:at], "bench.sampled", str(self.samples(process)), *plain[at + 1 :]]

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
    """What all samplers wrote when they were stopped."""
    deadline = time.monotonic() + WRITTEN_WITHIN_S
    found: dict[str, list[tuple[float, list[str]]]] = {}
    while len(found) < len(paths):
        for name, path in paths.items():
            try:
                found[name] = [(us, stack) for us, stack in json.loads(path.read_bytes())]
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise SystemExit(f"the sampler of {name} wrote nothing") from None
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


async def _workload(bed: Testbed, kind: str, mode: str, count: int, clients: int) -> Workload:
    if kind == "votes":
        return await votes.workload(bed, mode=mode, count=count, batch=500)
    if kind == "transactions":
        urls = list(bed.rpc_urls.values())
        return await transactions.workload(urls, mode=mode, count=count, batch=50, clients=clients)
    return await anchors.workload(bed, count=count)


def table_of(run: Run, spent: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each room, a column for each kind of process, and sums."""
    validators = [name for name in spent if name.startswith("validator")]
    each = {room: sum(spent[name].get(room, 0.0) for name in validators) / len(validators) for room in _rooms(spent)}
    columns = [("a validator", each), ("gateway", spent.get("gateway", {})), ("bootnode", spent.get("bootnode", {}))]
    figures = run.figures
    head = (
        f"### {figures['kind']}, {figures['mode']}: {figures['final']:,.0f} records, "
        f"{figures['records_a_request']:.0f} to a request, {figures['clients']:.0f} connections"
    )
    lines = [
        head,
        "",
        "| µs a record | " + " | ".join(name for name, _ in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    lines += [
        f"| {room} | " + " | ".join(f"{column.get(room, 0.0):.1f}" for _, column in columns) + " |"
        for room in _rooms(spent)
    ]
    sums = " | ".join(f"**{sum(column.values()):.1f}**" for _, column in columns)
    generator = figures["processes"]["generator"]["us_a_record"]
    lines += [
        f"| **sum** | {sums} |",
        "",
        f"{len(validators)} validators, gateway, bootnode and the generator's {generator:.1f} µs: "
        f"{figures['cpu_us_a_record']:.1f} µs a record in all. Others used {figures['machine']['others_cores']:.2f} of "
        f"{figures['machine']['cores']} cores meanwhile.",
    ]
    return "\n".join(lines)


def _rooms(spent: Mapping[str, Mapping[str, float]]) -> list[str]:
    """All rooms, in the order of the code's, the rest at the end."""
    named = [room for room, _ in ROOMS] + [LOOP_ROOM, OTHER_ROOM, NATIVE_ROOM]
    return [room for room in named if any(room in rooms for rooms in spent.values())]


WORKLOADS: dict[str, tuple[str, str, int, int]] = {  # kind, mode, records, connections
    "votes-batch": ("votes", "batch", 100_000, 16),
    "votes-single": ("votes", "single", 30_000, 2_048),
    "transactions-batch": ("transactions", "batch", 20_000, 64),
    "transactions-single": ("transactions", "single", 15_000, 64),
    "anchors": ("anchors", "single", 8_000, 64),
}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="where a record's microseconds go")
    parser.add_argument("workload", nargs="*", choices=[*WORKLOADS, []], help="default: all")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="this share of the usual records")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/profile.md")
    options = parser.parse_args()
    parts: list[str] = []
    failed = False
    for name in options.workload or list(WORKLOADS):
        kind, mode, count, clients = WORKLOADS[name]
        run, spent = uvloop.run(_one(kind, mode, count, clients, options.share))
        failed = failed or bool(run.problems)
        parts += [table_of(run, spent), *(f"✗ {problem}" for problem in run.problems), ""]
        print("\n".join(parts[-2 - len(run.problems) :]), flush=True)
    if options.write:
        before, _, rest = REPORT.read_text().partition(TABLES_BEGIN)
        text = "\n".join(parts)
        REPORT.write_text(f"{before}{TABLES_BEGIN}\n\n{text}{TABLES_END}{rest.partition(TABLES_END)[2]}")
    return 1 if failed else 0


async def _one(kind: str, mode: str, count: int, clients: int, share: float) -> tuple[Run, dict[str, dict[str, float]]]:
    raise_file_limit(clients + FILES_SPARE)
    return await profile(kind, mode, max(int(count * share), 2_000), clients)


if __name__ == "__main__":
    sys.exit(main())
