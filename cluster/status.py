"""`psephos status`: what runs, where, and how it is; once, or again and again in a terminal."""

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import closing

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster import view
from cluster.network import CONFIG_FILES, ClusterError, Network, Process, require
from cluster.probe import Health, Prober
from cluster.processes import ProcessTable
from cluster.supervisor import NAME as SUPERVISOR

Row = dict[str, object]


def run(options: argparse.Namespace) -> int:
    """Show the processes of a network, as the options ask for it."""
    network = require(options.data_dir)
    table = ProcessTable(options.data_dir)
    console = view.make_console()
    if options.interval_s <= 0:
        raise ClusterError(f"--interval-s {options.interval_s:g}: expected more than 0")
    with closing(Prober()) as prober:
        if not (options.once or options.json) and console.is_terminal:
            return _watch(network, table, prober, console, options.interval_s)
        rows = _rows(network, table, _ask(network, table, prober))
    if options.json:
        print(json.dumps(_document(network, table, rows), indent=2))
        return 0
    console.print(f"{_heading(network, table)}\n", soft_wrap=True)
    console.print(view.status_table(rows, table.data_dir))
    return 0


def _ask(network: Network, table: ProcessTable, prober: Prober) -> Mapping[str, Health]:
    return prober.ask(process for process in network if table.state(process.name) != "stopped")


def _watch(network: Network, table: ProcessTable, prober: Prober, console: Console, interval_s: float) -> int:
    """Draw the table again and again until Ctrl-C; what it last showed stays."""
    pace = Pace()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                began_s = time.monotonic()
                health = _ask(network, table, prober)
                pace.note(health, began_s)
                states = {process.name: table.state(process.name) for process in network}
                rows = _rows(network, table, health)
                line = view.status_line(network, health, states)
                hint = Text("Ctrl-C to leave; --once for folders and log files", style="dim")
                heading = Text(_heading(network, table))
                live.update(Group(heading, line, "", live_table(rows, pace), "", hint), refresh=True)
                time.sleep(max(0.0, began_s + interval_s - time.monotonic()))
    except KeyboardInterrupt:
        return 0


class Pace:
    """How fast numbers grow, between the last two looks at them."""

    def __init__(self) -> None:
        self._at_s: float | None = None
        self._last: dict[tuple[str, str], int] = {}
        self._per_s: dict[tuple[str, str], float] = {}

    def note(self, health: Mapping[str, Health], now_s: float) -> None:
        """Take a new look; `now_s` is monotonic."""
        passed_s = None if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        numbers = {
            (name, what): number
            for name, one in health.items()
            for what, number in (("height", one.height), ("ballots", one.ballots), ("anchors", one.anchors))
            if number is not None
        }
        self._per_s = {
            key: (number - self._last[key]) / passed_s
            for key, number in numbers.items()
            if passed_s and key in self._last
        }
        self._last = numbers

    def per_s(self, name: str, what: str) -> float | None:
        """Growth a second; None before the second look."""
        return self._per_s.get((name, what))


def live_table(rows: list[Row], pace: Pace) -> Table:
    """What changes, for a terminal of a hundred columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "health"):
        table.add_column(heading, overflow="fold")
    for heading in (
        "height",
        "behind",
        "blocks/s",
        "round",
        "peers",
        "mempool",
        "ballots",
        "ballots/s",
        "anchors",
        "pid",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    best = max((height for row in rows if isinstance(height := row["height"], int)), default=0)
    for row in rows:
        name, height = str(row["name"]), row["height"]
        style = {"running": "green" if row["ready"] else "yellow", "paused": "yellow"}.get(str(row["state"]), "red")
        health = str(row["health"]) if row["level"] in (None, 1) else f"{row['health']}, level {row['level']}"
        behind = best - height if isinstance(height, int) else None
        numbers = [height, behind, pace.per_s(name, "height"), row["round"], row["peers"], row["mempool"]]
        numbers += [row["ballots"], pace.per_s(name, "ballots"), row["anchors"], row["pid"]]
        table.add_row(name, Text(health, style=style), *map(_cell, numbers))
    return table


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _heading(network: Network, table: ProcessTable) -> str:
    supervisor = table.alive(SUPERVISOR)
    looked_after = f", looked after by pid {supervisor.pid}" if supervisor else ""
    return f"{table.data_dir}: chain {network.chain_id}{looked_after}"


def _document(network: Network, table: ProcessTable, rows: list[Row]) -> dict[str, object]:
    return {
        "data_dir": str(table.data_dir),
        "chain_id": network.chain_id,
        "genesis_hash": network.genesis_hash,
        "supervisor": owner.pid if (owner := table.alive(SUPERVISOR)) else None,
        "processes": rows,
    }


def _rows(network: Network, table: ProcessTable, health: Mapping[str, Health]) -> list[Row]:
    return [_row(process, table, health.get(process.name, Health())) for process in network]


def _row(process: Process, table: ProcessTable, health: Health) -> Row:
    identity = table.alive(process.name)
    state = table.state(process.name)
    if state == "stopped":
        told = "stopped"
    elif state == "paused":
        told = "paused"
    elif not health.healthy:
        told = f"unhealthy: {health.detail or 'GET /health failed'}"
    else:
        told = "ready" if health.ready else f"not ready: {health.detail}"
    return {
        "name": process.name,
        "kind": process.kind,
        "state": state,
        "pid": identity.pid if identity else None,
        "address": process.address or None,
        "url": process.url,
        "metrics": _metrics_url(process, table) if state != "stopped" else None,
        "p2p": f"{process.host}:{process.p2p_port}" if process.p2p_port else None,
        "data_dir": str(table.folder(process)),
        "log": str(table.log_file(process.name)),
        "config": str(table.folder(process) / CONFIG_FILES[process.kind]),
        "height": health.height,
        "round": health.round,
        "peers": health.peers,
        "mempool": health.mempool,
        "ballots": health.ballots,
        "anchors": health.anchors,
        "level": health.level,
        "healthy": health.healthy,
        "ready": health.ready,
        "health": told,
    }


def _metrics_url(process: Process, table: ProcessTable) -> str | None:
    """Where the process says that its metrics are; None where it has no such listener."""
    try:
        return (table.folder(process) / "metrics.url").read_text().strip()
    except OSError:
        return None
