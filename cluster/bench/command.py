"""`psephos bench`: checks the options, runs a benchmark as often as asked, and tells what came of it."""

import argparse
import resource
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from cluster.bench import anchors, machine, report, transactions, votes
from cluster.bench.run import Pace, Run, Workload, measure
from cluster.bench.testbed import Testbed, fresh, given
from cluster.bench.wire import RpcFailed
from cluster.network import ClusterError

BATCHES = {"votes": 500, "transactions": 50}
BATCHES_MAX = {"votes": 1_000, "transactions": 1_000}
CLIENTS_MAX = 8_192
COUNT_MAX = 10_000_000
FILES_SPARE = 128
RUNS_MAX = 100


def check(options: argparse.Namespace) -> None:
    """Raise ClusterError for a number out of its range, naming the option."""
    bounds: list[tuple[str, float | None, float, float]] = [
        ("count", options.count, 1, COUNT_MAX),
        ("runs", options.runs, 1, RUNS_MAX),
        ("clients", getattr(options, "clients", None), 1, CLIENTS_MAX),
        ("rate", getattr(options, "rate", None), 0.1, 1e6),
        ("in-flight", getattr(options, "in_flight", None), 1, COUNT_MAX),
        ("batch", getattr(options, "batch", None), 1, BATCHES_MAX.get(options.kind, 1)),
        ("kill-at", getattr(options, "kill_at", None), 0.01, 0.99),
        ("block-interval-ms", options.block_interval_ms, 1, 60_000),
    ]
    for name, value, least, most in bounds:
        if value is not None and not least <= value <= most:
            raise ClusterError(f"--{name} {value:g}: from {least:g} to {most:g}")
    if options.folder is not None and not options.folder.is_dir():
        raise ClusterError(f"--folder {options.folder}: there is no such folder")
    is_given = bool(getattr(options, "rpc", None) or getattr(options, "gateway", None))
    if is_given and getattr(options, "kill_at", None):
        raise ClusterError("--kill-at needs a network of its own: leave --gateway and --rpc out")
    if is_given and not (options.rpc and (options.kind == "transactions" or options.gateway)):
        raise ClusterError("a network that runs is named by --gateway and --rpc, once for each validator")


def raise_file_limit(wanted: int) -> None:
    """Let this process open so many files. Raises ClusterError where the system forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ClusterError(f"--clients needs {wanted} open files, and only {hard} are allowed (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def workload_of(bed: Testbed, options: argparse.Namespace, clients: int, count: int) -> Workload:
    """The work that the options ask for."""
    batch = getattr(options, "batch", None) or BATCHES.get(options.kind, 1)
    if options.kind == "votes":
        return await votes.workload(bed, mode=options.mode, count=count, batch=batch)
    if options.kind == "transactions":
        urls = list(bed.rpc_urls.values())
        return await transactions.workload(urls, mode=options.mode, count=count, batch=batch, clients=clients)
    return await anchors.workload(bed, count=count)


async def run_loads(options: argparse.Namespace, console: Console) -> list[Run]:
    """All runs of a load."""
    clients, count = {
        "votes": lambda: votes.sizes(options.mode),
        "transactions": lambda: transactions.sizes(options.mode),
        "anchors": anchors.sizes,
    }[options.kind]()
    clients, count = options.clients or clients, options.count or count
    raise_file_limit(clients + FILES_SPARE)
    pace = Pace(
        clients,
        options.rate,
        None if options.kind == "votes" else options.in_flight,  # votes wait for finality by themselves
        getattr(options, "kill_at", None),
    )

    async def one(bed: Testbed) -> Run:
        return await measure(bed, await workload_of(bed, options, clients, count), pace)

    runs = []
    for number in range(options.runs):
        with console.status(f"run {number + 1} of {options.runs} …"):
            if options.rpc:
                runs.append(await one(await given(options.gateway or "", options.rpc)))
            else:
                async with fresh(
                    folder=options.folder,
                    validators=options.validators,
                    block_interval_ms=options.block_interval_ms,
                    first_port=options.port,
                ) as bed:
                    runs.append(await one(bed))
    return runs


def run(options: argparse.Namespace) -> int:
    """The verb. The exit code: 0 when everything added up, 1 when not."""
    check(options)
    console = Console(highlight=False)
    where = report.machine_shown(_synced_write_ms(options.folder))
    try:
        runs = uvloop.run(run_loads(options, console))
    except RpcFailed as error:
        raise ClusterError(str(error)) from None
    told = report.document(runs, where)
    report.show(console, told)
    if options.json is not None:
        report.write_json(options.json, told)
    if options.plot is not None:
        options.plot.write_bytes(report.plot(runs[-1]))
    return 1 if any(one.problems for one in runs) else 0


def _synced_write_ms(folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return machine.synced_write_ms(Path(place))
