"""What a run of `psephos chaos` says at its end: verdict, figures, the history as JSON lines, and a picture."""

import json
import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.canvas import Colour
from cluster.chart import COLOURS, Band, Curve, Panel, draw
from cluster.faults import KINDS
from cluster.files import write_atomically
from cluster.history import Disk, Request, Violation
from cluster.injector import Done
from cluster.load import Load
from cluster.network import Network
from cluster.sampler import HeightSample, Usage

SHOWN_MAX = 20
_FAULT_COLOURS: dict[str, Colour] = {
    "kill": (214, 39, 40),
    "pause": (255, 127, 14),
    "restart": (227, 190, 30),
    "blackout": (0, 0, 0),
    "gateway": (148, 103, 189),
    "gateway-pause": (197, 176, 213),
    "bootnode": (127, 127, 127),
}
_CONFIRMED: Colour = (31, 119, 180)
_TALLY: Colour = (44, 160, 44)


@dataclass(slots=True)
class Result:
    """Everything that a run has seen. Seconds count from the beginning of the load."""

    seed: int
    load: Load
    duration_s: float
    faults_end_s: float = 0.0
    settled_s: float | None = None  # how long after the load's end all was well again; None: it never was
    ended_s: float = 0.0
    done: list[Done] = field(default_factory=list)
    heights: list[HeightSample] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


def make(result: Result, network: Network) -> dict[str, Any]:
    """The figures, ready for JSON."""
    load = result.load
    submitted = [request for request in load.requests if request.kind == "submit"]
    waits_ms = sorted(1000 * (r.ended_s - r.started_s) for r in submitted if r.outcome == "ok")
    longest_s, at_s = _longest_wait(result)
    return {
        "verdict": "broken" if result.violations else "kept",
        "violations": [violation._asdict() for violation in result.violations[:1000]],
        "violations_count": len(result.violations),
        "seed": result.seed,
        "duration_s": result.duration_s,
        "election_id": load.key.election,
        "faults": dict(Counter(done.fault.kind for done in result.done)),
        "requests": len(load.requests),
        "outcomes": dict(Counter(request.outcome for request in load.requests)),
        "tallies_read": len(load.tallies),
        "confirmed_ms": {
            "p50": round(statistics.median(waits_ms)) if waits_ms else None,
            "p99": round(waits_ms[int(len(waits_ms) * 0.99)]) if waits_ms else None,
            "max": round(waits_ms[-1]) if waits_ms else None,
        },
        "ballots": {disk.name: len(disk.ballots) for disk in result.disks},
        "heights": {disk.name: len(disk.hashes) - 1 for disk in result.disks},
        "longest_wait_for_a_block_s": round(longest_s, 2),
        "longest_wait_began_s": round(at_s, 2),
        "settled_s": None if result.settled_s is None else round(result.settled_s, 2),
        "usage": _usage(result, network),
    }


def _longest_wait(result: Result) -> tuple[float, float]:
    """The longest time in which no validator told of a new height, and when it began."""
    highest, since, longest = -1, 0.0, (0.0, 0.0)
    for sample in result.heights:
        if sample.height > highest:
            longest = max(longest, (sample.at_s - since, since))
            highest, since = sample.height, sample.at_s
    return max(longest, (result.ended_s - since, since))


def _usage(result: Result, network: Network) -> dict[str, dict[str, Any]]:
    """Memory and descriptors of each process: of its first incarnation's and its last one's newest samples."""
    by_name: dict[str, dict[int, Any]] = defaultdict(dict)
    for usage in result.usages:
        by_name[usage.name][usage.pid] = usage
    shown = {}
    for process in network:
        lives = list(by_name[process.name].values())
        if lives:
            shown[process.name] = {
                "lives": len(lives),
                "resident_mib": [round(life.resident_bytes / 2**20, 1) for life in (lives[0], lives[-1])],
                "descriptors": [life.descriptors for life in (lives[0], lives[-1])],
            }
    return shown


def write(folder: Path, result: Result, network: Network, report: dict[str, Any]) -> None:
    """history.jsonl, report.json and chaos.png in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_plain(request)) for request in result.load.requests]
    write_atomically(folder / "history.jsonl", "\n".join(lines) + "\n")
    write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "chaos.png", picture(result, network))


def _plain(request: Request) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return "0x" + value.hex()
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return round(value, 4) if isinstance(value, float) else value

    return {name: plain(value) for name, value in asdict(request).items()}


def picture(result: Result, network: Network) -> bytes:
    """Height of each validator and confirmed ballots over time, with the faults marked."""
    heights: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in result.heights:
        heights[sample.name].append((sample.at_s, sample.height))
    validators = [process.name for process in network.of_kind("validator")]
    curves = [Curve(name, heights[name], COLOURS[index % len(COLOURS)]) for index, name in enumerate(validators)]
    first_ok: dict[bytes, float] = {}
    for request in result.load.requests:
        if request.outcome == "ok":
            first_ok.setdefault(request.record_id, request.ended_s)
    confirmed = [(at_s, float(count)) for count, at_s in enumerate(sorted(first_ok.values()), 1)]
    tallies = sorted((tally.ended_s, float(sum(tally.counts))) for tally in result.load.tallies)
    panels = [
        Panel("final height", curves),
        Panel("ballots", [Curve("in the tally", tallies, _TALLY), Curve("told confirmed", confirmed, _CONFIRMED)]),
    ]
    bands = [
        Band(target, done.began_s, done.ended_s, _FAULT_COLOURS[done.fault.kind])
        for done in result.done
        for target in done.fault.targets
    ]
    used = {done.fault.kind for done in result.done}
    legend = [(kind, _FAULT_COLOURS[kind]) for kind in KINDS if kind in used]
    kept = "BROKEN" if result.violations else "kept"
    title = f"psephos chaos, seed {result.seed}: {len(result.load.requests)} requests, promises {kept}"
    return draw(title, panels, [process.name for process in network], bands, legend, result.ended_s)


def show(console: Console, report: dict[str, Any], folder: Path) -> None:
    """Print verdict and figures."""

    def row(name: str, text: str) -> None:
        console.print(f"  {name:<12} {text}", soft_wrap=True, markup=False)

    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))

    times = report["confirmed_ms"]
    console.print()
    row("faults", counted(report["faults"]) or "none")
    row(
        "requests",
        f"{report['requests']}: {counted(report['outcomes'])}; the tally read {report['tallies_read']} times",
    )
    row("confirmed", f"in {times['p50']} ms (median), {times['p99']} ms (99 %), {times['max']} ms (longest)")
    row(
        "on disk",
        "; ".join(f"{name}: {n} ballots, height {report['heights'][name]}" for name, n in report["ballots"].items()),
    )
    row(
        "blocks",
        f"the longest wait for one was {report['longest_wait_for_a_block_s']} s, from "
        f"{report['longest_wait_began_s']} s on",
    )
    settled = report["settled_s"]
    row("recovery", "NOT within the time allowed" if settled is None else f"all well {settled} s after the load ended")
    for name, usage in report["usage"].items():
        (first, last), (few, many) = usage["resident_mib"], usage["descriptors"]
        row(name, f"{usage['lives']} lives; {first} → {last} MiB, {few} → {many} descriptors")
    row("files", str(folder))
    console.print()
    for violation in report["violations"][:SHOWN_MAX]:
        console.print(f"✗ {violation['rule']}: {violation['detail']}", style="red", soft_wrap=True, markup=False)
    more = report["violations_count"] - SHOWN_MAX
    if more > 0:
        console.print(f"… and {more} more in report.json", style="red")
    if report["violations_count"]:
        console.print("[bold red]BROKEN[/bold red]: the rules above do not hold")
    else:
        console.print("[bold green]KEPT[/bold green]: every promise, checked on every request and every disk")
