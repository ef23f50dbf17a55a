"""Every figure that has a target, medians of runs, in one table: `python -m bench.targets` (`make bench-targets`).

Each row is a command line, shown beside it, so that one can be run alone. The runs are interleaved: each row once, then
each again, so that a change of the machine meets all alike, and an interruption leaves something of each. JSON, output
and pictures of every run are left in build/targets.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import tables
from cluster.bench.speed import Speed, SpeedProbe

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "targets"
REPORT = ROOT / "bench" / "targets.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- the table: make bench-targets ARGS=--write -->", "<!-- the table ends -->"
HEADINGS = ("work", "target", "median", "least – most", "met", "cores at", "at full speed", "runs", "command")
RUNS = 5
RUN_WITHIN_S, STOP_WITHIN_S = 600.0, 30.0
SHARE_MIN = 0.005  # of the records: less, and some benchmark has nothing to measure
OTHERS_CORES = 0.15  # more than this, and somebody else was at work on the machine
SAID_CHARACTERS = 300
MEGABYTE = 1e6


class Failed(RuntimeError):
    """Why a run gave no figures."""


@dataclass(frozen=True, slots=True)
class Target:
    """One figure: how it is found in what a run told, and its bound.

    `at_equal_speed`: how it is found had the cores kept their speed through the run, where a run tells.
    """

    what: str
    figure: Callable[[dict[str, Any]], float]
    bound: float
    at_least: bool
    unit: str = ""
    at_equal_speed: Callable[[dict[str, Any]], float] | None = None

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


@dataclass(slots=True)
class Found:
    """What came of a row's runs: the figures of those that worked, why others did not, and how long each took."""

    figures: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left_out: int = 0
    took_s: list[float] = field(default_factory=list)


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
    ),
    Row(
        "catch-up-transactions",
        bench("catch-up", "--of", "transactions", "--count", "100000"),
        (Target("catch-up of a wiped validator, transactions", _rate, 8_000, True, "/s"),),
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
            Target(
                "cost of a ballot at 2,000,000 against the first 100,000",
                lambda f: f["ratio"],
                1.2,
                False,
                "×",
                lambda f: f["ratio_at_equal_speed"],
            ),
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
    ),
)


def scaled(row: Row, share: float) -> Row:
    """The same row with this share of its records."""
    words = list(row.command)
    at = words.index("--count") + 1
    words[at] = str(int(int(words[at]) * share))
    return replace(row, command=tuple(words))


def run_once(row: Row, number: int) -> dict[str, Any]:
    """One run of a row's command; what it told. Raises Failed."""
    told, log = OUT / f"{row.name}-{number}.json", OUT / f"{row.name}-{number}.log"
    told.unlink(missing_ok=True)
    command = [sys.executable, *row.command, "--runs", "1", "--json", str(told)]
    command += ["--plot", str(OUT / f"{row.name}-{number}.png")] if row.plots else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    with log.open("wb") as output, SpeedProbe() as probe:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches it once, from here: twice, and it would not clean up
        )
        try:
            code = child.wait(RUN_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"not over after {RUN_WITHIN_S:.0f} s") from None
        finally:
            _stop(child)
    if code or not told.is_file():
        said = " ".join(log.read_text(errors="replace").split())
        raise Failed(f"exit code {code}: {said[-SAID_CHARACTERS:]}")
    document: dict[str, Any] = json.loads(told.read_text())
    figures: dict[str, Any] = document.get("median", document)
    return figures | {"speed": probe.speed}


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """End a run that was given up, as Ctrl-C would: it takes its network down."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def shown(value: float, unit: str) -> str:
    """A figure as a person reads it."""
    return f"{value:,.0f}{unit}" if abs(value) >= 20 else f"{value:.2f}{unit}"


def values_of(target: Target, figures: Sequence[dict[str, Any]]) -> list[float]:
    """The target's figure of each run that has it."""
    values = []
    for one in figures:
        try:
            values.append(target.figure(one))
        except (KeyError, TypeError):
            continue
    return values


def speeds_of(figures: Sequence[dict[str, Any]]) -> list[Speed]:
    """How fast the cores were in each run that tells."""
    return [one["speed"] for one in figures if "speed" in one]


def at_full_speed(target: Target, figures: Sequence[dict[str, Any]], full_ms: float) -> tuple[str, str]:
    """At which part of their speed the cores ran (median), and what a rate would be had they run at all of it.

    Of a ratio of two parts of one run: what it would be had both run at one speed.

    `full_ms`: what the probe's work takes on a core that nobody slows.
    """
    parts = [full_ms / speed.mean_ms for speed in speeds_of(figures)]
    if not parts:
        return "", ""
    if target.at_equal_speed is not None:
        equal = values_of(replace(target, figure=target.at_equal_speed), figures)
        return f"{statistics.median(parts):.2f}", shown(statistics.median(equal), target.unit) if equal else ""
    values = values_of(target, figures)
    if target.unit != "/s" or len(values) != len(parts):
        return f"{statistics.median(parts):.2f}", ""
    full = statistics.median(value / part for value, part in zip(values, parts, strict=True))
    return f"{statistics.median(parts):.2f}", shown(full, target.unit)


def lines_of(row: Row, found: Found, before: Mapping[str, str], full_ms: float) -> Iterator[str]:
    """The table's lines of a row; `before`: lines of an earlier table, which stay where nothing was measured."""
    command = " ".join(row.command).replace("-P -m cluster", "psephos").replace("-m bench.peers", "bench.peers")
    for target in row.targets:
        wanted = f"{'≥' if target.at_least else '≤'} {shown(target.bound, target.unit)}"
        values = values_of(target, found.figures)
        if not values:
            empty = tables.row([target.what, wanted, "not measured", "", "–", "", "", "0", f"`{command}`"])
            yield before.get(target.what, empty)
            continue
        middle = statistics.median(values)
        bounds = f"{shown(min(values), '')} – {shown(max(values), target.unit)}"
        verdict = "✓" if target.is_met(middle) else "✗"
        runs = f"{len(values)} on {tables.today()}"
        cells = [target.what, wanted, f"**{shown(middle, target.unit)}**", bounds, verdict]
        yield tables.row([*cells, *at_full_speed(target, found.figures, full_ms), runs, f"`{command}`"])


def remarks_of(row: Row, found: Found) -> Iterator[str]:
    """What a reader must know to believe a row's figures."""
    if found.left_out:
        yield f"{row.name}: {len(found.figures)} runs, {found.left_out} fewer than wanted: the time given was up."
    yield from (f"{row.name}: {failure}" for failure in found.failures)
    limited = sum(bool(one.get("generator_was_limit")) for one in found.figures)
    if limited:
        yield f"{row.name}: the generator was the limit in {limited} of {len(found.figures)} runs."
    others = [one["machine"]["others_cores"] or 0.0 for one in found.figures if "machine" in one]
    if others and statistics.median(others) > OTHERS_CORES:
        yield f"{row.name}: something else used {statistics.median(others):.2f} cores meanwhile: figures are too low."


def earlier_lines(path: Path) -> dict[str, str]:
    """The lines of the table that a file has now, by their first cell."""
    lines = tables.between(path, TABLE_BEGINS, TABLE_ENDS).splitlines()
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| ") and line.count("|") > 2}


def text_of(found: Mapping[str, Found], rows: Sequence[Row], where: str, before: Mapping[str, str]) -> str:
    """The table, what must be said of it, and the machine."""
    lines = [tables.row(HEADINGS), "|" + "---|" * len(HEADINGS)]
    remarks: list[str] = []
    full_ms = min((speed.fast_ms for one in found.values() for speed in speeds_of(one.figures)), default=0.0)
    for row in rows:
        lines += lines_of(row, found.get(row.name, Found()), before, full_ms)
        remarks += remarks_of(row, found.get(row.name, Found()))
    return "\n".join([*lines, "", where, "", *(f"- {' '.join(remark.split())}" for remark in remarks)]).strip()


class Session:
    """Runs of several rows, one after the other; `tell` is called with what was found after each."""

    def __init__(self, rows: Sequence[Row], runs: int, ends_s: float, tell: Callable[[], None]) -> None:
        """`ends_s`: of time.monotonic; no run begins that would last beyond it."""
        self._ends_s, self._tell = ends_s, tell
        self._left = [*rows] * runs
        self._count = len(self._left)
        self._again: set[str] = set()
        self.found = {row.name: Found() for row in rows}

    def run(self) -> None:
        """All runs; one that failed is tried again at the end, once for each row."""
        while self._left:
            row = self._left.pop(0)
            found = self.found[row.name]
            if time.monotonic() + max(found.took_s, default=0.0) > self._ends_s:
                found.left_out += 1
                continue
            self._one(row, found)
            self._tell()

    def _one(self, row: Row, found: Found) -> None:
        number = len(found.took_s) + 1
        print(f"{time.strftime('%H:%M:%S')} {self._count - len(self._left)} of {self._count}: {row.name} …", flush=True)
        began_s = time.monotonic()
        try:
            figures = run_once(row, number)
        except Failed as failure:
            found.failures.append(f"run {number}: {failure}")
            print(f"  ✗ {failure}", flush=True)
            if row.name not in self._again:
                self._again.add(row.name)
                self._left.append(row)
                self._count += 1
        else:
            found.figures.append(figures)
            told = [f"{shown(value, target.unit)}" for target in row.targets for value in values_of(target, [figures])]
            print(f"  {', '.join(told)}", end="", flush=True)
        found.took_s.append(time.monotonic() - began_s)
        print(f"  ({found.took_s[-1]:.0f} s; {self._left_s() / 60:.0f} minutes left)", flush=True)

    def _left_s(self) -> float:
        """How long the rest takes, if each lasts as its row's runs did, or as any other's where there was none."""
        known = {name: statistics.median(found.took_s) for name, found in self.found.items() if found.took_s}
        typical = statistics.median(known.values())
        return sum(known.get(row.name, typical) for row in self._left)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when every figure was measured, met or not."""
    parser = argparse.ArgumentParser(description="every figure that has a target")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"medians of so many (default: {RUNS})")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="this row; once for each")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="this share of the records: a quick look")
    parser.add_argument(
        "--within", type=float, default=45.0, metavar="MIN", help="begin nothing that would last longer"
    )
    parser.add_argument("--write", action="store_true", help="put the table into bench/targets.md, after each run")
    options = parser.parse_args(arguments)
    if options.runs < 1 or not SHARE_MIN <= options.share <= 1:
        parser.error(f"--runs from 1; --share from {SHARE_MIN:g} to 1")
    OUT.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would a run
    every = ROWS if options.share == 1 else tuple(scaled(row, options.share) for row in ROWS)
    rows = [row for row in every if not options.only or row.name in options.only]
    where, before = tables.machine_line(), earlier_lines(REPORT) if options.write else {}
    shown_rows = every if options.write else rows

    def tell() -> None:
        if options.write:
            tables.put(REPORT, TABLE_BEGINS, TABLE_ENDS, text())

    def text() -> str:
        return text_of(session.found, shown_rows, where, before)

    session = Session(rows, options.runs, time.monotonic() + 60 * options.within, tell)
    try:
        session.run()
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
    print("\n" + text())
    return 0 if all(values_of(target, session.found[row.name].figures) for row in rows for target in row.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
