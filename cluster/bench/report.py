"""What a benchmark tells: a table for people, a document for programs, a picture of the run."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.bench.figures import medians, per_second
from cluster.bench.run import Run
from cluster.chart import COLOURS, Band, Curve, Panel, draw

BIN_S = 0.5
OTHERS_CORES = 0.15  # more than this and somebody else was at work on the machine
DEATH_COLOUR = (214, 39, 40)


def machine_shown(folder_ms: float | None) -> dict[str, Any]:
    """What the figures hang on besides the program."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "system": platform.platform(),
        "python": platform.python_version(),
        "synced_write_ms": folder_ms,
    }


def document(runs: Sequence[tuple[dict[str, Any], list[str]]], where: dict[str, Any]) -> dict[str, Any]:
    """Everything, with the medians of all runs (figures and problems); each is the median of that figure."""
    return {
        "machine": where,
        "runs": [figures | {"problems": problems} for figures, problems in runs],
        "median": medians([figures for figures, _ in runs]),
    }


def write_json(path: Path, told: dict[str, Any]) -> None:
    """The document as a file."""
    path.write_text(json.dumps(told, indent=1) + "\n")


def show(console: Console, told: dict[str, Any]) -> None:
    """The medians, and each run's throughput where there are several."""
    median, runs = told["median"], told["runs"]
    many = f", medians of {len(runs)} runs" if len(runs) > 1 else ""
    rate = f", {median['rate']:,.0f} a second asked for" if median["rate"] else ""
    console.print(
        f"\n[bold]{median['kind']}, {median['mode']}[/bold]: {median['records']:,.0f} records, "
        f"{median['records_a_request']:,.0f} to a request, {median['clients']:,.0f} connections{rate}{many}"
    )
    console.print(
        f"  [bold]{median['per_second']:,.0f} a second[/bold] final on all validators "
        f"({median['final']:,.0f} in {median['seconds']:.2f} s, {median['blocks']:,.0f} blocks)"
    )
    if len(runs) > 1:
        each = [f"{run['per_second']:,.0f}" for run in runs]
        console.print(f"  each run: {', '.join(each)} a second")
    latency = median["latency_ms"]
    if latency:
        console.print(
            "  submission to final, ms: " + ", ".join(f"{name} {value:,.0f}" for name, value in latency.items())
        )
    if median.get("death"):
        _show_death(console, median["death"])
    console.print(f"  longest time without a final record: {median['longest_gap_s'] * 1e3:,.0f} ms")
    console.print(_processes(median))
    _show_limits(console, median)


def show_checks(console: Console, told: dict[str, Any]) -> None:
    """What did not add up, or that everything did."""
    runs = told["runs"]
    for number, run in enumerate(runs, 1):
        for problem in run["problems"]:
            console.print(f"  [red]✗ run {number}: {problem}[/red]", markup=True, highlight=False)
    if all(run["checked"] for run in runs):
        console.print("  ✓ checked afterwards: everything counted once, the same on every validator")


def _show_death(console: Console, death: dict[str, float]) -> None:
    console.print(
        f"  one validator killed after {death['killed_after_s']:.1f} s: {death['per_second_before']:,.0f} a second "
        f"before, {death['per_second_after']:,.0f} after the first 2 s: ratio {death['ratio']:.2f} "
        f"({death['ratio_with_settling']:.2f} with them)"
    )
    console.print(
        f"  longest time without a final record after the death: {death['longest_gap_s'] * 1e3:,.0f} ms; "
        f"after the first 2 s: {death['longest_gap_settled_s'] * 1e3:,.0f} ms"
    )


def _processes(median: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 3), header_style="bold")
    table.add_column("  process")
    for heading in ("CPU s", "cores", "µs a record", "memory MB", "peak MB", "disk bytes a record"):
        table.add_column(heading, justify="right")
    for name, taken in median["processes"].items():
        disk = median["bytes_a_record"].get(name)
        table.add_row(
            f"  {name}",
            f"{taken['cpu_s']:.2f}",
            f"{taken['cores']:.2f}",
            f"{taken['us_a_record']:.1f}",
            f"{taken['resident_bytes'] / 1e6:.0f}",
            f"{taken['resident_peak_bytes'] / 1e6:.0f}",
            "" if disk is None else f"{disk:.0f}",
        )
    table.add_row("  all", "", f"{median['machine']['busy_cores']:.2f}", f"{median['cpu_us_a_record']:.1f}", "", "", "")
    return table


def _show_limits(console: Console, median: dict[str, Any]) -> None:
    machine = median["machine"]
    if median["generator_share"] is None:
        share = (
            f"  the generator kept {machine['busy_cores']:.2f} cores busy; the network's processes are not known here"
        )
    else:
        share = f"  the generator took {median['generator_share']:.0%} of the CPU"
    if median["generator_was_limit"]:
        share += "; [yellow]! it was the limit: the system could have done more[/yellow]"
    console.print(share)
    if median["rate"]:
        console.print(
            f"  requests left late by {median['sent_late_ms_p99']:.1f} ms (99 %); latencies count from when due"
        )
    if machine["others_cores"] is not None and machine["others_cores"] > OTHERS_CORES:
        console.print(
            f"  [yellow]! something else used {machine['others_cores']:.2f} of {machine['cores']:.0f} cores: "
            "the figures are too low[/yellow]"
        )


def plot_growth(figures: dict[str, Any]) -> bytes:
    """A PNG of a run of growth: rate, cost of a ballot and memory of a validator while the election grew."""
    moments, ends_s = [], 0.0
    for chunk in figures["chunks"]:
        moments.append(ends_s)
        ends_s += chunk["seconds"]

    def curve(name: str, values: Sequence[float]) -> Panel:
        return Panel(name, [Curve(name, [*zip(moments, values, strict=True), (ends_s, values[-1])], COLOURS[0])])

    chunks = figures["chunks"]
    panels = [
        curve("final ballots a second", [figures["chunk"] / one["seconds"] for one in chunks]),
        curve("CPU of a validator, us a ballot", [one["us_a_ballot"] for one in chunks]),
        curve("memory of a validator, MB", [one["resident_bytes"] / 1e6 for one in chunks]),
    ]
    title = f"psephos bench growth: {figures['records']} ballots, the last against the first {figures['ratio']:.2f}"
    return draw(title, panels, [], [], [], ends_s)


def plot_catch_up(figures: dict[str, Any]) -> bytes:
    """A PNG of a run of catch-up: how many blocks the wiped validator had when."""
    curve = Curve("blocks", figures["heights"], COLOURS[0])
    title = f"psephos bench catch-up {figures['mode']}: {figures['per_second']:.0f} a second"
    return draw(title, [Panel(f"blocks of {figures['blocks']}", [curve])], [], [], [], figures["seconds"])


def plot(run: Run) -> bytes:
    """A PNG: what became final in each half second, how much work each process did, and memory."""
    began, span = run.began_s, run.ended_s - run.began_s
    bins = [began + BIN_S * number for number in range(int(span / BIN_S) + 1)]
    rates = [(at - began, per_second(run.final, at, min(at + BIN_S, run.ended_s))) for at in bins]
    rate = Curve("final records a second", [(0.0, 0.0), *rates, (span, rates[-1][1])], COLOURS[0])
    names = list(run.figures["processes"])
    cores, memory = [], []
    seen = [one for one in run.snapshots if began - BIN_S <= one.at_s <= run.ended_s + BIN_S]
    for number, name in enumerate(names):
        there = [one for one in seen if name in one.taken]
        points = [
            (
                after.at_s - began,
                100 * (after.taken[name].cpu_s - before.taken[name].cpu_s) / (after.at_s - before.at_s),
            )
            for before, after in zip(there, there[2:], strict=False)
        ]
        colour = COLOURS[number % len(COLOURS)]
        cores.append(Curve(name, points, colour))
        memory.append(Curve(name, [(one.at_s - began, one.taken[name].resident_bytes / 1e6) for one in there], colour))
    panels = [
        Panel("final records a second", [rate]),
        Panel("CPU, % of one core", cores),
        Panel("memory, MB", memory),
    ]
    bands = [Band(run.victim, run.killed_s - began, span, DEATH_COLOUR)] if run.killed_s is not None else []
    lanes = [run.victim] if run.victim else []
    title = f"psephos bench {run.figures['kind']} {run.figures['mode']}: {run.figures['per_second']:.0f} a second"
    return draw(title, panels, lanes, bands, [("killed", DEATH_COLOUR)] if bands else [], span)
