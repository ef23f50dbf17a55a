"""Every figure that has a target, five runs each, in one table: `python -m bench.targets` (`make bench-targets`).

Each row is a command line, shown beside it, so that one can be run alone. JSON of every run, and pictures, are left in
build/targets.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "targets"
REPORT = ROOT / "bench" / "targets.md"
RUNS = 5
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Target:
    """One figure: how it is found in a document's medians, and its bound."""

    what: str
    figure: Callable[[dict[str, Any]], float]
    bound: float
    at_least: bool
    unit: str = ""

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One command, and the targets that its figures are held against."""

    name: str
    command: tuple[str, ...]
    targets: tuple[Target, ...]
    plots: bool = True


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["per_second"])


def _worst(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda figures: max(figures[name].values())


def _of_anvil(mode: str) -> Callable[[dict[str, Any]], float]:
    return lambda document: document["anvil"]["psephos_ratio"][mode]


def bench(*arguments: str) -> tuple[str, ...]:
    """The command line of a benchmark."""
    return ("-P", "-m", "cluster", "bench", *arguments)


ROWS = (
    Row(
        "votes-batch",
        bench("votes", "--mode", "batch", "--count", "250000"),
        (Target("votes, `POST /api/votes/batch` of 500", _rate, 25_000, True, "/s"),),
    ),
    Row(
        "votes-single",
        bench("votes", "--mode", "single", "--clients", "2048", "--count", "80000"),
        (Target("votes, single `POST /api/votes/submit`, 2,048 connections waiting", _rate, 8_000, True, "/s"),),
    ),
    Row(
        "transactions-batch",
        bench("transactions", "--mode", "batch", "--count", "40000"),
        (Target("Ethereum transactions, JSON-RPC batches of 50", _rate, 6_000, True, "/s"),),
    ),
    Row(
        "transactions-single",
        bench("transactions", "--mode", "single", "--count", "30000"),
        (Target("Ethereum transactions, single calls", _rate, 4_000, True, "/s"),),
    ),
    Row(
        "anvil",
        ("-m", "bench.peers", "--only", "anvil", "--count", "30000"),
        (
            Target("the same in batches of 50, of anvil's", _of_anvil("batch"), 0.7, True, "×"),
            Target("the same in single calls, of anvil's", _of_anvil("single"), 1.0, True, "×"),
        ),
        plots=False,
    ),
    Row(
        "anchors",
        bench("anchors", "--count", "20000"),
        (Target("anchors, single calls", _rate, 3_000, True, "/s"),),
    ),
    Row(
        "catch-up-ballots",
        bench("catch-up", "--of", "ballots", "--count", "400000"),
        (Target("catch-up of a wiped validator, ballots", _rate, 20_000, True, "/s"),),
        plots=False,
    ),
    Row(
        "catch-up-transactions",
        bench("catch-up", "--of", "transactions", "--count", "100000"),
        (Target("catch-up of a wiped validator, transactions", _rate, 8_000, True, "/s"),),
        plots=False,
    ),
    Row(
        "latency",
        bench("votes", "--rate", "500", "--clients", "256", "--count", "15000"),
        (
            Target("submission to `confirmed`, 500 votes/s, p50", lambda f: f["latency_ms"]["p50"], 120, False, " ms"),
            Target("submission to `confirmed`, 500 votes/s, p99", lambda f: f["latency_ms"]["p99"], 400, False, " ms"),
        ),
    ),
    Row(
        "death",
        bench("votes", "--mode", "single", "--clients", "2048", "--count", "120000", "--kill-at", "0.5"),
        (
            Target("one validator dead, throughput of three alive's", lambda f: f["death"]["ratio"], 0.6, True, "×"),
            Target(
                "one validator dead, longest time without a final record after the first 2 s",
                lambda f: f["death"]["longest_gap_settled_s"],
                1.0,
                False,
                " s",
            ),
        ),
    ),
    Row(
        "growth",
        bench("growth", "--count", "2000000"),
        (
            Target("cost of a ballot at 2,000,000 against the first 100,000", lambda f: f["ratio"], 1.2, False, "×"),
            Target("disk for a ballot of 150 bytes, a validator", _worst("bytes_a_record"), 450, False, " B"),
            Target(
                "memory of a validator at 2,000,000 ballots",
                lambda f: max(*f["resident_bytes"].values(), f["restarted_bytes"]) / MEGABYTE,
                250,
                False,
                " MB",
            ),
            Target("start of a validator at 2,000,000 ballots", lambda f: f["start_s"], 3.0, False, " s"),
        ),
        plots=False,
    ),
)


def measure(row: Row, runs: int) -> dict[str, Any] | None:
    """Run a row's command; the medians that it wrote, None when it failed."""
    told = OUT / f"{row.name}.json"
    told.unlink(missing_ok=True)
    command = [sys.executable, *row.command, "--runs", str(runs), "--json", str(told)]
    command += ["--plot", str(OUT / f"{row.name}.png")] if row.plots else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode or not told.is_file():
        return None
    document: dict[str, Any] = json.loads(told.read_text())
    medians: dict[str, Any] = document.get("median", document)
    return medians


def shown(value: float, unit: str) -> str:
    """A figure as a person reads it."""
    return f"{value:,.0f}{unit}" if abs(value) >= 20 else f"{value:.2f}{unit}"


def lines_of(row: Row, medians: dict[str, Any] | None, runs: int) -> Iterator[str]:
    """The table's lines of a row."""
    for target in row.targets:
        wanted = f"{'≥' if target.at_least else '≤'} {shown(target.bound, target.unit)}"
        try:
            value = None if medians is None else target.figure(medians)
        except (KeyError, TypeError):
            value = None
        found = "not measured" if value is None else shown(value, target.unit)
        verdict = "–" if value is None else "✓" if target.is_met(value) else "✗"
        command = " ".join(row.command).replace("-P -m cluster", "psephos").replace("-m bench.peers", "bench.peers")
        yield f"| {target.what} | {wanted} | **{found}** | {verdict} | `{command} --runs {runs}` |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when every target is met."""
    parser = argparse.ArgumentParser(description="every figure that has a target")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"medians of so many (default: {RUNS})")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="this row; once for each")
    parser.add_argument("--write", action="store_true", help="write bench/targets.md")
    options = parser.parse_args(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for row in ROWS:
        if not options.only or row.name in options.only:
            lines += lines_of(row, measure(row, options.runs), options.runs)
    text = "\n".join(["| work | target | median | | command |", "|---|---|---|---|---|", *lines, ""])
    print("\n" + text)
    if options.write:
        cores = len(os.sched_getaffinity(0))
        head = (
            f"# Figures\n\nMedians of {options.runs} runs, each on a fresh network of three validators and a gateway, "
        )
        head += f"generator included, on {cores} cores. Made by `make bench-targets ARGS=--write`.\n\n"
        REPORT.write_text(head + text)
    return 0 if all("| ✓ |" in line for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
