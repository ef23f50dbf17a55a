"""What a person sees: the table of endpoints, the line to vote with, the live status line, the status table."""

import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.network import Network, Process
from cluster.probe import Health
from cluster.processes import State

FILE_WIDTH = 200  # of a table that goes to a file or a program, where folded names and addresses cannot be searched
PURPOSE = {"bootnode": "peer records", "validator": "JSON-RPC", "observer": "JSON-RPC", "gateway": "HTTP API"}


def make_console() -> Console:
    """The console of a table: as wide as the terminal; wide enough for every cell where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def endpoints_table(network: Network, pids: Mapping[str, int]) -> Table:
    """Who listens where."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("process", "pid", "address for", "URL", "p2p"):
        table.add_column(heading, no_wrap=True)
    for process in network:
        table.add_row(
            process.name,
            str(pids.get(process.name, "–")),
            PURPOSE[process.kind],
            process.url,
            f"{process.host}:{process.p2p_port}" if process.p2p_port else "",
        )
    return table


def vote_line(gateway: Process, election_id: int) -> str:
    """A shell command that casts an open ballot, each time it is run with a voter id that is new."""
    return (
        f"curl -s {gateway.url}/api/votes/submit -H 'content-type: application/json' "
        f"""-d '{{"voter_id": "voter-'$(date +%s%N)'", "election_id": {election_id}, "choice": 0}}'"""
    )


def results_line(gateway: Process, election_id: int) -> str:
    """A shell command that reads the tally."""
    return f"curl -s '{gateway.url}/api/votes/results?election_id={election_id}'"


def _largest(values: list[int | None]) -> str:
    known = [value for value in values if value is not None]
    return str(max(known)) if known else "–"


def status_line(network: Network, health: Mapping[str, Health], states: Mapping[str, State]) -> Text:
    """Height, round, peers, mempool and ballots of the whole network in one line, and who is missing."""
    validators = [process.name for process in network.of_kind("validator")]
    answers = [health.get(name, Health()) for name in validators]
    up = sum(answer.healthy for answer in answers)
    line = Text(no_wrap=True, overflow="ellipsis")
    quorum = -(-2 * len(validators) // 3)
    line.append("● ", style="green" if up == len(validators) else "yellow" if up >= quorum else "red")
    peers = ",".join("–" if answer.peers is None else str(answer.peers) for answer in answers)
    line.append(
        f"height {_largest([answer.height for answer in answers])} · round {_largest([a.round for a in answers])} · "
        f"validators {up}/{len(validators)} · peers {peers} · mempool {_largest([a.mempool for a in answers])} · "
        f"ballots {_largest([a.ballots for a in answers])} · anchors {_largest([a.anchors for a in answers])}"
    )
    if up < quorum:
        line.append(f" · below the quorum of {quorum}: the chain waits", style="red")
    gateway = network.gateway
    level = health[gateway.name].level if gateway and gateway.name in health else None
    if level is not None and level > 1:
        line.append(f" · gateway level {level}", style="yellow")
    for process in network:
        state = states.get(process.name, "stopped")
        if state != "running":
            line.append(f" · {process.name} {state}", style="red" if state == "stopped" else "yellow")
    return line


def status_table(rows: list[dict[str, object]], data_dir: Path) -> Table:
    """`psephos status` for people; folders and logs are shown relative to the data directory."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "pid", "height", "health", "url", "p2p", "folder", "log"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [row["name"], row["pid"], row["height"], row["health"], row["url"], row["p2p"]]
        cells += [os.path.relpath(str(row[path]), data_dir) for path in ("data_dir", "log")]
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    return table


def copyable(console: Console, label: str, command: str) -> None:
    """Print a command on a line of its own that no terminal width breaks."""
    console.print(f"\n[bold]{label}[/bold]")
    console.print(command, soft_wrap=True, markup=False, highlight=False)
