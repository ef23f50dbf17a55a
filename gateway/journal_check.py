"""Checks a gateway's journal without the gateway: every link of the hash chain, every frame, and what still waits."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gateway.disk import Disk
from gateway.journal import replay_folder, segment_name, segment_numbers
from gateway.journal_format import FRAME_OVERHEAD_BYTES, JournalCorrupt, scan
from node.chain.domain import Domain


@dataclass(slots=True)
class Report:
    """What a folder of segments holds. `records` counts by kind and state; `link` is the last of the hash chain."""

    folder: Path
    domain: Domain | None = None
    segments: int = 0
    frames: int = 0
    torn: list[str] = field(default_factory=list)  # segments that end in bytes that were never acknowledged
    records: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    link: bytes = b""


def check_journal(folder: Path, domain: Domain | None = None) -> Report:
    """Check all segments of a folder. `domain`: the network that they must be of; that of the first one, when None.

    Raises JournalCorrupt where anything but the very end of a segment is damaged, and OSError.
    """
    disk, report = Disk(), Report(folder)
    if not folder.is_dir():
        raise JournalCorrupt(f"{folder} is no folder")
    for number in sorted(segment_numbers(disk.names(folder))):
        name = segment_name(number)
        data = disk.read(folder / name)
        found = scan(data, name)
        report.segments += 1
        if found is None:
            report.torn.append(name)
            continue
        report.frames += len(found.frames)
        if sum(len(body) + FRAME_OVERHEAD_BYTES for body, _ in found.frames) < len(data):
            report.torn.append(name)
        domain = domain or found.start.domain
    if domain is None:
        return report
    replay = replay_folder(folder, domain, disk)
    report.domain, report.link = domain, replay.link
    for replayed in replay.records.values():
        kind = type(replayed.accepted.record).__name__.lower()
        state = "waits" if replayed.pending else "refused" if replayed.place is None else "final"
        report.records[f"{kind} {state}"] += 1
        report.waiting += replayed.pending
    return report


def folders_of(path: Path) -> list[Path]:
    """The journal folders meant by a path: itself, or `journal` and `spool` in a gateway's folder."""
    inside = [path / name for name in ("journal", "spool") if (path / name).is_dir()]
    return inside or [path]
