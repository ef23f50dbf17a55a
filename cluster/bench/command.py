"""`psephos bench`: checks the options, runs a benchmark as often as asked, and tells what came of it."""

import argparse
import resource
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from cluster.bench import anchors, catchup, growth, machine, report, transactions, votes
from cluster.bench.run import Pace, Run, Workload, measure
from cluster.bench.testbed import Testbed, fresh, given
from cluster.bench.wire import RpcFailed
from cluster.network import ClusterError, Kind

BATCHES = {"votes": 500, "transactions": 50}
BATCHES_MAX = {"votes": 1_000, "transactions": 1_000}
CLIENTS_MAX = 8_192
COUNT_MAX = 10_000_000
FILES_SPARE = 128
RUNS_MAX = 100
KINDS: tuple[Kind, ...] = ("bootnode", "validator", "gateway")
OTHERS: dict[str, tuple[Callable[[Console, dict[str, Any]], None], Callable[[dict[str, Any]], bytes]]] = {
    "growth": (growth.show, report.plot_growth),
    "catch-up": (catchup.show, report.plot_catch_up),
}


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
        ("ballot-bytes", getattr(options, "ballot_bytes", None), 70, 4_000),
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


def _fresh(options: argparse.Namespace, kinds: Sequence[Kind] = KINDS) -> AbstractAsyncContextManager[Testbed]:
    return fresh(
        folder=options.folder,
        validators=options.validators,
        block_interval_ms=options.block_interval_ms,
        first_port=options.port,
        kinds=kinds,
    )


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
                runs.append(await one(await given(getattr(options, "gateway", None) or "", options.rpc)))
            else:
                async with _fresh(options) as bed:
                    runs.append(await one(bed))
    return runs


async def run_others(options: argparse.Namespace, console: Console) -> list[tuple[dict[str, Any], list[str]]]:
    """All runs of catch-up or growth, without a gateway."""
    raise_file_limit(FILES_SPARE)
    runs = []
    for number in range(options.runs):
        with console.status(f"run {number + 1} of {options.runs} …"):
            async with _fresh(options, ("bootnode", "validator")) as bed:
                if options.kind == "growth":
                    runs.append(await growth.run(bed, options.count or growth.COUNT, options.ballot_bytes))
                else:
                    count = options.count or catchup.COUNTS[options.of]
                    runs.append(await catchup.run(bed, options.of, count))
    return runs


def run(options: argparse.Namespace) -> int:
    """The verb. The exit code: 0 when everything added up, 1 when not."""
    check(options)
    console = Console(highlight=False)
    where = report.machine_shown(_synced_write_ms(options.folder))
    try:
        if options.kind in OTHERS:
            told = report.document(uvloop.run(run_others(options, console)), where)
            show, plot = OTHERS[options.kind]
            show(console, told["median"])
            if options.plot is not None:
                options.plot.write_bytes(plot(told["runs"][-1]))
        else:
            runs = uvloop.run(run_loads(options, console))
            told = report.document([(one.figures, one.problems) for one in runs], where)
            report.show(console, told)
            if options.plot is not None:
                options.plot.write_bytes(report.plot(runs[-1]))
    except RpcFailed as error:
        raise ClusterError(str(error)) from None
    report.show_checks(console, told)
    if options.json is not None:
        report.write_json(options.json, told)
    return 1 if any(one["problems"] for one in told["runs"]) else 0


def _synced_write_ms(folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return machine.synced_write_ms(Path(place))
