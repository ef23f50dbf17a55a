"""Tables in Markdown: put between two markers of a file, beside prose that stays, and the machine they were made on."""

import datetime
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.bench import machine, report


def put(path: Path, begins: str, ends: str, text: str) -> None:
    """Replace what is between two markers of a file, in one step: whoever interrupts this finds the old or the new.

    Raises ValueError when the file lacks a marker.
    """
    before, opened, rest = path.read_text().partition(begins)
    _, closed, after = rest.partition(ends)
    if not opened or not closed:
        raise ValueError(f"{path}: expected the markers {begins!r} and {ends!r}")
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"{before}{begins}\n\n{text.strip()}\n\n{ends}{after}")
    fresh.replace(path)


def between(path: Path, begins: str, ends: str) -> str:
    """What is between two markers of a file; "" where nothing is."""
    return path.read_text().partition(begins)[2].partition(ends)[0].strip()


def row(cells: Sequence[str]) -> str:
    """One line of a table; what would break it is taken out."""
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def today() -> str:
    """The date, as in 2026-01-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def machine_line() -> str:
    """The machine in words: its processor, cores, system and Python, what a synced write takes, and the date."""
    with tempfile.TemporaryDirectory() as folder:
        told = report.machine_shown(machine.synced_write_ms(Path(folder)))
    cores = len(os.sched_getaffinity(0))
    return (
        f"Machine: {told['processor']}, {cores} cores; {told['system']}; Python {told['python']}; a synced write of "
        f"4 KiB takes {told['synced_write_ms']:.2f} ms. {today()}."
    )
